"""`anomalies`: users who behave like nobody else enter and leave quarantine here."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

from schemas.change import FeatureReason, SourcePosition
from schemas.types import FROZEN, EpochMs, UserId


class Anomaly(BaseModel):
    """One entry into quarantine or release from it."""

    model_config = FROZEN

    id: str
    user_id: UserId
    kind: Literal["entered", "released"]
    occurred_at: EpochMs
    detected_at: EpochMs
    model_version: int = Field(ge=0)
    score: float = Field(description="The forest's, 0 to 1")
    score_threshold: float
    distance: float = Field(description="To the nearest prototype, scaled")
    distance_threshold: float
    why: tuple[FeatureReason, ...] = ()
    source: SourcePosition | None = None
