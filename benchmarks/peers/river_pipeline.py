"""A plain per-event River pipeline on kafka-python: what River's own examples show, with transactions around each poll.

`python -m benchmarks.peers.river_pipeline CLUSTERER BOOTSTRAP PREFIX COUNT WARM`
"""

from __future__ import annotations

import sys
import time
from typing import Any

import orjson
from kafka import KafkaConsumer, KafkaProducer
from kafka.structs import OffsetAndMetadata
from river import cluster, compose, preprocessing

from benchmarks.peers.core import HALF_LIVES_MS, METRICS, SUMS, State, decide, update
from benchmarks.peers.stopwatch import Stopwatch

CLUSTERERS: dict[str, Any] = {
    "kmeans": lambda: cluster.KMeans(n_clusters=6, seed=0),
    "clustream": lambda: cluster.CluStream(),
}
NAMES = [f"{metric}_{half_life}" for metric in METRICS for half_life in HALF_LIVES_MS]


class Pipeline:
    """One event at a time: update the user's sums, learn and predict, decide."""

    def __init__(self, clusterer: str) -> None:
        self.users: dict[str, State] = {}
        self._model = compose.Pipeline(preprocessing.StandardScaler(), CLUSTERERS[clusterer]())

    def process(self, event: dict[str, Any]) -> dict[str, Any] | None:
        """The change that an event causes, if it causes one."""
        user = event["user_id"]
        state = self.users[user] = update(self.users.get(user), event)
        x = dict(zip(NAMES, state[SUMS:], strict=True))
        self._model.learn_one(x)
        segment = self._model.predict_one(x)
        # River tells the nearest, not how near the others are: nothing to be calm by but two events in a row.
        return decide(state, [0.0 if number == segment else 1.0 for number in range(6)], event)


def main(clusterer: str, bootstrap: str, prefix: str, count: int, warm: int) -> None:
    """Drain `count` events."""
    group = f"{prefix}river-{clusterer}-{time.time_ns()}"
    consumer = KafkaConsumer(
        f"{prefix}events",
        bootstrap_servers=bootstrap,
        group_id=group,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        isolation_level="read_committed",
        # Ours poll 5,000; a lap of the slow ones is shorter than that.
        max_poll_records=min(5_000, max(500, count // 6)),
    )
    producer = KafkaProducer(bootstrap_servers=bootstrap, transactional_id=group)
    producer.init_transactions()
    pipeline = Pipeline(clusterer)
    while not (found := consumer.poll(1_000)):
        pass
    watch = Stopwatch(warm)
    while True:
        producer.begin_transaction()
        sends, offsets = [], {}
        for partition, records in found.items():
            for record in records:
                change = pipeline.process(orjson.loads(record.value))
                if change is not None:
                    sends.append(producer.send(f"{prefix}peer-changes", orjson.dumps(change), record.key))
            offsets[partition] = OffsetAndMetadata(records[-1].offset + 1, "", -1)
        producer.flush()
        for send in sends:
            send.get(0)
        producer.send_offsets_to_transaction(offsets, consumer.group_metadata())
        producer.commit_transaction()
        if watch.count(sum(map(len, found.values()))) >= count:
            break
        while not (found := consumer.poll(1_000)):
            pass
    watch.report()
    producer.close()
    consumer.close(autocommit=False)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))
