"""Records to v2 batches, compressed, numbered and signed (https://kafka.apache.org/documentation/#recordbatch).

The compiled kernel (`stream/kernels/encode.pyx`) encodes where it is there, else Python does, at ten times the cost.
The bytes are the same, those that the client would make of these records (tests/transport/test_kafka_encode.py).
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import Final

from kafka.codec import gzip_encode, lz4_encode, snappy_encode
from kafka.record.default_records import DefaultRecordBatchBuilder
from kafka.record.util import calc_crc32c

from stream import kernels, zstd
from stream.transport.base import Headers, OutRecord

_HEADER: Final = struct.Struct(">qiibIhiqqqhii")
"""Base offset, length behind it, leader's epoch, magic, CRC, attributes, last offset, first and latest time, producer's
id and epoch, number of the first record, count of records."""
_LENGTH_FROM: Final = 12
_CRC_AT, _SIGNED_FROM = 17, 21
_MAGIC = 2
_TRANSACTIONAL = 0x10
_SAMPLES, _SAMPLE = 4, 2048
"""So many pieces of so many bytes tell whether a body is worth compressing."""
_WORTHWHILE = 0.95
_NULL = b"\x01"
"""The varint of -1."""
_ATTRIBUTES = b"\x00"
_NO_HEADERS = b"\x00"


@dataclass(frozen=True, slots=True)
class Encoded:
    """The records of one v2 batch: what follows its header, uncompressed. Times in epoch milliseconds."""

    body: bytes
    count: int
    first_timestamp: int
    max_timestamp: int


def encode(records: Sequence[OutRecord], limit: int) -> Iterator[Encoded]:
    """Batches of at most `limit` bytes with their header; a record that is larger than that is one of its own.

    A record without a time gets the present.
    """
    one = kernels.encode.encode if kernels.on() else _encode
    room = limit - _HEADER.size
    now = int(time.time() * 1000)
    start = 0
    while start < len(records):
        encoded = Encoded(*one(records, start, room, now))
        yield encoded
        start += encoded.count


def seal(
    encoded: Encoded, compression: int, producer_id: int, epoch: int, sequence: int, *, transactional: bool = True
) -> bytes:
    """A batch as it goes to the broker, by default of a transaction: compressed, numbered and signed (CRC).

    Parameters: the client's number of a codec, of which none is used where little is gained; the number of the first
    record; id, epoch and number are -1 where there is no producer's id.
    """
    body = encoded.body
    if compression and not _is_packed(body, _CODECS[compression]):
        packed = _CODECS[compression](body)
        body, compression = (packed, compression) if len(packed) < len(body) else (body, 0)
    else:
        compression = 0
    sealed = bytearray(_HEADER.size + len(body))
    _HEADER.pack_into(
        sealed,
        0,
        0,
        len(sealed) - _LENGTH_FROM,
        0,
        _MAGIC,
        0,
        compression | _TRANSACTIONAL * transactional,
        encoded.count - 1,
        encoded.first_timestamp,
        encoded.max_timestamp,
        producer_id,
        epoch,
        sequence,
        encoded.count,
    )
    sealed[_HEADER.size :] = body
    struct.pack_into(">I", sealed, _CRC_AT, calc_crc32c(memoryview(sealed)[_SIGNED_FROM:]))
    return bytes(sealed)


def _is_packed(body: bytes, codec: Callable[[bytes], bytes]) -> bool:
    """Whether a sample says that a large body is compressed already, as state is: a codec would take long for nothing.

    The broker, too, would unpack it to look at its records.
    """
    if len(body) < _SAMPLES * _SAMPLE * 4:
        return False
    step = len(body) // _SAMPLES
    sample = b"".join(body[at : at + _SAMPLE] for at in range(step // 2, len(body), step))
    return len(codec(sample)) > len(sample) * _WORTHWHILE


_CODECS: Final[dict[int, Callable[[bytes], bytes]]] = {
    DefaultRecordBatchBuilder.CODEC_GZIP: gzip_encode,
    DefaultRecordBatchBuilder.CODEC_SNAPPY: snappy_encode,
    DefaultRecordBatchBuilder.CODEC_LZ4: lz4_encode,
    DefaultRecordBatchBuilder.CODEC_ZSTD: zstd.compress,
}


def _encode(records: Sequence[OutRecord], start: int, room: int, now: int) -> tuple[bytes, int, int, int]:
    """As many records from `start` on as there is room for, and at least one; as the kernel does it."""
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
    return b"".join(parts), number, first, latest


def _headers(headers: Headers) -> bytes:
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
