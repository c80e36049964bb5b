"""Durations as people write them: "30d", "12h", "90s", "250ms"; held as milliseconds."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BeforeValidator, PlainSerializer

_UNITS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
_PATTERN = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*(ms|s|m|h|d|w)\s*$")


def parse_duration(value: object) -> int:
    """Milliseconds of a duration such as "30d"; a bare integer is milliseconds already.

    Raises ValueError for anything else.
    """
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    if isinstance(value, str) and (match := _PATTERN.match(value)):
        return round(float(match[1]) * _UNITS[match[2]])
    raise ValueError(f"{value!r} is no duration; write a number and a unit (ms, s, m, h, d, w), such as '30d'")


def format_duration(ms: int) -> str:
    """The shortest exact way to write a duration: 86400000 is "1d"."""
    for unit in ("d", "h", "m", "s"):
        if ms and ms % _UNITS[unit] == 0:
            return f"{ms // _UNITS[unit]}{unit}"
    return f"{ms}ms"


Duration = Annotated[int, BeforeValidator(parse_duration), PlainSerializer(format_duration, return_type=str)]
"""A pydantic field type: accepts "30d", holds milliseconds, prints "30d"."""
