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
import numpy.typing as npt
from kafka.consumer.fetcher import Fetcher
from kafka.errors import CorruptRecordError
from kafka.protocol.consumer import IsolationLevel
from kafka.record.default_records import DefaultRecordBatch

from stream.transport.base import Headers
from stream.transport.records import Ints, RecordColumns, join

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
_VARINT_BITS = 64
_FEW = 48
"""Below so many records in a batch the fixed cost of numpy is more than that of a loop."""
_PART = 500
"""Small batches are put together until they are so many records."""


@lru_cache(maxsize=1)
def supported() -> bool:
    """Whether this version of the client has the parts that this module builds on."""
    part = getattr(Fetcher, "PartitionRecords", None)
    if part is None or not all(hasattr(part, name) for name in _METHODS):
        return False
    parameters = tuple(inspect.signature(part.__init__).parameters)[1:]
    slots = getattr(DefaultRecordBatch, "__slots__", ())
    return parameters == _PARAMETERS and "_buffer" in slots and "_pos" in slots


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


def count(fetched: Mapping[Any, Sequence[Any]]) -> int:
    """How many records one poll brought."""
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
        rows = _Rows()
        epoch = -1
        try:
            for batch in self._visible(tp, records):
                # Many small batches make one part.
                now = batch.leader_epoch if batch.magic == 2 else -1
                if rows.offsets and (now != epoch or len(rows.offsets) >= _PART):
                    yield from self._part(epoch, rows.columns(tp))
                    rows = _Rows()
                epoch, columns = now, None
                if batch.magic == 2 and batch.records_count >= _FEW:
                    columns = _read_many(tp, batch)
                if columns is not None:
                    if rows.offsets:
                        yield from self._part(epoch, rows.columns(tp))
                        rows = _Rows()
                    yield from self._part(epoch, columns)
                elif batch.magic != 2 or not rows.read(batch):
                    self._read_plainly(tp, batch, rows)
        except Exception:
            if rows.offsets:
                yield from self._part(epoch, rows.columns(tp))
            self.next_fetch_offset = max(self.next_fetch_offset, self._passed)
            raise
        if rows.offsets:
            yield from self._part(epoch, rows.columns(tp))
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

    def _read_plainly(self, tp: Any, batch: Any, rows: _Rows) -> None:
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


class _Rows:
    """Records of small batches, read one by one."""

    __slots__ = ("headers", "keys", "offsets", "timestamps", "values")

    def __init__(self) -> None:
        self.offsets: list[int] = []
        self.timestamps: list[int] = []
        self.keys: list[bytes | None] = []
        self.values: list[bytes | None] = []
        self.headers: list[Headers] = []

    def read(self, batch: Any) -> bool:
        """Add the records of a v2 batch; or none, and False, where its bytes are not what the format says."""
        before = len(self.offsets)
        try:
            self._read(_body(batch), batch)
        except (IndexError, ValueError):
            for column in (self.offsets, self.timestamps, self.keys, self.values, self.headers):
                del column[before:]
            return False
        return True

    def _read(self, data: bytes, batch: Any) -> None:
        base, first, appended = batch.base_offset, batch.first_timestamp, batch.timestamp_type
        at = 0
        for _ in range(batch.records_count):
            length, at = _varint(data, at)
            end = at + length
            _, at = _varint(data, at)  # attributes, of which none are defined
            delta, at = _varint(data, at)
            self.timestamps.append(batch.max_timestamp if appended else first + delta)
            delta, at = _varint(data, at)
            self.offsets.append(base + delta)
            key, at = _content(data, at)
            self.keys.append(key)
            value, at = _content(data, at)
            self.values.append(value)
            headers, at = _headers(data, at)
            self.headers.append(headers)
            if at != end:
                raise ValueError("a record does not end where it says")
        if at != len(data):
            raise ValueError("the records do not fill their batch")

    def columns(self, tp: Any) -> RecordColumns:
        """As columns, at least one record."""
        try:
            offsets, timestamps = np.array(self.offsets, np.int64), np.array(self.timestamps, np.int64)
        except OverflowError as error:
            raise CorruptRecordError(f"{tp.topic}/{tp.partition} has a number of more than 64 bits") from error
        return RecordColumns(
            tp.topic,
            tp.partition,
            offsets,
            timestamps,
            self.keys,
            self.values,
            self.headers if any(self.headers) else None,
        )


def _body(batch: Any) -> bytes:
    """The records of a v2 batch, decompressed."""
    iter(batch)
    return bytes(batch._buffer) if batch._pos == 0 else bytes(memoryview(batch._buffer)[batch._pos :])


def _read_many(tp: Any, batch: Any) -> RecordColumns | None:
    """All records of a v2 batch, field by field; None where its bytes are not what the format says."""
    data = _body(batch)
    raw = np.frombuffer(data, np.uint8)
    try:
        starts, ends = _frame(data, batch.records_count)
        # A record begins with its length, which is not negative, and one byte of attributes, of which none are defined.
        if (raw[[0, *ends[:-1]]] & 1).any() or (raw[starts] & 0x80).any():
            return None
        timestamps, at = _varints(raw, np.array(starts, np.int64) + 1)
        offsets, at = _varints(raw, at)
        key_lengths, keys = _varints(raw, at)
        value_lengths, values = _varints(raw, _after(data, keys, key_lengths))
        at = _after(data, values, value_lengths)
        headers: list[Headers] | None = None
        if raw[at].any():
            read = [_headers(data, start) for start in at.tolist()]
            headers, at = [found for found, _ in read], np.array([end for _, end in read], np.int64)
        else:
            at += 1
        if not np.array_equal(at, ends):
            return None
    except (IndexError, ValueError):
        return None
    return RecordColumns(
        tp.topic,
        tp.partition,
        batch.base_offset + offsets,
        np.full(len(offsets), batch.max_timestamp) if batch.timestamp_type else batch.first_timestamp + timestamps,
        _slices(data, keys, key_lengths),
        _slices(data, values, value_lengths),
        headers,
    )


def _frame(data: bytes, count: int) -> tuple[list[int], list[int]]:
    """Where the body of each of `count` records begins and ends: the one thing that must be read in a row."""
    starts: list[int] = []
    ends: list[int] = []
    at = 0
    for _ in range(count):
        length = data[at]
        if length & 0x80:
            more = data[at + 1]
            if more & 0x80:
                length, at = _varint(data, at)
            else:
                # Two bytes are what nearly all events take.
                length = (length & 0x7F | more << 7) >> 1
                at += 2
        else:
            length >>= 1
            at += 1
        starts.append(at)
        at += length
        ends.append(at)
    if at != len(data):
        raise ValueError("the records do not fill their batch")
    return starts, ends


def _varints(raw: npt.NDArray[np.uint8], at: Ints) -> tuple[Ints, Ints]:
    """The zigzag numbers at these places, and where they end."""
    byte = raw[at]
    number = (byte & 0x7F).astype(np.int64)
    at = at + 1
    going = np.flatnonzero(byte & 0x80)
    shift = 7
    while len(going):
        if shift >= _VARINT_BITS:
            raise ValueError("a varint has no end")
        byte = raw[at[going]]
        number[going] |= (byte & 0x7F).astype(np.int64) << shift
        at[going] += 1
        going = going[(byte & 0x80) != 0]
        shift += 7
    return (number.view(np.uint64) >> np.uint64(1)).view(np.int64) ^ -(number & 1), at


def _after(data: bytes, starts: Ints, lengths: Ints) -> Ints:
    """Where nullable fields end."""
    if lengths.max() > len(data):
        raise ValueError("a field is longer than its batch")
    return starts + np.maximum(lengths, 0)


def _slices(data: bytes, starts: Ints, lengths: Ints) -> list[bytes | None]:
    """The content at each place; None where the length is negative."""
    ends = (starts + np.maximum(lengths, 0)).tolist()
    found: list[bytes | None] = list(map(data.__getitem__, map(slice, starts.tolist(), ends)))
    if lengths.min() < 0:
        for at in np.flatnonzero(lengths < 0).tolist():
            found[at] = None
    return found


def _varint(data: bytes, at: int) -> tuple[int, int]:
    byte = data[at]
    at += 1
    if not byte & 0x80:
        return (byte >> 1) ^ -(byte & 1), at
    number, shift = byte & 0x7F, 7
    while True:
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if not byte & 0x80:
            return (number >> 1) ^ -(number & 1), at
        shift += 7
        if shift >= _VARINT_BITS:
            raise ValueError("a varint has no end")


def _content(data: bytes, at: int) -> tuple[bytes | None, int]:
    length, at = _varint(data, at)
    if length < 0:
        return None, at
    end = at + length
    return data[at:end], end


def _headers(data: bytes, at: int) -> tuple[Headers, int]:
    number, at = _varint(data, at)
    if not number:
        return (), at
    if number < 0:
        raise ValueError("a record has a negative number of headers")
    found: list[Any] = []
    for _ in range(number):
        name, at = _content(data, at)
        if name is None:
            raise ValueError("a header has no name")
        content, at = _content(data, at)
        found.append((_text(name), content))
    return tuple(found), at


@lru_cache(maxsize=1024)
def _text(name: bytes) -> str:
    return name.decode()
