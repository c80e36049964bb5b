"""River's side of the anomaly forest: train it, export it, and build it again from the arrays without a pickle.

The modeller imports this; a processor only scores (forest.py) and never loads River.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import numpy as np
from river.anomaly import HalfSpaceTrees
from river.tree.padded import PaddedBranch, PaddedLeaf

from stream.anomalies.forest import FloatArray, Forest, ForestSettings


class Trainer:
    """Trains one forest after another, each on one window that is exactly the rows it is given.

    River builds its trees once and counts anew in every window, so an old window leaves no trace: a new Trainer
    gives the same forest.
    """

    def __init__(self, settings: ForestSettings) -> None:
        self._settings = settings
        self._weight: FloatArray | None = None
        self._river: Any = None

    def train(self, z: FloatArray, weight: FloatArray) -> Forest | None:
        """Learn scaled rows (m, d) by River, one by one, evenly thinned to the configured number.

        `weight` (d,) is the scaler's: an axis of weight 0 is never split. None where there is nothing to split.
        Raises ValueError where a row is not finite.
        """
        if not len(z) or not (weight > 0).any():
            return None
        if not np.isfinite(z).all():
            raise ValueError("only finite rows may reach River: one NaN spoils what it has learned")
        if len(z) > self._settings.rows:
            z = z[np.linspace(0, len(z) - 1, self._settings.rows).round().astype(np.intp)]
        if self._weight is None or not np.array_equal(self._weight, weight):
            self._weight, self._river = weight.copy(), untrained(weight, self._settings, len(z))
        self._river.window_size = len(z)
        for row in z.tolist():
            self._river.learn_one(dict(enumerate(row)))
        return from_river(self._river)


def untrained(weight: FloatArray, settings: ForestSettings, window_size: int) -> HalfSpaceTrees:
    """River's forest on fixed limits: with the same seed and weights its trees do not depend on the data.

    An inert axis gets limits without width, and River then never picks it.
    """
    limits: dict[Hashable, tuple[float, float]] = {
        axis: (-settings.limit * w, settings.limit * w) for axis, w in enumerate(weight.tolist())
    }
    return HalfSpaceTrees(
        n_trees=settings.trees, height=settings.height, window_size=window_size, limits=limits, seed=settings.seed
    )


def from_river(river: HalfSpaceTrees) -> Forest:
    """Export a forest whose features are axis numbers. Raises ValueError where it has not learned anything."""
    if not river.trees:
        raise ValueError("this forest has learned nothing: River builds its trees at the first observation")
    heaps = [_heap(tree) for tree in river.trees]
    inner = 2**river.height - 1
    return Forest(
        window_size=river.window_size,
        feature=np.array([[node.feature for node in heap[:inner]] for heap in heaps], np.int16),
        threshold=np.array([[node.threshold for node in heap[:inner]] for heap in heaps], np.float64),
        mass=np.array([[node.r_mass for node in heap] for heap in heaps], np.int32),
        live=np.array([[node.l_mass for node in heap] for heap in heaps], np.int32),
        counter=river.counter,
        first_window=river._first_window,
    )


def to_river(forest: Forest) -> HalfSpaceTrees:
    """A HalfSpaceTrees that scores the same and learns on from the same point."""
    river = HalfSpaceTrees(n_trees=forest.trees, height=forest.height, window_size=forest.window_size)
    river.trees = [_river_tree(forest, tree, 0) for tree in range(forest.trees)]
    river._tree_nodes = [_depth_first(tree) for tree in river.trees]
    river.counter = forest.counter
    river._first_window = forest.first_window
    return river


def _river_tree(forest: Forest, tree: int, node: int) -> Any:
    masses = {"r_mass": int(forest.mass[tree, node]), "l_mass": int(forest.live[tree, node])}
    # River annotates nothing here, hence the Any.
    branch: Any = PaddedBranch
    leaf: Any = PaddedLeaf
    if node >= forest.feature.shape[1]:
        return leaf(**masses)
    return branch(
        _river_tree(forest, tree, 2 * node + 1),
        _river_tree(forest, tree, 2 * node + 2),
        feature=int(forest.feature[tree, node]),
        threshold=float(forest.threshold[tree, node]),
        **masses,
    )


def _heap(root: Any) -> list[Any]:
    """Nodes in heap order, which for a complete tree is breadth first."""
    level: list[Any] = [root]
    heap: list[Any] = []
    while level:
        heap += level
        level = [child for node in level for child in getattr(node, "children", ())]
    return heap


def _depth_first(tree: Any) -> list[Any]:
    return list(tree.iter_dfs())
