"""The embedded transport's SQLite file: its schema, its connections, its transactions, and what its errors mean.

Invariant: whatever changes, changes in one `Store.transaction`; a process killed anywhere leaves the state before
or after it. Errors of SQLite never leave this package: they become the errors of `stream.transport.base`.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from stream.transport.base import FencedError, TransportError, UnavailableError
from stream.transport.settings import EmbeddedSettings

_FILE = "log.sqlite3"
_APPLICATION_ID = 0x72736567  # "rseg"
_SCHEMA_VERSION = 1

_SCHEMA = """
CREATE TABLE topics (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, partitions INTEGER NOT NULL,
    cleanup TEXT NOT NULL, retention_ms INTEGER, config TEXT NOT NULL
);
CREATE TABLE partitions (
    id INTEGER PRIMARY KEY, topic_id INTEGER NOT NULL, partition INTEGER NOT NULL,
    start_offset INTEGER NOT NULL DEFAULT 0, end_offset INTEGER NOT NULL DEFAULT 0,
    UNIQUE (topic_id, partition)
);
-- Topics of policy delete: one row an append. The payload stands last, so that scans of the rest skip its pages.
CREATE TABLE blocks (
    partition_id INTEGER NOT NULL, base_offset INTEGER NOT NULL, count INTEGER NOT NULL,
    appended_at INTEGER NOT NULL, payload BLOB NOT NULL,
    PRIMARY KEY (partition_id, base_offset)
);
-- Topics of policy compact: one row a key, moved to its new offset at every write. A null value is a tombstone.
CREATE TABLE latest (
    partition_id INTEGER NOT NULL, key BLOB NOT NULL, offset INTEGER NOT NULL, timestamp INTEGER NOT NULL,
    appended_at INTEGER NOT NULL, headers BLOB, value BLOB,
    PRIMARY KEY (partition_id, key)
);
CREATE UNIQUE INDEX latest_by_offset ON latest (partition_id, offset);
CREATE INDEX latest_tombstones ON latest (appended_at) WHERE value IS NULL;
-- By name and not by id: a source outside the transport (a file being replayed) has offsets too.
CREATE TABLE offsets (
    group_name TEXT NOT NULL, topic TEXT NOT NULL, partition INTEGER NOT NULL, next_offset INTEGER NOT NULL,
    PRIMARY KEY (group_name, topic, partition)
) WITHOUT ROWID;
CREATE TABLE groups (name TEXT PRIMARY KEY, generation INTEGER NOT NULL DEFAULT 0) WITHOUT ROWID;
CREATE TABLE members (
    group_name TEXT NOT NULL, member TEXT NOT NULL, joined INTEGER NOT NULL, lease_until INTEGER NOT NULL,
    PRIMARY KEY (group_name, member)
) WITHOUT ROWID;
-- `target` shall have the partition (of every topic of the group), `owner` has it until it lets go.
CREATE TABLE assignment (
    group_name TEXT NOT NULL, partition INTEGER NOT NULL, target TEXT, owner TEXT,
    PRIMARY KEY (group_name, partition)
) WITHOUT ROWID;
"""


class Store:
    """The file in `directory`, created with its schema where it is missing and `create` allows it.

    Raises TransportError where the file is none of ours, or of a newer version, or may not be used.
    """

    def __init__(self, directory: Path, settings: EmbeddedSettings, *, create: bool = True) -> None:
        self.directory = directory
        self._settings = settings
        self._path = directory / _FILE
        # Writers of one process queue here, in order and without the sleeps of SQLite's busy handler.
        self._writing = threading.RLock()
        if not create and not self._path.exists():
            raise TransportError(f"{directory} holds no data of resegment ({_FILE} is missing): check the path")
        try:
            self._initialise()
        except OSError as error:
            raise TransportError(f"cannot use {directory}: {error.strerror}; check the path and permissions") from error

    def connect(self) -> sqlite3.Connection:
        """A connection of one's own. It may be used from any thread, by one at a time."""
        synchronous = self._settings.synchronous.upper()
        try:
            connection = sqlite3.connect(
                self._path,
                timeout=self._settings.busy_timeout / 1000,
                isolation_level=None,
                check_same_thread=False,
                cached_statements=256,
            )
            connection.execute(f"PRAGMA synchronous = {synchronous}")
            # Fewer, larger checkpoints: each one costs syncs of its own. The file is cut back after a burst.
            connection.execute("PRAGMA wal_autocheckpoint = 2000")
            connection.execute("PRAGMA journal_size_limit = 67108864")
        except sqlite3.Error as error:
            raise self.explain(error) from error
        return connection

    @contextmanager
    def transaction(self, connection: sqlite3.Connection) -> Iterator[None]:
        """Everything in the block is committed together, or nothing is.

        Raises UnavailableError where nothing was changed and trying again may help (busy, disk full), FencedError
        where the disk failed during the commit itself and its outcome is in doubt.
        """
        with self._writing:
            with self.errors():
                connection.execute("BEGIN IMMEDIATE")
            try:
                with self.errors():
                    yield
            except BaseException:
                self._rollback(connection)
                raise
            try:
                connection.execute("COMMIT")
            except sqlite3.Error as error:
                self._rollback(connection)
                # Without its last frame, which the full disk refused, the log has no commit: nothing is in doubt.
                if _code(error) in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY):
                    raise self.explain(error) from error
                raise FencedError(f"the disk failed during a commit to {self._path} ({error}): check it") from error
            except BaseException:
                self._rollback(connection)
                raise

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Translate what SQLite raises in the block."""
        try:
            yield
        except sqlite3.Error as error:
            raise self.explain(error) from error

    def explain(self, error: sqlite3.Error) -> TransportError:
        """The error that says what is wrong and what to do."""
        path, code = self._path, _code(error)
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            seconds = self._settings.busy_timeout / 1000
            return UnavailableError(
                f"another process has kept {path} locked for {seconds:g} s; is one of them stopped?"
            )
        if code == sqlite3.SQLITE_FULL:
            return UnavailableError(f"the disk of {path} is full: nothing was written; free some space")
        if code in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN):
            return UnavailableError(f"cannot read or write {path} ({error}): check the disk and the permissions")
        if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH):
            return TransportError(
                f"{path} is read-only for this user ({error}): check the permissions of its directory"
            )
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            return TransportError(
                f"{path} is damaged ({error}): restore it from a backup, or use an empty directory and replay the "
                "events"
            )
        return TransportError(f"{path}: {error}")

    def _initialise(self) -> None:
        if not self.directory.exists():
            # Events are about people: nobody else may read them.
            self.directory.mkdir(mode=0o700, parents=True)
        with (self.directory / "open.lock").open("w") as lock:
            # Switching to WAL does not wait for others as all else does: one opens at a time.
            fcntl.flock(lock, fcntl.LOCK_EX)
            # SQLite gives its side files the permissions of the main one. Never open that one but through SQLite once
            # it exists: closing any handle on a file drops all of this process's POSIX locks on it, and another
            # process could then delete the log under our connections.
            with suppress(FileExistsError):
                os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
            connection = self.connect()
            try:
                with self.errors():
                    self._migrate(connection)
            finally:
                connection.close()

    def _migrate(self, connection: sqlite3.Connection) -> None:
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if application == 0 and version == 0 and tables == 0:
            connection.execute("PRAGMA page_size = 8192")
            connection.execute("PRAGMA journal_mode = WAL")
            with self.transaction(connection):
                for statement in _SCHEMA.split(";\n"):
                    connection.execute(statement)
                connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
                connection.execute(f"PRAGMA user_version = {_SCHEMA_VERSION}")
        elif application != _APPLICATION_ID:
            raise TransportError(f"{self._path} is another program's database: use another directory")
        elif version != _SCHEMA_VERSION:
            raise TransportError(
                f"{self._path} has version {version}, this program reads {_SCHEMA_VERSION}: use the resegment that "
                "wrote it"
            )

    @staticmethod
    def _rollback(connection: sqlite3.Connection) -> None:
        if connection.in_transaction:
            # Where even this fails, SQLite has rolled back by itself or will when the file is next opened.
            with suppress(sqlite3.Error):
                connection.execute("ROLLBACK")


def _code(error: sqlite3.Error) -> int:
    """SQLite's primary result code; the module raises some errors of its own, which have none."""
    return (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF
