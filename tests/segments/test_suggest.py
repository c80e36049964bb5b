"""How many segments: the criteria against scikit-learn, the proposal against the truth, and the doubt."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score, silhouette_score

from stream.segments.agreement import adjusted_rand
from stream.segments.suggest import Suggestion, gap, suggest

FloatArray = NDArray[np.float64]


def kinds(seed: int, k: int, d: int = 4, rows: int = 500, apart: float = 3.0) -> FloatArray:
    """Kinds on a ring of axes, equally far apart, so that no two of them may be taken for one."""
    rng = np.random.default_rng(seed)
    centres = np.zeros((k, max(d, k)))
    centres[np.arange(k), np.arange(k)] = apart * np.sqrt(2.0)
    return centres[rng.integers(0, k, rows)] + rng.normal(size=(rows, max(d, k)))


@pytest.fixture(scope="module")
def five() -> tuple[FloatArray, Suggestion]:
    z = kinds(0, 5)
    return z, suggest(z, range(2, 9))


def test_the_true_number_is_proposed_with_certainty(five: tuple[FloatArray, Suggestion]) -> None:
    _, found = five
    assert (found.k, found.by_silhouette, found.by_gap) == (5, 5, 5)
    assert found.certainty in ("high", "fair")
    assert found.reason.startswith("5 segments: silhouette 0.")
    assert [score.k for score in found.scores] == list(range(2, 9))
    assert sum(score.support for score in found.scores) == pytest.approx(1.0, abs=1e-3)
    assert found.scores[3].support == max(score.support for score in found.scores)
    assert found.scores[3].stability > 0.95


def test_silhouettes_are_scikit_learns(five: tuple[FloatArray, Suggestion]) -> None:
    z, found = five
    for score in found.scores[:4]:
        oracle = KMeans(score.k, n_init=10, random_state=0).fit_predict(z)
        assert score.silhouette == pytest.approx(silhouette_score(z, oracle), abs=0.01)


def test_the_gap_is_the_textbooks() -> None:
    """Recomputed with scikit-learn's inertias and references of its own."""
    z = kinds(1, 3, d=3, rows=200)
    ours, errors = gap(z, range(2, 4), np.random.default_rng(0))
    rng = np.random.default_rng(1)
    axes = np.linalg.svd(z - z.mean(axis=0), full_matrices=False)[2]
    turned = (z - z.mean(axis=0)) @ axes.T
    boxes = [rng.uniform(turned.min(axis=0), turned.max(axis=0), turned.shape) for _ in range(8)]
    for i, k in enumerate(range(2, 4)):
        logs = [np.log(KMeans(k, n_init=3, random_state=0).fit(box).inertia_) for box in boxes]
        theirs = np.mean(logs) - np.log(KMeans(k, n_init=3, random_state=0).fit(z).inertia_)
        assert ours[i] == pytest.approx(theirs, abs=0.05)
        assert 0 < errors[i] < 0.1


def test_agreement_is_scikit_learns() -> None:
    rng = np.random.default_rng(2)
    for cells in (1, 2, 5, 40):
        a, b = rng.integers(0, cells, 300), rng.integers(0, 7, 300)
        assert adjusted_rand(a, b) == pytest.approx(adjusted_rand_score(a, b))


def test_people_without_kinds_give_no_certainty() -> None:
    found = suggest(np.random.default_rng(3).normal(size=(500, 5)), range(2, 7))
    assert found.certainty == "low"
    assert "any number is a matter of use" in found.reason


def test_the_same_rows_give_the_same_answer_and_long_panels_are_sampled() -> None:
    z = kinds(4, 3, rows=2_300)
    one, two = suggest(z, range(2, 5)), suggest(z, range(2, 5))
    assert one == two
    assert one.rows == 2_000
    assert one.k == 3


def test_too_few_people_are_refused() -> None:
    z = np.repeat(kinds(5, 3, rows=60), 10, axis=0)
    with pytest.raises(ValueError, match=r"60 people who differ are too few to compare 2 to 12 segments: it takes 120"):
        suggest(z, range(2, 13))
