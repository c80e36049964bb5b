"""Which partition a key belongs to: Kafka's murmur2, one key at a time and a whole batch at once.

Invariant: both functions equal `org.apache.kafka.common.utils.Utils.murmur2` bit for bit, so that a key lands in
the same partition whoever writes it, on Kafka or on the embedded transport.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_SEED = 0x9747B28C
_M = 0x5BD1E995
_R = 24
_MASK = 0xFFFFFFFF
_BATCH_FROM = 16
"""Below so many keys the fixed cost of numpy (60 us) is more than that of the loop (3 us a key)."""
_LONG_KEY = 256
"""Keys beyond this many bytes are hashed alone: one long key would pad the whole batch to its width."""


def murmur2(key: bytes) -> int:
    """The unsigned 32-bit hash of one key."""
    length = len(key)
    h = _SEED ^ length
    whole = length & ~3
    for at in range(0, whole, 4):
        k = int.from_bytes(key[at : at + 4], "little") * _M & _MASK
        k ^= k >> _R
        h = (h * _M & _MASK) ^ (k * _M & _MASK)
    if length > whole:
        h = (h ^ int.from_bytes(key[whole:], "little")) * _M & _MASK
    h ^= h >> 13
    h = h * _M & _MASK
    return h ^ (h >> 15)


def partition_of(key: bytes, partitions: int) -> int:
    """The partition of one key, as Kafka's default partitioner chooses it."""
    return (murmur2(key) & 0x7FFFFFFF) % partitions


def partitions_of(keys: Sequence[bytes], partitions: int) -> NDArray[np.int64]:
    """The partition of each of n keys, shape (n,); the same as `partition_of` of each."""
    if partitions == 1:
        return np.zeros(len(keys), dtype=np.int64)
    return (murmur2_batch(keys) & np.uint32(0x7FFFFFFF)).astype(np.int64) % partitions


def murmur2_batch(keys: Sequence[bytes]) -> NDArray[np.uint32]:
    """The hashes of n keys, shape (n,)."""
    n = len(keys)
    if n < _BATCH_FROM:
        return np.fromiter(map(murmur2, keys), dtype=np.uint32, count=n)
    lengths = np.fromiter(map(len, keys), dtype=np.int64, count=n)
    if int(lengths.max()) <= _LONG_KEY:
        return _hash_padded(keys, lengths)
    hashes = np.empty(n, dtype=np.uint32)
    short = lengths <= _LONG_KEY
    for at in np.flatnonzero(~short).tolist():
        hashes[at] = murmur2(keys[at])
    if short.any():
        hashes[short] = _hash_padded([keys[at] for at in np.flatnonzero(short).tolist()], lengths[short])
    return hashes


def _hash_padded(keys: Sequence[bytes], lengths: NDArray[np.int64]) -> NDArray[np.uint32]:
    """Every key as a row of little-endian words, padded with zeros, hashed column by column."""
    columns = int(lengths.max()) // 4 + 1
    words = np.array(keys, dtype=f"S{columns * 4}").view("<u4").reshape(len(keys), columns)
    m = np.uint32(_M)
    whole = lengths // 4
    h = np.uint32(_SEED) ^ lengths.astype(np.uint32)
    for column in range(columns - 1):
        k = words[:, column] * m
        k ^= k >> np.uint32(_R)
        k *= m
        h = np.where(whole > column, (h * m) ^ k, h)
    # The padding is zero, so the word after the last whole one is exactly the tail that Kafka mixes in.
    tail = words[np.arange(len(keys)), whole]
    h = np.where(lengths % 4 > 0, (h ^ tail) * m, h)
    h ^= h >> np.uint32(13)
    h *= m
    h ^= h >> np.uint32(15)
    return h.astype(np.uint32, copy=False)
