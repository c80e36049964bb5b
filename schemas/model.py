"""`segment-model`: the published segments, compacted and versioned. Numbers only: no pickles."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

from schemas.types import FROZEN, EpochMs

LineageKind = Literal["born", "survived", "split", "merged", "died"]


class FeatureScale(BaseModel):
    """How one feature is brought to the scale that the segments live on.

    `z = ((sign(x) * log1p(abs(x)) if log else x) - centre) / spread`, clipped to ±`clip`; a missing value is 0.
    """

    model_config = FROZEN

    feature: str
    log: bool
    centre: float
    spread: float = Field(gt=0)


class SegmentProfile(BaseModel):
    """What a marketer reads about a segment."""

    model_config = FROZEN

    id: str
    name: str
    born_version: int
    size: float = Field(ge=0, le=1, description="Share of the panel")
    means: dict[str, float | None] = Field(description="Typical value of each feature, in its own unit")
    z: dict[str, float] = Field(description="The same against the population, in robust standard deviations")


class Lineage(BaseModel):
    """What became of one segment between two versions. Ids are never used again."""

    model_config = FROZEN

    kind: LineageKind
    segment: str
    parents: tuple[str, ...] = ()
    overlap: float | None = None


class PrototypeSet(BaseModel):
    """Points on the scaled axes; the nearest one decides, beyond its radius is noise."""

    model_config = FROZEN

    centres: tuple[tuple[float, ...], ...] = Field(description="k rows of d scaled coordinates")
    weights: tuple[float, ...] = Field(description="Share of the panel nearest to each; sums to 1")
    segments: tuple[str, ...] = Field(description="The id of the segment that each prototype belongs to")
    radii: tuple[float, ...] = Field(description="Noise radius of each, in scaled distance")


class ForestArrays(BaseModel):
    """River's HalfSpaceTrees as arrays in heap order; each field is base64 of zlib of little-endian numbers."""

    model_config = FROZEN

    n_trees: int = Field(ge=1)
    height: int = Field(ge=1)
    window_size: int = Field(ge=1)
    feature: str = Field(description="int16, n_trees x (2**height - 1): the axis that each inner node splits")
    threshold: str = Field(description="float64, same shape")
    mass: str = Field(description="float64, n_trees x (2**(height + 1) - 1): r_mass of every node")
    score_threshold: float = Field(description="A score above it is an outlier: a high quantile of the panel's")
    distance_threshold: float = Field(description="The same for the distance to the nearest prototype")


class SegmentModel(BaseModel):
    """One version of everything that scoring needs, and of what a person needs to read it."""

    model_config = FROZEN

    version: int = Field(ge=1)
    created_at: EpochMs = Field(description="Event time of the last observation that went into it")
    algorithm: str
    observations: int = Field(ge=0, description="Learned so far")
    clip: float = Field(gt=0)
    scales: tuple[FeatureScale, ...]
    prototypes: PrototypeSet
    profiles: tuple[SegmentProfile, ...]
    lineage: tuple[Lineage, ...] = ()
    forest: ForestArrays | None = None
