"""Confidence, against a naive Kaplan-Meier estimate of whole histories and scikit-learn's isotonic regression."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.isotonic import IsotonicRegression

from stream.segments.calibration import AGES, BINS, PRIOR, Calibration, calibrated

DAY = 86_400_000
HORIZON = AGES * DAY
MIDS = 0.5 + (np.arange(BINS) + 0.5) / (2 * BINS)


def bin_of(share: float) -> int:
    return min(BINS - 1, int((share - 0.5) * 2 * BINS))


def naive(histories: list[list[tuple[int, int, float]]]) -> np.ndarray:
    """From every user's observations (day, segment, share): the table, stay by stay and age by age."""
    there, left = np.zeros((BINS, AGES)), np.zeros((BINS, AGES))
    for history in histories:
        start = 0
        for i in range(1, len(history) + 1):
            ended = i < len(history) and history[i][1] != history[start][1]
            if i < len(history) and not ended:
                continue
            last = min(i, len(history) - 1)
            age = history[last][0] - history[start][0]
            where = bin_of(history[start][2])
            for full in range(min(age, AGES)):
                there[where, full] += 1
            if ended and age < AGES:
                there[where, age] += 1
                left[where, age] += 1
            start = i
    prior = 1 - MIDS[:, None] ** (1 / AGES)
    chance = np.prod(1 - (left + PRIOR * prior) / (there + PRIOR), axis=1)
    weight = there.min(axis=1) + PRIOR
    return np.asarray(IsotonicRegression().fit(MIDS, chance, sample_weight=weight).predict(MIDS))


def histories(seed: int, users: int = 1_500) -> list[list[tuple[int, int, float]]]:
    """People are observed every day or so for up to three weeks; the nearer to the border, the sooner they leave."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(users):
        day, segment, share = 0, int(rng.integers(1, 4)), float(rng.uniform(0.5, 1.0))
        history = [(day, segment, share)]
        for _ in range(int(rng.integers(1, 20))):
            day += int(rng.integers(1, 3))
            if rng.random() < 0.3 * (1.0 - share) * 2:
                segment, share = segment % 3 + 1, float(rng.uniform(0.5, 1.0))
            history.append((day, segment, share))
        made.append(history)
    return made


@pytest.mark.parametrize("seed", range(3))
def test_is_kaplan_and_meier_by_clearness(seed: int) -> None:
    calibration = Calibration(HORIZON)
    told = histories(seed)
    # As they come: by day over all users, and not user by user.
    for day, user, segment, share in sorted(
        (day, user, segment, share) for user, history in enumerate(told) for day, segment, share in history
    ):
        calibration.note(user, segment, share, day * DAY)
    np.testing.assert_allclose(calibration.table(), naive(told), atol=1e-9)


def test_says_what_becomes_of_people() -> None:
    """A constant hazard a day of 2% and of 20%: 0.87 and 0.21 are still there after a week."""
    rng = np.random.default_rng(1)
    calibration = Calibration(HORIZON)
    for user in range(4_000):
        share, hazard = (0.93, 0.02) if user % 2 else (0.53, 0.2)
        calibration.note(user, 1, share, 0)
        for day in range(1, 9):
            if rng.random() < hazard:  # a change is observed when it is made
                calibration.note(user, 2, share, day * DAY - DAY // 2)
                break
            calibration.note(user, 1, share, day * DAY)
    told = calibrated(tuple(calibration.table()), np.array([0.5375, 0.9375]))
    assert told == pytest.approx([0.21, 0.87], abs=0.04)


def test_comes_back_whole_and_forgets() -> None:
    calibration = Calibration(HORIZON)
    for user in range(50):
        calibration.note(user, user % 3, 0.5 + user / 100, 0)
    calibration.forget(7)
    again = Calibration.restore(calibration.state(), HORIZON)
    for one in (calibration, again):
        for user in range(50):
            one.note(user, 0, 0.9, 3 * DAY)
    np.testing.assert_array_equal(calibration.table(), again.table())
    assert calibration.state()["calibration_left"].sum() == 32, "33 were elsewhere before, and one was forgotten"


def test_whom_the_segments_leave_has_left_nothing() -> None:
    calibration = Calibration(HORIZON)
    for user in range(40):
        calibration.note(user, 1, 0.9, 0)
        calibration.note(user, 1, 0.9, 2 * DAY)
    before = calibration.state()["calibration_there"].sum()
    calibration.redraw(range(10), 0.25)
    assert calibration.state()["calibration_there"].sum() == 0.75 * before
    for user in range(10):
        calibration.note(user, 2, 0.9, 3 * DAY)
    assert not calibration.state()["calibration_left"].any()


def test_experience_fades_by_half_in_a_horizon() -> None:
    calibration = Calibration(HORIZON)
    calibration.note(1, 1, 0.9, 0)
    calibration.note(1, 2, 0.9, DAY)
    calibration.fade(HORIZON)
    assert calibration.state()["calibration_left"].sum() == 0.5
