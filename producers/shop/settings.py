"""What can be chosen about the synthetic shop. The same settings give the same rows, byte for byte."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from stream.durations import Duration

ScenarioName = Literal["static", "drift", "birth_death"]
Rate = Annotated[float, Field(ge=0, le=0.5, allow_inf_nan=False)]

DAY_MS = 86_400_000


class ShopSettings(BaseModel):
    """The shop's size, its people and its faults.

    Rates of faults are shares of the events; shares of people are of `users`. With one seed, more users or more
    days add to what there is and change nothing else (days also place the birth and the death of `birth_death`).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    users: int = Field(default=2_000, ge=1, le=100_000_000, description="People and bots that may ever come")
    days: int = Field(default=45, ge=1, le=3_650)
    seed: int = Field(default=1, ge=0)
    start: AwareDatetime = Field(default=datetime(2026, 1, 5, tzinfo=UTC), description="The first day begins here")
    scenario: ScenarioName = Field(
        default="static",
        description="static: people move, personas stay as they are; drift: personas and the mix of moves change "
        "slowly as well; birth_death: one persona is born at 40% of the days, another dies out from 60% on",
    )

    joining: float = Field(default=0.3, ge=0, le=1, description="Share of people who are not there at the start")
    join_over: Duration = Field(default=45 * DAY_MS, gt=0, description="They come evenly over this time")
    moves: float = Field(default=1.0, ge=0, le=100, description="How often people change persona, against the usual")
    heterogeneity: float = Field(default=1.0, ge=0, le=3, description="How much people of one persona differ")
    activity: float = Field(default=1.0, gt=0, le=20, description="Visits of people, against the usual")

    crawlers: Rate = Field(default=0.007, description="Share of users that are crawlers")
    card_testers: Rate = Field(default=0.006, description="Share of users that try stolen cards")

    duplicates: Rate = Field(default=0.01, description="Events sent again within seconds to minutes")
    late: Rate = Field(default=0.02, description="Events that arrive minutes to hours after they happened")
    too_late: Rate = Field(default=0.0005, description="Events that arrive two and a half to four days after")
    broken: Rate = Field(default=0.002, description="Records that are no valid event, beside the valid ones")
    huge_string_bytes: int = Field(default=20_000, ge=10_001, le=1_000_000, description="Of the kind huge_string")

    @property
    def start_ms(self) -> int:
        """The beginning, epoch milliseconds."""
        return round(self.start.timestamp() * 1000)

    @property
    def end_ms(self) -> int:
        """One past the last day, epoch milliseconds."""
        return self.start_ms + self.days * DAY_MS
