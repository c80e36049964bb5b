"""The embedded transport: topics, groups and atomic commits in one directory, for any processes of one machine.

Invariant: outputs, offsets and the proof of membership are one SQLite transaction, durable when `commit` returns.
Positions are known to the session alone until then. Nothing here waits for anything but the disk, another writer
(`busy_timeout`) or new data (`poll`).
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from schemas.topics import TopicSpec
from stream.runtime import crash
from stream.transport.base import (
    Difference,
    FencedError,
    OutRecord,
    Poll,
    Record,
    Session,
    TopicPartition,
    Transport,
    TransportError,
)
from stream.transport.copartition import unequal_partitions
from stream.transport.embedded_group import Membership
from stream.transport.embedded_log import Log, Topic
from stream.transport.embedded_store import Store
from stream.transport.embedded_topics import check
from stream.transport.records import RecordColumns, join
from stream.transport.settings import EmbeddedSettings

_READ_ROWS = 2000
_WAIT_FIRST_S = 0.001
_WAIT_LONGEST_S = 0.02


class SourceOffset(NamedTuple):
    """How far a source outside the transport (say a file) has been taken in: from `before` to `after`."""

    group: str
    where: TopicPartition
    """Any name and number; there need be no such topic."""
    before: int | None
    """What must be stored now; None for nothing yet."""
    after: int


class EmbeddedTransport(Transport):
    """The topics in `directory`, which is created unless `create` is False.

    One object may be shared by the threads of a process; it must not be carried across a fork.
    """

    def __init__(self, directory: Path, settings: EmbeddedSettings | None = None, *, create: bool = True) -> None:
        self._settings = settings or EmbeddedSettings()
        self._store = Store(Path(directory), self._settings, create=create)
        self._log = Log()
        self._lock = threading.RLock()
        self._connection = self._store.connect()

    def session(self, group: str, topics: Sequence[str]) -> EmbeddedSession:
        """See the base class. Raises UnavailableError where a topic is missing."""
        names = sorted(set(topics))
        with self._lock, self._store.errors():
            found = [self._log.need(self._connection, name) for name in names]
        if problem := unequal_partitions({topic.name: topic.partitions for topic in found}):
            raise TransportError(problem)
        return EmbeddedSession(self._store, self._log, group, found, self._settings)

    def produce(self, records: Iterable[OutRecord], source: SourceOffset | None = None) -> int:
        """See the base class; all records are one atomic append.

        With `source`, the source's position is stored in the same transaction, so that an import that was killed
        carries on exactly where it stopped; `committed(source.group, source.where)` tells where. Raises FencedError
        where the stored position is not `source.before`: somebody else imports the same source.
        """
        now_ms = _wall_ms()
        with self._lock:
            with self._store.errors():
                packed = self._log.pack(self._connection, records, now_ms)
            if not packed.count and source is None:
                return 0
            with self._store.transaction(self._connection):
                self._log.append(self._connection, packed, now_ms)
                if source is not None:
                    self._advance_source(source)
        return packed.count

    def read(self, where: TopicPartition, start: int, end: int | None = None) -> Iterator[Record]:
        """See the base class. A compacted topic is read as it was at the call, even while it is written."""
        with self._lock, self._store.errors():
            topic = self._log.need(self._connection, where.topic)
            number = self._log.partition_id(self._connection, where)
            first, last = self._log.bounds(self._connection, [number])[number]
        start, end = max(start, first), last if end is None else min(end, last)
        if start >= end:
            return iter(())
        return self._read(topic, where.partition, start, end)

    def partitions(self, topic: str) -> int:
        """See the base class."""
        with self._lock, self._store.errors():
            found = self._log.find(self._connection, topic)
        return 0 if found is None else found.partitions

    def start_offset(self, where: TopicPartition) -> int:
        """See the base class."""
        return self._bounds(where)[0]

    def end_offset(self, where: TopicPartition) -> int:
        """See the base class."""
        return self._bounds(where)[1]

    def committed(self, group: str, where: TopicPartition) -> int | None:
        """See the base class."""
        with self._lock, self._store.errors():
            return _committed(self._connection, group, where)

    def trim(self, where: TopicPartition, before: int) -> None:
        """See the base class. Raises TransportError beyond the end."""
        with self._lock, self._store.transaction(self._connection):
            self._log.trim(self._connection, where, before)

    def create_topics(self, specs: Iterable[TopicSpec], input_partitions: int) -> list[str]:
        """See the base class."""
        created = []
        with self._lock, self._store.transaction(self._connection):
            for spec in specs:
                if self._log.find(self._connection, spec.name) is None:
                    partitions = input_partitions if spec.partitions == "input" else spec.partitions
                    if partitions < 1:
                        raise TransportError(f"topic {spec.name!r} needs at least one partition, not {partitions}")
                    self._log.create(
                        self._connection, spec.name, partitions, spec.cleanup, spec.retention_ms, spec.config
                    )
                    created.append(spec.name)
        return created

    def check_topics(self, specs: Iterable[TopicSpec], input_partitions: int | None = None) -> list[Difference]:
        """See the base class."""
        specs = list(specs)
        with self._lock, self._store.errors():
            found = {spec.name: self._log.find(self._connection, spec.name) for spec in specs}
        return check(specs, found, input_partitions)

    def close(self) -> None:
        """See the base class. Sessions are closed by their owners."""
        with self._lock:
            self._connection.close()

    def _bounds(self, where: TopicPartition) -> tuple[int, int]:
        with self._lock, self._store.errors():
            number = self._log.partition_id(self._connection, where)
            return self._log.bounds(self._connection, [number])[number]

    def _read(self, topic: Topic, partition: int, start: int, end: int) -> Iterator[Record]:
        connection = self._store.connect()
        try:
            with self._store.errors():
                # One snapshot for all: a row that moves while it is read would be missed.
                connection.execute("BEGIN")
                for records in self._log.take(connection, topic, partition, start, end, _READ_ROWS):
                    yield from records
        finally:
            connection.close()

    def _advance_source(self, source: SourceOffset) -> None:
        stored = _committed(self._connection, source.group, source.where)
        if stored != source.before:
            raise FencedError(
                f"{source.where.topic} has been taken in up to {stored}, not {source.before}: "
                "is it imported twice at once?"
            )
        _store_offsets(self._connection, source.group, {source.where: source.after})


class EmbeddedSession(Session):
    """See the base class. A member is evicted at once when its process dies, after its lease when it hangs."""

    def __init__(self, store: Store, log: Log, group: str, topics: Sequence[Topic], settings: EmbeddedSettings) -> None:
        self._store = store
        self._log = log
        self._group = group
        self._topics = {topic.name: topic for topic in topics}
        # One thread works with a session, but another may ask for its lag.
        self._lock = threading.RLock()
        self._closed = False
        self._cursors: dict[TopicPartition, _Cursor] = {}
        self._turn = 0
        self._seen = -1
        self._connection = store.connect()
        self._membership = Membership(store, self._connection, group, topics[0].partitions, settings.member_lease)
        try:
            self._membership.join()
        except BaseException:
            self._connection.close()
            raise

    def poll(self, max_records: int, timeout: float) -> Poll:
        """See the base class. Partitions come in order, and share `max_records` evenly as far as they have data."""
        deadline = time.monotonic() + timeout
        pause = _WAIT_FIRST_S
        while True:
            with self._lock:
                self._check_open()
                self._membership.beat()
                if self._is_new() or pause == _WAIT_FIRST_S:
                    assigned, revoked = self._rebalance()
                    records = self._fetch(max_records)
                    if records or assigned or revoked:
                        return Poll(records, assigned, revoked)
            left = deadline - time.monotonic()
            if left <= 0:
                return Poll()
            time.sleep(min(pause, left))
            pause = min(pause * 2, _WAIT_LONGEST_S)

    def resume(self, partitions: Iterable[TopicPartition]) -> None:
        """See the base class. Partitions that have been revoked meanwhile are passed over."""
        with self._lock:
            for where in partitions:
                if (cursor := self._cursors.get(where)) is not None:
                    cursor.paused = False

    def commit(self, offsets: Mapping[TopicPartition, int], outputs: Sequence[OutRecord]) -> dict[TopicPartition, int]:
        """See the base class. Raises UnavailableError where nothing was written and the same commit may be tried
        again (disk full, another writer)."""
        now_ms = _wall_ms()
        with self._lock:
            self._check_open()
            for where in offsets:
                if where not in self._cursors:
                    raise FencedError(f"{where.topic}/{where.partition} is not, or no longer, this member's")
            if not self._cursors and (offsets or outputs):
                raise FencedError(f"this member of {self._group!r} has no partition, so it has nothing to publish")
            with self._store.errors():
                packed = self._log.pack(self._connection, outputs, now_ms)
            with self._store.transaction(self._connection):
                self._membership.renew()
                first = self._log.append(self._connection, packed, now_ms)
                crash.reach("after_produce")
                _store_offsets(self._connection, self._group, offsets)
                crash.reach("after_offsets")
                crash.reach("in_commit")
        return first

    def lag(self) -> dict[TopicPartition, int]:
        """See the base class. An upper bound where the topic is compacted."""
        with self._lock:
            self._check_open()
            self._refresh()
            return {where: cursor.end - cursor.position for where, cursor in self._cursors.items()}

    def close(self) -> None:
        """See the base class."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._cursors.clear()
            try:
                self._membership.leave()
            finally:
                self._connection.close()

    def _check_open(self) -> None:
        if self._closed:
            raise FencedError(f"the session of group {self._group!r} is closed")

    def _is_new(self) -> bool:
        """Whether anything was written since the last look; microseconds."""
        with self._store.errors():
            (version,) = self._connection.execute("PRAGMA data_version").fetchone()
        if version == self._seen:
            return False
        self._seen = version
        return True

    def _rebalance(self) -> tuple[frozenset[TopicPartition], frozenset[TopicPartition]]:
        taken, lost = self._membership.reconcile()
        assigned = frozenset(TopicPartition(name, partition) for partition in taken for name in self._topics)
        revoked = frozenset(TopicPartition(name, partition) for partition in lost for name in self._topics)
        for where in revoked:
            del self._cursors[where]
        with self._store.errors():
            for where in assigned:
                topic = self._topics[where.topic]
                position = _committed(self._connection, self._group, where) or 0
                self._cursors[where] = _Cursor(topic, where.partition, position)
        if assigned:
            self._cursors = dict(sorted(self._cursors.items()))
        return assigned, revoked

    def _refresh(self) -> None:
        """Learn the ends, and pass over what was trimmed."""
        if not self._cursors:
            return
        with self._store.errors():
            bounds = self._log.bounds(self._connection, [cursor.number for cursor in self._cursors.values()])
        for cursor in self._cursors.values():
            start, cursor.end = bounds[cursor.number]
            cursor.position = max(cursor.position, start)

    def _fetch(self, max_records: int) -> dict[TopicPartition, Sequence[Record]]:
        self._refresh()
        lags = {
            where: cursor.end - cursor.position
            for where, cursor in self._cursors.items()
            if not cursor.paused and cursor.end > cursor.position
        }
        fetched: dict[TopicPartition, Sequence[Record]] = {}
        for where, share in _shares(lags, max_records, self._turn).items():
            with self._store.errors():
                if (records := self._cursors[where].take(self._connection, self._log, share)) is not None:
                    fetched[where] = records
        # Counted by what was read, not by looks, so that a replay gets the same batches at any speed.
        self._turn += bool(fetched)
        return fetched


class _Cursor:
    """Where a session stands in one partition. Paused until resumed."""

    def __init__(self, topic: Topic, partition: int, position: int) -> None:
        self.number = topic.ids[partition]
        self.position = position
        self.end = position
        self.paused = True
        self._topic = topic
        self._partition = partition
        # The rest of a block that was larger than its share, so that it is unpacked once.
        self._rest: RecordColumns | None = None

    def take(self, connection: sqlite3.Connection, log: Log, limit: int) -> RecordColumns | None:
        """The next records, at most `limit`; None where there are none."""
        parts: list[RecordColumns] = []
        rest, self._rest = self._rest, None
        if rest is not None and rest.offsets[0] == self.position:
            parts.append(rest)
        count, finished = sum(map(len, parts)), False
        if count < limit:
            start = int(parts[-1].offsets[-1]) + 1 if parts else self.position
            # Closed at once: a statement left open would hold back the clean-up of SQLite's log.
            with closing(log.take(connection, self._topic, self._partition, start, self.end, limit)) as stored:
                for records in stored:
                    parts.append(records)
                    count += len(records)
                    if count >= limit:
                        break
                else:
                    # All that is stored below the end: what lies between was compacted away.
                    finished = True
        if finished:
            self.position = self.end
            return join(parts) if parts else None
        taken = join(parts)
        if count > limit:
            taken, self._rest = taken[:limit], taken[limit:]
        self.position = int(taken.offsets[-1]) + 1
        return taken


def _shares(lags: Mapping[TopicPartition, int], total: int, turn: int) -> dict[TopicPartition, int]:
    """Divide `total` evenly over the partitions, no more to each than its lag, in the order of `lags`.

    What does not divide goes to another partition in every turn, so that none starves where `total` is small.
    """
    shares = dict.fromkeys(lags, 0)
    hungry = list(lags)
    while total > 0 and hungry:
        even, rest = divmod(total, len(hungry))
        for place, where in enumerate(hungry):
            extra = (place - turn) % len(hungry) < rest
            share = min(even + extra, lags[where] - shares[where])
            shares[where] += share
            total -= share
        hungry = [where for where in hungry if shares[where] < lags[where]]
    return {where: share for where, share in shares.items() if share}


def _committed(connection: sqlite3.Connection, group: str, where: TopicPartition) -> int | None:
    row = connection.execute(
        "SELECT next_offset FROM offsets WHERE group_name = ? AND topic = ? AND partition = ?", (group, *where)
    ).fetchone()
    return None if row is None else int(row[0])


def _store_offsets(connection: sqlite3.Connection, group: str, offsets: Mapping[TopicPartition, int]) -> None:
    connection.executemany(
        "INSERT OR REPLACE INTO offsets VALUES (?, ?, ?, ?)",
        [(group, *where, offset) for where, offset in offsets.items()],
    )


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000
