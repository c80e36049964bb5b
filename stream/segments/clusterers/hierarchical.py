"""Hierarchical: agglomeration of CluStream's micro-clusters, cut by number or by distance, at each review.

Many prototypes make a segment, so segments need not be balls. The linkage (scipy's) knows no weights: what is
light is left out before.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import fcluster, linkage

from stream.segments.clusterers.micro_clusters import MicroClusters
from stream.segments.learner import Learner, Prototypes, selected
from stream.segments.scaling import AffineMap
from stream.segments.settings import LearnerSettings

FloatArray = NDArray[np.float64]
IndexArray = NDArray[np.intp]


class HierarchicalLearner(Learner):
    """The micro-clusters of the last review are the prototypes; they stand still until the next one."""

    name = "hierarchical"

    def __init__(
        self, micro: MicroClusters, centres: FloatArray, groups: IndexArray, settings: LearnerSettings
    ) -> None:
        self._micro = micro
        self._centres = centres
        self._groups = groups
        self._settings = settings

    @classmethod
    def start(cls, z: FloatArray, active: IndexArray, settings: LearnerSettings) -> HierarchicalLearner:  # noqa: D102
        micro = MicroClusters(z.shape[1], active, settings.clustream)
        for row in z:
            micro.learn(row)
        return cls(micro, *agglomerate(micro.centres(), micro.weights(), settings), settings)

    def learn(self, row: FloatArray) -> None:  # noqa: D102
        self._micro.learn(row)

    def prototypes(self) -> Prototypes:  # noqa: D102
        return Prototypes(self._centres.copy(), self._groups.copy(), lasting=False)

    def repair(self, z: FloatArray, rng: np.random.Generator) -> bool:
        """Agglomerate anew. There is no way to be stuck: every review starts from the micro-clusters."""
        self._centres, self._groups = agglomerate(self._micro.centres(), self._micro.weights(), self._settings)
        return False

    def rescale(self, change: AffineMap, active: IndexArray) -> None:  # noqa: D102
        self._micro = self._micro.rescale(change, active)
        self._centres = change(self._centres)

    def select(self, columns: IndexArray, active: IndexArray) -> None:  # noqa: D102
        self._micro = self._micro.select(columns, active)
        self._centres = selected(self._centres, columns, active)

    def fits(self, settings: LearnerSettings) -> bool:
        """Another cut waits for the next review; only other micro-clusters need a new start."""
        same = settings.segments == self._settings.segments or settings.hierarchical.distance is not None
        return same and self._micro.fits(settings.clustream)

    def state(self) -> dict[str, NDArray[Any]]:  # noqa: D102
        return {
            "centres": self._centres,
            "groups": self._groups.astype(np.int64),
            "asked": np.array([self._settings.segments], np.int64),
            **self._micro.state(),
        }

    @classmethod
    def restore(cls, state: Mapping[str, NDArray[Any]], settings: LearnerSettings) -> HierarchicalLearner:  # noqa: D102
        micro = MicroClusters.restore(state, settings.clustream)
        asked = settings.model_copy(update={"segments": int(state["asked"][0])})
        return cls(micro, state["centres"].copy(), state["groups"].astype(np.intp), asked)


def agglomerate(centres: FloatArray, weights: FloatArray, settings: LearnerSettings) -> tuple[FloatArray, IndexArray]:
    """The centres (p, d) that are heavy enough, and the group of each (p,), numbered from 0."""
    rules = settings.hierarchical
    order = np.argsort(weights, kind="stable")
    light = order[np.cumsum(weights[order]) <= rules.trim * weights.sum()]
    kept = np.setdiff1d(np.arange(len(weights)), light)
    points = centres[kept]
    if len(points) < 2:
        return points, np.zeros(len(points), np.intp)
    tree = linkage(points, rules.linkage)
    if rules.distance is None:
        labels = fcluster(tree, settings.segments, "maxclust")
    else:
        labels = fcluster(tree, rules.distance, "distance")
    return points, np.unique(labels, return_inverse=True)[1].astype(np.intp)
