"""`segment-model`: the published segments, compacted and versioned. Numbers only: no pickles."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

from schemas.types import FROZEN, EpochMs

LineageKind = Literal["born", "survived", "split", "merged", "died"]


class FeatureScale(BaseModel):
    """How one feature is brought to the scale that the segments live on.

    `z = ((sign(x) * log1p(abs(x)) if log else x) - centre) / spread`, clipped to ±`clip`, times `weight`; a missing
    value is 0. Scaled axes are these features, in this order.
    """

    model_config = FROZEN

    feature: str
    log: bool
    centre: float
    spread: float = Field(gt=0)
    weight: float = Field(default=1.0, ge=0, description="In distances; 0: the same for everybody, or not learned from")


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
    """River's HalfSpaceTrees as arrays in heap order (the children of node i are 2i+1 and 2i+2); each array is
    base64 of zlib of little-endian numbers."""

    model_config = FROZEN

    n_trees: int = Field(ge=1)
    height: int = Field(ge=1)
    window_size: int = Field(ge=1)
    feature: str = Field(description="int16, n_trees x (2**height - 1): the axis that each inner node splits")
    threshold: str = Field(description="float64, same shape: below it is left")
    mass: str = Field(description="int32, n_trees x (2**(height + 1) - 1): r_mass of every node, of the last window")
    live: str | None = Field(default=None, description="The same for l_mass, the window being filled; null: all zero")
    counter: int = Field(default=0, ge=0, description="Observations in the window being filled")
    first_window: bool = Field(default=False, description="No window is full yet: every score is 0")


class OutlierThresholds(BaseModel):
    """Above an enter threshold a look is an outlier's; below both release thresholds it is an ordinary one."""

    model_config = FROZEN

    score: float = Field(description="Of the forest's score: enter")
    score_release: float
    distance: float = Field(gt=0, description="Of the distance to the nearest prototype: enter")
    distance_release: float = Field(gt=0)


class ExpectedMove(BaseModel):
    """The share of all people whom a version was expected to move from one segment to another."""

    from_: str = Field(alias="from")
    to: str
    share: float = Field(ge=0, le=1)

    model_config = {**FROZEN, "populate_by_name": True, "serialize_by_alias": True}


class ModelQuality(BaseModel):
    """How a version looked on the panel when it was made."""

    model_config = FROZEN

    panel: int = Field(ge=0, description="Users it was judged on")
    inertia: float = Field(ge=0, description="Mean squared distance to the nearest prototype, on this version's scale")
    silhouette: float | None = Field(default=None, description="-1 to 1, on a sample; null where there is one segment")
    moved: float = Field(default=0, ge=0, le=1, description="Share of the people whose segment it changes")
    drift: bool = Field(default=False, description="Drift asked for it")
    promoted_by: Literal["first", "budget", "configuration", "drift", "silhouette", "coverage"] = Field(
        default="first",
        description="It fits the churn budget; or configuration, drift, or a last version that failed people forced it",
    )
    expected_moves: tuple[ExpectedMove, ...] = Field(default=(), description="Of people, on the panel, by segment")


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
    thresholds: OutlierThresholds
    quality: ModelQuality
    calibration: tuple[float, ...] = Field(
        default=(), description="Confidence at the middles of equal bins of rival / (own + rival), from 0.5 to 1"
    )
    forest: ForestArrays | None = None
