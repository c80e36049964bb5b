"""Sending records and learning their fate: whole batches where the client's version allows it, else one by one.

`KafkaProducer.send` costs 19 us a record: checks, a partitioner, locks, a future and its callbacks for each. Here the
records of a partition are encoded into v2 batches in one pass and put into the client's own accumulator. All else
stays the client's: partitions are added to the transaction, its sender compresses, numbers and signs each batch (CRC),
sends, retries and completes it.

Invariant: `send_all` returns only if the broker has every record; what the broker refused, or what expired, raises.
"""

from __future__ import annotations

import inspect
import logging
import time
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import islice
from typing import Any

from kafka import errors as kafka_errors
from kafka.producer.future import FutureProduceResult, FutureRecordMetadata
from kafka.producer.producer_batch import ProducerBatch
from kafka.producer.record_accumulator import RecordAccumulator
from kafka.producer.transaction_manager import TransactionManager
from kafka.record.default_records import DefaultRecordBatchBuilder
from kafka.record.memory_records import MemoryRecordsBuilder
from kafka.structs import TopicPartition as KafkaPartition

from stream.transport.base import OutRecord, TopicPartition

log = logging.getLogger(__name__)

_NULL = b"\x01"
"""The varint of -1."""
_ATTRIBUTES = b"\x00"
_NO_HEADERS = b"\x00"


def send_all(
    producer: Any, prefix: str, records: Sequence[OutRecord], partitions: Sequence[int], timeout: float | None = None
) -> dict[TopicPartition, int]:
    """Send, flush, and look at what became of every record: only that shows a batch that expired.

    Returns the offset of the first record of each partition; -1 where the broker had a batch already and does not say.
    """
    if supported(producer):
        return _send_batches(producer, prefix, records, partitions, timeout)
    return _send_one_by_one(producer, prefix, records, partitions, timeout)


def supported(producer: Any) -> bool:
    """Whether the client's version has the parts that whole batches are built with, and the producer plain settings."""
    accumulator = getattr(producer, "_accumulator", None)
    names = ("_metadata", "_wait_on_metadata", "_sender", "_closed", "_transaction_manager")
    if not _known_version() or accumulator is None or not all(hasattr(producer, name) for name in names):
        return False
    parts = ("_batches", "_incomplete", "_appends_in_progress", "_closed")
    plain = not (producer.config["key_serializer"] or producer.config["value_serializer"])
    return plain and accumulator.config["message_version"] == 2 and all(hasattr(accumulator, name) for name in parts)


@lru_cache(maxsize=1)
def _known_version() -> bool:
    slots = {"_buffer", "_first_timestamp", "_max_timestamp", "_last_offset", "_num_records"}
    known = (
        slots <= set(getattr(DefaultRecordBatchBuilder, "__slots__", ()))
        and {"_builder", "_next_offset"} <= set(getattr(MemoryRecordsBuilder, "__slots__", ()))
        and list(inspect.signature(MemoryRecordsBuilder).parameters)[:3] == ["magic", "compression_type", "batch_size"]
        and list(inspect.signature(ProducerBatch).parameters) == ["tp", "records", "now"]
        and hasattr(RecordAccumulator, "_tp_lock")
        and hasattr(TransactionManager, "maybe_add_partition_to_transaction")
        and hasattr(FutureProduceResult, "wait")
    )
    if not known:
        log.warning("this version of kafka-python is not known: records are sent one by one, at five times the cost")
    return known


def _send_one_by_one(
    producer: Any, prefix: str, records: Sequence[OutRecord], partitions: Sequence[int], timeout: float | None
) -> dict[TopicPartition, int]:
    futures = [
        producer.send(
            prefix + record.topic,
            value=record.value,
            key=record.key,
            headers=list(record.headers),
            partition=partition,
            timestamp_ms=record.timestamp,
        )
        for record, partition in zip(records, partitions, strict=True)
    ]
    producer.flush(timeout=timeout)
    first: dict[TopicPartition, int] = {}
    for future, record, partition in zip(futures, records, partitions, strict=True):
        if not future.is_done:
            raise kafka_errors.KafkaTimeoutError("a record was still on its way after the flush")
        if future.exception is not None:
            raise future.exception
        first.setdefault(TopicPartition(record.topic, partition), future.value.offset)
    return first


def _send_batches(
    producer: Any, prefix: str, records: Sequence[OutRecord], partitions: Sequence[int], timeout: float | None
) -> dict[TopicPartition, int]:
    sent = [
        (TopicPartition(topic, partition), batch)
        for (topic, partition), own in by_partition(records, partitions).items()
        for batch in _enqueue(producer, KafkaPartition(prefix + topic, partition), own)
    ]
    producer.flush(timeout=timeout)
    first: dict[TopicPartition, int] = {}
    for where, batch in sent:
        future = batch.produce_future
        # Never done either where the client split the batch in two because the topic takes no batch of this size.
        if not future.is_done:
            raise kafka_errors.KafkaTimeoutError("a batch was still on its way after the flush")
        offset, _, error_of = future.value
        if error_of is not None:
            raise error_of(0)
        first.setdefault(where, offset)
    return first


def by_partition(records: Sequence[OutRecord], partitions: Sequence[int]) -> dict[tuple[str, int], list[OutRecord]]:
    """The records of each topic and partition, in order."""
    grouped: dict[tuple[str, int], list[OutRecord]] = {}
    for record, partition in zip(records, partitions, strict=True):
        where = (record.topic, partition)
        if where in grouped:
            grouped[where].append(record)
        else:
            grouped[where] = [record]
    return grouped


def _enqueue(producer: Any, where: KafkaPartition, records: Sequence[OutRecord]) -> list[Any]:
    """Put the records of one partition into the accumulator, in order; returns their batches."""
    if producer._closed:
        raise kafka_errors.IllegalStateError("the producer is closed")
    if producer._metadata.partitions_for_topic(where.topic) is None:
        producer._wait_on_metadata(where.topic, producer.config["max_block_ms"])
    transaction, accumulator = producer._transaction_manager, producer._accumulator
    if transaction is not None and transaction.is_transactional():
        transaction.maybe_add_partition_to_transaction(where)
    # No larger than the topic takes, so that the broker has no reason to refuse one and the client none to split it.
    limit = min(accumulator.config["batch_size"], producer.config["max_request_size"])
    compression = accumulator.config["compression_attrs"]
    batches = [_batch(where, encoded, compression, limit) for encoded in encode(records, limit)]
    accumulator._appends_in_progress.increment()
    try:
        with accumulator._tp_lock(where):
            if accumulator._closed:
                raise kafka_errors.IllegalStateError("the producer is closed")
            for batch in batches:
                accumulator._batches[where].append(batch)
                accumulator._incomplete.add(batch)
    finally:
        accumulator._appends_in_progress.decrement()
    return batches


def seal(encoded: Encoded, compression: int, producer_id: int, epoch: int, sequence: int) -> bytes:
    """A batch of a transaction as it goes to the broker: compressed, numbered and signed (CRC)."""
    builder = _builder(encoded, compression, len(encoded.body))
    builder.set_producer_state(producer_id, epoch, sequence, True)
    builder.close()
    sealed: bytes = builder.buffer()
    return sealed


def _batch(where: KafkaPartition, encoded: Encoded, compression: int, limit: int) -> Any:
    """The client's batch, as if every record had been appended to it."""
    batch = ProducerBatch(where, _builder(encoded, compression, limit))
    # One for the batch: a flush that waits for a batch which is then split is woken by it, and says so.
    future = FutureRecordMetadata(batch.produce_future, 0, encoded.first_timestamp, None, -1, -1, -1)
    batch._record_futures.append(future)
    return batch


def _builder(encoded: Encoded, compression: int, limit: int) -> Any:
    """The client's builder, as if every record had been appended to it."""
    builder = MemoryRecordsBuilder(2, compression, limit)
    inner = builder._builder
    inner._buffer += encoded.body
    inner._first_timestamp, inner._max_timestamp = encoded.first_timestamp, encoded.max_timestamp
    inner._last_offset, inner._num_records = encoded.count - 1, encoded.count
    builder._next_offset = encoded.count
    return builder


class Encoded:
    """The records of one v2 batch: what follows its header, uncompressed."""

    __slots__ = ("body", "count", "first_timestamp", "max_timestamp")

    def __init__(self, body: bytes, count: int, first_timestamp: int, max_timestamp: int) -> None:
        self.body = body
        self.count = count
        self.first_timestamp = first_timestamp
        self.max_timestamp = max_timestamp


def encode(records: Sequence[OutRecord], limit: int) -> Iterator[Encoded]:
    """Batches of at most `limit` bytes with their header; a record that is larger than that is one of its own.

    A record without a time gets the present.
    """
    room = limit - DefaultRecordBatchBuilder.header_size_in_bytes()
    now = int(time.time() * 1000)
    start = 0
    while start < len(records):
        encoded = _encode(records, start, room, now)
        yield encoded
        start += encoded.count


def _encode(records: Sequence[OutRecord], start: int, room: int, now: int) -> Encoded:
    """As many records from `start` on as there is room for, and at least one."""
    small, large = _SMALL, len(_SMALL)
    begins = records[start].timestamp
    first = latest = now if begins is None else begins
    parts: list[bytes] = []
    number = size = 0
    for _, key, value, _, headers, timestamp in islice(records, start, None):
        at = now if timestamp is None else timestamp
        delta = at - first
        k = b"" if key is None else key
        v = b"" if value is None else value
        body = b"".join(
            (
                _ATTRIBUTES,
                small[delta] if 0 <= delta < large else _varint(delta),
                small[number] if number < large else _varint(number),
                _NULL if key is None else small[len(k)] if len(k) < large else _varint(len(k)),
                k,
                _NULL if value is None else small[len(v)] if len(v) < large else _varint(len(v)),
                v,
                _headers(headers) if headers else _NO_HEADERS,
            )
        )
        length = small[len(body)] if len(body) < large else _varint(len(body))
        size += len(length) + len(body)
        if size > room and number:
            break
        parts.append(length)
        parts.append(body)
        number += 1
        if at > latest:
            latest = at
    return Encoded(b"".join(parts), number, first, latest)


def _headers(headers: Sequence[tuple[str, bytes]]) -> bytes:
    small, large = _SMALL, len(_SMALL)
    parts = [_varint(len(headers))]
    for name, content in headers:
        parts += (_name(name), small[len(content)] if len(content) < large else _varint(len(content)), content)
    return b"".join(parts)


@lru_cache(maxsize=1024)
def _name(name: str) -> bytes:
    encoded = name.encode()
    return _varint(len(encoded)) + encoded


def _varint(number: int) -> bytes:
    """Zigzag, seven bits a byte, the low ones first."""
    number = (number << 1) ^ (number >> 63)
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


_SMALL = tuple(map(_varint, range(16_384)))
