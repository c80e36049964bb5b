"""The user table against the oracle: any order within the lateness, any batches, any restarts, any partitions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.features.layout import Extra, Layout, compile_layout
from stream.features.spec import DEFAULT_FEATURES, parse_features
from stream.features.table import UserTable
from tests.features.oracle import DAY, HALF_HOUR, Event, Oracle, to_batch

pytestmark = pytest.mark.usefixtures("either_kernels")

START = 1_700_000_000_000
HOUR = 2 * HALF_HOUR

AWKWARD_FEATURES = parse_features(
    [
        {"name": "count_1h", "aggregate": "count", "window": "1h", "tiles": 1},
        {"name": "count_7d_by_1h", "aggregate": "count", "window": "7d", "tiles": 168},
        {"name": "count_2h_by_1h", "aggregate": "count", "window": "2h", "tiles": 2},
        {"name": "visits_by_7m", "aggregate": "visits", "window": "70m", "tiles": 10},
        {"name": "visits_by_7d", "aggregate": "visits", "window": "70d", "tiles": 10},
        {"name": "visits_hl3h", "aggregate": "visits", "half_life": "3h", "kinds": ["browse", "click"]},
        {"name": "shoes", "aggregate": "sum", "field": "amount", "half_life": "9d", "categories": ["shoes", "hats"]},
        {"name": "quantity_3d", "aggregate": "mean", "field": "quantity", "window": "3d", "tiles": 3},
        {"name": "dwell_hl1h", "aggregate": "mean", "field": "dwell_ms", "half_life": "1h"},
        {"name": "seen_shoes", "aggregate": "recency", "categories": ["shoes"]},
        {
            "name": "spend_a_visit",
            "aggregate": "ratio",
            "window": "30d",
            "tiles": 30,
            "numerator": {"of": "sum", "field": "list_amount"},
            "denominator": {"of": "visits"},
        },
        {"name": "taste", "aggregate": "diversity", "half_life": "2d", "buckets": 3, "kinds": ["browse"]},
        {"name": "favourite_taste", "aggregate": "top_share", "half_life": "2d", "buckets": 3, "kinds": ["browse"]},
    ]
)
FEATURES = DEFAULT_FEATURES + AWKWARD_FEATURES

amounts = st.floats(0, 1e6).map(lambda x: round(x, 2))


@st.composite
def an_event(draw: st.DrawFn, time: int, ids: st.SearchStrategy[str]) -> Event:
    kind = draw(st.sampled_from(["browse", "click", "purchase", "refund", "search", "add_to_cart", "review", "share"]))
    sale = kind in ("purchase", "refund")
    return Event(
        user=draw(st.sampled_from("abc")),
        id=draw(ids),
        kind=kind,
        time=time,
        amount=(-1 if kind == "refund" else 1) * draw(amounts) if sale else None,
        quantity=draw(st.none() | st.integers(1, 50).map(float)) if sale else None,
        discount=draw(st.none() | amounts) if sale else None,
        dwell_ms=draw(st.none() | st.integers(0, DAY).map(float)) if kind == "browse" else None,
        rating=float(draw(st.integers(1, 5))) if kind == "review" else None,
        category=draw(st.none() | st.sampled_from(["shoes", "hats", "bags", "coats"])),
    )


@st.composite
def streams(draw: st.DrawFn, few_ids: bool = True) -> list[Event]:
    """Events that jump back and forth in time, by minutes to months, with ids that come again."""
    ids = st.sampled_from([f"id{n}" for n in range(12)]) if few_ids else st.uuids().map(str)
    time = START
    events = []
    for _ in range(draw(st.integers(1, 40))):
        scale = draw(st.sampled_from([1, HALF_HOUR // 3, HOUR, DAY // 2, 3 * DAY, 40 * DAY]))
        time = max(START - 400 * DAY, time + draw(st.integers(-2, 6)) * scale)
        events.append(draw(an_event(time + draw(st.integers(0, 999)), ids)))
    return events


def cuts(count: int) -> st.SearchStrategy[list[int]]:
    return st.lists(st.integers(0, count), max_size=6).map(lambda inner: [0, *sorted(inner), count])


def batches(events: list[Event], at: list[int]) -> list[list[Event]]:
    return [events[start:stop] for start, stop in pairwise(at)]


def copied(table: UserTable) -> UserTable:
    """What a restart makes of a table, restored in two parts."""
    restored = UserTable(table.layout)
    rows = np.random.default_rng(len(table)).permutation(len(table))
    for part in np.array_split(rows, 2):
        restored.unpack(table.pack(part))
    return restored


def check(table: UserTable, oracle: Oracle, at: int) -> None:
    vectors = table.features(None, at)
    assert set(table.user_ids) == set(oracle.users)
    assert not np.isinf(vectors).any()
    for row, user_id in enumerate(table.user_ids):
        assert table.lookup(user_id) == row
        for column, spec in enumerate(table.layout.features):
            expected = oracle.feature(spec, user_id, at)
            actual = float(vectors[row, column])
            if math.isnan(expected.value):
                assert math.isnan(actual), (user_id, spec.name, actual)
            else:
                assert abs(actual - expected.value) <= expected.tolerance, (user_id, spec.name, actual, expected)


@given(
    streams(),
    st.data(),
    st.sampled_from([0, HOUR, 2 * DAY, 7 * DAY]),
    st.sampled_from([0, 1, 3, 8]),
    st.sampled_from([0, 1, HOUR, 5 * DAY, 100 * DAY]),
)
@settings(max_examples=150, deadline=None)
def test_equals_the_oracle_in_any_batches_and_through_restarts(
    events: list[Event], data: st.DataObject, lateness: int, depth: int, later: int
) -> None:
    table = UserTable(compile_layout(FEATURES, lateness_ms=lateness, dedupe_depth=depth))
    oracle = Oracle(lateness, depth)
    for part in batches(events, data.draw(cuts(len(events)))):
        applied = table.apply(to_batch(part))
        fates = [oracle.see(event) for event in part]
        assert [fate == "accepted" for fate in fates] == applied.accepted.tolist()
        assert [fate == "duplicate" for fate in fates] == applied.duplicate.tolist()
        assert [fate == "too_late" for fate in fates] == applied.too_late.tolist()
        last = {event.user: at for at, (event, fate) in enumerate(zip(part, fates, strict=True)) if fate == "accepted"}
        assert {table.user_ids[row]: at for row, at in zip(applied.rows, applied.last_event, strict=True)} == last
        assert [table.user_ids[row] if row >= 0 else None for row in applied.row_of] == [
            event.user if fate == "accepted" else None for event, fate in zip(part, fates, strict=True)
        ]
        if data.draw(st.booleans()):
            table = copied(table)
    assert table.stream_time == oracle.clock
    assert table.column("events").tolist() == [len(oracle.users[user].accepted) for user in table.user_ids]
    check(table, oracle, table.stream_time + later)


def by_user(table: UserTable) -> list[Any]:
    order = np.argsort(table.user_ids)
    return [array[: len(table)][order] for array in table._arrays]


@given(streams(), st.data(), st.sampled_from([HOUR, 7 * DAY]))
@settings(max_examples=60, deadline=None)
def test_the_same_order_in_other_batches_gives_the_same_bits(
    events: list[Event], data: st.DataObject, lateness: int
) -> None:
    layout = compile_layout(FEATURES, lateness_ms=lateness, dedupe_depth=3)
    one, many = UserTable(layout), UserTable(layout)
    one.apply(to_batch(events))
    for part in batches(events, data.draw(cuts(len(events)))):
        many.apply(to_batch(part))
    assert one.user_ids == many.user_ids
    for left, right in zip(by_user(one), by_user(many), strict=True):
        # What fell below the range of float32 may have been rounded at another step.
        visible = np.abs(left) > 1e-30 if left.dtype.kind == "f" else np.ones(left.shape, bool)
        np.testing.assert_array_equal(np.where(visible, left, 0), np.where(visible, right, 0))


@given(streams(few_ids=False), st.data())
@settings(max_examples=60, deadline=None)
def test_any_order_within_the_lateness_gives_the_same_users(events: list[Event], data: st.DataObject) -> None:
    span = max(event.time for event in events) - min(event.time for event in events)
    layout = compile_layout(FEATURES, lateness_ms=min(span, 40 * DAY), dedupe_depth=0)
    newest = max(event.time for event in events)
    events = [event for event in events if event.time >= newest - layout.lateness_ms]
    straight, shuffled = UserTable(layout), UserTable(layout)
    assert straight.apply(to_batch(events)).accepted.all()
    order = data.draw(st.permutations(events))
    for part in batches(order, data.draw(cuts(len(order)))):
        assert shuffled.apply(to_batch(part)).accepted.all()
    assert straight.stream_time == shuffled.stream_time
    for left, right in zip(by_user(straight), by_user(shuffled), strict=True):
        if left.dtype.kind != "f":
            np.testing.assert_array_equal(left, right)
    oracle = Oracle(layout.lateness_ms, 0)
    for event in events:
        oracle.see(event)
    check(shuffled, oracle, newest + HOUR)


@given(streams(), st.integers(1, 4))
@settings(max_examples=30, deadline=None)
def test_partitions_hold_what_one_table_holds(events: list[Event], partitions: int) -> None:
    """Users never share anything but the clock, which a wide lateness takes out of play."""
    layout = compile_layout(FEATURES, lateness_ms=2000 * DAY, dedupe_depth=8)
    whole = UserTable(layout)
    whole.apply(to_batch(events))
    for partition in range(partitions):
        mine = [event for event in events if ord(event.user) % partitions == partition]
        part = UserTable(layout)
        part.apply(to_batch(mine))
        rows = np.array([whole.lookup(user) for user in part.user_ids], np.int64)
        np.testing.assert_array_equal(part.features(None, START + 500 * DAY), whole.features(rows, START + 500 * DAY))


def _layout(extras: Sequence[Extra] = ()) -> Layout:
    return compile_layout(DEFAULT_FEATURES, extras)


def test_an_empty_batch_changes_nothing() -> None:
    table = UserTable(_layout())
    applied = table.apply(to_batch([]))
    assert len(table) == len(applied.rows) == len(applied.accepted) == applied.created == 0
    assert table.features(None, START).shape == (0, len(DEFAULT_FEATURES))
    assert copied(table).stream_time == table.stream_time


def test_a_user_whose_events_are_all_too_late_does_not_exist() -> None:
    table = UserTable(_layout())
    applied = table.apply(to_batch([Event("a", "1", "click", START), Event("b", "2", "click", START - 3 * DAY)]))
    assert applied.too_late.tolist() == [False, True]
    assert (applied.created, table.user_ids, table.lookup("b")) == (1, ["a"], None)


def test_a_duplicate_refreshes_nothing() -> None:
    table = UserTable(_layout())
    table.apply(to_batch([Event("a", "1", "click", START)]))
    applied = table.apply(to_batch([Event("a", "1", "purchase", START + HOUR, amount=5.0)]))
    assert applied.duplicate.tolist() == [True] and len(applied.rows) == 0
    assert table.column("last").tolist() == [START]
    assert table.column("events").tolist() == [1]


def test_a_refund_lowers_spend_and_is_activity_but_no_purchase() -> None:
    table = UserTable(_layout())
    table.apply(to_batch([Event("a", "1", "purchase", START, amount=50.0)]))
    table.apply(to_batch([Event("a", "2", "refund", START + DAY, amount=-20.0)]))
    at = dict(zip(table.layout.names, table.features(None, START + DAY)[0], strict=True))
    assert at["spend_30d"] == 30.0
    assert at["purchases_30d"] == 1.0
    assert at["purchase_recency_days"] == 1.0
    assert at["recency_days"] == 0.0
    # The order stands at the beginning of its half-hour.
    assert at["average_order_value"] == pytest.approx(50.0, rel=2.0 ** (HALF_HOUR / (90 * DAY)) - 1)


def test_ratios_of_windows_are_as_exact_as_float64() -> None:
    ratio = {"numerator": {"of": "count"}, "denominator": {"of": "visits"}, "window": "30d"}
    table = UserTable(compile_layout(parse_features([{"name": "r", "aggregate": "ratio", **ratio}])))
    table.apply(to_batch([Event("a", str(n), "click", START + n % 3 * HOUR) for n in range(10)]))
    assert table.features(None, START + 2 * HOUR).tolist() == [[10 / 3]]


def test_extra_columns_are_live_grow_with_the_table_and_survive_a_restart() -> None:
    table = UserTable(_layout([Extra("segment", "i4", -1), Extra("since", "i8"), Extra("flag", "?")]))
    table.apply(to_batch([Event("a", "1", "click", START)]))
    assert table.column("segment").tolist() == [-1]
    table.column("segment")[0] = 7
    table.apply(to_batch([Event(f"user{n}", str(n), "click", START) for n in range(5000)]))
    assert table.column("segment")[0] == 7 and (table.column("segment")[1:] == -1).all()
    restored = copied(table)
    row = restored.lookup("a")
    assert row is not None and restored.column("segment")[row] == 7
    with pytest.raises(KeyError):
        table.column("missing")


def test_reordered_users_keep_what_is_theirs() -> None:
    table = UserTable(_layout())
    table.apply(to_batch([Event(f"u{n}", str(n), "click", START + n * HOUR) for n in range(5)]))
    order = np.array([3, 0, 4, 1, 2])
    expected = table.features(order, START + DAY)
    table.reorder(order)
    assert table.user_ids == ["u3", "u0", "u4", "u1", "u2"]
    assert [table.lookup(user_id) for user_id in table.user_ids] == [0, 1, 2, 3, 4]
    np.testing.assert_array_equal(table.features(None, START + DAY), expected)
    table.apply(to_batch([Event("u9", "9", "click", START + DAY), Event("u4", "10", "click", START + DAY)]))
    assert table.lookup("u9") == 5 and table.column("events").tolist() == [1, 1, 2, 1, 1, 1]


def test_features_in_slices_are_the_features_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    table = UserTable(_layout())
    table.apply(to_batch([Event(f"u{n}", str(n), "click", START + n * HOUR) for n in range(50)]))
    whole = table.features(None, START + 9 * DAY)
    monkeypatch.setattr("stream.features.table._SLICE", 7)
    np.testing.assert_array_equal(table.features(None, START + 9 * DAY), whole)
    np.testing.assert_array_equal(table.features(np.array([30, 2, 2]), START + 9 * DAY), whole[[30, 2, 2]])


@pytest.mark.parametrize("count", [1, 2, 5])
def test_reading_features_changes_nothing(count: int) -> None:
    """The columns of a single row are contiguous whichever way they are turned: no kernel may work in place."""
    table = UserTable(compile_layout(FEATURES, lateness_ms=2 * DAY, dedupe_depth=4))
    events = [
        Event(user=user, id=f"{user}{at}", kind="browse", time=START + at * HOUR, category=f"c{at}")
        for user in "abcde"
        for at in range(5)
    ]
    table.apply(to_batch(events))
    rows = np.arange(5)
    before = table.pack(rows)
    for start in range(0, 5, count):
        table.features(rows[start : start + count], START + 9 * DAY)
        assert table.pack(rows) == before


def test_what_the_memory_figure_counts() -> None:
    table = UserTable(_layout())
    empty = table.nbytes
    table.apply(to_batch([Event(f"user-{n:06}", str(n), "click", START) for n in range(10_000)]))
    a_user = (table.nbytes - empty) / 10_000
    assert table.layout.bytes_per_user < a_user < table.layout.bytes_per_user + 250
