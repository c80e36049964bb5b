"""The clusterers to choose from, by their names in LearnerSettings.algorithm."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from stream.segments.clusterers.clustream import CluStreamLearner
from stream.segments.clusterers.dbstream import DBStreamLearner
from stream.segments.clusterers.denstream import DenStreamLearner
from stream.segments.clusterers.hierarchical import HierarchicalLearner
from stream.segments.learner import KMeansLearner, Learner

LEARNERS: Final[Mapping[str, type[Learner]]] = {
    learner.name: learner
    for learner in (KMeansLearner, CluStreamLearner, HierarchicalLearner, DBStreamLearner, DenStreamLearner)
}
