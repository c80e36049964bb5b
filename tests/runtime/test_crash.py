"""Crash points: they strike where and when they are told to, and otherwise not at all."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from stream.config import load
from stream.runtime import crash

REACH = (
    "from stream.runtime import crash\nfor n in range(1, 6):\n    print(n, flush=True)\n    crash.reach('after_poll')\n"
)


def run(point: str, code: str = REACH) -> subprocess.Popen[str]:
    environment = {**os.environ, crash.VARIABLE: point}
    return subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True)


def test_it_kills_at_the_nth_time() -> None:
    process = run("after_poll:3")
    assert process.communicate()[0] == "1\n2\n3\n"
    assert process.returncode == -signal.SIGKILL


def test_it_stops_and_the_process_may_go_on() -> None:
    process = run("after_poll:2:stop")
    _, status = os.waitpid(process.pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status)
    os.kill(process.pid, signal.SIGCONT)
    assert process.communicate()[0] == "1\n2\n3\n4\n5\n"
    assert process.returncode == 0


def test_other_points_are_passed() -> None:
    process = run("in_apply")
    assert process.communicate()[0] == "1\n2\n3\n4\n5\n"
    assert process.returncode == 0


def test_in_commit_strikes_a_moment_later() -> None:
    code = (
        "import time\nfrom stream.runtime import crash\ncrash.reach('in_commit')\nprint(1, flush=True)\ntime.sleep(9)"
    )
    process = run("in_commit", code)
    process.communicate()
    assert process.returncode == -signal.SIGKILL


@pytest.mark.parametrize("text", ["nowhere", "after_poll:x", "after_poll:1:explode", ""])
def test_what_is_no_crash_point_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"RESEGMENT_CRASH_POINT=.* write NAME\[:N\[:stop\]\]"):
        crash.arm(text)


def test_unset_it_is_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    crash.arm(None)
    crash.reach("after_poll")
    monkeypatch.setenv(crash.VARIABLE, "after_poll")
    load()  # it is no setting, and no unknown one


def test_every_point_is_somewhere_in_the_program() -> None:
    root = Path(crash.__file__).parents[1]
    text = "".join(path.read_text() for path in root.rglob("*.py"))
    assert set(re.findall(r'crash\.reach\("(\w+)"\)', text)) == set(crash.POINTS)
