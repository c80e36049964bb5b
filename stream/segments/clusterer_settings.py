"""Settings of the clusterers beside k-means. Lengths are on the scaled axes, times in observations.

In three axes or so a density clusterer finds shapes that no centre describes, and leaves noise out. With many axes
everybody is far from everybody: then use k-means or CluStream.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

_STRICT = ConfigDict(frozen=True, extra="forbid")


class CluStreamSettings(BaseModel):
    """River's CluStream, which gathers micro-clusters; `clustream` and `hierarchical` cluster those."""

    model_config = _STRICT

    micro_clusters: int = Field(default=60, ge=10, le=1_000, description="How many; above the number of segments")
    r_factor: int = Field(
        default=8, ge=1, le=100, description="How many mean deviations from its centre a micro-cluster still takes in"
    )
    window: int = Field(default=5_000, ge=100, description="What was not seen in so many observations counts no longer")


class HierarchicalSettings(BaseModel):
    """Agglomeration of CluStream's micro-clusters."""

    model_config = _STRICT

    linkage: Literal["ward", "complete", "average", "single"] = "ward"
    distance: float | None = Field(
        default=None, gt=0, description="Cut at this linkage distance (none: into learner.segments)"
    )
    trim: float = Field(
        default=0.02,
        ge=0,
        lt=0.5,
        description="The lightest micro-clusters with this share of the people in all are left out: stragglers, which "
        "would be taken for segments",
    )


class DensitySettings(BaseModel):
    """What DBSTREAM and DenStream share."""

    model_config = _STRICT

    radius: float | None = Field(
        default=None, gt=0, description="Of a micro-cluster (none: from the first rows' distances to their neighbours)"
    )
    half_life: int = Field(default=5_000, ge=50, description="Observations after which one counts half")
    core: float = Field(
        default=0.2,
        ge=0,
        lt=1,
        description="Thinner micro-clusters than this share of the typical one are noise, and join nothing",
    )
    smallest: float = Field(default=0.01, ge=0, lt=1, description="Components with a smaller share of people are noise")


class DBStreamSettings(DensitySettings):
    """River's DBSTREAM."""

    intersection: float = Field(
        default=0.1, gt=0, lt=1, description="Share of their people that two neighbours must share to be connected"
    )


class DenStreamSettings(DensitySettings):
    """River's DenStream."""

    potential: float = Field(
        default=3.0,
        gt=1,
        description="Observations with which a micro-cluster becomes a potential one, and remains one",
    )
