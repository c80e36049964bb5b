"""Wall clocks that step: nothing but the times of sweeps can tell, on either transport."""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from producers.shop import ShopSettings
from stream.assembly import Deployment
from stream.transport.base import FencedError
from tests.faults.campaigns import CAMPAIGNS
from tests.faults.deployed import PATIENCE_S, Deployed, embedded_place, kafka_place
from tests.faults.fleet import Fleet
from tests.faults.journal import journal
from tests.faults.oracle import Checked

pytestmark = [pytest.mark.faults, pytest.mark.timeout(0)]

Tell = Callable[[str], None]
DAY_S = 86_400


def test_embedded(fleet: Fleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tell: Tell) -> None:
    """Set forth by days and back by more."""
    at_work = Stepping(fleet, embedded_place(tmp_path / "data"), tmp_path, monkeypatch)
    rng = random.Random(5)
    at_work.now = ShopSettings(days=400).end_ms / 1000
    try:
        for _ in range(60):
            at_work.round()
            at_work.now += rng.choice((60, 3_600, DAY_S, -7_200, -100_000))
        tell(f"clocks that step, embedded: {at_work.finish()}")
    finally:
        at_work.close()


@pytest.mark.kafka
def test_kafka(fleet: Fleet, kafka_bootstrap: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tell: Tell) -> None:
    """Back by days and forth again; and a day ahead, where the broker refuses every commit until the clock is right."""
    at_work = Stepping(fleet, kafka_place(kafka_bootstrap, f"c{uuid.uuid4().hex[:8]}."), tmp_path, monkeypatch)
    rng, right = random.Random(6), at_work.now
    try:
        for _ in range(40):
            at_work.round()
            at_work.now = right + rng.choice((60, 1_800, -7_200, -10 * DAY_S))
        before = at_work.deployed.backlog()
        at_work.now = right + DAY_S
        with pytest.raises(FencedError, match="is this machine's clock right"):
            for _ in range(20):
                at_work.round()
        at_work.now = right
        assert at_work.deployed.backlog() > before, "what was refused has been committed"
        tell(f"clocks that step, on Kafka, and one that is a day ahead: {at_work.finish()}")
    finally:
        at_work.close()


class Stepping:
    """All stages in this process, by a wall clock that is set to `now` (seconds since 1970)."""

    def __init__(self, fleet: Fleet, place: dict[str, Any], directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = time.time()
        settings: dict[str, Any] = {"runner.clock": "wall", "processor.sweep_interval": "1h"}
        self.deployed = Deployed(fleet, place, 2, 23, directory, **settings)
        clock = SimpleNamespace(time=lambda: self.now, monotonic=time.monotonic, perf_counter=time.perf_counter)
        monkeypatch.setattr("stream.runtime.runner.time", clock)
        config = self.deployed.config
        self._transport = journal(config.transport.open(create=False), "stepping")
        self._runners = Deployment(config, self._transport, 2, wall_clock=True, campaigns=CAMPAIGNS).runners

    def round(self) -> None:
        """Some events, and everybody has a turn or two."""
        self.deployed.feed(150)
        for runner in self._runners:
            runner.step(0.02)
            runner.step(0.0)

    def finish(self) -> Checked:
        """Until all is through."""
        deadline = time.monotonic() + PATIENCE_S
        while self.deployed.backlog() or not all(runner.joined() and not runner.behind() for runner in self._runners):
            assert time.monotonic() < deadline, "the stages do not get through"
            for runner in self._runners:
                runner.step(0.02)
        for runner in self._runners:
            runner.abandon()
        return self.deployed.check()

    def close(self) -> None:
        """Leave."""
        for runner in self._runners:
            runner.abandon()
        self._transport.close()
        self.deployed.close()
