from __future__ import annotations

import re
import threading
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.core import Metric

from schemas.events import EVENT_TYPES
from stream.runtime import metric_list
from stream.runtime.metric_list import SPECS
from stream.runtime.metrics import Metrics, Recorder, Uncommitted
from stream.transport.base import TopicPartition
from tests.ops.exposition import as_openmetrics, parse_openmetrics, parse_text

NOW_MS = 1_700_000_000_000.0


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


def series(metrics: Metrics, name: str) -> dict[tuple[str, ...], float]:
    return {
        tuple(sample.labels.values()): sample.value
        for family in metrics.registry.collect()
        for sample in family.samples
        if sample.name == name
    }


def tell_everything(metrics: Recorder) -> None:
    """Every method once, so that every metric has a series."""
    metrics.events("accepted", {"browse": 3})
    metrics.dead_letters({"not_json": 1})
    metrics.changes({"behaviour": 2}, np.array([NOW_MS - 20, NOW_MS - 70]))
    metrics.anomalies(1, 0)
    metrics.population(10, 1, [("seg-1", 'Loyal "big" spenders\n', 9), ("quarantine", "Quarantine", 1)])
    metrics.sweep(0.2, 10)
    metrics.model("modeller", 3, int(NOW_MS) - 60_000)
    metrics.learned(100)
    metrics.published("modeller", "drift", 6, 2.5, 0.41)
    metrics.candidate("modeller", "held", {("seg-1", "seg-2"): 0.07}, 0.02)
    metrics.actions({"welcome": 2})
    metrics.held({("welcome", "cap"): 3})
    metrics.deliveries("welcome", "delivered")
    metrics.unreadable("campaigns", 1)
    metrics.pending("campaigns", 4)
    metrics.attempt("welcome", 503, 0.3)
    metrics.batch("processor", 500, 0.004)
    metrics.commit("processor", 0.006, [NOW_MS - 5, NOW_MS - 9])
    metrics.failed("processor", "fenced")
    metrics.rebalance("processor")
    metrics.restored("processor", 1.5)
    metrics.lag("processor", {TopicPartition("events", 0): 7})
    metrics.state("processor", 123_456)
    metrics.state_written("processor", 789)
    metrics.heartbeats({"processor": 0.1}, {"processor": True})


def parsed_as_text(metrics: Metrics) -> dict[str, Metric]:
    return {family.name: family for family in parse_text(generate_latest(metrics.registry).decode())}


def parsed_as_openmetrics(metrics: Metrics) -> dict[str, Metric]:
    return {family.name: family for family in parse_openmetrics(as_openmetrics(metrics.registry))}


@pytest.mark.parametrize("parse", [parsed_as_text, parsed_as_openmetrics])
def test_every_metric_is_exposed_as_listed(parse: Callable[[Metrics], dict[str, Metric]]) -> None:
    metrics = Metrics(clock_ms=lambda: NOW_MS)
    tell_everything(metrics)
    families = {name: family for name, family in parse(metrics).items() if name.startswith("resegment_")}
    assert set(families) == {spec.name.removesuffix("_total") for spec in SPECS}
    for spec in SPECS:
        family = families[spec.name.removesuffix("_total")]
        assert (family.type, family.documentation) == (spec.kind, spec.help)
        assert {sample.name for sample in family.samples} == set(spec.samples)
        for sample in family.samples:
            assert set(sample.labels) - {"le"} == set(spec.labels)


def test_values_survive_both_expositions() -> None:
    metrics = Metrics(clock_ms=lambda: NOW_MS)
    tell_everything(metrics)

    def samples(families: dict[str, Metric]) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
        return {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for name, family in families.items()
            if name.startswith("resegment_")
            for sample in family.samples
        }

    text, openm = samples(parsed_as_text(metrics)), samples(parsed_as_openmetrics(metrics))
    assert text == openm
    labels = frozenset({("segment", "seg-1"), ("name", 'Loyal "big" spenders\n')})
    assert text["resegment_segment_users", labels] == 9


def test_names_follow_the_conventions() -> None:
    assert len({spec.name for spec in SPECS}) == len(SPECS)
    for spec in SPECS:
        assert re.fullmatch(r"resegment_[a-z]+(_[a-z]+)*", spec.name)
        assert spec.name.endswith("_total") == (spec.kind == "counter")
        assert not re.search(r"_(ms|millis|milliseconds|minutes|hours|kb|mb)(_|$)", spec.name), "base units"
        assert bool(re.search(r"_seconds$|_bytes(_total)?$", spec.name)) == bool(spec.unit)
        assert bool(spec.buckets) == (spec.kind == "histogram")
        assert list(spec.buckets) == sorted(set(spec.buckets))
        assert spec.help.endswith(".")
        assert not set(spec.labels) & {"user", "user_id", "key", "email", "session", "le"}


@given(st.lists(st.lists(st.floats(-1e6, 1e6), max_size=30), max_size=6), st.sampled_from([0.05, 0.1, 300.0]))
def test_vector_histogram_equals_the_client_library_fed_one_by_one(batches: list[list[float]], edge: float) -> None:
    metrics, spec = Metrics(), metric_list.EVENT_LATENCY
    reference = CollectorRegistry()
    one_by_one = Histogram("reference", "", buckets=spec.buckets, registry=reference)
    # Values on a bucket's very edge belong to it.
    for batch in [*batches, [edge, np.nextafter(edge, 0), np.nextafter(edge, np.inf)]]:
        metrics._observe(spec, batch, "processor")
        for number in batch:
            one_by_one.observe(number)
    for bound in [*spec.buckets, "+Inf"]:
        ours = value(metrics, spec.name + "_bucket", stage="processor", le=str(bound))
        assert ours == reference.get_sample_value("reference_bucket", {"le": str(bound)})
    total = reference.get_sample_value("reference_sum")
    assert value(metrics, spec.name + "_sum", stage="processor") == pytest.approx(total, abs=1e-6)


def test_what_is_not_finite_does_not_poison_a_histogram() -> None:
    metrics = Metrics()
    metrics.batch("processor", 1, float("nan"))
    metrics._observe(metric_list.BATCH_SECONDS, [0.5, np.nan, np.inf, -np.inf], "processor")
    assert value(metrics, "resegment_batch_seconds_count", stage="processor") == 1
    assert value(metrics, "resegment_batch_seconds_sum", stage="processor") == 0.5


def test_counters_start_at_zero_for_the_stages_that_run_here() -> None:
    metrics = Metrics()
    metrics.expect("processor")
    outcomes = series(metrics, "resegment_events_total")
    assert len(outcomes) == (len(EVENT_TYPES) + 1) * 3
    assert set(outcomes.values()) == {0.0}
    assert value(metrics, "resegment_failures_total", stage="processor", kind="fenced") == 0
    assert series(metrics, "resegment_model_observations_total") == {}, "the modeller does not run here"
    assert series(metrics, "resegment_users") == {}, "a gauge that nobody set is not zero"


def test_an_event_type_that_nobody_knows_is_unknown() -> None:
    metrics = Metrics()
    metrics.events("dead_lettered", {"alice@example.com": 2, "browse": 1, "also bad": 1})
    assert series(metrics, "resegment_events_total") == {
        ("unknown", "dead_lettered"): 3,
        ("browse", "dead_lettered"): 1,
    }


def test_counters_only_count_upwards() -> None:
    with pytest.raises(ValueError, match=r"resegment_model_observations_total counts upwards; -1"):
        Metrics().learned(-1)


def test_segments_that_disappear_are_removed() -> None:
    metrics = Metrics()
    metrics.population(3, 0, [("seg-1", "Loyal", 2), ("seg-2", "Hunters", 1)])
    metrics.population(3, 0, [("seg-1", "Loyal gift buyers", 2), ("seg-3", "Browsers", 1)])
    assert series(metrics, "resegment_segment_users") == {("seg-1", "Loyal gift buyers"): 2, ("seg-3", "Browsers"): 1}


def test_lag_is_replaced_for_its_own_stage_only() -> None:
    metrics = Metrics()
    metrics.lag("processor", {TopicPartition("events", 0): 5, TopicPartition("events", 1): 6})
    metrics.lag("campaigns", {TopicPartition("segment-changes", 0): 9})
    metrics.lag("processor", {TopicPartition("events", 1): 4})
    assert series(metrics, "resegment_consumer_lag_records") == {
        ("processor", "events", "1"): 4,
        ("campaigns", "segment-changes", "0"): 9,
    }
    assert value(metrics, "resegment_assigned_partitions", stage="processor") == 1


def test_the_moves_of_the_last_candidate_replace_those_of_the_one_before() -> None:
    metrics = Metrics()
    metrics.candidate("modeller", "held", {("seg-1", "seg-2"): 0.07, ("seg-2", "seg-3"): 0.01}, 0.02)
    metrics.candidate("modeller", "budget", {("seg-1", "seg-3"): 0.01}, 0.01)
    assert series(metrics, "resegment_model_candidate_moves_ratio") == {("seg-1", "seg-3"): 0.01}
    assert series(metrics, "resegment_model_candidates_total") == {("held",): 1, ("budget",): 1}
    assert value(metrics, "resegment_model_budget_left_ratio", stage="modeller") == 0.01


def test_a_quality_that_is_not_known_is_not_shown() -> None:
    metrics = Metrics()
    metrics.published("modeller", "first", 6, 2.0, 0.4)
    metrics.published("modeller", "drift", 5, 1.0, None)
    assert value(metrics, "resegment_model_inertia", stage="modeller") == 1.0
    assert value(metrics, "resegment_model_silhouette", stage="modeller") is None


def test_webhook_results_are_classes() -> None:
    metrics = Metrics()
    for result in (200, 204, 503, "timeout"):
        metrics.attempt("welcome", result, 0.1)
    assert series(metrics, "resegment_webhook_attempts_total") == {
        ("welcome", "2xx"): 2,
        ("welcome", "5xx"): 1,
        ("welcome", "timeout"): 1,
    }


def test_uncommitted_shows_nothing_before_the_commit_and_the_same_after_it() -> None:
    told, at_once = Metrics(clock_ms=lambda: NOW_MS), Metrics(clock_ms=lambda: NOW_MS)
    uncommitted = Uncommitted(told)
    tell_everything(at_once)
    before = generate_latest(told.registry)
    tell_everything(uncommitted)
    own = [line for line in generate_latest(told.registry).splitlines() if b"resegment_" in line]
    assert own == [line for line in before.splitlines() if b"resegment_" in line]
    uncommitted.seal()
    uncommitted.publish()
    assert {spec.name: series(told, spec.name) for spec in SPECS} == {s.name: series(at_once, s.name) for s in SPECS}
    uncommitted.seal()
    uncommitted.publish()
    assert value(told, "resegment_model_observations_total") == 100, "published once"


def test_uncommitted_stays_small_while_nothing_is_committed() -> None:
    uncommitted = Uncommitted(Metrics())
    sizes = []
    for _ in range(3):
        for _ in range(100):
            tell_everything(uncommitted)
            uncommitted._observed.clear()
            uncommitted._since.clear()
        sizes.append(len(uncommitted._added) + len(uncommitted._gauges) + len(uncommitted._replaced))
    assert sizes[0] == sizes[-1] < 60


def test_gauges_keep_their_last_value_and_counts_add_up() -> None:
    metrics = Metrics()
    uncommitted = Uncommitted(metrics)
    for users in (5, 3):
        uncommitted.population(users, 0, [("seg-1", "Loyal", users)])
        uncommitted.learned(users)
        uncommitted.sweep(0.1, users)
    uncommitted.seal()
    uncommitted.publish()
    assert value(metrics, "resegment_users") == 3
    assert series(metrics, "resegment_segment_users") == {("seg-1", "Loyal"): 3}
    assert value(metrics, "resegment_model_observations_total") == 8
    assert value(metrics, "resegment_sweep_seconds_count") == 2


def test_discarded_work_leaves_no_trace() -> None:
    metrics = Metrics()
    uncommitted = Uncommitted(metrics)
    uncommitted.events("accepted", {"browse": 5})
    uncommitted.discard()
    uncommitted.events("accepted", {"browse": 7})
    uncommitted.seal()
    uncommitted.publish()
    assert series(metrics, "resegment_events_total") == {("browse", "accepted"): 7}


def test_what_is_told_while_a_commit_is_under_way_waits_for_its_own() -> None:
    metrics = Metrics(clock_ms=lambda: 10_000.0)
    uncommitted = Uncommitted(metrics)
    uncommitted.events("accepted", {"browse": 5})
    uncommitted.changes({"behaviour": 1}, [9_000])
    uncommitted.seal()
    uncommitted.events("accepted", {"browse": 7})
    assert series(metrics, "resegment_events_total") == {}
    uncommitted.publish(ago=0.25)
    assert series(metrics, "resegment_events_total") == {("browse", "accepted"): 5}
    assert value(metrics, "resegment_change_latency_seconds_sum") == pytest.approx(0.75), "up to the commit"
    uncommitted.seal()
    uncommitted.events("accepted", {"browse": 9})
    uncommitted.discard()
    uncommitted.seal()
    uncommitted.publish()
    assert series(metrics, "resegment_events_total") == {("browse", "accepted"): 5}, "the other two are void"


def test_latency_ends_at_the_commit_and_the_column_may_be_used_again() -> None:
    now = [1_000.0]
    metrics = Metrics(clock_ms=lambda: now[0])
    uncommitted = Uncommitted(metrics)
    column = np.array([900, 1_700], np.int64)
    uncommitted.changes({"behaviour": 2}, column)
    column[:] = 0
    now[0] = 1_500.0
    uncommitted.seal()
    uncommitted.publish()
    assert value(metrics, "resegment_change_latency_seconds_count") == 2
    # 0.6 s, and an arrival that our clock says is in the future: at once.
    assert value(metrics, "resegment_change_latency_seconds_sum") == pytest.approx(0.6)


def test_instances_in_one_process_do_not_clash() -> None:
    first, second = Metrics(), Metrics()
    first.learned(1)
    assert value(second, "resegment_model_observations_total") is None
    assert value(first, "resegment_model_observations_total") == 1


def test_a_scrape_sees_a_commit_whole() -> None:
    metrics = Metrics()
    stop = threading.Event()

    def move_people() -> None:
        uncommitted, commits = Uncommitted(metrics), 0
        while not stop.is_set():
            commits += 1
            uncommitted.population(commits, 0, [(f"seg-{commits % 5}", "a", commits - 1), ("none", "b", 1)])
            uncommitted.learned(1)
            uncommitted.sweep(1.0, 0)
            uncommitted.seal()
            uncommitted.publish()

    mover = threading.Thread(target=move_people)
    mover.start()
    seen = set()
    try:
        for _ in range(300):
            found: dict[str, float] = {}
            for family in metrics.collect():
                for sample in family.samples:
                    found[sample.name] = found.get(sample.name, 0.0) + sample.value
            seen.add(
                (
                    found.get("resegment_users", 0.0),
                    found.get("resegment_segment_users", 0.0),
                    found.get("resegment_model_observations_total", 0.0),
                    found.get("resegment_sweep_seconds_count", 0.0),
                )
            )
    finally:
        stop.set()
        mover.join()
    assert len(seen) > 1
    assert all(len(set(moment)) == 1 for moment in seen), seen


def test_process_metrics_come_along() -> None:
    resident = value(Metrics(), "process_resident_memory_bytes")
    assert resident is not None
    assert resident > 1e6
