"""DBSTREAM: River's micro-clusters and shared densities, and our own components over them.

Hahsler & Bolaños, "Clustering data streams based on shared density between micro-clusters", TKDE 2016. River labels
a component by following edges from lower to higher keys only: two moons come out at an adjusted Rand index of .15 to
.29, with the components of the same graph at .99 and above (tests/segments/test_clusterers.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from river.cluster import DBSTREAM
from river.cluster.dbstream import DBSTREAMMicroCluster

from stream.segments.clusterer_settings import DBStreamSettings
from stream.segments.clusterers.density import DensityLearner, MicroClusters
from stream.segments.learner import river_row
from stream.segments.scaling import AffineMap
from stream.segments.settings import LearnerSettings

FloatArray = NDArray[np.float64]
IndexArray = NDArray[np.intp]

CLEANUPS: Final = 5
"""A half-life: how often River looks for micro-clusters that have faded."""
_River: Any = DBSTREAM
_MicroCluster: Any = DBSTREAMMicroCluster


class TidyDBStream(_River):  # type: ignore[misc]
    """River's DBSTREAM, which forgets a micro-cluster's shared densities with it.

    River stops looking for them at the first key that is not in order, and uses the largest key again: a new
    micro-cluster could begin with the density of another one. `gone` is told the keys that are free.
    """

    def __init__(self, radius: float, settings: DBStreamSettings, gone: Callable[[list[int]], None]) -> None:
        super().__init__(
            clustering_threshold=radius,
            fading_factor=1.0 / settings.half_life,
            cleanup_interval=max(1, settings.half_life // CLEANUPS),
            intersection_factor=settings.intersection,
        )
        self._gone = gone

    def _cleanup(self) -> None:
        before = list(self._micro_clusters)
        super()._cleanup()
        here = self._micro_clusters
        dead = [key for key in before if key not in here]
        if not dead:
            return
        for shared in (self.s, self.s_t):
            for key in [key for key in shared if key not in here]:
                del shared[key]
            for row in shared.values():
                for key in [key for key in row if key not in here]:
                    del row[key]
        self._gone(dead)


class DBStreamLearner(DensityLearner):
    """Micro-clusters are connected that share enough of their people."""

    name = "dbstream"
    crowding = 2.0

    def __init__(self, width: int, active: IndexArray, radius: float, settings: LearnerSettings) -> None:
        super().__init__(width, active, radius, settings)
        self.river = TidyDBStream(radius, settings.dbstream, self.forget)

    @classmethod
    def rules(cls, settings: LearnerSettings) -> DBStreamSettings:  # noqa: D102
        return settings.dbstream

    def learn(self, row: FloatArray) -> None:  # noqa: D102
        self.river.learn_one(river_row(row, self._width, self._active))

    def micro_clusters(self) -> MicroClusters:  # noqa: D102
        each = self.river._micro_clusters
        weights = [mc.weight * self._faded(mc.last_update) for mc in each.values()]
        return MicroClusters(np.array(list(each), np.int64), self._places(), np.array(weights, np.float64))

    def edges(self, found: MicroClusters) -> tuple[IndexArray, IndexArray]:
        """Shared density over the mean of both weights, all faded to now."""
        position = {key: i for i, key in enumerate(found.keys.tolist())}
        shared = [
            (position[a], position[b], density * self._faded(self.river.s_t[a][b]))
            for a, row in self.river.s.items()
            for b, density in row.items()
            if a in position and b in position
        ]
        table = np.array(shared, np.float64).reshape(-1, 3)
        i, j = table[:, 0].astype(np.intp), table[:, 1].astype(np.intp)
        enough = table[:, 2] > self._settings.dbstream.intersection * (found.weights[i] + found.weights[j]) / 2.0
        return i[enough], j[enough]

    def noise_radius(self) -> float:
        """What River asks for before it lets a micro-cluster take somebody in."""
        return self._radius

    def _faded(self, since: int) -> float:
        return float(2.0 ** (-self.river.fading_factor * (self.river._time_stamp - since)))

    def _places(self) -> FloatArray:
        rows = [list(mc.center.values()) for mc in self.river._micro_clusters.values()]
        full = np.zeros((len(rows), self._width))
        full[:, self._active] = np.array(rows).reshape(len(rows), len(self._active))
        return full

    def river_state(self) -> dict[str, NDArray[Any]]:  # noqa: D102
        each = self.river._micro_clusters
        shared = [(a, b, density) for a, row in self.river.s.items() for b, density in row.items()]
        return {
            "key": np.array(list(each), np.int64),
            "place": self._places(),
            "weight": np.array([mc.weight for mc in each.values()], np.float64),
            "updated": np.array([mc.last_update for mc in each.values()], np.int64),
            "row": np.array(list(self.river.s), np.int64),
            "from": np.array([a for a, _, _ in shared], np.int64),
            "to": np.array([b for _, b, _ in shared], np.int64),
            "shared": np.array([density for _, _, density in shared], np.float64),
            "shared_at": np.array([self.river.s_t[a][b] for a, b, _ in shared], np.int64),
            "clock": np.array([self.river._time_stamp], np.int64),
        }

    def river_restore(self, state: Mapping[str, NDArray[Any]]) -> None:  # noqa: D102
        self.river = TidyDBStream(self._radius, self._settings.dbstream, self.forget)
        self.river._time_stamp = int(state["clock"][0])
        columns = (state["key"], state["place"][:, self._active], state["weight"], state["updated"])
        for key, place, weight, updated in zip(*(column.tolist() for column in columns), strict=True):
            self.river._micro_clusters[key] = _MicroCluster(dict(enumerate(place)), updated, weight)
        for key in state["row"].tolist():
            self.river.s[key], self.river.s_t[key] = {}, {}
        edges = (state[name].tolist() for name in ("from", "to", "shared", "shared_at"))
        for a, b, density, at in zip(*edges, strict=True):
            self.river.s[a][b], self.river.s_t[a][b] = density, at

    @staticmethod
    def map_state(state: dict[str, NDArray[Any]], change: AffineMap) -> None:  # noqa: D102
        state["place"] = change(state["place"])
