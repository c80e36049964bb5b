"""JSON Lines: a line is an event already, and passes byte for byte, broken ones too.

The key is the line's user_id where it can be read. The arrival time is the clock's, over `occurred_at`, or over
another field that says when the event was received.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import orjson

from producers.readers.base import LineSource, utc_ms


class _Parts(NamedTuple):
    user: str | None
    time: int | None


class JsonLines(LineSource[_Parts]):
    """One event a line. `time_field` names the field, epoch milliseconds or RFC 3339, that drives the clock."""

    format = "jsonl"

    def __init__(self, path: str | Path, time_field: str = "occurred_at") -> None:
        self._time_field = time_field
        super().__init__(path)

    def parse(self, line: bytes) -> _Parts | None:
        """User and time, as far as they can be read; None where the line is no JSON object."""
        try:
            event = orjson.loads(line)
        except orjson.JSONDecodeError:
            return None
        if not isinstance(event, dict):
            return None
        user, moment = event.get("user_id"), event.get(self._time_field)
        if isinstance(moment, str):
            moment = utc_ms(moment.upper()) if len(moment) <= 40 else None
        return _Parts(
            user if isinstance(user, str) and user else None,
            moment if isinstance(moment, int) and not isinstance(moment, bool) else None,
        )

    def time(self, parts: _Parts) -> int | None:
        """Of the time field."""
        return parts.time

    def record(self, line: bytes, parts: _Parts) -> tuple[bytes | None, bytes]:
        """The user and the line."""
        return (None if parts.user is None else parts.user.encode()), line
