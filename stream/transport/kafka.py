"""The Kafka transport: topics, groups and transactions of an Apache Kafka cluster, through kafka-python.

Invariant: what this module hands out was committed, and what it writes is read by nobody before it is. Names carry
the deployment's prefix on the broker and nowhere else.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np
from kafka.admin import OffsetSpec
from kafka.errors import CoordinatorLoadInProgressError, CoordinatorNotAvailableError, NotCoordinatorError
from kafka.protocol.consumer import IsolationLevel
from kafka.structs import TopicPartition as KafkaPartition

from schemas.topics import BY_NAME, TopicSpec
from stream.transport import kafka_topics
from stream.transport.base import (
    Difference,
    OutRecord,
    Record,
    TopicPartition,
    Transport,
    TransportError,
    UnavailableError,
)
from stream.transport.copartition import unequal_partitions
from stream.transport.kafka_clients import Clients
from stream.transport.kafka_fetch import columns
from stream.transport.kafka_send import send_all
from stream.transport.kafka_session import KafkaSession
from stream.transport.partitioner import by_partition, check_records
from stream.transport.settings import KafkaSettings

_ELECTING = (CoordinatorNotAvailableError, CoordinatorLoadInProgressError, NotCoordinatorError)
_PRODUCE_CHUNK = 10_000
_READ_RECORDS = 5_000
_READ_WAIT_MS = 200


class KafkaTransport(Transport):
    """One cluster. Nothing is connected before it is used. May be shared by threads, and not across a fork."""

    def __init__(self, settings: KafkaSettings | None = None) -> None:
        self._settings = settings or KafkaSettings()
        self._clients = Clients(self._settings)
        self._lock = threading.RLock()
        self._admin: Any = None
        self._producer: Any = None
        self._idle_readers: list[Any] = []
        self._partitions: dict[str, int] = {}
        self._keyless = 0
        self._process_id = uuid.uuid4().hex[:12]
        self._places: set[tuple[str, int]] = set()

    def session(self, group: str, topics: Sequence[str]) -> KafkaSession:
        """See the base class. Raises UnavailableError where the broker or a topic is missing."""
        counts = {name: self._need(name, fresh=True) for name in sorted(set(topics))}
        if problem := unequal_partitions(counts):
            raise TransportError(problem)
        place = self._take_place(group)
        instance = self._settings.group_instance_id
        if instance is not None and place:
            instance = f"{instance}-{place}"
        return KafkaSession(
            self._clients,
            group,
            list(counts),
            transactional_id=f"{self._settings.topic_prefix}{group}-{instance or f'{self._process_id}-{place}'}",
            instance_id=instance,
            prepare=self._prepare,
            released=lambda: self._places.discard((group, place)),
        )

    def produce(self, records: Iterable[OutRecord]) -> int:
        """See the base class. In batches; what was sent before an error stays."""
        count = 0
        source = iter(records)
        # A chunk at a time, flushed: the client's buffer has no bound of its own.
        while chunk := list(islice(source, _PRODUCE_CHUNK)):
            with self._lock, self._clients.errors():
                placed = self._prepare(chunk)
                if self._producer is None:
                    self._producer = self._clients.producer(linger_ms=self._settings.linger)
                send_all(self._producer, self._settings.topic_prefix, placed)
            count += len(chunk)
        return count

    def read(self, where: TopicPartition, start: int, end: int | None = None) -> Iterator[Record]:
        """See the base class. Without `end` it reads to where the log ends for those who see uncommitted records too,
        so that nothing is missed that is being committed now. Raises UnavailableError where an open transaction or
        an outage keeps it from getting there."""
        if end is None:
            end = self._offset(where, OffsetSpec.LATEST, IsolationLevel.READ_UNCOMMITTED)
        return self._read(where, start, end) if start < end else iter(())

    def partitions(self, topic: str) -> int:
        """See the base class."""
        name = self._settings.topic_prefix + topic
        return int(self._ask(lambda admin: kafka_topics.describe(admin, [name]).get(name, 0)))

    def start_offset(self, where: TopicPartition) -> int:
        """See the base class."""
        return self._offset(where, OffsetSpec.EARLIEST, IsolationLevel.READ_UNCOMMITTED)

    def end_offset(self, where: TopicPartition) -> int:
        """See the base class. It counts control records, and stops before the first open transaction."""
        return self._offset(where, OffsetSpec.LATEST, IsolationLevel.READ_COMMITTED)

    def committed(self, group: str, where: TopicPartition) -> int | None:
        """See the base class."""
        native = self._native(where)
        name = self._settings.topic_prefix + group
        found = self._ask(lambda admin: admin.list_group_offsets({name: [native]})[name].get(native))
        return None if found is None or found.offset < 0 else int(found.offset)

    def trim(self, where: TopicPartition, before: int) -> None:
        """See the base class. Raises TransportError beyond the end."""
        if before <= self.start_offset(where):
            return
        if before > (end := self.end_offset(where)):
            raise TransportError(f"cannot trim {where.topic}/{where.partition} to {before}: it ends at {end}")
        self._ask(lambda admin: admin.delete_records({self._native(where): before}))

    def create_topics(self, specs: Iterable[TopicSpec], input_partitions: int) -> list[str]:
        """See the base class."""
        wanted = list(specs)
        created: list[str] = self._ask(
            lambda admin: kafka_topics.create(admin, wanted, input_partitions, self._settings)
        )
        return created

    def check_topics(self, specs: Iterable[TopicSpec], input_partitions: int | None = None) -> list[Difference]:
        """See the base class."""
        wanted = list(specs)
        found: list[Difference] = self._ask(
            lambda admin: kafka_topics.check(admin, wanted, input_partitions, self._settings)
        )
        return found

    def close(self) -> None:
        """See the base class. Sessions are closed by their owners."""
        with self._lock:
            if self._producer is not None:
                self._producer.close(timeout=5)
            if self._admin is not None:
                self._admin.close()
            while self._idle_readers:
                self._idle_readers.pop().close(autocommit=False)
            self._producer = self._admin = None

    def _ask(self, question: Callable[[Any], Any]) -> Any:
        """The admin client's answer, asked again for a while where coordinators are being elected.

        The client remembers the coordinators and nodes that it knew, and asks those that moved or died for ever: after
        any failure it is given up for a new one.
        """
        deadline = time.monotonic() + self._settings.connect_timeout / 1000
        while True:
            with self._lock, self._clients.errors():
                if self._admin is None:
                    self._admin = self._clients.admin()
                admin = self._admin
                try:
                    return question(admin)
                except Exception as error:
                    self._admin = None
                    admin.close()
                    # A new broker makes the topic of offsets at the first question; others move.
                    if not isinstance(error, _ELECTING) or time.monotonic() > deadline:
                        raise
            time.sleep(0.2)

    def _need(self, topic: str, *, fresh: bool = False) -> int:
        """How many partitions a topic has, which must exist. Partitions are only ever added, and rarely."""
        if not fresh and (known := self._partitions.get(topic)):
            return known  # without the lock, which is held while the broker is asked
        with self._lock:
            if fresh or topic not in self._partitions:
                count = self.partitions(topic)
                if not count:
                    name = self._settings.topic_prefix + topic
                    raise UnavailableError(f"topic {name!r} does not exist: run `resegment topics create`")
                self._partitions[topic] = count
            return self._partitions[topic]

    def _prepare(self, records: Sequence[OutRecord]) -> dict[TopicPartition, list[OutRecord]]:
        """Refuse what no topic takes, and choose the partition of each record: theirs by partition, in order."""
        by_topic: dict[str, list[OutRecord]] = {}
        for record in records:
            by_topic.setdefault(record.topic, []).append(record)
        self._keyless += 1
        placed: dict[TopicPartition, list[OutRecord]] = {}
        for name, own in by_topic.items():
            spec = BY_NAME.get(name)
            check_records(name, own, self._settings.max_message_bytes, spec is not None and spec.cleanup == "compact")
            for partition, some in by_partition(name, own, self._need(name), self._keyless).items():
                placed[TopicPartition(name, partition)] = some
        return placed

    def _offset(self, where: TopicPartition, spec: Any, isolation: Any) -> int:
        native = self._native(where)
        found = self._ask(lambda admin: admin.list_partition_offsets({native: spec}, isolation_level=isolation))
        return int(found[native].offset)

    def _read(self, where: TopicPartition, start: int, end: int) -> Iterator[Record]:
        native = self._native(where)
        with self._lock:
            reader = self._idle_readers.pop() if self._idle_readers else None
        if reader is None:
            reader = self._clients.consumer(group_id=None)
        finished = False
        try:
            with self._clients.errors():
                reader.assign([native])
                reader.seek(native, start)
            position, moved_at = start, time.monotonic()
            while position < end:
                with self._clients.errors():
                    fetched = reader.poll(timeout_ms=_READ_WAIT_MS, max_records=_READ_RECORDS).get(native, ())
                    reached = reader.position(native, timeout_ms=0)
                if fetched:
                    records = columns(fetched, where.topic)
                    yield from records[: int(np.searchsorted(records.offsets, end))]
                if reached is not None and reached != position:
                    position, moved_at = reached, time.monotonic()
                elif time.monotonic() - moved_at > self._settings.stall_timeout / 1000:
                    raise UnavailableError(
                        f"reading {where.topic}/{where.partition} stands still at {position} of {end}: the broker does "
                        "not answer, or a transaction is open there"
                    )
            finished = True
        finally:
            # One that was left in the middle has records of this partition in its buffers: not for others.
            if finished:
                with self._lock:
                    self._idle_readers.append(reader)
            else:
                reader.close(autocommit=False)

    def _take_place(self, group: str) -> int:
        """The lowest number that no other session of this group in this process has.

        A session that follows a dead one gets the number of the dead one, and so its transactional id.
        """
        with self._lock:
            place = next(number for number in range(len(self._places) + 1) if (group, number) not in self._places)
            self._places.add((group, place))
            return place

    def _native(self, where: TopicPartition) -> KafkaPartition:
        return KafkaPartition(self._settings.topic_prefix + where.topic, where.partition)
