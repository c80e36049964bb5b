"""How the shop's world changes over time, beyond people moving between personas.

- `static`: not at all.
- `drift`: every persona's visits, dwell, taste in prices and willingness to buy swing slowly and out of step with
  the others', and so does what people tend to become.
- `birth_death`: at 40% of the days one persona is born and recruits a part of everybody within five days; from 60% on
  nobody becomes a gift buyer any more, and those who are become something else within five days.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from producers.shop.draws import Floats, Ints
from producers.shop.personas import GIFT, HONEST, LIVE, PERSONAS, transitions
from producers.shop.settings import DAY_MS, ShopSettings

BORN_AT: Final = 0.4
DIES_AT: Final = 0.6
WITHIN_MS: Final = 5 * DAY_MS
RECRUITED: Final = 0.18
LIVE_WEIGHT: Final = 1.5
_PERIOD_MS: Final = 90 * DAY_MS
_SWING: Final = {"visits": 0.3, "dwell": 0.3, "taste": 0.4, "buy": 0.4}
_MIX_SWING: Final = 0.8
_NEVER: Final = np.iinfo(np.int64).max


@dataclass(frozen=True, slots=True)
class ForcedMoves:
    """When each user must move, by user number: recruited to the new persona, or driven out of the dying one."""

    recruited_at: Ints
    driven_out_at: Ints

    def next(self, user: Ints, since: Ints, persona: Ints, until: Ints) -> tuple[Ints, Ints]:
        """The end of the stay that began at `since`, and where it leads (-1: wherever the person wants)."""
        out = np.where(persona == GIFT, np.maximum(self.driven_out_at[user], since + 1), _NEVER)
        until = np.minimum(until, out)
        call = self.recruited_at[user]
        called = (call > since) & (call < until) & (persona != LIVE)
        return np.where(called, call, until), np.where(called, LIVE, -1)


class Scenario:
    """One of the three worlds, as functions of time (epoch ms) and persona number."""

    def __init__(self, settings: ShopSettings) -> None:
        self._start = settings.start_ms
        self._drifts = settings.scenario == "drift"
        changes = settings.scenario == "birth_death"
        span = settings.days * DAY_MS
        self.born_at: int = settings.start_ms + int(BORN_AT * span) if changes else _NEVER
        self.dies_at: int = settings.start_ms + int(DIES_AT * span) if changes else _NEVER

    def forced_moves(self, recruited: Floats, recruit_time: Floats, die_time: Floats) -> ForcedMoves:
        """From three uniform numbers of every user."""
        n = len(recruited)
        if self.born_at == _NEVER:
            return ForcedMoves(np.full(n, _NEVER), np.full(n, _NEVER))
        call = self.born_at + (recruit_time * WITHIN_MS).astype(np.int64)
        return ForcedMoves(
            np.where(recruited < RECRUITED, call, _NEVER), self.dies_at + (die_time * WITHIN_MS).astype(np.int64)
        )

    def weights(self, persona: Ints, time: Ints) -> Floats:
        """What people of these personas become who move at these times: weights by persona, one row each."""
        weights = transitions()[persona]
        if self._drifts:
            weights = weights * np.exp(_MIX_SWING * self._swing(np.arange(HONEST)[None, :], time[:, None], 4))
        weights[:, LIVE] = np.where((time >= self.born_at) & (persona != LIVE), LIVE_WEIGHT, 0.0)
        weights[:, GIFT] = np.where(time < self.dies_at, weights[:, GIFT], 0.0)
        return weights

    def visits(self, persona: Ints, time: Ints) -> Floats:
        """Factor on the rate of visits."""
        return self._factor("visits", persona, time, 0)

    def dwell(self, persona: Ints, time: Ints) -> Floats:
        """Factor on the dwell time."""
        return self._factor("dwell", persona, time, 1)

    def taste(self, persona: Ints, time: Ints) -> Floats:
        """Shift of the place in the price range."""
        return _SWING["taste"] * self._swing(persona, time, 2)

    def buy(self, persona: Ints, time: Ints) -> Floats:
        """Shift of the probability to buy, on the logit."""
        return _SWING["buy"] * self._swing(persona, time, 3)

    def _factor(self, what: str, persona: Ints, time: Ints, number: int) -> Floats:
        return np.exp(_SWING[what] * self._swing(persona, time, number))

    def _swing(self, persona: NDArray[np.int64], time: NDArray[np.int64], number: int) -> Floats:
        """A sine of its own for every persona and quantity, 0 at the start."""
        if not self._drifts:
            return np.zeros(np.broadcast_shapes(persona.shape, time.shape))
        phase = 2.399963 * (persona + len(PERSONAS) * number)  # the golden angle spreads them evenly
        swing: Floats = np.sin(2 * np.pi * (time - self._start) / _PERIOD_MS + phase) - np.sin(phase)
        return swing
