"""The naive baseline: River's `StandardScaler | KMeans`, defaults, asked and taught at every event.

What a first attempt looks like: each event's user has features, they are learned at once, and the answer is the user's
segment. It gets three favours: unknown values are 0, because one NaN would make it answer 0 for ever; a seed; and it is
taught by the events of a sample of users, to stay affordable. With a `halflife` of 0.5 it forgets all but the last few
events anyway, and fewer users in between make it steadier. At checkpoints it labels everybody.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from river.cluster import KMeans
from river.preprocessing import StandardScaler

from stream.backtest.history import Sampled
from stream.features.batch import EventBatch
from stream.features.layout import Layout, compile_layout
from stream.features.table import UserTable

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
_SCALER: Any = StandardScaler
_KMEANS: Any = KMeans
SEED: Final = 1
DAY_MS: Final = 86_400_000
AT_THE_EVENT: Final = 0
"""Long before any event: a table evaluates nobody before the latest event, so this means at that event."""


class Naive:
    """Parameters: the layout, whose learned features it gets, and the sample's events in order of arrival."""

    def __init__(self, layout: Layout, sample: list[Sampled]) -> None:
        learned = [feature for feature in layout.features if feature.learn]
        self._table = UserTable(
            compile_layout(learned, lateness_ms=layout.lateness_ms, dedupe_depth=layout.dedupe_depth)
        )
        self._sample = sample
        self._next = (0, 0)
        self._pipeline = _SCALER() | _KMEANS(seed=SEED)
        self._labels: dict[int, int] = {}
        self._asked = 0
        self._flips: list[str] = []
        self._told = 0

    @property
    def users(self) -> list[str]:
        """Whose events it has seen."""
        return self._table.user_ids

    @property
    def changed_share(self) -> float | None:
        """Of the events of users who had an answer already, those that changed it."""
        return len(self._flips) / self._asked if self._asked else None

    def new_flips(self) -> list[str]:
        """The users whose answers changed since the last call, one entry a change."""
        told, self._told = self._told, len(self._flips)
        return self._flips[told:]

    def advance(self, until_ms: int) -> None:
        """Learn the sampled events that arrived before `until_ms`, in their order."""
        part, event = self._next
        while part < len(self._sample):
            batch, arrival = self._sample[part]
            stop = int(np.searchsorted(arrival, until_ms))
            for day in _days(arrival, event, stop):
                self._learn(batch.take(day))
            event = max(event, stop)
            if event < len(batch):
                break
            part, event = part + 1, 0
        self._next = (part, event)

    def label(self, features: FloatArray) -> IntArray:
        """The cell (m,) that it would give users with these features (m, F), without learning from them."""
        if not self._labels:
            return np.zeros(len(features), np.int64)
        x = np.nan_to_num(features, nan=0.0)
        scaler, kmeans = self._pipeline["StandardScaler"], self._pipeline["KMeans"]
        axes = range(x.shape[1])
        mean = np.array([scaler.means[axis] for axis in axes])
        spread = np.sqrt([scaler.vars[axis] for axis in axes])
        z = np.divide(x - mean, spread, out=np.zeros_like(x), where=spread > 0)
        # Centre by centre: (m, k, F) at once would be large.
        squared = [((z - [centre[axis] for axis in axes]) ** 2).sum(axis=1) for centre in kmeans.centers.values()]
        cell: IntArray = np.argmin(squared, axis=0).astype(np.int64)
        return cell

    def _learn(self, batch: EventBatch) -> None:
        vectors: dict[int, tuple[int, list[float]]] = {}
        for wave in _waves(batch.user_ids):
            applied = self._table.apply(batch.take(wave))
            features = np.nan_to_num(self._table.features(applied.rows, AT_THE_EVENT), nan=0.0)
            events = wave[applied.last_event].tolist()
            vectors |= dict(zip(events, zip(applied.rows.tolist(), features.tolist(), strict=True), strict=True))
        for event, (row, vector) in sorted(vectors.items()):
            x = dict(enumerate(vector))
            self._pipeline.learn_one(x)
            self._answer(row, self._pipeline.predict_one(x), batch.user_ids[event])

    def _answer(self, row: int, label: int, user: str) -> None:
        before = self._labels.get(row)
        self._labels[row] = label
        if before is not None:
            self._asked += 1
            if before != label:
                self._flips.append(user)


def _days(arrival: IntArray, start: int, stop: int) -> Iterator[NDArray[np.intp]]:
    """Events `start` to `stop`, a day of arrivals at a time."""
    if start >= stop:
        return
    events = np.arange(start, stop)
    yield from np.split(events, np.flatnonzero(np.diff(arrival[start:stop] // DAY_MS)) + 1)


def _waves(user_ids: Sequence[str]) -> Iterator[NDArray[np.intp]]:
    """Every user's first event, then every user's second one, and so on: a table takes a wave at once, and each event
    still has the features that its user had then."""
    count: dict[str, int] = {}
    number = np.empty(len(user_ids), np.int64)
    for event, user in enumerate(user_ids):
        number[event] = count[user] = count.get(user, -1) + 1
    order = np.argsort(number, kind="stable")
    yield from np.split(order, np.flatnonzero(np.diff(number[order])) + 1)
