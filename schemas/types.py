"""Field types that several topics share."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, StringConstraints

UserId = Annotated[str, StringConstraints(min_length=1, max_length=128)]
"""Whose behaviour it is; also the Kafka key, so that one partition sees everything that a user does."""

EpochMs = Annotated[int, Field(ge=0, le=253_402_300_799_999, description="UTC, milliseconds since 1970-01-01")]
"""Up to the end of the year 9999, the last that RFC 3339 can write."""

Cause = Literal["entered", "behaviour", "inactivity", "model", "anomaly"]
"""Why a segment changed: the first one; the user moved; time moved; the segments, or a rule's wording, moved;
quarantine."""

CAUSES: tuple[Cause, ...] = ("entered", "behaviour", "inactivity", "model", "anomaly")

FROZEN = ConfigDict(frozen=True, extra="ignore")
"""Records that crossed a topic do not change; unknown fields of a newer writer pass without harm."""
