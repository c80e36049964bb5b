"""Consumer groups of the embedded transport: who is a member, and who has which partitions.

Invariant: a partition number has at most one owner in a group, and it is a member. It changes hands only when its
owner lets go in its own poll, or is evicted; so an owner's commit needs one check: is it still a member?

Every member holds a file lock for as long as its process lives. The kernel frees it at death, so that others notice
within a second; a member that lives but hangs loses its place when its lease runs out. Leases are on the monotonic
clock, which all processes of one machine share and no clock step moves.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import time
import uuid
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from stream.transport.base import FencedError
from stream.transport.copartition import assign
from stream.transport.embedded_store import Store

_LOOK_EVERY_S = 1.0


class Membership:
    """One member of one group, from `join` to `leave`. Every method but `join` raises FencedError once evicted."""

    def __init__(
        self, store: Store, connection: sqlite3.Connection, group: str, partitions: int, lease_ms: int
    ) -> None:
        self.member = uuid.uuid4().hex
        self.owned: frozenset[int] = frozenset()
        self._store = store
        self._connection = connection
        self._group = group
        self._partitions = partitions
        self._lease_ms = lease_ms
        self._generation = -1
        self._waiting = True
        self._renew_at = self._look_at = 0.0
        self._locks = store.directory / "members"
        self._lock: int | None = None

    def join(self) -> None:
        """Become a member; partitions come with the next `reconcile`."""
        self._take_lock()
        try:
            with self._store.transaction(self._connection):
                self._execute("INSERT OR IGNORE INTO groups (name) VALUES (?)", self._group)
                self._execute(
                    "INSERT INTO members SELECT ?1, ?2, coalesce(max(joined), 0) + 1, ?3 FROM members "
                    "WHERE group_name = ?1",
                    self._group,
                    self.member,
                    self._lease_end(),
                )
                self._connection.executemany(
                    "INSERT OR IGNORE INTO assignment (group_name, partition) VALUES (?, ?)",
                    [(self._group, partition) for partition in range(self._partitions)],
                )
                self._evict(self._find_lost())
                self._rebalance()
        except BaseException:
            self._drop_lock()
            raise
        self._renew_at = time.monotonic() + self._lease_ms / 3000

    def beat(self) -> None:
        """Renew the lease when a third of it has passed, and look for members that are gone; cheap otherwise."""
        now = time.monotonic()
        if now >= self._renew_at:
            with self._store.transaction(self._connection):
                self.renew()
        if now >= self._look_at:
            self._look_at = now + min(_LOOK_EVERY_S, self._lease_ms / 3000)
            if self._find_lost():
                with self._store.transaction(self._connection):
                    self._evict(self._find_lost())
                    self._rebalance()

    def renew(self) -> None:
        """Prove membership and renew the lease, in the caller's transaction: the fencing check of a commit."""
        renewed = self._execute(
            "UPDATE members SET lease_until = ? WHERE group_name = ? AND member = ?",
            self._lease_end(),
            self._group,
            self.member,
        )
        if renewed.rowcount != 1:
            raise FencedError(
                f"this member lost its place in group {self._group!r}: it was silent for longer than its lease, "
                "or it has left"
            )
        self._renew_at = time.monotonic() + self._lease_ms / 3000

    def reconcile(self) -> tuple[frozenset[int], frozenset[int]]:
        """Let go of what others shall have, take what is free and ours: (taken, let go)."""
        row = self._execute("SELECT generation FROM groups WHERE name = ?", self._group).fetchone()
        if row[0] == self._generation and not self._waiting:
            return frozenset(), frozenset()
        with self._store.transaction(self._connection):
            self.renew()
            let_go = self._execute(
                "UPDATE assignment SET owner = NULL WHERE group_name = ?1 AND owner = ?2 AND target IS NOT ?2",
                self._group,
                self.member,
            ).rowcount
            self._execute(
                "UPDATE assignment SET owner = ?2 WHERE group_name = ?1 AND owner IS NULL AND target = ?2",
                self._group,
                self.member,
            )
            rows = self._execute(
                "SELECT partition, owner FROM assignment WHERE group_name = ?1 AND (owner = ?2 OR target = ?2)",
                self._group,
                self.member,
            ).fetchall()
            if let_go:
                self._next_generation()
            (self._generation,) = self._execute("SELECT generation FROM groups WHERE name = ?", self._group).fetchone()
        owned = frozenset(partition for partition, owner in rows if owner == self.member)
        self._waiting = len(owned) < len(rows)
        taken, lost = owned - self.owned, self.owned - owned
        self.owned = owned
        return taken, lost

    def leave(self) -> None:
        """Give everything up, so that others need not wait. Safe to call twice, and after an eviction."""
        if self._lock is None:
            return
        try:
            with self._store.transaction(self._connection):
                self._evict([self.member])
                self._rebalance()
        finally:
            # Should the disk refuse the farewell, the freed lock says the same.
            self._drop_lock()
            self.owned = frozenset()

    def _find_lost(self) -> list[str]:
        """Other members whose lease has run out or whose process is gone."""
        rows = self._execute(
            "SELECT member, lease_until FROM members WHERE group_name = ? AND member <> ?", self._group, self.member
        ).fetchall()
        now = _clock_ms()
        return [member for member, lease_until in rows if lease_until < now or not _is_held(self._locks / member)]

    def _evict(self, members: Iterable[str]) -> None:
        for member in members:
            self._execute("DELETE FROM members WHERE group_name = ? AND member = ?", self._group, member)
            self._execute("UPDATE assignment SET owner = NULL WHERE group_name = ? AND owner = ?", self._group, member)
            (self._locks / member).unlink(missing_ok=True)

    def _rebalance(self) -> None:
        """New targets for the members as they are now, in the caller's transaction."""
        rows = self._execute("SELECT member FROM members WHERE group_name = ? ORDER BY joined", self._group)
        members = [member for (member,) in rows]
        before = dict(
            self._execute("SELECT partition, target FROM assignment WHERE group_name = ?", self._group).fetchall()
        )
        targets = assign(len(before), members, before)
        self._connection.executemany(
            "UPDATE assignment SET target = ? WHERE group_name = ? AND partition = ?",
            [(target, self._group, partition) for partition, target in targets.items()],
        )
        self._next_generation()

    def _next_generation(self) -> None:
        self._execute("UPDATE groups SET generation = generation + 1 WHERE name = ?", self._group)

    def _lease_end(self) -> int:
        return _clock_ms() + self._lease_ms

    def _execute(self, statement: str, *values: object) -> sqlite3.Cursor:
        with self._store.errors():
            return self._connection.execute(statement, values)

    def _take_lock(self) -> None:
        self._locks.mkdir(mode=0o700, exist_ok=True)
        self._lock = os.open(self._locks / self.member, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _drop_lock(self) -> None:
        if self._lock is not None:
            (self._locks / self.member).unlink(missing_ok=True)
            os.close(self._lock)
            self._lock = None


def _clock_ms() -> int:
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1_000_000


def _is_held(path: Path) -> bool:
    """Whether a living process holds the lock on `path`."""
    try:
        handle = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        with suppress(OSError):
            os.close(handle)
    return False
