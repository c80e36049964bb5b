"""The panel: the latest observation of each sampled user, which is the recent population.

Invariant: at most one row a user and at most `capacity` rows, the least recently observed leaving first. Rows are
dense; their order is part of the state, because refits and the stream learner draw from them by position.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]


class Panel:
    """Rows of `width` features. `features`, `weight` and so on are views of the filled part: do not keep them."""

    def __init__(self, capacity: int, width: int) -> None:
        self.capacity = capacity
        self._user = np.zeros(capacity, np.uint64)
        self._at = np.zeros(capacity, np.int64)
        self._weight = np.ones(capacity, np.float64)
        self._features = np.zeros((capacity, width), np.float64)
        self._scaled = np.zeros((capacity, width), np.float64)
        self._distance = np.zeros(capacity, np.float64)
        self._row: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._row)

    @property
    def user_hash(self) -> NDArray[np.uint64]:
        """(n,)"""
        return self._user[: len(self)]

    @property
    def at_ms(self) -> NDArray[np.int64]:
        """(n,) when each was observed"""
        return self._at[: len(self)]

    @property
    def weight(self) -> FloatArray:
        """(n,) how many people each stands for"""
        return self._weight[: len(self)]

    @property
    def features(self) -> FloatArray:
        """(n, width), NaN where unknown"""
        return self._features[: len(self)]

    @property
    def scaled(self) -> FloatArray:
        """(n, width) the features on the scale of the day: kept by the caller, and no part of the state"""
        return self._scaled[: len(self)]

    @property
    def distance(self) -> FloatArray:
        """(n,) from the published prototypes: the same"""
        return self._distance[: len(self)]

    def put(
        self,
        user_hash: int,
        at_ms: int,
        weight: float,
        features: FloatArray,
        scaled: FloatArray,
        distance: float,
    ) -> int | None:
        """The user's latest observation; an older one than is held (partitions interleave) changes nothing.

        Returns the user who had to leave for this one, if anybody.
        """
        row, left = self._row.get(user_hash), None
        if row is None:
            row = len(self._row)
            if row == self.capacity:
                row = int(self._at.argmin())
                left = int(self._user[row])
                del self._row[left]
            self._row[user_hash] = row
            self._user[row] = user_hash
        elif at_ms < self._at[row]:
            return None
        self._at[row] = at_ms
        self._weight[row] = weight
        self._features[row] = features
        self._scaled[row] = scaled
        self._distance[row] = distance
        return left

    def remove(self, user_hash: int) -> None:
        """Forget a user (quarantined ones do not train); the last row takes the place."""
        row = self._row.pop(user_hash, None)
        if row is None:
            return
        last = len(self._row)
        if row != last:
            for column in (self._user, self._at, self._weight, self._features, self._scaled, self._distance):
                column[row] = column[last]
            self._row[int(self._user[row])] = row

    def draw(self, number: int) -> int:
        """A row at random that depends on nothing but `number` (splitmix64)."""
        mask = 2**64 - 1
        x = (number * 0x9E3779B97F4A7C15) & mask
        x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & mask
        x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & mask
        return (x ^ (x >> 31)) % len(self)

    def state(self) -> dict[str, NDArray[Any]]:
        """All of it, as arrays."""
        return {
            "panel_user": self.user_hash,
            "panel_at": self.at_ms,
            "panel_weight": self.weight,
            "panel_features": self.features.T,
        }

    def restore(self, state: Mapping[str, NDArray[Any]], columns: NDArray[np.intp]) -> None:
        """Take the arrays back. `columns` (width,) says where each feature stood then; -1 is unknown for everybody.

        Where the capacity shrank, the most recently observed stay.
        """
        user = state["panel_user"]
        kept = np.sort(np.argsort(state["panel_at"], kind="stable")[::-1][: self.capacity])
        n = len(kept)
        self._user[:n] = user[kept]
        self._at[:n] = state["panel_at"][kept]
        self._weight[:n] = state["panel_weight"][kept]
        features = state["panel_features"].T[kept]
        known = columns >= 0
        self._features[:n] = np.nan
        self._features[:n, known] = features[:, columns[known]]
        self._row = {hashed: row for row, hashed in enumerate(self._user[:n].tolist())}
