"""Identity: who is who follows from people alone, and ids never return."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from schemas.model import Lineage
from stream.segments.identity import Matching, first, match
from stream.segments.settings import IdentitySettings

SETTINGS = IdentitySettings()


def matched(
    old: list[int],
    new: list[int],
    groups: int | None = None,
    evidence: list[bool] | None = None,
    neighbour: list[int] | None = None,
    weight: list[float] | None = None,
    numbers: list[int] | None = None,
    next_number: int = 100,
) -> Matching:
    g = groups or max(new) + 1
    return match(
        np.array(old, np.int32),
        np.array(new, np.intp),
        np.array(weight or [1.0] * len(old)),
        np.array(numbers or sorted(set(old)), np.int32),
        np.array(evidence or [True] * g),
        np.array(neighbour or [(j + 1) % g for j in range(g)], np.intp),
        next_number,
        SETTINGS,
    )


def kinds(found: Matching) -> dict[str, str]:
    return {line.segment: line.kind for line in found.lineage}


def line_of(found: Matching, segment: str) -> Lineage:
    return next(line for line in found.lineage if line.segment == segment)


def test_nothing_happened() -> None:
    found = matched([4, 4, 9, 9, 9], [1, 1, 0, 0, 0])
    assert found.segments.tolist() == [9, 4]
    assert kinds(found) == {"seg-9": "survived", "seg-4": "survived"}
    assert found.next_number == 100


def test_a_split_leaves_the_id_to_the_larger_part() -> None:
    found = matched([4] * 10, [0] * 6 + [1] * 4)
    assert found.segments.tolist() == [4, 100]
    assert kinds(found) == {"seg-4": "survived", "seg-100": "split"}
    assert line_of(found, "seg-100").parents == ("seg-4",)
    assert line_of(found, "seg-100").overlap == 0.4


def test_a_merge_keeps_the_id_of_the_one_that_fills_it() -> None:
    found = matched([4] * 6 + [9] * 4, [0] * 10)
    assert found.segments.tolist() == [4]
    assert kinds(found) == {"seg-4": "merged", "seg-9": "died"}
    assert line_of(found, "seg-4").parents == ("seg-4", "seg-9")


def test_a_birth_from_many_has_no_parents() -> None:
    found = matched([1] * 10 + [2] * 10, [0] * 9 + [2] + [1] * 9 + [2])
    assert found.segments.tolist() == [1, 2, 100]
    assert kinds(found)["seg-100"] == "born"
    assert line_of(found, "seg-100").parents == ()


def test_a_segment_in_three_parts_dies_and_its_parts_say_whose_they_are() -> None:
    found = matched([5] * 12, [0] * 4 + [1] * 4 + [2] * 4)
    assert sorted(found.segments.tolist()) == [100, 101, 102]
    assert kinds(found)["seg-5"] == "died"
    assert {line.parents for line in found.lineage if line.kind == "split"} == {("seg-5",)}


def test_a_segment_without_people_dies_too() -> None:
    found = matched([1, 1], [0, 0], numbers=[1, 7])
    assert kinds(found) == {"seg-1": "survived", "seg-7": "died"}


def test_without_evidence_a_spare_group_joins_its_neighbour() -> None:
    found = matched([4] * 10, [0] * 6 + [1] * 4, evidence=[False, False], neighbour=[1, 0])
    assert found.segments.tolist() == [4, 4]
    assert kinds(found) == {"seg-4": "survived"}
    assert found.next_number == 100


def test_a_chain_or_ring_of_spare_groups_ends_at_a_segment() -> None:
    chain = matched([4] * 10, [0] * 6 + [1] * 2 + [2] * 2, evidence=[False] * 3, neighbour=[1, 0, 1])
    assert chain.segments.tolist() == [4, 4, 4]
    ring = matched([4] * 10, [0] * 6 + [1] * 2 + [2] * 2, evidence=[False] * 3, neighbour=[1, 2, 1])
    assert ring.segments.tolist() == [4, 4, 4]


def test_something_must_be_there_even_without_evidence() -> None:
    found = matched([5] * 12, [0] * 4 + [1] * 4 + [2] * 4, evidence=[False] * 3)
    assert len(set(found.segments.tolist())) == 3


def test_people_count_by_their_weight() -> None:
    old, new = [4] * 10, [0] * 6 + [1] * 4
    assert matched(old, new, weight=[1.0] * 6 + [10.0] * 4).segments.tolist() == [100, 4]


def test_the_first_version_numbers_by_size() -> None:
    found = first(np.array([0.1, 0.6, 0.3]), np.ones(3, bool), np.array([1, 0, 0]), 1, SETTINGS)
    assert found.segments.tolist() == [3, 1, 2]
    assert {line.kind for line in found.lineage} == {"born"}
    assert found.next_number == 4
    spare = first(np.array([0.001, 0.6, 0.399]), np.array([False, True, True]), np.array([2, 0, 0]), 1, SETTINGS)
    assert spare.segments.tolist() == [2, 1, 2]


@st.composite
def panels(draw: st.DrawFn) -> tuple[NDArray[np.int32], NDArray[np.intp], NDArray[np.float64], int]:
    n = draw(st.integers(1, 60))
    groups = draw(st.integers(1, 6))
    old = draw(st.lists(st.sampled_from([1, 2, 3, 7, 8]), min_size=n, max_size=n))
    new = draw(st.lists(st.integers(0, groups - 1), min_size=n, max_size=n))
    # Whole numbers add up exactly in any order, and these to sums unlike one another: position breaks no tie.
    weight = np.floor(1e6 * np.sqrt(2.0 + np.arange(n)))
    return np.array(old, np.int32), np.array(new, np.intp), weight, groups


@settings(max_examples=200)
@given(panels(), st.integers(0, 2**32 - 1), st.lists(st.booleans(), min_size=6, max_size=6))
def test_permuting_prototypes_changes_no_id(
    panel: tuple[NDArray[np.int32], NDArray[np.intp], NDArray[np.float64], int], seed: int, evident: list[bool]
) -> None:
    old, new, weight, g = panel
    rng = np.random.default_rng(seed)
    to = rng.permutation(g)
    # As `evident` and `separation` have it: nobody is no evidence, and no neighbour.
    evidence = np.array(evident[:g]) & np.isin(np.arange(g), new)
    neighbour = rng.choice(np.unique(new), g)
    numbers = np.unique(old)
    one = match(old, new, weight, numbers, evidence, neighbour, 50, SETTINGS)
    moved_evidence, moved_neighbour = np.empty(g, bool), np.empty(g, np.intp)
    moved_evidence[to], moved_neighbour[to] = evidence, to[neighbour]
    two = match(old, to[new], weight, numbers, moved_evidence, moved_neighbour, 50, SETTINGS)
    inhabited = np.unique(new)
    assert two.segments[to[inhabited]].tolist() == one.segments[inhabited].tolist()
    assert two.lineage == one.lineage


@given(panels(), st.lists(st.booleans(), min_size=6, max_size=6))
def test_every_segment_has_one_line_and_no_id_returns(
    panel: tuple[NDArray[np.int32], NDArray[np.intp], NDArray[np.float64], int], evident: list[bool]
) -> None:
    old, new, weight, g = panel
    numbers = np.union1d(old, [11]).astype(np.int32)
    found = match(old, new, weight, numbers, np.array(evident[:g]), np.zeros(g, np.intp), 50, SETTINGS)
    alive = {f"seg-{n}" for n in found.segments.tolist()}
    before = {f"seg-{n}" for n in numbers.tolist()}
    lines = [line.segment for line in found.lineage]
    assert sorted(lines) == sorted(alive | before), "one line for each that is there or was there"
    for line in found.lineage:
        assert (line.kind == "died") == (line.segment not in alive)
        assert (line.kind in ("born", "split")) == (line.segment not in before)
        assert set(line.parents) <= before
    fresh = sorted(n for n in set(found.segments.tolist()) if n >= 50)
    assert fresh == list(range(50, found.next_number))
    assert 0 not in found.segments


@pytest.mark.parametrize("seed", range(3))
def test_drifting_and_shuffled_centres_keep_their_ids(seed: int) -> None:
    """Centres wander further than they are apart, a little each time; their order is shuffled each time."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(0, 4, (6, 8))
    velocity = rng.normal(0, 0.25, (6, 8))
    truth = np.arange(6).repeat(100)
    noise = rng.normal(size=(600, 8))
    segment_of = np.arange(1, 7)  # by true centre
    next_number, last = 7, centres
    order_last = np.arange(6)
    for _ in range(60):
        centres = last + velocity
        people = centres[truth] + noise
        order = rng.permutation(6)

        def nearest(points: NDArray[np.float64], people: NDArray[np.float64] = people) -> NDArray[np.intp]:
            found: NDArray[np.intp] = ((people[:, None] - points) ** 2).sum(axis=2).argmin(axis=1)
            return found

        old = segment_of[order_last][nearest(last[order_last])].astype(np.int32)
        found = match(
            old,
            nearest(centres[order]),
            np.ones(600),
            np.sort(segment_of).astype(np.int32),
            np.ones(6, bool),
            np.zeros(6, np.intp),
            next_number,
            SETTINGS,
        )
        assert {line.kind for line in found.lineage} == {"survived"}
        assert found.segments.tolist() == segment_of[order].tolist()
        last, order_last, next_number = centres, order, found.next_number
    assert next_number == 7
