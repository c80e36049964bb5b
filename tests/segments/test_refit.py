"""Batch k-means against scikit-learn's."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.cluster import KMeans
from sklearn.metrics import silhouette_score

from stream.segments.refit import fit, in_order_of, inertia_of, lloyd, plus_plus, silhouette


@pytest.mark.parametrize("seed", range(4))
def test_as_good_as_scikit_learn(seed: int) -> None:
    rng = np.random.default_rng(seed)
    z = rng.normal(0, 2, (7, 6))[rng.integers(0, 7, 1_500)] + rng.normal(size=(1_500, 6))
    oracle = KMeans(7, n_init=10, random_state=0).fit(z)
    found = fit(z, 7, 10, np.random.default_rng(0))
    assert found.inertia <= oracle.inertia_ * 1.005
    assert found.inertia == inertia_of(z, found.centres)


def test_lloyd_goes_where_scikit_learn_goes_from_the_same_start() -> None:
    rng = np.random.default_rng(5)
    z = rng.normal(size=(800, 3))
    start = z[:5]
    oracle = KMeans(5, init=start, n_init=1, tol=0, max_iter=300).fit(z)
    assert inertia_of(z, lloyd(z, start).centres) <= oracle.inertia_ * 1.01


@given(st.integers(0, 2**32 - 1), st.integers(1, 8), st.integers(1, 30))
def test_lloyd_never_makes_it_worse_and_survives_duplicates(seed: int, k: int, rows: int) -> None:
    rng = np.random.default_rng(seed)
    z = rng.integers(0, 3, (rows, 2)).astype(np.float64)  # mostly duplicates, often fewer of them than centres
    start = plus_plus(z, k, rng)
    assert start.shape == (k, 2)
    found = lloyd(z, start)
    assert np.isfinite(found.centres).all()
    assert found.inertia <= inertia_of(z, start) + 1e-9
    if k >= len(np.unique(z, axis=0)):
        assert found.inertia < 1e-9


@given(st.integers(0, 2**32 - 1), st.integers(1, 7))
def test_order_is_undone(seed: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(k, 3)) * 10
    mixed = rng.permutation(centres + rng.normal(size=(k, 3)) * 1e-3)
    assert np.allclose(in_order_of(centres, mixed), centres, atol=0.02)


@pytest.mark.parametrize("clusters", [2, 5])
def test_silhouette_is_scikit_learns(clusters: int) -> None:
    rng = np.random.default_rng(6)
    label = rng.integers(0, clusters, 300)
    label[0] = 77  # alone in its cluster: 0 by definition
    z = rng.normal(size=(300, 4)) + label[:, None] % 7
    found = silhouette(z, label.astype(np.intp))
    assert found == pytest.approx(silhouette_score(z, label), abs=1e-12)


def test_silhouette_needs_two_clusters_and_samples_evenly() -> None:
    z = np.random.default_rng(7).normal(size=(5_000, 2))
    assert silhouette(z, np.zeros(5_000, np.intp)) is None
    label = (z[:, 0] > 0).astype(np.intp)
    sampled = silhouette(z, label)
    assert sampled == pytest.approx(silhouette_score(z, label, sample_size=3_000, random_state=0), abs=0.03)
