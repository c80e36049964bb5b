"""Where records go, and which are refused before anything is written: the same on both transports."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

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


def check_records(topic: str, records: Sequence[OutRecord], max_message_bytes: int, compacted: bool = False) -> None:
    """Raise TransportError for a record that the topic would not take."""
    keys = [record.key for record in records]
    values = [record.value for record in records]
    if None in keys:
        if compacted:
            raise TransportError(f"topic {topic!r} is compacted: every record needs a key")
        if any(key is None and value is None for key, value in zip(keys, values, strict=True)):
            raise TransportError(f"a record for topic {topic!r} has neither key nor value: it would say nothing")
    limit = max_message_bytes - _RECORD_OVERHEAD
    largest = max(map(_length, keys)) + max(map(_length, values))
    # No header's name is longer in UTF-8 than this: what is small enough by it need not be encoded.
    headers = max(
        (
            sum([4 * len(name) + len(content) + _HEADER_OVERHEAD for name, content in record.headers])
            for record in records
            if record.headers
        ),
        default=0,
    )
    if largest + headers <= limit:
        return
    for record in records:
        size = _length(record.key) + _length(record.value)
        size += sum(len(name.encode()) + len(content) + _HEADER_OVERHEAD for name, content in record.headers)
        if size > limit:
            raise TransportError(
                f"a record of {size} bytes is too large for topic {topic!r}: it takes {max_message_bytes} in all"
            )


def _length(content: bytes | None) -> int:
    return 0 if content is None else len(content)
