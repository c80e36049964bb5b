"""`events-dead-letter`: input that could not be used, as it came, with the reason."""

from __future__ import annotations

from typing import Literal

from pydantic import Base64Bytes, BaseModel, Field

from schemas.change import SourcePosition
from schemas.types import FROZEN, EpochMs

Reason = Literal[
    "empty",  # null value or no bytes
    "too_large",
    "not_utf8",
    "not_json",
    "not_an_object",
    "unknown_type",
    "missing_field",
    "invalid_field",
    "not_finite",
    "too_far_in_future",
    "too_old",  # before the earliest time that configuration accepts (say 1970)
    "too_late",  # older than the allowed lateness behind its partition's stream time
    "unknown_currency",
    "no_user",
    "no_key",  # users without one are spread over all partitions
    "key_mismatch",
]


class DeadLetter(BaseModel):
    """One rejected record. `original` is the record's value, byte for byte (base64 in JSON)."""

    model_config = FROZEN

    reason: Reason
    field: str | None = None
    detail: str = Field(description="For a person: what is wrong, without personal data")
    original: Base64Bytes | None
    key: Base64Bytes | None = None
    source: SourcePosition
    rejected_at: EpochMs
