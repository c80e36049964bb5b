"""Ours, and the limit, each in a process of its own: `python -m benchmarks.contestants NAME ...` prints one JSON line.

CPU seconds are the process's own, from the first record to the last commit; start-up is left out.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.peers.stopwatch import Stopwatch
from schemas.topics import EVENTS
from stream.assembly import Deployment
from stream.config import load
from stream.runtime import interpreter
from stream.runtime.runner import Runner
from stream.transport.base import TopicPartition


def limit(bootstrap: str, prefix: str, count: int, warm: int) -> None:
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
    watch = Stopwatch(warm)
    while True:
        for records in found.values():
            for record in records:
                orjson.loads(record.value)
        if watch.count(sum(map(len, found.values()))) >= count:
            break
        found = consumer.poll(1_000)
    watch.report()
    consumer.close()


def kafka_settings(bootstrap: str, prefix: str) -> dict[str, Any]:
    """The processor on the broker, its defaults otherwise."""
    return {
        "transport.kind": "kafka",
        "transport.kafka.bootstrap_servers": bootstrap,
        "transport.kafka.topic_prefix": prefix,
    }


def kafka(bootstrap: str, prefix: str, count: int, warm: int) -> None:
    """The processor with everything on: features, scores, anomalies, hysteresis, changes, state, transactions."""
    config = load(None, {**kafka_settings(bootstrap, prefix), "processor.sweep_interval": "1h"})
    transport = config.transport.open()
    deployment = Deployment(config, transport, transport.partitions(EVENTS), ("processor",))
    (runner,) = deployment.runners
    while not runner.joined():
        runner.step(0.5)
    _drain(runner, count, warm)
    assert deployment.processor.model is not None, "nothing was scored"
    runner.abandon()
    transport.close()


def embedded(directory: str, count: int, warm: int) -> None:
    """The same processor on the embedded transport, its events already in the topic."""
    config = load(None, {"transport.data_dir": Path(directory), "processor.sweep_interval": "1h"})
    transport = config.transport.open(create=False)
    deployment = Deployment(config, transport, transport.partitions(EVENTS), ("processor",))
    (runner,) = deployment.runners
    while not runner.joined():
        runner.step(0.0)
    _drain(runner, count, warm)
    end = sum(transport.end_offset(TopicPartition(EVENTS, p)) for p in range(transport.partitions(EVENTS)))
    assert end == count
    runner.abandon()
    transport.close()


def _drain(runner: Runner, count: int, warm: int) -> None:
    interpreter.settle()  # as `resegment run` does
    watch = Stopwatch(warm)
    while watch.count(runner.advance(0.5)) < count:
        pass
    runner.finish()
    watch.report()


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["limit", bootstrap, prefix, count, warm]:
            limit(bootstrap, prefix, int(count), int(warm))
        case ["kafka", bootstrap, prefix, count, warm]:
            kafka(bootstrap, prefix, int(count), int(warm))
        case ["embedded", directory, count, warm]:
            embedded(directory, int(count), int(warm))
        case _:
            sys.exit(__doc__)
