"""Evidence that a group of prototypes is a segment of its own, and not a spare centre in the middle of another.

k-means always has k centres, whether or not there are k kinds of people. One that is left over cuts a segment in two
along a line that turns at random, and would be taken for a birth again and again. So a group that is nobody's heir
must be large enough, and either stand apart (few people midway to its neighbour: a valley) or have kept its people
over some reviews (a continuum has no valleys, but its parts do last).
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from stream.segments.settings import IdentitySettings

FloatArray = NDArray[np.float64]
IndexArray = NDArray[np.intp]

BAND: Final = 0.1
"""Half the width, as a share of the way between two centres, of the slices whose people are counted."""


class Separation(NamedTuple):
    """Of g groups."""

    size: FloatArray
    """(g,) share of people; sums to 1"""
    neighbour: IndexArray
    """(g,) the nearest other group that has people; itself where there is none"""
    valley: FloatArray
    """(g,) people midway to it, for each near the thinner one's centre: 0 is a gap, above 1 is no border at all"""


def separation(z: FloatArray, group: IndexArray, groups: int, weight: FloatArray) -> Separation:
    """Measure on the panel: scaled rows (m, d), the group of each (m,), and the people it stands for (m,)."""
    people = np.bincount(group, weight, groups)
    sums = np.stack([np.bincount(group, weight * column, groups) for column in z.T], axis=1)
    centres = sums / np.maximum(people, 1e-300)[:, None]
    distance = cdist(centres, centres)
    distance[:, people <= 0] = np.inf
    np.fill_diagonal(distance, np.inf)
    neighbour = distance.argmin(axis=1)
    alone = np.isinf(distance.min(axis=1))
    neighbour[alone] = np.flatnonzero(alone)
    valley = np.array(
        [_valley(z, group, weight, centres, a, int(b)) if people[a] > 0 else np.inf for a, b in enumerate(neighbour)]
    )
    return Separation(people / people.sum(), neighbour, valley)


def evident(found: Separation, steady: NDArray[np.int64], settings: IdentitySettings) -> NDArray[np.bool_]:
    """(g,) which groups may become segments; `steady` (g,) counts the reviews over which each kept its people."""
    apart = (found.valley <= settings.valley) | (steady >= settings.steady_reviews)
    return (found.size >= settings.birth_share) & apart


def kept(before: IndexArray, now: IndexArray, groups: int, weight: FloatArray) -> FloatArray:
    """(g,) how much of each group's people it shares with what it was: |both| / |either|, 0 where it is empty."""
    stayed = before == now
    both = np.bincount(now[stayed], weight[stayed], groups)
    either = np.bincount(before, weight, groups) + np.bincount(now, weight, groups) - both
    share: FloatArray = np.divide(both, either, out=np.zeros(groups), where=either > 0)
    return share


def _valley(z: FloatArray, group: IndexArray, weight: FloatArray, centres: FloatArray, a: int, b: int) -> float:
    """Density midway between two groups' centres over that at the thinner centre, along the line between them."""
    way = centres[b] - centres[a]
    length = float((way * way).sum())
    if length <= 0:
        return np.inf
    ours = (group == a) | (group == b)
    along = ((z[ours] - centres[a]) * way).sum(axis=1) / length
    people = weight[ours]
    at_a, midway, at_b = (float(people[np.abs(along - place) <= BAND].sum()) for place in (0.0, 0.5, 1.0))
    # One person more on each side, so that a handful of people proves nothing.
    one = float(people.mean())
    return (midway + one) / (min(at_a, at_b) + one)
