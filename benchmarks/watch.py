"""Sees committed changes arrive: `python -m benchmarks.watch BOOTSTRAP PREFIX SECONDS`.

Prints [when the event was due, when its change was read], epoch milliseconds, for every change that an event caused.
It reads committed records only, so an instant is after the transaction's end. What a sweep or a model caused has no
event to count from, and is left out.
"""

from __future__ import annotations

import json
import sys
import time

import orjson
from kafka import KafkaConsumer
from kafka.structs import TopicPartition

from schemas.topics import SEGMENT_CHANGES


def main(bootstrap: str, prefix: str, seconds: float) -> None:
    """Watch."""
    consumer = KafkaConsumer(
        bootstrap_servers=bootstrap, isolation_level="read_committed", fetch_max_wait_ms=50, auto_offset_reset="latest"
    )
    topic = f"{prefix}{SEGMENT_CHANGES}"
    partitions = sorted(consumer.partitions_for_topic(topic))
    consumer.assign([TopicPartition(topic, partition) for partition in partitions])
    consumer.seek_to_end()
    for where in consumer.assignment():
        consumer.position(where)
    print("ready", flush=True)
    end = time.time() + seconds
    seen: list[tuple[int, float]] = []
    while time.time() < end:
        found = consumer.poll(50, max_records=10_000)
        now = time.time() * 1000
        for records in found.values():
            for record in records:
                change = orjson.loads(record.value)
                if change["cause"] == "entered" or change["source"] is not None:
                    seen.append((change["occurred_at"], now))
    consumer.close()
    print(json.dumps(seen), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], float(sys.argv[3]))
