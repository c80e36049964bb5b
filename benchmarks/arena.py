"""Where contestants meet: a real broker on loopback, seeded events, one model for ours and one for the peers.

Every contestant runs in a process of its own and prints one JSON line; the arena adds what the broker's process spent
meanwhile, so that the two can be told apart.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from scipy.cluster.vq import kmeans2

from benchmarks.peers.core import SUMS, Model, State, update
from benchmarks.peers.declared import toml
from benchmarks.workload import events
from schemas.topics import SEGMENT_MODEL, TOPICS, TopicSpec
from stream.config import Config, load
from stream.replay import Replay
from stream.transport.base import OutRecord, TopicPartition, Transport
from tests.kafka.broker import Cluster

PARTITIONS = 4
PEER_CHANGES = TopicSpec("peer-changes", "input")
SEGMENTS = 6
LEARNED_FROM = 100_000
"""Events that the models are learned from."""

Laps = dict[str, Any]
"""What a contestant printed (benchmarks/peers/stopwatch.py), and `broker`: CPU seconds of the broker meanwhile."""


class Arena:
    """The broker runs inside the `with` block. Parameters: how many events there are at the most, users, the seed."""

    def __init__(self, events: int, users: int, seed: int = 1) -> None:
        self.users = users
        self.seed = seed
        self._count = max(events, LEARNED_FROM)
        self._scratch = tempfile.TemporaryDirectory(prefix="bench-")
        self.directory = Path(self._scratch.name)
        self.cluster = Cluster(self.directory / "cluster", heap="1g")

    def __enter__(self) -> Arena:
        try:
            self.cluster.start()
        except BaseException:
            self._scratch.cleanup()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cluster.stop()
        self._scratch.cleanup()

    @cached_property
    def records(self) -> list[OutRecord]:
        """The events, of the last hour."""
        return list(events(self._count, self.users, int(time.time() * 1000), self.seed))

    @cached_property
    def model(self) -> bytes:
        """A published model of these users, as its record's value: learned by a replay, before anything is timed."""
        return self._learn("learn", None)

    @cached_property
    def core_config(self) -> Path:
        """A configuration file with the features that the peers have."""
        file = self.directory / "core.toml"
        file.write_text(toml())
        return file

    @cached_property
    def core_model(self) -> bytes:
        """As `model`, on the features that the peers have."""
        return self._learn("learn-core", self.core_config)

    def _learn(self, name: str, file: Path | None) -> bytes:
        return learned(self.directory / name, file, self.records[:LEARNED_FROM], min(500, self.users // 4))

    @cached_property
    def peer_model(self) -> Path:
        """Frozen scale and six prototypes for the peers: k-means of these users' sums."""
        users: dict[str, State] = {}
        for record in self.records[:LEARNED_FROM]:
            event = json.loads(record.value or b"")
            users[event["user_id"]] = update(users.get(event["user_id"]), event)
        x = np.log1p([state[SUMS:] for state in users.values()])
        centre, spread = x.mean(axis=0), np.maximum(x.std(axis=0), 1e-6)
        prototypes, _ = kmeans2((x - centre) / spread, SEGMENTS, minit="++", seed=self.seed)
        file = self.directory / "peer-model.json"
        Model(centre.tolist(), spread.tolist(), prototypes.tolist()).save(file)
        return file

    def config(self, prefix: str, **overrides: Any) -> Config:
        """Configuration for topics of that prefix on the broker. Double underscores in `overrides` are dots."""
        place = {
            "transport.kind": "kafka",
            "transport.kafka.bootstrap_servers": self.cluster.bootstrap,
            "transport.kafka.topic_prefix": prefix,
        }
        return load(None, place | {name.replace("__", "."): value for name, value in overrides.items()})

    def fill(self, prefix: str, count: int, model: bytes | None = None) -> None:
        """Topics of that prefix with a model, by default `model`, and the first `count` events."""
        transport = self.config(prefix).transport.open()
        try:
            fill(transport, self.records[:count], self.model if model is None else model)
        finally:
            transport.close()

    def append(self, prefix: str, start: int, stop: int) -> None:
        """More events onto topics that there are."""
        transport = self.config(prefix).transport.open()
        try:
            append(transport, self.records[start:stop])
        finally:
            transport.close()

    def contest(self, command: Sequence[str]) -> Laps:
        """Run one contestant to its end."""
        before = self.broker_cpu()
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            sys.exit(f"{' '.join(command[:4])} ... failed:\n{done.stderr[-3000:]}")
        laps: Laps = json.loads(done.stdout.splitlines()[-1])
        return laps | {"broker": round(self.broker_cpu() - before, 3)}

    def broker_cpu(self) -> float:
        """CPU seconds of the broker's process so far."""
        return process_cpu(self.cluster.brokers[0].pid)


def process_cpu(pid: int) -> float:
    """CPU seconds that a process, all threads, has used (Linux: utime and stime of /proc/PID/stat)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def learned(directory: Path, file: Path | None, records: list[OutRecord], users: int) -> bytes:
    """The model that a replay of these events publishes last, warmed up by so many users, as its record's value."""
    config = load(file, {"transport.data_dir": directory, "modeller.warm_up.users": users})
    with Replay(config, _Sample(records)) as replay:  # type: ignore[arg-type]
        replay.run()
        found = [r.value for r in replay.transport.read(TopicPartition(SEGMENT_MODEL, 0), 0) if r.value]
    if not found:
        sys.exit("the modeller published nothing on these events: too few users or events to learn from")
    return found[-1]


def fill(transport: Transport, records: list[OutRecord], model: bytes) -> None:
    """Create the topics, publish the model, append the events."""
    transport.create_topics([*TOPICS, PEER_CHANGES], PARTITIONS)
    transport.produce([OutRecord(SEGMENT_MODEL, b"1", model, 0)])
    append(transport, records)


def append(transport: Transport, records: list[OutRecord]) -> None:
    """Events, some at a time."""
    for start in range(0, len(records), 20_000):
        transport.produce(records[start : start + 20_000])


def module(name: str, *arguments: object) -> list[str]:
    """The command that runs one of our modules."""
    return [sys.executable, "-m", name, *map(str, arguments)]


class _Sample:
    """The workload as a replay's source."""

    fingerprint = "benchmark"
    total = None

    def __init__(self, records: list[OutRecord]) -> None:
        self._records = records

    def rows(self, start: int = 0):  # type: ignore[no-untyped-def]
        """Rows from a number on."""
        return iter(self._records[start:])
