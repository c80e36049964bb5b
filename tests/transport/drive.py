"""What the transport tests share: places that hold topics, and members that poll in threads of their own."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from schemas.topics import TopicSpec
from stream.transport.base import OutRecord, Record, Session, TopicPartition, Transport, TransportError
from stream.transport.embedded import EmbeddedTransport
from stream.transport.kafka import KafkaTransport
from stream.transport.settings import EmbeddedSettings, KafkaSettings

PATIENCE = 30.0

EVENTS, CLICKS = "events", "clicks"
CHANGES, LATEST, SINGLE, SMALL = "changes", "latest", "single", "small"
SPECS = (
    TopicSpec(EVENTS, "input"),
    TopicSpec(CLICKS, "input"),
    TopicSpec(CHANGES, "input"),
    TopicSpec(LATEST, "input", cleanup="compact", retention_ms=None),
    TopicSpec(SINGLE, 1),
    TopicSpec(SMALL, 1, config={"max.message.bytes": "2000"}),
)


class Place:
    """Somewhere for topics to live: a directory, or a prefix on a broker."""

    def __init__(self, kind: str, open_transport: Callable[..., Transport], address: str) -> None:
        self.kind = kind
        self.address = address
        self._open = open_transport
        self._closers: list[Callable[[], None]] = []

    def open(self, **impatience: int) -> Transport:
        """A transport of its own on the same topics. `evict_ms`: how long a silent member keeps its place."""
        transport = self._open(**impatience)
        self._closers.append(transport.close)
        return transport

    def session(self, transport: Transport, group: str = "g", topics: Sequence[str] = (EVENTS,)) -> Session:
        session = transport.session(group, topics)
        self._closers.append(session.close)
        return session

    def member(self, transport: Transport, topics: Sequence[str] = (EVENTS,), **options: Any) -> Member:
        member = Member(self.session(transport, topics=topics), **options)
        self._closers.append(member.stop)
        return member

    def close(self) -> None:
        for closer in reversed(self._closers):
            with suppress(TransportError):
                closer()


def embedded_place(directory: Path) -> Place:
    def open_transport(evict_ms: int = 45_000) -> Transport:
        return EmbeddedTransport(directory, EmbeddedSettings(member_lease=evict_ms))

    return Place("embedded", open_transport, str(directory))


def kafka_place(bootstrap: str, prefix: str) -> Place:
    def open_transport(evict_ms: int = 60_000) -> Transport:
        return KafkaTransport(
            KafkaSettings(
                bootstrap_servers=bootstrap,
                topic_prefix=prefix,
                session_timeout=max(min(evict_ms, 10_000), 2_000),
                max_poll_interval=evict_ms,
                transaction_timeout=4_000,
            )
        )

    return Place("kafka", open_transport, f"{bootstrap}/{prefix}")


class Member:
    """A session polled by a thread of its own: it resumes what it gets and keeps what it reads.

    With `commits` it commits every batch, with an output a record (to `output`) that names its input.
    """

    def __init__(self, session: Session, commits: bool = False, output: str = CHANGES, max_records: int = 100) -> None:
        self.session = session
        self.owned: set[TopicPartition] = set()
        self.records: dict[TopicPartition, list[Record]] = defaultdict(list)
        self.error: TransportError | None = None
        self._commits = commits
        self._output = output
        self._max_records = max_records
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Poll no more; the session stays open."""
        self._stopped.set()
        self._thread.join(PATIENCE)

    def leave(self) -> None:
        self.stop()
        self.session.close()

    def _run(self) -> None:
        try:
            while not self._stopped.is_set():
                poll = self.session.poll(self._max_records, 0.1)
                self.owned = (self.owned - poll.revoked) | poll.assigned
                self.session.resume(poll.assigned)
                for where, records in poll.records.items():
                    self.records[where] += records
                if self._commits and poll.records:
                    self.session.commit(next_offsets(poll.records), [echo(self._output, r) for r in flat(poll.records)])
        except TransportError as error:
            self.error = error


def until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"still waiting for {what}"
        time.sleep(0.02)


def acquire(session: Session) -> set[TopicPartition]:
    """Poll until a first assignment comes; it stays paused."""
    deadline = time.monotonic() + PATIENCE
    owned: set[TopicPartition] = set()
    while time.monotonic() < deadline:
        poll = session.poll(10, 0.2)
        assert not poll.records, "records of partitions that were not resumed"
        owned |= poll.assigned
        if owned and not poll.assigned:
            return owned
    raise AssertionError("no partition was assigned")


def take(session: Session, count: int, max_records: int = 1000) -> dict[TopicPartition, list[Record]]:
    """Poll, resuming whatever comes, until `count` records are there."""
    deadline = time.monotonic() + PATIENCE
    taken: dict[TopicPartition, list[Record]] = defaultdict(list)
    while sum(map(len, taken.values())) < count:
        assert time.monotonic() < deadline, f"only {sum(map(len, taken.values()))} of {count} records came"
        poll = session.poll(max_records, 0.2)
        session.resume(poll.assigned)
        for where, records in poll.records.items():
            assert records, "an empty list was polled"
            taken[where] += records
    return dict(taken)


def read_all(transport: Transport, topic: str, start: int = 0) -> list[Record]:
    return [
        record
        for partition in range(transport.partitions(topic))
        for record in transport.read(TopicPartition(topic, partition), start)
    ]


def values(records: Sequence[Record]) -> list[Any]:
    """Any, so that they can be sorted where none is null."""
    return [record.value for record in records]


def flat(records: Any) -> list[Record]:
    return [record for batch in records.values() for record in batch]


def next_offsets(records: Any) -> dict[TopicPartition, int]:
    return {where: batch[-1].offset + 1 for where, batch in records.items()}


def echo(topic: str, record: Record) -> OutRecord:
    name = b"%s/%d/%d" % (record.topic.encode(), record.partition, record.offset)
    return OutRecord(topic, record.key, name, record.partition)


def numbered(topic: str, count: int, first: int = 0) -> list[OutRecord]:
    return [OutRecord(topic, b"user-%d" % number, b"%d" % number) for number in range(first, first + count)]
