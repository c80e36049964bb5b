"""The oracle: k-means fitted anew at every checkpoint, to everybody at once.

It may do what a stream cannot: see all users at one instant, and start over. Its cells get the names of those that the
most people were in at the last checkpoint, so that its ids last as long as they can.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from stream.backtest.metrics import matched
from stream.segments.refit import fit

RESTARTS: Final = 10


class Oracle:
    """Parameters: the number of cells, and a seed."""

    def __init__(self, cells: int, seed: int) -> None:
        self._cells = cells
        self._seed = seed
        self._rows: NDArray[np.intp] = np.empty(0, np.intp)
        self._labels: NDArray[np.int64] = np.empty(0, np.int64)
        self._free = 1

    def label(self, rows: NDArray[np.intp], z: NDArray[np.float64]) -> NDArray[np.int64]:
        """Cells (m,) of the users `rows` (m,), ascending, at the next checkpoint, from their scaled features (m, d)."""
        if not len(rows):
            return np.empty(0, np.int64)
        rng = np.random.default_rng([self._seed, len(self._rows)])
        centres = fit(z, min(self._cells, len(z)), RESTARTS, rng).centres
        new = cdist(z, centres, "sqeuclidean").argmin(axis=1).astype(np.int64)
        _, then, now = np.intersect1d(self._rows, rows, assume_unique=True, return_indices=True)
        labels = matched(self._labels[then], new[now], new, self._free)
        self._free = max(self._free, int(labels.max()) + 1)
        self._rows, self._labels = rows, labels
        return labels
