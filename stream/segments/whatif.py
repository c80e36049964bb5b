"""What would move a user: silence, or doing something. Answered by doing it, on a copy of the user's row.

Nothing here is an estimate: time is let pass and events are applied through the live kernels, the model and the margin
of the live decision; only hysteresis over several looks is left out (it delays a move, and prevents none that lasts).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from stream.features.batch import KIND_CODES, EventBatch, Kind
from stream.features.layout import Layout
from stream.features.table import UserTable
from stream.segments.assign import DecisionSettings
from stream.segments.population import Population
from stream.segments.prototypes import Model

HOUR_MS: Final = 3_600_000
DAY_MS: Final = 24 * HOUR_MS
HORIZON_DAYS: Final = 90
MOST_EVENTS: Final = 10
KINDS: Final[tuple[Kind, ...]] = ("purchase", "add_to_cart", "browse", "click", "search")


@dataclass(frozen=True, slots=True)
class Silence:
    """Without another event the user is in `segment` after `after_ms`; `kept_by` are the kinds of which one event just
    before then keeps them where they are."""

    after_ms: int
    segment: int
    kept_by: tuple[Kind, ...]


@dataclass(frozen=True, slots=True)
class Deed:
    """So many events of one kind now put the user into `segment`."""

    kind: Kind
    count: int
    segment: int


@dataclass(frozen=True, slots=True)
class WhatIf:
    """What would move a user; None or empty where nothing within the horizon would."""

    silence: Silence | None
    deeds: tuple[Deed, ...]


def what_if(
    user_id: str, population: Population, layout: Layout, model: Model, decision: DecisionSettings, at: int
) -> WhatIf | None:
    """Try out silence of up to 90 days, and up to ten events of each kind; None without a learned segment."""
    row = population.table.lookup(user_id)
    if row is None:
        return None
    segment = int(population.table.column("segment")[row])
    if segment not in model.segment_ids:
        return None
    trial = _Trial(population.table.pack(np.array([row])), layout, model, decision, segment)
    return WhatIf(trial.silence(at), tuple(deed for kind in KINDS if (deed := trial.deed(kind, at)) is not None))


class _Trial:
    """One user, as often as needed."""

    def __init__(self, packed: bytes, layout: Layout, model: Model, decision: DecisionSettings, segment: int) -> None:
        self._packed = packed
        self._layout = layout
        self._model = model
        self._margin = decision.margin
        self._segment = segment
        self._columns = model.columns(layout.names)

    def silence(self, at: int) -> Silence | None:
        table = self._user()
        days = next((d for d in range(1, HORIZON_DAYS + 1) if self._moved(table, at + d * DAY_MS)), None)
        if days is None:
            return None
        hours = next(h for h in range(1, 25) if self._moved(table, at + (days - 1) * DAY_MS + h * HOUR_MS))
        after = (days - 1) * DAY_MS + hours * HOUR_MS
        kept = tuple(kind for kind in KINDS if not self._moved(self._after(kind, 1, at + after - HOUR_MS), at + after))
        return Silence(after, self._moved(table, at + after), kept)

    def deed(self, kind: Kind, at: int) -> Deed | None:
        for count in range(1, MOST_EVENTS + 1):
            if segment := self._moved(self._after(kind, count, at), at):
                return Deed(kind, count, segment)
        return None

    def _moved(self, table: UserTable, at: int) -> int:
        """The segment that is nearer by the margin; 0 where the user stays."""
        z = self._model.scale(table.features(None, at)[:, self._columns])
        distances = self._model.segment_distances(z)[0]
        own = distances[self._model.segment_ids == self._segment][0]
        best = int(distances.argmin())
        moves = distances[best] < (1.0 - self._margin) * own
        return int(self._model.segment_ids[best]) if moves and self._model.segment_ids[best] != self._segment else 0

    def _user(self) -> UserTable:
        table = UserTable(self._layout)
        table.unpack(self._packed)
        return table

    def _after(self, kind: Kind, count: int, at: int) -> UserTable:
        """The user after `count` such events at one time, with the values that are usual for them."""
        table = self._user()
        unknown = np.full(count, np.nan)
        zeros = np.zeros(count, np.uint64)
        amount = self._usual("average_order_value")
        dwell = self._usual("dwell_seconds")
        table.apply(
            EventBatch(
                position=np.arange(count, dtype=np.int32),
                user_ids=[table.user_ids[0]] * count,
                event_ids=[f"what-if-{n}" for n in range(count)],
                kind=np.full(count, KIND_CODES[kind], np.int8),
                time=np.full(count, at, np.int64),
                id_hash=np.arange(1, count + 1, dtype=np.uint64),
                amount=np.full(count, amount) if kind == "purchase" else unknown,
                quantity=np.ones(count) if kind == "purchase" else unknown,
                discount=unknown,
                dwell_ms=np.full(count, dwell * 1000) if kind == "browse" else unknown,
                rating=unknown,
                category=zeros,
            )
        )
        return table

    def _usual(self, feature: str) -> float:
        """The user's own value of a default feature, else the segment's, else nothing."""
        if feature not in self._layout.names:
            return 0.0
        table = self._user()
        own: NDArray[np.float64] = table.features(None, table.stream_time)[0]
        value = float(own[self._layout.names.index(feature)])
        if np.isnan(value):
            value = (self._model.means.get(self._segment) or {}).get(feature) or 0.0
        return max(0.0, value)
