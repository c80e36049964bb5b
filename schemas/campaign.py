"""`campaign-actions` and `campaign-outcomes`: what a campaign decided to do, and what came of it."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field, JsonValue

from schemas.change import SegmentRef
from schemas.types import FROZEN, Cause, EpochMs, UserId


class CampaignAction(BaseModel):
    """One thing to do for one user; `id` follows from campaign and change, so it is never done twice."""

    model_config = {**FROZEN, "populate_by_name": True, "serialize_by_alias": True}

    id: str
    campaign: str
    user_id: UserId
    trigger: Literal["enter", "exit", "transition"]
    change_id: str
    from_: SegmentRef | None = Field(default=None, alias="from")
    to: SegmentRef | None = None
    cause: Cause
    action: str = Field(description="Name of the sink: log or webhook")
    target: str = Field(description="URL, or path of the log file")
    parameters: dict[str, JsonValue] = Field(default_factory=dict)
    occurred_at: EpochMs
    decided_at: EpochMs


class CampaignOutcome(BaseModel):
    """How the delivery of one action ended."""

    model_config = FROZEN

    action_id: str
    campaign: str
    user_id: UserId
    status: Literal["delivered", "failed"]
    attempts: int = Field(ge=1)
    http_status: int | None = None
    detail: str = ""
    finished_at: EpochMs
