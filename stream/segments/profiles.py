"""What the panel says about a model: profiles of segments for people, radii and thresholds for the scorers.

Every figure is weighted by the people that an observation stands for, so that it speaks of the population and not of
the stratified sample.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from schemas.model import OutlierThresholds
from stream.segments.scaling import Scaler, weighted_quantiles
from stream.segments.settings import OutlierSettings

FloatArray = NDArray[np.float64]
IndexArray = NDArray[np.intp]
SegmentArray = NDArray[np.int32]

FEW: Final = 50
"""Below so many members a quantile far out in the tail is the largest member's accident: everybody's is taken."""
WINSOR: Final = 0.99


class Profiles(NamedTuple):
    """Of s segments, rows in the order that was asked for."""

    size: FloatArray
    """(s,) share of people"""
    means: FloatArray
    """(s, F) in the feature's own unit, without the top 1% of the segment's people; NaN where nobody has a value"""
    z: FloatArray
    """(s, F) mean of the segment less that of the population, in robust standard deviations"""


def profiles(
    x: FloatArray, scaler: Scaler, segment: SegmentArray, weight: FloatArray, numbers: SegmentArray
) -> Profiles:
    """Describe the segments `numbers` (s,) from features (m, F), the segment of each row (m,) and its people (m,)."""
    standard = scaler.standardise(x)
    population = np.average(standard, axis=0, weights=weight)
    size = np.zeros(len(numbers))
    means = np.full((len(numbers), x.shape[1]), np.nan)
    z = np.zeros_like(means)
    for i, number in enumerate(numbers.tolist()):
        rows = segment == number
        people = weight[rows]
        size[i] = people.sum() / weight.sum()
        if not len(people):
            continue
        z[i] = np.average(standard[rows], axis=0, weights=people) - population
        means[i] = [_typical(column, people) for column in x[rows].T]
    return Profiles(size, means, z)


def _typical(values: FloatArray, weight: FloatArray) -> float:
    """The mean of what is known, winsorised at the top and the bottom: one wholesale order is not typical."""
    known = ~np.isnan(values)
    if not known.any():
        return np.nan
    values, weight = values[known], weight[known]
    low, high = weighted_quantiles(values, weight, [1.0 - WINSOR, WINSOR])
    return float(np.average(np.clip(values, low, high), weights=weight))


def radii(distance: FloatArray, prototype: IndexArray, weight: FloatArray, count: int, quantile: float) -> FloatArray:
    """(p,) the noise radius of each of `count` prototypes: that quantile of its members' distances, or everybody's
    where there are few members."""
    everybody = float(weighted_quantiles(distance, weight, [quantile])[0])
    found = np.full(count, everybody)
    for p in range(count):
        members = prototype == p
        if members.sum() >= FEW:
            found[p] = weighted_quantiles(distance[members], weight[members], [quantile])[0]
    return found


def thresholds(
    score: FloatArray, distance: FloatArray, weight: FloatArray, settings: OutlierSettings
) -> OutlierThresholds:
    """Quantiles of the panel's scores and distances (m,): scores crowd upwards, so no fixed number would do."""
    wanted = [settings.release_quantile, settings.quantile]
    score_release, score_enter = weighted_quantiles(score, weight, wanted).tolist()
    distance_release, distance_enter = weighted_quantiles(distance, weight, wanted).tolist()
    tiny = float(np.finfo(np.float64).tiny)
    return OutlierThresholds(
        score=score_enter,
        score_release=score_release,
        distance=max(distance_enter, tiny),
        distance_release=max(distance_release, tiny),
    )
