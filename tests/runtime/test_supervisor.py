"""Children that crash, hang, stop and lose their supervisor: real processes, and a fake clock for the backoff."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from stream.runtime import supervisor
from stream.runtime.supervisor import FIRST_DELAY_S, LONGEST_DELAY_S, STEADY_S, Command, Supervisor

WAITS = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit({code}))
open({file!r}, 'a').write('x')
time.sleep(60)
"""


class Dead:
    """A process that has ended."""

    pid = 1

    def poll(self) -> int:
        return 7


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


def test_restarts_come_ever_later_and_are_quick_again_after_a_steady_time() -> None:
    clock, starts = Clock(), list[float]()

    def start(command: Command) -> subprocess.Popen[bytes]:
        starts.append(clock.now)
        return Dead()  # type: ignore[return-value]

    watched = Supervisor([Command("child", [])], clock=clock, start=start)
    while len(starts) < 12:
        watched.look()
        clock.now += 0.01
    gaps = [b - a for a, b in pairwise(starts)]
    wanted = [min(LONGEST_DELAY_S, FIRST_DELAY_S * 2**n) for n in range(len(gaps))]
    assert gaps == pytest.approx(wanted, abs=0.05)

    clock.now += STEADY_S  # this one lives that long before its death is seen
    watched.look()
    clock.now += FIRST_DELAY_S
    watched.look()
    assert len(starts) == 13


def test_all_are_started_restarted_and_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "FIRST_DELAY_S", 0.05)
    files = [tmp_path / name for name in "ab"]
    commands = [Command(file.name, [sys.executable, "-c", WAITS.format(code=0, file=str(file))]) for file in files]
    seen: list[subprocess.Popen[bytes]] = []

    def start(command: Command) -> subprocess.Popen[bytes]:
        seen.append(command.start())
        return seen[-1]

    stop, codes = threading.Event(), list[int]()
    running = threading.Thread(target=lambda: codes.append(Supervisor(commands, start=start).run(stop)))
    running.start()
    until(lambda: all(file.exists() for file in files))
    seen[0].kill()
    until(lambda: files[0].read_text() == "xx")
    assert files[1].read_text() == "x", "the other one goes on"
    stop.set()
    running.join(20)
    assert codes == [0]
    assert [process.poll() for process in seen] == [-signal.SIGKILL, 0, 0]


def test_the_exit_code_tells_of_a_child_that_did_not_stop_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "STOP_SECONDS", 0.5)
    stuck = WAITS.format(code="(time.sleep(60), 0)[1]", file=str(tmp_path / "stuck"))
    for name, program in {"bad": WAITS.format(code=3, file=str(tmp_path / "bad")), "stuck": stuck}.items():
        stop, codes = threading.Event(), list[int]()
        watched = Supervisor([Command(name, [sys.executable, "-c", program])])
        running = threading.Thread(
            target=lambda watched=watched, stop=stop, codes=codes: codes.append(watched.run(stop))
        )
        running.start()
        until((tmp_path / name).exists)
        stop.set()
        running.join(20)
        assert codes == [1]


def test_a_child_stops_when_its_supervisor_is_killed(tmp_path: Path) -> None:
    file = tmp_path / "ended"
    child = (
        "import threading\nfrom stream.runtime.supervisor import stop_when_orphaned\nstop = threading.Event()\n"
        f"stop_when_orphaned(stop)\nopen({str(tmp_path / 'up')!r}, 'w')\nstop.wait(60)\nopen({str(file)!r}, 'w')"
    )
    parent = (
        "import sys, threading\nfrom stream.runtime.supervisor import Command, Supervisor\n"
        f"Supervisor([Command('child', [sys.executable, '-c', {child!r}])]).run(threading.Event())"
    )
    process = subprocess.Popen([sys.executable, "-c", parent])
    until((tmp_path / "up").exists)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    until(file.exists)
