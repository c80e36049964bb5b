"""What a worker process does: the stages of its roles, as `resegment run` runs them, with a journal."""

from __future__ import annotations

import faulthandler
import logging
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from stream.assembly import Deployment, Role
from stream.config import load
from stream.runtime import changelog, crash
from stream.runtime.runner import Runner
from stream.runtime.signals import stop_on_signals
from stream.transport.base import TransportError
from stream.transport.embedded import EmbeddedTransport
from tests.faults.campaigns import CAMPAIGNS
from tests.faults.journal import journal


def work(name: str, roles: list[Role], overrides: dict[str, Any], crash_point: str | None, log: Path) -> int:
    """Until SIGTERM; the exit code is 1 where a stage died."""
    with stop_on_signals() as stop:
        return _work(name, roles, overrides, crash_point, log, stop)


def _work(
    name: str, roles: list[Role], overrides: dict[str, Any], crash_point: str | None, log: Path, stop: threading.Event
) -> int:
    _redirect(log)
    faulthandler.register(signal.SIGUSR1)  # what a worker does that does not end
    os.chdir(log.parent)  # relative paths of log sinks
    crash.arm(crash_point)
    changelog.TRIM_BYTES = 10_000  # as often with few users as with many
    config = load(None, overrides)
    logging.basicConfig(level=logging.INFO, format=f"%(asctime)s {name} %(name)s %(levelname)s %(message)s")
    logging.getLogger("kafka").setLevel(logging.ERROR)
    transport = journal(config.transport.open(create=False), name)
    if crash_point is not None and crash_point.endswith(":stop") and isinstance(transport, EmbeddedTransport):
        _stop_between_transactions(transport)
    campaigns = CAMPAIGNS
    wall_clock = config.runner.clock == "wall"
    while True:
        try:
            partitions = transport.partitions(config.topics.events[0])
            break
        except TransportError:
            if stop.wait(0.5):
                return 0
    deployment = Deployment(config, transport, partitions, roles, wall_clock=wall_clock, campaigns=campaigns)
    died: list[str] = []

    def run(runner: Runner) -> None:
        try:
            runner.run(stop, poll_timeout=config.runner.poll_timeout / 1000)
        except Exception:
            logging.exception("stage %s cannot go on", runner.stage.name)
            died.append(runner.stage.name)
            stop.set()

    threads = [threading.Thread(target=run, args=(runner,), daemon=True) for runner in deployment.runners]
    for thread in threads:
        thread.start()
    stop.wait()
    for thread in threads:
        thread.join(15)
    hung = [thread for thread in threads if thread.is_alive()]
    return 1 if died or hung else 0


def _stop_between_transactions(transport: EmbeddedTransport) -> None:
    """Let no thread be in a transaction while another gets to a crash point: a process that is stopped in one, be it
    a trim, keeps SQLite's lock, and nobody takes its place."""
    armed = crash.reach

    def reach(point: str) -> None:
        with transport._store._writing:
            armed(point)

    crash.reach = reach


def _redirect(log: Path) -> None:
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(handle, sys.stdout.fileno())
    os.dup2(handle, sys.stderr.fileno())
    os.close(handle)
