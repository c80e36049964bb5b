"""RFM cells: what a marketer without a learner would use, cut from purchases at quantiles.

Equal values stay together, so that with few different values there are fewer cells. Hughes, "Strategic Database
Marketing", 1994.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stream.backtest.history import Rfm

IntArray = NDArray[np.int64]


def eight(rfm: Rfm) -> IntArray:
    """(m,) 2 x 2 x 2 cells: recency, frequency and monetary value above the median or not."""
    r, f, m = (quantile_cells(values, 2) for values in rfm)
    return 4 * r + 2 * f + m


def twenty_five(rfm: Rfm) -> IntArray:
    """(m,) 5 x 5 cells: fifths of recency and of frequency."""
    return 5 * quantile_cells(rfm.recency, 5) + quantile_cells(rfm.frequency, 5)


def quantile_cells(values: NDArray[np.float64], parts: int) -> IntArray:
    """(m,) 0 to parts - 1: how many of the inner quantiles are below the value."""
    if not len(values):
        return np.zeros(0, np.int64)
    # Lower: a quantile is one of the values, also among infinite ones.
    cuts = np.quantile(values, np.arange(1, parts) / parts, method="lower")
    return np.searchsorted(cuts, values, side="left").astype(np.int64)
