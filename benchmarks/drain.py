"""`python -m benchmarks.drain`: how fast a backlog is drained, beside a loop that only polls and parses.

One run, in turns (limit, Kafka, embedded, limit, ...), each contestant in a process of its own whose CPU seconds are
told apart from the broker's. Kafka is real, with transactions, on loopback; events are 200 bytes, users zipf.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.workload import events
from schemas.topics import SEGMENT_MODEL, TOPICS
from stream.config import load
from stream.replay import Replay
from stream.transport.base import OutRecord, TopicPartition, Transport
from tests.kafka.broker import Cluster

PARTITIONS = 4


class Sample:
    """The workload as a replay's source: a model is learned on it before anything is timed."""

    fingerprint = "benchmark"
    total = None

    def __init__(self, records: list[OutRecord]) -> None:
        self._records = records

    def rows(self, start: int = 0):  # type: ignore[no-untyped-def]
        """Rows from a number on."""
        return iter(self._records[start:])


def learn(records: list[OutRecord], directory: Path) -> bytes:
    """A model of these users, as its record's value."""
    config = load(None, {"transport.data_dir": directory, "modeller.warm_up.users": 500})
    with Replay(config, Sample(records)) as replay:  # type: ignore[arg-type]
        replay.run()
        found = [r.value for r in replay.transport.read(TopicPartition(SEGMENT_MODEL, 0), 0) if r.value]
    return found[-1]


def fill(transport: Transport, records: list[OutRecord], model: bytes) -> None:
    """Create the topics, publish the model, append the events."""
    transport.create_topics(TOPICS, PARTITIONS)
    transport.produce([OutRecord(SEGMENT_MODEL, b"1", model, 0)])
    for start in range(0, len(records), 20_000):
        transport.produce(records[start : start + 20_000])


def contest(*arguments: str) -> dict[str, float]:
    """Run one contestant; its figures."""
    command = [sys.executable, "-m", "benchmarks.contestants", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{arguments[0]} failed:\n{done.stderr[-2000:]}")
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def main() -> None:
    """Print a table, and the figures as JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=300_000)
    parser.add_argument("--users", type=int, default=20_000)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    records = list(events(chosen.events, chosen.users, int(time.time() * 1000)))
    count = str(chosen.events)
    results: dict[str, list[dict[str, float]]] = {"limit": [], "kafka": [], "embedded": []}
    with tempfile.TemporaryDirectory() as scratch, Cluster(Path(scratch) / "cluster") as cluster:
        model = learn(records[:100_000], Path(scratch) / "learn")
        broker = {"transport.kind": "kafka", "transport.kafka.bootstrap_servers": cluster.bootstrap}
        for turn in range(chosen.turns):
            prefix = f"turn{turn}."
            transport = load(None, {**broker, "transport.kafka.topic_prefix": prefix}).transport.open()
            fill(transport, records, model)
            transport.close()
            results["limit"].append(contest("limit", cluster.bootstrap, prefix, count))
            results["kafka"].append(contest("kafka", cluster.bootstrap, prefix, count))
            directory = Path(scratch) / f"embedded{turn}"
            transport = load(None, {"transport.data_dir": directory}).transport.open()
            fill(transport, records, model)
            transport.close()
            results["embedded"].append(contest("embedded", str(directory), count))
            shutil.rmtree(directory)
    print(f"{chosen.events:,} events of {chosen.users:,} users, {PARTITIONS} partitions, {chosen.turns} turns")
    print(f"{'':10} {'us CPU an event':>16} {'events/s a core':>16} {'of the limit':>13}  (median; spread)")
    base = statistics.median(r["cpu"] / r["events"] for r in results["limit"])
    for name, runs in results.items():
        costs = sorted(r["cpu"] / r["events"] * 1e6 for r in runs)
        cost = statistics.median(costs)
        share = base * 1e6 / cost
        print(f"{name:10} {cost:16.2f} {1e6 / cost:16,.0f} {share:13.2f}  ({costs[0]:.2f} to {costs[-1]:.2f})")
    if chosen.json:
        chosen.json.write_text(json.dumps({"arguments": {**vars(chosen), "json": None}, "results": results}, indent=1))


if __name__ == "__main__":
    main()
