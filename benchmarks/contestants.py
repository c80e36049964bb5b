"""What is timed, each in a process of its own: `python -m benchmarks.contestants NAME ...` prints one JSON line.

CPU seconds are the process's own, from the first record to the last commit; start-up is left out.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path

from schemas.topics import EVENTS
from stream.assembly import Deployment
from stream.config import load
from stream.transport.base import TopicPartition


def cpu() -> float:
    """CPU seconds of this process so far, all threads."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


class Stopwatch:
    """Wall and CPU seconds since it was made."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), cpu()

    def report(self, events: int) -> None:
        """Print what a run cost."""
        seconds = time.perf_counter() - self._wall
        print(json.dumps({"events": events, "wall": seconds, "cpu": cpu() - self._cpu}), flush=True)


def limit(bootstrap: str, prefix: str, count: int) -> None:
    """The client's own cost: poll and orjson.loads, nothing else."""
    import orjson
    from kafka import KafkaConsumer

    consumer = KafkaConsumer(
        f"{prefix}{EVENTS}",
        bootstrap_servers=bootstrap,
        group_id=f"{prefix}limit-{time.time_ns()}",
        auto_offset_reset="earliest",
        isolation_level="read_committed",
        max_poll_records=5_000,
    )
    while not (found := consumer.poll(1_000)):
        pass
    watch, seen = Stopwatch(), 0
    while True:
        for records in found.values():
            for record in records:
                orjson.loads(record.value)
            seen += len(records)
        if seen >= count:
            break
        found = consumer.poll(1_000)
    watch.report(seen)
    consumer.close()


def kafka(bootstrap: str, prefix: str, count: int) -> None:
    """The processor with everything on: features, scores, anomalies, hysteresis, changes, state, transactions."""
    config = load(
        None,
        {
            "transport.kind": "kafka",
            "transport.kafka.bootstrap_servers": bootstrap,
            "transport.kafka.topic_prefix": prefix,
            "runner.group": f"bench-{time.time_ns()}",
            "processor.sweep_interval": "1h",
        },
    )
    transport = config.transport.open()
    deployment = Deployment(config, transport, transport.partitions(EVENTS), ("processor",))
    (runner,) = deployment.runners
    while not runner.joined():
        runner.step(0.5)
    watch, seen = Stopwatch(), 0
    while seen < count:
        seen += runner.step(0.5)
    watch.report(seen)
    assert deployment.processor.model is not None, "nothing was scored"
    runner.abandon()
    transport.close()


def embedded(directory: str, count: int) -> None:
    """The same processor on the embedded transport, its events already in the topic."""
    config = load(None, {"transport.data_dir": Path(directory), "processor.sweep_interval": "1h"})
    transport = config.transport.open(create=False)
    deployment = Deployment(config, transport, transport.partitions(EVENTS), ("processor",))
    (runner,) = deployment.runners
    while not runner.joined():
        runner.step(0.0)
    watch, seen = Stopwatch(), 0
    while seen < count:
        seen += runner.step(0.0)
    watch.report(seen)
    end = sum(transport.end_offset(TopicPartition(EVENTS, p)) for p in range(transport.partitions(EVENTS)))
    assert seen == end
    runner.abandon()
    transport.close()


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["limit", bootstrap, prefix, count]:
            limit(bootstrap, prefix, int(count))
        case ["kafka", bootstrap, prefix, count]:
            kafka(bootstrap, prefix, int(count))
        case ["embedded", directory, count]:
            embedded(directory, int(count))
        case _:
            sys.exit(__doc__)
