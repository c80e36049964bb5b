"""Decisions against a naive user-by-user rule, written from the definitions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.segments.assign import (
    ANOMALY,
    BEHAVIOUR,
    ENTERED,
    INACTIVITY,
    MODEL,
    NEWCOMER,
    NONE,
    QUARANTINE,
    Assignment,
    DecisionSettings,
    Standing,
    assign,
    segment_name,
)

SEGMENTS = np.array([1, 3, 7], dtype=np.int32)
User = tuple[list[float], int, int, int, int, bool, bool]


def naive(user: User, look: int, settings: DecisionSettings) -> tuple[int, int, int, int]:
    """Segment, candidate, looks and cause of one user, in plain Python."""
    distances, current, candidate, looks, first_cause, newcomer, held = user
    by_segment = dict(zip(SEGMENTS.tolist(), distances, strict=True))
    nearest = min(by_segment, key=lambda s: (by_segment[s], s))
    alive = current in by_segment
    cause = look
    pending = (NONE, 0)
    target = current if alive else nearest
    margin = settings.model_margin if look == MODEL else settings.margin
    if alive and nearest != current and by_segment[nearest] < (1 - margin) * by_segment[current]:
        count = 1
        if candidate == nearest:
            count = min(looks, 100) + 1
            cause = first_cause if looks > 0 else look
        if count >= (1 if look == MODEL else settings.looks):
            target = nearest
        else:
            pending = (nearest, count)
    if newcomer and current <= 0:
        target = NEWCOMER
    if held:
        target = QUARANTINE
    if target != current:
        pending = (NONE, 0)
        if current > 0 and not alive:
            cause = MODEL
        if current == NONE:
            cause = ENTERED
        if held or current == QUARANTINE:
            cause = ANOMALY
    return target, *pending, cause


def decide(users: list[User], look: int, settings: DecisionSettings) -> Assignment:
    distances, current, candidate, looks, cause, newcomer, held = zip(*users, strict=True)
    standing = Standing(
        np.array(current, np.int32), np.array(candidate, np.int32), np.array(looks, np.int8), np.array(cause, np.int8)
    )
    return assign(np.array(distances), SEGMENTS, standing, np.array(newcomer), np.array(held), look, settings)


people = st.lists(
    st.tuples(
        st.lists(st.floats(0, 10), min_size=3, max_size=3),
        st.sampled_from([NONE, NEWCOMER, QUARANTINE, 1, 3, 5, 7, 9]),
        st.sampled_from([NONE, 1, 3, 7]),
        st.integers(0, 3),
        st.sampled_from([BEHAVIOUR, INACTIVITY]),
        st.booleans(),
        st.booleans(),
    ),
    min_size=1,
    max_size=30,
)


@given(people, st.sampled_from([BEHAVIOUR, INACTIVITY, MODEL]), st.floats(0, 0.5), st.integers(1, 3))
def test_equals_the_naive_rule(users: list[User], look: int, margin: float, needed: int) -> None:
    settings = DecisionSettings(margin=margin, looks=needed)
    decided = decide(users, look, settings)
    for i, user in enumerate(users):
        segment, pending, count, why = naive(user, look, settings)
        assert decided.standing.segment[i] == segment
        assert decided.standing.candidate[i] == pending
        assert decided.standing.looks[i] == count
        if segment != user[1]:
            assert decided.cause[i] == why


@given(people)
def test_nobody_depends_on_the_others_in_the_batch(users: list[User]) -> None:
    def outcome(chosen: list[User]) -> list[tuple[int, int, float]]:
        result = decide(chosen, BEHAVIOUR, DecisionSettings())
        return list(zip(result.standing.segment, result.standing.looks, result.share, strict=True))

    assert outcome(users) == [one for user in users for one in outcome([user])]


def test_a_wavering_user_stays_and_a_lasting_move_moves() -> None:
    settings = DecisionSettings(margin=0.1, looks=2)
    near_one, near_three = np.array([[1.0, 2.0, 9.0]]), np.array([[2.0, 1.0, 9.0]])
    no = np.array([False])
    standing = Standing(np.array([1], np.int32), np.zeros(1, np.int32), np.zeros(1, np.int8), np.zeros(1, np.int8))
    for look in [near_three, near_one] * 5:
        standing = assign(look, SEGMENTS, standing, no, no, BEHAVIOUR, settings).standing
        assert standing.segment[0] == 1
    first = assign(near_three, SEGMENTS, standing, no, no, BEHAVIOUR, settings)
    second = assign(near_three, SEGMENTS, first.standing, no, no, INACTIVITY, settings)
    assert second.standing.segment[0] == 3
    assert second.cause[0] == BEHAVIOUR, "the sweep only confirmed what behaviour had begun"
    assert 0.5 < second.share[0] <= 1


@pytest.mark.parametrize(
    ("number", "name"), [(7, "seg-7"), (NONE, None), (NEWCOMER, "newcomer"), (QUARANTINE, "quarantine")]
)
def test_names_of_segments(number: int, name: str | None) -> None:
    assert segment_name(number) == name
