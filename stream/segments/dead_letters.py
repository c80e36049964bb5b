"""Dead letters: what could not be used, as it came, with the reason."""

from __future__ import annotations

from base64 import b64encode

import orjson

from schemas import topics
from stream.durations import format_duration
from stream.features.events import Rejected
from stream.transport.base import OutRecord, Record

MAX_ORIGINAL_BYTES = 600_000
"""What fits below a broker's default limit of 1 MiB for a record once it is base64 in JSON."""


def dead_letter(record: Record, rejected: Rejected, rejected_at: int) -> OutRecord:
    """The dead letter of a record that decoding rejected."""
    return _letter(record, rejected.reason, rejected.field, rejected.detail, rejected_at)


def too_late(record: Record, allowed_lateness: int, rejected_at: int) -> OutRecord:
    """The dead letter of a valid event that is further behind its partition's stream time than is allowed."""
    detail = f"occurred_at is more than the allowed lateness ({format_duration(allowed_lateness)}) behind stream time"
    return _letter(record, "too_late", "occurred_at", detail, rejected_at)


def _letter(record: Record, reason: str, field: str | None, detail: str, rejected_at: int) -> OutRecord:
    original = record.value
    if original is not None and len(original) > MAX_ORIGINAL_BYTES:
        detail += (
            f" (original cut to {MAX_ORIGINAL_BYTES} of {len(original)} bytes; the rest is at its source position)"
        )
        original = original[:MAX_ORIGINAL_BYTES]
    letter = {
        "reason": reason,
        "field": field,
        "detail": detail,
        "original": _text(original),
        "key": _text(record.key),
        "source": {"topic": record.topic, "partition": record.partition, "offset": record.offset},
        "rejected_at": rejected_at,
    }
    return OutRecord(topics.DEAD_LETTERS, record.key, orjson.dumps(letter), record.partition, (), rejected_at)


def _text(data: bytes | None) -> str | None:
    return None if data is None else b64encode(data).decode()
