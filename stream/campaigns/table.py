"""The rows that a campaign stage keeps for one partition, and their packing into the changelog.

Invariant: the deltas of a whole cycle hold every row: each carries the rows changed since the last one and the next
slice of all of them. So the running cycle and the one before it are kept. A removed row is null. The payload is a
JSON object of rows by key, compressed with zstd; no pickles.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from typing import Any, TypeVar

import orjson

from stream import zstd
from stream.runtime.stage import StateDelta

T = TypeVar("T")
Row = list[Any]
"""JSON values; what they mean is the owner's business."""

VERSION = 1
MIN_SLICE = 16
"""Rows rewritten by each delta, at least; as many as changed otherwise, so that a delta at most doubles."""
MIN_CYCLE = 64
"""Deltas in a cycle, at least: every new cycle has the topic trimmed, which is a round trip."""


class StateTable:
    """A dict of rows that knows what changed. Keys are strings, rows lists of JSON values."""

    def __init__(self) -> None:
        self.rows: dict[str, Row] = {}
        self._changed: dict[str, bool] = {}
        """Since the last delta; whether the changelog may hold an earlier row of that key."""
        self._cycle: list[str] = []
        self._next = 0
        self._age = 0
        """Deltas of the running cycle."""
        self._before = 0
        """Those before it, which are needed until it is whole."""
        self._started = False

    def __len__(self) -> int:
        return len(self.rows)

    def get(self, key: str) -> Row | None:
        """The row, if there is one. After changing it in place, `put` it again."""
        return self.rows.get(key)

    def put(self, key: str, row: Row) -> None:
        """Set a row; the next delta carries it."""
        self._changed.setdefault(key, key in self.rows)
        self.rows[key] = row

    def remove(self, key: str) -> None:
        """Forget a row. One that came and went between two deltas leaves no trace."""
        if self.rows.pop(key, None) is not None and not self._changed.setdefault(key, True):
            del self._changed[key]

    @property
    def changed(self) -> bool:
        """Whether the next delta has something to tell."""
        return bool(self._changed)

    def delta(self, meta: dict[str, Any], expired: Callable[[str, Row], bool] | None = None) -> StateDelta:
        """What changed since the last delta, and the next slice. Rows of the slice for which `expired` is true go."""
        starts = not self._started or (self._next >= len(self._cycle) and self._age >= MIN_CYCLE)
        if starts:
            self._begin_cycle(self._age)
        self._age += 1
        end = self._next + max(MIN_SLICE, len(self._changed), len(self._cycle) // MIN_CYCLE)
        for key in self._cycle[self._next : end]:
            row = self.rows.get(key)
            if row is None:
                continue
            if expired is not None and expired(key, row):
                del self.rows[key]
            self._changed[key] = True
        self._next = end
        told = {key: self.rows.get(key) for key in self._changed}
        self._changed.clear()
        payload = zstd.compress(orjson.dumps(told)) if told else b""
        return StateDelta(payload, {**meta, "v": VERSION}, keeps=self._before + self._age)

    def restore(self, deltas: Iterable[tuple[dict[str, Any], bytes]]) -> dict[str, Any]:
        """Become what the deltas say; returns the last one's meta. Raises ValueError where they cannot be read."""
        return exhaust(self.restoring(deltas))

    def restoring(self, deltas: Iterable[tuple[dict[str, Any], bytes]]) -> Generator[None, None, dict[str, Any]]:
        """As `restore`, with a pause after each delta."""
        meta: dict[str, Any] = {}
        count = 0
        decompressor = zstd.decompressor()
        for meta, payload in deltas:
            if meta.get("v") != VERSION:
                raise ValueError(
                    f"campaign state of version {meta.get('v')!r}; this release reads version {VERSION}: "
                    "run the release that wrote it, or a newer one"
                )
            for key, row in orjson.loads(decompressor.decompress(payload)).items() if payload else ():
                if row is None:
                    self.rows.pop(key, None)
                else:
                    self.rows[key] = row
            count += 1
            yield
        if meta:
            # The running cycle goes on: it is whole only when every row has been told again.
            self._begin_cycle(count)
        return meta

    def _begin_cycle(self, before: int) -> None:
        self._started = True
        self._before = before
        self._cycle = list(self.rows)
        self._next = 0
        self._age = 0


def exhaust(steps: Generator[None, None, T]) -> T:
    """All steps at once; what they return."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: T = end.value
            return result
