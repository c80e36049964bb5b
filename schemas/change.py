"""`segment-changes`: one record whenever a user's segment changes, with the reason."""

from __future__ import annotations

from pydantic import BaseModel, Field

from schemas.types import FROZEN, Cause, EpochMs, UserId


class SegmentRef(BaseModel):
    """A segment by its lasting id and the name that it had at that moment."""

    model_config = FROZEN

    id: str
    name: str | None = None


class FeatureReason(BaseModel):
    """One feature that speaks for the segment the user is in now."""

    model_config = FROZEN

    feature: str
    value: float | None = Field(description="The user's value; null where there is none yet (no review, no purchase)")
    segment_mean: float | None = Field(description="The segment's typical value, in the feature's own unit")
    z: float | None = Field(
        description="The user's value against the population, in robust standard deviations; null where a rule decided"
    )


class SourcePosition(BaseModel):
    """Where in the input the event stands that caused a record."""

    model_config = FROZEN

    topic: str
    partition: int
    offset: int


class SegmentChange(BaseModel):
    """A user left one segment for another, or entered or left a rule segment.

    A user is in one learned or built-in segment at a time: `from` and `to` are two of these, or null where there is
    none. Beside it a user is in any number of rule segments ("rule:vip"): who enters one has a null `from`, who
    leaves one a null `to`, and nothing else changes. `sequence` counts a user's changes of both kinds from 1
    without gaps; `id` follows from user and sequence alone, so that a change that is computed again has the same id.
    """

    model_config = {**FROZEN, "populate_by_name": True, "serialize_by_alias": True}

    id: str
    user_id: UserId
    sequence: int = Field(ge=1)
    from_: SegmentRef | None = Field(alias="from")
    to: SegmentRef | None
    cause: Cause
    occurred_at: EpochMs = Field(description="Event time: when the behaviour, or the silence, made it true")
    detected_at: EpochMs = Field(description="Processing time: the clock of the processor that noticed")
    model_version: int = Field(ge=0)
    confidence: float = Field(ge=0, le=1)
    why: tuple[FeatureReason, ...] = ()
    source: SourcePosition | None = Field(default=None, description="Null where no event did it (sweep, new model)")
    event_id: str | None = None
