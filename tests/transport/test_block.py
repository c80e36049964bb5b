"""The packing of blocks: what goes in comes out, and damage is never taken for records."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.transport.base import Headers
from stream.transport.block import Columns, pack_block, pack_headers, unpack_block, unpack_headers

content = st.none() | st.binary(max_size=30)
header_lists = st.lists(st.tuples(st.text(max_size=8), st.binary(max_size=10)), max_size=4).map(tuple)
rows = st.lists(st.tuples(st.integers(-(2**63), 2**63 - 1), content, content, header_lists), min_size=1, max_size=40)


def pack(records: list[tuple[int, bytes | None, bytes | None, Headers]]) -> bytes:
    timestamps, keys, values, headers = zip(*records, strict=True)
    return pack_block(timestamps, keys, values, headers)


def as_rows(columns: Columns) -> list[tuple[int, bytes | None, bytes | None, Headers]]:
    headers: list[Headers] = columns.headers if columns.headers is not None else [()] * len(columns.values)
    return list(zip(columns.timestamps.tolist(), columns.keys, columns.values, headers, strict=True))


@given(rows)
def test_round_trip(records: list[tuple[int, bytes | None, bytes | None, Headers]]) -> None:
    assert as_rows(unpack_block(pack(records))) == records


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=200), st.booleans())
def test_round_trip_of_what_compresses(values: list[bytes], keyed: bool) -> None:
    repeated: list[bytes | None] = [*values] * 5
    keys: list[bytes | None] = [b"k%d" % number if keyed else None for number in range(len(repeated))]
    columns = unpack_block(pack_block([7] * len(repeated), keys, repeated))
    assert as_rows(columns) == [(7, key, value, ()) for key, value in zip(keys, repeated, strict=True)]
    assert columns.headers is None


def test_compression_pays_or_is_left_out() -> None:
    assert len(pack_block([1] * 1000, [None] * 1000, [b'{"type": "browse"}'] * 1000)) < 1000
    noise = random.Random(1).randbytes(100_000)
    assert len(pack_block([1], [None], [noise])) < len(noise) + 60


@settings(max_examples=200)
@given(rows, st.data())
def test_damage_is_noticed(records: list[tuple[int, bytes | None, bytes | None, Headers]], data: st.DataObject) -> None:
    block = bytearray(pack(records))
    at = data.draw(st.integers(0, len(block) - 1))
    block[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(ValueError, match=r"version|checksum"):
        unpack_block(bytes(block))


@given(rows, st.data())
def test_a_cut_block_is_refused(
    records: list[tuple[int, bytes | None, bytes | None, Headers]], data: st.DataObject
) -> None:
    block = pack(records)
    with pytest.raises(ValueError, match=r"short|checksum"):
        unpack_block(block[: data.draw(st.integers(0, len(block) - 1))])


def test_a_newer_version_is_refused() -> None:
    block = bytearray(pack_block([1], [b"k"], [b"v"]))
    block[0] = 9
    with pytest.raises(ValueError, match="version 9"):
        unpack_block(bytes(block))


@given(header_lists)
def test_headers_of_one_record(headers: Headers) -> None:
    assert unpack_headers(pack_headers(headers)) == headers
