"""How far two partitions of the same people agree. Which number stands for which cell is of no meaning."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Labels = NDArray[np.integer[Any]]


def adjusted_rand(a: Labels, b: Labels) -> float | None:
    """Agreement of two partitions of the same people, corrected for chance: 1 is equal, 0 is what chance gives.

    None for fewer than two people. Hubert & Arabie, "Comparing partitions", J. Classif. 2 (1985).
    """
    if len(a) < 2:
        return None
    table = contingency(a, b)
    pairs = _pairs(table).sum()
    of_a, of_b, of_all = _pairs(table.sum(axis=1)).sum(), _pairs(table.sum(axis=0)).sum(), _pairs(np.array(table.sum()))
    expected = of_a * of_b / of_all
    most = (of_a + of_b) / 2
    return 1.0 if most == expected else float((pairs - expected) / (most - expected))


def contingency(a: Labels, b: Labels) -> NDArray[np.int64]:
    """How many people are in each cell of both, rows and columns in the order of np.unique."""
    cells_a, at_a = np.unique(a, return_inverse=True)
    cells_b, at_b = np.unique(b, return_inverse=True)
    flat = np.bincount(at_a * len(cells_b) + at_b, minlength=len(cells_a) * len(cells_b))
    return flat.reshape(len(cells_a), len(cells_b)).astype(np.int64)


def _pairs(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    c = counts.astype(np.float64)
    return c * (c - 1) / 2
