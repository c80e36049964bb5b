"""Sending whole batches: the oracle is the client's own builder, byte for byte, and its own decoder."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kafka.errors import IllegalStateError, KafkaTimeoutError, MessageSizeTooLargeError
from kafka.producer.record_accumulator import RecordAccumulator
from kafka.record.memory_records import MemoryRecords, MemoryRecordsBuilder

from stream.transport import kafka_send
from stream.transport.base import OutRecord, TopicPartition
from stream.transport.kafka_send import encode, send_all
from tests.transport.drive import EVENTS, numbered

HEADER_BYTES = 61

CONTENT = st.none() | st.binary(max_size=4) | st.integers(0, 70_000).map(lambda n: b"x" * n)
HEADERS = st.lists(st.tuples(st.sampled_from(["", "trace", "ü"]), st.binary(max_size=200)), max_size=3).map(tuple)
RECORDS = st.lists(
    st.builds(OutRecord, st.just("t"), CONTENT, CONTENT, st.just(0), HEADERS, st.integers(0, 2**60)),
    min_size=1,
    max_size=20,
)


def of_the_client(records: list[OutRecord], limit: int) -> list[bytes]:
    """The batches that the client's own builder makes of them."""
    made, batches = None, []
    for record in records:
        if made is None or made.append(record.timestamp, record.key, record.value, list(record.headers)) is None:
            made = MemoryRecordsBuilder(2, 0, limit)
            batches.append(made)
            made.append(record.timestamp, record.key, record.value, list(record.headers))
    for made in batches:
        made.close()
    return [bytes(made.buffer()) for made in batches]


@given(RECORDS, st.sampled_from([100, 300, 10_000, 262_144]))
def test_batches_are_those_of_the_client_byte_for_byte(records: list[OutRecord], limit: int) -> None:
    ours = [kafka_send._batch(WHERE, encoded, 0, limit) for encoded in encode(records, limit)]
    for batch in ours:
        batch.records.close()
    assert [bytes(batch.records.buffer()) for batch in ours] == of_the_client(records, limit)


def test_many_records_keep_their_order_and_their_numbers() -> None:
    records = [OutRecord("t", b"k", b"%d" % at, 0, (), at * 1000) for at in range(40_000)]
    (encoded,) = encode(records, 1 << 30)
    batch = kafka_send._batch(WHERE, encoded, 0, 1 << 30)
    batch.records.close()
    (read,) = MemoryRecords(batch.records.buffer())
    assert [(record.offset, record.timestamp, record.value) for record in read] == [
        (at, at * 1000, b"%d" % at) for at in range(40_000)
    ]


def test_a_record_without_a_time_gets_the_present() -> None:
    (encoded,) = encode([OutRecord("t", b"k", b"v", 0), OutRecord("t", b"k", b"v", 0, (), 5)], 1000)
    assert encoded.first_timestamp == encoded.max_timestamp > 1_700_000_000_000


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
    first = send_all(producer, "p.", records, [at % 2 for at in range(200)])
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
        send_all(Producer(fate), "", numbered(EVENTS, 100), [0] * 100)


def test_a_closed_producer_takes_nothing() -> None:
    producer = Producer(succeed({0: 0}))
    producer._accumulator.close()
    with pytest.raises(IllegalStateError):
        send_all(producer, "", numbered(EVENTS, 1), [0])


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
        send_all(producer, "", numbered(EVENTS, 2), [0, 0])
    assert producer.flushed


def test_one_by_one_the_first_offsets_come_back_too() -> None:
    producer = SlowProducer(*(Future(True, None, offset) for offset in (5, 9, 6)))
    first = send_all(producer, "", numbered(EVENTS, 3), [0, 1, 0])
    assert first == {TopicPartition(EVENTS, 0): 5, TopicPartition(EVENTS, 1): 9}
