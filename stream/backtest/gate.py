"""A source that lets rows through up to a time, so that a replay can be held at a checkpoint.

Invariant: the rows are the source's own, in their order; none arrives at or after `until` while the gate stands there.
Unlike other iterators, that of a gate goes on after its end, once the gate was moved: a feed asks it again.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from producers.source import Source, SourceRow

NOTHING: Final = -(2**63)


class Gate(Source):
    """Parameter: the source. One reader at a time."""

    def __init__(self, source: Source) -> None:
        self.until = NOTHING
        """Epoch milliseconds: rows that arrive before it may pass."""
        self._source = source
        self._rows: Iterator[SourceRow] = iter(())
        self._held: SourceRow | None = None

    @property
    def total(self) -> int | None:
        """The source's."""
        return self._source.total

    @property
    def fingerprint(self) -> str:
        """The source's."""
        return self._source.fingerprint

    def rows(self, start: int = 0) -> Iterator[SourceRow]:
        """The rows from number `start` to the gate, and on from there when it was moved."""
        self._rows = self._source.rows(start)
        self._held = None
        return _Passing(self)

    @property
    def next_arrival(self) -> int | None:
        """When the row that waits at the gate arrives; None when there is no more."""
        if self._held is None:
            self._held = next(self._rows, None)
        return None if self._held is None else self._held.timestamp

    def take(self) -> SourceRow | None:
        """The next row, if it may pass."""
        arrival = self.next_arrival
        if arrival is None or arrival >= self.until:
            return None
        row, self._held = self._held, None
        return row


class _Passing(Iterator[SourceRow]):
    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    def __next__(self) -> SourceRow:
        row = self._gate.take()
        if row is None:
            raise StopIteration
        return row
