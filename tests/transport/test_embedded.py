"""The embedded transport beyond what all transports do: the disk, several processes, and being killed."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from schemas.topics import TopicSpec
from stream.transport import embedded_log
from stream.transport.base import FencedError, OutRecord, TopicPartition, Transport, TransportError, UnavailableError
from stream.transport.embedded import EmbeddedTransport, SourceOffset, _shares
from stream.transport.settings import EmbeddedSettings
from tests.transport.drive import (
    CHANGES,
    EVENTS,
    LATEST,
    SINGLE,
    SPECS,
    acquire,
    flat,
    numbered,
    read_all,
    take,
    values,
)
from tests.transport.worker import SOURCE

ONLY = TopicPartition(SINGLE, 0)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "new" / "data"


@pytest.fixture
def transport(directory: Path) -> Iterator[EmbeddedTransport]:
    made = EmbeddedTransport(directory)
    made.create_topics(SPECS, 4)
    yield made
    made.close()


# Killed


def start(role: str, directory: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", "tests.transport.worker", role, str(directory)])


def check_whole(directory: Path) -> int:
    """The database is intact, the source was taken in once, every event has at most one output, in order; how many."""
    with sqlite3.connect(directory / "log.sqlite3") as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    transport = EmbeddedTransport(directory)
    try:
        taken_in = transport.committed("import", SOURCE) or 0
        assert sorted(int(value) for value in values(read_all(transport, EVENTS))) == list(range(taken_in))
        outputs = 0
        for partition in range(4):
            committed = transport.committed("g", TopicPartition(EVENTS, partition)) or 0
            expected = [b"events/%d/%d" % (partition, offset) for offset in range(committed)]
            assert values(list(transport.read(TopicPartition(CHANGES, partition), 0))) == expected
            outputs += committed
        return outputs
    finally:
        transport.close()


@pytest.mark.parametrize("seed", range(2))
def test_killed_at_random_moments_it_is_whole_and_goes_on(directory: Path, transport: Transport, seed: int) -> None:
    generator = random.Random(seed)
    progress = [0]
    workers = {role: start(role, directory) for role in ("import", "process")}
    try:
        for _ in range(3):
            deadline = time.monotonic() + 30
            while (end := sum(transport.end_offset(TopicPartition(CHANGES, p)) for p in range(4))) <= progress[
                -1
            ] + 500:
                assert time.monotonic() < deadline, f"no progress beyond {end}"
                time.sleep(0.01)
            time.sleep(generator.uniform(0, 0.05))
            for role in generator.sample(sorted(workers), generator.choice((1, 2))):
                workers[role].send_signal(signal.SIGKILL)
                workers[role].wait()
                workers[role] = start(role, directory)
            progress.append(end)
    finally:
        for worker in workers.values():
            worker.kill()
            worker.wait()
    assert check_whole(directory) > 1500
    # Its place is free at once, not after its lease.
    session = transport.session("g", [EVENTS])
    before = time.monotonic()
    assert len(acquire(session)) == 4
    assert time.monotonic() - before < 5
    session.close()


def test_two_processes_share_one_directory(directory: Path, transport: Transport) -> None:
    transport.produce(numbered(EVENTS, 3000))
    workers = [start("process", directory) for _ in range(2)]
    try:
        deadline = time.monotonic() + 30
        while sum(transport.end_offset(TopicPartition(CHANGES, partition)) for partition in range(4)) < 3000:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
    for partition in range(4):
        expected = [
            b"events/%d/%d" % (partition, record.offset)
            for record in transport.read(TopicPartition(EVENTS, partition), 0)
        ]
        assert values(list(transport.read(TopicPartition(CHANGES, partition), 0))) == expected


def test_another_object_on_the_directory_does_not_break_the_first(
    directory: Path, transport: EmbeddedTransport
) -> None:
    """Opening and closing the file by hand would drop this process's locks: then the next process that closes
    believes that it is the last, and deletes the log that our connections have open."""
    transport.produce(numbered(SINGLE, 3))
    EmbeddedTransport(directory).close()
    looks = "import sys; from stream.transport.embedded import *; EmbeddedTransport(Path(sys.argv[1])).close()"
    subprocess.run([sys.executable, "-c", looks, str(directory)], check=True)
    transport.produce(numbered(SINGLE, 3, first=3))
    count = "print(len(list(EmbeddedTransport(Path(sys.argv[1])).read(TopicPartition('single', 0), 0))))"
    run = subprocess.run([sys.executable, "-c", f"{looks}; {count}", str(directory)], capture_output=True, check=True)
    assert run.stdout == b"6\n"
    assert len(read_all(transport, SINGLE)) == 6


# Imports


def test_a_source_is_taken_in_where_it_stopped(transport: EmbeddedTransport, directory: Path) -> None:
    transport.produce(numbered(SINGLE, 5), source=SourceOffset("import", SOURCE, None, 5))
    again = EmbeddedTransport(directory)
    assert again.committed("import", SOURCE) == 5
    again.produce(numbered(SINGLE, 2, first=5), source=SourceOffset("import", SOURCE, 5, 7))
    # The position alone may move too: rows that make no event.
    again.produce([], source=SourceOffset("import", SOURCE, 7, 9))
    assert again.committed("import", SOURCE) == 9
    assert values(read_all(transport, SINGLE)) == [b"%d" % number for number in range(7)]
    again.close()


@pytest.mark.parametrize("before", [None, 0, 4])
def test_two_imports_of_one_source_do_not_mix(transport: EmbeddedTransport, before: int | None) -> None:
    transport.produce(numbered(SINGLE, 5), source=SourceOffset("import", SOURCE, None, 5))
    with pytest.raises(FencedError, match="imported twice at once"):
        transport.produce(numbered(SINGLE, 5, first=5), source=SourceOffset("import", SOURCE, before, 10))
    assert transport.committed("import", SOURCE) == 5
    assert len(read_all(transport, SINGLE)) == 5


def test_produce_is_atomic(transport: EmbeddedTransport) -> None:
    def records() -> Iterator[OutRecord]:
        yield from numbered(EVENTS, 20_000)
        raise RuntimeError("the source broke")

    with pytest.raises(RuntimeError, match="broke"):
        transport.produce(records())
    assert read_all(transport, EVENTS) == []
    assert transport.produce(iter(numbered(EVENTS, 20_000))) == 20_000
    assert sorted(int(value) for value in values(read_all(transport, EVENTS))) == list(range(20_000))


# Disks


def limit_pages(connection: sqlite3.Connection, more: int) -> None:
    """From here on the file may grow by so many pages: SQLite then answers as it does on a full disk."""
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    connection.execute(f"PRAGMA max_page_count = {pages + more}")


def noise(count: int) -> list[OutRecord]:
    generator = random.Random(1)
    return [OutRecord(SINGLE, b"k", generator.randbytes(100_000)) for _ in range(count)]


def test_a_full_disk_stops_it_and_nothing_is_lost(transport: EmbeddedTransport) -> None:
    transport.produce(numbered(EVENTS, 10))
    session = transport.session("g", [EVENTS])
    polled = take(session, 10)
    offsets = {where: records[-1].offset + 1 for where, records in polled.items()}
    for connection in (session._connection, transport._connection):
        limit_pages(connection, 5)
    with pytest.raises(UnavailableError, match="full: nothing was written; free some space"):
        session.commit(offsets, noise(3))
    with pytest.raises(UnavailableError, match="full"):
        transport.produce(noise(3))
    assert read_all(transport, SINGLE) == []
    assert transport.committed("g", next(iter(offsets))) is None
    # Space comes back, and the same commit goes through: the session has lost nothing.
    for connection in (session._connection, transport._connection):
        connection.execute("PRAGMA max_page_count = 1000000")
    session.commit(offsets, noise(3))
    assert len(read_all(transport, SINGLE)) == 3
    assert transport.committed("g", next(iter(offsets))) == offsets[next(iter(offsets))]
    session.close()


IN_DOUBT = """
import resource, signal, sys
from pathlib import Path
from stream.transport.base import FencedError
from stream.transport.embedded import EmbeddedTransport
from tests.transport.test_embedded import noise
transport = EmbeddedTransport(Path(sys.argv[1]))
transport.produce(noise(1))
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000))
try:
    transport.produce(noise(10))
except FencedError as error:
    print("in doubt:", error)
"""


def test_a_disk_that_fails_in_the_commit_leaves_it_in_doubt(transport: EmbeddedTransport, directory: Path) -> None:
    run = subprocess.run([sys.executable, "-c", IN_DOUBT, str(directory)], capture_output=True, text=True, check=False)
    assert run.stdout.startswith("in doubt: the disk failed during a commit"), run.stdout + run.stderr
    # As it turns out, all or nothing.
    assert len(read_all(transport, SINGLE)) in (1, 11)


def test_a_read_only_database_is_named(transport: EmbeddedTransport) -> None:
    transport._connection.execute("PRAGMA query_only = ON")
    with pytest.raises(TransportError, match=r"log\.sqlite3 is read-only") as caught:
        transport.produce(numbered(SINGLE, 1))
    assert not isinstance(caught.value, UnavailableError)
    transport._connection.execute("PRAGMA query_only = OFF")
    assert transport.produce(numbered(SINGLE, 1)) == 1


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_directory_that_may_not_be_written(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(TransportError, match="check the path and permissions"):
        EmbeddedTransport(tmp_path / "data")


def test_another_program_that_keeps_it_locked_is_named(transport: EmbeddedTransport, directory: Path) -> None:
    impatient = EmbeddedTransport(directory, EmbeddedSettings(busy_timeout=100))
    with sqlite3.connect(directory / "log.sqlite3", isolation_level=None) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(UnavailableError, match=r"locked for 0\.1 s"):
            impatient.produce(numbered(SINGLE, 1))
        other.execute("ROLLBACK")
    assert impatient.produce(numbered(SINGLE, 1)) == 1
    impatient.close()


def test_a_file_that_is_no_database_is_refused(directory: Path) -> None:
    directory.mkdir(parents=True)
    (directory / "log.sqlite3").write_bytes(b"not a database at all" * 1000)
    with pytest.raises(TransportError, match="damaged"):
        EmbeddedTransport(directory)


def test_another_programs_database_is_refused(directory: Path) -> None:
    directory.mkdir(parents=True)
    with sqlite3.connect(directory / "log.sqlite3") as connection:
        connection.execute("CREATE TABLE theirs (x)")
    with pytest.raises(TransportError, match="another program's database"):
        EmbeddedTransport(directory)


def test_a_newer_version_is_refused(transport: EmbeddedTransport, directory: Path) -> None:
    transport._connection.execute("PRAGMA user_version = 99")
    with pytest.raises(TransportError, match="version 99"):
        EmbeddedTransport(directory)


def test_a_damaged_block_is_named_and_no_record_of_it_is_read(transport: EmbeddedTransport) -> None:
    transport.produce(numbered(SINGLE, 100))
    transport.produce(numbered(SINGLE, 100, first=100))
    (payload,) = transport._connection.execute("SELECT payload FROM blocks WHERE base_offset = 100").fetchone()
    broken = payload[:-1] + bytes([payload[-1] ^ 1])
    transport._connection.execute("UPDATE blocks SET payload = ? WHERE base_offset = 100", (broken,))
    read: list[int] = []
    with pytest.raises(TransportError, match=r"single/0 is damaged at offset 100 .*checksum"):
        read.extend(record.offset for record in transport.read(ONLY, 0))
    assert read == list(range(100))


def test_nothing_is_created_where_only_looking_is_meant(tmp_path: Path) -> None:
    with pytest.raises(TransportError, match="holds no data"):
        EmbeddedTransport(tmp_path / "nowhere", create=False)
    assert list(tmp_path.iterdir()) == []


def test_nobody_else_may_read_the_events(transport: EmbeddedTransport, directory: Path) -> None:
    transport.produce(numbered(SINGLE, 1))
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    for file in directory.glob("log.sqlite3*"):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file


# Keeping and forgetting


def test_old_blocks_expire_by_the_time_of_their_append(
    transport: EmbeddedTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    day = 86_400_000
    now = time.time_ns() // 1_000_000
    clock = {"now": now - 9 * day}
    monkeypatch.setattr("stream.transport.embedded._wall_ms", lambda: clock["now"])
    transport.create_topics([TopicSpec("for ever", 1, retention_ms=None)], 4)
    old = [OutRecord(topic, b"k", b"old", timestamp=now) for topic in (SINGLE, "for ever")]
    transport.produce(old)
    transport.produce(old)
    clock["now"] = now
    transport._log._next_expiry = 0.0
    # The records' own time does not count: a replay of last year's events is as old as the replay.
    transport.produce([OutRecord(SINGLE, b"k", b"new", timestamp=now - 400 * day)])
    assert values(read_all(transport, SINGLE)) == [b"new"]
    assert transport.start_offset(ONLY) == 2
    assert values(read_all(transport, "for ever")) == [b"old", b"old"]
    transport._log._next_expiry = 0.0
    clock["now"] = now + 8 * day
    transport.produce([OutRecord(EVENTS, b"k", b"other")])
    assert read_all(transport, SINGLE) == []
    assert transport.start_offset(ONLY) == transport.end_offset(ONLY) == 3


def test_tombstones_stay_a_day_for_followers(transport: EmbeddedTransport, monkeypatch: pytest.MonkeyPatch) -> None:
    where = TopicPartition(LATEST, 0)
    transport.produce(
        [OutRecord(LATEST, b"k", b"v", 0), OutRecord(LATEST, b"k", None, 0), OutRecord(LATEST, b"l", b"v", 0)]
    )
    assert [(r.key, r.value, r.offset) for r in transport.read(where, 0)] == [(b"k", None, 1), (b"l", b"v", 2)]
    now = time.time_ns() // 1_000_000
    monkeypatch.setattr("stream.transport.embedded._wall_ms", lambda: now + 90_000_000)
    transport._log._next_expiry = 0.0
    transport.produce(numbered(SINGLE, 1))
    assert [(r.key, r.value) for r in transport.read(where, 0)] == [(b"l", b"v")]
    assert transport.end_offset(where) == 3


def test_a_compacted_topic_is_read_as_it_was(transport: EmbeddedTransport) -> None:
    where = TopicPartition(LATEST, 0)
    count = 5000
    transport.produce([OutRecord(LATEST, b"%d" % number, b"old", 0) for number in range(count)])
    reading = transport.read(where, 0)
    first = next(reading)
    # Every row moves beyond the end that the reader was promised; it sees them all the same.
    transport.produce([OutRecord(LATEST, b"%d" % number, b"new", 0) for number in range(count)])
    rest = list(reading)
    assert {record.key for record in [first, *rest]} == {b"%d" % number for number in range(count)}
    assert {record.value for record in [first, *rest]} == {b"old"}
    assert {record.value for record in transport.read(where, 0)} == {b"new"}


def test_large_appends_are_split_into_blocks_of_bearable_size(
    transport: EmbeddedTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded_log, "_BLOCK_BYTES", 250_000)
    monkeypatch.setattr(embedded_log, "_BLOCK_RECORDS", 7)
    sent = noise(20)
    transport.produce(sent)
    assert values(list(transport.read(ONLY, 0))) == [record.value for record in sent]
    assert values(list(transport.read(ONLY, 3, 17))) == [record.value for record in sent[3:17]]
    (most,) = transport._connection.execute("SELECT max(count) FROM blocks").fetchone()
    assert 1 <= most <= 2
    session = transport.session("g", [SINGLE])
    assert values(flat(take(session, 20, max_records=3))) == [record.value for record in sent]
    session.close()


# Determinism


def test_the_same_topics_are_polled_in_the_same_batches(tmp_path: Path) -> None:
    def batches(directory: Path) -> list[list[tuple[TopicPartition, list[int]]]]:
        transport = EmbeddedTransport(directory)
        transport.create_topics(SPECS, 4)
        for first in range(0, 1000, 90):
            transport.produce(numbered(EVENTS, 90, first=first))
        session = transport.session("g", [EVENTS])
        polled: list[list[tuple[TopicPartition, list[int]]]] = []
        while len(polled) < 30:
            poll = session.poll(37, 0)
            session.resume(poll.assigned)
            if poll.records:
                assert list(poll.records) == sorted(poll.records)
                polled.append([(where, [r.offset for r in records]) for where, records in poll.records.items()])
        session.close()
        transport.close()
        return polled

    assert batches(tmp_path / "one") == batches(tmp_path / "two")


@pytest.mark.parametrize("total", [1, 2, 3, 10, 100, 1000])
@pytest.mark.parametrize("lags", [[1], [5, 5], [1, 100, 3], [0, 7], [2, 2, 2, 2, 2]])
def test_shares_are_fair_complete_and_within_what_there_is(lags: list[int], total: int) -> None:
    wanted = {TopicPartition("t", number): lag for number, lag in enumerate(lags)}
    for turn in range(5):
        shares = _shares(wanted, total, turn)
        assert sum(shares.values()) == min(total, sum(lags))
        assert all(0 < share <= wanted[where] for where, share in shares.items())
        # Who has data left got no less, but for one, than anybody else.
        for where, lag in wanted.items():
            if shares.get(where, 0) < lag:
                assert shares.get(where, 0) >= max(shares.values()) - 1
    if total < len([lag for lag in lags if lag]):
        seen = {where for turn in range(len(lags)) for where in _shares(wanted, total, turn)}
        assert seen == {where for where, lag in wanted.items() if lag}
