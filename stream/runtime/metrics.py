"""The values of all metrics, as stages tell them and Prometheus reads them.

Invariant: a method takes counts or a vector, one call a batch and never one an event. What a batch caused is shown
when the batch is committed: a stage tells an `Uncommitted`, so that an aborted batch leaves no trace and the counters
agree with the topics. What exists is in `metric_list`.
"""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from itertools import product
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from schemas.events import EVENT_TYPES
from stream import kernels
from stream.runtime import metric_list as m
from stream.runtime.metric_list import SPECS, Labels, Outcome, Spec
from stream.runtime.observing import Failure
from stream.transport.base import TopicPartition


class Recorder(ABC):
    """What can be told to the metrics. `Metrics` shows it at once, `Uncommitted` at the commit.

    Counts are never negative (ValueError). Arrival times are epoch milliseconds; where the clock is the data's own
    they say nothing about speed: pass none.
    """

    @abstractmethod
    def _add(self, spec: Spec, amount: float, *labels: str) -> None: ...

    @abstractmethod
    def _set(self, spec: Spec, value: float, *labels: str) -> None: ...

    @abstractmethod
    def _replace(self, spec: Spec, series: Mapping[Labels, float], prefix: Labels = ()) -> None:
        """These and no others, among the series whose first labels are `prefix`."""

    @abstractmethod
    def _observe(self, spec: Spec, values: ArrayLike, *labels: str) -> None: ...

    @abstractmethod
    def _observe_since(self, spec: Spec, since_ms: ArrayLike, *labels: str) -> None:
        """Observe the seconds from each of `since_ms` to the moment at which this is shown."""

    # The processor

    def events(self, outcome: Outcome, by_type: Mapping[str, int]) -> None:
        """Events read; a type that the schema does not know is counted as unknown."""
        for kind, count in by_type.items():
            self._add(m.EVENTS, count, kind if kind in EVENT_TYPES else m.UNKNOWN, outcome)

    def dead_letters(self, by_reason: Mapping[str, int]) -> None:
        """Dead letters written."""
        for reason, count in by_reason.items():
            self._add(m.DEAD_LETTERS, count, reason)

    def changes(self, by_cause: Mapping[str, int], arrived_ms: ArrayLike = ()) -> None:
        """Segment changes, and when the events arrived that caused them (only those that an event caused)."""
        for cause, count in by_cause.items():
            self._add(m.CHANGES, count, cause)
        self._observe_since(m.CHANGE_LATENCY, arrived_ms)

    def anomalies(self, entered: int, released: int) -> None:
        """Users who went into quarantine and who came out."""
        self._add(m.ANOMALIES, entered, "entered")
        self._add(m.ANOMALIES, released, "released")

    def population(self, users: int, quarantined: int, segments: Iterable[tuple[str, str, int]]) -> None:
        """The users of this process; `segments` are (id, name, users), and those not among them disappear."""
        self._set(m.USERS, users)
        self._set(m.QUARANTINED, quarantined)
        self._replace(m.SEGMENT_USERS, {(segment, name): count for segment, name, count in segments})

    def sweep(self, seconds: float, users: int) -> None:
        """One slice of a sweep over `users` users."""
        self._observe(m.SWEEP_SECONDS, seconds)
        self._add(m.SWEPT_USERS, users)

    # The modeller, and those who follow its models

    def model(self, stage: str, version: int, created_ms: int) -> None:
        """The model that a stage now scores with, or has just published; `created_ms` as in SegmentModel."""
        self._set(m.MODEL_VERSION, version, stage)
        self._set(m.MODEL_CREATED, created_ms / 1000, stage)

    def learned(self, observations: int) -> None:
        """Feature vectors given to the learners."""
        self._add(m.OBSERVATIONS, observations)

    def candidate(self, stage: str, ruling: str, moves: Mapping[tuple[str, str], float], left: float) -> None:
        """A candidate version was tried: the ruling, the share of all people whom it moves by (from, to) segment, and
        what is left of the churn budget."""
        self._add(m.CANDIDATES, 1, ruling)
        self._replace(m.CANDIDATE_MOVES, {pair: share for pair, share in moves.items()})  # noqa: C416
        self._set(m.BUDGET_LEFT, left, stage)

    def published(
        self, stage: str, reason: str, segments: int, inertia: float | None, silhouette: float | None
    ) -> None:
        """One model version went out; `reason` is a word of the modeller's own vocabulary (schedule, drift ...)."""
        self._add(m.PUBLISHES, 1, reason)
        self._set(m.MODEL_SEGMENTS, segments, stage)
        for spec, value in ((m.MODEL_INERTIA, inertia), (m.MODEL_SILHOUETTE, silhouette)):
            self._replace(spec, {} if value is None else {(stage,): value}, (stage,))

    # The campaign worker

    def actions(self, by_campaign: Mapping[str, int]) -> None:
        """Campaign actions decided."""
        for campaign, count in by_campaign.items():
            self._add(m.ACTIONS, count, campaign)

    def held(self, by_campaign_and_gate: Mapping[tuple[str, str], int]) -> None:
        """Campaign actions that a gate held back."""
        for (campaign, gate), count in by_campaign_and_gate.items():
            self._add(m.HELD, count, campaign, gate)

    def deliveries(self, campaign: str, status: Literal["delivered", "failed", "cancelled"], count: int = 1) -> None:
        """Deliveries that ended."""
        self._add(m.DELIVERIES, count, campaign, status)

    def pending(self, stage: str, count: int) -> None:
        """Actions that wait in the outbox."""
        self._set(m.PENDING, count, stage)

    def attempt(self, campaign: str, result: int | Literal["timeout", "connection"], seconds: float) -> None:
        """One webhook request; `result` is the HTTP status, or what came in its place."""
        self._add(m.ATTEMPTS, 1, campaign, f"{result // 100}xx" if isinstance(result, int) else result)
        self._observe(m.ATTEMPT_SECONDS, seconds)

    # Every stage

    def batch(self, stage: str, records: int, seconds: float) -> None:
        """One call of a stage on a batch."""
        self._add(m.RECORDS, records, stage)
        self._observe(m.BATCH_SECONDS, seconds, stage)

    def unreadable(self, stage: str, count: int) -> None:
        """Records of our own topics that were skipped."""
        self._add(m.UNREADABLE, count, stage)

    def commit(self, stage: str, seconds: float, arrived_ms: ArrayLike = ()) -> None:
        """One commit, and when its records arrived."""
        self._observe(m.COMMIT_SECONDS, seconds, stage)
        self._observe_since(m.EVENT_LATENCY, arrived_ms, stage)

    def failed(self, stage: str, kind: Failure) -> None:
        """A session ended in a failure."""
        self._add(m.FAILURES, 1, stage, kind)

    def rebalance(self, stage: str) -> None:
        """Partitions came or went."""
        self._add(m.REBALANCES, 1, stage)

    def restored(self, stage: str, seconds: float) -> None:
        """One partition's state was restored."""
        self._observe(m.RESTORE_SECONDS, seconds, stage)

    def lag(self, stage: str, lag: Mapping[TopicPartition, int]) -> None:
        """Records behind the end, by partition: the whole assignment; what is not in it disappears."""
        self._replace(m.LAG, {(stage, at.topic, str(at.partition)): behind for at, behind in lag.items()}, (stage,))
        self._set(m.ASSIGNED, len(lag), stage)

    def state(self, stage: str, memory_bytes: int) -> None:
        """Memory of the stage's state."""
        self._set(m.STATE_BYTES, memory_bytes, stage)

    def state_written(self, stage: str, written_bytes: int) -> None:
        """Bytes that went to the changelog."""
        self._add(m.STATE_WRITTEN, written_bytes, stage)

    def heartbeats(self, ages: Mapping[str, float], ready: Mapping[str, bool]) -> None:
        """Of all stages: seconds since their loops came round, and whether they are ready."""
        self._replace(m.HEARTBEAT, {(stage,): age for stage, age in ages.items()})
        self._replace(m.READY, {(stage,): float(is_ready) for stage, is_ready in ready.items()})


class _Histogram:
    """Counts by bucket, the last one without an upper bound."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = np.array(bounds)
        self.counts = np.zeros(len(bounds) + 1, np.int64)
        self.total = 0.0

    def add(self, values: NDArray[np.float64]) -> None:
        # A bucket holds what is at most its bound, hence "left".
        self.counts += np.bincount(np.searchsorted(self.bounds, values, side="left"), minlength=len(self.counts))
        self.total += float(values.sum())


class Metrics(Recorder, Collector):
    """The values of all metrics of one process, in a registry of its own: several in one process do not clash.

    Parameters: `clock_ms` is the wall clock. Safe for any number of threads.
    """

    def __init__(self, *, clock_ms: Callable[[], float] = lambda: time.time() * 1000) -> None:
        self._clock_ms = clock_ms
        self._lock = threading.RLock()
        self._numbers: dict[Spec, dict[Labels, float]] = {spec: {} for spec in SPECS if spec.kind != "histogram"}
        self._histograms: dict[Spec, dict[Labels, _Histogram]] = {s: {} for s in SPECS if s.kind == "histogram"}
        self.registry = CollectorRegistry()
        self.registry.register(self)
        ProcessCollector(registry=self.registry)
        self._set(m.BUILD, 1, _version(), "compiled" if kernels.on() else "none")

    def expect(self, stage: str) -> None:
        """A stage runs here: its counters start at zero, where their labels have closed vocabularies.

        Without this the first increase of a counter would be a series out of nowhere, which no rate() sees.
        """
        for spec in SPECS:
            if spec.kind != "counter" or spec.owner not in ("runtime", stage):
                continue
            known = {**spec.values, "stage": (stage,)}
            if all(label in known for label in spec.labels):
                for labels in product(*(known[label] for label in spec.labels)):
                    self._add(spec, 0, *labels)

    def describe(self) -> Iterator[Metric]:
        """Every family without samples (prometheus_client's registry asks for their names)."""
        for spec in SPECS:
            yield _family(spec)

    def collect(self) -> Iterator[Metric]:
        """Every family that has a series; one consistent moment of all of them."""
        with self._lock:
            families = [self._filled(spec) for spec in SPECS]
        yield from (family for family in families if family.samples)

    def _filled(self, spec: Spec) -> Metric:
        family = _family(spec)
        if isinstance(family, HistogramMetricFamily):
            for labels, histogram in self._histograms[spec].items():
                bounds = [*map(str, spec.buckets), "+Inf"]
                cumulative = histogram.counts.cumsum().tolist()
                family.add_metric(labels, list(zip(bounds, cumulative, strict=True)), histogram.total)
        elif isinstance(family, CounterMetricFamily | GaugeMetricFamily):
            for labels, value in self._numbers[spec].items():
                family.add_metric(labels, value)
        return family

    def _add(self, spec: Spec, amount: float, *labels: str) -> None:
        _refuse_negative(spec, amount)
        with self._lock:
            series = self._numbers[spec]
            series[labels] = series.get(labels, 0.0) + float(amount)

    def _set(self, spec: Spec, value: float, *labels: str) -> None:
        with self._lock:
            self._numbers[spec][labels] = float(value)

    def _replace(self, spec: Spec, series: Mapping[Labels, float], prefix: Labels = ()) -> None:
        with self._lock:
            kept = {k: v for k, v in self._numbers[spec].items() if prefix and k[: len(prefix)] != prefix}
            self._numbers[spec] = kept | {labels: float(value) for labels, value in series.items()}

    def _observe(self, spec: Spec, values: ArrayLike, *labels: str) -> None:
        numbers = np.asarray(values, np.float64).ravel()
        # One NaN would make the sum NaN for the life of the process.
        numbers = numbers[np.isfinite(numbers)]
        if numbers.size:
            with self._lock:
                self._histograms[spec].setdefault(labels, _Histogram(spec.buckets)).add(numbers)

    def _observe_since(self, spec: Spec, since_ms: ArrayLike, *labels: str) -> None:
        seconds = (self._clock_ms() - np.asarray(since_ms, np.float64)) / 1000
        # A producer's clock may be ahead of ours; nothing is faster than at once.
        self._observe(spec, np.maximum(seconds, 0.0), *labels)


_Held = tuple[
    dict[tuple[Spec, Labels], float],
    dict[tuple[Spec, Labels], float],
    dict[tuple[Spec, Labels], Mapping[Labels, float]],
    dict[tuple[Spec, Labels], list[NDArray[np.float64]]],
    dict[tuple[Spec, Labels], list[NDArray[np.float64]]],
]


class Uncommitted(Recorder):
    """What one stage has to tell of work that is not committed yet.

    `seal` closes what belongs to a commit that begins; `publish` shows that, and `discard` forgets everything. For one
    thread. Counts are added up and gauges keep their last value, so that it stays small however long nothing is
    committed.
    """

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._sealed: _Held = ({}, {}, {}, {}, {})
        self._clear()

    def seal(self) -> None:
        """A commit of what was told so far begins; there is one at a time."""
        self._sealed = self._added, self._gauges, self._replaced, self._observed, self._since
        self._clear()

    def publish(self, ago: float = 0.0) -> None:
        """The commit succeeded, so many seconds ago, at which its latencies end: show what belongs to it."""
        added, gauges, replaced, observed, since = self._sealed
        self._sealed = {}, {}, {}, {}, {}
        # A scrape sees a commit whole, or not at all.
        with self._metrics._lock:
            for (spec, labels), amount in added.items():
                self._metrics._add(spec, amount, *labels)
            for (spec, labels), value in gauges.items():
                self._metrics._set(spec, value, *labels)
            for (spec, prefix), series in replaced.items():
                self._metrics._replace(spec, series, prefix)
            for (spec, labels), values in observed.items():
                self._metrics._observe(spec, np.concatenate(values), *labels)
            for (spec, labels), values in since.items():
                self._metrics._observe_since(spec, np.concatenate(values) + 1000 * ago, *labels)

    def discard(self) -> None:
        """The work is void and will be done again: forget what was held."""
        self._sealed = {}, {}, {}, {}, {}
        self._clear()

    def _clear(self) -> None:
        self._added: dict[tuple[Spec, Labels], float] = {}
        self._gauges: dict[tuple[Spec, Labels], float] = {}
        self._replaced: dict[tuple[Spec, Labels], Mapping[Labels, float]] = {}
        self._observed: dict[tuple[Spec, Labels], list[NDArray[np.float64]]] = {}
        self._since: dict[tuple[Spec, Labels], list[NDArray[np.float64]]] = {}

    def _add(self, spec: Spec, amount: float, *labels: str) -> None:
        _refuse_negative(spec, amount)
        self._added[spec, labels] = self._added.get((spec, labels), 0.0) + float(amount)

    def _set(self, spec: Spec, value: float, *labels: str) -> None:
        self._gauges[spec, labels] = float(value)

    def _replace(self, spec: Spec, series: Mapping[Labels, float], prefix: Labels = ()) -> None:
        self._replaced[spec, prefix] = dict(series)

    def _observe(self, spec: Spec, values: ArrayLike, *labels: str) -> None:
        self._observed.setdefault((spec, labels), []).append(_copied(values))

    def _observe_since(self, spec: Spec, since_ms: ArrayLike, *labels: str) -> None:
        self._since.setdefault((spec, labels), []).append(_copied(since_ms))


def _copied(values: ArrayLike) -> NDArray[np.float64]:
    """The stage may use the same column for its next batch."""
    return np.array(values, np.float64).ravel()


def _refuse_negative(spec: Spec, amount: float) -> None:
    if amount < 0:
        raise ValueError(f"{spec.name} counts upwards; {amount} was to be added")


def _family(spec: Spec) -> CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily:
    families: dict[str, type[CounterMetricFamily] | type[GaugeMetricFamily] | type[HistogramMetricFamily]] = {
        "counter": CounterMetricFamily,
        "gauge": GaugeMetricFamily,
        "histogram": HistogramMetricFamily,
    }
    return families[spec.kind](spec.name, spec.help, labels=spec.labels, unit=spec.unit)


def _version() -> str:
    try:
        return version("resegment")
    except PackageNotFoundError:
        return m.UNKNOWN
