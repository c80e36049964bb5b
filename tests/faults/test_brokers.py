"""Brokers that are restarted, killed, stopped and lost; the workers live through it and lose nothing."""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from schemas import topics
from tests.faults.deployed import Deployed, kafka_place
from tests.faults.fleet import Fleet
from tests.faults.test_zombies import until
from tests.kafka.broker import Broker, Cluster
from tests.kafka.jars import CACHE

pytestmark = [pytest.mark.faults, pytest.mark.kafka, pytest.mark.timeout(0)]

Tell = Callable[[str], None]
AWAY_S = 6.0


@pytest.fixture
def cluster(request: pytest.FixtureRequest, kafka_jars: str) -> Iterator[Cluster]:
    """Of as many brokers as the test asks for. A single one has its controller beside it: see tests/kafka/broker.py."""
    place, alone = CACHE / f"faults-{uuid.uuid4().hex[:8]}", request.param == 1
    with Cluster(place, brokers=request.param, separate_controller=alone) as made:
        yield made


def at_work(fleet: Fleet, cluster: Cluster, directory: Path) -> Deployed:
    deployed = Deployed(fleet, kafka_place(cluster.bootstrap, "b."), 4, 9, directory)
    for name, role in (("p1", "processor"), ("p2", "processor"), ("m1", "modeller"), ("c1", "campaigns")):
        deployed.start(f"b-{name}", [role])
    make_progress(deployed)
    return deployed


def make_progress(deployed: Deployed) -> float:
    """Until something new is committed; returns how long that took."""
    before, started = committed(deployed), time.monotonic()

    def moved() -> bool:
        deployed.keep_fed()
        return committed(deployed) > before

    until(moved, "progress")
    return time.monotonic() - started


def committed(deployed: Deployed) -> int:
    try:
        return sum(offset for offset, _ in deployed.committed_and_ends("processor", topics.EVENTS))
    except Exception:
        return 0


def restart_cleanly(broker: Broker) -> None:
    broker.stop()
    broker.start()


def kill(broker: Broker) -> None:
    broker.kill()
    broker.start()


def stop_for_a_while(broker: Broker) -> None:
    broker.pause()
    time.sleep(AWAY_S)
    broker.unpause()


@pytest.mark.parametrize("cluster", [1], indirect=True)
def test_the_only_broker(fleet: Fleet, kills: int, cluster: Cluster, tmp_path: Path, tell: Tell) -> None:
    deployed = at_work(fleet, cluster, tmp_path)
    rng = random.Random(1)
    try:
        for fault in (restart_cleanly, kill, stop_for_a_while) * 3 if kills else (kill,):
            (broker,) = cluster.brokers
            time.sleep(rng.uniform(0, 1))
            fault(broker)
            cluster.wait()
            tell(f"broker, {fault.__name__}: the next commit {make_progress(deployed):.1f} s after it served again")
        tell(f"the only broker broken: {deployed.finish()}")
    finally:
        deployed.close()


@pytest.mark.usefixtures("whole")
@pytest.mark.parametrize("cluster", [3], indirect=True)
def test_one_of_three(fleet: Fleet, cluster: Cluster, tmp_path: Path, tell: Tell) -> None:
    """Each in turn, so that the coordinators of groups and transactions and the leaders of all topics move."""
    deployed = at_work(fleet, cluster, tmp_path)
    longest = 0.0
    try:
        for broker in cluster.brokers * 2:
            broker.kill()
            longest = max(longest, make_progress(deployed))
            time.sleep(AWAY_S)
            make_progress(deployed)
            broker.start()
            cluster.wait()
            make_progress(deployed)
        tell(f"one of three brokers lost, six times: at most {longest:.1f} s to the next commit; {deployed.finish()}")
    finally:
        deployed.close()
