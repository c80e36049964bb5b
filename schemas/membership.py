"""`segment-membership`: who is in which segment now; compacted.

A user is in one learned or built-in segment, under the key `user_id`, and in any number of rule segments, each under a
key of its own (`membership_key`). Who leaves a rule segment leaves a record without a value: a tombstone.
"""

from __future__ import annotations

from typing import Final

from pydantic import BaseModel, Field

from schemas.change import SegmentRef
from schemas.types import FROZEN, Cause, EpochMs, UserId

KEY_SEPARATOR: Final = "\x1f"
"""Unit separator: no user id holds a control character."""


def membership_key(user_id: str, rule: str) -> str:
    """The key of a user's membership in a rule segment, by the segment's id ("rule:vip")."""
    return f"{user_id}{KEY_SEPARATOR}{rule}"


class SegmentMembership(BaseModel):
    """One membership as it is now; equals what the SegmentChange of the same sequence said."""

    model_config = FROZEN

    user_id: UserId
    segment: SegmentRef | None
    since: EpochMs = Field(description="Event time at which the user entered it")
    sequence: int = Field(ge=1, description="Of the change that brought the user here")
    cause: Cause
    model_version: int = Field(ge=0)
    confidence: float = Field(ge=0, le=1)
