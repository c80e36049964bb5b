"""The processor: events in; changes, memberships, anomalies, observations and dead letters out.

One batch is decoded, applied to the user table and looked at with numpy; Python touches single users only where
a segment changed. Time is a user event too: at every multiple of the sweep interval everybody is looked at
again, so that silence moves people. With the data's own clock a batch is cut at those times, so that how the
events were batched does not matter.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from schemas import topics
from stream.anomalies.quarantine import QuarantineSettings
from stream.durations import Duration
from stream.features.batch import KINDS, EventBatch
from stream.features.events import IngestSettings, Rejected, decode
from stream.features.layout import Layout
from stream.features.table import Applied
from stream.features.texts import chosen
from stream.runtime import crash
from stream.runtime.metrics import Recorder
from stream.runtime.share import Share
from stream.runtime.stage import Output, Stage
from stream.segments.assign import (
    BEHAVIOUR,
    INACTIVITY,
    MODEL,
    DecisionSettings,
)
from stream.segments.dead_letters import dead_letter, too_late
from stream.segments.look import Moment, Triggers
from stream.segments.observations import Sampler, SamplerSettings
from stream.segments.population import Population
from stream.segments.prototypes import Model
from stream.segments.rules import RuleSegment
from stream.segments.tally import Tally
from stream.segments.viewer import Glance, Viewer
from stream.transport.base import OutRecord, Record
from stream.transport.records import timestamps_of

log = logging.getLogger(__name__)

SWEEP_CHUNK = 5_000
"""Users looked at between two looks at the time."""
CATCH_UP_SWEEPS = 100
"""Silence of many sweep intervals is swept at this many of them at most, evenly: an idle year is no stall."""


class ProcessorSettings(BaseModel):
    """How the processor works through its partitions."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    batch_records: int = Field(
        default=20_000,
        ge=1,
        le=1_000_000,
        description="At most so many events a poll under the wall clock: a backlog is worked off in large batches, "
        "which cost less for each event. Where the clock is the data's own it is runner.batch_records",
    )
    sweep_interval: Duration = Field(
        default=30_000,
        ge=1_000,
        description="How often everybody is looked at again; silence moves people at the second",
    )
    record_sweep_interval: Duration = Field(
        default=topics.DAY_MS, ge=1_000, description="The same where the clock is the data's own (replays)"
    )
    sweep_slice: int = Field(default=50_000, ge=100, description="Users of a sweep between two batches")
    sweep_time: Duration = Field(
        default=100, ge=1, description="... and how long they may take, however many of them move"
    )
    sweep_share: float = Field(
        default=0.5, gt=0, le=1, description="Of the time, for sweeps at the most while events are coming in"
    )
    source: str = Field(default="/resegment", min_length=1, description="CloudEvents source of this deployment")


@dataclass(slots=True)
class _Slice:
    """What is left of one call for users without an event of theirs: so many, until then by time.perf_counter()."""

    users: int
    deadline: float

    def room(self) -> int:
        """How many may be looked at before the next look at the time."""
        if self.deadline == float("inf"):
            return self.users
        return 0 if time.perf_counter() >= self.deadline else min(self.users, SWEEP_CHUNK)


class Processor(Stage):
    """The stage. Its parameters are settings and the compiled layout (with population.COLUMNS as extras)."""

    name = "processor"
    tables = (topics.SEGMENT_MODEL,)
    changelog = topics.USER_STATE

    def __init__(
        self,
        layout: Layout,
        *,
        inputs: Sequence[str] = (topics.EVENTS,),
        settings: ProcessorSettings | None = None,
        ingest: IngestSettings | None = None,
        decision: DecisionSettings | None = None,
        quarantine: QuarantineSettings | None = None,
        sampler: Sampler | None = None,
        rules: Sequence[RuleSegment] = (),
        recorder: Recorder | None = None,
    ) -> None:
        self.inputs = tuple(inputs)
        self.layout = layout
        self.rules = tuple(rules)
        self.populations: dict[int, Population] = {}
        self._settings = settings or ProcessorSettings()
        self._ingest = ingest or IngestSettings()
        self._viewer = Viewer(
            layout,
            decision or DecisionSettings(),
            quarantine or QuarantineSettings(),
            sampler or Sampler(SamplerSettings(), partitions=1),
            rules,
            self._settings.source,
        )
        self._tally = Tally(self.name, self.populations, recorder)
        self._newest: bytes | None = None
        self._pinned: bytes | None = None
        self._used: bytes | None = None
        self._sweeps: dict[int, int] = {}  # by partition, the next row of a running sweep
        self._sweep_share = Share(self._settings.sweep_share)
        self._busy = False

    # -- the stage's calls ------------------------------------------------------------------------------------

    def restoring(self, partition: int, deltas: Iterable[tuple[dict[str, Any], bytes]]) -> Generator[None, None, None]:
        """Take a partition over."""
        population = Population(partition, self.layout)
        yield from population.restoring(deltas)
        self._viewer.adopt(population)
        self.populations[partition] = population

    def drop(self, partition: int) -> None:
        """Give a partition up."""
        del self.populations[partition]
        self._sweeps.pop(partition, None)

    def update_table(self, topic: str, records: Sequence[Record]) -> None:
        """Follow the published models: the newest one counts, unless one is pinned."""
        for record in records:
            if record.key == topics.MODEL_PIN_KEY:
                self._pinned = record.value
            elif record.value is not None:
                self._newest = record.value
        value = self._pinned if self._pinned is not None else self._newest
        if value is None or value == self._used:
            return
        self._used = value
        try:
            self._viewer.use(Model.from_bytes(value))
        except ValueError as error:
            log.warning("waiting for a model that fits: %s", error)

    @property
    def model(self) -> Model | None:
        """The version that users are scored with; None before the first."""
        return self._viewer.model

    def process(self, batch: Mapping[int, Sequence[Record]], now_ms: int | None) -> Output:
        """Apply events and look at the users that they touched."""
        output = Output()
        self._busy = True
        before = self._tally.totals()
        slice_ = self._slice(now_ms)
        glances: list[Glance] = []
        for partition, records in batch.items():
            population = self.populations[partition]
            self._switch_model(population, slice_, output.records)
            if now_ms is not None:
                population.clock = max(population.clock, now_ms)
                glances += self._apply(population, records, now_ms, output.records)
            else:
                while self._viewer.follow_edit(population, output.records):
                    pass
                for piece in self._cut(population, records, output.records):
                    population.clock = max(population.clock, int(timestamps_of(piece).max()))
                    self._viewer.look_at(self._apply(population, piece, None, output.records), output.records)
        self._viewer.look_at(glances, output.records)
        for partition in batch:
            output.state[partition] = self.populations[partition].delta()
        self._tally.tell(before, self.model, wall_clock=now_ms is not None)
        return output

    def tick(self, now_ms: int | None) -> Output | None:
        """Sweep, one slice a call. Under the data's own clock sweeps happen in `process`, between its records.

        Sweeps take no more than their share while events come in: who waits for nothing else may sweep on.
        """
        if now_ms is None:
            return None
        output = Output()
        before = self._tally.totals()
        changed: set[int] = set()
        slice_ = self._slice(now_ms)
        for partition, population in self.populations.items():
            population.clock = max(population.clock, now_ms)
            switched = self._switch_model(population, slice_, output.records)
            followed = self._viewer.follow_edit(population, output.records)
            if switched or followed:
                changed.add(partition)
        if not self._busy or not self._sweep_share.left():
            with self._sweep_share.working():
                changed |= self._sweep(slice_, output.records)
        self._busy = False
        output.state = {partition: self.populations[partition].delta() for partition in sorted(changed)}
        self._tally.tell(before, self.model, wall_clock=True)
        return output if output.state else None

    # -- events -----------------------------------------------------------------------------------------------

    def _apply(
        self, population: Population, records: Sequence[Record], now_ms: int | None, out: list[OutRecord]
    ) -> list[Glance]:
        """Bring events into the table; returns whom to look at, if anybody."""
        batch, rejected = decode(records, now_ms, self._ingest)
        switching = self.model is not None and population.model_version != self.model.version
        if switching:
            self._switch_ahead(population, batch.user_ids, out)
        applied = population.table.apply(batch)
        crash.reach("in_apply")
        self._count(population, batch, applied, rejected)
        detected_at = population.clock
        out += [dead_letter(records[r.index], r, detected_at) for r in rejected]
        out += [
            too_late(records[batch.position[i]], self.layout.lateness_ms, detected_at)
            for i in np.flatnonzero(applied.too_late).tolist()
        ]
        if not len(applied.rows):
            return []
        population.know(applied.rows)
        if switching:
            population.table.column("switched")[applied.rows] = population.switching[0]
        population.touch(applied.rows)
        latest = applied.last_event
        triggers = Triggers(
            times=batch.time[latest],
            records=records,
            positions=batch.position[latest],
            event_ids=chosen(batch.event_ids, latest),
        )
        moment = Moment(population.now(), detected_at, BEHAVIOUR)
        return [Glance(population, applied.rows, moment, triggers)]

    @staticmethod
    def _count(population: Population, batch: EventBatch, applied: Applied, rejected: Sequence[Rejected]) -> None:
        counters = population.counters
        counts = np.bincount(batch.kind[applied.accepted], minlength=len(KINDS))
        for kind, count in zip(KINDS, counts.tolist(), strict=True):
            if count:
                counters[f"accepted.{kind}"] += count
        repeated = np.bincount(batch.kind[applied.duplicate], minlength=len(KINDS))
        for kind, count in zip(KINDS, repeated.tolist(), strict=True):
            if count:
                counters[f"duplicate.{kind}"] += count
        if late := int(applied.too_late.sum()):
            counters["dead.too_late"] += late
        for one in rejected:
            counters[f"dead.{one.reason}"] += 1

    # -- switches ---------------------------------------------------------------------------------------------

    def _slice(self, now_ms: int | None) -> _Slice:
        """How many users may be looked at without an event of theirs in this call, and for how long."""
        if now_ms is None:
            return _Slice(sys.maxsize, float("inf"))
        return _Slice(self._settings.sweep_slice, time.perf_counter() + self._settings.sweep_time / 1000)

    def _switch_model(self, population: Population, left: _Slice, out: list[OutRecord]) -> bool:
        """Relabel everybody under a new version: what moves now, the segments moved. Whether anybody was looked at.

        Under the wall clock a slice at a time, so that a million users stall nobody's events; whoever does something
        meanwhile is relabelled just before that (`_switch_ahead`). Under the data's own clock at one instant.
        """
        if self.model is None or self.model.version == population.model_version:
            return False
        version = self.model.version
        if population.switching[0] != version:
            population.switching = (version, 0)
        began = population.switching[1]
        while (start := population.switching[1]) < len(population) and (room := left.room()):
            rows = np.arange(start, min(start + room, len(population)))
            left.users -= len(rows)
            if len(waiting := population.unswitched(rows)):
                self._viewer.look(population, waiting, Moment(population.now(), population.clock, MODEL), out)
                crash.reach("at_model_switch")
            population.switching = (version, start + len(rows))
        if population.switching[1] < len(population):
            return population.switching[1] > began
        population.model_version = version
        return True

    def _switch_ahead(self, population: Population, user_ids: Iterable[str], out: list[OutRecord]) -> None:
        """Bring these users under the version that a running switch brings to everybody, before they do something."""
        found = {row for user in user_ids if (row := population.table.lookup(user)) is not None}
        rows = population.unswitched(np.array(sorted(found), np.intp))
        if len(rows):
            self._viewer.look(population, rows, Moment(population.now(), population.clock, MODEL), out)

    # -- sweeps -----------------------------------------------------------------------------------------------

    def _cut(
        self, population: Population, records: Sequence[Record], out: list[OutRecord]
    ) -> Iterator[Sequence[Record]]:
        """Records up to the next sweep, then that sweep, and so on; by arrival, under the data's own clock."""
        interval = self._settings.record_sweep_interval
        slots = np.maximum.accumulate(timestamps_of(records)) // interval
        last = population.swept_at // interval if population.swept_at else int(slots[0])
        population.swept_at = last * interval
        start = 0
        for cut in [*(np.flatnonzero(np.diff(slots, prepend=last) > 0).tolist()), len(records)]:
            if cut > start:
                yield records[start:cut]
            if cut < len(records):
                self._sweep_between(population, last, int(slots[cut]), out)
                last = max(last, int(slots[cut]))
            start = cut

    def _sweep_between(self, population: Population, last: int, slot: int, out: list[OutRecord]) -> None:
        interval = self._settings.record_sweep_interval
        due = np.arange(last + 1, slot + 1)
        if len(due) > CATCH_UP_SWEEPS:
            due = np.unique(np.linspace(last + 1, slot, CATCH_UP_SWEEPS).round().astype(np.int64))
        for number in due.tolist():
            population.clock = max(population.clock, number * interval)
            rows = np.arange(len(population))
            if len(rows):
                self._viewer.look(population, rows, Moment(population.now(), population.clock, INACTIVITY), out)
                crash.reach("in_sweep")
            population.swept_at = number * interval
            population.counters["sweeps"] += 1

    def _sweep(self, left: _Slice, out: list[OutRecord]) -> set[int]:
        """The next users of the sweeps that are due; the partitions that they are in."""
        swept = set()
        for partition, population in self.populations.items():
            while (room := left.room()) and (looked := self._sweep_slice(population, room, out)) is not None:
                left.users -= looked
                swept.add(partition)
        return swept

    def _sweep_slice(self, population: Population, room: int, out: list[OutRecord]) -> int | None:
        """The next users of a sweep that is due under the wall clock, at most `room`; a sweep is over after the last.

        Returns how many there were, None where no sweep is due.
        """
        start = self._sweeps.get(population.partition)
        if self.model is not None and population.model_version != self.model.version:
            return None  # a switch comes first: what it moves, silence did not
        if start is None:
            if population.clock - population.swept_at < self._settings.sweep_interval:
                return None
            population.swept_at, start = population.clock, 0
        rows = np.arange(start, min(start + room, len(population)))
        began = time.perf_counter()
        if len(rows):
            self._viewer.look(population, rows, Moment(population.now(), population.clock, INACTIVITY), out)
            crash.reach("in_sweep")
        self._tally.sweep(time.perf_counter() - began, len(rows))
        if start + len(rows) < len(population):
            self._sweeps[population.partition] = start + len(rows)
        else:
            self._sweeps.pop(population.partition, None)
            population.counters["sweeps"] += 1
        return len(rows)
