"""One look at some users: scores, quarantine, segment, and the records that this causes.

It is judged for users of any partitions at once, since it costs little more for many than for few, and written down
partition by partition. It writes to nothing but the rows that it is given, and gives the same answer for the same
rows, time and model, whatever else is in the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import orjson
from numpy.typing import NDArray

from schemas.types import CAUSES
from stream.anomalies.quarantine import QuarantineSettings, decide
from stream.segments.assign import BEHAVIOUR, QUARANTINE, Assignment, DecisionSettings, Standing, assign
from stream.segments.changes import NULL, Moved, Reasons, anomaly_record, change_records, numbers, reference
from stream.segments.population import Population, Rows
from stream.segments.prototypes import Model
from stream.transport.base import OutRecord, Record

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Triggers:
    """The events behind a look at touched users: for each looked-at row its latest event."""

    times: NDArray[np.int64]
    records: Sequence[Record]
    event_ids: Sequence[str]


@dataclass(frozen=True, slots=True)
class Moment:
    """When and why a look takes place: event time, the detecting clock, and the cause code that it stands for."""

    at: int
    detected_at: int
    cause: int


@dataclass(frozen=True, slots=True)
class _Seen:
    """What the look measured, one row a user."""

    features: FloatArray
    z: FloatArray
    score: FloatArray
    distance: FloatArray

    def part(self, some: slice) -> _Seen:
        return _Seen(self.features[some], self.z[some], self.score[some], self.distance[some])


@dataclass(frozen=True, slots=True)
class Judged:
    """What a look found and decided, one row a user; nothing is written down yet."""

    seen: _Seen
    before: Standing
    decided: Assignment
    streak_before: NDArray[np.int8]
    streak: NDArray[np.int8]

    def part(self, some: slice) -> Judged:
        """Some of the users."""
        return Judged(
            self.seen.part(some),
            self.before.take(some),
            self.decided.part(some),
            self.streak_before[some],
            self.streak[some],
        )


class Look:
    """Looks at users with one version of the model.

    Parameters: the model, how calmly to decide, when to quarantine, and the CloudEvents source of this deployment.
    """

    def __init__(self, model: Model, decision: DecisionSettings, quarantine: QuarantineSettings, source: str) -> None:
        self.model = model
        self._centres = {
            segment: centre
            for segment in model.segment_ids.tolist()
            if (centre := model.centre_of(segment)) is not None
        }
        self._reasons = Reasons(model.features, model.means, model.scaler.weight)
        self._references: dict[int, bytes] = {}
        self._decision = decision
        self._quarantine = quarantine
        self._source = source

    def judge(
        self,
        features: FloatArray,
        standing: Standing,
        streak: NDArray[np.int8],
        newcomer: NDArray[np.bool_],
        cause: int,
        at: int | NDArray[np.int64],
    ) -> Judged:
        """Decide m users, of whatever partitions, from their learned `features` (m, d), NaN where unknown.

        `streak` (m,) are their looks that spoke against quarantine's present answer; `at` is the time of the look, one
        for all or (m,).
        """
        z = self.model.scale(features)
        distances = self.model.segment_distances(z)
        held = standing.segment == QUARANTINE
        # Only what people do puts them in. Silence and new models may let them out, but hold nobody; and a newcomer's
        # few events are no evidence yet. A score is asked for those alone of whom it decides.
        free = ~held & (newcomer | (cause != BEHAVIOUR))
        judged = np.flatnonzero(~free)
        score = np.zeros(len(features))
        score[judged] = self.model.outlier_scores(z[judged])
        seen = _Seen(features, z, score, distances.min(axis=1))
        held, after = self._hold(seen, held, streak, judged)
        noise = self.model.noise(z)
        decided = assign(distances, self.model.segment_ids, standing, newcomer, held, cause, at, self._decision, noise)
        return Judged(seen, standing, decided, streak, after)

    def _hold(
        self, seen: _Seen, held: NDArray[np.bool_], streak: NDArray[np.int8], judged: NDArray[np.intp]
    ) -> tuple[NDArray[np.bool_], NDArray[np.int8]]:
        """Who is in quarantine after this look, and their streaks; only those who are `judged` come in or out."""
        if self.model.thresholds is None or not len(judged):
            return held, streak
        verdict = decide(
            seen.score[judged],
            seen.distance[judged],
            self.model.thresholds,
            held[judged],
            streak[judged],
            self._quarantine,
        )
        held, streak = held.copy(), streak.copy()
        held[judged], streak[judged] = verdict.held, verdict.streak
        return held, streak

    def act(
        self, population: Population, rows: Rows, judged: Judged, moment: Moment, triggers: Triggers | None = None
    ) -> list[OutRecord]:
        """Write down what was decided of `rows` (m,); returns the records of those that moved."""
        before, after = judged.before, judged.decided.standing
        if len(turned := np.flatnonzero(judged.streak != judged.streak_before)):
            population.table.column("streak")[rows[turned]] = judged.streak[turned]
            population.touch(rows[turned])
        population.settle(rows, after)
        moved = after.segment != before.segment
        population.touch(rows[moved | (after.candidate != before.candidate) | (after.looks != before.looks)])
        return self._publish(
            population, rows, judged.seen, before, judged.decided, np.flatnonzero(moved), moment, triggers
        )

    def _publish(
        self,
        population: Population,
        rows: Rows,
        seen: _Seen,
        before: Standing,
        decided: Assignment,
        moved: NDArray[np.intp],
        moment: Moment,
        triggers: Triggers | None,
    ) -> list[OutRecord]:
        """Write down each move; the one place where Python touches single users."""
        if not len(moved):
            return []
        table, model, columns = population.table, self.model, rows[moved]
        old, new = before.segment[moved], decided.standing.segment[moved]
        causes = decided.cause[moved]
        table.column("sequence")[columns] += 1
        times = triggers.times[moved] if triggers is not None else np.full(len(moved), moment.at, np.int64)
        table.column("since")[columns] = times
        confidence = np.where(new > 0, np.round(model.confidence(decided.share[moved]), 4), 1.0)
        reached = zip(
            moved.tolist(),
            columns.tolist(),
            old.tolist(),
            new.tolist(),
            causes.tolist(),
            table.column("sequence")[columns].tolist(),
            times.tolist(),
            numbers(confidence),
            self._why(seen, moved, old, new),
            strict=True,
        )
        records: list[OutRecord] = []
        for i, row, left, entered, cause, sequence, occurred_at, sure, why in reached:
            record = triggers.records[i] if triggers is not None and cause == BEHAVIOUR else None
            if record is not None:
                population.arrived.append(record.timestamp)
            move = Moved(
                table.user_ids[row],
                sequence,
                self._reference(left),
                self._reference(entered),
                cause,
                occurred_at,
                moment.detected_at,
                sure,
                why,
                position(record),
                triggers.event_ids[i] if triggers is not None and record is not None else None,
            )
            records += change_records(move, model.version, self._source, population.partition)
            population.moved(left, entered)
            if QUARANTINE in (left, entered):
                kind: Literal["entered", "released"] = "entered" if entered == QUARANTINE else "released"
                records.append(self._anomaly(population, move, kind, seen, i))
        for cause, count in zip(*(each.tolist() for each in np.unique(causes, return_counts=True)), strict=True):
            population.counters[f"changes.{CAUSES[cause]}"] += count
        return records

    def _reference(self, segment: int) -> bytes:
        if segment not in self._references:
            self._references[segment] = reference(segment, self.model.names)
        return self._references[segment]

    def _why(self, seen: _Seen, moved: NDArray[np.intp], old: NDArray[np.int32], new: NDArray[np.int32]) -> list[bytes]:
        z, segments = seen.z[moved], new.tolist()
        nowhere, unknown = np.zeros(z.shape[1]), np.full(z.shape[1], np.nan)
        away = np.array([self._centres.get(segment, nowhere) for segment in old.tolist()])
        towards = np.array([self._centres.get(segment, unknown) for segment in segments])
        for i in np.flatnonzero(new == QUARANTINE).tolist():
            # What is usual in the segment that is nearest gives nobody away.
            away[i] = min(self._centres.values(), key=lambda centre: float(((z[i] - centre) ** 2).sum()))
        return self._reasons.of(seen.features[moved], z, away, towards, segments)

    def _anomaly(
        self, population: Population, move: Moved, kind: Literal["entered", "released"], seen: _Seen, i: int
    ) -> OutRecord:
        population.counters[f"anomalies.{kind}"] += 1
        limits = self.model.thresholds
        scores = {
            "score": round(float(seen.score[i]), 6),
            "score_threshold": limits.score if limits else 1.0,
            "distance": round(float(seen.distance[i]), 4),
            "distance_threshold": limits.distance if limits else 0.0,
        }
        return anomaly_record(move, kind, self.model.version, scores, population.partition)


def position(record: Record | None) -> bytes:
    """Where the event stands that caused a change, as a SourcePosition in JSON; null where none did."""
    if record is None:
        return NULL
    return b'{"topic":%b,"partition":%d,"offset":%d}' % (_quoted(record.topic), record.partition, record.offset)


@lru_cache(maxsize=64)
def _quoted(topic: str) -> bytes:
    return orjson.dumps(topic)
