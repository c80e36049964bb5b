"""The compiled update of the user table against that of numpy: the same bits, whatever the features and the events."""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.workload import events as clickstream
from stream import kernels
from stream.features.batch import FIELDS, KINDS, EventBatch
from stream.features.events import IngestSettings, decode
from stream.features.layout import DAY_MS, HALF_HOUR_MS, Extra, Layout, compile_layout
from stream.features.plan import planned, walk
from stream.features.spec import DEFAULT_FEATURES, parse_features
from stream.features.table import Applied, UserTable
from stream.transport.records import RecordColumns
from stream.transport.spans import packed
from tests.features.test_table import AWKWARD_FEATURES

if not kernels.built():
    pytest.skip("the kernels are not compiled here", allow_module_level=True)

START = 1_700_000_000_000
CATEGORIES = ["shoes", "hats", "bags", "coats", "socks"]
WINDOWS = {"1h": [1, 2], "70m": [10, 1], "7d": [1, 7, 168], "30d": [30, 15], "70d": [10, 1000]}
HALF_LIVES = ["1ms", "7m", "1h", "3h", "1d", "2d", "90d", "3000d"]


def applied_with(on: bool, table: UserTable, batch: EventBatch) -> Applied:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels, "_on", on)
        return table.apply(batch)


def assert_same(compiled: UserTable, plain: UserTable) -> None:
    assert compiled.user_ids == plain.user_ids
    assert [compiled.lookup(user) for user in plain.user_ids] == list(range(len(plain)))
    assert compiled.stream_time == plain.stream_time
    for mine, theirs in zip(compiled._arrays, plain._arrays, strict=True):
        assert mine.dtype == theirs.dtype
        assert mine.tobytes() == theirs.tobytes(), mine.dtype


def assert_same_fate(mine: Applied, theirs: Applied) -> None:
    for field in dataclasses.fields(Applied):
        one, other = getattr(mine, field.name), getattr(theirs, field.name)
        if field.name == "created":
            assert one == other
        else:
            assert (one.dtype, one.tolist()) == (other.dtype, other.tolist()), field.name


# Any features


@st.composite
def a_filter(draw: st.DrawFn, kinds: Sequence[str] = KINDS) -> dict[str, Any]:
    return {
        "kinds": draw(st.lists(st.sampled_from(kinds), max_size=3)),
        "categories": draw(st.just([]) | st.lists(st.sampled_from(CATEGORIES), max_size=4)),
    }


@st.composite
def a_horizon(draw: st.DrawFn) -> dict[str, Any]:
    if draw(st.booleans()):
        return {"half_life": draw(st.sampled_from(HALF_LIVES))}
    window = draw(st.sampled_from(sorted(WINDOWS)))
    return {"window": window, "tiles": draw(st.sampled_from(WINDOWS[window]))}


@st.composite
def a_sum(draw: st.DrawFn, refunds: bool = True) -> dict[str, Any]:
    name = draw(st.sampled_from(sorted(FIELDS)))
    carriers = [kind for kind in FIELDS[name].kinds if refunds or kind != "refund"]
    chosen = draw(a_filter(carriers))
    return {"field": name, **chosen, "kinds": chosen["kinds"] or carriers}


@st.composite
def a_feature(draw: st.DrawFn) -> dict[str, Any]:
    aggregate = draw(st.sampled_from(["count", "sum", "mean", "visits", "ratio", "recency", "tenure", "diversity"]))
    match aggregate:
        case "count" | "visits":
            return {"aggregate": aggregate, **draw(a_filter()), **draw(a_horizon())}
        case "sum" | "mean":
            return {"aggregate": aggregate, **draw(a_sum()), **draw(a_horizon())}
        case "ratio":
            below = st.builds(lambda x: {"of": "sum", **x}, a_sum(refunds=False))
            visits = st.builds(lambda x: {"of": "visits", **x}, a_filter())
            terms = {"numerator": draw(visits | below), "denominator": draw(visits | below)}
            return {"aggregate": aggregate, **terms, **draw(a_horizon())}
        case "recency":
            return {"aggregate": aggregate, **draw(a_filter())}
        case "tenure":
            return {"aggregate": aggregate}
        case _:
            buckets = draw(st.sampled_from([2, 3, 16, 100]))
            half_life = draw(st.sampled_from(HALF_LIVES))
            return {"aggregate": aggregate, **draw(a_filter()), "half_life": half_life, "buckets": buckets}


@st.composite
def layouts(draw: st.DrawFn) -> Layout:
    declared = draw(st.lists(a_feature(), min_size=1, max_size=12))
    features = parse_features([{"name": f"f{at}", **one} for at, one in enumerate(declared)])
    known = draw(st.sampled_from([(), DEFAULT_FEATURES, AWKWARD_FEATURES]))
    extras = draw(st.sampled_from([(), (Extra("a", "f4", 1), Extra("b", "u1"), Extra("c", "?"), Extra("d", "i8"))]))
    return compile_layout(
        (*known, *features),
        extras,
        lateness_ms=draw(st.sampled_from([0, 1, HALF_HOUR_MS, 2 * DAY_MS, 9 * DAY_MS])),
        dedupe_depth=draw(st.sampled_from([0, 1, 2, 5, 16])),
    )


# Any events


def made(rng: random.Random, count: int, users: int, ids: int, step: int) -> EventBatch:
    """Events in some order of time, whose numbers are missing, tiny, huge or negative, whatever their kind."""

    def numbers(*some: float) -> Any:
        return np.array([rng.choice((math.nan, *some, rng.uniform(-1e6, 1e6))) for _ in range(count)])

    time, times = START, []
    for _ in range(count):
        time += rng.randrange(-step, 3 * step + 1)
        times.append(max(0, time))
    hashes = np.array([rng.getrandbits(64) for _ in range(ids)] + [0, 1, 2**64 - 1], np.uint64)
    named = np.array([0, *(_hash(category) for category in CATEGORIES), 1, 2**64 - 1], np.uint64)
    return EventBatch(
        position=np.arange(count, dtype=np.int32),
        user_ids=[f"u{rng.randrange(users)}" for _ in range(count)],
        event_ids=[""] * count,
        kind=np.array([rng.randrange(len(KINDS)) for _ in range(count)], np.int8),
        time=np.array(times, np.int64),
        id_hash=hashes[[rng.randrange(len(hashes)) for _ in range(count)]],
        amount=numbers(0.0, -0.0, 0.1, -19.99, 1e9, 1e-9),
        quantity=numbers(0.0, 1.0, 3.0, 1e-6, 1e-7, 1e9),
        discount=numbers(0.0, 5.0),
        dwell_ms=numbers(0.0, 1.0, 1e-300, 8.64e7),
        rating=numbers(1.0, 5.0),
        category=named[[rng.randrange(len(named)) for _ in range(count)]],
    )


def _hash(category: str) -> int:
    return kernels.events.xxh3(category.encode())


@settings(max_examples=200)
@given(
    layouts(),
    st.integers(0, 2**32),
    st.integers(1, 400),
    st.sampled_from([1, 3, 50]),
    st.sampled_from([3, 2000]),
    st.sampled_from([0, 1, 60_000, HALF_HOUR_MS, DAY_MS // 3, 20 * DAY_MS, 4000 * DAY_MS]),
    st.data(),
)
def test_the_same_bits_whatever_the_features_and_events(
    layout: Layout, seed: int, count: int, users: int, ids: int, step: int, data: st.DataObject
) -> None:
    """A table that either updates by turns is among them: processes take partitions over from each other."""
    batch = made(random.Random(seed), count, users, ids, step)
    compiled, plain, mixed = UserTable(layout), UserTable(layout), UserTable(layout)
    cuts = sorted(data.draw(st.lists(st.integers(0, count), max_size=12)))
    for number, (start, stop) in enumerate(pairwise([0, *cuts, count])):
        part = batch.take(np.arange(start, stop))
        fate = applied_with(True, compiled, part)
        assert_same_fate(fate, applied_with(False, plain, part))
        assert_same_fate(fate, applied_with(bool(number % 2), mixed, part))
        assert_same(compiled, plain)
        assert_same(mixed, plain)


@settings(max_examples=30)
@given(layouts(), st.integers(0, 2**32), st.integers(1, 8))
def test_the_same_bits_after_a_migration_and_a_new_order(layout: Layout, seed: int, parts: int) -> None:
    """State of the default features is taken into any layout, as at a change of the configuration."""
    rng = random.Random(seed)
    old = UserTable(compile_layout(DEFAULT_FEATURES, lateness_ms=DAY_MS, dedupe_depth=4))
    batch = made(rng, 300, 20, 500, HALF_HOUR_MS)
    old.apply(batch.take(np.arange(150)))
    payload = old.pack(np.arange(len(old)))
    order = np.array(rng.sample(range(len(old)), len(old)))
    compiled, plain = UserTable(layout), UserTable(layout)
    for table in (compiled, plain):
        table.unpack(payload)
        table.reorder(order)
    for some in np.array_split(np.arange(150, 300), parts):
        part = batch.take(some)
        assert_same_fate(applied_with(True, compiled, part), applied_with(False, plain, part))
        assert_same(compiled, plain)


def test_the_same_bits_over_a_clickstream() -> None:
    """As large batches as a drain has them, over days, with capacities that grow on the way."""
    rows = list(clickstream(20_000, 3_000, START))
    records = RecordColumns(
        "events", 0, np.arange(len(rows)), np.full(len(rows), START), packed([row.key for row in rows]),
        packed([row.value for row in rows]),
    )  # fmt: skip
    batch, _ = decode(records, None, IngestSettings())
    assert len(batch) > 15_000
    layout = compile_layout(DEFAULT_FEATURES + AWKWARD_FEATURES)
    compiled, plain = UserTable(layout), UserTable(layout)
    at = 0
    while at < len(batch):
        part = batch.take(np.arange(at, min(at + 1 + at % 2_500, len(batch))))
        at += len(part)
        assert_same_fate(applied_with(True, compiled, part), applied_with(False, plain, part))
    assert_same(compiled, plain)


def test_a_user_of_many_years_and_sums_that_vanish() -> None:
    """Shifts of more than all exponents, and of just as many."""
    features = parse_features(
        [{"name": f"c{n}", "aggregate": "sum", "field": "amount", "half_life": f"{n}ms"} for n in (1, 2, 1000)]
        + [{"name": "v", "aggregate": "visits", "half_life": "1ms"}]
    )
    layout = compile_layout(features, lateness_ms=10**9, dedupe_depth=0)
    steps = [1, 100, 125, 126, 127, 128, 140, 149, 150, 151, 300, 1000, 1074, 1100, 2**20, 2**20 + 5, 2**31, 2**40]
    for late in (False, True):
        compiled, plain = UserTable(layout), UserTable(layout)
        time = START
        for step in steps:
            time += step
            batch = made(random.Random(step), 4, 1, 500, 0)
            batch.amount[:] = [3.3, -1e9, 1e-3, 7.0]
            batch.kind[:] = KINDS.index("purchase")
            batch.time[:] = [time, time + step, time + step - late * min(step, 10**9), time + step]
            assert_same_fate(applied_with(True, compiled, batch), applied_with(False, plain, batch))
            assert_same(compiled, plain)


def test_tiles_and_counters_wrap_alike() -> None:
    """A tile of a byte passes 255 only in a state that is not ours, and it wraps; so does the count of events."""
    layout = compile_layout(DEFAULT_FEATURES)
    compiled, plain = UserTable(layout), UserTable(layout)
    for table in (compiled, plain):
        table.ensure(["u0"])
        for array in table._arrays:
            if array.dtype in (np.uint8, np.uint32):
                array[0] = np.iinfo(array.dtype).max
    for step in range(4):
        batch = made(random.Random(step), 20, 1, 500, HALF_HOUR_MS)
        assert_same_fate(applied_with(True, compiled, batch), applied_with(False, plain, batch))
        assert_same(compiled, plain)


# What the kernel is told


@pytest.mark.parametrize("name", FIELDS)
def test_fields_are_read_as_numpy_reads_them(name: str) -> None:
    features = parse_features([{"name": "s", "aggregate": "sum", "field": name, "half_life": "3000d"}])
    layout = compile_layout(features, dedupe_depth=0)
    batch = made(random.Random(1), 2_000, 2_000, 5, 0)
    batch.user_ids = [f"u{at}" for at in range(2_000)]
    batch.kind[:] = KINDS.index(FIELDS[name].kinds[0])
    compiled, plain = UserTable(layout), UserTable(layout)
    applied_with(True, compiled, batch)
    applied_with(False, plain, batch)
    assert_same(compiled, plain)
    assert np.count_nonzero(compiled._arrays[layout.group_of("<f4") or 0]) > 500


def test_a_field_that_the_kernel_does_not_know_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever adds a field is told, and not served sums without it."""
    assert set(kernels.plan.FIELDS) == set(FIELDS)
    monkeypatch.delitem(kernels.plan.FIELDS, "amount")
    with pytest.raises(ValueError, match="amount is not known"):
        planned(compile_layout(DEFAULT_FEATURES))


def test_arrays_that_do_not_fit_are_refused_and_nothing_is_changed() -> None:
    layout = compile_layout(DEFAULT_FEATURES)
    table = UserTable(layout)
    batch = made(random.Random(3), 10, 4, 5, HALF_HOUR_MS)
    applied_with(True, table, batch)
    plan, rows, late = planned(layout), np.zeros(10, np.int64), np.zeros(10, bool)
    before = [array.tobytes() for array in table._arrays]
    wrong_batches = [
        dataclasses.replace(batch, time=batch.time[:9]),
        dataclasses.replace(batch, time=batch.time.astype(np.int32)),
        dataclasses.replace(batch, kind=batch.kind + np.int8(len(KINDS))),
        dataclasses.replace(batch, kind=-batch.kind - np.int8(1)),
        dataclasses.replace(batch, amount=batch.amount.astype(np.float32)),
        dataclasses.replace(batch, category=batch.category[::-1]),
        dataclasses.replace(batch, id_hash=batch.id_hash[:, None]),
    ]
    for wrong in wrong_batches:
        with pytest.raises(ValueError):
            walk(plan, table._arrays, wrong, rows, late)
    wrong_rows: list[Any] = [rows - 1, rows + len(table._arrays[0]), rows[:9].repeat(2), rows.astype(np.int32)]
    for some_rows in wrong_rows:
        with pytest.raises(ValueError):
            walk(plan, table._arrays, batch, some_rows, late)
    with pytest.raises(ValueError):
        walk(plan, table._arrays, batch, rows, late.astype(np.int8))
    for group in range(len(layout.groups)):
        for wrong_array in (table._arrays[group][:, 1:].copy(), np.zeros(table._arrays[group].shape, np.float16)):
            arrays = [*table._arrays[:group], wrong_array, *table._arrays[group + 1 :]]
            with pytest.raises(ValueError):
                walk(plan, arrays, batch, rows, late)
    assert [array.tobytes() for array in table._arrays] == before
    short = [array[:2] for array in table._arrays]
    with pytest.raises(ValueError, match="row 2 of 2"):
        walk(plan, short, batch, rows + 2, late)


def test_plans_that_do_not_fit_are_refused() -> None:
    def plan(**changed: Any) -> kernels.plan.Plan:
        whole: dict[str, Any] = {
            "groups": [(0, 4), (1, 5), (2, 3), (3, 4), (4, 1)],
            "times": (0, 1, 0),
            "recent": (2, 2),
            "half_lives": [(1000, 0, 2)],
            "sums": [(0, 0, 1), (1, 0, 1)],
            "tiles": [500],
            "rings": [(2, 0, 2, False), (0, 0, 5, True)],
            "words": 2,
            "bitmaps": [(0, [0], [1])],
            "measures": [([0, 2], [7], kernels.plan.ONE, False, [1], [0], [2], [0])],
            "kinds": 3,
        }
        return kernels.plan.Plan(**{**whole, **changed})

    assert plan().exponents == 2
    wrong: list[dict[str, Any]] = [
        {"groups": [(0, 4), (-1, 0), (2, 3), (3, 4), (4, 1)]},
        {"times": (0, 3, 0)},
        {"times": (0, 1, -1)},
        {"recent": (3, 2)},
        {"half_lives": [(0, 0, 2)]},
        {"half_lives": [(1000, 0, 5)]},
        {"half_lives": [(1000, 2, 2)]},
        {"sums": [(0, 1, 1)]},
        {"sums": [(1, 0, 4)]},
        {"tiles": [-5]},
        {"rings": [(2, 1, 2, False)]},
        {"rings": [(3, 0, 2, False)]},
        {"rings": [(0, 0, 6, True)]},
        {"words": 5},
        {"words": 0},
        {"bitmaps": [(0, [2], [])]},
        {"bitmaps": [(0, [], [-1])]},
        {"measures": [([0], [], 99, False, [], [], [], [])]},
        {"measures": [([0], [], -1, False, [2], [], [], [])]},
        {"measures": [([0], [], -1, False, [], [2], [], [])]},
        {"measures": [([0], [], -1, False, [], [], [3], [])]},
        {"measures": [([0], [], -1, False, [], [], [], [1])]},
    ]
    for changed in wrong:
        with pytest.raises(ValueError):
            plan(**changed)


def test_a_clock_without_room_is_refused() -> None:
    with pytest.raises(ValueError):
        kernels.table.clock(np.zeros(2, np.int64), 0, 0, np.empty(1, bool))
