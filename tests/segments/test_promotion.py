"""The churn budget and the calibration of confidence, against naive accounts of both."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.isotonic import IsotonicRegression

from stream.segments.calibration import BINS, PRIOR, Calibration, calibrated
from stream.segments.promotion import DAY_MS, Budget, Moves, PromotionSettings

NEVER = {"asked": False, "drift": False, "uncovered": False, "silhouette_lost": 0.0}


@given(st.lists(st.tuples(st.floats(0, 0.3), st.integers(0, 3 * DAY_MS)), min_size=1, max_size=40))
def test_what_is_published_never_exceeds_what_has_accrued(candidates: list[tuple[float, int]]) -> None:
    """Over any stretch of time the moved people are within the starting balance and what the days have brought."""
    settings = PromotionSettings()
    budget, now, spent = Budget(settings), 1_000_000, 0.0
    began = now
    for share, later in candidates:
        now += later
        if budget.rule(Moves(share, {}), now, **NEVER) == "budget":  # type: ignore[arg-type]
            spent += share
        accrued = settings.budget * (1 + (now - began) / DAY_MS)
        assert spent <= accrued + 1e-9
        assert 0 <= budget.left <= settings.budget * settings.saved / DAY_MS + 1e-12


def test_unused_budget_is_saved_for_a_version_that_is_worth_more() -> None:
    budget = Budget(PromotionSettings(budget=0.05, saved=4 * DAY_MS))
    big = Moves(0.18, {(1, 2): 0.18})
    assert budget.rule(big, DAY_MS, **NEVER) == "held"  # type: ignore[arg-type]
    assert budget.rule(big, 2 * DAY_MS, **NEVER) == "held"  # type: ignore[arg-type]
    assert budget.rule(big, 5 * DAY_MS, **NEVER) == "budget"  # type: ignore[arg-type]
    assert budget.left == pytest.approx(0.02)


@pytest.mark.parametrize(
    ("why", "ruling"),
    [
        ({"asked": True}, "configuration"),
        ({"drift": True}, "drift"),
        ({"uncovered": True}, "coverage"),
        ({"silhouette_lost": 0.2}, "silhouette"),
    ],
)
def test_what_forces_a_version(why: dict[str, object], ruling: str) -> None:
    budget = Budget(PromotionSettings())
    assert budget.rule(Moves(0.5, {}), DAY_MS, **{**NEVER, **why}) == ruling  # type: ignore[arg-type]
    assert budget.left == 0, "what is forced is paid for, as far as there is"


def test_calibration_is_isotonic_regression_of_the_frequencies() -> None:
    rng = np.random.default_rng(5)
    calibration = Calibration()
    counts, stayed = np.zeros(BINS), np.zeros(BINS)
    for user in range(3_000):
        share = rng.uniform(0.5, 1.0)
        bin_ = min(BINS - 1, int((share - 0.5) * 2 * BINS))
        same = rng.random() < 0.4 + 0.6 * (share - 0.5) * 2
        calibration.note(user, 1, share)
        calibration.note(user, 1 if same else 2, 0.7)
        counts[bin_] += 1
        stayed[bin_] += same
    mids = 0.5 + (np.arange(BINS) + 0.5) / (2 * BINS)
    frequency = (stayed + PRIOR * mids) / (counts + PRIOR)
    wanted = IsotonicRegression().fit(mids, frequency, sample_weight=counts + PRIOR).predict(mids)
    np.testing.assert_allclose(calibration.table(), wanted, atol=1e-12)
    # A user at the border is right four times in ten here, one at the centre nearly always.
    assert calibrated(tuple(calibration.table()), np.array([0.51, 0.99])) == pytest.approx([0.42, 0.97], abs=0.06)


def test_calibration_comes_back_whole_and_forgets() -> None:
    calibration = Calibration()
    for user in range(50):
        calibration.note(user, user % 3, 0.5 + user / 100)
    calibration.forget(7)
    again = Calibration.restore(calibration.state())
    for one in (calibration, again):
        for user in range(50):
            one.note(user, 0, 0.9)
    np.testing.assert_array_equal(calibration.table(), again.table())
    assert calibration.state()["calibration_counts"].sum() == 49
    again.renew()
    again.note(3, 1, 0.6)
    assert again.state()["calibration_counts"].sum() == 49 / 2, "pairs begin anew with a version"
