"""The whole chain on a real Kafka: the same features as embedded, a clean stop, and the command line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from producers.pusher import Pusher
from producers.shop import Shop, ShopSettings
from schemas import topics
from schemas.change import SegmentChange
from stream.assembly import Deployment
from stream.config import Config, load
from stream.replay import Replay
from stream.runtime.changelog import Changelog
from stream.segments.population import Population
from stream.transport.base import TopicPartition, Transport, UnavailableError
from tests.pipeline.support import assert_same_features, configured, features

pytestmark = pytest.mark.kafka

SETTINGS = ShopSettings(users=250, days=14, seed=3, joining=0.2, broken=0.01, too_late=0)
PARTITIONS = 4


def on_kafka(bootstrap: str, prefix: str, **overrides: Any) -> Config:
    return load(
        None,
        {
            "transport.kind": "kafka",
            "transport.kafka.bootstrap_servers": bootstrap,
            "transport.kafka.topic_prefix": prefix,
            "transport.kafka.session_timeout": "6s",
            # Small, so that the modeller keeps up: where the first model comes late, few users change segment.
            "runner.batch_records": 100,
            "runner.clock": "record",
            "modeller.warm_up.users": 100,
            "modeller.review.fewest": 200,
            **overrides,
        },
    )


@pytest.fixture
def fed(kafka_bootstrap: str, topic_prefix: str) -> Iterator[tuple[Config, Transport]]:
    """A Kafka that holds the small shop's events in four partitions."""
    config = on_kafka(kafka_bootstrap, topic_prefix)
    transport = config.transport.open()
    keep = [topics.TopicSpec(s.name, s.partitions, s.cleanup, None, s.key, s.config) for s in topics.TOPICS]
    transport.create_topics(keep, PARTITIONS)
    Pusher(Shop(SETTINGS), transport).run()
    yield config, transport
    transport.close()


def committed_everything(transport: Transport, group: str) -> bool:
    """Whether a group has read the events to their end; a new broker's coordinator takes a moment to answer."""
    try:
        for partition in range(PARTITIONS):
            where = TopicPartition(topics.EVENTS, partition)
            if (transport.committed(group, where) or 0) < transport.end_offset(where):
                return False
    except UnavailableError:
        return False
    return True


def wait_until(condition: Any, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.2)


def test_kafka_gives_the_same_features_as_embedded(fed: tuple[Config, Transport], tmp_path: Path) -> None:
    """Four partitions, two processors, against one partition and one process on SQLite."""
    config, transport = fed
    stop = threading.Event()
    deployments = [
        Deployment(config, config.transport.open(), PARTITIONS, roles, wall_clock=False)
        for roles in (("processor", "modeller"), ("processor",))
    ]
    threads = [
        threading.Thread(target=runner.run, args=(stop,), kwargs={"poll_timeout": 0.1})
        for deployment in deployments
        for runner in deployment.runners
    ]
    for thread in threads:
        thread.start()
    try:
        wait_until(lambda: committed_everything(transport, "resegment-processor"))
        shares = [sorted(deployment.processor.populations) for deployment in deployments]
        assert sorted(shares[0] + shares[1]) == list(range(PARTITIONS))
        assert all(shares), "both processors had work"
        populations = [p for deployment in deployments for p in list(deployment.processor.populations.values())]
        got = features(populations, SETTINGS.end_ms)
    finally:
        stop.set()
        for thread in threads:
            thread.join(20)
        for deployment in deployments:
            deployment.transport.close()
    with Replay(configured(tmp_path / "embedded"), Shop(SETTINGS)) as replay:
        replay.run()
        wanted = features(list(replay.deployment.processor.populations.values()), SETTINGS.end_ms)
    assert_same_features(got, wanted)
    assert_changes_are_whole(transport)


def assert_changes_are_whole(transport: Transport) -> None:
    """Sequences without gaps, whatever process published them."""
    last: dict[str, int] = {}
    for partition in range(PARTITIONS):
        for record in transport.read(TopicPartition(topics.SEGMENT_CHANGES, partition), 0):
            change = SegmentChange.model_validate_json(record.value or b"")
            assert change.sequence == last.get(change.user_id, 0) + 1
            assert dict(record.headers)["ce_id"] == change.id.encode()
            last[change.user_id] = change.sequence
    assert len(last) > 100


@pytest.mark.slow
def test_the_service_stops_cleanly_and_carries_on(fed: tuple[Config, Transport], tmp_path: Path) -> None:
    """`resegment run` on Kafka: SIGTERM ends it within ten seconds, a second one carries on without loss."""
    config, transport = fed
    kafka = config.transport.kafka
    environment = {
        **os.environ,
        "RESEGMENT_TRANSPORT__KIND": "kafka",
        "RESEGMENT_TRANSPORT__KAFKA__BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
        "RESEGMENT_TRANSPORT__KAFKA__TOPIC_PREFIX": kafka.topic_prefix,
        "RESEGMENT_RUNNER__CLOCK": "record",
        "RESEGMENT_RUNNER__BATCH_RECORDS": "200",
        "RESEGMENT_METRICS__PORT": "0",
        "RESEGMENT_LOG__FORMAT": "json",
    }
    command = [sys.executable, "-m", "stream.cli", "run", "--roles", "processor"]

    def some_work() -> bool:
        committed = [transport.committed("resegment-processor", TopicPartition(topics.EVENTS, p)) for p in range(4)]
        return sum(offset or 0 for offset in committed) > 0

    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stderr=log)
        wait_until(some_work)
        process.send_signal(signal.SIGTERM)
        began = time.monotonic()
        assert process.wait(timeout=15) == 0
        assert time.monotonic() - began < 10
        process = subprocess.Popen(command, env=environment, stderr=log)
        wait_until(lambda: committed_everything(transport, "resegment-processor"))
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=15) == 0
    for line in (tmp_path / "log").read_text().splitlines():
        assert json.loads(line)["level"] != "error"
    assert_every_row_is_accounted_for(transport, config)


def assert_every_row_is_accounted_for(transport: Transport, config: Config) -> None:
    """From the committed state alone: read = accepted + duplicate + dead-lettered."""
    counted = 0
    for partition in range(PARTITIONS):
        population = Population(partition, config.layout())
        offset = transport.committed("resegment-processor", TopicPartition(topics.EVENTS, partition))
        changelog = Changelog(transport, "processor", topics.USER_STATE)
        population.restore(changelog.restore(partition, {topics.EVENTS: offset}))
        kinds = ("accepted.", "duplicate.", "dead.")
        counted += sum(n for name, n in population.counters.items() if name.startswith(kinds))
    assert counted == Shop(SETTINGS).summary.rows
