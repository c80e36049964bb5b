"""Random numbers by position: the distributions, and that places do not depend on one another."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from producers.shop import draws

N = 40_000


@pytest.mark.parametrize("what", range(6))
def test_uniform_and_normal_have_their_distributions(what: int) -> None:
    keys = draws.root(7, N)
    assert stats.kstest(draws.uniform(keys, what), "uniform").pvalue > 1e-3
    assert stats.kstest(draws.normal(keys, what), "norm").pvalue > 1e-3
    assert stats.kstest(draws.exponential(keys, what), "expon").pvalue > 1e-3


@pytest.mark.parametrize("mean", [0.02, 0.7, 6.0, 40.0])
def test_poisson_equals_the_quantiles_of_scipy(mean: float) -> None:
    keys = draws.root(3, N)
    expected = stats.poisson.ppf(draws.uniform(keys, 1), mean)
    np.testing.assert_array_equal(draws.poisson(np.full(N, mean), keys, 1), expected)


def test_poisson_of_nothing_is_nothing() -> None:
    assert not draws.poisson(np.zeros(N), draws.root(3, N), 1).any()


def test_draws_seeds_and_levels_are_independent() -> None:
    keys = draws.root(1, N)
    columns = [
        draws.uniform(keys, 0),
        draws.uniform(keys, 1),
        draws.uniform(draws.root(2, N), 0),
        draws.uniform(draws.child(keys, 0), 0),
        draws.uniform(draws.child(keys, 1), 0),
        draws.uniform(np.roll(keys, 1), 0),
        draws.uniform(draws.child(draws.child(keys, 0), 1), 0),
        draws.uniform(draws.child(draws.child(keys, 1), 0), 0),
    ]
    correlation = np.corrcoef(columns) - np.eye(len(columns))
    assert np.abs(correlation).max() < 5 / np.sqrt(N)


def test_no_two_places_share_a_key() -> None:
    users = draws.root(1, 1_000)
    below = draws.child(np.repeat(users, 300), np.tile(np.arange(300), 1_000))
    assert len(np.unique(np.concatenate((users, below)))) == 301_000


def test_more_places_leave_the_others_alone() -> None:
    np.testing.assert_array_equal(draws.root(5, 100), draws.root(5, 1_000)[:100])


def test_choice_follows_its_weights() -> None:
    weights = np.array([0.5, 0.0, 0.3, 0.2])
    chosen = draws.choice(np.cumsum(weights), draws.uniform(draws.root(9, N), 0))
    shares = np.bincount(chosen, minlength=4) / N
    np.testing.assert_allclose(shares, weights, atol=0.01)
    assert shares[1] == 0
