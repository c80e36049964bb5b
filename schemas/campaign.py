"""`campaign-actions` and `campaign-outcomes`: what a campaign decided to do, and what came of it."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field, JsonValue

from schemas.change import SegmentRef
from schemas.types import FROZEN, Cause, EpochMs, UserId


class CampaignAction(BaseModel):
    """One thing to do for one user; `id` follows from campaign and change, so it is never done twice."""

    model_config = {**FROZEN, "populate_by_name": True, "serialize_by_alias": True}

    id: str = Field(description="The idempotency key of every delivery; has no full stop in it")
    campaign: str
    user_id: UserId
    trigger: Literal["enter", "exit", "transition"]
    change_id: str
    sequence: int = Field(ge=1, description="Of the change: a receiver drops what is older than what it has seen")
    from_: SegmentRef | None = Field(default=None, alias="from")
    to: SegmentRef | None = None
    cause: Cause
    action: str = Field(description="Name of the sink: log or webhook")
    target: str = Field(description="URL, or path of the log file, as the campaign had it when it decided")
    parameters: dict[str, JsonValue] = Field(default_factory=dict)
    occurred_at: EpochMs
    decided_at: EpochMs


class CampaignOutcome(BaseModel):
    """How the delivery of one action ended. `cancelled`: its campaign was switched off, or sending is (dry run)."""

    model_config = FROZEN

    action_id: str
    campaign: str
    user_id: UserId
    status: Literal["delivered", "failed", "cancelled"]
    attempts: int = Field(ge=0)
    http_status: int | None = None
    detail: str = ""
    finished_at: EpochMs
