"""DenStream: River's potential and outlier micro-clusters, with its arithmetic put right, and our own components.

Cao et al., "Density-based clustering over an evolving data stream with noise", SDM 2006. River 0.26.1 computes a radius
that shrinks to 0 away from the origin (mended upstream by #2005), so that everybody falls into the nearest
micro-cluster; it never fades what a micro-cluster has gathered; it gives a new micro-cluster the key of a living
one; and `predict_one` changes the model. So the sums and the step that decides are ours; the clock and the
clearing away are River's, and `predict_one` is never called.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from river.cluster import DenStream
from river.cluster.denstream import DenStreamMicroCluster
from scipy.spatial.distance import cdist

from stream.segments.clusterer_settings import DenStreamSettings
from stream.segments.clusterers.density import DensityLearner, MicroClusters
from stream.segments.learner import river_row
from stream.segments.scaling import AffineMap
from stream.segments.settings import LearnerSettings

FloatArray = NDArray[np.float64]
IndexArray = NDArray[np.intp]

SLACK: Final = 1.15
"""Neighbours are connected where the gap between them is at most this share wider than their extents: round
micro-clusters do not fill the plane."""
NOISE: Final = 2.0
"""Radii (root mean squares) from its centre at which a micro-cluster ends: nearly all of a Gaussian's people."""
_River: Any = DenStream
_RiverMicroCluster: Any = DenStreamMicroCluster


class FadingMicroCluster(_RiverMicroCluster):  # type: ignore[misc]
    """River's, with the radius of the paper, and sums that fade: those of the paper, brought to the last insertion."""

    __slots__ = ()

    def insert(self, x: dict[int, float], timestamp: int) -> None:
        """Take a point in."""
        left = self.fading_function(timestamp - self.last_edit_time)
        self.N *= left
        for axis in self.linear_sum:
            self.linear_sum[axis] *= left
            self.squared_sum[axis] *= left
        super().insert(x, timestamp)

    def calc_radius(self, timestamp: int) -> float:
        """Root mean square distance from the centre; fading cancels."""
        return _root_mean_square(self.N, self.linear_sum.values(), self.squared_sum.values())

    def radius_with(self, x: dict[int, float], timestamp: int) -> float:
        """The same after x has come in."""
        left = self.fading_function(timestamp - self.last_edit_time)
        linear = [total * left + value for total, value in zip(self.linear_sum.values(), x.values(), strict=True)]
        squared = [
            total * left + value * value for total, value in zip(self.squared_sum.values(), x.values(), strict=True)
        ]
        return _root_mean_square(self.N * left + 1.0, linear, squared)


class MendedDenStream(_River):  # type: ignore[misc]
    """River's DenStream with fading micro-clusters, keys that are never used twice, and no first buffer.

    A step of its time is one observation.
    """

    def __init__(self, radius: float, settings: DenStreamSettings) -> None:
        super().__init__(
            decaying_factor=1.0 / settings.half_life, beta=1.0, mu=settings.potential, epsilon=radius, stream_speed=1
        )
        self.initialized = True
        self.next_key = 0

    def _merge(self, x: dict[int, float]) -> None:
        for group in (self.p_micro_clusters, self.o_micro_clusters):
            if not group:
                continue
            key = self._get_closest_cluster_key(x, group)
            nearest = group[key]
            if nearest.radius_with(x, self.timestamp) <= self.epsilon:
                nearest.insert(x, self.timestamp)
                if group is self.o_micro_clusters and self.mu * self.beta < nearest.N:
                    self.p_micro_clusters[key] = group.pop(key)
                return
        self.o_micro_clusters[self.next_key] = FadingMicroCluster(x, self.timestamp, self.decaying_factor)
        self.next_key += 1


class DenStreamLearner(DensityLearner):
    """Potential micro-clusters are connected where their extents touch."""

    name = "denstream"
    crowding = 1.0

    def __init__(self, width: int, active: IndexArray, radius: float, settings: LearnerSettings) -> None:
        super().__init__(width, active, radius, settings)
        self.river = MendedDenStream(radius, settings.denstream)

    @classmethod
    def rules(cls, settings: LearnerSettings) -> DenStreamSettings:  # noqa: D102
        return settings.denstream

    def learn(self, row: FloatArray) -> None:  # noqa: D102
        self.river.learn_one(river_row(row, self._width, self._active))

    def micro_clusters(self) -> MicroClusters:
        """The potential ones; in the first moments, before there are any, the others."""
        each = self.river.p_micro_clusters or self.river.o_micro_clusters
        now = self.river.timestamp
        weights = [mc.calc_weight(now) for mc in each.values()]
        centres = [list(mc.center.values()) for mc in each.values()]
        return MicroClusters(np.array(list(each), np.int64), self._full(centres), np.array(weights, np.float64))

    def edges(self, found: MicroClusters) -> tuple[IndexArray, IndexArray]:
        """A ball whose points have the root mean square r reaches to r * sqrt((d + 2) / d). River connects within
        the sum of the r themselves and twice the largest: a crescent of balls that touch falls to pieces."""
        both = {**self.river.o_micro_clusters, **self.river.p_micro_clusters}
        radius = np.array([both[key].calc_radius(self.river.timestamp) for key in found.keys.tolist()], np.float64)
        d = len(self._active)
        extent = SLACK * math.sqrt((d + 2.0) / d) * radius
        i, j = np.nonzero(np.triu(cdist(found.centres, found.centres) <= extent[:, None] + extent[None, :], 1))
        return i, j

    def noise_radius(self) -> float:  # noqa: D102
        return NOISE * self._radius

    def _full(self, rows: list[list[float]]) -> FloatArray:
        full = np.zeros((len(rows), self._width))
        full[:, self._active] = np.array(rows).reshape(len(rows), len(self._active))
        return full

    def river_state(self) -> dict[str, NDArray[Any]]:  # noqa: D102
        each = {**self.river.p_micro_clusters, **self.river.o_micro_clusters}
        return {
            "key": np.array(list(each), np.int64),
            "potential": np.array([key in self.river.p_micro_clusters for key in each], np.bool_),
            "count": np.array([mc.N for mc in each.values()], np.float64),
            "edited": np.array([mc.last_edit_time for mc in each.values()], np.int64),
            "created": np.array([mc.creation_time for mc in each.values()], np.int64),
            "linear": self._full([list(mc.linear_sum.values()) for mc in each.values()]),
            "squared": self._full([list(mc.squared_sum.values()) for mc in each.values()]),
            "clock": np.array([self.river.timestamp, self.river._n_samples_seen, self.river.next_key], np.int64),
        }

    def river_restore(self, state: Mapping[str, NDArray[Any]]) -> None:  # noqa: D102
        self.river = river = MendedDenStream(self._radius, self._settings.denstream)
        river.timestamp, river._n_samples_seen, river.next_key = state["clock"].tolist()
        names = ("key", "potential", "count", "edited", "created")
        sums = (state[name][:, self._active].tolist() for name in ("linear", "squared"))
        rows = zip(*(state[name].tolist() for name in names), *sums, strict=True)
        for key, potential, count, edited, created, linear, squared in rows:
            one = FadingMicroCluster({}, created, river.decaying_factor)
            one.N, one.last_edit_time = count, edited
            one.linear_sum, one.squared_sum = dict(enumerate(linear)), dict(enumerate(squared))
            (river.p_micro_clusters if potential else river.o_micro_clusters)[key] = one

    @staticmethod
    def map_state(state: dict[str, NDArray[Any]], change: AffineMap) -> None:
        """The sums of x * slope + shift, from the sums of x."""
        count, slope, shift = state["count"][:, None], change.slope, change.shift
        linear = state["linear"]
        state["squared"] = state["squared"] * slope**2 + 2.0 * slope * shift * linear + shift**2 * count
        state["linear"] = linear * slope + shift * count


def _root_mean_square(count: float, linear: Iterable[float], squared: Iterable[float]) -> float:
    variance = sum(q / count - (t / count) ** 2 for t, q in zip(linear, squared, strict=True))
    return math.sqrt(variance) if variance > 0.0 else 0.0
