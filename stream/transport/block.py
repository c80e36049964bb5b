"""A block: the records of one append to one partition, packed into columns.

Layout, little-endian: a head (version, flags, count, raw size), the xxh3 of head and body, the body, compressed with
zstd level 1 where that saves at least a tenth. The body is int64 timestamps (one where all are equal), int32 key and
value lengths (-1 is null), the header section where any record has headers, the keys joined, the values joined.
Invariant: `unpack_block(pack_block(...))` gives back the same columns; damage is a ValueError, never wrong records.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

import numpy as np
import xxhash

from stream import zstd
from stream.transport.base import Headers
from stream.transport.spans import Ints, Spans

_HEAD = struct.Struct("<BBxxII")
_DIGEST_BYTES = 8
_VERSION = 1
_COMPRESSED, _ONE_TIMESTAMP, _HAS_HEADERS, _NO_KEYS = 1, 2, 4, 8
_COMPRESS_FROM = 256
_NULL = -1


class Columns(NamedTuple):
    """The n records of a block; keys and values lie in one buffer. `headers` is None where no record has any."""

    timestamps: Ints
    keys: Spans
    values: Spans
    headers: list[Headers] | None


def pack_block(
    timestamps: Sequence[int],
    keys: Sequence[bytes | None],
    values: Sequence[bytes | None],
    headers: Sequence[Headers] | None = None,
) -> bytes:
    """The bytes of one block of n records, n at least 1; the sequences are of equal length."""
    count = len(values)
    if not count or len(timestamps) != count or len(keys) != count:
        raise ValueError("a block holds at least one record, and its columns are of equal length")
    flags = 0
    if timestamps.count(timestamps[0]) == count:
        flags |= _ONE_TIMESTAMP
        timestamps = timestamps[:1]
    parts = [np.array(timestamps, dtype="<i8").tobytes()]
    if keys.count(None) == count:
        flags |= _NO_KEYS
        joined_keys = b""
    else:
        lengths, joined_keys = _join(keys)
        parts.append(lengths)
    lengths, joined_values = _join(values)
    parts.append(lengths)
    if headers is not None and any(headers):
        flags |= _HAS_HEADERS
        parts.append(_pack_headers(headers))
    parts += (joined_keys, joined_values)
    body = b"".join(parts)
    raw_size = len(body)
    if raw_size >= _COMPRESS_FROM:
        compressed = zstd.compress(body)
        if len(compressed) < raw_size * 0.9:
            flags |= _COMPRESSED
            body = compressed
    head = _HEAD.pack(_VERSION, flags, count, raw_size)
    return head + _digest(head, body) + body


def unpack_block(payload: bytes) -> Columns:
    """The records of one block. Raises ValueError where the bytes are damaged or of a newer version."""
    begin = _HEAD.size + _DIGEST_BYTES
    if len(payload) < begin:
        raise ValueError("the block is cut short")
    version, flags, count, raw_size = _HEAD.unpack_from(payload)
    if version != _VERSION:
        raise ValueError(f"the block has version {version}, this program reads {_VERSION}")
    body = payload[begin:]
    if _digest(payload[: _HEAD.size], body) != payload[_HEAD.size : begin]:
        raise ValueError("the block's checksum is wrong")
    if flags & _COMPRESSED:
        body = zstd.decompressor().decompress(body, max_output_size=raw_size)
    at = 8 if flags & _ONE_TIMESTAMP else 8 * count
    timestamps = np.frombuffer(body, "<i8", at // 8).astype(np.int64)
    if flags & _ONE_TIMESTAMP:
        timestamps = np.repeat(timestamps, count)
    key_lengths = np.full(count, _NULL)
    if not flags & _NO_KEYS:
        key_lengths = np.frombuffer(body, "<i4", count, at).astype(np.int64)
        at += 4 * count
    value_lengths = np.frombuffer(body, "<i4", count, at).astype(np.int64)
    at += 4 * count
    headers: list[Headers] | None = None
    if flags & _HAS_HEADERS:
        headers, at = _unpack_headers(body, at, count)
    keys, at = _spans(body, at, key_lengths)
    values, _ = _spans(body, at, value_lengths)
    return Columns(timestamps, keys, values, headers)


def _spans(body: bytes, at: int, lengths: Ints) -> tuple[Spans, int]:
    """The contents that begin at `at`, one after the other, and where they end."""
    sizes = np.maximum(lengths, 0)
    ends = at + np.cumsum(sizes)
    return Spans(body, ends - sizes, lengths), int(ends[-1])


def _digest(head: bytes, body: bytes) -> bytes:
    digest = xxhash.xxh3_64(head)
    digest.update(body)
    return digest.digest()


def _join(items: Sequence[bytes | None]) -> tuple[bytes, bytes]:
    """The int32 lengths, and the bytes of all that are not null."""
    if None in items:
        lengths = np.array([_NULL if item is None else len(item) for item in items], dtype="<i4")
        return lengths.tobytes(), b"".join(item for item in items if item is not None)
    return np.fromiter(map(len, items), dtype="<i4", count=len(items)).tobytes(), b"".join(items)  # type: ignore[arg-type]


def _split(body: bytes, at: int, lengths: list[int]) -> tuple[list[bytes | None], int]:
    """The items that begin at `at`, and where they end."""
    if _NULL in lengths:
        ends = list(accumulate((max(length, 0) for length in lengths), initial=at))
        split: list[bytes | None] = list(map(body.__getitem__, map(slice, ends, ends[1:])))
        for index, length in enumerate(lengths):
            if length == _NULL:
                split[index] = None
        return split, ends[-1]
    ends = list(accumulate(lengths, initial=at))
    return list(map(body.__getitem__, map(slice, ends, ends[1:]))), ends[-1]


def pack_headers(headers: Headers) -> bytes | None:
    """The headers of one record alone; None where it has none."""
    return _pack_headers([headers]) if headers else None


def unpack_headers(packed: bytes | None) -> Headers:
    """What `pack_headers` packed."""
    return _unpack_headers(packed, 0, 1)[0][0] if packed else ()


def _pack_headers(headers: Sequence[Headers]) -> bytes:
    """Headers a record (int32), then name and value lengths in turn (int32), then the bytes in the same order."""
    counts = np.fromiter(map(len, headers), dtype="<i4", count=len(headers))
    flat = [part for record in headers for name, value in record for part in (name.encode(), value)]
    lengths, joined = _join(flat)
    return counts.tobytes() + lengths + joined


def _unpack_headers(body: bytes, at: int, count: int) -> tuple[list[Headers], int]:
    counts = np.frombuffer(body, "<i4", count, at).tolist()
    at += 4 * count
    total = 2 * sum(counts)
    lengths = np.frombuffer(body, "<i4", total, at).tolist()
    flat, at = _split(body, at + 4 * total, lengths)
    names = [name.decode() for name in flat[::2] if name is not None]
    pairs: list[Any] = list(zip(names, flat[1::2], strict=True))
    bounds = list(accumulate(counts, initial=0))
    return [tuple(pairs[begin:end]) for begin, end in pairwise(bounds)], at
