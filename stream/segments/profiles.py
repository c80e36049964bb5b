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
NARROW: Final = 0.5
"""A bulk narrower than this (people who are all alike) is taken as this wide, or everybody else is an outlier."""


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
    """From the panel's scores and distances (m,), extrapolated from their bulk.

    A far quantile would be simpler, and worth nothing when it is needed: bots that are 1% of the panel move its
    99.5% quantile to themselves, and it always holds 0.5% of honest people. The bulk does not move, and how far it
    spreads says where it ends. Scores crowd upwards, so they are measured as -log(1 - score), the mass.
    """
    with np.errstate(divide="ignore"):
        emptiness = np.minimum(-np.log1p(-score), 700.0)
    enter_score, release_score = _beyond(emptiness, weight, settings)
    enter, release = _beyond(distance, weight, settings)
    return OutlierThresholds(
        score=float(-np.expm1(-enter_score)),
        score_release=float(-np.expm1(-release_score)),
        distance=enter,
        distance_release=release,
    )


def widest(a: OutlierThresholds, b: OutlierThresholds) -> OutlierThresholds:
    """The thresholds that only what is an outlier to both exceeds."""
    fields = OutlierThresholds.model_fields
    return OutlierThresholds(**{name: max(getattr(a, name), getattr(b, name)) for name in fields})


def _beyond(values: FloatArray, weight: FloatArray, settings: OutlierSettings) -> tuple[float, float]:
    median, tail = weighted_quantiles(values, weight, [0.5, settings.tail]).tolist()
    bulk = max(tail - median, NARROW)
    return median + settings.reach * bulk, median + settings.release_reach * bulk
