"""A transport in memory that can be told to fail: for tests of the runner only."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from schemas.topics import TopicSpec
from stream.transport.base import (
    Committed,
    Difference,
    FencedError,
    OutRecord,
    Poll,
    Record,
    Session,
    TopicPartition,
    Transport,
)


class Stored(NamedTuple):
    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]] = ()


class MemoryTransport(Transport):
    """Topics as lists; `before_commit` may raise. Sessions have all partitions, or those that `owners` gives to them:
    they are numbered as they are opened."""

    def __init__(self, partitions: int = 1) -> None:
        self.count = partitions
        self.logs: dict[TopicPartition, list[Stored]] = {}
        self.starts: dict[TopicPartition, int] = {}
        self.offsets: dict[tuple[str, TopicPartition], int] = {}
        self.before_commit: Callable[[], None] = lambda: None
        self.after_commit: Callable[[], None] = lambda: None
        self.commits = 0
        self.sessions = 0
        self.owners: dict[int, int] | None = None
        self.overlapping: random.Random | None = None
        """Commits end some time after they began, as it says; whoever lost a partition by then is fenced."""

    def append(self, records: Iterable[OutRecord]) -> dict[TopicPartition, int]:
        first: dict[TopicPartition, int] = {}
        for record in records:
            where = TopicPartition(record.topic, record.partition or 0)
            log = self.logs.setdefault(where, [])
            first.setdefault(where, len(log))
            log.append(Stored(*where, len(log), record.timestamp or 0, record.key, record.value, record.headers))
        return first

    def session(self, group: str, topics: Sequence[str]) -> Session:
        return OverlappingSession(self, group, topics) if self.overlapping else MemorySession(self, group, topics)

    def produce(self, records: Iterable[OutRecord]) -> int:
        chosen = list(records)
        self.append(chosen)
        return len(chosen)

    def read(self, where: TopicPartition, start: int, end: int | None = None) -> Iterator[Record]:
        return iter(self.logs.get(where, [])[max(start, self.start_offset(where)) : end])

    def partitions(self, topic: str) -> int:
        return self.count

    def start_offset(self, where: TopicPartition) -> int:
        return self.starts.get(where, 0)

    def end_offset(self, where: TopicPartition) -> int:
        return len(self.logs.get(where, []))

    def committed(self, group: str, where: TopicPartition) -> int | None:
        return self.offsets.get((group, where))

    def trim(self, where: TopicPartition, before: int) -> None:
        self.starts[where] = max(self.start_offset(where), before)

    def create_topics(self, specs: Iterable[TopicSpec], input_partitions: int) -> list[str]:
        return []

    def check_topics(self, specs: Iterable[TopicSpec], input_partitions: int | None = None) -> list[Difference]:
        return []

    def close(self) -> None:
        pass


class MemorySession(Session):
    def __init__(self, transport: MemoryTransport, group: str, topics: Sequence[str]) -> None:
        self.transport = transport
        self.group = group
        self.topics = topics
        self.number = transport.sessions
        transport.sessions += 1
        self.paused: set[TopicPartition] = set()
        self.positions: dict[TopicPartition, int] = {}

    def poll(self, max_records: int, timeout: float) -> Poll:
        owners = self.transport.owners
        numbers = [p for p in range(self.transport.count) if owners is None or owners[p] == self.number]
        ours = frozenset(TopicPartition(topic, partition) for topic in self.topics for partition in numbers)
        assigned, revoked = ours - self.positions.keys(), frozenset(self.positions.keys() - ours)
        for where in revoked:
            del self.positions[where]
        self.paused = (self.paused - revoked) | assigned
        self.positions |= {where: self.transport.offsets.get((self.group, where), 0) for where in assigned}
        if assigned or revoked:
            return Poll(assigned=assigned, revoked=revoked)
        return Poll(self.take(max_records))

    def take(self, max_records: int) -> dict[TopicPartition, Sequence[Record]]:
        records: dict[TopicPartition, Sequence[Record]] = {}
        for where, at in sorted(self.positions.items()):
            if where not in self.paused and (found := self.transport.logs.get(where, [])[at : at + max_records]):
                records[where] = found
                self.positions[where] = at + len(found)
        return records

    def resume(self, partitions: Iterable[TopicPartition]) -> None:
        self.paused -= set(partitions) & self.positions.keys()

    def commit(self, offsets: Mapping[TopicPartition, int], outputs: Sequence[OutRecord]) -> dict[TopicPartition, int]:
        self.transport.before_commit()
        first = self.transport.append(outputs)
        self.transport.offsets |= {(self.group, where): offset for where, offset in offsets.items()}
        self.transport.commits += 1
        self.transport.after_commit()
        return first

    def lag(self) -> dict[TopicPartition, int]:
        return {where: self.transport.end_offset(where) - at for where, at in self.positions.items()}

    def close(self) -> None:
        pass


class OverlappingSession(MemorySession):
    """A commit takes effect when it begins, or when the session is asked for records meanwhile, or at its end."""

    under_way = False

    def begin(self, offsets: Mapping[TopicPartition, int], outputs: Sequence[OutRecord]) -> Callable[[], Committed]:
        assert not self.under_way
        self.under_way = True
        self._now: Callable[[], None] = lambda: None
        done: list[dict[TopicPartition, int] | Exception] = []

        def happen() -> None:
            if not done:
                owners = self.transport.owners
                try:
                    if owners is not None and any(owners[where.partition] != self.number for where in offsets):
                        raise FencedError("the group moved on")
                    done.append(MemorySession.commit(self, offsets, outputs))
                except Exception as error:
                    done.append(error)

        def end() -> Committed:
            happen()
            self.under_way = False
            if isinstance(done[0], Exception):
                raise done[0]
            return Committed(done[0], time.monotonic())

        self._now = happen
        self._perhaps()
        return end

    def _perhaps(self) -> None:
        assert self.transport.overlapping is not None
        if self.transport.overlapping.random() < 0.3:
            self._now()

    def ahead(self, max_records: int) -> dict[TopicPartition, Sequence[Record]]:
        assert self.under_way
        self._perhaps()
        assert self.transport.overlapping is not None
        return {} if self.transport.overlapping.random() < 0.2 else self.take(max_records)

    def poll(self, max_records: int, timeout: float) -> Poll:
        assert not self.under_way, "the group may change in a poll"
        return super().poll(max_records, timeout)

    def resume(self, partitions: Iterable[TopicPartition]) -> None:
        assert not self.under_way
        super().resume(partitions)

    def commit(self, offsets: Mapping[TopicPartition, int], outputs: Sequence[OutRecord]) -> dict[TopicPartition, int]:
        return self.begin(offsets, outputs)().first
