"""Batches of records: the oracle is the client's own builder, byte for byte, and its own decoder."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kafka.record.memory_records import MemoryRecords, MemoryRecordsBuilder

from stream import kernels
from stream.transport import kafka_encode, partitioner
from stream.transport.base import OutRecord
from stream.transport.kafka_encode import Encoded, encode, seal

pytestmark = pytest.mark.usefixtures("either_kernels")

CODECS = {"none": 0, "gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}

CONTENT = st.none() | st.binary(max_size=4) | st.integers(0, 70_000).map(lambda n: b"x" * n)
NAMES = st.sampled_from(["", "trace", "ü"]) | st.text(st.characters(exclude_categories=["Cs"]), max_size=80)
HEADERS = st.lists(st.tuples(NAMES, st.binary(max_size=200)), max_size=3) | st.integers(60, 150).map(
    lambda n: [("many", b"%d" % n)] * n
)
RECORDS = st.lists(
    st.builds(OutRecord, st.just("t"), CONTENT, CONTENT, st.just(0), HEADERS.map(tuple), st.integers(0, 2**60)),
    min_size=1,
    max_size=20,
)
LIMITS = st.sampled_from([100, 300, 10_000, 262_144])


def of_the_client(records: list[OutRecord], limit: int, compression: int = 0) -> list[bytes]:
    """The batches that the client's own builder makes of them, of the first transaction of a producer 7 of epoch 1."""
    made, batches = None, []
    for record in records:
        if made is None or made.append(record.timestamp, record.key, record.value, list(record.headers)) is None:
            made = MemoryRecordsBuilder(2, compression, limit)
            batches.append(made)
            made.append(record.timestamp, record.key, record.value, list(record.headers))
    sequence = 0
    for made in batches:
        made.set_producer_state(7, 1, sequence, True)
        sequence += made.next_offset()
        made.close()
    return [bytes(made.buffer()) for made in batches]


def of_ours(records: Sequence[OutRecord], limit: int, compression: int = 0) -> list[bytes]:
    sealed, sequence = [], 0
    for encoded in encode(records, limit):
        sealed.append(seal(encoded, compression, 7, 1, sequence))
        sequence += encoded.count
    return sealed


def read(batches: list[bytes]) -> list[tuple[Any, ...]]:
    """What the client's decoder finds, after a look at the CRC."""
    found = []
    for batch in MemoryRecords(b"".join(batches)):
        assert batch.validate_crc()
        found += [(r.key, r.value, r.headers, r.timestamp) for r in batch]
    return found


@given(RECORDS, LIMITS)
def test_batches_are_those_of_the_client_byte_for_byte(records: list[OutRecord], limit: int) -> None:
    assert of_ours(records, limit) == of_the_client(records, limit)


@given(RECORDS, LIMITS, st.sampled_from(["none", "gzip", "zstd"]))
def test_the_client_reads_what_was_written(records: list[OutRecord], limit: int, codec: str) -> None:
    wanted = [(r.key, r.value, list(r.headers), r.timestamp) for r in records]
    assert read(of_ours(records, limit, CODECS[codec])) == wanted


@pytest.mark.parametrize("codec", ["gzip", "zstd"])
def test_what_compression_makes_larger_is_sent_as_it_is(codec: str) -> None:
    compression = CODECS[codec]
    large, small = [OutRecord("t", b"k", b"v" * 1000, 0, (), 5)], [OutRecord("t", b"k", b"v", 0, (), 5)]
    attributes = [of_ours(records, 10_000, compression)[0][22] for records in (large, small)]
    assert [each & 7 for each in attributes] == [compression, 0]
    assert of_ours(small, 10_000, compression) == of_the_client(small, 10_000, compression)


@pytest.mark.parametrize("codec", ["gzip", "zstd"])
def test_what_is_compressed_already_is_sent_as_it_is_and_what_is_so_in_part_is_not(codec: str) -> None:
    noise = random.Random(4).randbytes(200_000)
    for value, attributes in ((noise, 0), (noise[:100_000] + bytes(100_000), CODECS[codec])):
        (batch,) = of_ours([OutRecord("t", b"k", value, 0, (), 5)], 1 << 20, CODECS[codec])
        assert batch[22] & 7 == attributes
        assert read([batch]) == [(b"k", value, [], 5)]


def test_zstd_makes_no_more_of_changes_than_the_client_does() -> None:
    value = (
        b'{"id":"%032x","user_id":"user-%d","from":null,"to":{"id":"seg-%d","name":"Frequent visitors"},"cause":"%b"}'
    )
    records = [
        OutRecord(
            "t", b"user-%d" % at, value % (at**9 % 2**127, at, at % 6, b"behaviour"), 0, (), 1_700_000_000_000 + at
        )
        for at in range(2_000)
    ]
    ours, theirs = (make(records, 1 << 20, CODECS["zstd"]) for make in (of_ours, of_the_client))
    assert len(ours[0]) <= 1.05 * len(theirs[0])


def test_many_records_keep_their_order_and_their_numbers() -> None:
    records = [OutRecord("t", b"k", b"%d" % at, 0, (), at * 1000) for at in range(40_000)]
    (batch,) = of_ours(records, 1 << 30)
    (found,) = MemoryRecords(batch)
    assert [(record.offset, record.timestamp, record.value) for record in found] == [
        (at, at * 1000, b"%d" % at) for at in range(40_000)
    ]


def test_a_record_without_a_time_gets_the_present() -> None:
    (encoded,) = encode([OutRecord("t", b"k", b"v", 0), OutRecord("t", b"k", b"v", 0, (), 5)], 1000)
    assert encoded.first_timestamp == encoded.max_timestamp > 1_700_000_000_000


def test_headers_may_be_any_sequence_of_pairs() -> None:
    pairs = [("a", b"1"), ("", b"")]
    as_lists: Any = [list(pair) for pair in pairs]
    records = [
        OutRecord("t", b"k", b"v", 0, headers, 5) for headers in (tuple(pairs), pairs, as_lists, tuple(as_lists))
    ]
    assert [headers for _, _, headers, _ in read(of_ours(records, 1000))] == [pairs] * 4


@pytest.mark.parametrize(
    ("key", "value", "headers"), [("k", b"v", ()), (b"k", 1, ()), (b"k", b"v", [("a", None)]), (b"k", b"v", [(1, b"")])]
)
def test_what_is_no_record_is_refused(key: Any, value: Any, headers: Any) -> None:
    with pytest.raises((TypeError, AttributeError)):
        list(encode([OutRecord("t", key, value, 0, headers, 5)], 1000))


def test_a_name_that_is_no_utf8_is_refused() -> None:
    with pytest.raises(UnicodeEncodeError):
        list(encode([OutRecord("t", b"k", b"v", 0, (("\ud800", b""),), 5)], 1000))


# The kernel alone


@pytest.mark.skipif(not kernels.built(), reason="the kernels are not compiled here")
@given(RECORDS, st.integers(0, 300_000), st.integers(0, 19))
def test_the_kernel_does_what_python_does(records: list[OutRecord], room: int, start: int) -> None:
    start %= len(records)
    timeless = [record._replace(timestamp=None) if at % 3 == 2 else record for at, record in enumerate(records)]
    compiled = kernels.encode.encode(timeless, start, room, 1_700_000_000_000)
    assert Encoded(*compiled) == Encoded(*kafka_encode._encode(timeless, start, room, 1_700_000_000_000))
    assert kernels.encode.measure(records, partitioner._HEADER_OVERHEAD) == partitioner._measure(records)


@pytest.mark.skipif(not kernels.built(), reason="the kernels are not compiled here")
def test_the_kernel_refuses_what_is_not_there() -> None:
    record = OutRecord("t", b"k", b"v", 0, (), 5)
    for start in (-1, 1):
        with pytest.raises(IndexError, match=f"none at {start}"):
            kernels.encode.encode([record], start, 100, 0)
    wrong: Any
    for wrong in (record[:5], list(record), OutRecord("t", b"k", b"v", 0, (), 0.5)):  # type: ignore[arg-type]
        with pytest.raises(TypeError):
            kernels.encode.encode([wrong], 0, 100, 0)
    with pytest.raises(OverflowError):
        kernels.encode.encode([record._replace(timestamp=2**64)], 0, 100, 0)
    assert kernels.encode.measure([], 10) == (0, 0, 0)
