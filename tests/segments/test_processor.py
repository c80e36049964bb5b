"""The processor as a stage, without a transport: batches, sweeps, metrics, and what restore gives back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
import pytest

from schemas import topics
from stream.features.layout import compile_layout
from stream.features.spec import DEFAULT_FEATURES
from stream.runtime.metrics import Metrics, Uncommitted
from stream.runtime.share import Share
from stream.runtime.stage import Output
from stream.segments.assign import INACTIVITY
from stream.segments.look import Moment
from stream.segments.observations import Observations
from stream.segments.population import COLUMNS, Population, Rows
from stream.segments.processor import Processor, ProcessorSettings
from stream.transport.base import Headers

START = 1_767_600_000_000
HOUR = 3_600_000
LAYOUT = compile_layout(DEFAULT_FEATURES, COLUMNS)


@dataclass(frozen=True)
class ARecord:
    offset: int
    timestamp: int
    value: bytes | None
    key: bytes | None
    topic: str = "events"
    partition: int = 0
    headers: Headers = ()


def browse(number: int, user: str, at: int, **changes: Any) -> ARecord:
    event = {"type": "browse", "event_id": f"e{number}", "user_id": user, "occurred_at": at, **changes}
    return ARecord(number, at, orjson.dumps(event), user.encode())


def processor(**settings: Any) -> Processor:
    stage = Processor(LAYOUT, settings=ProcessorSettings(**settings))
    stage.restore(0, ())
    return stage


def week(users: int = 30, seed: int = 1) -> list[ARecord]:
    rng = np.random.default_rng(seed)
    times = np.sort(rng.integers(START, START + 7 * 24 * HOUR, 600))
    return [browse(i, f"u{rng.integers(users)}", at) for i, at in enumerate(times.tolist())]


def feed(stage: Processor, records: Sequence[ARecord], size: int) -> list[Output]:
    return [stage.process({0: records[i : i + size]}, None) for i in range(0, len(records), size)]


@pytest.mark.parametrize("size", [1, 7, 100, 10_000])
def test_sweeps_are_at_the_same_times_however_events_are_batched(size: int) -> None:
    stage = processor(record_sweep_interval="6h")
    records = week()
    feed(stage, records, size)
    population = stage.populations[0]
    first, last = records[0].timestamp // (6 * HOUR), records[-1].timestamp // (6 * HOUR)
    assert population.counters["sweeps"] == last - first
    assert population.swept_at == last * 6 * HOUR
    assert population.clock == records[-1].timestamp


def test_under_the_wall_clock_everybody_is_swept_each_minute_in_slices() -> None:
    stage = processor(sweep_interval="60s", sweep_slice=100)
    users = [browse(i, f"u{i}", START + i) for i in range(250)]
    stage.process({0: users}, START + 1_000)
    swept = 0
    ticks = [START + 1_000 + 200 * n for n in range(700)]
    for now in ticks:
        stage.tick(now)
        swept = stage.populations[0].counters["sweeps"]
    # The first at once, then one at every full minute of 140 s.
    assert swept == 3


def test_sweeps_take_their_share_while_events_come_and_all_of_it_when_none_do(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = processor(sweep_interval="60s", sweep_slice=100)
    stage.restore(1, ())
    users = [browse(i, f"u{i}", START + i) for i in range(500)]
    now = START + 1_000
    stage.process({0: users[:250], 1: users[250:]}, now)
    seconds = [0.0]
    stage._sweep_share = Share(0.25, lambda: seconds[0])
    look, looked = stage._viewer.look, list[int]()

    def slow_look(population: Population, rows: Rows, moment: Moment, *rest: Any) -> None:
        if moment.cause == INACTIVITY:
            looked.append(len(rows))
            seconds[0] += len(rows) / 100
        look(population, rows, moment, *rest)

    monkeypatch.setattr(stage._viewer, "look", slow_look)

    def step(events: bool) -> int:
        before = sum(looked)
        if events:
            stage.process({0: users[:1]}, now)
        stage.tick(now)
        return sum(looked) - before

    assert step(events=True) == 100
    assert step(events=True) == 0, "it rests for three times as long as it took"
    seconds[0] += 2.9
    assert step(events=True) == 0
    seconds[0] += 0.2
    assert step(events=True) == 100
    # Both partitions are due, and a slice is what is swept between two batches, not what is swept of each of them.
    assert [step(events=False) for _ in range(4)] == [100, 100, 100, 0]
    assert [stage.populations[partition].counters["sweeps"] for partition in (0, 1)] == [1, 1]


def test_observations_are_finite_or_unknown_and_at_most_one_an_hour() -> None:
    stage = processor(record_sweep_interval="1d")
    rows: list[tuple[int, int]] = []
    for output in feed(stage, week(), 50):
        for record in output.records:
            if record.topic == topics.OBSERVATIONS:
                seen = Observations.decode(record.value or b"")
                assert not np.isinf(seen.features).any()
                rows += zip(seen.user_hash.tolist(), seen.at_ms.tolist(), strict=True)
    assert len(rows) > 30
    last: dict[int, int] = {}
    for user, at in rows:
        assert at - last.get(user, 0) >= HOUR
        last[user] = at


def test_a_refund_is_counted_as_the_purchase_that_it_came_as() -> None:
    metrics = Metrics()
    told = Uncommitted(metrics)
    stage = Processor(LAYOUT, recorder=told)
    stage.restore(0, ())
    records = [
        browse(0, "u", START, type="purchase", amount=20),
        browse(1, "u", START, type="purchase", amount=-5),
        browse(2, "u", START, type="purchase", amount=20, event_id="e0"),
        browse(3, "u", START, type="dance"),
    ]
    stage.process({0: records}, START)
    assert metrics.registry.get_sample_value("resegment_events_total", {"type": "purchase", "outcome": "accepted"}) in (
        None,
        0.0,
    ), "nothing is told before the commit"
    told.seal()
    told.publish()

    def value(**labels: str) -> float | None:
        return metrics.registry.get_sample_value("resegment_events_total", labels)

    assert value(type="purchase", outcome="accepted") == 2
    assert value(type="purchase", outcome="duplicate") == 1
    assert value(type="unknown", outcome="dead_lettered") == 1
    assert value(type="unknown", outcome="accepted") in (None, 0.0)


def test_deltas_restore_the_same_population_row_by_row() -> None:
    stage = processor(record_sweep_interval="1d")
    outputs = feed(stage, week(users=300), 40)
    deltas = [(output.state[0].meta, output.state[0].payload) for output in outputs]
    other = Processor(LAYOUT)
    keeps = outputs[-1].state[0].keeps
    assert 1 < keeps < len(deltas) / 2
    other.restore(0, deltas[-keeps:])
    mine, theirs = stage.populations[0], other.populations[0]
    assert theirs.table.user_ids == mine.table.user_ids
    everybody = np.arange(len(mine))
    assert theirs.table.pack(everybody) == mine.table.pack(everybody)
    assert (theirs.clock, theirs.swept_at, theirs.counters) == (mine.clock, mine.swept_at, mine.counters)
