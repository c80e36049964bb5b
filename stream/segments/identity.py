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


def first(
    size: FloatArray, evidence: NDArray[np.bool_], neighbour: IndexArray, next_number: int, settings: IdentitySettings
) -> Matching:
    """The first version, or one that shares nobody with the last: every group with `evidence` is born, the largest
    first (`size` (g,) in people)."""
    nobody = np.zeros((0, len(size)))
    return _number({}, size, evidence, neighbour, next_number, nobody, np.zeros(0, np.int32), settings)


def match(
    old: SegmentArray,
    new: IndexArray,
    weight: FloatArray,
    numbers: SegmentArray,
    evidence: NDArray[np.bool_],
    neighbour: IndexArray,
    next_number: int,
    settings: IdentitySettings,
) -> Matching:
    """Match g new groups with the s segments of the last version.

    Parameters: for each of m panel users the segment number under the last version (`old`), the group under the
    new one (`new`, 0 to g - 1) and how many people the user stands for; the last version's segment `numbers`
    (s,), ascending; for each group whether there is `evidence` that it is a segment of its own if it is nobody's
    heir, and which group is its nearest `neighbour`, whose segment it joins if there is none.
    """
    shared = np.zeros((len(numbers), len(evidence)))
    np.add.at(shared, (np.searchsorted(numbers, old), new), weight)
    old_size, new_size = shared.sum(axis=1, keepdims=True), shared.sum(axis=0, keepdims=True)
    held = np.divide(shared, old_size, out=np.zeros_like(shared), where=old_size > 0)
    union = old_size + new_size - shared
    jaccard = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    # Only who could be an heir competes: a pair that is no succession must not cost a segment its true one.
    able = held >= settings.survive
    rows, columns = linear_sum_assignment(np.where(able, -jaccard, 0.0))
    heirs = {j: i for i, j in zip(rows.tolist(), columns.tolist(), strict=True) if able[i, j]}
    return _number(heirs, new_size.ravel(), evidence, neighbour, next_number, held, numbers, settings)


def _number(
    heirs: dict[int, int],
    size: FloatArray,
    evidence: NDArray[np.bool_],
    neighbour: IndexArray,
    next_number: int,
    held: FloatArray,
    numbers: SegmentArray,
    settings: IdentitySettings,
) -> Matching:
    """Number the groups. `heirs` says which old segment (a row of `held`) a group is; `held` (s, g) is the share of
    each old segment's people in each group."""
    # By size, so that which prototype stands first decides nothing.
    by_size = np.argsort(-size, kind="stable").tolist()
    own = [j for j in by_size if j in heirs or evidence[j]]
    if not own:
        own = by_size  # nothing is left of the last version, and something must be there
    segments = np.zeros(len(size), np.int32)
    lineage: list[Lineage] = []
    for j in own:
        if j in heirs:
            segments[j] = numbers[heirs[j]]
            lineage.append(_heir(j, heirs, held, numbers, settings))
        else:
            segments[j] = next_number
            lineage.append(_newcomer(j, next_number, held, numbers, settings))
            next_number += 1
    for j in range(len(size)):
        if j not in own:
            segments[j] = segments[_next_with_segment(j, neighbour, own)]
    for i, number in enumerate(numbers.tolist()):
        if i not in heirs.values():
            lineage.append(Lineage(kind="died", segment=segment_id(number), overlap=float(held[i].max(initial=0.0))))
    return Matching(segments, tuple(lineage), next_number)


def _heir(
    j: int, heirs: dict[int, int], held: FloatArray, numbers: SegmentArray, settings: IdentitySettings
) -> Lineage:
    """A group that is an old segment; it absorbed others if it holds most of their people too."""
    i = heirs[j]
    absorbed = [
        int(k) for k in np.flatnonzero(held[:, j] >= settings.survive) if k != i and int(k) not in heirs.values()
    ]
    return Lineage(
        kind="merged" if absorbed else "survived",
        segment=segment_id(int(numbers[i])),
        parents=tuple(segment_id(int(numbers[k])) for k in sorted([i, *absorbed])),
        overlap=float(held[i, j]),
    )


def _newcomer(j: int, number: int, held: FloatArray, numbers: SegmentArray, settings: IdentitySettings) -> Lineage:
    """A group that is nobody's heir: a large part of old segments, or something new."""
    parents = np.flatnonzero(held[:, j] >= settings.split)
    return Lineage(
        kind="split" if len(parents) else "born",
        segment=segment_id(number),
        parents=tuple(segment_id(int(numbers[i])) for i in parents),
        overlap=float(held[:, j].max(initial=0.0)),
    )


def _next_with_segment(j: int, neighbour: IndexArray, own: list[int]) -> int:
    """Follow neighbours to a group that is a segment; a ring of groups without evidence ends at the largest that is."""
    seen = {j}
    at = int(neighbour[j])
    while at not in own:
        if at in seen:
            return own[0]
        seen.add(at)
        at = int(neighbour[at])
    return at
