"""Confidence that means something: of people who came into a segment as clearly as this one, how many are still in it
a week later.

The raw measure of a user is the share `rival / (own + rival)` of the distances to the own segment and to the nearest
other one: 0.5 on the border, 1 at the centre. How far such a user may be trusted depends on the data, so the modeller
follows panel users from one change of segment to the next, and counts by bin of the share at the change, and by age,
how many were still there to leave and how many left. The chance to stay for the whole horizon is the product over the
ages (Kaplan and Meier, "Nonparametric estimation from incomplete observations", JASA 1958), so that stays that are
still young count as far as they go. The published table is the isotonic regression of those chances over the bins
(Zadrozny and Elkan, "Transforming classifier scores into accurate multiclass probability estimates", KDD 2002).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

BINS: Final = 20
AGES: Final = 7
"""Equal parts of the horizon."""
PRIOR: Final = 4.0
"""Each bin starts with so many imagined users, whose chance to stay is the raw share itself."""
HALF_LIFE: Final = 1.0
"""Of experience, in horizons: young segments are left sooner than those that have settled."""
_MIDS: Final = 0.5 + (np.arange(BINS) + 0.5) / (2 * BINS)
_PRIOR_HAZARD: Final = 1.0 - _MIDS[:, None] ** (1.0 / AGES)


def calibrated(table: Sequence[float], share: FloatArray) -> FloatArray:
    """Confidence of raw shares (m,) in [0.5, 1]; without a table the share itself."""
    if not table:
        return share
    result: FloatArray = np.interp(share, _MIDS, table)
    return result


class _Stay(NamedTuple):
    """A user's present stay in a segment."""

    segment: int
    bin: int
    began: int
    """Epoch milliseconds."""
    counted: int
    """Ages that were counted already."""


class Calibration:
    """Counts by bin and age; `note` a user whenever one is observed. `horizon_ms` is how long a stay must last."""

    def __init__(self, horizon_ms: int) -> None:
        self._horizon_ms = horizon_ms
        self._age_ms = max(1, horizon_ms // AGES)
        self._there = np.zeros((BINS, AGES))
        self._left = np.zeros((BINS, AGES))
        self._stays: dict[int, _Stay] = {}
        """By user hash."""

    def note(self, user: int, segment: int, share: float, at_ms: int) -> None:
        """A user was observed in a learned `segment`, with this raw share of distances."""
        stay = self._stays.get(user)
        if stay is not None:
            age = max(0, (at_ms - stay.began) // self._age_ms)
            stayed = stay.segment == segment
            # Whoever left did so since the last observation, at the latest now.
            lived = min(age, AGES)
            if lived > stay.counted:
                self._there[stay.bin, stay.counted : lived] += 1.0
            if stayed:
                if lived > stay.counted:
                    self._stays[user] = stay._replace(counted=lived)
                return
            if age < AGES:
                self._there[stay.bin, age] += 1.0
                self._left[stay.bin, age] += 1.0
        place = min(BINS - 1, max(0, int((share - 0.5) * 2 * BINS)))
        self._stays[user] = _Stay(segment, place, at_ms, 0)

    def forget(self, user: int) -> None:
        """A user was put into quarantine, or left the panel."""
        self._stays.pop(user, None)

    def table(self) -> FloatArray:
        """(BINS,) the confidence at the middle of each bin, never falling."""
        from scipy.optimize import isotonic_regression  # it costs a start 0.2 s, and only the modeller needs it

        hazard = (self._left + PRIOR * _PRIOR_HAZARD) / (self._there + PRIOR)
        chance = np.prod(1.0 - hazard, axis=1)
        # A chance is as sure as the age at which the fewest were seen.
        weight = self._there.min(axis=1) + PRIOR
        fitted: FloatArray = np.asarray(isotonic_regression(chance, weights=weight).x, np.float64)
        return np.clip(fitted, 0.0, 1.0)

    def fade(self, elapsed_ms: int) -> None:
        """So much time has passed since the last call."""
        self._keep(2.0 ** (-max(0, elapsed_ms) / (HALF_LIFE * self._horizon_ms)))

    def redraw(self, users: Sequence[int], share: float) -> None:
        """The segments were drawn anew, and leave these `users`, a `share` of all: they left nothing themselves, and
        what was learned of the old segments says so much less of the new ones."""
        for user in users:
            self.forget(user)
        self._keep(1.0 - share)

    def _keep(self, part: float) -> None:
        self._there *= part
        self._left *= part

    def state(self) -> dict[str, NDArray[Any]]:
        """Numbers only; `restore` takes them back."""
        return {
            "calibration_there": self._there,
            "calibration_left": self._left,
            "calibration_users": np.array(list(self._stays), np.uint64),
            "calibration_stays": np.array(list(self._stays.values()), np.int64).reshape(len(self._stays), 4),
        }

    @classmethod
    def restore(cls, state: Mapping[str, NDArray[Any]], horizon_ms: int) -> Calibration:
        """The inverse of `state`."""
        made = cls(horizon_ms)
        made._there = state["calibration_there"].astype(np.float64)
        made._left = state["calibration_left"].astype(np.float64)
        stays = (_Stay(*row) for row in state["calibration_stays"].tolist())
        made._stays = dict(zip(state["calibration_users"].tolist(), stays, strict=True))
        return made
