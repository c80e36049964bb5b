"""A process that is stopped past its time, and wakes when another has its partitions, changes nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from tests.transport.drive import CHANGES, EVENTS, Place, flat, numbered, read_all, until, values

pytestmark = pytest.mark.faults


def test_stopped_past_its_time_and_woken(place: Place) -> None:
    transport = place.open(evict_ms=2_000)
    transport.produce(numbered(EVENTS, 20))
    zombie = subprocess.Popen(
        [sys.executable, "-m", "tests.transport.worker", "zombie", place.kind, place.address],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert zombie.stdin is not None and zombie.stdout is not None
    try:
        assert zombie.stdout.readline() == "polled\n"
        os.kill(zombie.pid, signal.SIGSTOP)
        other = place.member(transport, commits=True)
        until(lambda: len(flat(other.records)) == 20, "the other to read everything")
        until(lambda: len(read_all(transport, CHANGES)) == 20, "the other to commit everything")
        os.kill(zombie.pid, signal.SIGCONT)
        zombie.stdin.write("\n")
        zombie.stdin.flush()
        assert zombie.stdout.readline() == "fenced\n"
    finally:
        zombie.kill()
        zombie.wait()
    assert b"from the dead" not in values(read_all(transport, CHANGES))
    assert other.error is None
