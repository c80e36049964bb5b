"""CluStream: River's micro-clusters, and over them a weighted k-means at each review."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream.segments.clusterers.micro_clusters import MicroClusters
from stream.segments.learner import Learner, Prototypes, selected
from stream.segments.refit import fit, in_order_of, lloyd
from stream.segments.scaling import AffineMap
from stream.segments.settings import LearnerSettings

FloatArray = NDArray[np.float64]
IndexArray = NDArray[np.intp]


class CluStreamLearner(Learner):
    """k prototypes, one a segment. They stand still between reviews, while the micro-clusters learn."""

    name = "clustream"

    def __init__(self, micro: MicroClusters, centres: FloatArray, settings: LearnerSettings) -> None:
        self._micro = micro
        self._centres = centres
        self._settings = settings

    @classmethod
    def start(cls, z: FloatArray, active: IndexArray, settings: LearnerSettings) -> CluStreamLearner:  # noqa: D102
        micro = MicroClusters(z.shape[1], active, settings.clustream)
        for row in z:
            micro.learn(row)
        rng = np.random.default_rng(settings.seed)
        found = fit(micro.centres(), settings.segments, settings.restarts, rng, micro.weights())
        return cls(micro, found.centres, settings)

    def learn(self, row: FloatArray) -> None:  # noqa: D102
        self._micro.learn(row)

    def prototypes(self) -> Prototypes:  # noqa: D102
        return Prototypes(self._centres.copy(), np.arange(len(self._centres), dtype=np.intp), lasting=True)

    def repair(self, z: FloatArray, rng: np.random.Generator) -> bool:
        """The macro step: k-means from the present centres, or from k-means++ where that is clearly better."""
        points, weights = self._micro.centres(), self._micro.weights()
        warm = lloyd(points, self._centres, weights)
        cold = fit(points, len(self._centres), self._settings.restarts, rng, weights)
        stuck = cold.inertia < (1.0 - self._settings.repair_gain) * warm.inertia
        self._centres = in_order_of(self._centres, (cold if stuck else warm).centres)
        return stuck

    def rescale(self, change: AffineMap, active: IndexArray) -> None:  # noqa: D102
        self._micro = self._micro.rescale(change, active)
        self._centres = change(self._centres)

    def select(self, columns: IndexArray, active: IndexArray) -> None:  # noqa: D102
        self._micro = self._micro.select(columns, active)
        self._centres = selected(self._centres, columns, active)

    def fits(self, settings: LearnerSettings) -> bool:  # noqa: D102
        return len(self._centres) == settings.segments and self._micro.fits(settings.clustream)

    def state(self) -> dict[str, NDArray[Any]]:  # noqa: D102
        return {"centres": self._centres, **self._micro.state()}

    @classmethod
    def restore(cls, state: Mapping[str, NDArray[Any]], settings: LearnerSettings) -> CluStreamLearner:  # noqa: D102
        return cls(MicroClusters.restore(state, settings.clustream), state["centres"].copy(), settings)
