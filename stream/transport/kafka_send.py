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
from collections.abc import Mapping, Sequence
from functools import lru_cache
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
from stream.transport.kafka_encode import Encoded, encode

log = logging.getLogger(__name__)


def send_all(
    producer: Any, prefix: str, placed: Mapping[TopicPartition, Sequence[OutRecord]], timeout: float | None = None
) -> dict[TopicPartition, int]:
    """Send the records of each partition, flush, and look at what became of every one: only that shows a batch that
    expired.

    Returns the offset of the first record of each partition; -1 where the broker had a batch already and does not say.
    """
    if supported(producer):
        return _send_batches(producer, prefix, placed, timeout)
    return _send_one_by_one(producer, prefix, placed, timeout)


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
    producer: Any, prefix: str, placed: Mapping[TopicPartition, Sequence[OutRecord]], timeout: float | None
) -> dict[TopicPartition, int]:
    futures = [
        (
            where,
            producer.send(
                prefix + where.topic,
                value=record.value,
                key=record.key,
                headers=list(record.headers),
                partition=where.partition,
                timestamp_ms=record.timestamp,
            ),
        )
        for where, own in placed.items()
        for record in own
    ]
    producer.flush(timeout=timeout)
    first: dict[TopicPartition, int] = {}
    for where, future in futures:
        if not future.is_done:
            raise kafka_errors.KafkaTimeoutError("a record was still on its way after the flush")
        if future.exception is not None:
            raise future.exception
        first.setdefault(where, future.value.offset)
    return first


def _send_batches(
    producer: Any, prefix: str, placed: Mapping[TopicPartition, Sequence[OutRecord]], timeout: float | None
) -> dict[TopicPartition, int]:
    sent = [
        (where, batch)
        for where, own in placed.items()
        for batch in _enqueue(producer, KafkaPartition(prefix + where.topic, where.partition), own)
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
