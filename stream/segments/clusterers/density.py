"""What density clusterers have in common: a graph of micro-clusters, whose components are the segments.

At each review the micro-clusters are taken from River, thin ones left out, neighbours connected, and components too
small to be a segment left out: what is left out is noise. Between reviews the prototypes stand still.

Invariants. A component is split, merged or born only when two successive reviews have seen it. There is always a
prototype: where nothing is dense, everybody is one segment.
"""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Final, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from stream.segments.clusterer_settings import DensitySettings
from stream.segments.clusterers.components import UNKNOWN, believed, components
from stream.segments.learner import Learner, Prototypes, selected
from stream.segments.scaling import AffineMap
from stream.segments.settings import LearnerSettings

FloatArray = NDArray[np.float64]
IndexArray = NDArray[np.intp]

log = logging.getLogger(__name__)

MANY_AXES: Final = 6
NEIGHBOURS: Final = 0.01
"""Of the first rows: a point's distance to its neighbour of this rank says how dense the population is."""
FIRST_ROWS: Final = 1_000
ROUNDS: Final = 2
"""How often a start goes over its rows: who shares what is seen only once the micro-clusters stand."""


class MicroClusters(NamedTuple):
    """What River holds now."""

    keys: NDArray[np.int64]
    """(n,) never the same one for another micro-cluster"""
    centres: FloatArray
    """(n, d)"""
    weights: FloatArray
    """(n,) faded to now"""


class DensityLearner(Learner):
    """Subclasses keep River's model. Parameters: the width d, the active axes, the radius of a micro-cluster."""

    crowding: ClassVar[float]
    """The radius of a micro-cluster, where it is not given, in the median row's distances to its neighbour."""

    def __init__(self, width: int, active: IndexArray, radius: float, settings: LearnerSettings) -> None:
        self._width = width
        self._active = active
        self._radius = radius
        self._settings = settings
        self._keys = np.zeros(0, np.int64)
        self._seen = np.zeros(0, np.int64)
        self._held = np.zeros(0, np.int64)
        self._centres = np.zeros((0, width))
        self._evident = np.zeros(0, np.bool_)

    # -- what a subclass gives ---------------------------------------------------------------------------------

    @classmethod
    @abstractmethod
    def rules(cls, settings: LearnerSettings) -> DensitySettings:
        """Its own part of the settings."""

    @abstractmethod
    def micro_clusters(self) -> MicroClusters:
        """Those that may be part of a segment."""

    @abstractmethod
    def edges(self, found: MicroClusters) -> tuple[IndexArray, IndexArray]:
        """Which of the given ones are connected: i[e] with j[e]."""

    @abstractmethod
    def noise_radius(self) -> float:
        """Beyond this distance from a micro-cluster's centre is noise."""

    @abstractmethod
    def river_state(self) -> dict[str, NDArray[Any]]:
        """Everything that River holds; columns on all d axes where they are on axes."""

    @abstractmethod
    def river_restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """The inverse of `river_state`, for the present axes, radius and settings."""

    @staticmethod
    @abstractmethod
    def map_state(state: dict[str, NDArray[Any]], change: AffineMap) -> None:
        """Take the columns of `river_state` to other axes, in place."""

    # -- the interface -----------------------------------------------------------------------------------------

    @classmethod
    def start(cls, z: FloatArray, active: IndexArray, settings: LearnerSettings) -> Self:  # noqa: D102
        if len(active) > MANY_AXES:
            log.warning(
                "%s on %d features: with more than %d everybody is far from everybody, and may end up in one segment; "
                "learn from fewer (learn = false), or choose kmeans or clustream",
                cls.name,
                len(active),
                MANY_AXES,
            )
        radius = cls.rules(settings).radius or cls.crowding * _neighbourhood(z[:, active])
        learner = cls(z.shape[1], active, radius, settings)
        for row in np.concatenate([z] * ROUNDS):
            learner.learn(row)
        learner._review()
        learner._evident[:] = True
        return learner

    def prototypes(self) -> Prototypes:  # noqa: D102
        radii = np.full(len(self._centres), self.noise_radius())
        return Prototypes(self._centres.copy(), self._held.astype(np.intp), False, radii, self._evident.copy())

    def repair(self, z: FloatArray, rng: np.random.Generator) -> bool:
        """Look at the graph anew. There is no way to be stuck."""
        self._review()
        return False

    def rescale(self, change: AffineMap, active: IndexArray) -> None:
        """A radius of our own choice is stretched as the axes are, on average; a configured one is meant literally."""
        if self.rules(self._settings).radius is None:
            kept = np.intersect1d(self._active, active)
            slopes = np.abs(change.slope[kept])
            if len(kept) and (slopes > 0).all():
                self._radius *= float(np.exp(np.log(slopes).mean()))
        state = self.river_state()
        self.map_state(state, change)
        self._active = active
        self.river_restore(state)
        self._centres = change(self._centres)

    def select(self, columns: IndexArray, active: IndexArray) -> None:  # noqa: D102
        state = {
            name: selected(array, columns, active) if array.ndim == 2 else array
            for name, array in self.river_state().items()
        }
        self._width, self._active = len(columns), active
        self.river_restore(state)
        self._centres = selected(self._centres, columns, active)

    def fits(self, settings: LearnerSettings) -> bool:
        """The number of segments is found, not asked for; only another radius needs a new start."""
        return self.rules(settings).radius in (None, self._radius)

    def state(self) -> dict[str, NDArray[Any]]:  # noqa: D102
        return {
            "active": self._active.astype(np.int64),
            "radius": np.array([self._radius]),
            "keys": self._keys,
            "seen": self._seen,
            "held": self._held,
            "centres": self._centres,
            "evident": self._evident,
            **{f"river_{name}": array for name, array in self.river_state().items()},
        }

    @classmethod
    def restore(cls, state: Mapping[str, NDArray[Any]], settings: LearnerSettings) -> Self:  # noqa: D102
        centres = state["centres"].copy()
        learner = cls(centres.shape[1], state["active"].astype(np.intp), float(state["radius"][0]), settings)
        learner._centres = centres
        learner._keys, learner._seen, learner._held = (state[name].copy() for name in ("keys", "seen", "held"))
        learner._evident = state["evident"].copy()
        learner.river_restore(
            {name.removeprefix("river_"): array for name, array in state.items() if name.startswith("river_")}
        )
        return learner

    # -- reviews -----------------------------------------------------------------------------------------------

    def forget(self, keys: list[int]) -> None:
        """These micro-clusters are gone, and their keys may come back for others."""
        gone = np.isin(self._keys, keys)
        self._seen = np.where(gone, UNKNOWN, self._seen)
        self._keys = np.where(gone, UNKNOWN, self._keys)

    def _review(self) -> None:
        rules = self.rules(self._settings)
        found = self.micro_clusters()
        dense = _take(found, found.weights >= rules.core * _typical(found.weights))
        now = components(len(dense.keys), *self.edges(dense))
        large = np.bincount(now, dense.weights)[now] >= rules.smallest * found.weights.sum()
        if not large.any():
            now[:] = 0
            large[:] = True
        kept, now = _take(dense, large), now[large]
        seen, held = self._history(kept.keys)
        labels = believed(now, seen, held, kept.weights, kept.centres)
        elders = np.bincount(labels, held != UNKNOWN)
        self._keys, self._seen, self._held = kept.keys, now.astype(np.int64), labels.astype(np.int64)
        self._centres, self._evident = kept.centres, elders > 0

    def _history(self, keys: NDArray[np.int64]) -> tuple[IndexArray, IndexArray]:
        """What was seen of these, and held of them, at the last review; UNKNOWN where they were not there."""
        seen, held = np.full(len(keys), UNKNOWN, np.intp), np.full(len(keys), UNKNOWN, np.intp)
        _, here, then = np.intersect1d(keys, self._keys, return_indices=True)
        seen[here], held[here] = self._seen[then], self._held[then]
        return seen, held


def _take(found: MicroClusters, which: NDArray[np.bool_]) -> MicroClusters:
    return MicroClusters(found.keys[which], found.centres[which], found.weights[which])


def _typical(weights: FloatArray) -> float:
    """The weight of the micro-cluster that the median person is in."""
    heaviest = np.sort(weights)[::-1]
    return float(heaviest[np.searchsorted(np.cumsum(heaviest), 0.5 * heaviest.sum())])


def _neighbourhood(z: FloatArray) -> float:
    """The median row's distance to its neighbours, on at most the first FIRST_ROWS rows; never 0."""
    rows = z[:FIRST_ROWS]
    rank = max(5, int(NEIGHBOURS * len(rows)))
    distance = np.sort(cdist(rows, rows), axis=1)[:, min(rank, len(rows) - 1)]
    positive = distance[distance > 0]
    return float(np.median(positive)) if len(positive) else 1.0
