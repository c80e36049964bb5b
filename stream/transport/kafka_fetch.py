"""A cheaper way through kafka-python's consumer: whole record batches to columns, in place of one object a record.

The client decodes each record in Python, field by field, into a ConsumerRecord: 5 us of the 6 that polling costs. Its
fetcher hands every fetched partition to a class, `Fetcher.PartitionRecords`, from which it takes records; `install`
puts `ColumnRecords` in that place on one consumer. All else stays the client's: fetching, sessions, positions, seek,
pause, rebalances, the bound of a poll; and its own code checks the CRC, decompresses, and knows what was aborted.

Invariant: `take` gives the records that the client's own class would give, with the same positions and errors. A
batch that is not laid out as the v2 format says (or is of an older format) is decoded by the client's own code.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from kafka.consumer.fetcher import Fetcher
from kafka.errors import CorruptRecordError
from kafka.protocol.consumer import IsolationLevel
from kafka.record.default_records import DefaultRecordBatch

from stream import kernels
from stream.transport.kafka_decode import Bodies, Rows
from stream.transport.records import RecordColumns, join

log = logging.getLogger(__name__)

_PARAMETERS = (
    "fetch_offset",
    "tp",
    "records",
    "key_deserializer",
    "value_deserializer",
    "check_crcs",
    "isolation_level",
    "aborted_transactions",
    "metric_aggregator",
    "on_drain",
)
_METHODS = (
    "_unpack_records",
    "_maybe_skip_record",
    "_maybe_raise_next_inline_exception",
    "_consume_aborted_transactions_up_to",
    "_is_batch_aborted",
    "_contains_abort_marker",
    "drain",
)
_FETCHING = ("fetch_records", "fetched_records", "_send_fetches_async")
ANSWER_MS = 5
"""So long a broker may take to answer with what it has; on one machine it takes one to three."""
_FEW = 48
"""Below so many records in a batch the fixed cost of numpy is more than that of a loop. The kernel has none."""
_PART = 500
"""Small batches are put together until they are so many records."""


@lru_cache(maxsize=1)
def supported() -> bool:
    """Whether this version of the client has the parts that this module builds on."""
    part = getattr(Fetcher, "PartitionRecords", None)
    if part is None or not all(hasattr(part, name) for name in _METHODS):
        return False
    if not all(hasattr(Fetcher, name) for name in _FETCHING):
        return False
    parameters = tuple(inspect.signature(part.__init__).parameters)[1:]
    slots = getattr(DefaultRecordBatch, "__slots__", ())
    codec = hasattr(DefaultRecordBatch, "CODEC_ZSTD") and hasattr(DefaultRecordBatch, "compression_type")
    return parameters == _PARAMETERS and "_buffer" in slots and "_pos" in slots and codec


def install(consumer: Any) -> bool:
    """Let a consumer poll columns, where the client's version allows it; returns whether it does.

    `poll` then gives lists of RecordColumns, which count as their records; `columns` makes one of either kind.
    """
    fetcher = getattr(consumer, "_fetcher", None)
    deserializers = ("key_deserializer", "value_deserializer")
    if not supported() or fetcher is None or any(consumer.config.get(name) for name in deserializers):
        log.warning("this version of kafka-python is not known: records are read one by one, at five times the cost")
        return False
    fetcher.PartitionRecords = ColumnRecords
    return True


def columns(fetched: Sequence[Any], topic: str) -> RecordColumns:
    """What one poll brought of one partition, at least one record, under the name `topic`."""
    if isinstance(fetched[0], RecordColumns):
        return join(fetched).under(topic)
    return RecordColumns(
        topic,
        fetched[0].partition,
        np.array([record.offset for record in fetched], np.int64),
        np.array([record.timestamp for record in fetched], np.int64),
        [record.key for record in fetched],
        [record.value for record in fetched],
        [tuple(record.headers) for record in fetched] if any(record.headers for record in fetched) else None,
    )


def poll(consumer: Any, max_records: int, seconds: float) -> dict[Any, list[Any]]:
    """One poll that waits so long for the first record, and then brings what the broker has now.

    The client asks for more as soon as it hands out the last it has, and the broker answers with the few events of
    those milliseconds. What came in while they waited here, during the last commit, is the answer to the next request:
    without it every other commit would be one of a handful of events.
    """
    fetched: dict[Any, list[Any]] = consumer.poll(timeout_ms=0, max_records=max_records)
    if not fetched:
        return poll_once(consumer, max_records, seconds)
    room = max_records - _count(fetched)
    if room > 0:
        for where, records in consumer.poll(timeout_ms=ANSWER_MS, max_records=room).items():
            fetched[where] = [*fetched.get(where, ()), *records]
    return fetched


def poll_once(consumer: Any, max_records: int, seconds: float) -> dict[Any, list[Any]]:
    """The client's own poll, which waits for a rebalance too."""
    fetched: dict[Any, list[Any]] = consumer.poll(timeout_ms=int(seconds * 1000), max_records=max_records)
    return fetched


class Ahead:
    """What a consumer has for us while a commit is under way, without a look after the group.

    `ask` and `take` belong to the thread that polls. With an unknown client there is nothing.
    """

    def __init__(self, consumer: Any) -> None:
        self._fetcher: Any = consumer._fetcher if supported() else None
        self._asked: Any = None

    def ask(self) -> None:
        """Have the client ask for more, unless it has asked or holds some; waits for nothing.

        The answer comes while the commit is prepared. Asked for sooner it would bring less, asked for in `take` it
        would be waited for.
        """
        if self._fetcher is not None:
            self._asked = self._fetcher._manager.call_soon(self._fetcher._send_fetches_async)

    def take(self, max_records: int) -> dict[Any, list[Any]]:
        """What came in, or comes within milliseconds."""
        fetched: dict[Any, list[Any]] = {}
        if self._fetcher is None:
            return fetched
        # On the thread of the connections, where it may not have had its turn yet.
        if self._asked is None or self._asked.is_done:
            fetched = self._fetcher.fetched_records(max_records)[0]
        if not fetched:
            fetched = self._fetcher.fetch_records(max_records, timeout_ms=ANSWER_MS)[0]
        if _count(fetched) >= max_records:
            self.ask()  # a backlog: what comes next takes long enough to come while this is worked on
        return fetched


def _count(fetched: Mapping[Any, Sequence[Any]]) -> int:
    """How many records these are: lists of records, or of parts."""
    return sum(len(part) if isinstance(part, RecordColumns) else 1 for records in fetched.values() for part in records)


class _Taken:
    """What `take` gives to the fetcher, which counts its length and extends a list by it: parts, not records."""

    __slots__ = ("_parts",)

    def __init__(self, parts: list[RecordColumns]) -> None:
        self._parts = parts

    def __len__(self) -> int:
        return sum(map(len, self._parts))

    def __iter__(self) -> Iterator[RecordColumns]:
        return iter(self._parts)


class ColumnRecords(Fetcher.PartitionRecords):  # type: ignore[misc]
    """The records of one partition in one fetch response. Batches are decoded as they are taken."""

    _rest: RecordColumns | None = None
    """What was decoded and not yet taken."""
    _last: Any = None
    """The last batch that was looked at."""
    _passed = 0
    """Where the last batch ended that is for no reader."""

    def take(self, n: int | None = None) -> _Taken:
        """The next records, at most `n`; `next_fetch_offset` follows. Errors come after the records before them."""
        self._maybe_raise_next_inline_exception()
        parts: list[RecordColumns] = []
        wanted = n
        try:
            while wanted is None or wanted > 0:
                if self._rest is not None:
                    part, self._rest = self._rest, None
                elif (found := next(self.record_iterator, None)) is not None:
                    self.leader_epoch, part = found
                else:
                    break
                if wanted is not None and len(part) > wanted:
                    part, self._rest = part[:wanted], part[wanted:]
                parts.append(part)
                self.next_fetch_offset = int(part.offsets[-1]) + 1
                self.records_read += len(part)
                if wanted is not None:
                    wanted -= len(part)
        except Exception as error:
            if not parts:
                raise
            self._next_inline_exception = error
        return _Taken(parts)

    def _maybe_skip_record(self, record: Any) -> bool:
        """The client drops what lies before the offset that was asked for; `_unpack_records` has done so already."""
        return False

    def _unpack_records(
        self, tp: Any, records: Any, key_deserializer: Any, value_deserializer: Any
    ) -> Iterator[tuple[int, RecordColumns]]:
        """(Leader epoch, columns) in order, never empty: what the client's own class would give record by record."""
        assert key_deserializer is None and value_deserializer is None
        few = 1 if kernels.on() else _FEW
        pending: Rows | Bodies = Rows()
        epoch = -1
        try:
            for batch in self._visible(tp, records):
                # Many small batches make one part.
                now = batch.leader_epoch if batch.magic == 2 else -1
                if len(pending) and (now != epoch or len(pending) >= _PART):
                    yield from self._part(epoch, pending.columns(tp))
                    pending = Rows()
                epoch = now
                if batch.magic == 2 and batch.records_count >= few:
                    bodies = pending if isinstance(pending, Bodies) else Bodies()
                    if bodies.read(batch):
                        if bodies is not pending and len(pending):
                            yield from self._part(epoch, pending.columns(tp))
                        pending = bodies
                        continue
                rows = pending if isinstance(pending, Rows) else Rows()
                if rows is not pending:
                    yield from self._part(epoch, pending.columns(tp))
                    pending = rows
                if batch.magic != 2 or not rows.read(batch):
                    self._read_plainly(tp, batch, rows)
        except Exception:
            if len(pending):
                yield from self._part(epoch, pending.columns(tp))
            self.next_fetch_offset = max(self.next_fetch_offset, self._passed)
            raise
        if len(pending):
            yield from self._part(epoch, pending.columns(tp))
        if self._last is not None and self._last.magic == 2:
            # The last offset of a batch stays when compaction takes its record: so the next fetch gets beyond it.
            self.next_fetch_offset = self._last.next_offset
            self.leader_epoch = self._last.leader_epoch
        self.drain()

    def _visible(self, tp: Any, records: Any) -> Iterator[Any]:
        """The batches that are for readers."""
        while (batch := records.next_batch()) is not None:
            self._last = batch
            if self.check_crcs and not batch.validate_crc():
                raise CorruptRecordError(
                    f"the record batch {tp.topic}/{tp.partition}@{batch.base_offset} fails its CRC check"
                )
            if batch.magic == 2 and self._is_hidden(batch):
                self._passed = batch.next_offset
            else:
                self.bytes_read = records.size_in_bytes()
                yield batch

    def _is_hidden(self, batch: Any) -> bool:
        """Whether a batch is for no reader: aborted, or a control batch. To be asked once for each, in order."""
        if self.isolation_level == IsolationLevel.READ_COMMITTED and batch.has_producer_id():
            self._consume_aborted_transactions_up_to(batch.last_offset)
            if self._contains_abort_marker(batch):
                self.aborted_producer_ids.discard(batch.producer_id)
            elif self._is_batch_aborted(batch):
                return True
        return bool(batch.is_control_batch)

    def _read_plainly(self, tp: Any, batch: Any, rows: Rows) -> None:
        """By the client's own decoder, up to the record that it refuses."""
        for record in batch:
            if self.check_crcs and not record.validate_crc():
                raise CorruptRecordError(f"the record {tp.topic}/{tp.partition}@{record.offset} fails its CRC check")
            rows.offsets.append(record.offset)
            rows.timestamps.append(record.timestamp)
            rows.keys.append(record.key)
            rows.values.append(record.value)
            rows.headers.append(tuple(record.headers))

    def _part(self, epoch: int, columns: RecordColumns) -> Iterator[tuple[int, RecordColumns]]:
        """Without what lies before the offset that was asked for: a batch comes whole."""
        if columns.offsets[0] < self.fetch_offset:
            columns = columns[int(np.searchsorted(columns.offsets, self.fetch_offset)) :]
        if len(columns):
            yield epoch, columns
