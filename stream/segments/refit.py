"""Batch k-means on a few thousand rows: k-means++ starts, Lloyd's iterations, and comparison of results.

Used to warm-start the stream learners, to repair them, and to cluster micro-clusters by their weights. Deterministic
for a seed; weights of 1 change no bit; no library of batch learning is needed at run time. Arthur & Vassilvitskii,
"k-means++", SODA 2007; Lloyd, "Least squares quantization in PCM", 1982.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

FloatArray = NDArray[np.float64]

ITERATIONS: Final = 100
TOLERANCE: Final = 1e-4
"""Lloyd stops when an iteration lowers the inertia by less than this share."""


class Fit(NamedTuple):
    """A clustering of rows."""

    centres: FloatArray
    inertia: float
    """Sum of the (weighted) squared distances to the nearest centre."""


def fit(z: FloatArray, k: int, restarts: int, rng: np.random.Generator, weights: FloatArray | None = None) -> Fit:
    """The best of several k-means++ starts on rows (m, d) with `weights` (m,), or each with weight 1."""
    return min((lloyd(z, plus_plus(z, k, rng, weights), weights) for _ in range(restarts)), key=lambda f: f.inertia)


def lloyd(z: FloatArray, centres: FloatArray, weights: FloatArray | None = None) -> Fit:
    """Refine centres (k, d). A centre that loses all its rows moves to the row that is served worst."""
    centres = centres.copy()
    weights = np.ones(len(z)) if weights is None else weights
    weighted = z * weights[:, None]
    inertia = math.inf
    for _ in range(ITERATIONS):
        squared = cdist(z, centres, "sqeuclidean")
        nearest = squared.argmin(axis=1)
        served = squared[np.arange(len(z)), nearest] * weights
        before, inertia = inertia, float(served.sum())
        if before - inertia <= TOLERANCE * inertia:
            break
        counts = np.bincount(nearest, weights, len(centres))
        sums = np.stack([np.bincount(nearest, column, len(centres)) for column in weighted.T], axis=1)
        filled = counts > 0
        centres[filled] = sums[filled] / counts[filled, None]
        for empty in np.flatnonzero(~filled).tolist():
            worst = int(served.argmax())
            centres[empty] = z[worst]
            served[worst] = 0.0
    return Fit(centres, inertia_of(z, centres, weights))


def nearest_of(z: FloatArray, centres: FloatArray) -> NDArray[np.intp]:
    """(m,) which of the centres is nearest to each row (m, d)."""
    nearest: NDArray[np.intp] = cdist(z, centres, "sqeuclidean").argmin(axis=1)
    return nearest


def inertia_of(z: FloatArray, centres: FloatArray, weights: FloatArray | None = None) -> float:
    """Sum of the (weighted) squared distances of rows (m, d) to the nearest of the centres."""
    squared = cdist(z, centres, "sqeuclidean").min(axis=1)
    return float(squared.sum() if weights is None else (squared * weights).sum())


def plus_plus(z: FloatArray, k: int, rng: np.random.Generator, weights: FloatArray | None = None) -> FloatArray:
    """k starting centres (k, d), each drawn by its (weighted) squared distance from those before; the best of a few
    draws each time (greedy k-means++)."""
    weights = np.ones(len(z)) if weights is None else weights
    trials = 2 + int(math.log(k))
    first = int(rng.integers(len(z)))
    centres = [z[first]]
    squared = cdist(z, z[first : first + 1], "sqeuclidean").ravel() * weights
    for _ in range(1, k):
        total = float(squared.sum())
        if total > 0:
            drawn = np.searchsorted(np.cumsum(squared), rng.random(trials) * total)
            drawn = np.minimum(drawn, len(z) - 1)
        else:  # fewer distinct rows than centres
            drawn = rng.integers(len(z), size=trials)
        each = np.minimum(squared, cdist(z[drawn], z, "sqeuclidean") * weights)
        best = int(each.sum(axis=1).argmin())
        squared = each[best]
        centres.append(z[int(drawn[best])])
    return np.array(centres)


def in_order_of(reference: FloatArray, centres: FloatArray) -> FloatArray:
    """The centres (k, d) permuted so that each stands where the nearest one of `reference` (k, d) stood
    (Hungarian: least sum of squared distances)."""
    rows, columns = linear_sum_assignment(cdist(reference, centres, "sqeuclidean"))
    ordered = np.empty_like(centres)
    ordered[rows] = centres[columns]
    return ordered


def silhouette(z: FloatArray, labels: NDArray[np.intp], most: int = 1_000) -> float | None:
    """Mean silhouette of at most `most` rows, taken evenly; None where fewer than two clusters are among them.

    Rousseeuw, "Silhouettes: a graphical aid", 1987.
    """
    if len(z) > most:
        taken = np.linspace(0, len(z) - 1, most).round().astype(np.intp)
        z, labels = z[taken], labels[taken]
    _, labels, counts = np.unique(labels, return_inverse=True, return_counts=True)
    if len(counts) < 2:
        return None
    distance = cdist(z, z)
    sums = np.stack([distance[:, labels == c].sum(axis=1) for c in range(len(counts))], axis=1)
    rows = np.arange(len(z))
    own_count = counts[labels]
    own = sums[rows, labels] / np.maximum(own_count - 1, 1)
    means = sums / counts
    means[rows, labels] = np.inf
    other = means.min(axis=1)
    largest = np.maximum(own, other)
    value = np.divide(other - own, largest, out=np.zeros(len(z)), where=(largest > 0) & (own_count > 1))
    return float(value.mean())
