"""The recent observations as they came: what people look like at the moments at which somebody looks at them.

The panel says what the population is like at an instant, and at an instant nearly everybody is silent. But people are
looked at when they do something. In a shop where 1% buy on any day, a buyer of today is an outlier to the panel, and
in the course of a year nearly everybody would be in quarantine once. So outlier thresholds are measured on both.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]


class Recent:
    """A ring of the last `capacity` rows of `width` features."""

    def __init__(self, capacity: int, width: int) -> None:
        self._rows = np.zeros((capacity, width), np.float64)
        self._seen = 0

    @property
    def features(self) -> FloatArray:
        """(n, width) in no order that means anything; a view: do not keep it"""
        return self._rows[: min(self._seen, len(self._rows))]

    def put(self, features: FloatArray) -> None:
        """One more; the oldest leaves."""
        self._rows[self._seen % len(self._rows)] = features
        self._seen += 1

    def state(self) -> dict[str, NDArray[Any]]:
        """All of it, as arrays."""
        return {"recent": self.features.T, "recent_seen": np.array([self._seen], np.int64)}

    def restore(self, state: Mapping[str, NDArray[Any]], columns: NDArray[np.intp]) -> None:
        """Take the arrays back. `columns` (width,) says where each feature stood then; -1 is unknown for everybody.

        Where the capacity changed it starts anew, with the last rows that fit.
        """
        then = state["recent"].T
        seen = int(state["recent_seen"][0])
        oldest_first = np.roll(then, -(seen % len(then)), axis=0) if seen > len(then) > 0 else then
        same = len(then) == len(self._rows) or seen == len(then) <= len(self._rows)
        kept = then if same else oldest_first[-len(self._rows) :]
        known = columns >= 0
        self._rows[: len(kept)] = np.nan
        self._rows[: len(kept), known] = kept[:, columns[known]]
        self._seen = seen if same else len(kept)
