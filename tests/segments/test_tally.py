"""What operations hear of the processor, and how often."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace
from unittest.mock import Mock

import pytest

from stream.config import load
from stream.segments.population import Population
from stream.segments.tally import MEASURE_EVERY_S, Tally


def test_counts_are_told_every_time_and_levels_twice_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr("stream.segments.tally.time", SimpleNamespace(monotonic=lambda: clock.now))
    recorder, population = Mock(), Population(0, load(None).layout())
    tally = Tally("processor", {0: population}, recorder)
    for step in range(21):
        before = tally.totals()
        population.counters["accepted.browse"] += 3
        tally.tell(before, None, wall_clock=True)
        assert recorder.events.call_args_list[-3].args == ("accepted", {"browse": 3})
        assert recorder.population.call_count == recorder.state.call_count == 1 + step // round(MEASURE_EVERY_S * 10)
        clock.now += 0.1 + 1e-9


def test_replays_are_told_the_levels_every_time() -> None:
    """Their last word is what somebody reads."""
    recorder = Mock()
    tally = Tally("processor", {}, recorder)
    for count in range(1, 4):
        tally.tell(Counter(), None, wall_clock=False)
        assert recorder.population.call_count == count
