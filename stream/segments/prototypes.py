"""One published model, ready to score: prototypes, scaler, names and the anomaly forest as read-only arrays.

Invariant: a Model is immutable; `from_record(to_record())` gives the same bits; the same rows give the same answer
in any batch size on every replica; and for a k-means model `nearest` is River's `predict_one`, ties included.
A segment is a number inside (>= 1) and "seg-<number>" on topics.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from schemas.model import Lineage, ModelQuality, OutlierThresholds, PrototypeSet, SegmentModel, SegmentProfile
from stream.anomalies.forest import Forest
from stream.segments.calibration import calibrated
from stream.segments.scaling import Scaler

FloatArray = NDArray[np.float64]
IndexArray = NDArray[np.intp]
SegmentArray = NDArray[np.int32]

WITH_NOISE: Final = frozenset({"dbstream", "denstream"})
"""Algorithms whose radii are borders; those of the others only describe."""
# Two sums of d <= 10,000 squares whose order or rounding differs are further apart than this only if they differ.
TIE: Final = 1e-11


class Nearest(NamedTuple):
    """The answer for m rows."""

    prototype: IndexArray
    """(m,) index of the nearest prototype."""
    distance: FloatArray
    """(m,) Euclidean, on the scaled axes."""
    runner_up: FloatArray
    """(m,) to the nearest prototype of another segment; infinite where there is one segment only."""


@dataclass(frozen=True, eq=False)
class Model:
    """One version. p prototypes on d scaled axes, s segments."""

    version: int
    created_at: int
    algorithm: str
    observations: int
    scaler: Scaler
    centres: FloatArray
    """(p, d)"""
    weights: FloatArray
    """(p,) share of people nearest to each"""
    segments: SegmentArray
    """(p,) the segment number of each prototype"""
    radii: FloatArray
    """(p,) noise radius of each"""
    thresholds: OutlierThresholds
    quality: ModelQuality
    profiles: tuple[SegmentProfile, ...]
    """One a segment, in ascending order of segment numbers."""
    calibration: tuple[float, ...] = ()
    """What `confidence` reads; empty where nothing has been counted yet."""
    lineage: tuple[Lineage, ...] = ()
    forest: Forest | None = None
    _ids: SegmentArray = field(init=False, repr=False)

    def __post_init__(self) -> None:
        p = len(self.segments)
        if self.centres.shape != (p, len(self.scaler.features)) or not len(self.weights) == len(self.radii) == p:
            raise ValueError(
                f"model {self.version}: {p} segment labels, but centres {self.centres.shape} for "
                f"{len(self.scaler.features)} features, {len(self.weights)} weights and {len(self.radii)} radii"
            )
        if not p or not np.isfinite(self.centres).all():
            raise ValueError(f"model {self.version}: it needs at least one prototype, and finite centres")
        for array in (self.centres, self.weights, self.segments, self.radii):
            array.setflags(write=False)
        object.__setattr__(self, "_ids", np.unique(self.segments))
        _cdist()  # so that no batch waits for it

    @property
    def features(self) -> tuple[str, ...]:
        """The names of the columns that `scale` expects, in order."""
        return self.scaler.features

    @property
    def segment_ids(self) -> SegmentArray:
        """(s,) the distinct segment numbers, ascending."""
        return self._ids

    @cached_property
    def profile(self) -> dict[int, SegmentProfile]:
        """By segment number."""
        return {segment_number(p.id): p for p in self.profiles}

    @cached_property
    def names(self) -> dict[int, str]:
        """By segment number."""
        return {number: profile.name for number, profile in self.profile.items()}

    @cached_property
    def means(self) -> dict[int, dict[str, float | None]]:
        """By segment number: the typical value of each feature in its own unit; None where nobody has one."""
        return {number: profile.means for number, profile in self.profile.items()}

    def centre_of(self, segment: int) -> FloatArray | None:
        """(d,) the centre of a segment on the scaled axes, weighted over its prototypes; None if it is not here."""
        own = self.segments == segment
        if not own.any():
            return None
        weights = self.weights[own] if self.weights[own].sum() > 0 else np.ones(int(own.sum()))
        centre: FloatArray = np.average(self.centres[own], axis=0, weights=weights)
        return centre

    def columns(self, names: Sequence[str]) -> IndexArray:
        """Where this model's features stand in a table with these columns. Raises ValueError naming what is missing."""
        position = {name: at for at, name in enumerate(names)}
        missing = [name for name in self.features if name not in position]
        if missing:
            raise ValueError(
                f"model {self.version} was learned from features that are no longer declared: {', '.join(missing)}; "
                "declare them again, or let the modeller learn anew"
            )
        return np.array([position[name] for name in self.features], np.intp)

    def scale(self, x: FloatArray) -> FloatArray:
        """(m, F) features in the order of `features` to (m, d) scaled rows."""
        return self.scaler.transform(x)

    def nearest(self, z: FloatArray) -> Nearest:
        """Of scaled rows (m, d)."""
        squared = self._squared(z)
        prototype = self._first_smallest(z, squared)
        rows = np.arange(len(z))
        distance = np.sqrt(squared[rows, prototype])
        other = self.segments[None, :] != self.segments[prototype][:, None]
        runner_up = np.sqrt(np.where(other, squared, np.inf).min(axis=1))
        return Nearest(prototype, distance, runner_up)

    def segment_distances(self, z: FloatArray) -> FloatArray:
        """(m, s) to the nearest prototype of each segment, columns as in `segment_ids`."""
        squared = self._squared(z)
        if len(self.segment_ids) == len(self.segments):
            nearest = squared[:, np.argsort(self.segments)]
        else:
            nearest = np.stack([squared[:, self.segments == s].min(axis=1) for s in self.segment_ids], axis=1)
        result: FloatArray = np.sqrt(nearest)
        return result

    def noise(self, z: FloatArray) -> NDArray[np.bool_] | None:
        """(m,) who is beyond every prototype's radius; None where the algorithm knows no noise."""
        if self.algorithm not in WITH_NOISE:
            return None
        inside = self._squared(z) <= self.radii**2
        return np.logical_not(inside.any(axis=1))

    def outlier_scores(self, z: FloatArray) -> FloatArray:
        """(m,) the forest's, 0 to 1; 0 where the model has no forest."""
        return np.zeros(len(z)) if self.forest is None else self.forest.score(z)

    def confidence(self, share: FloatArray) -> FloatArray:
        """(m,) how many of those who came into a segment with such a share of distances were in it a week later."""
        return calibrated(self.calibration, share)

    def _squared(self, z: FloatArray) -> FloatArray:
        # cdist adds d terms row by row in the order of the axes. A matrix product would be a little faster, but its
        # rounding depends on the size of the batch and on the BLAS.
        result: FloatArray = _cdist()(z, self.centres, "sqeuclidean")
        return result

    def _first_smallest(self, z: FloatArray, squared: FloatArray) -> IndexArray:
        """argmin as River takes it: pow(x, 2) rounds unlike x * x on rare values, so a near-tie is decided by
        River's own expression. Identical prototypes tie by nature, and the first one wins in both."""
        best: IndexArray = squared.argmin(axis=1)
        limit = squared[np.arange(len(z)), best] * (1.0 + TIE)
        close = squared <= limit[:, None]
        close &= self._twin[None, :] == np.arange(len(self.centres))[None, :]
        for row in np.flatnonzero(close.sum(axis=1) > 1).tolist():
            x = z[row].tolist()
            candidates = np.flatnonzero(close[row]).tolist()
            best[row] = min(
                candidates, key=lambda c: sum(abs(a - b) ** 2 for a, b in zip(self._rows[c], x, strict=True))
            )
        return best

    @cached_property
    def _twin(self) -> IndexArray:
        """(p,) the first prototype with the same coordinates: mostly itself."""
        _, first, inverse = np.unique(self.centres, axis=0, return_index=True, return_inverse=True)
        twin: IndexArray = first[inverse.ravel()]
        return twin

    @cached_property
    def _rows(self) -> list[list[float]]:
        rows: list[list[float]] = self.centres.tolist()
        return rows

    def to_record(self) -> SegmentModel:
        """As published."""
        return SegmentModel(
            version=self.version,
            created_at=self.created_at,
            algorithm=self.algorithm,
            observations=self.observations,
            clip=self.scaler.clip,
            scales=self.scaler.to_scales(),
            prototypes=PrototypeSet(
                centres=tuple(tuple(row) for row in self._rows),
                weights=tuple(self.weights.tolist()),
                segments=tuple(segment_id(s) for s in self.segments.tolist()),
                radii=tuple(self.radii.tolist()),
            ),
            profiles=self.profiles,
            lineage=self.lineage,
            forest=None if self.forest is None else self.forest.to_record(),
            thresholds=self.thresholds,
            quality=self.quality,
            calibration=self.calibration,
        )

    def to_bytes(self) -> bytes:
        """The value of a record on the model topic."""
        return self.to_record().model_dump_json().encode()

    @classmethod
    def from_record(cls, record: SegmentModel) -> Model:
        """The inverse of `to_record`, to the bit. Raises ValueError where the parts do not fit together."""
        return cls(
            version=record.version,
            created_at=record.created_at,
            algorithm=record.algorithm,
            observations=record.observations,
            scaler=Scaler.from_scales(record.scales, record.clip),
            centres=np.array(record.prototypes.centres, np.float64).reshape(len(record.prototypes.centres), -1),
            weights=np.array(record.prototypes.weights, np.float64),
            segments=np.array([segment_number(s) for s in record.prototypes.segments], np.int32),
            radii=np.array(record.prototypes.radii, np.float64),
            profiles=record.profiles,
            lineage=record.lineage,
            forest=None if record.forest is None else Forest.from_record(record.forest),
            thresholds=record.thresholds,
            quality=record.quality,
            calibration=record.calibration,
        )

    @classmethod
    def from_bytes(cls, value: bytes) -> Model:
        """From a record's value on the model topic. Raises ValueError (pydantic's is one) where it is none."""
        return cls.from_record(SegmentModel.model_validate_json(value))


@cache
def _cdist() -> Any:
    """scipy's, imported late: it costs a start 0.3 s, which can pass while the group is joined."""
    from scipy.spatial.distance import cdist

    return cdist


def segment_id(number: int) -> str:
    """As it stands on topics."""
    return f"seg-{number}"


def segment_number(identifier: str) -> int:
    """The inverse. Raises ValueError for anything but a learned segment's id."""
    prefix, _, digits = identifier.partition("-")
    if prefix != "seg" or not (digits.isascii() and digits.isdigit()) or int(digits) < 1:
        raise ValueError(f"{identifier!r} is no learned segment's id; those are seg-1, seg-2 and so on")
    return int(digits)
