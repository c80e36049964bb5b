"""The pure kernels of the hot path, each on fixed data: what `benchmarks.counts` counts.

A kernel is called again and again; every call does the same amount of work on the next data, so that what is warmed
by the first calls (caches, the table's growth) is not counted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import repeat
from typing import Any

import numpy as np
from kafka.protocol.consumer import IsolationLevel
from kafka.record.memory_records import MemoryRecords, MemoryRecordsBuilder
from kafka.structs import TopicPartition
from scipy.cluster.vq import kmeans2

from benchmarks.workload import events
from schemas.model import ModelQuality, OutlierThresholds, SegmentProfile
from stream.anomalies.forest import ForestSettings
from stream.anomalies.quarantine import QuarantineSettings
from stream.anomalies.training import Trainer
from stream.config import load
from stream.features.events import decode
from stream.segments.assign import BEHAVIOUR, DecisionSettings
from stream.segments.look import Look, Moment, Triggers
from stream.segments.population import Population
from stream.segments.prototypes import Model, segment_id
from stream.segments.scaling import Scaler
from stream.transport.base import OutRecord
from stream.transport.block import pack_block
from stream.transport.kafka_encode import encode
from stream.transport.kafka_fetch import ColumnRecords, columns
from stream.transport.records import RecordColumns
from stream.transport.spans import list_of, packed

EVENTS = 1_000
"""In a batch."""
USERS = 1_000
NOW = 1_770_000_000_000
_SEGMENTS = 6


@dataclass(frozen=True, slots=True)
class Kernel:
    """`call` does the work, for `units` of `unit` at a time."""

    call: Callable[[], Any]
    units: int
    unit: str


class Kernels:
    """All of them, on one population that has seen some batches."""

    def __init__(self) -> None:
        config = load(None)
        self._ingest = config.ingest
        self._batches = iter(range(1_000))
        self._population = Population(0, config.layout())
        for _ in range(5):
            self._population.know(self._population.table.apply(self._decoded(self._records())).rows)
        self._rows = np.arange(len(self._population))
        self._features = self._population.table.features(self._rows, NOW)
        learned = [feature for feature in config.features if feature.learn]
        model = _model(self._features, learned, [config.layout().names.index(f.name) for f in learned])
        self._scored = self._features[:, model.columns(config.layout().names)]
        self._look = Look(model, DecisionSettings(), QuarantineSettings(), "/counts")
        last = self._records()
        self._triggers = Triggers(
            times=np.full(len(self._rows), NOW),
            records=last,
            positions=self._rows % EVENTS,
            event_ids=[f"event-{row}" for row in self._rows.tolist()],
        )

    def all(self) -> dict[str, Kernel]:
        """By name, in the order of the path."""
        users = len(self._rows)
        records = [self._records() for _ in range(8)]
        decoding = iter(records)
        batches = [self._decoded(self._records()) for _ in range(8)]
        applying = iter(batches)
        table = self._population.table
        keys, values = list_of(records[0].keys), list_of(records[0].values)
        times = records[0].timestamps.tolist()
        outputs = list(map(OutRecord, repeat("events"), keys, values, repeat(None), repeat(()), times))
        fetched = _batch(outputs)
        return {
            "fetch": Kernel(lambda: _take(fetched), EVENTS, "event"),
            "decode": Kernel(lambda: decode(next(decoding), NOW, self._ingest), EVENTS, "event"),
            "apply": Kernel(lambda: table.apply(next(applying)), EVENTS, "event"),
            "features": Kernel(lambda: table.features(self._rows, NOW), users, "user"),
            "publish": Kernel(self._enter, users, "change"),
            "look": Kernel(self._stay, users, "user"),
            "pack": Kernel(lambda: table.pack(self._rows), users, "user"),
            "send": Kernel(lambda: list(encode(outputs, 1 << 20)), EVENTS, "record"),
            "block": Kernel(lambda: pack_block(times, keys, values), EVENTS, "record"),
        }

    def _enter(self) -> None:
        """A look at which everybody enters a segment: a change and a membership for each."""
        self._population.table.column("segment")[:] = 0
        records = self._at()
        assert len(records) == 2 * len(self._rows)

    def _stay(self) -> None:
        """A look that moves nobody."""
        assert not self._at()

    def _at(self) -> list[Any]:
        nobody = np.zeros(len(self._rows), bool)
        moment = Moment(NOW, NOW, BEHAVIOUR)
        standing, streak = self._population.standing(self._rows), self._population.table.column("streak")[self._rows]
        judged = self._look.judge(self._scored, standing, streak, nobody, BEHAVIOUR, NOW)
        return self._look.act(self._population, self._rows, judged, moment, self._triggers)

    def _records(self) -> RecordColumns:
        made = list(events(EVENTS, USERS, NOW, seed=next(self._batches)))
        times = np.full(EVENTS, NOW)
        keys, values = packed([r.key for r in made]), packed([r.value for r in made])
        return RecordColumns("events", 0, np.arange(EVENTS), times, keys, values)

    def _decoded(self, records: RecordColumns) -> Any:
        batch, rejected = decode(records, NOW, self._ingest)
        assert not rejected
        return batch


def _batch(records: list[OutRecord]) -> bytes:
    """The records as a broker keeps them, not compressed."""
    made = MemoryRecordsBuilder(2, 0, 1 << 30)
    for record in records:
        made.append(record.timestamp, record.key, record.value, [])
    made.close()
    return bytes(made.buffer())


def _take(data: bytes) -> None:
    """What a poll does with a fetch response that has come."""
    isolation = IsolationLevel.READ_COMMITTED
    part = ColumnRecords(
        0,
        TopicPartition("events", 0),
        MemoryRecords(data),
        check_crcs=True,
        isolation_level=isolation,
        aborted_transactions=[],
        on_drain=lambda _: None,
    )
    assert len(columns(list(part.take(EVENTS)), "events")) == EVENTS


def _model(features: Any, learned: list[Any], columns: list[int]) -> Model:
    """Six segments and a forest of the default size, of these users; thresholds that nobody passes."""
    x = features[:, columns]
    scaler = Scaler.fit(x, learned)
    z = scaler.transform(x)
    centres, labels = kmeans2(z, _SEGMENTS, minit="++", seed=1)
    numbers = np.arange(1, _SEGMENTS + 1, dtype=np.int32)
    names = [feature.name for feature in learned]
    profiles = tuple(
        SegmentProfile(
            id=segment_id(number),
            name=f"Segment {number}",
            born_version=1,
            size=0.1,
            means=dict.fromkeys(names, 1.0),
            z=dict.fromkeys(names, 0.0),
        )
        for number in numbers.tolist()
    )
    return Model(
        version=1,
        created_at=NOW,
        algorithm="kmeans",
        observations=len(x),
        scaler=scaler,
        centres=centres,
        weights=np.bincount(labels, minlength=_SEGMENTS) / len(x),
        segments=numbers,
        radii=np.ones(_SEGMENTS),
        thresholds=OutlierThresholds(score=1.0, score_release=1.0, distance=1e9, distance_release=1e9),
        quality=ModelQuality(panel=len(x), inertia=1.0),
        profiles=profiles,
        forest=Trainer(ForestSettings()).train(z, scaler.weight),
    )
