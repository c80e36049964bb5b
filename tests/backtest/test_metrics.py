"""Measures against scikit-learn where it has them, and against their definitions, written out, where it has not."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.metrics import adjusted_rand_score, silhouette_score

from stream.backtest.metrics import (
    SILHOUETTE_ROWS,
    adjusted_rand,
    best_lift,
    changed,
    contingency,
    eta_squared,
    id_continuity,
    matched,
    silhouette,
)

PAIRS = st.integers(2, 60).flatmap(
    lambda n: st.tuples(
        hnp.arrays(np.int64, n, elements=st.integers(-2, 5)), hnp.arrays(np.int64, n, elements=st.integers(0, 4))
    )
)


@given(PAIRS)
def test_adjusted_rand_is_sklearns(labels: tuple[np.ndarray, np.ndarray]) -> None:
    a, b = labels
    assert adjusted_rand(a, b) == pytest.approx(adjusted_rand_score(a, b), abs=1e-12)


def test_adjusted_rand_of_large_partitions_does_not_overflow() -> None:
    rng = np.random.default_rng(1)
    a = rng.integers(0, 6, 300_000)
    b = np.where(rng.random(300_000) < 0.3, rng.integers(0, 6, 300_000), a)
    assert adjusted_rand(a, b) == pytest.approx(adjusted_rand_score(a, b), abs=1e-12)


@given(st.integers(0, 10_000))
def test_silhouette_is_sklearns(seed: int) -> None:
    rng = np.random.default_rng(seed)
    z, labels = rng.normal(size=(40, 3)), rng.integers(-2, 3, 40)
    assert silhouette(z, labels) == pytest.approx(silhouette_score(z, labels), abs=1e-12)


def test_silhouette_of_many_rows_is_that_of_an_even_sample() -> None:
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 4, 3 * SILHOUETTE_ROWS)
    z = rng.normal(size=(len(labels), 2)) + 3 * np.eye(4)[labels][:, :2]
    whole = silhouette_score(z, labels)
    assert silhouette(z, labels) == pytest.approx(whole, abs=0.03)
    assert silhouette(z, np.zeros(len(z), np.int64)) is None


def anova(labels: list[int], values: list[float]) -> float:
    """SS between over SS total, in loops."""
    grand = sum(values) / len(values)
    between = 0.0
    for cell in set(labels):
        own = [value for label, value in zip(labels, values, strict=True) if label == cell]
        between += len(own) * (sum(own) / len(own) - grand) ** 2
    return between / sum((value - grand) ** 2 for value in values)


@given(PAIRS, st.integers(0, 1_000))
def test_eta_squared_is_the_anovas(labels: tuple[np.ndarray, np.ndarray], seed: int) -> None:
    cells, _ = labels
    values = np.random.default_rng(seed).lognormal(sigma=2, size=len(cells))
    found = eta_squared(cells, values)
    assert found == pytest.approx(anova(cells.tolist(), values.tolist()), rel=1e-9, abs=1e-12)
    assert found is not None and -1e-12 <= found <= 1 + 1e-12


def test_eta_squared_says_nothing_where_nobody_differs() -> None:
    assert eta_squared(np.array([1, 2, 3]), np.array([4.0, 4.0, 4.0])) is None
    assert eta_squared(np.array([1]), np.array([4.0])) is None
    assert eta_squared(np.array([1, 1, 2, 2]), np.array([0.0, 0.0, 9.0, 9.0])) == pytest.approx(1.0)
    assert eta_squared(np.array([5, 5, 5, 5]), np.array([0.0, 0.0, 9.0, 9.0])) == pytest.approx(0.0)


@given(PAIRS, st.integers(0, 1_000))
def test_lift_is_the_best_large_cells(labels: tuple[np.ndarray, np.ndarray], seed: int) -> None:
    cells, _ = labels
    bought = np.random.default_rng(seed).random(len(cells)) < 0.4
    rates = [
        bought[cells == cell].mean() / bought.mean()
        for cell in set(cells.tolist())
        if bought.any() and (cells == cell).sum() >= 0.1 * len(cells) and cell > 0
    ]
    expected = max(rates) if rates else None
    assert best_lift(cells, bought, cells > 0) == (None if expected is None else pytest.approx(expected))


def test_a_small_cell_wins_no_lift() -> None:
    cells = np.repeat([1, 2, 3], [5, 45, 50])
    bought = np.zeros(100, bool)
    bought[:5] = True  # all of the small cell
    bought[50:60] = True
    assert best_lift(cells, bought) == pytest.approx((10 / 50) / (15 / 100))
    assert best_lift(cells, np.zeros(100, bool)) is None


def test_ids_that_keep_their_meaning_lose_nothing_over_time() -> None:
    rng = np.random.default_rng(5)
    windows = []
    for _ in range(6):
        truth = rng.integers(0, 5, 400)
        windows.append((np.where(rng.random(400) < 0.1, rng.integers(0, 5, 400), truth), truth))
    assert id_continuity(windows) == pytest.approx(1.0, abs=0.02)
    shuffled = [(rng.permutation(5)[labels], truth) for labels, truth in windows]
    together = adjusted_rand_score(np.concatenate([w[0] for w in shuffled]), np.concatenate([w[1] for w in shuffled]))
    own = np.mean([adjusted_rand_score(*window) for window in windows])
    assert id_continuity(shuffled) == pytest.approx(together / own)
    assert together / own < 0.6
    assert id_continuity(windows[:1]) is None


@given(st.integers(0, 5_000))
def test_matching_follows_the_most_people(seed: int) -> None:
    rng = np.random.default_rng(seed)
    before = rng.integers(0, 4, 60)
    after = np.where(rng.random(60) < 0.4, rng.integers(0, 4, 60), rng.permutation(4)[before])
    new = np.concatenate([after, rng.integers(0, 4, 20)])
    names = matched(before, after, new, first_free=10)
    kept = int((names[:60] == before).sum())
    cells = np.unique(new)
    best = max(
        sum(int(((before == old) & (after == cell)).sum()) for old, cell in zip(order, cells.tolist(), strict=False))
        for order in permutations(range(4))
    )
    assert kept == best
    assert len(np.unique(names)) == len(cells)
    # Only names change, the cells are the same.
    assert adjusted_rand_score(names, new) == 1.0


def test_without_common_people_every_name_is_new() -> None:
    nobody = np.empty(0, np.int64)
    assert matched(nobody, nobody, np.array([4, 4, 9]), first_free=7).tolist() == [7, 7, 8]


def test_contingency_and_share() -> None:
    table = contingency(np.array([1, 1, 3, -2]), np.array([0, 5, 5, 5]))
    assert table.tolist() == [[0, 1], [1, 1], [0, 1]]
    assert changed(np.array([1, 2, 3, 4]), np.array([1, 2, 4, 3])) == 0.5
    assert changed(np.empty(0, np.int64), np.empty(0, np.int64)) is None
