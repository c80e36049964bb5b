"""The modeller: observations in, versions of the model out. One is active; the one-partition topic elects it.

Invariants. It learns record by record and row by row: what it publishes does not depend on how observations were
batched, nor on any wall clock (which only decides when a checkpoint is due). A publish, the state after it and the
offsets are one commit. After a crash the rows since the last checkpoint are learned again with the same result, since
a checkpoint holds everything as plain numbers: the panel, the learner, the scale, the last version, and the distances
that ADWIN has seen since the last review, from which it is built again (River's own state is opaque).
"""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from schemas import topics
from schemas.model import SegmentModel
from stream.anomalies.training import Trainer
from stream.runtime import crash
from stream.runtime.metrics import Recorder
from stream.runtime.stage import Output, Stage, StateDelta
from stream.segments.assign import share_of
from stream.segments.calibration import Calibration
from stream.segments.clusterers import LEARNERS
from stream.segments.drift import DriftWatch
from stream.segments.learner import Learner
from stream.segments.observations import QUARANTINED, Observations, feature_fingerprint
from stream.segments.packing import pack, unpack
from stream.segments.panel import Panel
from stream.segments.promotion import Budget, Moves, Ruling
from stream.segments.prototypes import Model, segment_id
from stream.segments.recent import Recent
from stream.segments.review import Candidate, People, build, propose, shadow, uncovered, worth
from stream.segments.scaling import FeatureInfo, Scaler
from stream.segments.settings import ModellerSettings
from stream.transport.base import OutRecord, Record

FloatArray = NDArray[np.float64]

log = logging.getLogger(__name__)

STATE_FORMAT: Final = 2
PARTITION: Final = 0


class _Placed(NamedTuple):
    """Rows under the published version."""

    z: FloatArray
    """On the learner's scale."""
    distance: list[float]
    """To the nearest published prototype; 0 where there is no version to compare with."""
    share: list[float]
    """rival / (own + rival) of the segment that each was observed in; empty without such a version."""


class Modeller(Stage):
    """The stage. `features` are those that observations carry, in that order."""

    name = "modeller"
    inputs = (topics.OBSERVATIONS,)
    changelog = topics.MODELLER_STATE

    def __init__(
        self,
        features: Sequence[FeatureInfo],
        settings: ModellerSettings | None = None,
        *,
        recorder: Recorder | None = None,
    ) -> None:
        self.features = tuple(features)
        self._recorder = recorder
        self.settings = settings or ModellerSettings()
        self._names = tuple(feature.name for feature in features)
        self._fingerprint = feature_fingerprint(self._names)
        self._trainer = Trainer(self.settings.forest)
        self._clear()

    def _clear(self) -> None:
        self.model: Model | None = None
        """The last version (without its forest after a restore: only scorers need that)."""
        self.panel = Panel(self.settings.buffer, len(self.features))
        self._recent = Recent(self.settings.recent, len(self.features))
        self.learner: Learner | None = None
        self.counters = dict.fromkeys(
            ("observations", "reviews", "drift_reviews", "held", "skipped_records", "skipped_rows"), 0
        )
        self._budget = Budget(self.settings.promotion)
        self._calibration = Calibration(self.settings.confidence_horizon)
        self._scaler: Scaler | None = None
        self._next_number = 1
        self._steady = np.zeros(0, np.int64)
        self._clock = 0
        self._first_at = 0
        self._reviewed_at = 0
        self._since_review = 0
        self._review_now = False
        self._watch = DriftWatch(self.settings.review)
        self._unsaved = 0
        self._saved_at: int | None = None

    # -- the stage's calls ------------------------------------------------------------------------------------

    def process(self, batch: Mapping[int, Sequence[Record]], now_ms: int | None) -> Output:
        """Learn from observations; publish where one of them made it due."""
        output = Output(commit=False)
        learned = self.counters["observations"]
        for record in batch.get(PARTITION, ()):
            observations = self._decode(record)
            if observations is not None:
                self._learn(observations, output.records)
        if self._recorder is not None:
            self._recorder.learned(self.counters["observations"] - learned)
        if output.records or self._unsaved >= self.settings.checkpoint_observations:
            self._save(output, now_ms)
        return output

    def tick(self, now_ms: int | None) -> Output | None:
        """Checkpoint by the wall clock, so that a quiet topic's offsets are committed too."""
        if now_ms is None or not self._unsaved:
            return None
        if self._saved_at is None:
            self._saved_at = now_ms
        if now_ms - self._saved_at < self.settings.checkpoint_interval:
            return None
        output = Output()
        self._save(output, now_ms)
        return output

    def restoring(self, partition: int, deltas: Iterable[tuple[dict[str, Any], bytes]]) -> Generator[None, None, None]:
        """Take over; each delta is the whole state, so the last one counts."""
        payload: bytes | None = None
        for _, payload in deltas:  # noqa: B007
            yield
        self._clear()
        if payload is not None:
            self._load(payload)

    def drop(self, partition: int) -> None:
        """Give up."""
        self._clear()

    def take_over(self, model: Model | None, next_number: int) -> StateDelta:
        """The state of one that knows the last published version, and nothing else: where its own was lost.

        `next_number` is the first segment number that was never used.
        """
        self._clear()
        self.model, self._next_number = model, next_number
        output = Output()
        self._save(output, None)
        return output.state[PARTITION]

    # -- learning ---------------------------------------------------------------------------------------------

    def _decode(self, record: Record) -> Observations | None:
        """None for what cannot be learned from: it is counted and passed over, because it would never get better."""
        self._unsaved += 1
        try:
            observations = Observations.decode(record.value or b"")
        except ValueError as error:
            self.counters["skipped_records"] += 1
            log.warning("observation record %d is passed over: %s", record.offset, error)
            return None
        if observations.fingerprint != self._fingerprint or observations.features.shape[1] != len(self.features):
            self.counters["skipped_rows"] += len(observations)
            log.warning("observation record %d is passed over: it is of another set of features", record.offset)
            return None
        return observations

    def _learn(self, seen: Observations, out: list[OutRecord]) -> None:
        start = 0
        while start < len(seen):
            # Rows are scaled together up to the next review, which may change the scale.
            start = self._learn_until_review(seen, start)
            if self._due():
                self._review(out)

    def _learn_until_review(self, seen: Observations, start: int) -> int:
        """Learn rows from `start` until a review is due; returns the first row that was not learned."""
        placed = self._scaled(seen.features[start:], seen.segment[start:])
        standing = seen.segment[start:].tolist()
        users, times = seen.user_hash[start:].tolist(), seen.at_ms[start:].tolist()
        flags, weights = seen.flags[start:].tolist(), seen.weight[start:].tolist()
        for i, user in enumerate(users):
            self._unsaved += 1
            self._clock = max(self._clock, times[i])
            self._first_at = self._first_at or self._clock
            if flags[i] & QUARANTINED:
                self.panel.remove(user)
                self._calibration.forget(user)
            else:
                left = self.panel.put(
                    user, times[i], weights[i], seen.features[start + i], placed.z[i], placed.distance[i]
                )
                if left is not None:
                    self._calibration.forget(left)
                self._recent.put(seen.features[start + i])
                self.counters["observations"] += 1
                self._since_review += 1
                if self.learner is not None:
                    self._learn_one(self.learner)
                if standing[i] > 0 and placed.share:
                    self._calibration.note(user, standing[i], placed.share[i], times[i])
            if self._due():
                return start + i + 1
        return len(seen)

    def _learn_one(self, learner: Learner) -> None:
        """For each observation the learner gets one user of the panel, drawn at random.

        Observations themselves come hourly from the busy and ever more rarely from the silent: learned as they come,
        they would pull the centres to the busy, and each review would have to pull them back.
        """
        row = self.panel.draw(self.counters["observations"])
        learner.learn(self.panel.scaled[row])
        if self.model is not None and self._comparable:
            self._watch.see(
                float(self.panel.distance[row]), self.panel.distance, self.panel.weight, self.model.quality.inertia
            )

    @property
    def _comparable(self) -> bool:
        """Whether there is a published version, of the features of today."""
        return self.model is not None and self.model.features == self._names

    def _scaled(self, features: FloatArray, segment: NDArray[np.int32] | None = None) -> _Placed:
        """Scaled rows, and where they stand under the published version."""
        z = features if self._scaler is None else self._scaler.transform(features)
        if self.model is None or not self._comparable:
            return _Placed(z, [0.0] * len(z), [])
        own = self.model.scale(features)
        distance = self.model.nearest(own).distance.tolist()
        if segment is None:
            return _Placed(z, distance, [])
        return _Placed(
            z, distance, share_of(self.model.segment_distances(own), self.model.segment_ids, segment).tolist()
        )

    def _place(self) -> None:
        """Scale or version changed: place the panel's people anew."""
        placed = self._scaled(self.panel.features)
        self.panel.scaled[:], self.panel.distance[:] = placed.z, placed.distance

    # -- reviews ----------------------------------------------------------------------------------------------

    def _due(self) -> bool:
        rules, n = self.settings.review, self._since_review
        if self._review_now:
            return n >= min(rules.drift_fewest, len(self.panel))
        if self.learner is None:
            needed = self.settings.warm_up.needed(self._clock - self._first_at, self.settings.learner.segments)
            # A panel in which nobody differs from anybody is looked at again, but not at every row.
            return len(self.panel) >= needed and (n >= needed or not self.counters["reviews"])
        elapsed = self._clock - self._reviewed_at
        if n >= rules.observations or (elapsed >= rules.interval and n >= min(rules.fewest, len(self.panel))):
            return True
        return self._watch.drift and n >= rules.drift_fewest and elapsed >= rules.drift_interval

    def _review(self, out: list[OutRecord]) -> None:
        """Look the segments over, and publish where that is worth it."""
        people = People(self.panel.features.copy(), self.panel.weight.copy(), self._recent.features.copy())
        number = self.counters["reviews"] = self.counters["reviews"] + 1
        drift, forced = self._watch.drift, self._review_now
        self.counters["drift_reviews"] += drift
        rng = np.random.default_rng([self.settings.learner.seed, number])
        rescaled = self._rescale(people)
        assert self._scaler is not None
        if len(self._scaler.active):
            z = self._scaler.transform(people.features)
            if self.learner is None:
                self.learner = LEARNERS[self.settings.learner.algorithm].start(
                    z, self._scaler.active, self.settings.learner
                )
            else:
                self.learner.repair(z, rng)
            candidate = propose(
                people,
                self._scaler,
                self.learner.prototypes(),
                self.model,
                self._steady,
                self._next_number,
                self.settings.identity,
                rescaled,
            )
            self._steady = candidate.steady
            if (
                forced
                or rescaled
                or worth(candidate, people, self.model, self._calibration.table(), self.settings.review)
            ):
                self._promote(candidate, people, drift, forced, out)
        self._calibration.fade(self._clock - self._reviewed_at if self._reviewed_at else 0)
        self._reviewed_at, self._since_review, self._review_now = self._clock, 0, False
        self._watch = DriftWatch(self.settings.review)
        self._place()

    def _rescale(self, people: People) -> bool:
        """Refresh the scale where the population outgrew it: in the first days every window is young."""
        earlier = {} if self._scaler is None else self._scaler.log_choices
        fresh = Scaler.fit(people.features, self.features, people.weight, earlier)
        if self._scaler is not None and self._scaler.moved(fresh) <= self.settings.review.rescale:
            return False
        if self._scaler is not None and self.learner is not None:
            self.learner.rescale(self._scaler.map_to(fresh), fresh.active)
        self._scaler = fresh
        return True

    def _promote(self, candidate: Candidate, people: People, drift: bool, forced: bool, out: list[OutRecord]) -> None:
        """Try the candidate in the shadow; publish it where the churn budget, or drift, allows."""
        ruling: Ruling = "first"
        moves = Moves(0.0, {})
        if self.model is not None:
            moves, lost = shadow(candidate, people, self.model, self.settings.promotion.margin)
            ruling = self._budget.rule(
                moves,
                self._clock,
                asked=forced,
                drift=drift,
                uncovered=uncovered(self._names, people, self.model, self.settings.review),
                silhouette_lost=lost,
            )
        by_name = {(segment_id(a), segment_id(b)): share for (a, b), share in moves.by_pair.items()}
        if self._recorder is not None:
            self._recorder.candidate(self.name, ruling, by_name, self._budget.left)
        told = {f"{a} to {b}": round(share, 4) for (a, b), share in by_name.items()}
        log.info("candidate: %s, it would move %.1f%% of the people", ruling, 100 * moves.share, extra={"moves": told})
        if ruling == "held":
            self.counters["held"] += 1
            return
        self._publish(candidate, people, drift, ruling, moves, out)

    def _publish(
        self,
        candidate: Candidate,
        people: People,
        drift: bool,
        ruling: Ruling,
        moves: Moves,
        out: list[OutRecord],
    ) -> None:
        version = 1 if self.model is None else self.model.version + 1
        self.model = build(
            candidate,
            people,
            self.features,
            self.model,
            version=version,
            created_at=self._clock,
            observations=self.counters["observations"],
            drift=drift,
            ruling=ruling,
            moves=moves,
            trainer=self._trainer,
            calibration=self._calibration.table(),
            settings=self.settings,
        )
        self._next_number = candidate.matching.next_number
        if moves.rows is not None:
            self._calibration.redraw(self.panel.user_hash[moves.rows].tolist(), moves.share)
        crash.reach("at_publish")
        out.append(_record(version, self.model.to_bytes(), self._clock))
        if version > self.settings.keep_versions:
            out.append(_record(version - self.settings.keep_versions, None, self._clock))
        if self._recorder is not None:
            quality, segments = self.model.quality, len(self.model.segment_ids)
            self._recorder.published(self.name, ruling, segments, quality.inertia, quality.silhouette)
            self._recorder.model(self.name, version, self.model.created_at)
        log.info(
            "model %d: %d segments, %.1f%% of the people moved, silhouette %s",
            version,
            len(self.model.segment_ids),
            100 * self.model.quality.moved,
            self.model.quality.silhouette,
        )

    # -- state ------------------------------------------------------------------------------------------------

    def _save(self, output: Output, now_ms: int | None) -> None:
        output.commit = True
        version = 0 if self.model is None else self.model.version
        meta = {"version": version, "observations": self.counters["observations"], "clock": self._clock}
        output.state[PARTITION] = StateDelta(self._dump(), meta, keeps=1)
        self._unsaved = 0
        self._saved_at = now_ms

    def _dump(self) -> bytes:
        arrays: dict[str, NDArray[Any]] = {
            **self.panel.state(),
            **self._recent.state(),
            **self._calibration.state(),
            "steady": self._steady,
            "watched": np.array(self._watch.distances, np.float64),
        }
        if self._scaler is not None:
            arrays |= {f"scaler_{name}": getattr(self._scaler, name) for name in _SCALER_COLUMNS}
        if self.learner is not None:
            arrays |= {f"learner_{name}": array for name, array in self.learner.state().items()}
        model = None
        if self.model is not None:
            model = self.model.to_record().model_copy(update={"forest": None}).model_dump(mode="json", by_alias=True)
        meta = {
            "format": STATE_FORMAT,
            "features": self._names,
            "algorithm": self.settings.learner.algorithm,
            "clip": None if self._scaler is None else self._scaler.clip,
            "model": model,
            "counters": self.counters,
            "next_number": self._next_number,
            "clock": self._clock,
            "first_at": self._first_at,
            "reviewed_at": self._reviewed_at,
            "since_review": self._since_review,
            "review_now": self._review_now,
            "budget": [self._budget.left, self._budget.at_ms],
            "drift": self._watch.drift,
        }
        return pack(arrays, meta)

    def _load(self, payload: bytes) -> None:
        arrays, meta = unpack(payload)
        if meta["format"] != STATE_FORMAT:
            raise ValueError(
                f"the modeller's state has format {meta['format']}, this program reads {STATE_FORMAT}: "
                "run the version that wrote it, or `resegment state rebuild --stage modeller`"
            )
        then = {name: j for j, name in enumerate(meta["features"])}
        columns = np.array([then.get(name, -1) for name in self._names], np.intp)
        self.panel.restore(arrays, columns)
        self._recent.restore(arrays, columns)
        self.model = None if meta["model"] is None else Model.from_record(SegmentModel.model_validate(meta["model"]))
        self.counters.update(meta["counters"])
        self._next_number = meta["next_number"]
        self._clock, self._first_at = meta["clock"], meta["first_at"]
        self._reviewed_at, self._since_review = meta["reviewed_at"], meta["since_review"]
        self._review_now = meta["review_now"]
        self._budget = Budget(self.settings.promotion, *meta["budget"])
        self._calibration = Calibration.restore(arrays, self.settings.confidence_horizon)
        self._steady = arrays["steady"].copy()
        if meta["clip"] is not None:
            self._load_learner(arrays, meta, columns)
        self._watch = DriftWatch(self.settings.review, arrays["watched"].tolist(), meta["drift"])
        self._place()

    def _load_learner(
        self, arrays: Mapping[str, NDArray[Any]], meta: Mapping[str, Any], columns: NDArray[np.intp]
    ) -> None:
        """The scale and what was learned. Where the configuration is another now, a review follows soon: identities
        are kept by the panel's people, whatever was changed."""
        log, centre, spread, weight = (arrays[f"scaler_{name}"].copy() for name in _SCALER_COLUMNS)
        scaler = Scaler(tuple(meta["features"]), log, centre, spread, weight, meta["clip"])
        state = {name.removeprefix("learner_"): a for name, a in arrays.items() if name.startswith("learner_")}
        same_features = tuple(meta["features"]) == self._names
        self._scaler = scaler if same_features else scaler.aligned(self.features)
        self._review_now = self._review_now or not same_features
        if not state:
            return
        settings = self.settings.learner
        if meta["algorithm"] == settings.algorithm:
            self.learner = LEARNERS[settings.algorithm].restore(state, settings)
            if not same_features:
                self.learner.select(columns, self._scaler.active)
            if self.learner.fits(settings):
                return
        z = self._scaler.transform(self.panel.features)
        self.learner = LEARNERS[settings.algorithm].start(z, self._scaler.active, settings)
        self._review_now = True


_SCALER_COLUMNS: Final = ("log", "centre", "spread", "weight")


def _record(version: int, value: bytes | None, timestamp: int) -> OutRecord:
    # Padded, so that keys sort as versions do.
    return OutRecord(topics.SEGMENT_MODEL, f"{version:012d}".encode(), value, PARTITION, timestamp=timestamp)
