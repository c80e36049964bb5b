"""Where records go, and which are refused before anything is written: the same on both transports."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from stream import kernels
from stream.transport.base import OutRecord, TransportError
from stream.transport.murmur2 import partitions_of

_RECORD_OVERHEAD = 100
"""What Kafka counts for a batch of one record beside key, value and headers, at most."""
_HEADER_OVERHEAD = 10


def choose_partitions(topic: str, records: Sequence[OutRecord], partitions: int, turn: int) -> NDArray[np.int64]:
    """The partition of each of n records of one topic, shape (n,).

    It is the record's own, or else its key's; records with neither go to `turn` modulo the partitions, all together,
    so that they make one batch. Raises TransportError where a record names a partition that there is not.
    """
    given = [record.partition for record in records]
    keys = [record.key for record in records]
    if given.count(None) == len(given) and None not in keys:
        return partitions_of([key for key in keys if key is not None], partitions)
    chosen: list[int]
    if None not in given:
        chosen = given  # type: ignore[assignment]
    else:
        keyed = partitions_of([key or b"" for key in keys], partitions).tolist()
        chosen = [
            partition if partition is not None else turn % partitions if key is None else own
            for partition, key, own in zip(given, keys, keyed, strict=True)
        ]
    if not 0 <= min(chosen) <= max(chosen) < partitions:
        wrong = next(partition for partition in chosen if not 0 <= partition < partitions)
        raise TransportError(f"topic {topic!r} has partitions 0 to {partitions - 1}, not {wrong}")
    return np.array(chosen, dtype=np.int64)


def by_partition(topic: str, records: Sequence[OutRecord], partitions: int, turn: int) -> dict[int, list[OutRecord]]:
    """Records of one topic by the partition that `choose_partitions` gives them, each partition's in order."""
    given = {record.partition for record in records}
    if len(given) == 1 and (only := given.pop()) is not None and 0 <= only < partitions:
        return {only: list(records)}
    grouped: dict[int, list[OutRecord]] = {}
    for record, partition in zip(records, choose_partitions(topic, records, partitions, turn).tolist(), strict=True):
        grouped.setdefault(partition, []).append(record)
    return grouped


def check_records(topic: str, records: Sequence[OutRecord], max_message_bytes: int, compacted: bool = False) -> None:
    """Raise TransportError for a record that the topic would not take."""
    keyless, silent, largest = kernels.encode.measure(records, _HEADER_OVERHEAD) if kernels.on() else _measure(records)
    if keyless and compacted:
        raise TransportError(f"topic {topic!r} is compacted: every record needs a key")
    if silent:
        raise TransportError(f"a record for topic {topic!r} has neither key nor value: it would say nothing")
    if largest > max_message_bytes - _RECORD_OVERHEAD:
        raise TransportError(
            f"a record of {largest} bytes is too large for topic {topic!r}: it takes {max_message_bytes} in all"
        )


def _measure(records: Sequence[OutRecord]) -> tuple[int, int, int]:
    """How many have no key, how many neither key nor value, and the bytes of the largest; as the kernel does it."""
    keyless = silent = largest = 0
    for _, key, value, _, headers, _ in records:
        size = 0
        if key is not None:
            size = len(key)
        else:
            keyless += 1
            silent += value is None
        if value is not None:
            size += len(value)
        if headers:
            size += sum([len(name.encode()) + len(content) + _HEADER_OVERHEAD for name, content in headers])
        if size > largest:
            largest = size
    return keyless, silent, largest
