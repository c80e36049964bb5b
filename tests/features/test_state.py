"""Packed users: nothing is lost, nothing misread, other layouts are migrated column by column."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream import kernels
from stream.features.layout import NEVER, Extra, Layout, compile_layout
from stream.features.spec import DEFAULT_FEATURES, parse_features
from stream.features.state import StateError
from stream.features.table import UserTable
from tests.features.oracle import DAY, Event, to_batch

pytestmark = pytest.mark.usefixtures("either_kernels")

START = 1_700_000_000_000
SPEND = {"name": "spend", "aggregate": "sum", "field": "amount", "half_life": "30d"}
CLICKS = {"name": "clicks", "aggregate": "count", "kinds": ["click"], "window": "30d", "tiles": 30}
VISITS = {"name": "visits", "aggregate": "visits", "window": "30d", "tiles": 10}


def layout(*declarations: dict[str, Any], extras: tuple[Extra, ...] = (), **settings: Any) -> Layout:
    return compile_layout(parse_features(declarations), extras, **settings)


def filled(compiled: Layout, users: int = 20) -> UserTable:
    table = UserTable(compiled)
    table.apply(to_batch([Event(f"u{n}", f"p{n}", "purchase", START + n, amount=float(n)) for n in range(users)]))
    table.apply(to_batch([Event(f"u{n}", f"c{n}", "click", START + n + DAY) for n in range(users)]))
    return table


def moved(table: UserTable, to: Layout) -> UserTable:
    restored = UserTable(to)
    restored.unpack(table.pack(np.arange(len(table))))
    return restored


def values(table: UserTable, name: str) -> list[float]:
    return table.features(None, START + 2 * DAY)[:, table.layout.names.index(name)].tolist()  # type: ignore[no-any-return]


def test_the_last_write_wins() -> None:
    table = filled(compile_layout(DEFAULT_FEATURES))
    old = table.pack(np.arange(20))
    table.apply(to_batch([Event("u3", "new", "click", START + 3 * DAY)]))
    restored = UserTable(table.layout)
    assert restored.unpack(old).tolist() == list(range(20))
    assert restored.unpack(table.pack(np.array([3]))).tolist() == [3]
    assert restored.stream_time == START + 3 * DAY
    np.testing.assert_array_equal(restored.features(None, START + 4 * DAY), table.features(None, START + 4 * DAY))


def test_an_older_clock_does_not_turn_it_back() -> None:
    table = filled(compile_layout(DEFAULT_FEATURES))
    old = table.pack(np.arange(20))
    table.apply(to_batch([Event("u3", "new", "click", START + 3 * DAY)]))
    table.unpack(old)
    assert table.stream_time == START + 3 * DAY


@given(st.lists(st.text(min_size=1, max_size=128), min_size=1, max_size=20, unique=True))
@settings(max_examples=50, deadline=None)
def test_any_user_id_comes_back(user_ids: list[str]) -> None:
    table = UserTable(layout(CLICKS))
    table.apply(to_batch([Event(user_id, "1", "click", START) for user_id in user_ids]))
    restored = moved(table, table.layout)
    assert restored.user_ids == user_ids
    assert [restored.lookup(user_id) for user_id in user_ids] == list(range(len(user_ids)))


def test_an_added_feature_starts_with_its_default_and_the_others_keep_their_values() -> None:
    table = filled(layout(SPEND))
    both = moved(table, layout(SPEND, CLICKS, VISITS))
    assert values(both, "spend") == values(table, "spend")
    assert values(both, "clicks") == [0.0] * 20
    both.apply(to_batch([Event("u1", "next", "click", START + 2 * DAY)]))
    assert values(both, "clicks") == [0.0, 1.0] + [0.0] * 18


def test_a_removed_feature_is_left_out() -> None:
    table = filled(layout(SPEND, CLICKS, VISITS))
    fewer = moved(table, layout(CLICKS))
    assert values(fewer, "clicks") == values(table, "clicks") == [1.0] * 20
    assert fewer.column("last").tolist() == table.column("last").tolist()


def test_a_feature_with_another_definition_starts_anew_under_its_old_name() -> None:
    table = filled(layout(SPEND, CLICKS))
    for changed in (
        {**CLICKS, "tiles": 15},
        {**CLICKS, "kinds": ["browse"]},
        {**CLICKS, "aggregate": "visits"},
        {"name": "clicks", "aggregate": "count", "kinds": ["click"], "half_life": "30d"},
    ):
        other = moved(table, layout(SPEND, changed))
        assert values(other, "clicks") == [0.0] * 20
        assert values(other, "spend") == values(table, "spend")


def test_a_renamed_feature_keeps_its_values() -> None:
    table = filled(layout(SPEND))
    assert values(moved(table, layout({**SPEND, "name": "money"})), "money") == values(table, "spend")


def test_extra_columns_are_migrated_by_name_too() -> None:
    table = filled(layout(SPEND, extras=(Extra("segment", "i4"), Extra("old", "f8"))))
    table.column("segment")[:] = np.arange(20)
    other = moved(table, layout(SPEND, extras=(Extra("since", "i8", NEVER), Extra("segment", "i4"))))
    assert other.column("segment").tolist() == list(range(20))
    assert other.column("since").tolist() == [NEVER] * 20


@pytest.mark.parametrize(("before", "after", "remembered"), [(8, 3, 2), (3, 8, 2), (8, 1, 1), (8, 0, 0), (0, 8, 0)])
def test_recent_ids_survive_another_depth(before: int, after: int, remembered: int) -> None:
    table = filled(layout(SPEND, dedupe_depth=before), users=1)
    again = [Event("u0", name, "click", START + DAY) for name in ("p0", "c0")]
    found = moved(table, layout(SPEND, dedupe_depth=after)).apply(to_batch(again[2 - remembered :])).duplicate
    assert found.tolist() == [True] * remembered if remembered else not found.any()


def test_seen_half_hours_survive_another_lateness() -> None:
    table = filled(layout(VISITS, lateness_ms=2 * DAY), users=1)
    for lateness in (DAY // 4, 2 * DAY, 7 * DAY):
        other = moved(table, layout(VISITS, lateness_ms=lateness))
        other.apply(to_batch([Event("u0", "next", "click", START + DAY + 1)]))
        assert values(other, "visits") == values(table, "visits") == [2.0]


def test_what_cannot_be_read_is_refused_and_changes_nothing() -> None:
    table = filled(layout(SPEND))
    payload = table.pack(np.arange(20))
    target = UserTable(layout(SPEND))
    for broken in (b"", b"RUT9" + payload[4:], payload[:40], payload[:-1], payload[:4] + b"nonsense", b"\x80pickle"):
        with pytest.raises(StateError, match="rebuild it from the events"):
            target.unpack(broken)
    assert len(target) == 0 and target.stream_time == NEVER
    for place in range(4, len(payload), 7):
        flipped = bytearray(payload)
        flipped[place] ^= 0x55
        with pytest.raises(StateError):
            target.unpack(bytes(flipped))


def test_users_who_did_little_pack_small() -> None:
    table = filled(compile_layout(DEFAULT_FEATURES), users=1000)
    assert len(table.pack(np.arange(1000))) < 1000 * table.layout.bytes_per_user / 4


# The compiled kernel

needs_kernels = pytest.mark.skipif(not kernels.built(), reason="the kernels are not compiled here")
IDS = st.text(min_size=1, max_size=9) | st.text("abz019-", min_size=1, max_size=128)


@needs_kernels
@given(st.lists(IDS, min_size=1, max_size=70, unique=True), st.integers(0, 2**32 - 1))
@settings(max_examples=50, deadline=None)
def test_the_kernel_packs_the_same_bytes(user_ids: list[str], seed: int) -> None:
    rng = np.random.default_rng(seed)
    table = UserTable(compile_layout(DEFAULT_FEATURES, (Extra("a", "i1"), Extra("b", "<u2"))))
    table.apply(to_batch([Event(user_id, "1", "click", START) for user_id in user_ids]))
    for array in table._arrays:
        array.view(np.uint8)[:] = rng.integers(0, 256, array.view(np.uint8).shape)
    rows = rng.permutation(len(table))[: rng.integers(0, len(table) + 1)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels, "_on", False)
        plain = table.pack(rows)
        patch.setattr(kernels, "_on", True)
        assert table.pack(rows) == table.pack(rows.astype(np.int32)) == plain


@needs_kernels
@pytest.mark.parametrize("name", ["größe", "\ud800", "😀", "a" * 65_536])
def test_ids_that_the_kernel_leaves_alone(name: str) -> None:
    assert kernels.users.ids(["u", name], np.array([0, 1])) is None
    assert kernels.users.ids(["u", name], np.array([0, 0])) == (b"\x01\x00" * 2, b"uu")


@needs_kernels
def test_rows_and_sizes_that_do_not_fit_are_refused() -> None:
    users = kernels.users
    for row in (-1, 2, 2**62, -(2**63)):
        with pytest.raises(ValueError, match="no row"):
            users.ids(["a", "b"], np.array([0, row]))
        with pytest.raises(ValueError, match="no row"):
            users.columns(np.zeros((2, 8), np.uint8), np.array([0, row]), 4, np.empty(16, np.uint8))
    for size in (0, -1, 3, 8, 16):
        with pytest.raises(ValueError, match="do not hold"):
            users.columns(np.zeros((2, 4), np.uint8), np.array([0]), size, np.empty(4, np.uint8))
    for room in (0, 3, 5):
        with pytest.raises(ValueError, match=f"out has {room}"):
            users.columns(np.zeros((2, 4), np.uint8), np.array([0]), 4, np.empty(room, np.uint8))
    users.columns(np.zeros((0, 4), np.uint8), np.empty(0, np.int64), 4, np.empty(0, np.uint8))
    assert users.ids([], np.empty(0, np.int64)) == (b"", b"")
