"""The small interface that the runner knows: poll a batch, commit atomically, read a topic from an offset.

Two implementations: `stream.transport.kafka` and `stream.transport.embedded`. One conformance suite
(tests/transport/) says what both must do.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from typing import NamedTuple, Protocol

from schemas.topics import TopicSpec

Headers = Sequence[tuple[str, bytes]]


class TopicPartition(NamedTuple):
    """One partition of one topic."""

    topic: str
    partition: int


class Record(Protocol):
    """A record as it was read. kafka-python's own ConsumerRecord fits, so that none is ever copied."""

    @property
    def topic(self) -> str: ...  # noqa: D102
    @property
    def partition(self) -> int: ...  # noqa: D102
    @property
    def offset(self) -> int: ...  # noqa: D102
    @property
    def timestamp(self) -> int:
        """Milliseconds; set by the producer (the time of ingestion, not the event's own)."""
        ...

    @property
    def key(self) -> bytes | None: ...  # noqa: D102
    @property
    def value(self) -> bytes | None: ...  # noqa: D102
    @property
    def headers(self) -> Headers: ...  # noqa: D102


class OutRecord(NamedTuple):
    """A record to be written. Without `partition` the key decides it, by Kafka's murmur2 on both transports."""

    topic: str
    key: bytes | None
    value: bytes | None
    partition: int | None = None
    headers: Headers = ()
    timestamp: int | None = None


def out_records(
    topic: str,
    keys: Iterable[bytes | None],
    values: Iterable[bytes | None],
    partition: int | None,
    headers: Iterable[Headers],
    timestamps: Iterable[int | None],
) -> list[OutRecord]:
    """Records from columns, as many as there are of the shortest."""
    fields = zip(repeat(topic), keys, values, repeat(partition), headers, timestamps)
    # A third of the cost of calling the class, which is a function that does the same.
    return list(map(tuple.__new__, repeat(OutRecord), fields))


@dataclass(slots=True)
class Poll:
    """What one poll brought.

    `revoked` partitions are lost already: drop their state, uncommitted work on them is void.
    `assigned` partitions are paused until `Session.resume`: restore their state first.
    `records` holds committed records only, in offset order for each partition, never empty lists.
    """

    records: dict[TopicPartition, Sequence[Record]] = field(default_factory=dict)
    assigned: frozenset[TopicPartition] = frozenset()
    revoked: frozenset[TopicPartition] = frozenset()


class Committed(NamedTuple):
    """A commit that succeeded."""

    first: dict[TopicPartition, int]
    """For each partition written to, the offset of the first record that was written there."""
    ended: float
    """When, by time.monotonic()."""


class TransportError(Exception):
    """Something is wrong that trying again will not mend: the message says what and what to do."""


class UnavailableError(TransportError):
    """The broker or the disk does not answer or refuses: nothing was changed; try again with backoff."""


class FencedError(TransportError):
    """This member lost its place, or a commit failed or is in doubt. The session is dead: close it, drop all
    state, open another and restore. Never retry in place."""


class Session(ABC):
    """One member of a consumer group that reads, and commits offsets and outputs in one atomic step."""

    @abstractmethod
    def poll(self, max_records: int, timeout: float) -> Poll:
        """Up to `max_records` records, waiting at most `timeout` seconds for the first.

        Positions advance with the poll; they are durable only after `commit`. Raises FencedError, UnavailableError.
        """

    @abstractmethod
    def resume(self, partitions: Iterable[TopicPartition]) -> None:
        """Let newly assigned partitions flow: their state is restored."""

    @abstractmethod
    def commit(self, offsets: Mapping[TopicPartition, int], outputs: Sequence[OutRecord]) -> dict[TopicPartition, int]:
        """Outputs and offsets (of the next record to read) become visible together, or not at all.

        Returns, for each partition written to, the offset of the first record that was written there.
        Raises FencedError (the group moved on, or the outcome is in doubt).
        """

    def begin(self, offsets: Mapping[TopicPartition, int], outputs: Sequence[OutRecord]) -> Callable[[], Committed]:
        """`commit` in two steps: what is returned waits for the end, and raises what `commit` would.

        Until it has been called, nothing but `ahead` and `lag` may be. A transport that cannot go on meanwhile commits
        at once.
        """
        committed = Committed(self.commit(offsets, outputs), time.monotonic())
        return lambda: committed

    def ask_ahead(self) -> None:
        """Ask for what the next `ahead` returns, before the commit is begun; waits for nothing."""
        return

    def ahead(self, max_records: int) -> dict[TopicPartition, Sequence[Record]]:
        """Records that came while a commit is under way, of partitions that were this member's when it began.

        No partition comes or goes in it. Empty where the group is about to change, or nothing comes soon. Raises as
        `poll` does.
        """
        return {}

    @abstractmethod
    def lag(self) -> dict[TopicPartition, int]:
        """Records behind the end, for each assigned partition; from what is known, without a round trip where
        the client can."""

    @abstractmethod
    def close(self) -> None:
        """Leave the group at once, so that others take over without waiting. Safe to call twice."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One way in which a topic is not as it must be."""

    topic: str
    setting: str
    expected: str
    actual: str
    remedy: str


class Transport(ABC):
    """A place where topics live."""

    @abstractmethod
    def session(self, group: str, topics: Sequence[str]) -> Session:
        """Join `group` on `topics`, which must have equal partition counts (TransportError names the fix).

        Co-partitioned: partition p of every topic goes to the same member. A member starts at the committed
        offsets, or at the beginning where there are none.
        """

    @abstractmethod
    def produce(self, records: Iterable[OutRecord]) -> int:
        """Append records durably, outside any group (producers use it); returns how many.

        The embedded transport appends all of them atomically.
        """

    @abstractmethod
    def read(self, where: TopicPartition, start: int, end: int | None = None) -> Iterator[Record]:
        """Committed records from offset `start` (or from the first kept) up to `end`, by default the end as it was
        at the call. It ends by itself; offsets may have holes (compaction, control records)."""

    @abstractmethod
    def partitions(self, topic: str) -> int:
        """How many there are; 0 where the topic does not exist."""

    @abstractmethod
    def start_offset(self, where: TopicPartition) -> int:
        """Of the first record that is kept."""

    @abstractmethod
    def end_offset(self, where: TopicPartition) -> int:
        """One past the last committed record."""

    @abstractmethod
    def committed(self, group: str, where: TopicPartition) -> int | None:
        """The group's committed offset, if there is one."""

    @abstractmethod
    def trim(self, where: TopicPartition, before: int) -> None:
        """Delete what lies below offset `before` (Kafka: DeleteRecords). Idempotent."""

    @abstractmethod
    def create_topics(self, specs: Iterable[TopicSpec], input_partitions: int) -> list[str]:
        """Create what is missing; returns the names created. Existing topics are left as they are."""

    @abstractmethod
    def check_topics(self, specs: Iterable[TopicSpec], input_partitions: int | None = None) -> list[Difference]:
        """Every difference between the topics and their specifications, with what to do about each."""

    @abstractmethod
    def close(self) -> None:
        """Release connections and files."""
