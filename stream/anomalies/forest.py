"""River's HalfSpaceTrees as arrays: trained by River (training.py), scored here, equal to `score_one` to the bit.

Invariant: `Forest.score` equals River's `score_one` of the forest it was exported from, for every row, also outside
the limits, with missing features (NaN), before the first full window, and under the early stop at small mass.
It can be exact because every partial score is an integer below 2**53: the order of additions does not matter, and
what a row collects on its way depends only on the leaf it ends in, so it is added up once a forest, not once a row.
A compiled kernel scores (stream/kernels/forest.pyx), or numpy where there is none.

Trees are complete, so they are kept in heap order: the children of node i are 2i+1 and 2i+2.
Tan, Ting & Liu, "Fast anomaly detection for streaming data", IJCAI 2011.
"""

from __future__ import annotations

import base64
import zlib
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from schemas.model import ForestArrays
from stream import kernels

FloatArray = NDArray[np.float64]

# Rows scored at a time: the working set of 25 trees then stays in the second-level cache.
CHUNK: Final = 512


class ForestSettings(BaseModel):
    """The anomaly forest."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    trees: int = Field(default=25, ge=1, le=1000)
    height: int = Field(default=8, ge=1, le=12)
    limit: float = Field(default=6.0, gt=0, description="Trees split scaled axes between minus and plus this")
    rows: int = Field(default=1_000, ge=100, description="At most so many users of the recent population train it")
    seed: int = 7


@dataclass(frozen=True, slots=True, eq=False)
class Forest:
    """`feature` and `threshold` (t, 2**h - 1) of the inner nodes; `mass` (r_mass) and `live` (l_mass) of all
    (t, 2**(h+1) - 1). `counter` observations are in the window being filled; before the first full one scores are 0."""

    window_size: int
    feature: NDArray[np.int16]
    threshold: FloatArray
    mass: NDArray[np.int32]
    live: NDArray[np.int32]
    counter: int = 0
    first_window: bool = False
    _leaf_score: FloatArray = field(init=False, repr=False)
    _missing_right: NDArray[np.bool_] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        trees, inner = self.feature.shape
        if self.mass.shape != (trees, 2 * inner + 1) or self.live.shape != self.mass.shape:
            raise ValueError(f"a forest of {trees} trees with {inner} inner nodes has {2 * inner + 1} masses a tree")
        if self.threshold.shape != self.feature.shape or inner & (inner + 1):
            raise ValueError("thresholds and features must have one entry for each inner node of complete trees")
        object.__setattr__(self, "_leaf_score", _leaf_scores(self.mass, self.height, 0.1 * self.window_size))
        left, right = self.live[:, 1::2], self.live[:, 2::2]
        object.__setattr__(self, "_missing_right", (left < right).ravel())

    @property
    def trees(self) -> int:
        """How many."""
        return len(self.feature)

    @property
    def height(self) -> int:
        """Levels of inner nodes."""
        inner: int = self.feature.shape[1]
        return inner.bit_length()

    def score(self, z: FloatArray) -> FloatArray:
        """Anomaly scores (m,) of scaled rows (m, d): near 1 is unlike the others. NaN counts as missing."""
        if self.first_window:
            return np.zeros(len(z))
        z = np.ascontiguousarray(z, np.float64)
        total = np.empty(len(z))
        if kernels.on():
            kernels.forest.collect(
                z, self.feature, self.threshold, self._missing_right.view(np.uint8), self._leaf_score, total
            )
        else:
            for start in range(0, len(z), CHUNK):
                total[start : start + CHUNK] = self._collect(z[start : start + CHUNK])
        largest = self.trees * self.window_size * (2 ** (self.height + 1) - 1)
        score: FloatArray = 1.0 - total / largest
        return score

    def _collect(self, z: FloatArray) -> FloatArray:
        """The un-normalised score: the sum over trees of what the reached leaf is worth."""
        trees, inner = self.feature.shape
        rows, width = z.shape
        feature = self.feature.ravel()
        threshold = self.threshold.ravel()
        missing = bool(np.isnan(z).any())
        flat = z.ravel()
        # Tree-major: a level's gathers from one tree's nodes lie together.
        first = np.arange(trees, dtype=np.intp)[:, None] * inner
        row_start = np.arange(rows, dtype=np.intp)[None, :] * width
        node = np.zeros((trees, rows), np.intp)
        for _ in range(self.height):
            where = node + first
            value = flat.take(feature.take(where) + row_start)
            # As in River: below the threshold is left. Not "at or above is right": the two differ for NaN alone.
            right = ~(value < threshold.take(where))
            if missing:
                right = np.where(np.isnan(value), self._missing_right.take(where), right)
            node += node
            node += right
            node += 1
        node -= inner
        node += np.arange(trees, dtype=np.intp)[:, None] * (inner + 1)
        collected: FloatArray = self._leaf_score.take(node).sum(axis=0)
        return collected

    def to_record(self) -> ForestArrays:
        """As published."""
        return ForestArrays(
            n_trees=self.trees,
            height=self.height,
            window_size=self.window_size,
            feature=_encode(self.feature, "<i2"),
            threshold=_encode(self.threshold, "<f8"),
            mass=_encode(self.mass, "<i4"),
            live=_encode(self.live, "<i4") if self.live.any() else None,
            counter=self.counter,
            first_window=self.first_window,
        )

    @classmethod
    def from_record(cls, record: ForestArrays) -> Forest:
        """The inverse of `to_record`, to the bit. Raises ValueError where the arrays do not fit."""
        inner = 2**record.height - 1
        nodes = (record.n_trees, 2 * inner + 1)
        live = np.zeros(nodes, np.int32) if record.live is None else _decode(record.live, "<i4", nodes)
        return cls(
            window_size=record.window_size,
            feature=_decode(record.feature, "<i2", (record.n_trees, inner)),
            threshold=_decode(record.threshold, "<f8", (record.n_trees, inner)),
            mass=_decode(record.mass, "<i4", nodes),
            live=live,
            counter=record.counter,
            first_window=record.first_window,
        )


def _leaf_scores(mass: NDArray[np.int32], height: int, size_limit: float) -> FloatArray:
    """What a row collects on its way to each leaf, flat (trees * 2**height): r_mass * 2**depth of every node passed,
    up to and with the first one whose mass is below the limit."""
    collected = mass[:, :1].astype(np.float64)
    walking = mass[:, :1] >= size_limit
    for depth in range(1, height + 1):
        level = mass[:, 2**depth - 1 : 2 ** (depth + 1) - 1]
        collected, walking = collected.repeat(2, axis=1), walking.repeat(2, axis=1)
        collected += np.where(walking, level * float(2**depth), 0.0)
        walking &= level >= size_limit
    return np.ascontiguousarray(collected).ravel()


def _encode(array: NDArray[Any], dtype: str) -> str:
    return base64.b64encode(zlib.compress(np.ascontiguousarray(array, dtype).tobytes(), 6)).decode("ascii")


def _decode(text: str, dtype: str, shape: tuple[int, int]) -> NDArray[Any]:
    try:
        raw = zlib.decompress(base64.b64decode(text, validate=True))
    except (ValueError, zlib.error) as error:
        raise ValueError(f"the forest's arrays are damaged: {error}") from error
    flat = np.frombuffer(raw, dtype)
    if flat.size != shape[0] * shape[1]:
        raise ValueError(f"the forest's array holds {flat.size} numbers where {shape[0]} x {shape[1]} are expected")
    return flat.reshape(shape).astype(flat.dtype.newbyteorder("="))
