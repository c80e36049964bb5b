"""Records of one partition as columns: a poll brings thousands, and few of them are ever looked at one by one.

Invariant: `RecordColumns` is a sequence of records like any other; an object is made for those alone that are asked
for. What wants a column of any sequence of records takes `values_of`, `keys_of` or `timestamps_of`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import NamedTuple, overload

import numpy as np
import numpy.typing as npt

from stream.transport.base import Headers, Record
from stream.transport.spans import Ints, contents_at, joined, list_of


class ReadRecord(NamedTuple):
    """A record as it was read."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Headers


class RecordColumns(Sequence[ReadRecord]):
    """n records of one partition, in offset order.

    Parameters: `offsets` and `timestamps` (n,), `keys` and `values` of length n, lists or spans; `headers` of length n,
    or None where no record has any.
    """

    __slots__ = ("headers", "keys", "offsets", "partition", "timestamps", "topic", "values")

    def __init__(
        self,
        topic: str,
        partition: int,
        offsets: Ints,
        timestamps: Ints,
        keys: Sequence[bytes | None],
        values: Sequence[bytes | None],
        headers: list[Headers] | None = None,
    ) -> None:
        self.topic = topic
        self.partition = partition
        self.offsets = offsets
        self.timestamps = timestamps
        self.keys = keys
        self.values = values
        self.headers = headers

    def __len__(self) -> int:
        return len(self.values)

    @overload
    def __getitem__(self, at: int) -> ReadRecord: ...
    @overload
    def __getitem__(self, at: slice) -> RecordColumns: ...
    def __getitem__(self, at: int | slice) -> ReadRecord | RecordColumns:
        """One record, or columns of some."""
        if isinstance(at, slice):
            return RecordColumns(
                self.topic,
                self.partition,
                self.offsets[at],
                self.timestamps[at],
                self.keys[at],
                self.values[at],
                None if self.headers is None else self.headers[at],
            )
        return ReadRecord(
            self.topic,
            self.partition,
            int(self.offsets[at]),
            int(self.timestamps[at]),
            self.keys[at],
            self.values[at],
            () if self.headers is None else self.headers[at],
        )

    def __iter__(self) -> Iterator[ReadRecord]:
        topic, partition = self.topic, self.partition
        headers: Sequence[Headers] = [()] * len(self) if self.headers is None else self.headers
        keys, values = list_of(self.keys), list_of(self.values)
        columns = zip(self.offsets.tolist(), self.timestamps.tolist(), keys, values, headers, strict=True)
        return (ReadRecord(topic, partition, *row) for row in columns)

    def __repr__(self) -> str:
        return f"RecordColumns({self.topic}/{self.partition}, {len(self)} records)"

    def under(self, topic: str) -> RecordColumns:
        """The same records by another name of their topic."""
        return RecordColumns(topic, self.partition, self.offsets, self.timestamps, self.keys, self.values, self.headers)


def join(parts: Sequence[RecordColumns]) -> RecordColumns:
    """Parts of one partition, at least one, in offset order, as one."""
    first = parts[0]
    if len(parts) == 1:
        return first
    keys, values = joined([part.keys for part in parts], [part.values for part in parts])
    headers: list[Headers] | None = None
    if any(part.headers is not None for part in parts):
        headers = list(
            chain.from_iterable([()] * len(part) if part.headers is None else part.headers for part in parts)
        )
    return RecordColumns(
        first.topic,
        first.partition,
        np.concatenate([part.offsets for part in parts]),
        np.concatenate([part.timestamps for part in parts]),
        keys,
        values,
        headers,
    )


def taken(records: Sequence[Record], positions: npt.NDArray[np.integer]) -> Sequence[Record]:
    """The records at these positions."""
    if not isinstance(records, RecordColumns):
        return [records[at] for at in positions.tolist()]
    headers = records.headers
    return RecordColumns(
        records.topic,
        records.partition,
        records.offsets[positions],
        records.timestamps[positions],
        contents_at(records.keys, positions),
        contents_at(records.values, positions),
        None if headers is None else [headers[at] for at in positions.tolist()],
    )


def values_of(records: Sequence[Record]) -> Sequence[bytes | None]:
    """The values, in order."""
    return records.values if isinstance(records, RecordColumns) else [record.value for record in records]


def keys_of(records: Sequence[Record]) -> Sequence[bytes | None]:
    """The keys, in order."""
    return records.keys if isinstance(records, RecordColumns) else [record.key for record in records]


def timestamps_of(records: Sequence[Record]) -> Ints:
    """The timestamps (n,), epoch milliseconds."""
    if isinstance(records, RecordColumns):
        return records.timestamps
    return np.fromiter((record.timestamp for record in records), np.int64, len(records))
