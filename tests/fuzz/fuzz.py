"""Runs hostile events through the decoder and the processor, and holds the outcome against itself.

python -m tests.fuzz.fuzz 1000000                       on the embedded transport
python -m tests.fuzz.fuzz 1000000 --kafka               on a Kafka of its own
"""

from __future__ import annotations

import argparse
import gc
import os
import tempfile
import time
import uuid
from base64 import b64decode
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from schemas import topics
from stream.assembly import Deployment
from stream.config import Config, load
from stream.runtime.changelog import Changelog
from stream.segments.observations import Observations
from stream.segments.population import COLUMNS, Population
from stream.segments.processor import Processor
from stream.transport.base import TopicPartition, Transport
from stream.verify import verify
from tests.faults.oracle import assert_same_table
from tests.fuzz.hostile import Hostile
from tests.kafka.broker import Cluster
from tests.kafka.jars import CACHE

PARTITIONS = 2
CHUNK = 5_000
ABSURD = 1e13
"""A thousand times the most that one user's events can add up to: MAX_MONEY for each of ten thousand purchases."""


@dataclass(frozen=True)
class Fuzzed:
    """What became of the events. `grown` is by how much the process grew in the second half of them, in MB."""

    events: int
    accepted: int
    duplicates: int
    dead: dict[str, int]
    users: int
    observations: int
    models: int
    seconds: float
    grown: float

    def __str__(self) -> str:
        return (
            f"{self.events:,} hostile events: {self.accepted:,} accepted, {self.duplicates:,} duplicate, "
            f"{sum(self.dead.values()):,} dead for {len(self.dead)} reasons; {self.users:,} users, "
            f"{self.observations:,} observations, {self.models} models; {self.events / self.seconds:,.0f} events a "
            f"second, the process grew by {self.grown:.0f} MB"
        )


def fuzz(transport: Transport, config: Config, count: int, seed: int) -> Fuzzed:
    """Push, process and check. Raises AssertionError where an event was lost, counted twice, or did harm."""
    hostile = Hostile(seed, int(time.time() * 1000))
    transport.create_topics(topics.TOPICS, PARTITIONS)
    deployment = Deployment(config, transport, PARTITIONS, ("processor", "modeller"))
    working = 0.0
    base = _resident()
    pushed = 0
    while pushed < count:
        pushed += transport.produce(list(hostile.records(min(CHUNK, count - pushed))))
        started = time.perf_counter()
        for runner in deployment.runners:
            while runner.step(0.05) or not runner.joined() or runner.behind():
                pass
        working += time.perf_counter() - started
        if pushed <= count // 2:
            base = _resident()
    grown = (_resident() - base) / 1e6
    for runner in deployment.runners:
        runner.abandon()
    report = verify(transport, config, PARTITIONS)
    assert not report.findings, "\n".join(map(str, report.findings))
    assert report.checked["events"] == count
    counters: Counter[str] = Counter()
    users = 0
    for partition in range(PARTITIONS):
        population = _check_partition(transport, config, partition)
        counters += population.counters
        users += len(population)
    return Fuzzed(
        count,
        sum(n for name, n in counters.items() if name.startswith("accepted.")),
        sum(n for name, n in counters.items() if name.startswith("duplicate.")),
        {name.partition(".")[2]: n for name, n in counters.items() if name.startswith("dead.")},
        users,
        _check_observations(transport),
        _check_models(transport),
        working,
        grown,
    )


def _check_partition(transport: Transport, config: Config, partition: int) -> Population:
    """Dead letters hold what came, byte for byte, and the rest gives the same users as if they had never come."""
    events = list(transport.read(TopicPartition(topics.EVENTS, partition), 0))
    by_offset = {event.offset: event for event in events}
    for record in transport.read(TopicPartition(topics.DEAD_LETTERS, partition), 0):
        letter = orjson.loads(record.value or b"")
        event = by_offset.pop(letter["source"]["offset"])  # a KeyError: dead twice
        assert record.key == event.key
        assert _bytes(letter["original"]) == event.value and _bytes(letter["key"]) == event.key
    stored = Processor(config.layout(), ingest=config.ingest)
    _restore(transport, config, stored, partition)
    clean = Processor(config.layout(), ingest=config.ingest)
    clean.restore(partition, ())
    left = list(by_offset.values())
    for start in range(0, len(left), CHUNK):
        clean.process({partition: left[start : start + CHUNK]}, int(time.time() * 1000))
    one, other = stored.populations[partition], clean.populations[partition]
    assert not [name for name in other.counters if name.startswith("dead.")], "what was accepted is valid by itself"
    assert_same_table(one.table, other.table, but={f"extra {column.name}" for column in COLUMNS})
    return one


def _restore(transport: Transport, config: Config, processor: Processor, partition: int) -> None:
    where = TopicPartition(topics.EVENTS, partition)
    offset = transport.committed(f"{config.runner.group}-processor", where)
    changelog = Changelog(transport, "processor", topics.USER_STATE)
    processor.restore(partition, changelog.restore(partition, {topics.EVENTS: offset}))


def _check_observations(transport: Transport) -> int:
    """All that the modeller ever saw is a finite number of a sane size, or unknown."""
    seen = 0
    for record in transport.read(TopicPartition(topics.OBSERVATIONS, 0), 0):
        features = Observations.decode(record.value or b"").features
        assert not np.isinf(features).any()
        assert np.nanmax(np.abs(features), initial=0.0) < ABSURD
        seen += len(features)
    return seen


def _check_models(transport: Transport) -> int:
    """JSON without NaN or infinity, centres within the scale."""
    models = 0
    for record in transport.read(TopicPartition(topics.SEGMENT_MODEL, 0), 0):
        if record.value is not None:
            model = orjson.loads(record.value)
            centres = np.array(model["prototypes"]["centres"], np.float64)
            assert np.isfinite(centres).all() and (np.abs(centres) <= model["clip"] + 1e-9).all()
            models += 1
    return models


def _bytes(text: str | None) -> bytes | None:
    return None if text is None else b64decode(text)


def _resident() -> int:
    """Bytes of this process in memory."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def configured(place: dict[str, Any]) -> Config:
    """Settings of a run: everybody's clock is the wall's, and models come early."""
    return load(None, {"modeller.warm_up.users": 300, "modeller.review.fewest": 300, **place})


def in_directory(directory: Path) -> dict[str, Any]:
    return {"transport.data_dir": directory, "transport.embedded.synchronous": "normal"}


def on_kafka(bootstrap: str) -> dict[str, Any]:
    return {
        "transport.kind": "kafka",
        "transport.kafka.bootstrap_servers": bootstrap,
        "transport.kafka.topic_prefix": f"z{uuid.uuid4().hex[:8]}.",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("events", type=int)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kafka", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fuzz-") as scratch:
        if not arguments.kafka:
            run(in_directory(Path(scratch) / "data"), arguments.events, arguments.seed)
            return
        with Cluster(CACHE / f"fuzz-{uuid.uuid4().hex[:8]}") as cluster:
            run(on_kafka(cluster.bootstrap), arguments.events, arguments.seed)


def run(place: dict[str, Any], events: int, seed: int) -> Fuzzed:
    """One run; prints its outcome."""
    config = configured(place)
    transport = config.transport.open()
    try:
        fuzzed = fuzz(transport, config, events, seed)
    finally:
        transport.close()
    print(fuzzed)
    return fuzzed


if __name__ == "__main__":
    main()
