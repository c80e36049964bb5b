"""`segment-membership`: who is in which segment now; compacted, keyed by user."""

from __future__ import annotations

from pydantic import BaseModel, Field

from schemas.change import SegmentRef
from schemas.types import FROZEN, Cause, EpochMs, UserId


class SegmentMembership(BaseModel):
    """The latest state of one user; equals what the last SegmentChange of the same sequence said."""

    model_config = FROZEN

    user_id: UserId
    segment: SegmentRef | None
    since: EpochMs = Field(description="Event time at which the user entered it")
    sequence: int = Field(ge=1, description="Of the change that brought the user here")
    cause: Cause
    model_version: int = Field(ge=0)
    confidence: float = Field(ge=0, le=1)
