"""`python -m benchmarks.restore`: how long a processor takes to restore its users, and how large their topic is.

The state is written as a processor writes it: commits of a few thousand touched users and what is due to be written
again, old records trimmed, until the topic is steady. Then a process of its own restores it through the runner that a
service runs. Kafka is real, on loopback, with the broker on the same machine.
"""

from __future__ import annotations

import argparse
import json
import logging
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from schemas.events import EVENT_TYPES
from schemas.topics import TOPICS, USER_STATE
from stream.assembly import Deployment
from stream.config import Config, load
from stream.features.batch import KIND_CODES, EventBatch
from stream.runtime.changelog import Changelog
from stream.runtime.observing import SilentObserver
from stream.segments.population import Population
from stream.transport.base import TopicPartition, Transport
from tests.kafka.broker import Cluster

PARTITIONS = 4
TOUCHED = 2_500
"""Users of one partition in one commit: a poll of 10,000 records over four partitions."""
STEADY_TURNS = 2
"""Rows that change, for each row there is, before what is kept counts as steady; and again while it is looked at."""
DAYS = 30
SHARES = (0.62, 0.16, 0.04, 0.06, 0.09, 0.03)
"""Of the first six event types."""


def batches(users: int, partition: int, end_ms: int) -> Iterator[EventBatch]:
    """Events without end: first everybody once, then anybody; over the last 30 days for as long as the fill takes."""
    rng = np.random.default_rng(partition)
    names = [f"user-{partition}-{number:08d}" for number in range(users)]
    expected = users * (1 + 2 * STEADY_TURNS)
    at, number = end_ms - DAYS * 86_400_000, 0
    while True:
        chosen = np.arange(number, min(number + TOUCHED, users))
        if not len(chosen):
            chosen = rng.integers(0, users, TOUCHED)
        count = len(chosen)
        kinds = rng.choice(len(SHARES), count, p=SHARES)
        is_purchase = np.array([EVENT_TYPES[kind] == "purchase" for kind in kinds])
        none = np.full(count, np.nan)
        yield EventBatch(
            position=np.arange(count, dtype=np.int32),
            user_ids=[names[user] for user in chosen.tolist()],
            event_ids=[""] * count,
            kind=np.array([KIND_CODES[EVENT_TYPES[kind]] for kind in kinds], np.int8),
            time=np.full(count, at, np.int64) + np.arange(count),
            id_hash=rng.integers(1, 2**63, count).astype(np.uint64),
            amount=np.where(is_purchase, np.round(rng.lognormal(3.2, 0.8, count), 2), np.nan),
            quantity=np.where(is_purchase, 1.0, np.nan),
            discount=none,
            dwell_ms=np.where(is_purchase, np.nan, rng.integers(1_000, 90_000, count)),
            rating=none,
            category=rng.integers(1, 40, count).astype(np.uint64),
        )
        number += count
        at = min(at + DAYS * 86_400_000 * count // expected, end_ms - count)


def fill(transport: Transport, config: Config, users: int, partition: int) -> tuple[int, list[int]]:
    """Write one partition's state; the bytes of one whole rewrite, and of the topic after each commit once steady."""
    layout = config.layout()
    population = Population(partition, layout)
    changelog = Changelog(transport, "processor", USER_STATE)
    where = TopicPartition(USER_STATE, partition)
    changelog.begin(partition)
    sizes: dict[int, int] = {}
    seen: list[int] = []
    touched = start = 0
    for batch in batches(users, partition, int(time.time() * 1000)):
        applied = population.table.apply(batch)
        population.know(applied.rows)
        population.touch(applied.rows)
        if len(population) == users and not touched:
            population.table.column("segment")[:] = np.arange(users) % 7 + 1
        delta = population.delta()
        frames = changelog.frame(partition, delta, dict.fromkeys(config.topics.events))
        offset = transport.end_offset(where)
        transport.produce(frames)
        sizes |= {offset + n: len(frame.value or b"") for n, frame in enumerate(frames)}
        if (before := changelog.written(partition, delta, offset)) is not None:
            changelog.trim(partition, before)
            start = before
        if len(population) == users:
            touched += len(applied.rows)
            if touched > STEADY_TURNS * users:
                seen.append(sum(size for at, size in sizes.items() if at >= start))
                sizes = {at: size for at, size in sizes.items() if at >= start}
        if touched > 2 * STEADY_TURNS * users:
            break
    slices = [np.arange(at, min(at + TOUCHED, users)) for at in range(0, users, TOUCHED)]
    return sum(len(population.table.pack(rows)) for rows in slices), seen


class Watch(SilentObserver):
    """Notes when everything is restored."""

    def __init__(self) -> None:
        self.restored_by: dict[int, float] = {}
        self.done = threading.Event()
        self.wrong: str | None = None

    def restored(self, stage: str, partition: int, seconds: float) -> None:
        self.restored_by[partition] = seconds
        if len(self.restored_by) == PARTITIONS:
            self.done.set()

    def failed(self, stage: str, kind: str, reason: str) -> None:
        self.wrong = reason
        self.done.set()


def restore(overrides: dict[str, Any]) -> dict[str, Any]:
    """In a process of its own: join, restore all partitions, leave."""
    logging.basicConfig(level=logging.WARNING)
    config = load(None, overrides)
    transport = config.transport.open()
    deployment = Deployment(config, transport, PARTITIONS, ("processor",))
    (runner,) = deployment.runners
    watch = runner._observer = Watch()
    stop = threading.Event()
    used = resource.getrusage(resource.RUSAGE_SELF)
    started = time.perf_counter()
    thread = threading.Thread(target=runner.run, args=(stop,))
    thread.start()
    watch.done.wait()
    seconds = time.perf_counter() - started
    assert watch.wrong is None, watch.wrong
    users = sum(map(len, list(deployment.processor.populations.values())))
    now = resource.getrusage(resource.RUSAGE_SELF)
    stop.set()
    thread.join()
    transport.close()
    cpu = now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime
    return {"users": users, "seconds": seconds, "cpu": cpu, "peak_mb": now.ru_maxrss / 1024}


def measure(overrides: dict[str, Any], users: int, turns: int) -> dict[str, Any]:
    """Fill, then restore in turns."""
    config = load(None, overrides)
    transport = config.transport.open()
    transport.create_topics(TOPICS, PARTITIONS)
    live, steady = 0, []
    for partition in range(PARTITIONS):
        whole, sizes = fill(transport, config, users // PARTITIONS, partition)
        live += whole
        steady.append([size / whole for size in sizes])
    transport.close()
    restores = []
    for _ in range(turns):
        command = [sys.executable, "-m", "benchmarks.restore", "--child", json.dumps(overrides)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            sys.exit(done.stderr[-3000:])
        restores.append(json.loads(done.stdout.splitlines()[-1]))
    largest = max(max(sizes) for sizes in steady)
    mean = sum(sum(sizes) / len(sizes) for sizes in steady) / PARTITIONS
    return {"live_bytes": live, "topic_largest": largest, "topic_mean": mean, "restores": restores}


def main() -> None:
    """Print what was seen."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=1_000_000)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--transport", choices=("kafka", "embedded"), default="kafka")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.child:
        print(json.dumps(restore(json.loads(chosen.child))))
        return
    with tempfile.TemporaryDirectory() as scratch:
        if chosen.transport == "embedded":
            found = measure({"transport.data_dir": f"{scratch}/data"}, chosen.users, chosen.turns)
        else:
            with Cluster(Path(scratch) / "cluster", heap="768m") as cluster:
                broker = {"transport.kind": "kafka", "transport.kafka.bootstrap_servers": cluster.bootstrap}
                found = measure(broker, chosen.users, chosen.turns)
    for one in found["restores"]:
        print(
            f"{chosen.transport}: {one['users']:,} users restored in {one['seconds']:.1f} s "
            f"({one['cpu']:.1f} s of CPU, {one['peak_mb']:,.0f} MB at the most)"
        )
    print(
        f"live state {found['live_bytes'] / 1e6:.0f} MB packed; the topic {found['topic_mean']:.2f} times that in the "
        f"mean, {found['topic_largest']:.2f} at the most, while {STEADY_TURNS} times as many users changed as there are"
    )


if __name__ == "__main__":
    main()
