"""The measures, as pure functions of labels: what each one means is written here and nowhere else.

Labels are whole numbers, (m,), one a user; which number stands for which cell is of no meaning. A measure that the
data cannot tell is None, and never a 0 that looks like a result.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from stream.segments.agreement import adjusted_rand as adjusted_rand
from stream.segments.agreement import contingency as contingency
from stream.segments.refit import silhouette as sampled_silhouette

FloatArray = NDArray[np.float64]
Labels = NDArray[np.integer[Any]]
Mask = NDArray[np.bool_]

SILHOUETTE_ROWS: Final = 2_000
LIFT_SHARE: Final = 0.10
"""A segment must hold so many of the people for its lift to count."""


def silhouette(z: FloatArray, labels: Labels) -> float | None:
    """Mean of (b - a) / max(a, b) over at most 2,000 rows of z (m, d), taken evenly.

    a is a row's mean distance to its own cell, b to the nearest other one; 0 for a cell of one row. None where
    fewer than two cells are among them. Rousseeuw, "Silhouettes", J. Comput. Appl. Math. 20 (1987).
    """
    return sampled_silhouette(z, labels.astype(np.intp), SILHOUETTE_ROWS)


def eta_squared(labels: Labels, values: FloatArray) -> float | None:
    """Share of the variance of `values` (m,) that the cells explain: SS between / SS total (one-way ANOVA).

    It never falls when a cell is divided, so mind the number of cells when two are compared. None where everybody
    has the same value. Cohen, "Eta-squared and partial eta-squared", Educ. Psychol. Meas. 33 (1973).
    """
    if len(values) < 2 or values.min() == values.max():
        return None
    _, cell = np.unique(labels, return_inverse=True)
    deviation = values - values.mean()
    sums, counts = np.bincount(cell, deviation), np.bincount(cell)
    return float((sums**2 / counts).sum() / (deviation**2).sum())


def best_lift(labels: Labels, bought: Mask, eligible: Mask | None = None) -> float | None:
    """Largest P(bought | cell) / P(bought) over the cells that hold at least 10% of all m people.

    `eligible` (m,) says whose cells may win (built-in ones are no segments). None where nobody bought, or no cell is
    large enough.
    """
    if not bought.any():
        return None
    cells, cell, counts = np.unique(labels, return_inverse=True, return_counts=True)
    allowed = np.ones(len(cells), bool)
    if eligible is not None:
        allowed = np.bincount(cell, eligible, len(cells)) > 0
    large = allowed & (counts >= LIFT_SHARE * len(labels))
    if not large.any():
        return None
    rate = np.bincount(cell, bought, len(cells)) / counts
    return float(rate[large].max() / bought.mean())


def id_continuity(windows: Sequence[tuple[Labels, Labels]]) -> float | None:
    """Global over window ARI: what is left of the agreement with the truth when ids must mean the same for ever.

    `windows` holds (labels, truth) of each checkpoint. The window ARI is the mean of each one's own; the global one
    takes all windows' people together. Ids that are swapped now and then leave the first as it is and ruin the second.
    None for fewer than two windows, or where the window ARI is not above 0.
    """
    known = [(labels, truth) for labels, truth in windows if len(labels) >= 2]
    if len(known) < 2:
        return None
    window = float(np.mean([adjusted_rand(labels, truth) for labels, truth in known]))
    together = adjusted_rand(np.concatenate([w[0] for w in known]), np.concatenate([w[1] for w in known]))
    return None if window <= 0 or together is None else together / window


def changed(before: Labels, after: Labels) -> float | None:
    """Share of the same people (m,) whose label is another one; None for nobody."""
    return float(np.mean(before != after)) if len(before) else None


def matched(before: Labels, after: Labels, new: Labels, first_free: int) -> NDArray[np.int64]:
    """`new` labels renamed to the last checkpoint's: the Hungarian pairing that the most people follow.

    `before` and `after` are the old and new labels of the people who have both. A new label that finds no partner
    with anybody in common gets a number from `first_free` on.
    """
    cells = np.unique(new)
    names = dict(zip(cells.tolist(), range(first_free, first_free + len(cells)), strict=True))
    if len(before):
        shared = contingency(before, after)
        old_cells, new_cells = np.unique(before), np.unique(after)
        for i, j in zip(*linear_sum_assignment(-shared), strict=True):
            if shared[i, j]:
                names[int(new_cells[j])] = int(old_cells[i])
    return np.array([names[label] for label in cells.tolist()], np.int64)[np.searchsorted(cells, new)]
