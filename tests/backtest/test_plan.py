"""Checkpoints and horizons: always whole, always within the data."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.backtest.plan import DAY_MS, HOUR_MS, PlanError, make_plan

START = 1_511_568_000_000  # a midnight (UTC)


@given(
    st.integers(5 * 60_000, 900 * DAY_MS), st.integers(1, 40), st.one_of(st.none(), st.floats(0.01, 0.9)), st.booleans()
)
def test_every_horizon_lies_within_the_data(span: int, count: int, share: float | None, regular: bool) -> None:
    horizon = None if share is None else max(1, int(span * share))
    every = max(1, span // count) if regular else None
    plan = make_plan(START, START + span, count=None if regular else count, every=every, horizon=horizon)
    assert plan.horizon == horizon if horizon is not None else 0 < plan.horizon <= 30 * DAY_MS
    assert list(plan.times) == sorted(set(plan.times))
    assert plan.times[0] > plan.start
    assert plan.times[-1] + plan.horizon <= plan.end
    assert len(plan.times) <= (count if not regular else count + 1)


def test_short_data_has_a_short_horizon() -> None:
    nine_days = make_plan(START, START + 9 * DAY_MS - 5_000)
    assert nine_days.horizon == 2 * DAY_MS
    assert nine_days.times[-1] == START + 7 * DAY_MS - HOUR_MS  # the last hour that begins early enough
    assert len(nine_days.times) == 12
    assert make_plan(START, START + 365 * DAY_MS).horizon == 30 * DAY_MS
    assert make_plan(START, START + 3 * HOUR_MS).horizon == HOUR_MS


def test_regular_checkpoints_count_back_from_the_last() -> None:
    plan = make_plan(START, START + 100 * DAY_MS, every=7 * DAY_MS, horizon=10 * DAY_MS)
    assert plan.times[-1] == START + 90 * DAY_MS
    assert {b - a for a, b in pairwise(plan.times)} == {7 * DAY_MS}


@pytest.mark.parametrize(
    ("asked", "hint"),
    [({"horizon": 10 * DAY_MS}, "--horizon"), ({"every": 0}, "--every"), ({"horizon": 0}, "--horizon")],
)
def test_what_does_not_fit_is_refused_with_advice(asked: dict[str, int], hint: str) -> None:
    with pytest.raises(PlanError, match=hint):
        make_plan(START, START + 9 * DAY_MS, **asked)
