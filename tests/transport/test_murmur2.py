"""Partitioning by key, against Kafka's own test vectors and against kafka-python."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st
from kafka.partitioner.default import murmur2 as reference

from stream.transport.murmur2 import murmur2, murmur2_batch, partition_of, partitions_of

# From Kafka's UtilsTest.testMurmur2; Java's ints are signed.
KAFKAS = {
    b"21": -973932308,
    b"foobar": -790332482,
    b"a-little-bit-long-string": -985981536,
    b"a-little-bit-longer-string": -1486304829,
    b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
    b"abc": 479470107,
}


def test_kafkas_own_vectors() -> None:
    assert {key: murmur2(key) for key in KAFKAS} == {key: value & 0xFFFFFFFF for key, value in KAFKAS.items()}
    many = list(KAFKAS) * 10
    assert murmur2_batch(many).tolist() == [KAFKAS[key] & 0xFFFFFFFF for key in many]


@given(st.lists(st.binary(max_size=40), max_size=60))
def test_batches_of_any_lengths_hash_like_kafka_python(keys: list[bytes]) -> None:
    expected = [reference(key) & 0xFFFFFFFF for key in keys]
    assert murmur2_batch(keys).tolist() == expected
    assert [murmur2(key) for key in keys] == expected


def test_trailing_zero_bytes_and_long_keys_among_short_ones() -> None:
    generator = random.Random(5)
    keys = [b"a" + b"\0" * zeros for zeros in range(20)] + [generator.randbytes(length) for length in range(250, 320)]
    assert murmur2_batch(keys).tolist() == [reference(key) & 0xFFFFFFFF for key in keys]
    only_long = keys[-30:]
    assert murmur2_batch(only_long).tolist() == [reference(key) & 0xFFFFFFFF for key in only_long]


@given(st.lists(st.binary(max_size=20), min_size=1, max_size=40), st.integers(1, 100))
def test_partitions_are_kafkas(keys: list[bytes], partitions: int) -> None:
    expected = [(reference(key) & 0x7FFFFFFF) % partitions for key in keys]
    assert partitions_of(keys, partitions).tolist() == expected
    assert [partition_of(key, partitions) for key in keys] == expected
