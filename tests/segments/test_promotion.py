"""The churn budget, against a naive account of it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

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
