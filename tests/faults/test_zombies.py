"""Processes that are stopped at a named point for longer than their time-outs, and wake when others have their work.

The oracle's chain of commits shows whether one of them got a commit through.
"""

from __future__ import annotations

import signal
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from schemas import topics
from tests.faults.deployed import PATIENCE_S, Deployed, embedded_place, kafka_place
from tests.faults.fleet import Fleet, Process

pytestmark = [pytest.mark.faults, pytest.mark.timeout(0)]

Tell = Callable[[str], None]
CUT = ("after_offsets",)


def until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"still waiting for {what}"
        time.sleep(0.05)


def is_stopped(process: Process) -> bool:
    """By a signal."""
    stat = Path(f"/proc/{process.pid}/stat").read_text()
    return stat.rpartition(")")[2].split()[0] == "T"


def committed(deployed: Deployed) -> list[int]:
    return [offset for offset, _ in deployed.committed_and_ends("processor", topics.EVENTS)]


@pytest.mark.kafka
@pytest.mark.parametrize(
    "point", ["after_poll", "in_apply", "after_produce", "after_offsets", "in_commit", "after_commit"]
)
def test_kafka(fleet: Fleet, kills: int, kafka_bootstrap: str, tmp_path: Path, tell: Tell, point: str) -> None:
    if not kills and point not in CUT:
        pytest.skip("only in the whole suite: make faults")
    place = kafka_place(kafka_bootstrap, f"z{uuid.uuid4().hex[:8]}.")
    deployed = Deployed(fleet, place, 3, 5, tmp_path)
    try:
        refused = stop_and_wake(deployed, point)
        if point not in ("in_commit", "after_commit"):  # those may have committed before they were stopped
            assert refused, "it did not even try"
        checked = deployed.finish()
        tell(f"zombie on Kafka, stopped {point}: {'refused' if refused else 'had committed before'}; {checked}")
    finally:
        deployed.close()


@pytest.mark.parametrize("point", ["after_poll", "in_apply"])
def test_embedded(fleet: Fleet, tmp_path: Path, tell: Tell, point: str) -> None:
    """Not within the transaction: there SQLite's lock is held, and everybody waits."""
    deployed = Deployed(fleet, embedded_place(tmp_path / "data"), 3, 5, tmp_path)
    try:
        assert stop_and_wake(deployed, point)
        tell(f"zombie on the embedded transport, stopped {point}: refused; {deployed.finish()}")
    finally:
        deployed.close()


def stop_and_wake(deployed: Deployed, point: str) -> bool:
    """Stop the only processor for long enough to lose its place; whether it was refused after it woke."""
    name = f"z{uuid.uuid4().hex[:6]}"
    deployed.feed(3_000)
    deployed.start("m1", ["modeller"])
    deployed.start("c1", ["campaigns"])
    zombie = deployed.start(name, ["processor"], f"{point}:4:stop")
    until(lambda: zombie.status is None and is_stopped(zombie), f"the zombie to be {point}")
    before = committed(deployed)
    deployed.start("heir", ["processor"])
    deployed.feed(3_000)
    until(lambda: all(now > then for now, then in zip(committed(deployed), before, strict=True)), "the heir")
    deployed.drain_processors()
    deployed.fleet.signal(zombie, signal.SIGCONT)
    deployed.feed(3_000)
    log = deployed.fleet.logs / f"{name}.log"
    if point in ("in_commit", "after_commit"):
        time.sleep(3)
    else:
        until(lambda: "starts over" in log.read_text(), "the zombie to be refused")
    return "starts over" in log.read_text()
