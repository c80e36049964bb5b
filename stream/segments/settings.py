"""Settings of learning: the clusterer, the panel, and when a new version is published."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from stream.anomalies.forest import ForestSettings
from stream.durations import Duration
from stream.segments.clusterer_settings import (
    CluStreamSettings,
    DBStreamSettings,
    DenStreamSettings,
    HierarchicalSettings,
)
from stream.segments.promotion import PromotionSettings

_STRICT = ConfigDict(frozen=True, extra="forbid")
HOUR = 3_600_000
DAY = 24 * HOUR


class LearnerSettings(BaseModel):
    """The clusterer. Default: River's KMeans with a small step, warm-started, repaired at each review.

    `dbstream` and `denstream` find how many segments there are by themselves, and leave noise out; for few axes.
    """

    model_config = _STRICT

    algorithm: Literal["kmeans", "clustream", "hierarchical", "dbstream", "denstream"] = "kmeans"
    segments: int = Field(default=6, ge=2, le=50, description="How many; `resegment suggest-k` proposes")
    step: float = Field(
        default=0.01, gt=0, le=0.5, description="River's `halflife`: how far a centre moves towards an observation"
    )
    restarts: int = Field(default=8, ge=1, le=100, description="k-means++ starts of a refit")
    repair_gain: float = Field(
        default=0.02, ge=0, lt=1, description="A refit is adopted when it lowers the inertia by more than this share"
    )
    repair_cost: float = Field(
        default=0.1, ge=0, description="... and, from a new start, by more than this times the share of people moved"
    )
    seed: int = Field(default=7, ge=0)
    clustream: CluStreamSettings = CluStreamSettings()
    hierarchical: HierarchicalSettings = HierarchicalSettings()
    dbstream: DBStreamSettings = DBStreamSettings()
    denstream: DenStreamSettings = DenStreamSettings()

    @model_validator(mode="after")
    def _enough(self) -> Self:
        if self.clustream.micro_clusters <= self.segments:
            raise ValueError(
                f"clustream.micro_clusters ({self.clustream.micro_clusters}) must be above segments ({self.segments})"
            )
        return self


class WarmUpSettings(BaseModel):
    """When there is enough to learn a first model from."""

    model_config = _STRICT

    users: int = Field(default=1_000, ge=20, description="Distinct users observed")
    patience: Duration = Field(default=2 * HOUR, gt=0, description="After each such time half as many are enough ...")
    fewest: int = Field(default=60, ge=20, description="... but never fewer than this, nor than ten a segment")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.fewest > self.users:
            raise ValueError(f"fewest ({self.fewest}) must not be above users ({self.users})")
        return self

    def needed(self, elapsed_ms: int, segments: int) -> int:
        """Distinct users that are enough `elapsed_ms` after the first observation."""
        patient = self.users * 2.0 ** -(max(0, elapsed_ms) / self.patience)
        return max(self.fewest, 10 * segments, int(patient))


class ReviewSettings(BaseModel):
    """When the segments are looked over, and when that is worth a new version."""

    model_config = _STRICT

    observations: int = Field(default=5_000, ge=100, description="A review is due after so many ...")
    interval: Duration = Field(default=DAY, description="... or after this time, whichever comes first ...")
    fewest: int = Field(default=1_000, ge=10, description="... but never with fewer than this since the last one")
    drift_fewest: int = Field(default=250, ge=10, description="The same where drift was detected, ...")
    drift_interval: Duration = Field(default=HOUR, description="... and this long after the last one at the earliest")
    drift_rise: float = Field(
        default=0.1, ge=0, description="Drift is when ADWIN says so and the panel's inertia has risen by this share"
    )
    drift_delta: float = Field(default=0.002, gt=0, lt=1, description="ADWIN's significance")
    gain: float = Field(
        default=0.005,
        ge=0,
        lt=1,
        description="Publish when segments were born or died, when the inertia falls by more than this share ...",
    )
    moved: float = Field(
        default=0.005, ge=0, lt=1, description="... and more than this share of the people change their segment ..."
    )
    outliers: float = Field(
        default=0.02, gt=0, le=1, description="... when more people than this are beyond the distance threshold ..."
    )
    confidence: float = Field(
        default=0.05,
        gt=0,
        le=1,
        description="... when the published confidence is off by more than this on average ...",
    )
    rescale: float = Field(
        default=0.5,
        gt=0,
        description="... or when a feature's median moved by so many spreads, or its spread by so much in logs (weekly "
        "rhythms move it by 0.3)",
    )


class IdentitySettings(BaseModel):
    """When a segment is still the same one."""

    model_config = _STRICT

    survive: float = Field(default=0.5, gt=0, le=1, description="Share of a segment's people that its heir must hold")
    split: float = Field(default=0.25, gt=0, le=1, description="Share of a segment's people that makes a part of it")
    birth_share: float = Field(default=0.02, ge=0, lt=1, description="Share of all people that a new segment needs")
    valley: float = Field(
        default=0.75,
        gt=0,
        description="People midway to the next segment, for each at the thinner one's centre: at most",
    )
    steady: float = Field(
        default=0.8,
        gt=0,
        le=1,
        description="Without a valley: share of the people kept from one review to the next ...",
    )
    steady_reviews: int = Field(default=2, ge=1, le=100, description="... in so many reviews")


class OutlierSettings(BaseModel):
    """Where the thresholds of quarantine stand: beyond the median by `reach` times the way from it to the `tail`."""

    model_config = _STRICT

    tail: float = Field(default=0.95, gt=0.5, lt=1, description="A quantile that outliers do not reach down to")
    reach: float = Field(default=2.3, gt=1, description="Enter")
    release_reach: float = Field(default=1.7, gt=1, description="Release")
    radius_quantile: float = Field(
        default=0.995, gt=0.5, lt=1, description="Of distances to a prototype: its noise radius"
    )

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.release_reach > self.reach:
            raise ValueError(f"release_reach ({self.release_reach}) must not be above reach ({self.reach})")
        return self


class ModellerSettings(BaseModel):
    """The modeller."""

    model_config = _STRICT

    learner: LearnerSettings = LearnerSettings()
    forest: ForestSettings = ForestSettings()
    warm_up: WarmUpSettings = WarmUpSettings()
    review: ReviewSettings = ReviewSettings()
    promotion: PromotionSettings = PromotionSettings()
    identity: IdentitySettings = IdentitySettings()
    outliers: OutlierSettings = OutlierSettings()
    buffer: int = Field(
        default=5_000,
        ge=200,
        le=100_000,
        description="Users whose latest observation is kept; above the sampler's panel",
    )
    recent: int = Field(
        default=1_000,
        ge=100,
        le=100_000,
        description="Latest observations, whoever's, that outlier thresholds allow for",
    )
    confidence_horizon: Duration = Field(
        default=7 * DAY, ge=HOUR, description="A confidence is the chance to be in the segment so long after the change"
    )
    names: dict[str, str] = Field(default_factory=dict, description='Your own names, such as {"seg-3" = "VIPs"}')
    keep_versions: int = Field(default=1_000, ge=2, description="Older ones are deleted from the model topic")
    checkpoint_observations: int = Field(default=2_000, ge=1, description="Learned at most before a checkpoint")
    checkpoint_interval: Duration = Field(default=30_000, description="The same by the wall clock")
    share: float = Field(
        default=0.5, gt=0, le=1, description="Of a core, for learning at the most; observations wait on their topic"
    )
