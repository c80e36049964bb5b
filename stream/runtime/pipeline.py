"""All stages in one thread, in a fixed order: replays, backtests and the demo.

The order follows from what is committed, and from nothing else: the next rows of the source when the events are
drained, then one batch of the first stage, then the later stages until they are drained. A run that was killed and
started again makes the same calls on the same batches, and ends in the same ledger of changes bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Protocol

from schemas.topics import EVENTS
from stream.runtime.runner import Runner
from stream.transport.base import OutRecord, TopicPartition
from stream.transport.embedded import EmbeddedTransport, SourceOffset

SOURCE_GROUP = "source"
MAX_VALUE_BYTES = 1_000_000
"""A longer row is cut here, since no topic takes it: it stays one record, and far too large for an event."""


class Row(Protocol):
    """One row of a source: the bytes for the topic, and when they arrived."""

    @property
    def key(self) -> bytes | None: ...  # noqa: D102
    @property
    def value(self) -> bytes | None: ...  # noqa: D102
    @property
    def timestamp(self) -> int: ...  # noqa: D102


class Source(Protocol):
    """Events that can be read again from any row number (producers.source.Source)."""

    @property
    def fingerprint(self) -> str: ...  # noqa: D102
    def rows(self, start: int = 0) -> Iterator[Row]: ...  # noqa: D102


class Feed:
    """Takes a source into the events topic, a chunk at a time, its position in the same transaction.

    Parameters: rows in a chunk, which is then also the size of the processor's batches.
    """

    def __init__(self, transport: EmbeddedTransport, source: Source, chunk: int) -> None:
        self._transport = transport
        self._where = TopicPartition(f"source {source.fingerprint}", 0)
        self._chunk = chunk
        self._position = transport.committed(SOURCE_GROUP, self._where)
        self._rows: Iterator[Row] = source.rows(self._position or 0)
        self.finished = False

    @property
    def position(self) -> int:
        """Rows taken in so far, in this run and before."""
        return self._position or 0

    def step(self) -> int:
        """Append the next chunk; returns its size, 0 at the end."""
        chunk = [_record(row) for row in islice(self._rows, self._chunk)]
        if not chunk:
            self.finished = True
            return 0
        after = self.position + len(chunk)
        self._transport.produce(chunk, SourceOffset(SOURCE_GROUP, self._where, self._position, after))
        self._position = after
        return len(chunk)


def _record(row: Row) -> OutRecord:
    value = row.value
    if value is not None and len(value) > MAX_VALUE_BYTES:
        value = value[:MAX_VALUE_BYTES]
    return OutRecord(EVENTS, row.key, value, None, (), row.timestamp)


class Pipeline:
    """Steps a feed and the runners of all stages, in their order down the stream.

    Parameters: the runners must use the data's own clock (`wall_clock=False`) and poll at least a chunk.
    """

    def __init__(self, feed: Feed, runners: Sequence[Runner]) -> None:
        self._feed = feed
        self._first, *self._later = runners

    def step(self) -> bool:
        """One chunk through all stages; False when the source has ended and everything is drained."""
        # What an earlier run left undone comes first, so that the stages meet as they would have without the break.
        for runner in self._later:
            self._drain(runner)
        if not self._first.joined():
            self._first.step(0.0)
        if not self._first.behind() and self._feed.step() == 0:
            return False
        self._first.step(0.0)
        for runner in self._later:
            self._drain(runner)
        return True

    def close(self) -> None:
        """Leave the groups."""
        for runner in (self._first, *self._later):
            runner.abandon()

    @staticmethod
    def _drain(runner: Runner) -> None:
        while runner.step(0.0) or runner.behind():
            pass
