"""CDNOW purchases: customer_id, date (YYYYMMDD), number_of_cds, dollar_value, separated by blanks; US dollars.

The file is grouped by customer; its rows are replayed by time. They are sorted once, in memory (the whole data set is
70,000 rows), and stably: rows of one day keep the order of the file, and a row without a readable date stays beside the
row before it. A purchase happens at midnight UTC of its day; its amount is the dollar value, which is the
order's total and may be 0. Two equal rows are one event, like everywhere: the data cannot tell them apart.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property

import numpy as np

from producers.readers.base import BLOCK_ROWS, Event, LineSource, encode, first_line, number, utc_ms, whole
from producers.readers.lines import line_blocks
from producers.source import SourceError

_COLUMNS = ("customer_id", "date", "number_of_cds", "dollar_value")


class Cdnow(LineSource[Sequence[str]]):
    """One event a row, in the order of their dates."""

    format = "cdnow"

    def parse(self, line: bytes) -> Sequence[str] | None:
        """The four columns."""
        fields = line.decode("utf-8", "surrogateescape").split()
        return fields if len(fields) == len(_COLUMNS) else None

    def time(self, parts: Sequence[str]) -> int | None:
        """Midnight of the day."""
        day = parts[1]
        return utc_ms(day) if len(day) == 8 and whole(day) is not None else None

    def record(self, line: bytes, parts: Sequence[str]) -> tuple[bytes | None, bytes]:
        """The event as JSON; its id follows from the columns, not from the blanks between them."""
        customer, day, pieces, value = parts
        time = self.time(parts)
        event: Event = {
            "type": "purchase",
            "occurred_at": day if time is None else time,
            "user_id": customer,
            "amount": number(value),
            "currency": "USD",
            "quantity": number(pieces),
        }
        return encode(event, b" ".join(line.split()))

    def _check(self) -> None:
        line = first_line(self.path)
        if line is None:
            raise SourceError(f"{self.path}: the file is empty; cdnow has the columns {', '.join(_COLUMNS)}")
        fields = self.parse(line)
        if fields is not None and tuple(fields) == _COLUMNS:
            self._first_line = 1
        elif fields is None or self.time(fields) is None:
            raise SourceError(
                f"{self.path}: not a cdnow file: expected the columns {', '.join(_COLUMNS)}, separated by blanks; "
                f"the first line is {line[:200].decode('utf-8', 'replace')!r}"
            )

    def _lines(self) -> Iterator[list[bytes]]:
        for begin in range(0, len(self._sorted), BLOCK_ROWS):
            yield self._sorted[begin : begin + BLOCK_ROWS]

    @cached_property
    def _sorted(self) -> list[bytes]:
        lines = [line for block in line_blocks(self.path) for line in block][self._first_line :]
        times = np.empty(len(lines), np.int64)
        latest = 0
        for place, line in enumerate(lines):
            parts = self.parse(line)
            time = None if parts is None else self.time(parts)
            latest = times[place] = latest if time is None else time
        return [lines[place] for place in np.argsort(times, kind="stable").tolist()]
