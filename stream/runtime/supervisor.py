"""Child processes that are kept running: restarted with backoff where they end, and stopped together.

Invariant: no child outlives its supervisor. Each has a pipe for its standard input, which closes however the
supervisor ends; `stop_when_orphaned` is the child's side of it.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

log = logging.getLogger(__name__)

STOP_SECONDS = 9.7
"""Children that are not gone by then are killed: a clean stop is over within ten seconds."""
FIRST_DELAY_S, LONGEST_DELAY_S = 0.5, 30.0
STEADY_S = 60.0
"""One that ran for so long is not in a crash loop: its next restart is quick again."""
_LOOK_S = 0.1
_CLEAN = frozenset({0, -signal.SIGTERM, 130})
"""Exit codes after a stop: the last two are of children that were told before they could listen."""


@dataclass(frozen=True, slots=True)
class Command:
    """What to run. `environment` is put over this process's own."""

    name: str
    arguments: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)

    def start(self) -> subprocess.Popen[bytes]:
        """Start it, its standard input a pipe, its other streams ours."""
        environment = {**os.environ, **self.environment}
        # What runs is our own command line.
        return subprocess.Popen(self.arguments, stdin=subprocess.PIPE, env=environment)  # noqa: S603


@dataclass(slots=True)
class _Child:
    command: Command
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    restart_at: float = float("-inf")
    crashes: int = 0


class Supervisor:
    """Runs `commands` until it is told to stop. `clock` gives seconds; `start` is for tests."""

    def __init__(
        self,
        commands: Sequence[Command],
        *,
        clock: Callable[[], float] = time.monotonic,
        start: Callable[[Command], subprocess.Popen[bytes]] = Command.start,
    ) -> None:
        self._children = [_Child(command) for command in commands]
        self._clock = clock
        self._start = start

    def run(self, stop: threading.Event) -> int:
        """Keep them running until `stop` is set, then end them; 1 where one did not end cleanly, else 0."""
        try:
            while not stop.is_set():
                self.look()
                stop.wait(_LOOK_S)
        finally:
            code = self._end()
        return code

    def look(self) -> None:
        """Start those whose time has come; note those that ended."""
        now = self._clock()
        for child in self._children:
            if child.process is None:
                if now >= child.restart_at:
                    child.process, child.started_at = self._start(child.command), now
                    log.info("started %s", child.command.name, extra={"pid": child.process.pid})
            elif (code := child.process.poll()) is not None:
                self._ended(child, code, now)

    def _ended(self, child: _Child, code: int, now: float) -> None:
        if now - child.started_at >= STEADY_S:
            child.crashes = 0
        delay = min(LONGEST_DELAY_S, FIRST_DELAY_S * 2.0**child.crashes)
        child.crashes += 1
        child.process, child.restart_at = None, now + delay
        log.error("%s ended with exit code %d; it is started again in %.1f s", child.command.name, code, delay)

    def _end(self) -> int:
        alive = [child for child in self._children if child.process is not None]
        for child in alive:
            assert child.process is not None
            child.process.send_signal(signal.SIGTERM)
        deadline = self._clock() + STOP_SECONDS
        code = 0
        for child in alive:
            assert child.process is not None
            try:
                ended = child.process.wait(max(0.0, deadline - self._clock()))
            except subprocess.TimeoutExpired:
                log.error("%s did not stop in %.1f s and is killed", child.command.name, STOP_SECONDS)
                child.process.kill()
                ended = child.process.wait()
            if ended not in _CLEAN:
                log.error("%s ended with exit code %d", child.command.name, ended)
                code = 1
        return code


def stop_when_orphaned(stop: threading.Event) -> None:
    """In a child: set `stop` when the supervisor is gone."""

    def watch() -> None:
        # Not the buffered stream: the interpreter wants its lock at exit, and this thread would hold it.
        while os.read(sys.stdin.fileno(), 1024):
            pass
        stop.set()

    threading.Thread(target=watch, name="orphan-watch", daemon=True).start()
