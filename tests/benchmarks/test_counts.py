"""What the hot path costs, counted: it may not grow by more than a tenth over what was recorded."""

from __future__ import annotations

import os

import numpy as np
import pytest

from benchmarks import counts, native
from benchmarks.counts import GROWTH, PYTHON, allocated, baseline, grown, instructions, ways
from tests.conftest import uncounted


@pytest.mark.slow
@pytest.mark.parametrize(
    "way",
    [
        f"{PYTHON} without kernels",
        f"{PYTHON} with kernels",
        pytest.param(native.compiler(), marks=pytest.mark.native),
    ],
)
def test_the_kernels_cost_no_more_than_recorded(way: str, request: pytest.FixtureRequest) -> None:
    counting, then = ways().get(way), baseline(way)
    if counting is not None and then is not None:
        assert grown(counting(), then) == []
        return
    # There are more compilers than we have; every version of Python that is tested has its counts.
    if counting is not None and way != native.compiler() and os.environ.get("RESEGMENT_REQUIRE_COUNTS") == "1":
        pytest.fail(f"{way}: not recorded; record it: python -m benchmarks.counts --record", pytrace=False)
    reason = f"{way}: " + ("not recorded" if counting else "the compiled kernels, valgrind or nm are not here")
    request.config.stash[uncounted] = reason
    pytest.skip(reason)


def test_a_loop_over_events_is_seen() -> None:
    numbers = list(range(1_000))

    def vectorised() -> int:
        return sum(numbers)

    def looping() -> int:
        total = 0
        for number in numbers:
            total += number
        return total

    assert instructions(vectorised) < 20
    assert 3_000 < instructions(looping) < 10_000
    assert instructions(looping) == instructions(looping)


def test_one_more_pass_over_an_array_is_seen() -> None:
    x = np.arange(10_000.0)

    def once() -> None:
        x * 2.0

    def twice() -> None:
        x * 2.0 + 1.0

    def in_place() -> None:
        np.multiply(x, 1.0, out=x)

    # Threads of other tests may allocate too; the kernels are counted in a process of their own.
    assert allocated(once) == pytest.approx(80_000, rel=0.2)
    assert allocated(twice) == pytest.approx(160_000, rel=0.2)
    assert allocated(in_place) < 16_000


def test_what_has_grown_is_told() -> None:
    then = {"decode": {"unit": "event", "instructions": 100.0, "allocated": 1000.0}}

    def now(instructions: float, allocated: float) -> counts.Counts:
        return {"decode": {"unit": "event", "instructions": instructions, "allocated": allocated}}

    assert grown(now(100 * (1 + GROWTH), 500), then) == []
    assert grown(now(111, 1000), then) == ["decode: instructions for each event grew from 100 to 111"]
    assert len(grown(now(120, 1200), then)) == 2
    assert grown({**now(1, 1), "new": now(1, 1)["decode"]}, then) == ["new has no baseline"]
    assert grown({}, then) == ["decode is in the baseline, and is counted no more"]
