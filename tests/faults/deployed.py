"""A deployment under test: its topics, its workers, and the shop that feeds it."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from producers.shop import Shop, ShopSettings
from producers.source import SourceRow
from schemas import topics
from schemas.topics import TopicSpec
from stream.config import Config, load
from stream.runtime.pipeline import SOURCE_GROUP
from stream.transport.base import OutRecord, TopicPartition, Transport, TransportError
from stream.transport.embedded import EmbeddedTransport, SourceOffset
from tests.faults import oracle
from tests.faults.fleet import Fleet, Process
from tests.faults.journal import SPEC as JOURNAL

PATIENCE_S = 120.0
SOURCE = TopicPartition("shop", 0)
GROUPS = (("processor", topics.EVENTS), ("campaigns", topics.SEGMENT_CHANGES), ("delivery", topics.CAMPAIGN_ACTIONS))
EAGER: dict[str, Any] = {
    "runner.clock": "record",
    "runner.batch_records": 150,
    "processor.batch_records": 150,
    "runner.poll_timeout": 50,
    "metrics.enabled": False,
    # Everything that is seldom must be frequent here: sweeps, models, checkpoints.
    "processor.record_sweep_interval": "6h",
    "modeller.warm_up.users": 80,
    "modeller.review.observations": 300,
    "modeller.review.fewest": 100,
    "modeller.review.interval": "12h",
    "modeller.checkpoint_observations": 200,
    "rules": [
        {"id": "active", "name": "Active", "when": "recency_days <= 1.5"},
        {"id": "buyers", "name": "Buyers", "when": "purchases_30d >= 2", "leave_when": "purchases_30d < 1"},
    ],
}


class Deployed:
    """One deployment. `place` are the settings that say where; `partitions` of the events; the shop's `customers`, who
    are good for some 1,100 events each."""

    def __init__(
        self,
        fleet: Fleet,
        place: dict[str, Any],
        partitions: int,
        seed: int,
        directory: Path,
        customers: int = 250,
        **settings: Any,
    ) -> None:
        self.fleet = fleet
        self.partitions = partitions
        self.kind = str(place["transport.kind"])
        self.overrides = {**EAGER, **place, **settings}
        self.config: Config = load(None, self.overrides)
        self.workers: dict[str, tuple[Process, list[str]]] = {}
        self.transport: Transport
        self._shop = Shop(ShopSettings(users=customers, days=200, seed=seed, joining=0.2, broken=0.01, too_late=0.002))
        self._rows: Iterator[SourceRow] | None = None
        self._directory = directory
        self.fed = 0
        self.reopen()
        keep = [TopicSpec(s.name, s.partitions, s.cleanup, None, s.key, s.config) for s in topics.TOPICS]
        patiently(lambda: self.transport.create_topics([*keep, JOURNAL], partitions))

    # -- workers ----------------------------------------------------------------------------------------------

    def start(self, name: str, roles: list[str], crash: str | None = None, **settings: Any) -> Process:
        """Start a worker. On Kafka it is a static member where its settings say so."""
        process = self.fleet.start(name, roles, {**self.overrides, **settings}, crash)
        self.workers[name] = process, roles
        return process

    def stop_all(self) -> None:
        """SIGTERM to everybody; raises AssertionError where one does not end well."""
        for process, _ in self.workers.values():
            status = self.fleet.stop(process)
            assert status == 0, f"{process.name} ended with {status}:\n{self.fleet.tail(process.name)}"
        self.workers.clear()

    def kill_all(self) -> None:
        """SIGKILL."""
        for process, _ in self.workers.values():
            if process.status is None:
                self.fleet.kill(process)
        self.workers.clear()

    # -- events -----------------------------------------------------------------------------------------------

    def feed(self, count: int) -> None:
        """Push the shop's next rows. On the embedded transport with the shop's position in the same transaction."""
        if isinstance(self.transport, EmbeddedTransport):
            before = self.transport.committed(SOURCE_GROUP, SOURCE)
            if before != self.fed or self._rows is None:  # the log lost its tail
                self.fed, self._rows = before or 0, self._shop.rows(before or 0)
            records = self._next(count)
            position = SourceOffset(SOURCE_GROUP, SOURCE, before, self.fed + len(records))
            self.transport.produce(records, source=position)
        else:
            if self._rows is None:
                self._rows = self._shop.rows(0)
            records = self._next(count)
            patiently(lambda: self.transport.produce(records))
        self.fed += len(records)

    def backlog(self) -> int:
        """Events that the processors have not committed."""
        ends = self.committed_and_ends("processor", topics.EVENTS)
        return sum(end - committed for committed, end in ends)

    def committed_and_ends(self, stage: str, topic: str) -> list[tuple[int, int]]:
        group = f"{self.config.runner.group}-{stage}"
        places = [TopicPartition(topic, partition) for partition in range(self.partitions)]
        return [(self.transport.committed(group, where) or 0, self.transport.end_offset(where)) for where in places]

    def keep_fed(self, backlog: int = 2_000) -> None:
        """Feed where the processors are about to run dry; a broker that is away is passed over."""
        try:
            if self.backlog() < backlog:
                self.feed(backlog)
        except TransportError:
            return

    def drain(self, seconds: float = PATIENCE_S) -> None:
        """Until everything that was fed is through all stages."""
        deadline = time.monotonic() + seconds
        while not self._drained():
            for process, _ in self.workers.values():
                assert process.status is None, f"{process.name} died:\n{self.fleet.tail(process.name)}"
            if time.monotonic() > deadline:
                tails = "\n".join(f"--- {name}\n{self.fleet.tail(name)}" for name in self.workers)
                raise AssertionError(f"not through: {self._where()}\n{tails}")
            time.sleep(0.1)

    def drain_processors(self, seconds: float = PATIENCE_S) -> None:
        """Until the processors have committed all events."""
        deadline = time.monotonic() + seconds
        while patiently(self.backlog):
            assert time.monotonic() < deadline, f"not through: {self._where()}"
            time.sleep(0.1)

    def _drained(self) -> bool:
        try:
            return all(self._read_out(stage, topic) for stage, topic in GROUPS)
        except TransportError:
            return False

    def _read_out(self, stage: str, topic: str) -> bool:
        group = f"{self.config.runner.group}-{stage}"
        for partition in range(self.partitions):
            where = TopicPartition(topic, partition)
            committed = self.transport.committed(group, where) or 0
            if next(self.transport.read(where, committed), None) is not None:
                return False
        return True

    def _where(self) -> dict[str, Any]:
        return {stage: self.committed_and_ends(stage, topic) for stage, topic in GROUPS}

    def _next(self, count: int) -> list[OutRecord]:
        assert self._rows is not None
        rows = list(islice(self._rows, count))
        assert rows, "the shop has closed: give it more customers"
        return [OutRecord(topics.EVENTS, row.key, row.value, None, (), row.timestamp) for row in rows]

    # -- the end ----------------------------------------------------------------------------------------------

    def finish(self) -> oracle.Checked:
        """Drain, stop everybody, and hold all that was published against the oracle."""
        self.drain()
        self.stop_all()
        return self.check()

    def check(self) -> oracle.Checked:
        """Hold all that was published against the oracle. Nobody may be at work."""
        checked = oracle.check(self.transport, self.config, self.partitions)
        assert checked.users > 10 and checked.changes > 10, f"nothing to speak of happened: {checked}"
        return checked

    def reopen(self) -> None:
        """A transport of our own."""
        self.transport = patiently(lambda: self.config.transport.open())

    def close(self) -> None:
        self.kill_all()
        self.transport.close()


def patiently(attempt: Callable[[], Any], seconds: float = PATIENCE_S) -> Any:
    """What `attempt` gives, as soon as the transport answers."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return attempt()
        except TransportError:
            if time.monotonic() > deadline:
                raise
            time.sleep(random.uniform(0.1, 0.5))


def embedded_place(directory: Path) -> dict[str, Any]:
    """Settings of a deployment in a directory."""
    return {
        "transport.kind": "embedded",
        "transport.data_dir": str(directory),
        "transport.embedded.synchronous": "normal",
        "transport.embedded.member_lease": 3_000,
    }


def kafka_place(bootstrap: str, prefix: str) -> dict[str, Any]:
    """Settings of a deployment on Kafka, with short time-outs."""
    return {
        "transport.kind": "kafka",
        "transport.kafka.bootstrap_servers": bootstrap,
        "transport.kafka.topic_prefix": prefix,
        "transport.kafka.session_timeout": 3_000,
        "transport.kafka.transaction_timeout": 4_000,
        "transport.kafka.commit_timeout": 8_000,
        "transport.kafka.request_timeout": 5_000,
        "transport.kafka.connect_timeout": 3_000,
        "transport.kafka.stall_timeout": 20_000,
    }
