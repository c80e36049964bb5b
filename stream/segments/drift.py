"""Drift: whether people have moved away from the published prototypes, seen by ADWIN on their distances.

Bifet & Gavaldà, "Learning from time-changing data with adaptive windowing", SDM 2007; River's implementation, whose
state is opaque: a watch is saved as the distances that it has seen, and built again from them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from river.drift import ADWIN

from stream.segments.settings import ReviewSettings

FloatArray = NDArray[np.float64]

_ADWIN: Final[Any] = ADWIN  # River annotates its constructor, but not what it returns


class DriftWatch:
    """Since the last review. `distances` were seen already, and `drift` was found or not."""

    def __init__(self, settings: ReviewSettings, distances: Iterable[float] = (), drift: bool = False) -> None:
        self._settings = settings
        self._adwin = _ADWIN(delta=settings.drift_delta)
        self.distances = list(distances)
        for distance in self.distances:
            self._adwin.update(distance)
        self.drift = drift

    def see(self, distance: float, panel: FloatArray, weight: FloatArray, inertia: float) -> None:
        """One more person's distance to the nearest prototype.

        Where ADWIN says so it is drift, if the whole panel's distances (m,), with `weight` (m,), bear it out: their
        mean square must be above the published `inertia` by more than a week's rhythm makes it.
        """
        self.distances.append(distance)
        self._adwin.update(distance)
        if self._adwin.drift_detected and not self.drift:
            now = float(np.average(panel**2, weights=weight))
            self.drift = now > (1.0 + self._settings.drift_rise) * inertia
