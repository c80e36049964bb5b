"""How moves are followed, against a walk in plain Python; and the reliability curve against a loop."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.backtest.changes import Changes, between
from stream.backtest.moves import Following, Looks, follow, homes
from stream.backtest.reliability import BINS, curve, right, stays
from stream.backtest.truth import UNKNOWN, Moves

HOME = {1: 0, 2: 1, 3: 1, 4: 2}
"""Segments 2 and 3 are both at home with persona 1; nobody is with persona 3."""
END = 100


def changes_of(rows: list[tuple[int, int, int, int]], confidence: list[float] | None = None) -> Changes:
    user, at, before, after = np.array(rows, np.int64).reshape(-1, 4).T
    shown = np.full(len(user), 0.9) if confidence is None else np.array(confidence)
    return Changes(user, at, before, after, np.ones(len(user), np.int64), shown)


def moves_of(rows: list[tuple[int, int, int]]) -> Moves:
    row, at, after = np.array(sorted(rows, key=lambda r: r[1]), np.int64).reshape(-1, 3).T
    return Moves(row, at, np.zeros(len(row), np.int64), after)


def looks_of(times: dict[int, list[int]]) -> Looks:
    looks = Looks()
    for at in sorted({t for own in times.values() for t in own}):
        looks.add(at, np.array([u for u, own in times.items() if at in own], np.intp))
    return looks


MOVE = st.tuples(st.integers(0, 3), st.integers(1, 99), st.integers(0, 3))


@given(
    st.lists(MOVE, max_size=8, unique_by=lambda m: (m[0], m[1])),
    st.lists(
        st.tuples(st.integers(0, 3), st.integers(0, 99), st.integers(1, 4)), max_size=12, unique_by=lambda c: c[:2]
    ),
    st.dictionaries(st.integers(0, 3), st.lists(st.integers(0, END), max_size=12, unique=True)),
)
def test_following_is_that_of_a_plain_walk(
    moved: list[tuple[int, int, int]], changed: list[tuple[int, int, int]], looked: dict[int, list[int]]
) -> None:
    ledger = sorted((at, user, after) for user, at, after in changed)
    found = follow(
        moves_of(moved), changes_of([(u, at, 0, after) for at, u, after in ledger]), looks_of(looked), HOME, END
    )
    counts = dict.fromkeys(("homeless", "there_already", "unseen", "missed"), 0)
    delays = []
    for user, at, persona in moved:
        until = min((t for u, t, _ in moved if u == user and t > at), default=END)
        stands = [s for t, u, s in ledger if u == user and t <= at]
        seen = [t for t in sorted(looked.get(user, [])) if at < t <= until]
        came = [t for t, u, s in ledger if u == user and at < t <= until and HOME[s] == persona]
        if persona == 3:
            counts["homeless"] += 1
        elif stands and HOME[stands[-1]] == persona:
            counts["there_already"] += 1
        elif len(seen) < 2:
            counts["unseen"] += 1
        elif not came:
            counts["missed"] += 1
        else:
            delays.append(max(1, len([t for t in seen if t <= came[0]])))
    assert isinstance(found, Following)
    assert {name: getattr(found, name) for name in counts} == counts
    assert (found.followed, found.moves) == (len(delays), len(moved))
    assert found.delay_looks == (np.median(delays) if delays else None)
    could = found.followed + found.missed
    assert found.missed_share == (found.missed / could if could else None)


def test_a_home_is_where_most_people_are_that_persona() -> None:
    segments = np.array([1, 1, 1, 2, 2, -2, 0, 5])
    personas = np.array([0, 0, 1, 1, UNKNOWN, 1, 1, UNKNOWN])
    assert homes(segments, personas) == {1: 0, 2: 1}


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), max_size=60))
def test_the_curve_is_a_loops(published: list[tuple[float, bool]]) -> None:
    found = curve(np.array([c for c, _ in published]), np.array([k for _, k in published], bool))
    bins: dict[int, list[tuple[float, bool]]] = {}
    for confidence, kept in published:
        bins.setdefault(min(int(confidence * BINS), BINS - 1), []).append((confidence, kept))
    expected = [bins[b] for b in sorted(bins)]
    assert found.count == tuple(len(b) for b in expected)
    assert found.confidence == pytest.approx([np.mean([c for c, _ in b]) for b in expected])
    assert found.share == pytest.approx([np.mean([k for _, k in b]) for b in expected])
    if expected:
        gaps = [abs(np.mean([c for c, _ in b]) - np.mean([k for _, k in b])) * len(b) for b in expected]
        assert found.error == pytest.approx(sum(gaps) / len(published))
    else:
        assert found.error is None


def test_a_change_holds_until_the_user_leaves_for_another_segment() -> None:
    changes = changes_of(
        [(0, 10, 0, 1), (1, 10, 0, 1), (2, 10, 0, 2), (1, 15, 1, -2), (0, 18, 1, 2), (1, 20, -2, 1), (2, 90, 2, 3)]
    )
    # 0 left after 8; 1 was in quarantine in between and came back to the same; 2 left late; 90 is too late to judge.
    assert stays(changes, 20, 0, END).count == (5,)
    assert stays(changes, 20, 0, END).share == (4 / 5,)
    assert stays(changes, 100, 0, END).count == ()
    assert stays(changes, 20, 16, END).count == (2,)  # the one into quarantine is no segment


def test_right_is_the_true_personas_home() -> None:
    changes = changes_of(
        [(0, 1, 0, 1), (1, 1, 0, 3), (2, 1, 0, 4), (3, 1, 0, -2), (4, 1, 0, 2)], [0.95, 0.95, 0.35, 1, 1]
    )
    personas = np.array([0, 1, 0, 0, UNKNOWN])
    found = right(changes, personas, HOME)
    assert (found.count, found.share) == ((1, 2), (0.0, 1.0))
    assert found.error == pytest.approx((0.35 + 2 * 0.05) / 3)


def test_labels_at_checkpoints_as_a_ledger() -> None:
    rows = [np.array([0, 1, 3]), np.array([0, 1, 2, 3]), np.array([0, 2])]
    labels = [np.array([5, 6, 5]), np.array([5, 5, 6, 5]), np.array([6, 6])]
    ledger = between([10, 20, 30], rows, labels)
    found = list(zip(*(c.tolist() for c in (ledger.at, ledger.user, ledger.before, ledger.after)), strict=True))
    assert found == [(10, 0, 0, 5), (10, 1, 0, 6), (10, 3, 0, 5), (20, 1, 6, 5), (20, 2, 0, 6), (30, 0, 5, 6)]
    assert ledger.between_segments.tolist() == [False, False, False, True, False, True]
