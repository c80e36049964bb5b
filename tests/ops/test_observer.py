from __future__ import annotations

import pytest

from stream.runtime.health import Health
from stream.runtime.metrics import Metrics
from stream.runtime.observer import StageObserver
from stream.runtime.observing import Observer
from stream.transport.base import TopicPartition


def make(*, wall_clock: bool = True) -> tuple[StageObserver, Metrics, Health]:
    metrics, health = Metrics(clock_ms=lambda: 10_000.0), Health()
    metrics.expect("processor")
    return StageObserver(metrics, health, wall_clock=wall_clock), metrics, health


def read(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, {"stage": "processor", **labels})


def test_it_is_what_the_runner_asks_for() -> None:
    observer: Observer = make()[0]
    observer.commit("processor", 0.1, [])


def test_a_batch_is_counted_with_its_commit() -> None:
    observer, metrics, _ = make()
    observer.batch("processor", 500, 0.02)
    observer.uncommitted.events("accepted", {"browse": 500})
    assert read(metrics, "resegment_records_total") == 0
    observer.begun("processor")
    observer.batch("processor", 300, 0.02)  # the next one, worked on meanwhile
    observer.commit("processor", 0.01, [9_400])
    assert read(metrics, "resegment_records_total") == 500
    assert metrics.registry.get_sample_value("resegment_events_total", {"type": "browse", "outcome": "accepted"}) == 500
    assert read(metrics, "resegment_commit_seconds_count") == 1
    assert read(metrics, "resegment_event_latency_seconds_sum") == 0.6


def test_every_arrival_of_a_batch_may_be_given() -> None:
    observer, metrics, _ = make()
    observer.commit("processor", 0.01, [9_900, 9_800, 9_700], ago=0.05)
    assert read(metrics, "resegment_event_latency_seconds_count") == 3
    assert read(metrics, "resegment_event_latency_seconds_sum") == pytest.approx(0.45), "up to the commit"


def test_a_failed_batch_is_not_counted_and_its_lag_is_no_longer_true() -> None:
    observer, metrics, health = make()
    observer.ready("processor")
    observer.lag("processor", {TopicPartition("events", 0): 5})
    observer.batch("processor", 500, 0.02)
    observer.failed("processor", "fenced", "the group moved on")
    assert read(metrics, "resegment_consumer_lag_records", topic="events", partition="0") is None
    assert read(metrics, "resegment_assigned_partitions") == 0
    assert health.report().stages["processor"].reason == "the group moved on"
    observer.batch("processor", 400, 0.02)
    observer.begun("processor")
    observer.commit("processor", 0.01, [])
    assert read(metrics, "resegment_records_total") == 400
    assert read(metrics, "resegment_failures_total", kind="fenced") == 1


def test_a_replay_shows_no_latencies() -> None:
    observer, metrics, _ = make(wall_clock=False)
    observer.commit("processor", 0.01, [9_000])
    assert read(metrics, "resegment_event_latency_seconds_count") is None
    assert read(metrics, "resegment_commit_seconds_count") == 1


def test_restores_and_rebalances() -> None:
    observer, metrics, health = make()
    observer.beat("processor")
    observer.not_ready("processor", "restoring partition 2")
    observer.rebalance("processor", 2, 0)
    observer.restored("processor", 2, 1.5)
    assert read(metrics, "resegment_rebalances_total") == 1
    assert read(metrics, "resegment_restore_seconds_sum") == 1.5
    assert not health.report().ready
