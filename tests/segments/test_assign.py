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
User = tuple[list[float], int, int, int, int, bool, bool, int, int]
NOW = 1_000


def naive(user: User, look: int, settings: DecisionSettings) -> tuple[int, int, int, int, int]:
    """Segment, candidate, looks, when they began, and cause of one user, in plain Python."""
    distances, current, candidate, looks, first_cause, newcomer, held, first_at, since = user
    by_segment = dict(zip(SEGMENTS.tolist(), distances, strict=True))
    nearest = min(by_segment, key=lambda s: (by_segment[s], s))
    alive = current in by_segment
    cause = look
    pending = (NONE, 0, 0)
    target = current if alive else nearest
    margin = settings.model_margin if look == MODEL else settings.margin
    if alive and nearest != current and by_segment[nearest] < (1 - margin) * by_segment[current]:
        count, began = 1, NOW
        if candidate == nearest:
            count = min(looks + 1, settings.looks)
            if looks > 0:
                cause, began = first_cause, first_at
        enough = count >= (1 if look == MODEL else settings.looks)
        if look != MODEL and cause == BEHAVIOUR:
            clear = by_segment[nearest] < (1 - settings.clear_margin) * by_segment[current]
            enough = enough and (clear or NOW - began >= settings.confirm) and NOW - since >= settings.dwell
        if enough:
            target = nearest
        else:
            pending = (nearest, count, began)
    if newcomer and current <= 0:
        target = NEWCOMER
    if held:
        target = QUARANTINE
    if target != current:
        pending = (NONE, 0, 0)
        if current > 0 and not alive:
            cause = MODEL
        if current == NONE:
            cause = ENTERED
        if held or current == QUARANTINE:
            cause = ANOMALY
    return target, *pending, cause


def decide(users: list[User], look: int, settings: DecisionSettings) -> Assignment:
    distances, current, candidate, looks, cause, newcomer, held, first_at, since = zip(*users, strict=True)
    standing = Standing(
        np.array(current, np.int32),
        np.array(candidate, np.int32),
        np.array(looks, np.int8),
        np.array(cause, np.int8),
        np.array(first_at, np.int64),
        np.array(since, np.int64),
    )
    return assign(np.array(distances), SEGMENTS, standing, np.array(newcomer), np.array(held), look, NOW, settings)


people = st.lists(
    st.tuples(
        st.lists(st.floats(0, 10), min_size=3, max_size=3),
        st.sampled_from([NONE, NEWCOMER, QUARANTINE, 1, 3, 5, 7, 9]),
        st.sampled_from([NONE, 1, 3, 7]),
        st.integers(0, 3),
        st.sampled_from([BEHAVIOUR, INACTIVITY]),
        st.booleans(),
        st.booleans(),
        st.integers(0, NOW),
        st.integers(0, NOW),
    ),
    min_size=1,
    max_size=30,
)


@given(
    people,
    st.sampled_from([BEHAVIOUR, INACTIVITY, MODEL]),
    st.floats(0, 0.5),
    st.integers(1, 3),
    st.floats(0, 0.9),
    st.integers(0, NOW),
    st.integers(0, NOW),
)
def test_equals_the_naive_rule(
    users: list[User], look: int, margin: float, needed: int, clear: float, confirm: int, dwell: int
) -> None:
    settings = DecisionSettings(margin=margin, looks=needed, clear_margin=clear, confirm=confirm, dwell=dwell)
    decided = decide(users, look, settings)
    for i, user in enumerate(users):
        segment, pending, count, began, why = naive(user, look, settings)
        assert decided.standing.segment[i] == segment
        assert decided.standing.candidate[i] == pending
        assert decided.standing.looks[i] == count
        assert decided.standing.candidate_at[i] == began
        if segment != user[1]:
            assert decided.cause[i] == why


@given(people)
def test_nobody_depends_on_the_others_in_the_batch(users: list[User]) -> None:
    def outcome(chosen: list[User]) -> list[tuple[int, int, float]]:
        result = decide(chosen, BEHAVIOUR, DecisionSettings())
        return list(zip(result.standing.segment, result.standing.looks, result.share, strict=True))

    assert outcome(users) == [one for user in users for one in outcome([user])]


NEAR_ONE, NEAR_THREE = np.array([[1.0, 1.2, 9.0]]), np.array([[1.2, 1.0, 9.0]])
NO = np.array([False])


def one_user(segment: int = 1) -> Standing:
    standing = Standing.nowhere(1)
    standing.segment[:] = segment
    return standing


def test_a_wavering_user_stays_and_a_lasting_move_moves() -> None:
    settings = DecisionSettings(margin=0.1, looks=2, confirm=100, dwell=0)
    standing = one_user()
    for at, look in enumerate([NEAR_THREE, NEAR_ONE] * 5):
        standing = assign(look, SEGMENTS, standing, NO, NO, BEHAVIOUR, 1_000 * at, settings).standing
        assert standing.segment[0] == 1
    first = assign(NEAR_THREE, SEGMENTS, standing, NO, NO, BEHAVIOUR, 20_000, settings)
    again = assign(NEAR_THREE, SEGMENTS, first.standing, NO, NO, BEHAVIOUR, 20_099, settings)
    assert again.standing.segment[0] == 1, "looks of one visit are one evidence"
    later = assign(NEAR_THREE, SEGMENTS, again.standing, NO, NO, INACTIVITY, 20_100, settings)
    assert later.standing.segment[0] == 3
    assert later.cause[0] == BEHAVIOUR, "the sweep only confirmed what behaviour had begun"
    assert 0.5 < later.share[0] <= 1


def test_a_lead_beyond_doubt_waits_for_no_confirmation() -> None:
    settings = DecisionSettings(margin=0.1, looks=2, confirm=100, clear_margin=0.3, dwell=0)
    clear = np.array([[2.0, 1.0, 9.0]])
    first = assign(clear, SEGMENTS, one_user(), NO, NO, BEHAVIOUR, 0, settings)
    assert first.standing.segment[0] == 1, "two looks it takes"
    assert assign(clear, SEGMENTS, first.standing, NO, NO, INACTIVITY, 1, settings).standing.segment[0] == 3


def test_silence_needs_two_looks_and_no_time() -> None:
    settings = DecisionSettings(margin=0.1, looks=2, confirm=10**9, dwell=10**9)
    first = assign(NEAR_THREE, SEGMENTS, one_user(), NO, NO, INACTIVITY, 0, settings)
    second = assign(NEAR_THREE, SEGMENTS, first.standing, NO, NO, INACTIVITY, 30, settings)
    assert (second.standing.segment[0], second.cause[0]) == (3, INACTIVITY)


def test_a_segment_just_entered_is_kept_for_a_while() -> None:
    settings = DecisionSettings(margin=0.1, looks=1, confirm=0, dwell=50)
    standing = one_user()
    standing.since[:] = 1_000
    for at, segment in ((1_049, 1), (1_050, 3)):
        standing = assign(NEAR_THREE, SEGMENTS, standing, NO, NO, BEHAVIOUR, at, settings).standing
        assert standing.segment[0] == segment


@pytest.mark.parametrize(
    ("number", "name"), [(7, "seg-7"), (NONE, None), (NEWCOMER, "newcomer"), (QUARANTINE, "quarantine")]
)
def test_names_of_segments(number: int, name: str | None) -> None:
    assert segment_name(number) == name
