"""A process that has imported everything and forks a worker in milliseconds: a kill costs no second of imports.

It takes a JSON object a line ({"start": {...}} or {"kill": pid, "signal": n}) and answers {"started": pid} and
{"ended": pid, "status": code, negative for a signal}. It signals its own children only, before it has reaped them, so
that no recycled pid is ever hit; it kills all of them when its standard input ends.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import sys
import traceback
from pathlib import Path

import stream.segments.modeller  # River costs seconds
import stream.transport.kafka  # noqa: F401
from tests.faults.worker import work


def main() -> None:
    children: set[int] = set()
    wake, waker = os.pipe()
    os.set_blocking(wake, False)
    os.set_blocking(waker, False)
    signal.set_wakeup_fd(waker)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    selector = selectors.DefaultSelector()
    selector.register(0, selectors.EVENT_READ)
    selector.register(wake, selectors.EVENT_READ)
    buffer = b""
    while True:
        for key, _ in selector.select():
            if key.fd == wake:
                with contextlib.suppress(BlockingIOError):
                    os.read(wake, 4096)
                _reap(children)
                continue
            data = os.read(0, 65536)
            if not data:
                for pid in children:
                    os.kill(pid, signal.SIGKILL)
                return
            *lines, buffer = (buffer + data).split(b"\n")
            for line in lines:
                _obey(json.loads(line), children)


def _obey(command: dict[str, object], children: set[int]) -> None:
    if "kill" in command:
        pid = int(str(command["kill"]))
        if pid in children:
            os.kill(pid, int(str(command["signal"])))
        return
    pid = os.fork()
    if pid == 0:
        _become(command["start"])
    children.add(pid)
    _say({"started": pid})


def _become(spec: object) -> None:
    """The child never returns."""
    code = 1
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        assert isinstance(spec, dict)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        code = work(spec["name"], spec["roles"], spec["overrides"], spec["crash"], Path(spec["log"]))
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def _reap(children: set[int]) -> None:
    while children:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        children.discard(pid)
        _say({"ended": pid, "status": os.waitstatus_to_exitcode(status)})


def _say(message: dict[str, int]) -> None:
    os.write(1, json.dumps(message).encode() + b"\n")


if __name__ == "__main__":
    main()
