"""The topics of the embedded transport: append, read, trim, expire; all inside transactions of the caller.

Invariant: offsets of a partition grow by one a record and are never used again. A topic of policy delete is a
sequence of blocks without holes between its start and its end; a compacted one holds one row a key, at the offset of
its last write. A tombstone stays readable for a day, so that followers see it, as on Kafka.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice, repeat
from typing import NamedTuple

import numpy as np
import orjson

from stream.transport.base import OutRecord, TopicPartition, TransportError, UnavailableError
from stream.transport.block import pack_block, pack_headers, unpack_block, unpack_headers
from stream.transport.partitioner import check_records, choose_partitions
from stream.transport.records import RecordColumns
from stream.transport.settings import DEFAULT_MAX_MESSAGE_BYTES

_BLOCK_RECORDS = 8192
_BLOCK_BYTES = 16_000_000
_TOMBSTONE_MS = 86_400_000
_EXPIRE_EVERY_S = 60.0
_EXPIRE_BLOCKS = 2000
"""At most so many blocks of a partition go at once: an append must not wait for a week's clean-up."""


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic as it was created; that never changes."""

    name: str
    partitions: int
    compacted: bool
    retention_ms: int | None
    config: dict[str, str]
    ids: tuple[int, ...]
    """Of the partitions, in order."""

    @property
    def max_message_bytes(self) -> int:
        """The largest record that is accepted."""
        return int(self.config.get("max.message.bytes", DEFAULT_MAX_MESSAGE_BYTES))


class _Row(NamedTuple):
    """A record on its way to a compacted topic."""

    timestamp: int
    key: bytes
    headers: bytes | None
    value: bytes | None


@dataclass(slots=True)
class Packed:
    """Records that are ready to be appended: the work that needs no lock is done."""

    count: int = 0
    blocks: list[tuple[TopicPartition, int, int, bytes]] = field(default_factory=list)
    """Where, the partition's id, how many, the block."""
    rows: list[tuple[TopicPartition, int, list[_Row]]] = field(default_factory=list)


class Log:
    """The topics of one store, as one process sees them."""

    def __init__(self) -> None:
        self._topics: dict[str, Topic] = {}
        # In turn, for records without a key; a lost update between threads does no harm.
        self._keyless = 0
        self._next_expiry = 0.0

    def find(self, connection: sqlite3.Connection, name: str) -> Topic | None:
        """The topic, or None where there is none."""
        if (known := self._topics.get(name)) is not None:
            return known
        row = connection.execute(
            "SELECT id, partitions, cleanup, retention_ms, config FROM topics WHERE name = ?", (name,)
        ).fetchone()
        if row is None:
            return None
        ids = connection.execute("SELECT id FROM partitions WHERE topic_id = ? ORDER BY partition", (row[0],))
        topic = Topic(
            name, row[1], row[2] == "compact", row[3], orjson.loads(row[4]), tuple(number for (number,) in ids)
        )
        self._topics[name] = topic
        return topic

    def need(self, connection: sqlite3.Connection, name: str) -> Topic:
        """The topic. Raises UnavailableError where there is none: somebody may create it yet."""
        if (topic := self.find(connection, name)) is None:
            raise UnavailableError(f"topic {name!r} does not exist: run `resegment topics create`")
        return topic

    def partition_id(self, connection: sqlite3.Connection, where: TopicPartition) -> int:
        """The id of a partition that must exist."""
        topic = self.need(connection, where.topic)
        if not 0 <= where.partition < topic.partitions:
            raise TransportError(
                f"topic {topic.name!r} has partitions 0 to {topic.partitions - 1}, not {where.partition}"
            )
        return topic.ids[where.partition]

    def create(
        self,
        connection: sqlite3.Connection,
        name: str,
        partitions: int,
        cleanup: str,
        retention_ms: int | None,
        config: dict[str, str],
    ) -> None:
        """A new topic, in the caller's transaction."""
        cursor = connection.execute(
            "INSERT INTO topics (name, partitions, cleanup, retention_ms, config) VALUES (?, ?, ?, ?, ?)",
            (name, partitions, cleanup, retention_ms, orjson.dumps(config).decode()),
        )
        connection.executemany(
            "INSERT INTO partitions (topic_id, partition) VALUES (?, ?)",
            zip(repeat(cursor.lastrowid), range(partitions), strict=False),
        )

    def bounds(self, connection: sqlite3.Connection, ids: Sequence[int]) -> dict[int, tuple[int, int]]:
        """Start and end offset of each partition, by id."""
        marks = ",".join("?" * len(ids))
        rows = connection.execute(
            f"SELECT id, start_offset, end_offset FROM partitions WHERE id IN ({marks})",  # noqa: S608
            tuple(ids),
        )
        return {number: (start, end) for number, start, end in rows}

    # Writing

    def pack(self, connection: sqlite3.Connection, records: Iterable[OutRecord], now_ms: int) -> Packed:
        """Choose the partitions and pack the blocks, before any lock is taken.

        Raises TransportError for a record that no topic takes (too large, no such partition, no key where the topic
        is compacted).
        """
        packed = Packed()
        source = iter(records)
        while chunk := list(islice(source, _BLOCK_RECORDS)):
            packed.count += len(chunk)
            names = dict.fromkeys(record.topic for record in chunk)
            for name in names:
                topic = self.need(connection, name)
                own = chunk if len(names) == 1 else [record for record in chunk if record.topic == name]
                self._pack_topic(packed, topic, own, now_ms)
        return packed

    def append(self, connection: sqlite3.Connection, packed: Packed, now_ms: int) -> dict[TopicPartition, int]:
        """Write what was packed, in the caller's transaction; the first offset written in each partition."""
        first: dict[TopicPartition, int] = {}
        for where, number, count, payload in packed.blocks:
            base = self._advance(connection, number, count)
            first.setdefault(where, base)
            connection.execute("INSERT INTO blocks VALUES (?, ?, ?, ?, ?)", (number, base, count, now_ms, payload))
        for where, number, rows in packed.rows:
            base = self._advance(connection, number, len(rows))
            first.setdefault(where, base)
            connection.executemany(
                "INSERT INTO latest VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (partition_id, key) DO UPDATE SET "
                "offset = excluded.offset, timestamp = excluded.timestamp, appended_at = excluded.appended_at, "
                "headers = excluded.headers, value = excluded.value",
                (
                    (number, row.key, offset, row.timestamp, now_ms, row.headers, row.value)
                    for offset, row in enumerate(rows, base)
                ),
            )
        if time.monotonic() >= self._next_expiry:
            self._next_expiry = time.monotonic() + _EXPIRE_EVERY_S
            self.expire(connection, now_ms)
        return first

    def expire(self, connection: sqlite3.Connection, now_ms: int) -> None:
        """Drop what is older than its topic keeps, by the time of its append, in the caller's transaction."""
        aged = connection.execute(
            "SELECT p.id, t.retention_ms FROM partitions p JOIN topics t ON t.id = p.topic_id "
            "WHERE t.cleanup = 'delete' AND t.retention_ms IS NOT NULL"
        ).fetchall()
        for number, retention_ms in aged:
            row = connection.execute(
                "SELECT max(base_offset + count) FROM (SELECT base_offset, count, appended_at FROM blocks "
                "WHERE partition_id = ? ORDER BY base_offset LIMIT ?) WHERE appended_at < ?",
                (number, _EXPIRE_BLOCKS, now_ms - retention_ms),
            ).fetchone()
            if row[0] is not None:
                self._cut(connection, number, row[0])
        connection.execute("DELETE FROM latest WHERE value IS NULL AND appended_at < ?", (now_ms - _TOMBSTONE_MS,))

    def trim(self, connection: sqlite3.Connection, where: TopicPartition, before: int) -> None:
        """Drop what lies below offset `before`, in the caller's transaction."""
        topic, number = self.need(connection, where.topic), self.partition_id(connection, where)
        start, end = self.bounds(connection, [number])[number]
        if before > end:
            raise TransportError(f"cannot trim {where.topic}/{where.partition} to {before}: it ends at {end}")
        if before <= start:
            return
        if topic.compacted:
            connection.execute("UPDATE partitions SET start_offset = ? WHERE id = ?", (before, number))
            connection.execute("DELETE FROM latest WHERE partition_id = ? AND offset < ?", (number, before))
        else:
            self._cut(connection, number, before)

    # Reading

    def take(
        self, connection: sqlite3.Connection, topic: Topic, partition: int, start: int, end: int, limit: int
    ) -> Generator[RecordColumns, None, None]:
        """Records from `start` to below `end`, for each stored block its own (`limit` or fewer rows if compacted).

        The caller may stop at any time. Raises TransportError where a block is damaged.
        """
        if topic.compacted:
            yield from self._take_rows(connection, topic, partition, start, end, limit)
        else:
            yield from self._take_blocks(connection, topic, partition, start, end)

    def _take_blocks(
        self, connection: sqlite3.Connection, topic: Topic, partition: int, start: int, end: int
    ) -> Iterator[RecordColumns]:
        number = topic.ids[partition]
        rows = connection.execute(
            "SELECT base_offset, payload FROM blocks WHERE partition_id = ?1 AND base_offset < ?3 AND base_offset >= "
            "coalesce((SELECT max(base_offset) FROM blocks WHERE partition_id = ?1 AND base_offset <= ?2), 0) "
            "ORDER BY base_offset",
            (number, start, end),
        )
        for base, payload in rows:
            try:
                columns = unpack_block(payload)
            except Exception as error:
                raise TransportError(
                    f"{topic.name}/{partition} is damaged at offset {base} ({error}): restore the directory from a "
                    "backup, or use an empty one and replay the events"
                ) from error
            count = len(columns.values)
            records = RecordColumns(
                topic.name,
                partition,
                np.arange(base, base + count),
                columns.timestamps,
                columns.keys,
                columns.values,
                columns.headers,
            )
            low, high = max(start - base, 0), end - base
            if low or high < count:
                records = records[low:high]
            if len(records):
                yield records

    def _take_rows(
        self, connection: sqlite3.Connection, topic: Topic, partition: int, start: int, end: int, limit: int
    ) -> Iterator[RecordColumns]:
        cursor = connection.execute(
            "SELECT offset, timestamp, key, headers, value FROM latest "
            "WHERE partition_id = ? AND offset >= ? AND offset < ? ORDER BY offset",
            (topic.ids[partition], start, end),
        )
        while rows := cursor.fetchmany(limit):
            offsets, timestamps, keys, headers, values = map(list, zip(*rows, strict=True))
            yield RecordColumns(
                topic.name,
                partition,
                np.array(offsets, np.int64),
                np.array(timestamps, np.int64),
                keys,
                values,
                [unpack_headers(packed) for packed in headers] if any(headers) else None,
            )

    def _pack_topic(self, packed: Packed, topic: Topic, records: Sequence[OutRecord], now_ms: int) -> None:
        check_records(topic.name, records, topic.max_message_bytes, topic.compacted)
        parts = choose_partitions(topic.name, records, topic.partitions, self._keyless)
        self._keyless += 1
        for partition in np.unique(parts).tolist():
            own: Sequence[OutRecord] = records
            if topic.partitions > 1:
                own = [records[at] for at in np.flatnonzero(parts == partition).tolist()]
            _, keys, values, _, headers, stamps = zip(*own, strict=True)
            timestamps = [now_ms if stamp is None else stamp for stamp in stamps]
            where, number = TopicPartition(topic.name, partition), topic.ids[partition]
            if topic.compacted:
                packed_headers = [pack_headers(each) for each in headers]
                packed.rows.append((where, number, list(map(_Row, timestamps, keys, packed_headers, values))))
            else:
                for low, high in _split_by_size(values, 0, len(values)):
                    block = pack_block(timestamps[low:high], keys[low:high], values[low:high], headers[low:high])
                    packed.blocks.append((where, number, high - low, block))

    @staticmethod
    def _advance(connection: sqlite3.Connection, number: int, count: int) -> int:
        """Move the end of a partition; returns where it was."""
        (end,) = connection.execute(
            "UPDATE partitions SET end_offset = end_offset + ? WHERE id = ? RETURNING end_offset", (count, number)
        ).fetchone()
        return int(end) - count

    @staticmethod
    def _cut(connection: sqlite3.Connection, number: int, before: int) -> None:
        connection.execute("UPDATE partitions SET start_offset = max(start_offset, ?) WHERE id = ?", (before, number))
        connection.execute(
            "DELETE FROM blocks WHERE partition_id = ? AND base_offset < ? AND base_offset + count <= ?",
            (number, before, before),
        )


def _split_by_size(values: Sequence[bytes | None], low: int, high: int) -> Iterator[tuple[int, int]]:
    """Halve the range until each part is a block of bearable size."""
    size = sum(len(value) for value in values[low:high] if value is not None)
    if size <= _BLOCK_BYTES or high - low == 1:
        yield low, high
    else:
        middle = (low + high) // 2
        yield from _split_by_size(values, low, middle)
        yield from _split_by_size(values, middle, high)
