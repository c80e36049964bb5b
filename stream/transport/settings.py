"""What can be set about the transports; stream/config.py composes it."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from stream.durations import Duration

DEFAULT_MAX_MESSAGE_BYTES = 1_048_588
"""Kafka's own default of max.message.bytes; the embedded transport refuses the same records."""


class EmbeddedSettings(BaseModel):
    """The embedded transport: one directory on this machine."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    synchronous: Literal["full", "normal"] = Field(
        default="full",
        description="full: a commit survives a power cut; normal: it survives a crash of the program, and is faster",
    )
    member_lease: Duration = Field(
        default=45_000,
        ge=100,
        description="A member that hangs for so long loses its partitions; one that died loses them at once",
    )
    busy_timeout: Duration = Field(default=30_000, description="How long to wait for another process that writes")
