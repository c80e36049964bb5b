"""A source from memory, events for it, and a small shop that was backtested once for all tests."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import orjson

from producers.source import Source, SourceRow

DAY = 86_400_000
START = 1_767_571_200_000  # 2026-01-05


class Listed(Source):
    """Rows that are given."""

    def __init__(self, rows: Sequence[SourceRow], name: str = "listed") -> None:
        self._rows = list(rows)
        self._name = name

    @property
    def total(self) -> int | None:
        return len(self._rows)

    @property
    def fingerprint(self) -> str:
        return self._name

    def rows(self, start: int = 0) -> Iterator[SourceRow]:
        yield from self._rows[start:]


def row(user: str, at: int, *, arrival: int | None = None, kind: str = "browse", **fields: Any) -> SourceRow:
    event = {"event_id": f"{user}-{at}-{kind}", "user_id": user, "occurred_at": at, "type": kind, **fields}
    return SourceRow(user.encode(), orjson.dumps(event), at if arrival is None else arrival)
