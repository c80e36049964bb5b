"""Groups whose members come and go: rolling restarts, storms, and a modeller that another one succeeds."""

from __future__ import annotations

import itertools
import random
import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.deployed import Deployed, embedded_place, kafka_place
from tests.faults.fleet import Fleet
from tests.faults.journal import read_journal
from tests.faults.test_zombies import until

pytestmark = [pytest.mark.faults, pytest.mark.timeout(0)]

Tell = Callable[[str], None]
SILENCE_S = 5.0
"""The bar for a rolling restart."""
TAKE_OVER_S = 30.0


@pytest.fixture
def on_kafka(fleet: Fleet, kafka_bootstrap: str, tmp_path: Path) -> Iterator[Callable[..., Deployed]]:
    made: list[Deployed] = []

    def make(partitions: int, **settings: Any) -> Deployed:
        place = kafka_place(kafka_bootstrap, f"g{uuid.uuid4().hex[:8]}.")
        made.append(Deployed(fleet, place, partitions, 13, tmp_path, **settings))
        return made[-1]

    yield make
    for deployed in made:
        deployed.close()


@pytest.mark.kafka
@pytest.mark.usefixtures("whole")
@pytest.mark.parametrize("static", [False, True], ids=["dynamic", "static"])
def test_a_rolling_restart_stalls_nobody_for_long(on_kafka: Callable[..., Deployed], tell: Tell, static: bool) -> None:
    deployed = on_kafka(6, **{"transport.kafka.session_timeout": 10_000})

    def start(name: str) -> None:
        deployed.start(name, ["processor"], **({"transport.kafka.group_instance_id": name} if static else {}))

    deployed.feed(500)
    for name in ("p1", "p2", "p3"):
        start(name)
    deployed.drain_processors()
    stop = threading.Event()
    feeder = threading.Thread(target=drip, args=(deployed, stop))
    feeder.start()
    try:
        time.sleep(2)
        began = time.time()
        for name in ("p1", "p2", "p3"):
            assert deployed.fleet.stop(deployed.workers[name][0]) == 0
            start(name)
            time.sleep(4)
        ended = time.time()
        time.sleep(1)
    finally:
        stop.set()
        feeder.join()
    silence = {p: longest_silence(deployed, p, began, ended) for p in range(6)}
    members = "static" if static else "dynamic"
    longest = max(silence.values())
    told = f"rolling restart of 3 processors, {members} members: no partition silent for over {longest:.1f} s"
    deployed.start("m1", ["modeller"])
    deployed.start("c1", ["campaigns"])
    tell(f"{told}; {deployed.finish()}")
    assert longest < SILENCE_S, silence


def drip(deployed: Deployed, stop: threading.Event) -> None:
    """Events for every partition, all the time."""
    while not stop.wait(0.1):
        deployed.feed(60)


def longest_silence(deployed: Deployed, partition: int, began: float, ended: float) -> float:
    """Between two commits of one partition, in seconds."""
    times = [entry.at for entry in read_journal(deployed.transport, 6)["processor", partition]]
    around = [at for at in times if began - 1 <= at <= ended + 1]
    return max(later - earlier for earlier, later in itertools.pairwise(around))


@pytest.mark.kafka
@pytest.mark.usefixtures("whole")
@pytest.mark.parametrize("static", [False, True], ids=["dynamic", "static"])
def test_a_storm_of_rebalances(on_kafka: Callable[..., Deployed], tell: Tell, static: bool) -> None:
    """For a minute and a half somebody joins, leaves or dies about twice a second."""
    storm(on_kafka(4), 90.0, random.Random(2), tell, static)


def test_a_storm_on_the_embedded_transport(fleet: Fleet, kills: int, tmp_path: Path, tell: Tell) -> None:
    deployed = Deployed(fleet, embedded_place(tmp_path / "data"), 4, 13, tmp_path, customers=1_000 if kills else 250)
    try:
        storm(deployed, 90.0 if kills else 5.0, random.Random(3), tell, False)
    finally:
        deployed.close()


def storm(deployed: Deployed, seconds: float, rng: random.Random, tell: Tell, static: bool) -> None:
    deployed.start("m1", ["modeller"])
    deployed.start("c1", ["campaigns"])
    names = [f"s{number}" for number in range(5)]
    deadline, comings, goings, deaths = time.monotonic() + seconds, 0, 0, 0
    while time.monotonic() < deadline:
        deployed.keep_fed()
        name = rng.choice(names)
        process = deployed.workers[name][0] if name in deployed.workers else None
        if process is None:
            own = {"transport.kafka.group_instance_id": name} if static else {}
            deployed.start(name, ["processor"], **own)
            comings += 1
        elif rng.random() < 0.5:
            assert deployed.fleet.stop(process) == 0, deployed.fleet.tail(name)
            del deployed.workers[name]
            goings += 1
        else:
            deployed.fleet.kill(process)
            del deployed.workers[name]
            deaths += 1
        time.sleep(rng.uniform(0.1, 0.7))
    if not any(name in deployed.workers for name in names):
        deployed.start("s0", ["processor"])
    checked = deployed.finish()
    told = f"{comings} joined, {goings} left, {deaths} died"
    tell(f"storm on {deployed.kind}{', static' if static else ''}: {told}; {checked}")


@pytest.mark.kafka
@pytest.mark.usefixtures("whole")
def test_a_second_modeller_takes_over(on_kafka: Callable[..., Deployed], fleet: Fleet, tell: Tell) -> None:
    """With the default session timeout. That it carries on as the first would have is the oracle's business."""
    deployed = on_kafka(2, **{"transport.kafka.session_timeout": 10_000, "transport.kafka.transaction_timeout": 10_000})
    first = deployed.start("f1", ["modeller"])
    deployed.start("p1", ["processor"])
    deployed.start("c1", ["campaigns"])
    until(lambda: fed(deployed) and modeller_of(deployed) == "f1", "the first modeller to publish")
    deployed.start("f2", ["modeller"])
    time.sleep(2)
    fleet.signal(first, signal.SIGKILL)
    killed = time.monotonic()
    log = fleet.logs / "f2.log"
    until(lambda: log.exists() and "restoring partition 0" in log.read_text(), "the second modeller to take over")
    seconds = time.monotonic() - killed
    until(lambda: fed(deployed) and modeller_of(deployed) == "f2", "the second modeller to publish")
    del deployed.workers["f1"]
    tell(f"modeller killed: another one had taken over after {seconds:.1f} s; {deployed.finish()}")
    assert seconds < TAKE_OVER_S


def fed(deployed: Deployed) -> bool:
    deployed.keep_fed()
    return True


def modeller_of(deployed: Deployed) -> str | None:
    """Who made the last checkpoint."""
    commits = read_journal(deployed.transport, 1).get(("modeller", 0), [])
    return commits[-1].worker if commits else None
