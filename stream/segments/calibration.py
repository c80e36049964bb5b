"""Confidence that means something: how often people who were this near to their segment are found in it again.

The raw measure of a user is the share `rival / (own + rival)` of the distances to the own segment and to the nearest
other one: 0.5 on the border, 1 at the centre. How far such a user may be trusted depends on the data, so the modeller
counts, for panel users who are observed twice under one version, in which bin of the share they were and whether the
nearest segment is still the same. The published table is the isotonic regression of those frequencies (Zadrozny and
Elkan, "Transforming classifier scores into accurate multiclass probability estimates", KDD 2002).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression

FloatArray = NDArray[np.float64]

BINS: Final = 20
PRIOR: Final = 4.0
"""Each bin starts with so many imagined users whose frequency is the raw share itself."""
KEEP: Final = 0.5
"""Of the counts, over a new version: the old one's experience counts half."""
_MIDS: Final = 0.5 + (np.arange(BINS) + 0.5) / (2 * BINS)


def calibrated(table: Sequence[float], share: FloatArray) -> FloatArray:
    """Confidence of raw shares (m,) in [0.5, 1]; without a table the share itself."""
    if not table:
        return share
    result: FloatArray = np.interp(share, _MIDS, table)
    return result


class Calibration:
    """Counts by bin; `note` a user whenever one is observed."""

    def __init__(self) -> None:
        self._counts = np.zeros(BINS)
        self._stayed = np.zeros(BINS)
        self._last: dict[int, tuple[int, int]] = {}
        """By user hash: the segment and the bin when last observed, under the present version."""

    def note(self, user: int, segment: int, share: float) -> None:
        """A user was observed nearest to `segment`, with this raw share."""
        earlier = self._last.get(user)
        if earlier is not None:
            self._counts[earlier[1]] += 1.0
            self._stayed[earlier[1]] += earlier[0] == segment
        self._last[user] = segment, min(BINS - 1, int((share - 0.5) * 2 * BINS))

    def forget(self, user: int) -> None:
        """A user was put into quarantine, or left the panel."""
        self._last.pop(user, None)

    def table(self) -> FloatArray:
        """(BINS,) the confidence at the middle of each bin, never falling."""
        weight = self._counts + PRIOR
        frequency = (self._stayed + PRIOR * _MIDS) / weight
        fitted: FloatArray = np.asarray(isotonic_regression(frequency, weights=weight).x, np.float64)
        return np.clip(fitted, 0.0, 1.0)

    def renew(self) -> None:
        """A new version was published: pairs begin anew, experience fades."""
        self._last.clear()
        self._counts *= KEEP
        self._stayed *= KEEP

    def state(self) -> dict[str, NDArray[Any]]:
        """Numbers only; `restore` takes them back."""
        users = list(self._last)
        pairs = np.array([self._last[user] for user in users], np.int64).reshape(len(users), 2)
        return {
            "calibration_counts": self._counts,
            "calibration_stayed": self._stayed,
            "calibration_users": np.array(users, np.uint64),
            "calibration_pairs": pairs,
        }

    @classmethod
    def restore(cls, state: Mapping[str, NDArray[Any]]) -> Calibration:
        """The inverse of `state`."""
        made = cls()
        made._counts = state["calibration_counts"].astype(np.float64)
        made._stayed = state["calibration_stayed"].astype(np.float64)
        pairs = state["calibration_pairs"].tolist()
        users = state["calibration_users"].tolist()
        made._last = {user: (pair[0], pair[1]) for user, pair in zip(users, pairs, strict=True)}
        return made
