"""What is rewritten, by a log that is kept whole: nothing is lost, little is written, restarts or not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.runtime import rewrite
from stream.runtime.rewrite import FLOOR, HELD_SHARE, Rewrite, Rows

scripts = st.lists(
    st.tuples(st.integers(0, 9), st.sets(st.integers(0, 60), max_size=12), st.booleans()), min_size=1, max_size=80
)


def rows(numbers: set[int]) -> Rows:
    return np.array(sorted(numbers), np.intp)


def restarted(deltas: list[Rows], users: int) -> Rewrite:
    found = Rewrite()
    for told in deltas:
        found.restore(told)
    found.reorder(np.arange(users))
    return found


@settings(max_examples=150)
@given(scripts, st.integers(1, 8), st.integers(0, 3))
def test_the_deltas_that_are_kept_hold_the_newest_copy_of_every_row(
    script: list[tuple[int, set[int], bool]], floor: int, more: int
) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(rewrite, "FLOOR", floor)
        made, deltas, newest, users = Rewrite(), list[Rows](), dict[int, int](), 0
        kept = 0
        for new, again, restart in script:
            if restart:
                # A topic may hold more than is needed: it is trimmed late.
                made = restarted(deltas[max(len(deltas) - kept - more, 0) :], users)
            changed = {row for row in again if row < users} | set(range(users, users + new))
            users += new
            told, keeps = made.next(rows(changed), users)
            assert told.tolist() == sorted(set(told.tolist()))
            assert changed <= set(told.tolist())
            assert len(told) <= len(changed) + max(floor, len(changed))
            assert keeps <= kept + 1, "what was needless once stays so"
            deltas.append(told)
            newest |= dict.fromkeys(told.tolist(), len(deltas) - 1)
            assert set(newest) == set(range(users))
            assert min(newest.values(), default=len(deltas)) >= len(deltas) - keeps
            kept = keeps


def held(deltas: list[Rows], keeps: int) -> int:
    return sum(max(len(told), FLOOR) for told in deltas[-keeps:])


@pytest.mark.parametrize("touched", [1, 40, 300])
@pytest.mark.parametrize("skew", [0.0, 0.5, 0.99])
def test_the_log_stays_at_twice_the_table_and_what_changes_often_is_not_rewritten(touched: int, skew: float) -> None:
    """`skew` of the changes go to a hundredth of the rows."""
    users, rng, made, deltas = 4_000, np.random.default_rng(3), Rewrite(), list[Rows]()
    changes = rewritten = 0
    largest = 0
    for number in range(max(600, 24_000 // max(touched, FLOOR))):
        hot = rng.random(touched) < skew
        changed = np.unique(np.where(hot, rng.integers(0, users // 100, touched), rng.integers(0, users, touched)))
        told, keeps = made.next(changed.astype(np.intp), users)
        deltas.append(told)
        if number > 300:
            changes, rewritten = changes + len(changed), rewritten + len(told) - len(changed)
            largest = max(largest, held(deltas, keeps))
    # A delta is counted before what is rewritten with it, and goes only when it is empty.
    assert largest <= HELD_SHARE * users + 3 * max(touched, FLOOR)
    assert largest > 1.5 * users
    if touched == 300 and skew == 0:
        # By chance a row has not changed while 1.6 times as many as there are did, with p = exp(-1.6): of what is in
        # the oldest delta p is written again, which makes p / (1 - p) = 0.25 rows for each that changes.
        assert 0.2 < rewritten / changes < 0.3


def test_a_batch_of_everybody_is_rewritten_bit_by_bit() -> None:
    made, users = Rewrite(), 10_000
    made.next(rows(set(range(users))), users)
    sizes, kept = [], []
    for number in range(400):
        told, keeps = made.next(rows({number % 50}), users)
        sizes.append(len(told))
        kept.append(keeps)
    assert max(sizes) == FLOOR + 1
    assert kept[100] == 102, "the first delta is needed until its last row was written again"
    assert kept[-1] < 320


def test_rows_that_no_delta_has_carried_come_by_themselves_and_numbers_follow_a_new_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rewrite, "FLOOR", 1)
    made = Rewrite()
    assert made.next(rows({4}), 6)[0].tolist() == [0, 1, 2, 3, 4, 5]
    found = Rewrite()
    first, second = rows({0, 1, 2, 3}), rows({1, 3})
    for told in (first, second):
        found.restore(told)
    found.reorder(np.array([3, 2, 1, 0]))  # 0 and 2 are the newer ones now
    told, keeps = found.next(rows({1}), 4)
    assert (told.tolist(), keeps) == ([1], 3), "row 3 has its newest copy in the first delta, and there is room"
    told, keeps = found.next(rows({1, 2}), 4)
    assert (told.tolist(), keeps) == ([1, 2, 3], 3), "now there is none"
