"""The compiled kernel of record batches against the numpy one: the same places, and no byte behind the end."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from kafka.record.default_records import DefaultRecordBatch
from kafka.record.memory_records import MemoryRecordsBuilder

from stream import kernels
from stream.transport.kafka_decode import _by_fields, _compiled
from stream.transport.spans import Spans
from tests.features.guarded import Guarded

if not kernels.built():
    pytest.skip("the kernels are not compiled here", allow_module_level=True)


def records(rng: random.Random, count: int) -> bytes:
    """The bytes of so many records, without the head of their batch."""
    made = MemoryRecordsBuilder(2, 0, 1 << 30)
    for _ in range(count):
        key, value = (rng.choice((None, b"", b"u1", rng.randbytes(rng.choice((5, 63, 64, 200))))) for _ in range(2))
        headers = [("trace", rng.choice((None, b"x")))] if rng.randrange(6) == 0 else []
        made.append(rng.choice((0, 1, 2**31, 2**45)), key, value, headers)
    made.close()
    return bytes(made.buffer())[DefaultRecordBatch.HEADER_STRUCT.size :]


def damaged(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    at = rng.randrange(len(changed))
    match rng.randrange(3):
        case 0:
            changed[at] = rng.randrange(256)
        case 1:
            changed[at] |= 0x80
        case _:
            del changed[at:]
    return bytes(changed)


def tried(read: Callable[[bytes, int], Any], data: bytes, count: int) -> object:
    """Timestamps, offsets, keys, values and headers; None where the bytes are refused."""
    try:
        found = read(data, count)
    except (IndexError, ValueError):
        return None
    if found is None:
        return None
    (timestamps, offsets, keys, key_lengths, values, value_lengths), headers = found[0][:6], found[1]
    contents = list(Spans(data, keys, key_lengths)), list(Spans(data, values, value_lengths))
    return timestamps.tolist(), offsets.tolist(), *contents, headers or [()] * count


def test_both_kernels_find_the_same_places() -> None:
    rng = random.Random(1)
    refused = 0
    for _ in range(2_000):
        count = rng.randrange(1, 12)
        data = records(rng, count)
        assert tried(_compiled, data, count) == tried(_by_fields, data, count) is not None
        wrong = damaged(data, rng)
        mine, theirs = tried(_compiled, wrong, count), tried(_by_fields, wrong, count)
        # A number of more than 64 bits is cut by the one, and refused by the other: the client then decides.
        assert mine in (theirs, None)
        refused += mine is None
    assert 200 < refused < 1_900


def test_a_number_of_more_than_64_bits_is_refused() -> None:
    """Length, attributes, a timestamp of ten bytes whose last has more than one bit, offset, no key, no value."""
    for last, found in ((1, 0), (2, -1), (3, -1)):
        body = b"\0" + b"\xff" * 9 + bytes([last]) + b"\0\x01\x01\0"
        assert kernels.records.read(bytes([len(body) * 2]) + body, 1, np.empty((8, 1), np.int64)) == found


@pytest.mark.parametrize("count", [-1, 0, 1, 3, 2**31])
def test_a_count_that_is_wrong_is_refused(count: int) -> None:
    data = records(random.Random(1), 2)
    out = np.empty((8, min(max(count, 0), 10)), np.int64)
    if count > 10:
        with pytest.raises(ValueError, match="wanted 8"):
            kernels.records.read(data, count, out)
    else:
        assert kernels.records.read(data, count, out) == -1
    assert kernels.records.read(b"", 1, np.empty((8, 1), np.int64)) == -1


def test_no_byte_behind_the_end_is_ever_read() -> None:
    guarded, rng = Guarded(1 << 14), random.Random(2)
    out = np.empty((8, 12), np.int64)
    for _ in range(300):
        count = rng.randrange(1, 12)
        data = records(rng, count)
        for cut in range(1, len(data) + 1, rng.choice((1, 3, 7))):
            kernels.records.read(guarded.put(data[:cut]), count, out)
        for _ in range(20):
            kernels.records.read(guarded.put(damaged(data, rng) or b"\0"), count, out)
