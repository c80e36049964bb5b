"""Components of a graph of micro-clusters, and which of them are believed.

River's own labelling follows DBSTREAM's edges in one direction only and expands DenStream's by one hop, so a
crescent falls into pieces; connected components of the same graph do not (docs/quality.md).

A component splits when one link fades, and merges when one appears, and segments' ids would end with it. So what two
successive reviews have seen is believed, and what only one has seen is not yet.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial.distance import cdist

FloatArray = NDArray[np.float64]
IndexArray = NDArray[np.intp]

UNKNOWN = -1
"""The label of what the last review did not see."""


def components(nodes: int, a: IndexArray, b: IndexArray) -> IndexArray:
    """(nodes,) labels 0, 1, ... of the connected components under the undirected edges a[i] - b[i]."""
    graph = coo_array((np.ones(len(a), np.int8), (a, b)), shape=(nodes, nodes))
    return _numbered(connected_components(graph, directed=False)[1])


def believed(
    now: IndexArray, seen: IndexArray, held: IndexArray, weight: FloatArray, centres: FloatArray
) -> IndexArray:
    """(n,) the labels to hold on to, from what n micro-clusters look like at this review.

    Parameters: the component of each `now`; the component `seen` at the last review and the label `held` since then,
    both UNKNOWN for micro-clusters that are younger; their `weight`; `centres` (n, d).
    A new micro-cluster belongs with its nearest elder in the same component; components without elders are new.
    """
    elder = held != UNKNOWN
    held = held.copy()
    for label in np.unique(now[~elder]).tolist():
        young, old = np.flatnonzero((now == label) & ~elder), np.flatnonzero((now == label) & elder)
        if len(old):
            held[young] = held[old[cdist(centres[young], centres[old], "sqeuclidean").argmin(axis=1)]]
    cells, cell = np.unique(np.stack([now, held], axis=1), axis=0, return_inverse=True)
    cell = cell.ravel()
    was = np.array([_heaviest(seen[(cell == c) & elder], weight[(cell == c) & elder]) for c in range(len(cells))])
    # Cells that one review holds apart stay together if they were together at the other, and the reverse.
    same = (cells[:, None, 0] == cells[None, :, 0]) | (
        (cells[:, None, 1] == cells[None, :, 1]) & (cells[:, None, 1] != UNKNOWN)
    )
    a, b = np.nonzero(same & (was[:, None] == was[None, :]) & (was[:, None] != UNKNOWN))
    return _numbered(components(len(cells), a, b)[cell])


def _heaviest(labels: IndexArray, weight: FloatArray) -> int:
    if not len(labels):
        return UNKNOWN
    return int(np.bincount(labels, weight).argmax())


def _numbered(labels: NDArray[np.int32] | IndexArray) -> IndexArray:
    """The same partition, numbered in the order of first members."""
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.intp)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[inverse.ravel()]
