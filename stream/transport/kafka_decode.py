"""The records of v2 batches as columns, by a compiled kernel; or without it by numpy where many, by a loop where few.

Format: https://kafka.apache.org/documentation/#recordbatch. A batch that is not laid out as it says is left to the
client's own decoder, which knows what to refuse.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import zstandard
from kafka.errors import CorruptRecordError

from stream import kernels, zstd
from stream.transport.base import Headers
from stream.transport.records import RecordColumns
from stream.transport.spans import Ints, Spans

_FIELDS = 6
_VARINT_BITS = 64
_LARGEST_WINDOW = 8 << 20
"""Bytes that a frame may make the decompressor keep: what every level below the last three is content with."""
_LARGEST_CONTENT = 64 << 20
"""Bytes that are set aside because a frame says so, before anything of it was seen."""


class Rows:
    """Records of small batches, read one by one."""

    __slots__ = ("headers", "keys", "offsets", "timestamps", "values")

    def __init__(self) -> None:
        self.offsets: list[int] = []
        self.timestamps: list[int] = []
        self.keys: list[bytes | None] = []
        self.values: list[bytes | None] = []
        self.headers: list[Headers] = []

    def __len__(self) -> int:
        return len(self.offsets)

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
    if batch._pos and batch.compression_type == batch.CODEC_ZSTD:
        data = _inflated(memoryview(batch._buffer)[batch._pos :])
        if data is not None:
            return data
    iter(batch)
    return bytes(batch._buffer) if batch._pos == 0 else bytes(memoryview(batch._buffer)[batch._pos :])


def _inflated(data: memoryview) -> bytes | None:
    """What zstd compressed, of any number of frames; None where the client's own code is to have a look at it."""
    decompressor = zstd.decompressor(_LARGEST_WINDOW)
    try:
        if 0 <= zstandard.frame_content_size(data) <= _LARGEST_CONTENT:
            found: bytes = decompressor.decompress(data, allow_extra_data=False)
        else:
            # Java's client does not say how much it is.
            with decompressor.stream_reader(data, read_across_frames=True) as reader:
                found = reader.read()
    except zstandard.ZstdError:
        return None
    return found


class Bodies:
    """The records of whole batches, each read in one go, which together become one part."""

    __slots__ = ("_bodies", "_count", "_fields", "_headers")

    def __init__(self) -> None:
        self._bodies: list[bytes] = []
        self._fields: list[Ints] = []
        self._headers: list[list[Headers] | None] = []
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def read(self, batch: Any) -> bool:
        """As `Rows.read`."""
        data, count = _body(batch), batch.records_count
        try:
            found = (_compiled if kernels.on() else _by_fields)(data, count)
        except (IndexError, ValueError):
            return False
        if found is None:
            return False
        fields, headers = found
        if batch.timestamp_type:
            fields[0] = batch.max_timestamp
        else:
            fields[0] += batch.first_timestamp
        fields[1] += batch.base_offset
        self._bodies.append(data)
        self._fields.append(fields)
        self._headers.append(headers)
        self._count += count
        return True

    def columns(self, tp: Any) -> RecordColumns:
        """As columns, of at least one batch; keys and values lie in one buffer."""
        fields = self._fields[0]
        if len(self._fields) > 1:
            fields = np.concatenate(self._fields, axis=1)
            sizes = list(map(len, self._bodies))
            shifts = np.repeat(np.cumsum(sizes) - sizes, [each.shape[1] for each in self._fields])
            fields[2] += shifts
            fields[4] += shifts
        headers: list[Headers] | None = None
        if any(each is not None for each in self._headers):
            headers = []
            for each, own in zip(self._fields, self._headers, strict=True):
                headers += [()] * each.shape[1] if own is None else own
        data = b"".join(self._bodies)  # the same object, where it is one
        timestamps, offsets, keys, key_lengths, values, value_lengths = fields[:_FIELDS]
        return RecordColumns(
            tp.topic,
            tp.partition,
            offsets,
            timestamps,
            Spans(data, keys, key_lengths),
            Spans(data, values, value_lengths),
            headers,
        )


_Found = tuple[Ints, list[Headers] | None]
"""The fields of all n records of a batch, (at least six, n): timestamps and offsets, relative to the batch's first,
then starts and lengths of keys, and of values. And the headers, None where no record has any."""


def _compiled(data: bytes, count: int) -> _Found | None:
    """By the compiled kernel; None where the bytes are wrong. Raises ValueError and IndexError as `_by_fields`."""
    if not 0 < count <= len(data):
        return None
    fields = np.empty((8, count), np.int64)
    kind = kernels.records.read(data, count, fields)
    if kind < 0:
        return None
    return fields, _all_headers(data, fields[6], fields[7]) if kind else None


def _by_fields(data: bytes, count: int) -> _Found | None:
    """By numpy, one field of all records at a time. Raises ValueError and IndexError where the bytes are wrong, too."""
    raw = np.frombuffer(data, np.uint8)
    starts, ends = _frame(data, count)
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
        headers = _all_headers(data, at, np.array(ends, np.int64))
    elif not np.array_equal(at + 1, ends):
        return None
    return np.stack([timestamps, offsets, keys, key_lengths, values, value_lengths]), headers


def _all_headers(data: bytes, starts: Ints, ends: Ints) -> list[Headers]:
    """The headers of all records. Raises ValueError and IndexError where they do not fill their place."""
    read = [_headers(data, start) for start in starts.tolist()]
    if [end for _, end in read] != ends.tolist():
        raise ValueError("a record does not end where it says")
    return [found for found, _ in read]


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
