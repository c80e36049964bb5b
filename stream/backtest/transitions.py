"""Where people went: segments at one checkpoint against the next, all pairs of neighbours added up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Transitions:
    """Of all users known at both checkpoints; built-in segments are below 1."""

    segments: tuple[int, ...]
    counts: NDArray[np.int64]
    """(s, s) from row to column, in the order of `segments`"""

    @classmethod
    def between(cls, standings: Sequence[NDArray[np.int64]]) -> Transitions:
        """From everybody's segment (n,) at each checkpoint; users are only ever added at the end."""
        segments = np.unique(np.concatenate(standings))
        counts = np.zeros((len(segments), len(segments)), np.int64)
        for before, after in pairwise(standings):
            here = np.searchsorted(segments, before)
            there = np.searchsorted(segments, after[: len(before)])
            np.add.at(counts, (here, there), 1)
        return cls(tuple(segments.tolist()), counts)
