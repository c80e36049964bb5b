"""Evidence for a segment of its own: gaps and steadiness count, the halves of one cloud do not."""

from __future__ import annotations

import numpy as np
import pytest

from stream.segments.evidence import Separation, evident, kept, separation
from stream.segments.settings import IdentitySettings


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("d", [1, 3, 12])
def test_two_clouds_have_a_valley_and_the_halves_of_one_have_not(seed: int, d: int) -> None:
    rng = np.random.default_rng(seed)
    cloud = rng.normal(size=(1_000, d))
    halves = (cloud[:, 0] > 0).astype(np.intp)
    assert separation(cloud, halves, 2, np.ones(1_000)).valley.min() > 1
    apart = cloud.copy()
    apart[500:, 0] += 5
    two = separation(apart, np.arange(1_000) // 500, 2, np.ones(1_000))
    assert two.valley.max() < 0.2
    assert two.size.tolist() == [0.5, 0.5]
    assert two.neighbour.tolist() == [1, 0]


def test_neighbours_are_the_nearest_that_have_people() -> None:
    z = np.array([[0.0], [0.1], [3.0], [10.0]])
    found = separation(z, np.array([0, 0, 1, 2]), 4, np.ones(4))
    assert found.neighbour.tolist()[:3] == [1, 0, 1]
    assert found.size.tolist() == [0.5, 0.25, 0.25, 0.0]
    assert np.isinf(found.valley[3])


def test_a_group_alone_is_its_own_neighbour() -> None:
    found = separation(np.zeros((3, 2)), np.zeros(3, np.intp), 1, np.ones(3))
    assert found.neighbour.tolist() == [0]
    assert np.isinf(found.valley[0])


def test_a_handful_of_people_proves_no_valley() -> None:
    z = np.array([[0.0], [0.01], [5.0], [5.01]])
    few = separation(z, np.array([0, 0, 1, 1]), 2, np.ones(4))
    many = separation(np.repeat(z, 50, axis=0), np.repeat([0, 0, 1, 1], 50), 2, np.ones(200))
    assert few.valley.max() > many.valley.max() > 0


def test_evidence_needs_size_and_either_a_valley_or_steadiness() -> None:
    settings = IdentitySettings(birth_share=0.05, valley=0.75, steady_reviews=2)
    found = Separation(np.array([0.04, 0.5, 0.4, 0.06]), np.zeros(4, np.intp), np.array([0.0, 0.9, 0.9, 0.7]))
    assert evident(found, np.array([9, 1, 2, 0]), settings).tolist() == [False, False, True, True]


def test_kept_is_the_overlap_of_people() -> None:
    before, now = np.array([0, 0, 0, 1, 1]), np.array([0, 0, 1, 1, 1])
    assert kept(before, now, 3, np.ones(5)).tolist() == [2 / 3, 2 / 3, 0]
    assert kept(before, now, 2, np.array([1, 1, 8, 1, 1.0])).tolist() == [0.2, 0.2]
