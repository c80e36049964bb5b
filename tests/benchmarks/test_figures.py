"""What the suite makes of its repetitions."""

import json
import os
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.arena import process_cpu
from benchmarks.figures import Bar, quantile, spread
from benchmarks.live import windows
from benchmarks.peers.stopwatch import Stopwatch
from benchmarks.report import figures


@given(st.lists(st.floats(-1e6, 1e6), min_size=1), st.floats(0.01, 1.0))
def test_quantiles_are_numpys(values: list[float], q: float) -> None:
    assert quantile(values, q) == np.quantile(values, q, method="inverted_cdf")


def test_a_bar_is_met_where_every_figure_keeps_its_limit() -> None:
    assert Bar("a", "", [15.0, 100.0], [15, 100], "at least").met
    assert not Bar("a", "", [15.0, 99.9], [15, 100], "at least").met
    assert Bar("a", "", [50, 150], [50, 150], "at most").met
    assert not Bar("a", "", [50, 151], [50, 150], "at most").met
    with pytest.raises(ValueError, match="argument"):
        _ = Bar("a", "", [1.0], [1, 2], "at most").met


def test_a_bar_in_words() -> None:
    bar = Bar("a", "at most 1 s; 300 ms", [0.5, 200], [1, 300], "at most", "s; ms").as_json()
    assert (bar["figure"], bar["met"], figures(bar)) == ([0.5, 200], True, "0.5 s; 200 ms")
    assert figures(Bar("b", "", [1.25], [1], "at least", "x").as_json()) == "1.25 x"


def test_spread() -> None:
    assert spread([3.0, 1.0, 2.0]) == {"median": 2.0, "low": 1.0, "high": 3.0, "repetitions": 3}


def test_slices_that_follow_each_other_are_one_sweep() -> None:
    slices = [(0, 100), (150, 250), (5_000, 5_100), (6_200, 6_300)]
    assert windows(slices) == [
        {"began": 0, "ended": 250, "busy": 200},
        {"began": 5_000, "ended": 5_100, "busy": 100},
        {"began": 6_200, "ended": 6_300, "busy": 100},
    ]


def test_laps_add_up(capsys: pytest.CaptureFixture[str]) -> None:
    watch = Stopwatch(warm=15)
    assert [watch.count(10) for _ in range(3)] == [10, 20, 30]
    watch.report()
    laps = json.loads(capsys.readouterr().out)
    assert (laps["all"]["events"], laps["cold"]["events"], laps["warm"]["events"]) == (30, 20, 10)
    assert laps["all"]["wall"] == pytest.approx(laps["cold"]["wall"] + laps["warm"]["wall"])


def test_the_cpu_of_a_process_is_what_it_used() -> None:
    before, own = process_cpu(os.getpid()), time.process_time()
    while time.process_time() - own < 0.3:
        pass
    assert 0.25 <= process_cpu(os.getpid()) - before <= 0.5
