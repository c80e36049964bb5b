"""Quarantine's decision against a plain state machine, one user at a time."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.model import OutlierThresholds
from stream.anomalies.quarantine import QuarantineSettings, decide, outlying

THRESHOLDS = OutlierThresholds(score=0.95, score_release=0.9, distance=8.0, distance_release=6.0)


def plain(looks: list[tuple[float, float]], settings: QuarantineSettings) -> list[bool]:
    """What the words say, without arrays."""
    held, run, answer = False, 0, []
    for score, distance in looks:
        outlier = score > 0.95 or distance > 8.0
        ordinary = score < 0.9 and distance < 6.0
        if held:
            run = run + 1 if ordinary else 0
            if run == settings.release_looks:
                held, run = False, 0
        else:
            run = run + 1 if outlier else 0
            if run == settings.enter_looks:
                held, run = True, 0
        answer.append(held)
    return answer


looks = st.lists(
    st.tuples(st.sampled_from([0.5, 0.9, 0.92, 0.95, 0.97]), st.sampled_from([1.0, 6.0, 7.0, 8.0, 9.0])), max_size=40
)


@given(st.lists(looks, min_size=1, max_size=4), st.integers(1, 5), st.integers(1, 5))
def test_decide_follows_the_words(users: list[list[tuple[float, float]]], enter: int, release: int) -> None:
    settings = QuarantineSettings(enter_looks=enter, release_looks=release)
    length = min(map(len, users))
    expected = np.array([plain(user[:length], settings) for user in users], bool).T
    held, streak = np.zeros(len(users), bool), np.zeros(len(users), np.int8)
    for at in range(length):
        score = np.array([user[at][0] for user in users])
        distance = np.array([user[at][1] for user in users])
        held, streak = decide(score, distance, THRESHOLDS, held, streak, settings)
        assert held.tolist() == expected[at].tolist()
        assert streak.dtype == np.int8


def test_a_long_streak_does_not_overflow() -> None:
    settings = QuarantineSettings(enter_looks=100)
    held, streak = np.zeros(1, bool), np.zeros(1, np.int8)
    history = []
    for _ in range(300):
        held, streak = decide(np.ones(1), np.zeros(1), THRESHOLDS, held, streak, settings)
        history.append(bool(held[0]))
    assert history.index(True) == 99
    assert all(history[99:])


def test_switched_off_lets_everybody_out() -> None:
    verdict = decide(
        np.ones(3), np.ones(3), THRESHOLDS, np.ones(3, bool), np.full(3, 2, np.int8), QuarantineSettings(enabled=False)
    )
    assert not verdict.held.any()
    assert not verdict.streak.any()


def test_either_measure_is_enough_and_the_threshold_itself_is_not() -> None:
    score, distance = np.array([0.96, 0.0, 0.95, 0.0]), np.array([0.0, 8.1, 0.0, 8.0])
    assert outlying(score, distance, THRESHOLDS).tolist() == [True, True, False, False]


def test_settings_refuse_what_makes_no_sense() -> None:
    with pytest.raises(ValueError, match="enter_looks"):
        QuarantineSettings(enter_looks=0)
