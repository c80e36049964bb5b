"""Segment identity: which segment of the last version a new group of prototypes is.

Decided by people, not by coordinates: one panel is labelled by both versions at one instant, so that only the model
differs. Invariants: an id never returns once its segment has died; every segment of the new version has exactly one
lineage record (survived, merged, split or born), and every segment that ended has one (died); the order of
prototypes and the size of coordinates change nothing.

Kinds follow Spiliopoulou et al., "MONIC: Modeling and Monitoring Cluster Transitions", KDD 2006; the one-to-one
choice of heirs is Hungarian, by Jaccard overlap.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from schemas.model import Lineage
from stream.segments.prototypes import segment_id
from stream.segments.settings import IdentitySettings

FloatArray = NDArray[np.float64]
IndexArray = NDArray[np.intp]
SegmentArray = NDArray[np.int32]


class Matching(NamedTuple):
    """Which segment each of g groups is."""

    segments: SegmentArray
    """(g,) segment numbers; groups without evidence of their own share their neighbour's."""
    lineage: tuple[Lineage, ...]
    next_number: int
    """The first segment number that was never used."""


def first(groups: int, next_number: int = 1) -> Matching:
    """The first version: every group is born."""
    numbers = np.arange(next_number, next_number + groups, dtype=np.int32)
    born = tuple(Lineage(kind="born", segment=segment_id(n)) for n in numbers.tolist())
    return Matching(numbers, born, next_number + groups)


def match(
    old: SegmentArray,
    new: IndexArray,
    weight: FloatArray,
    evidence: NDArray[np.bool_],
    neighbour: IndexArray,
    next_number: int,
    settings: IdentitySettings,
) -> Matching:
    """Match g new groups with the segments of the last version.

    Parameters: for each of m panel users the segment number under the last version (`old`), the group under the
    new one (`new`, 0 to g - 1) and how many people the user stands for; for each group whether there is `evidence`
    that it is a segment of its own if it is nobody's heir, and which group is its nearest `neighbour`, whose
    segment it joins if there is none.
    """
    numbers, row = np.unique(old, return_inverse=True)
    shared = np.zeros((len(numbers), len(evidence)))
    np.add.at(shared, (row, new), weight)
    old_size, new_size = shared.sum(axis=1, keepdims=True), shared.sum(axis=0, keepdims=True)
    held = np.divide(shared, old_size, out=np.zeros_like(shared), where=old_size > 0)
    union = old_size + new_size - shared
    jaccard = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)

    heir_of: dict[int, int] = {}  # by group, the old segment (as a row) that it is
    for i, j in zip(*linear_sum_assignment(-jaccard), strict=True):
        if held[i, j] >= settings.survive:
            heir_of[int(j)] = int(i)
    own = {j for j in range(len(evidence)) if j in heir_of or evidence[j]}
    if not own:
        own = set(range(len(evidence)))  # nothing is left of the last version, and something must be there

    segments = np.zeros(len(evidence), np.int32)
    lineage: list[Lineage] = []
    for j in sorted(own):
        if j in heir_of:
            segments[j] = numbers[heir_of[j]]
            lineage.append(_heir(j, heir_of, held, numbers, settings))
        else:
            segments[j] = next_number
            lineage.append(_newcomer(j, next_number, held, numbers, settings))
            next_number += 1
    for j in range(len(evidence)):
        if j not in own:
            segments[j] = segments[_next_with_segment(j, neighbour, own)]
    for i, number in enumerate(numbers.tolist()):
        if i not in heir_of.values():
            lineage.append(Lineage(kind="died", segment=segment_id(number), overlap=float(held[i].max())))
    return Matching(segments, tuple(lineage), next_number)


def _heir(
    j: int, heir_of: dict[int, int], held: FloatArray, numbers: SegmentArray, settings: IdentitySettings
) -> Lineage:
    """A group that is an old segment; it absorbed others if it holds most of their people too."""
    i = heir_of[j]
    absorbed = [
        int(k) for k in np.flatnonzero(held[:, j] >= settings.survive) if k != i and int(k) not in heir_of.values()
    ]
    return Lineage(
        kind="merged" if absorbed else "survived",
        segment=segment_id(int(numbers[i])),
        parents=tuple(segment_id(int(numbers[k])) for k in sorted([i, *absorbed])),
        overlap=float(held[i, j]),
    )


def _newcomer(j: int, number: int, held: FloatArray, numbers: SegmentArray, settings: IdentitySettings) -> Lineage:
    """A group that is nobody's heir: a part of old segments, or new people."""
    parents = np.flatnonzero(held[:, j] >= settings.split)
    return Lineage(
        kind="split" if len(parents) else "born",
        segment=segment_id(number),
        parents=tuple(segment_id(int(numbers[i])) for i in parents),
        overlap=float(held[:, j].max(initial=0.0)),
    )


def _next_with_segment(j: int, neighbour: IndexArray, own: set[int]) -> int:
    """Follow neighbours to a group that is a segment; a ring of groups without evidence ends at the first of `own`."""
    seen = {j}
    at = int(neighbour[j])
    while at not in own:
        if at in seen:
            return min(own)
        seen.add(at)
        at = int(neighbour[at])
    return at
