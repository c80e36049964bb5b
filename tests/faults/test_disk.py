"""The embedded transport's disk: a log that lost its tail, a full disk, a slow one."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from schemas import topics
from stream.transport.base import TopicPartition, TransportError
from tests.faults.deployed import Deployed, embedded_place
from tests.faults.fleet import Fleet
from tests.faults.test_zombies import until

pytestmark = [pytest.mark.faults, pytest.mark.timeout(0)]

Tell = Callable[[str], None]


def start(deployed: Deployed) -> None:
    for name, role in (("p1", "processor"), ("p2", "processor"), ("m1", "modeller"), ("c1", "campaigns")):
        deployed.start(f"d-{name}", [role])


def tear(deployed: Deployed, database: Path, rng: random.Random) -> str:
    """What a power cut does to a log that was not synced: its tail is missing, or is not what was written.

    Only what no checkpoint has reached can be lost: SQLite syncs the log before it copies pages from it. How far it did
    says the shared memory (sqlite.org/walformat.html). The files are put aside before our own connection is closed,
    which would copy all the log into the database.
    """
    wal, shared = (Path(f"{database}-{name}").read_bytes() for name in ("wal", "shm"))
    size, last = struct.unpack_from("<H", shared, 14)[0], struct.unpack_from("<I", shared, 16)[0]
    copied = max(struct.unpack_from("<I", shared, at)[0] for at in (96, 128))
    pages = database.read_bytes()
    deployed.transport.close()
    first, end = (32 + frames * (24 + size) for frames in (copied, last))
    told = "nothing to tear"
    if end > first:
        at = rng.randrange(first, end)
        if rng.random() < 0.5:
            wal, told = wal[:at], f"cut {end - at} of {end - first} bytes"
        else:
            garbage = rng.randbytes(min(8192, end - at))
            wal, told = wal[:at] + garbage + wal[at + len(garbage) :], f"garbage in {end - first} bytes"
    for name in ("wal", "shm"):
        Path(f"{database}-{name}").unlink(missing_ok=True)
    database.write_bytes(pages)
    Path(f"{database}-wal").write_bytes(wal)
    return told


def test_a_torn_log(fleet: Fleet, kills: int, tmp_path: Path, tell: Tell) -> None:
    """Everything dies at once and the log's tail is lost: what is left is whole, and the work goes on from there."""
    rng = random.Random(4)
    data = tmp_path / "data"
    deployed = Deployed(fleet, embedded_place(data), 3, 21, tmp_path, customers=1_000 if kills else 250)
    torn: list[str] = []
    rounds = 25 if kills else 2
    try:
        for number in range(rounds):
            start(deployed)
            deadline = time.monotonic() + rng.uniform(1.5, 3)
            while time.monotonic() < deadline or (number == 0 and committed(deployed) < 4_000):
                deployed.keep_fed()
                time.sleep(0.05)
            deployed.kill_all()
            torn.append(tear(deployed, data / "log.sqlite3", rng))
            deployed.reopen()
            if number % 5 == 0:  # what is wrong once stays wrong
                deployed.check()
        start(deployed)
        deployed.feed(500)
        checked = deployed.finish()
        assert whole_source(deployed) == deployed.fed
        done = [each for each in torn if each != "nothing to tear"]
        assert done
        tell(f"torn log, {len(done)} times of {rounds} ({done[-1]}): {checked}")
    finally:
        deployed.close()


def committed(deployed: Deployed) -> int:
    return sum(offset for offset, _ in deployed.committed_and_ends("processor", topics.EVENTS))


def whole_source(deployed: Deployed) -> int:
    """Rows of the shop that are in the events topic; each of them once, for they number as many as the position."""
    return sum(deployed.transport.end_offset(TopicPartition(topics.EVENTS, p)) for p in range(deployed.partitions))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own of 24 MB; it takes the right to mount one."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(place)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("a small file system cannot be mounted here")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def fill(ballast: Path, but: int) -> None:
    """Take all the room there is, but for some bytes; others write meanwhile."""
    with ballast.open("wb", buffering=0) as file:
        while (state := os.statvfs(ballast)).f_bavail * state.f_frsize > but:
            file.write(bytes(65_536))


def test_a_full_disk(fleet: Fleet, small_disk: Path, tmp_path: Path, tell: Tell) -> None:
    """Everybody waits, nobody dies; with room again everything goes on."""
    deployed = Deployed(fleet, embedded_place(small_disk / "data"), 3, 22, tmp_path)
    ballast = small_disk / "ballast"
    try:
        start(deployed)
        deployed.feed(2_000)
        until(lambda: committed(deployed) > 500, "a start")
        fill(ballast, 1_000_000)
        refusals = 0
        while refusals < 5:
            try:
                deployed.feed(500)
            except TransportError as error:
                assert "full" in str(error)
                refusals += 1
                time.sleep(0.4)
        time.sleep(2)
        ballast.unlink()
        deployed.feed(500)
        checked = deployed.finish()
        tell(f"full disk: {checked}")
    finally:
        deployed.close()


def test_a_slow_disk(fleet: Fleet, kills: int, tmp_path: Path, tell: Tell) -> None:
    """Writes wait for seconds, again and again, behind one that does not get done: nothing but time is lost."""
    rng = random.Random(6)
    data = tmp_path / "data"
    deployed = Deployed(fleet, embedded_place(data), 3, 24, tmp_path)
    waits = 0.0
    try:
        start(deployed)
        deadline = time.monotonic() + (60 if kills else 5)
        while time.monotonic() < deadline:
            deployed.keep_fed()
            busy = sqlite3.connect(data / "log.sqlite3", timeout=30, isolation_level=None)
            busy.execute("BEGIN IMMEDIATE")
            seconds = rng.uniform(0.2, 2.0)
            time.sleep(seconds)
            busy.execute("ROLLBACK")
            busy.close()
            waits += seconds
            time.sleep(rng.uniform(0.0, 0.3))
        tell(f"slow disk, {waits:.0f} s of waiting: {deployed.finish()}")
    finally:
        deployed.close()
