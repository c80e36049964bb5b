"""Workers as real processes: started, killed, stopped and woken by the tests."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any


@dataclass
class Process:
    """One worker process. `status` is None while it lives; negative for the signal that ended it."""

    name: str
    pid: int
    crash: str | None
    started: float = field(default_factory=time.monotonic)
    status: int | None = None


class Fleet:
    """Forks workers from one zygote; all of them die with it, or with this process."""

    def __init__(self, logs: Path) -> None:
        self.logs = logs
        logs.mkdir(parents=True, exist_ok=True)
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
        self._zygote = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "tests.faults.zygote"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
        )
        self._processes: dict[int, Process] = {}
        self._started: list[int] = []
        self._ended: dict[int, int] = {}
        """Statuses of those that ended before anybody knew their pid."""
        self._changed = threading.Condition()
        threading.Thread(target=self._listen, daemon=True).start()

    def start(self, name: str, roles: list[str], overrides: dict[str, Any], crash: str | None = None) -> Process:
        """Start a worker. `overrides` are the configuration, `crash` a crash point."""
        log = str(self.logs / f"{name}.log")
        self._tell({"start": {"name": name, "roles": roles, "overrides": overrides, "crash": crash, "log": log}})
        with self._changed:
            assert self._changed.wait_for(lambda: self._started, 60), "the zygote does not answer"
            pid = self._started.pop()
            process = self._processes[pid] = Process(name, pid, crash, status=self._ended.pop(pid, None))
        return process

    def signal(self, process: Process, number: signal.Signals) -> None:
        """Send a signal; nothing happens where the process has ended."""
        self._tell({"kill": process.pid, "signal": int(number)})

    def kill(self, process: Process) -> None:
        """SIGKILL, and wait for the end."""
        self.signal(process, signal.SIGKILL)
        self.wait(process)

    def stop(self, process: Process, timeout: float = 30.0) -> int:
        """SIGTERM; returns the exit status."""
        self.signal(process, signal.SIGTERM)
        return self.wait(process, timeout)

    def wait(self, process: Process, timeout: float = 30.0) -> int:
        """Until it has ended; returns the exit status."""
        with self._changed:
            ended = self._changed.wait_for(lambda: process.status is not None, timeout)
        if not ended:
            self.signal(process, signal.SIGUSR1)  # its threads' stacks, into its log
            time.sleep(1)
        assert ended and process.status is not None, f"{process.name} does not end:\n{self.tail(process.name)}"
        return process.status

    def tail(self, name: str, lines: int = 60) -> str:
        """The end of a worker's log."""
        log = self.logs / f"{name}.log"
        return "\n".join(log.read_text(errors="replace").splitlines()[-lines:]) if log.exists() else "(no log)"

    def close(self) -> None:
        """Kill all workers."""
        assert self._zygote.stdin is not None
        self._zygote.stdin.close()
        self._zygote.wait(10)

    def __enter__(self) -> Fleet:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _tell(self, command: dict[str, Any]) -> None:
        assert self._zygote.stdin is not None
        self._zygote.stdin.write(json.dumps(command).encode() + b"\n")
        self._zygote.stdin.flush()

    def _listen(self) -> None:
        assert self._zygote.stdout is not None
        for line in self._zygote.stdout:
            said = json.loads(line)
            with self._changed:
                if "started" in said:
                    self._started.append(said["started"])
                elif (process := self._processes.pop(said["ended"], None)) is not None:
                    process.status = said["status"]
                else:
                    self._ended[said["ended"]] = said["status"]
                self._changed.notify_all()
