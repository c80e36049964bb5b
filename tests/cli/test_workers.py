"""`resegment run --workers`: several processors and one process for the rest, on both transports."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from schemas import topics
from schemas.topics import TOPICS
from stream.commands.common import CommandError
from stream.commands.run import _commands
from stream.config import load
from stream.transport.base import OutRecord, TopicPartition, Transport
from tests.kafka.broker import free_port
from tests.pipeline.support import small_shop

PARTITIONS = 4


def commands(**settings: Any) -> list[tuple[str, list[str], dict[str, str]]]:
    chosen = {"workers": 2, "roles": ("processor", "modeller", "campaigns"), "config": None, "data_dir": None}
    arguments = argparse.Namespace(**{**chosen, "bootstrap": "broker:9092", **settings})
    config = load(None, {"transport.kafka.group_instance_id": "host-1", "metrics.port": settings.get("port", 9464)})
    return [(one.name, list(one.arguments), dict(one.environment)) for one in _commands(arguments, config)]


def test_each_process_has_a_port_and_a_place_of_its_own() -> None:
    made = commands()
    assert [name for name, _, _ in made] == ["processor-0", "processor-1", "modeller-campaigns"]
    assert [line[line.index("--roles") + 1] for _, line, _ in made] == ["processor", "processor", "modeller,campaigns"]
    assert all(line[-2:] == ["--bootstrap", "broker:9092"] for _, line, _ in made)
    assert [variables["RESEGMENT_METRICS__PORT"] for _, _, variables in made] == ["9464", "9465", "9466"]
    places = [variables["RESEGMENT_TRANSPORT__KAFKA__GROUP_INSTANCE_ID"] for _, _, variables in made]
    assert places == ["host-1-processor-0", "host-1-processor-1", "host-1-modeller-campaigns"]


def test_free_ports_stay_free() -> None:
    assert all("RESEGMENT_METRICS__PORT" not in variables for _, _, variables in commands(port=0))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"roles": ("modeller",)}, "--workers makes processors, and the roles are only modeller"),
        ({"port": 65_534}, "3 processes need the ports 65534 to 65536"),
    ],
)
def test_what_cannot_be_is_told(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(CommandError, match=message):
        commands(**settings)


@pytest.fixture(params=["embedded", pytest.param("kafka", marks=pytest.mark.kafka)])
def variables(request: pytest.FixtureRequest, tmp_path: Path, topic_prefix: str) -> dict[str, str]:
    if request.param == "embedded":
        place = {"RESEGMENT_TRANSPORT__DATA_DIR": str(tmp_path / "data")}
    else:
        place = {
            "RESEGMENT_TRANSPORT__KIND": "kafka",
            "RESEGMENT_TRANSPORT__KAFKA__BOOTSTRAP_SERVERS": request.getfixturevalue("kafka_bootstrap"),
            "RESEGMENT_TRANSPORT__KAFKA__TOPIC_PREFIX": topic_prefix,
            "RESEGMENT_TRANSPORT__KAFKA__SESSION_TIMEOUT": "3s",
        }
    return {**place, "RESEGMENT_RUNNER__CLOCK": "record", "RESEGMENT_LOG__FORMAT": "json"}


@pytest.fixture
def transport(variables: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Transport]:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    opened = load(None).transport.open()
    opened.create_topics(TOPICS, PARTITIONS)
    yield opened
    opened.close()


def until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)


def ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def drained(transport: Transport) -> bool:
    places = [TopicPartition(topics.EVENTS, partition) for partition in range(PARTITIONS)]
    # Kafka's end counts the markers of transactions, which no offset of a reader does; events were not written in any.
    return all(transport.committed("resegment-processor", place) == transport.end_offset(place) for place in places)


@pytest.mark.slow
def test_workers_share_the_work_and_one_that_is_killed_comes_back(
    transport: Transport, variables: dict[str, str], tmp_path: Path
) -> None:
    rows = [OutRecord(topics.EVENTS, row.key, row.value, None, (), row.timestamp) for row in small_shop(days=6).rows()]
    half = len(rows) // 2
    base = free_port()
    command = [sys.executable, "-m", "stream.cli", "run", "--workers", "2", "--roles", "processor,modeller"]
    log = tmp_path / "log"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            command, env={**os.environ, **variables, "RESEGMENT_METRICS__PORT": str(base)}, stderr=stream
        )
    try:
        until(lambda: all(ready(base + number) for number in range(3)))
        transport.produce(rows[:half])
        until(lambda: drained(transport))
        os.kill(next(pid for name, pid in started(log) if name == "processor-1"), signal.SIGKILL)
        until(lambda: Counter(name for name, _ in started(log))["processor-1"] == 2)
        transport.produce(rows[half:])
        until(lambda: drained(transport))
        until(lambda: ready(base + 1))
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(15) == 0
        assert time.monotonic() - began < 10
    finally:
        process.kill()
    until(lambda: not any(alive(pid) for _, pid in started(log)), 5)
    sequences: dict[str, int] = {}
    for partition in range(PARTITIONS):
        for record in transport.read(TopicPartition(topics.SEGMENT_CHANGES, partition), 0):
            change = json.loads(record.value or b"")
            assert change["sequence"] == sequences.get(change["user_id"], 0) + 1
            sequences[change["user_id"]] = change["sequence"]


def started(log: Path) -> list[tuple[str, int]]:
    lines = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{") and line.endswith("}")]
    found = [(line["message"], line.get("pid")) for line in lines if line["logger"] == "stream.runtime.supervisor"]
    return [(message.removeprefix("started "), pid) for message, pid in found if message.startswith("started ")]


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
