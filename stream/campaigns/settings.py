"""Settings of the campaign worker and of delivery."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from stream.durations import Duration

_FROZEN = ConfigDict(frozen=True, extra="forbid")

Positive = Annotated[Duration, Field(gt=0)]


class DeliverySettings(BaseModel):
    """How actions are delivered. The time of a retry is `retry_first` times `retry_factor` for each attempt after
    the first, at most `retry_longest`, and of that between half and all (jitter)."""

    model_config = _FROZEN

    dry_run: bool = Field(default=False, description="Cancel webhooks instead of sending them; log files are written")
    in_replays: bool = Field(
        default=False, description="Send webhooks also where the clock is the data's own: nobody is mailed about 2017"
    )
    concurrency: int = Field(default=16, ge=1, le=256, description="Requests under way at once")
    per_endpoint: int = Field(default=4, ge=1, le=256, description="Of these, to one URL")
    retry_first: Positive = 5_000
    retry_factor: float = Field(default=4.0, ge=1, le=10)
    retry_longest: Positive = 6 * 3_600_000
    give_up_after: Positive = Field(
        default=3 * 86_400_000, description="Since the decision, whatever attempts are left"
    )
    call_budget: Annotated[Duration, Field(ge=0, le=4_000)] = Field(
        default=1_000, description="The longest that one call of the stage waits for answers"
    )
    fsync: Literal["always", "never"] = Field(
        default="always", description="Whether log lines are on the disk before their outcome is committed"
    )

    @model_validator(mode="after")
    def _consistent(self) -> DeliverySettings:
        if self.retry_longest < self.retry_first:
            raise ValueError("retry_longest is shorter than retry_first")
        return self


class CampaignSettings(BaseModel):
    """Which campaigns there are, and how their actions are delivered."""

    model_config = _FROZEN

    file: Path | None = Field(default=None, description="YAML; without one there are no campaigns")
    delivery: DeliverySettings = DeliverySettings()
