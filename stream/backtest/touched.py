"""Whose events were in a batch: what the counters of accepted events say, from one look at the table to the next."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stream.features.layout import EVENTS
from stream.segments.population import Population


class Touched:
    """Follows one population, whose users keep their rows."""

    def __init__(self) -> None:
        self._events: NDArray[np.int64] = np.empty(0, np.int64)

    def since_last(self, population: Population) -> NDArray[np.intp]:
        """Rows with an event accepted since the last call, ascending."""
        events = population.table.column(EVENTS).astype(np.int64)
        before = np.zeros(len(events), np.int64)
        before[: len(self._events)] = self._events
        self._events = events
        return np.flatnonzero(events != before)
