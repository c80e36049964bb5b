"""The arrival clock, against its definition applied one row at a time, and against what it promises."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from producers import clock
from producers.clock import DAY_MS, LEAP_MS, SLACK_MS, ArrivalClock

BASE = 1_500_000_000_000
MINUTE = 60_000
YEAR_2099 = 4_070_908_800_000


def arrivals(times: Sequence[int | None], blocks: Sequence[int] = ()) -> list[int]:
    subject, found, begin = ArrivalClock(), [], 0
    for size in (*blocks, len(times)):
        found.append(subject.feed(times[begin : begin + size]))
        begin += size
    found.append(subject.finish())
    return [int(time) for block in found for time in block]


def by_definition(times: Sequence[int | None]) -> list[int]:
    """The module's docstring, row by row."""
    known = [t for t in times if t is not None and 0 <= t <= clock.MAX_TIME_MS]
    if not known:
        return [0] * len(times)
    usable = [t if t is not None and 0 <= t <= clock.MAX_TIME_MS else None for t in times]
    first = next(i for i, t in enumerate(usable) if t is not None)
    window = sorted(t for t in usable[first : first + clock.LOOK_AHEAD] if t is not None)
    now = window[0]
    if len(window) >= 3:
        for drop in range(1, max(1, len(window) // 20) + 1):
            rest = window[drop:]
            spread = rest[9 * (len(rest) - 1) // 10] - rest[0]
            if rest[0] - window[drop - 1] > max(30 * DAY_MS, 10 * spread):
                now = rest[0]
    found, behind = [], 0
    for i, t in enumerate(usable):
        if t is not None and t > now:
            ahead = usable[i + 1 : i + 1 + clock.LOOK_AHEAD]
            believed = True
            for scale in clock.SCALES:
                votes = [a for a in ahead[:scale] if a is not None and a >= now - SLACK_MS]
                if 2 * sum(a < t - SLACK_MS for a in votes) > len(votes):
                    believed = False
            backers = 1 + sum(a is not None and a >= t - SLACK_MS for a in ahead)
            if t - now > LEAP_MS and backers < min(clock.LEAP_BACKERS, behind):
                believed = False
            if believed:
                now = t
        behind += t is not None
        found.append(now if i >= first - clock.PREFIX_LIMIT else 0)
    return found


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small ranges, so that short lists reach every branch."""
    monkeypatch.setattr(clock, "LOOK_AHEAD", 12)
    monkeypatch.setattr(clock, "SCALES", (3, 6, 12))
    monkeypatch.setattr(clock, "LEAP_BACKERS", 4)
    monkeypatch.setattr(clock, "PREFIX_LIMIT", 20)


odd_times = st.one_of(
    st.integers(0, 5 * DAY_MS).map(lambda ms: BASE + ms),
    st.integers(0, 5 * DAY_MS).map(lambda ms: BASE + ms),
    st.integers(0, 3 * LEAP_MS).map(lambda ms: BASE + ms),
    st.sampled_from([None, 0, 1_000, YEAR_2099, -5, 10**17]),
)


@pytest.mark.usefixtures("narrow")
@settings(max_examples=400, deadline=None)
@given(st.lists(odd_times, max_size=80), st.lists(st.integers(0, 30), max_size=8))
def test_equals_its_definition_in_any_blocks(times: list[int | None], blocks: list[int]) -> None:
    found = arrivals(times, blocks)
    assert found == by_definition(times)
    assert found == sorted(found)


@pytest.mark.usefixtures("narrow")
@settings(max_examples=100, deadline=None)
@given(st.integers(0, 60), st.lists(odd_times, max_size=40), st.lists(st.integers(0, 30), max_size=8))
def test_a_prefix_without_times_is_held_only_so_long(prefix: int, times: list[int | None], blocks: list[int]) -> None:
    rows = [None] * prefix + times
    assert arrivals(rows, blocks) == by_definition(rows)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 30 * DAY_MS), min_size=1, max_size=3_000))
def test_sorted_data_arrives_when_it_happens(gaps: list[int]) -> None:
    times = (BASE + np.cumsum(gaps)).tolist()
    assert arrivals(times) == times


@settings(max_examples=60, deadline=None)
@given(
    row=st.integers(0, 2_998),
    jump=st.integers(SLACK_MS + 3_001 * MINUTE, YEAR_2099 - BASE),
    shuffle=st.integers(0, 2**32 - 1),
)
def test_one_absurd_time_never_pushes_the_clock(row: int, jump: int, shuffle: int) -> None:
    delays = np.random.default_rng(shuffle).exponential(30 * MINUTE, 3_000).astype(int)
    times = (BASE + np.arange(3_000) * MINUTE - delays).tolist()
    sound = arrivals(times)
    times[row] += jump
    found = arrivals(times)
    assert max(found) <= max(sound)
    # What follows is where it was, except for what only the absurd row's own time had moved.
    assert found[row + 1 :] == [max(found[row], time) for time in sound[row + 1 :]] or found[row] < sound[row]


@pytest.mark.parametrize("row", [0, 1, 500, 1_500, 2_899])
@pytest.mark.parametrize("count", [1, 20, 60])
def test_a_run_of_absurd_times_does_not_either(row: int, count: int) -> None:
    times = [BASE + i * MINUTE for i in range(3_000)]
    for i in range(row, row + count):
        times[i] = YEAR_2099
    assert max(arrivals(times)) <= BASE + 3_000 * MINUTE


def test_absurd_last_rows_do_not_either() -> None:
    good = [BASE + i * MINUTE for i in range(10)]
    assert arrivals([*good, YEAR_2099, None, YEAR_2099, YEAR_2099 + 5])[-1] == good[-1]


@pytest.mark.parametrize("before", [0, 1_000])
def test_a_first_row_of_1970_does_not_start_the_clock(before: int) -> None:
    good = [BASE + i * MINUTE for i in range(100)]
    assert arrivals([before, *good])[:2] == [BASE, BASE]


def test_the_clock_goes_over_a_hole_of_months_and_of_years() -> None:
    months = [BASE + i * MINUTE for i in range(500)] + [BASE + 200 * DAY_MS + i * MINUTE for i in range(3)]
    years = [BASE + i * MINUTE for i in range(500)] + [BASE + 900 * DAY_MS + i * MINUTE for i in range(100)]
    assert arrivals(months) == months
    assert arrivals(years) == years


def test_few_rows_are_trusted() -> None:
    assert arrivals([BASE]) == [BASE]
    assert arrivals([BASE, BASE + 150 * DAY_MS]) == [BASE, BASE + 150 * DAY_MS]
    assert arrivals([None, None]) == [0, 0]
    assert arrivals([]) == []


@pytest.mark.usefixtures("narrow")
def test_a_block_may_end_anywhere() -> None:
    rows = [None] * 5 + [BASE + i * MINUTE for i in range(40)]
    for size in range(len(rows) + 1):
        assert arrivals(rows, [size]) == by_definition(rows)
