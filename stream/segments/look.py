"""One look at some users: scores, quarantine, segment, and the records that this causes.

It is judged for users of any partitions at once, since it costs little more for many than for few, and written down
partition by partition. It writes to nothing but the rows that it is given, and gives the same answer for the same
rows, time and model, whatever else is in the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
import orjson
from numpy.typing import NDArray

from schemas.types import CAUSES
from stream.anomalies.quarantine import QuarantineSettings, decide
from stream.features.texts import chosen
from stream.segments.assign import BEHAVIOUR, QUARANTINE, Assignment, DecisionSettings, Standing, assign
from stream.segments.changes import NULL, Moves, Outlying, Reasons, anomaly_records, change_records, numbers, reference
from stream.segments.population import Population, Rows
from stream.segments.prototypes import Model
from stream.segments.templates import Template
from stream.transport.base import OutRecord, Record
from stream.transport.records import RecordColumns

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Triggers:
    """The events behind a look at m touched users: of each the latest, at `positions` (m,) of a batch's records."""

    times: NDArray[np.int64]
    records: Sequence[Record]
    positions: NDArray[np.integer]
    event_ids: Sequence[str]

    def record(self, i: int) -> Record:
        """The record of one user's event."""
        return self.records[int(self.positions[i])]


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
    moved: NDArray[np.intp]
    """Who changed segment, ascending."""
    why: list[bytes]
    """Of each of these the reasons, in JSON."""

    def part(self, some: slice) -> Judged:
        """The users from `some.start` up to `some.stop`."""
        first, last = np.searchsorted(self.moved, (some.start, some.stop)).tolist()
        return Judged(
            self.seen.part(some),
            self.before.take(some),
            self.decided.part(some),
            self.streak_before[some],
            self.streak[some],
            self.moved[first:last] - some.start,
            self.why[first:last],
        )


class Look:
    """Looks at users with one version of the model.

    Parameters: the model, how calmly to decide, when to quarantine, and the CloudEvents source of this deployment.
    """

    def __init__(self, model: Model, decision: DecisionSettings, quarantine: QuarantineSettings, source: str) -> None:
        self.model = model
        centres = [model.centre_of(segment) for segment in model.segment_ids.tolist()]
        self._centres = np.array([centre for centre in centres if centre is not None])
        """(s, d) of the model's segments."""
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
        old, new = standing.segment, decided.standing.segment
        moved = np.flatnonzero(new != old)
        why = self._why(seen, moved, old[moved], new[moved]) if len(moved) else []
        return Judged(seen, standing, decided, streak, after, moved, why)

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
        written = (after.candidate != before.candidate) | (after.looks != before.looks)
        written[judged.moved] = True
        population.touch(rows[written])
        return self._publish(population, rows, judged, moment, triggers) if len(judged.moved) else []

    def _publish(
        self, population: Population, rows: Rows, judged: Judged, moment: Moment, triggers: Triggers | None
    ) -> list[OutRecord]:
        """Write down each move: by columns, from the table to the records."""
        moved, decided = judged.moved, judged.decided
        table, model, columns = population.table, self.model, rows[moved]
        old, new = judged.before.segment[moved], decided.standing.segment[moved]
        causes = decided.cause[moved]
        table.column("sequence")[columns] += 1
        times = triggers.times[moved] if triggers is not None else np.full(len(moved), moment.at, np.int64)
        table.column("since")[columns] = times
        confidence = np.where(new > 0, np.round(model.confidence(decided.share[moved]), 4), 1.0)
        left, entered = old.tolist(), new.tolist()
        named = {segment: self._reference(segment) for segment in {*left, *entered}}
        sources, event_ids = self._behind(population, moved, causes, triggers)
        moves = Moves(
            user_id=list(map(table.user_ids.__getitem__, columns.tolist())),
            sequence=table.column("sequence")[columns].tolist(),
            left=list(map(named.__getitem__, left)),
            entered=list(map(named.__getitem__, entered)),
            cause=causes.tolist(),
            occurred_at=times.tolist(),
            detected_at=[moment.detected_at] * len(moved),
            confidence=numbers(confidence),
            why=judged.why,
            source=sources,
            event_id=event_ids,
        )
        for one in zip(left, entered, strict=True):
            population.moved(*one)
        records = change_records(moves, model.version, self._source, population.partition)
        outliers = np.flatnonzero((old == QUARANTINE) | (new == QUARANTINE))
        anomalies = self._anomalies(population, judged.seen, moved, moves, outliers.tolist(), new)
        for count, (at, anomaly) in enumerate(zip(outliers.tolist(), anomalies, strict=True)):
            # Behind the two records of the move itself, and what was put in before.
            records.insert(2 * (at + 1) + count, anomaly)
        for cause, count in zip(CAUSES, np.bincount(causes, minlength=len(CAUSES)).tolist(), strict=True):
            if count:
                population.counters[f"changes.{cause}"] += count
        return records

    @staticmethod
    def _behind(
        population: Population, moved: NDArray[np.intp], causes: NDArray[np.int8], triggers: Triggers | None
    ) -> tuple[list[bytes], list[bytes]]:
        """Of each move where the event stands that caused it, and its id, in JSON; null where none did."""
        sources, event_ids = [NULL] * len(moved), [NULL] * len(moved)
        if triggers is not None and len(caused := np.flatnonzero(causes == BEHAVIOUR)):
            own = moved[caused]
            stand, times = positions(triggers.records, triggers.positions[own])
            population.arrived += times
            ids = map(orjson.dumps, chosen(triggers.event_ids, own))
            for at, source, event_id in zip(caused.tolist(), stand, ids, strict=True):
                sources[at], event_ids[at] = source, event_id
        return sources, event_ids

    def _reference(self, segment: int) -> bytes:
        if segment not in self._references:
            self._references[segment] = reference(segment, self.model.names)
        return self._references[segment]

    def _why(self, seen: _Seen, moved: NDArray[np.intp], old: NDArray[np.int32], new: NDArray[np.int32]) -> list[bytes]:
        z = seen.z[moved]
        away, towards = self._centres_of(old, 0.0), self._centres_of(new, np.nan)
        if len(held := np.flatnonzero(new == QUARANTINE)):
            # What is usual in the segment that is nearest gives nobody away.
            gaps = ((z[held, None, :] - self._centres) ** 2).sum(axis=2)
            away[held] = self._centres[gaps.argmin(axis=1)]
        return self._reasons.of(seen.features[moved], z, away, towards, new.tolist())

    def _centres_of(self, segments: NDArray[np.int32], otherwise: float) -> FloatArray:
        """(m, d) the centres of m segments; `otherwise` for those that are none of the model's."""
        known = self.model.segment_ids
        at = np.minimum(np.searchsorted(known, segments), len(known) - 1)
        return np.where((known[at] == segments)[:, None], self._centres[at], otherwise)

    def _anomalies(
        self,
        population: Population,
        seen: _Seen,
        moved: NDArray[np.intp],
        moves: Moves,
        outliers: list[int],
        new: NDArray[np.int32],
    ) -> list[OutRecord]:
        """The records of those moves that went into quarantine or out of it."""
        if not outliers:
            return []
        kinds = ["entered" if segment == QUARANTINE else "released" for segment in new[outliers].tolist()]
        for kind in kinds:
            population.counters[f"anomalies.{kind}"] += 1
        limits, own = self.model.thresholds, moved[outliers]
        found = Outlying(
            kinds,
            [round(score, 6) for score in seen.score[own].tolist()],
            limits.score if limits else 1.0,
            [round(distance, 4) for distance in seen.distance[own].tolist()],
            limits.distance if limits else 0.0,
        )
        return anomaly_records(moves.some(outliers), found, self.model.version, population.partition)


_POSITION: Final = Template(b'{"topic":%b,"partition":%d,"offset":%d}')


def positions(records: Sequence[Record], at: NDArray[np.integer]) -> tuple[list[bytes], list[int]]:
    """Of the records `at` (m,) where they stand, as SourcePositions in JSON, and their times."""
    if isinstance(records, RecordColumns):
        count, topic = len(at), _quoted(records.topic)
        where = _POSITION.fill([topic] * count, [records.partition] * count, records.offsets[at].tolist())
        return where, records.timestamps[at].tolist()
    some = [records[i] for i in at.tolist()]
    return [position(record) for record in some], [record.timestamp for record in some]


def position(record: Record | None) -> bytes:
    """Where the event stands that caused a change, as a SourcePosition in JSON; null where none did."""
    if record is None:
        return NULL
    return _POSITION.one(_quoted(record.topic), record.partition, record.offset)


@lru_cache(maxsize=64)
def _quoted(topic: str) -> bytes:
    return orjson.dumps(topic)
