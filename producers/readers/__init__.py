"""Data sets as sources, by the name of their format."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from producers.readers.cdnow import Cdnow
from producers.readers.jsonl import JsonLines
from producers.readers.online_retail import OnlineRetail
from producers.readers.rees46 import Rees46
from producers.readers.taobao import Taobao
from producers.source import Source, SourceError

__all__ = ["FORMATS", "open_source"]

_TABLES: Final = {reader.format: reader for reader in (Taobao, Rees46, OnlineRetail, Cdnow)}

FORMATS: Final = (*_TABLES, JsonLines.format)
"""The names that `open_source` knows."""


def open_source(format: str, path: str | Path, *, time_field: str | None = None) -> Source:
    """Open a file, plain or gzip, of the given format.

    `time_field` (jsonl only) names the field that holds the arrival time. Raises SourceError in one line: unknown
    format, no such file, or not of this format (what was expected and found).
    """
    if format == JsonLines.format:
        return JsonLines(path, time_field or "occurred_at")
    if time_field is not None:
        raise SourceError(f"a time field can be chosen for jsonl only: the times of {format} have a place of their own")
    reader = _TABLES.get(format)
    if reader is None:
        raise SourceError(f"unknown format {format!r}; known are {', '.join(FORMATS)}")
    return reader(path)
