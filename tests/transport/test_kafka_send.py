"""Sending whole batches through the client, and learning what became of them."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from kafka.errors import IllegalStateError, KafkaTimeoutError, MessageSizeTooLargeError
from kafka.producer.record_accumulator import RecordAccumulator
from kafka.record.memory_records import MemoryRecords

from stream.transport import kafka_send
from stream.transport.base import OutRecord, TopicPartition
from stream.transport.kafka_send import send_all
from tests.transport.drive import EVENTS, numbered

# With the client's accumulator, and in place of its sender a function that says what became of each batch

WHERE = SimpleNamespace(topic="t", partition=0)


class Producer:
    """The parts of a KafkaProducer that sending touches. `fate` is called with each batch at the flush."""

    def __init__(self, fate: Callable[[Any, Any], None]) -> None:
        self.config = {
            "key_serializer": None,
            "value_serializer": None,
            "max_block_ms": 1,
            "max_request_size": 1_000_000,
        }
        self._accumulator = RecordAccumulator(batch_size=1_000, delivery_timeout_ms=40_000)
        self._metadata = SimpleNamespace(partitions_for_topic=lambda topic: {0, 1})
        self._wait_on_metadata: Any = None
        self._sender: Any = None
        self._transaction_manager: Any = None
        self._closed = False
        self._fate = fate

    def flush(self, timeout: float | None = None) -> None:
        """What the sender and the broker would do."""
        for batch in list(self._accumulator._incomplete.all()):
            batch.records.close()
        for where in list(self._accumulator._batches):
            for batch in list(self._accumulator._batches[where]):
                self._fate(self._accumulator, batch)


def placed(count: int) -> dict[TopicPartition, list[OutRecord]]:
    """So many records of one partition."""
    return {TopicPartition(EVENTS, 0): numbered(EVENTS, count)}


def succeed(offsets: dict[int, int]) -> Callable[[Any, Any], None]:
    """A broker that appends, from these offsets on by partition."""

    def fate(accumulator: Any, batch: Any) -> None:
        where = batch.topic_partition.partition
        batch.complete(offsets[where], -1)
        offsets[where] += batch.record_count

    return fate


def test_the_first_offset_of_each_partition_comes_back() -> None:
    producer = Producer(succeed({0: 100, 1: 7}))
    records = numbered(EVENTS, 200)
    first = send_all(producer, "p.", {TopicPartition(EVENTS, part): records[part::2] for part in (0, 1)})
    assert first == {TopicPartition(EVENTS, 0): 100, TopicPartition(EVENTS, 1): 7}
    batches = producer._accumulator._batches
    assert {where.topic for where in batches} == {f"p.{EVENTS}"}
    sent = {
        where.partition: [r.value for b in found for r in MemoryRecords(b.records.buffer()).next_batch()]
        for where, found in batches.items()
    }
    assert all(len(found) > 1 for found in batches.values())
    assert sent == {part: [record.value for record in records[part::2]] for part in (0, 1)}


def expire_the_last(accumulator: Any, batch: Any) -> None:
    """The client fails its future, and would let the transaction commit without it."""
    if batch is accumulator._batches[batch.topic_partition][-1]:
        error = KafkaTimeoutError("expired")
        batch.complete_exceptionally(error, lambda _: error)
    else:
        batch.complete(0, -1)


def lose_the_last(accumulator: Any, batch: Any) -> None:
    if batch is not accumulator._batches[batch.topic_partition][-1]:
        batch.complete(0, -1)


def split(accumulator: Any, batch: Any) -> None:
    """As the client does where the topic takes no batch of this size."""
    if batch.record_count > 1 and batch.attempts == 0:
        accumulator.split_and_reenqueue(batch)


@pytest.mark.parametrize(
    ("fate", "error"), [(expire_the_last, "expired"), (lose_the_last, "on its way"), (split, "on its way")]
)
def test_a_batch_that_did_not_arrive_is_not_overlooked(fate: Callable[[Any, Any], None], error: str) -> None:
    with pytest.raises(KafkaTimeoutError, match=error):
        send_all(Producer(fate), "", placed(100))


def test_a_closed_producer_takes_nothing() -> None:
    producer = Producer(succeed({0: 0}))
    producer._accumulator.close()
    with pytest.raises(IllegalStateError):
        send_all(producer, "", placed(1))


def test_this_version_of_the_client_is_given_whole_batches() -> None:
    """If this fails after an upgrade, everything still works, at five times the cost: adapt kafka_send.py."""
    assert kafka_send.supported(Producer(succeed({})))
    assert not kafka_send.supported(SlowProducer())


# One by one, where the client's version is not known


class Future:
    def __init__(self, done: bool, exception: Exception | None, offset: int = 0) -> None:
        self.is_done = done
        self.exception = exception
        self.value = SimpleNamespace(offset=offset)


class SlowProducer:
    def __init__(self, *futures: Future) -> None:
        self._futures = list(futures)
        self.flushed = False

    def send(self, *arguments: object, **named: object) -> Future:
        return self._futures.pop(0)

    def flush(self, timeout: float | None = None) -> None:
        self.flushed = True


@pytest.mark.parametrize(
    ("future", "error"),
    [
        (Future(True, KafkaTimeoutError("expired")), KafkaTimeoutError),
        (Future(True, MessageSizeTooLargeError("large")), MessageSizeTooLargeError),
        (Future(False, None), KafkaTimeoutError),
    ],
)
def test_a_record_that_did_not_arrive_is_not_overlooked(future: Future, error: type[Exception]) -> None:
    producer = SlowProducer(Future(True, None), future)
    with pytest.raises(error):
        send_all(producer, "", placed(2))
    assert producer.flushed


def test_one_by_one_the_first_offsets_come_back_too() -> None:
    producer = SlowProducer(*(Future(True, None, offset) for offset in (5, 6, 9)))
    records = numbered(EVENTS, 3)
    first = send_all(producer, "", {TopicPartition(EVENTS, part): records[part::2] for part in (0, 1)})
    assert first == {TopicPartition(EVENTS, 0): 5, TopicPartition(EVENTS, 1): 9}
