"""Bitmaps of half-hours against sets and Python's integers of any size."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.features.layout import compile_layout
from stream.features.spec import parse_features
from stream.features.table import UserTable
from stream.features.visits import new_half_hours, remember
from tests.features.oracle import HALF_HOUR, Event, to_batch

START = 1_700_000_000_000 // HALF_HOUR


def as_integer(bitmap: list[int]) -> int:
    """Bit j of the whole bitmap; the newest word is the last."""
    return sum(word << (64 * place) for place, word in enumerate(reversed(bitmap)))


@given(
    st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=4),
    st.integers(0, 300) | st.sampled_from([1, 63, 64, 65, 128, 192, 256]),
)
@settings(max_examples=300, deadline=None)
def test_moving_on_makes_every_bit_older(bitmap: list[int], steps: int) -> None:
    before, after = np.array([START * HALF_HOUR]), np.array([(START + steps) * HALF_HOUR])
    none = np.zeros(0, np.int64)
    moved = remember(np.array([bitmap], np.uint64), none, none, before, after)
    kept = (1 << 64 * len(bitmap)) - 1
    assert as_integer(moved[0].tolist()) == as_integer(bitmap) << steps & kept


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 100)), max_size=40), st.integers(0, 40))
@settings(max_examples=200, deadline=None)
def test_a_half_hour_is_new_once_in_the_order_of_first_events(events: list[tuple[int, int]], cut: int) -> None:
    bitmaps = np.zeros((2, 2), np.uint64)
    latest = np.full(2, START * HALF_HOUR)
    found: list[tuple[int, int]] = []
    for part in (events[:cut], events[cut:]):
        users = np.array([user for user, _ in part], np.int64)
        times = np.array([(START + step) * HALF_HOUR + 7 for _, step in part], np.int64)
        after = latest.copy()
        np.maximum.at(after, users, times)
        new_users, half_hours = new_half_hours(bitmaps, users, times, latest)
        bitmaps = remember(bitmaps, new_users, half_hours, latest, after)
        latest = after
        found += zip(new_users.tolist(), (half_hours - START).tolist(), strict=True)
    assert found == list(dict.fromkeys(events))


def test_a_tile_holds_all_its_half_hours() -> None:
    """A week has 336, more than a byte can count; five days have 240."""
    for days, tiles in ((70, 10), (50, 10)):
        (spec,) = parse_features([{"name": "v", "aggregate": "visits", "window": f"{days}d", "tiles": tiles}])
        table = UserTable(compile_layout([spec]))
        table.apply(to_batch([Event("a", str(n), "click", (START + n) * HALF_HOUR) for n in range(1000)]))
        assert table.features(None, 0).tolist() == [[1000.0]]
