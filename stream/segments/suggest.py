"""How many segments the people fall into: three opinions, and how sure they are. A proposal; nobody applies it.

No single criterion is to be trusted: on six Gaussian kinds the silhouette named 4 to 6 (docs/quality.md). So
three are asked that err differently, and what they say on bootstrap samples is counted:

- silhouette: people are near their own and far from the others. Rousseeuw, J. Comput. Appl. Math. 20, 1987;
- gap: k-means fits them much better than it fits people without kinds. Tibshirani et al., J. R. Stat. Soc. B 63, 2001;
- stability: other people of the same kind give the same segments. Fang & Wang, Comput. Stat. Data Anal. 56, 2012.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from stream.segments.agreement import adjusted_rand
from stream.segments.refit import fit, inertia_of, silhouette

FloatArray = NDArray[np.float64]
Labels = NDArray[np.intp]
Certainty = Literal["high", "fair", "low"]

MOST_ROWS: Final = 2_000
FEWEST_ROWS: Final = 100
RESTARTS: Final = 4
REFERENCES: Final = 8
SAMPLES: Final = 12
"""Bootstrap samples; stability compares them two by two."""
SILHOUETTE_ROWS: Final = 500
STABLE: Final = 0.9
"""Agreement (adjusted Rand index) from which segments count as the same ones."""
HIGH: Final = 0.75
FAIR: Final = 0.5
CLEAR: Final = 0.25
"""A silhouette below it: people shade into one another. Kaufman & Rousseeuw, "Finding groups in data", 1990."""


@dataclass(frozen=True, slots=True)
class Score:
    """What speaks for one number of segments."""

    k: int
    silhouette: float
    """-1 to 1"""
    gap: float
    """log of the inertia, less than that of people without kinds by so much"""
    gap_error: float
    stability: float
    """mean adjusted Rand index between segments from bootstrap samples"""
    support: float
    """share of the opinions that are for it"""


@dataclass(frozen=True, slots=True)
class Suggestion:
    """The proposal, why, and what each criterion would take."""

    k: int
    certainty: Certainty
    reason: str
    rows: int
    by_silhouette: int
    by_gap: int
    by_stability: int
    scores: tuple[Score, ...]


def suggest(z: FloatArray, ks: Sequence[int], seed: int = 7) -> Suggestion:
    """For scaled rows (m, d), as the learner has them, of which at most MOST_ROWS are taken.

    `ks` are consecutive numbers from 2 up. The same rows and seed give the same answer. Raises ValueError, in a line
    for the person who asked, where there are too few different rows.
    """
    rng = np.random.default_rng(seed)
    if len(z) > MOST_ROWS:
        z = z[np.sort(rng.choice(len(z), MOST_ROWS, replace=False))]
    different = len(np.unique(z, axis=0))
    needed = max(FEWEST_ROWS, 10 * max(ks))
    if different < needed:
        raise ValueError(
            f"{different} people who differ are too few to compare {min(ks)} to {max(ks)} segments: "
            f"it takes {needed}; observe more, or ask for fewer segments with --to"
        )
    whole = {k: fit(z, k, RESTARTS, rng) for k in ks}
    # One number more: the gap of k is judged against that of k + 1.
    gaps, errors = gap(z, [*ks, max(ks) + 1], rng)
    samples = [z[rng.integers(0, len(z), len(z))] for _ in range(SAMPLES)]
    refits = {k: [_labels(z, fit(sample, k, RESTARTS, rng).centres) for sample in samples] for k in ks}
    stabilities = {k: _stability(refits[k]) for k in ks}
    widths = {k: _silhouette(z, _labels(z, whole[k].centres)) for k in ks}
    resampled = np.array([[_silhouette(z, labels) for labels in refits[k]] for k in ks])
    by_silhouette = Counter(ks[i] for i in resampled.argmax(axis=0).tolist())
    by_gap = _by_gap(ks, gaps, errors)
    by_stability = max((k for k in ks if stabilities[k] >= STABLE), default=max(ks, key=lambda k: stabilities[k]))
    support = {k: (by_silhouette[k] / SAMPLES + (by_gap == k) + (by_stability == k)) / 3.0 for k in ks}
    best = max(ks, key=lambda k: (support[k], stabilities[k], -k))
    scores = tuple(
        Score(k, widths[k], gaps[i], errors[i], stabilities[k], round(support[k], 4)) for i, k in enumerate(ks)
    )
    named = max(ks, key=lambda k: widths[k])
    certainty = _certainty(support[best], widths[best], stabilities[best])
    reason = _reason(best, widths[best], stabilities[best], by_silhouette[best], named, by_gap, by_stability)
    return Suggestion(best, certainty, reason, len(z), named, by_gap, by_stability, scores)


def gap(z: FloatArray, ks: Sequence[int], rng: np.random.Generator) -> tuple[list[float], list[float]]:
    """The gap statistic of each k, and its standard error; the reference is uniform in the box along the principal
    axes, with as many rows."""
    centred = z - z.mean(axis=0)
    axes = np.linalg.svd(centred, full_matrices=False)[2]
    turned = centred @ axes.T
    low, high = turned.min(axis=0), turned.max(axis=0)
    references = [rng.uniform(low, high, turned.shape) @ axes for _ in range(REFERENCES)]
    gaps, errors = [], []
    for k in ks:
        ours = _log_inertia(centred, k, rng)
        theirs = np.array([_log_inertia(reference, k, rng) for reference in references])
        gaps.append(float(theirs.mean() - ours))
        errors.append(float(theirs.std() * np.sqrt(1.0 + 1.0 / REFERENCES)))
    return gaps, errors


def _log_inertia(z: FloatArray, k: int, rng: np.random.Generator) -> float:
    return float(np.log(max(inertia_of(z, fit(z, k, RESTARTS, rng).centres), 1e-300)))


def _by_gap(ks: Sequence[int], gaps: Sequence[float], errors: Sequence[float]) -> int:
    """The smallest k whose gap the next one does not surpass by more than its error; else the largest gap's."""
    for i, k in enumerate(ks):
        if gaps[i] >= gaps[i + 1] - errors[i + 1]:
            return k
    return ks[int(np.argmax(gaps[: len(ks)]))]


def _labels(z: FloatArray, centres: FloatArray) -> Labels:
    nearest: Labels = cdist(z, centres, "sqeuclidean").argmin(axis=1)
    return nearest


def _stability(labels: Sequence[Labels]) -> float:
    pairs = zip(labels[::2], labels[1::2], strict=True)
    return float(np.mean([adjusted_rand(a, b) or 0.0 for a, b in pairs]))


def _silhouette(z: FloatArray, labels: Labels) -> float:
    value = silhouette(z, labels, SILHOUETTE_ROWS)
    return -1.0 if value is None else value


def _certainty(support: float, width: float, stability: float) -> Certainty:
    clear, stable = width >= CLEAR, stability >= STABLE
    if support >= HIGH and clear and stable:
        return "high"
    return "fair" if support >= FAIR and (clear or stable) else "low"


def _reason(k: int, width: float, stability: float, samples: int, named: int, by_gap: int, by_stability: int) -> str:
    """In a sentence or three."""
    told = [f"{k} segments: silhouette {width:.2f}, best in {samples} of {SAMPLES} resamples"]
    told.append(
        f"other people of the same kinds give the same segments (agreement {stability:.2f})"
        if stability >= STABLE
        else f"but other people of the same kinds give other segments (agreement {stability:.2f})"
    )
    others = {"silhouette": named, "gap": by_gap, "stability": by_stability}
    against = ", ".join(f"{name} {value}" for name, value in others.items() if value != k)
    told.append(f"other opinions: {against}" if against else "all three criteria agree")
    if width < CLEAR and stability < STABLE:
        told.append("people shade into one another: any number is a matter of use")
    return "; ".join(told)
