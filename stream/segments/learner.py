"""Stream learners: River's clusterers behind one interface that publishes prototypes.

Invariants. A learner learns row by row: how rows were batched makes no difference. Its state is plain numbers, and
a restored learner continues with the same bits. Only finite rows of the learner's width pass the door, because one
NaN makes River's KMeans answer 0 for ever after, and an unseen feature adds a coordinate to its centres.

To add a clusterer: implement Learner, and enter it in LEARNERS (stream.segments.clusterers) under its name in
LearnerSettings.algorithm.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray
from river.cluster import KMeans

from stream.segments.prototypes import TIE
from stream.segments.refit import Fit, fit, in_order_of, inertia_of, lloyd, nearest_of
from stream.segments.scaling import AffineMap
from stream.segments.settings import LearnerSettings

FloatArray = NDArray[np.float64]
IndexArray = NDArray[np.intp]


class Prototypes(NamedTuple):
    """What a learner has found."""

    centres: FloatArray
    """(p, d)"""
    groups: IndexArray
    """(p,) prototypes of one group are one segment: 0, 1, ..."""
    lasting: bool
    """Whether prototype i is what prototype i was before, grown on."""
    radii: FloatArray | None = None
    """(p,) beyond every radius is noise; None: the clusterer knows no noise"""
    evident: NDArray[np.bool_] | None = None
    """(g,) groups that stand apart by the clusterer's own evidence, which held over two reviews; None: it has none"""


class Learner(ABC):
    """A clusterer of scaled rows of width d."""

    name: ClassVar[str]

    @classmethod
    @abstractmethod
    def start(cls, z: FloatArray, active: IndexArray, settings: LearnerSettings) -> Learner:
        """Warm start on rows (m, d). Only the `active` axes are learned from; the others are 0 for everybody."""

    @abstractmethod
    def learn(self, row: FloatArray) -> None:
        """One row of d numbers. Raises ValueError where one is not finite."""

    @abstractmethod
    def prototypes(self) -> Prototypes:
        """What has been found so far."""

    @abstractmethod
    def repair(self, z: FloatArray, rng: np.random.Generator) -> bool:
        """Tidy up, given the recent population (m, d). Whether the learner was stuck and had to be freed."""

    @abstractmethod
    def rescale(self, change: AffineMap, active: IndexArray) -> None:
        """The axes changed: take what was learned along."""

    @abstractmethod
    def select(self, columns: IndexArray, active: IndexArray) -> None:
        """The features changed: axis j is what axis columns[j] was, or new (-1)."""

    @abstractmethod
    def fits(self, settings: LearnerSettings) -> bool:
        """Whether it is what these settings ask for; if not, it is started anew."""

    @abstractmethod
    def state(self) -> dict[str, NDArray[Any]]:
        """Everything, as arrays."""

    @classmethod
    @abstractmethod
    def restore(cls, state: Mapping[str, NDArray[Any]], settings: LearnerSettings) -> Learner:
        """The inverse of `state`."""


class QuickKMeans(KMeans):
    """River's KMeans, which asks numpy for the nearest centre: a third of the time, the same bits.

    Sums of squares that could round to another order are left to River's own expression. Feature names are axis
    numbers: with strings, the order in which River adds up, and so the last bit, would follow Python's hash seed.

    Parameters: starting `centres` (k, d) and River's `halflife`.
    """

    def __init__(self, centres: FloatArray, halflife: float) -> None:
        super().__init__(n_clusters=len(centres), halflife=halflife, seed=0)
        self.points = centres.copy()
        """(k, d) the same numbers as `centers`"""
        for number, row in enumerate(centres.tolist()):
            self.centers[number].update(enumerate(row))

    def learn_predict_one(self, x: dict[Any, float]) -> int:
        """River's, for x with all d axes in order."""
        closest: int = super().learn_predict_one(x)  # type: ignore[no-untyped-call]
        self.points[closest] = list(self.centers[closest].values())
        return closest

    def predict_one(self, x: dict[Any, float]) -> int:
        """River's, for x with all d axes in order."""
        away = self.points - list(x.values())
        squared = np.einsum("ij,ij->i", away, away)
        best = int(squared.argmin())
        if np.count_nonzero(squared <= squared[best] * (1.0 + TIE)) == 1:
            return best
        nearest: int = super().predict_one(x)  # type: ignore[no-untyped-call]
        return nearest


class KMeansLearner(Learner):
    """River's KMeans with a small constant step (its `halflife`).

    River starts from random N(0, 1) centres, which leaves dead ones; here they start from a batch fit. Without
    repair it is stuck in three to five of ten drifting streams, with repair in none (docs/quality.md).
    """

    name = "kmeans"

    def __init__(self, centres: FloatArray, active: IndexArray, settings: LearnerSettings) -> None:
        self._settings = settings
        self._set(centres, active)

    @classmethod
    def start(cls, z: FloatArray, active: IndexArray, settings: LearnerSettings) -> KMeansLearner:  # noqa: D102
        rng = np.random.default_rng(settings.seed)
        return cls(fit(z, settings.segments, settings.restarts, rng).centres, active, settings)

    def _set(self, centres: FloatArray, active: IndexArray) -> None:
        self._width = centres.shape[1]
        self._active = active
        self.river = QuickKMeans(centres[:, active], self._settings.step)

    def learn(self, row: FloatArray) -> None:  # noqa: D102
        self.river.learn_predict_one(river_row(row, self._width, self._active))

    def prototypes(self) -> Prototypes:  # noqa: D102
        centres = np.zeros((len(self.river.points), self._width))
        centres[:, self._active] = self.river.points
        return Prototypes(centres, np.arange(len(centres), dtype=np.intp), lasting=True)

    def repair(self, z: FloatArray, rng: np.random.Generator) -> bool:
        """Refit from the present centres and from k-means++; adopt what is clearly better, or what is nearly the same.

        A constant step leaves centres trembling, which costs about step / 2 of the inertia: a refit that gains no
        more than twice that is the same segments without the tremble. One that gains a little more is left alone,
        because then the stream may have moved ahead of a panel whose people were observed some time ago.
        """
        current = self.prototypes().centres
        before = inertia_of(z, current)
        warm = lloyd(z, current)
        best = self._calmest(z, current, warm, fit(z, len(current), self._settings.restarts, rng))
        stuck = best.inertia < (1.0 - self._settings.repair_gain) * before
        trembling = warm.inertia >= (1.0 - self._settings.step) * before
        if stuck or trembling:
            self._set(best.centres, self._active)
        return stuck

    def _calmest(self, z: FloatArray, current: FloatArray, warm: Fit, cold: Fit) -> Fit:
        """Of a fit that grew from the present centres and one that did not, the latter only if it is worth it.

        A stuck learner is freed by moving the people of a segment or two. In a continuum there are many other fits,
        a little better, that would move most people; so the gain is weighed against the people it moves.
        """
        gain = 1.0 - cold.inertia / warm.inertia if warm.inertia > 0 else 0.0
        other = in_order_of(current, cold.centres)
        moved = (nearest_of(z, current) != nearest_of(z, other)).mean()
        worth_it = gain > max(self._settings.repair_gain, self._settings.repair_cost * moved)
        return Fit(other, cold.inertia) if worth_it else warm

    def rescale(self, change: AffineMap, active: IndexArray) -> None:  # noqa: D102
        self._set(change(self.prototypes().centres), active)

    def select(self, columns: IndexArray, active: IndexArray) -> None:  # noqa: D102
        centres = self.prototypes().centres
        selected = np.where(columns >= 0, centres[:, columns], 0.0)
        self._set(selected, active)

    def fits(self, settings: LearnerSettings) -> bool:  # noqa: D102
        return len(self.river.points) == settings.segments

    def state(self) -> dict[str, NDArray[Any]]:  # noqa: D102
        return {"centres": self.prototypes().centres, "active": self._active.astype(np.int64)}

    @classmethod
    def restore(cls, state: Mapping[str, NDArray[Any]], settings: LearnerSettings) -> KMeansLearner:  # noqa: D102
        return cls(state["centres"], state["active"].astype(np.intp), settings)


def selected(points: FloatArray, columns: IndexArray, active: IndexArray) -> FloatArray:
    """Points (n, d) where axis j is what axis columns[j] was, or new (-1); 0 on axes that are not active."""
    result = np.zeros((len(points), len(columns)))
    known = active[columns[active] >= 0]
    result[:, known] = points[:, columns[known]]
    return result


def river_row(row: FloatArray, width: int, active: IndexArray) -> dict[int, float]:
    """The active axes of a row as River takes them. Raises ValueError for what is not finite or not `width` numbers."""
    values = row[active].tolist()
    # One pass: the sum of finite numbers below the clip cannot overflow; NaN and infinity survive any sum.
    total = sum(values)
    if len(row) != width or total - total != 0.0:
        raise ValueError(f"only finite rows of {width} numbers may reach River, got {row.tolist()}")
    return dict(enumerate(values))
