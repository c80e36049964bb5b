"""What the file readers share: rows by number, arrival times, events as JSON, columns by name.

A reader says how a line is split (`parse`) and what event it makes (`event`); this module does the rest. `rows(n)`
reads the lines before n for their times only, because the arrival clock depends on them.

What cannot be mapped is passed on for the decoder to refuse: a line that cannot be split goes as it came, a value
that does not parse goes into the event as it came, a missing one is left out.
"""

from __future__ import annotations

import csv
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from functools import cached_property, lru_cache
from itertools import chain
from math import isfinite
from operator import itemgetter
from pathlib import Path
from typing import Any, ClassVar, Final, Generic, TypeVar

import orjson
import xxhash

from producers.clock import ArrivalClock
from producers.readers.lines import count_lines, identity, line_blocks
from producers.source import Source, SourceError, SourceRow

Event = dict[str, Any]
Parsed = TypeVar("Parsed")

BLOCK_ROWS: Final = 4_096


class LineSource(Source, Generic[Parsed]):
    """A source whose rows are the lines of a file, in the file's order.

    `format` is the reader's name in the registry. Opening checks that the file can be read and is of this format;
    SourceError says what was expected and found.
    """

    format: ClassVar[str]

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._first_line = 0
        self._check()

    @property
    def total(self) -> int | None:
        """The file's rows; None for a large file, which is not read twice just to count it."""
        return self._total

    @property
    def fingerprint(self) -> str:
        """Format, file name, size on disk and a hash of the first 64 KiB."""
        return f"{self.format}:{identity(self.path)}"

    def rows(self, start: int = 0) -> Iterator[SourceRow]:
        """The rows from number `start` on; the lines before it are split, but make no events."""
        clock = ArrivalClock()
        waiting: list[tuple[bytes, Parsed | None]] = []
        row = 0
        for block in chain(_blocks(self._lines()), [None]):
            if block is None:
                arrivals = clock.finish()
            else:
                parsed = [self.parse(line) for line in block]
                waiting.extend(zip(block, parsed, strict=True))
                arrivals = clock.feed([None if it is None else self.time(it) for it in parsed])
            count, skip = len(arrivals), max(0, start - row)
            for (line, it), arrival in zip(waiting[skip:count], arrivals[skip:].tolist(), strict=True):
                key, value = (None, line) if it is None else self.record(line, it)
                yield SourceRow(key, value, arrival)
            del waiting[:count]
            row += count

    @abstractmethod
    def parse(self, line: bytes) -> Parsed | None:
        """The line's parts, or None where it has not the shape of a row."""

    @abstractmethod
    def time(self, parts: Parsed) -> int | None:
        """When it happened, in epoch milliseconds, or None where that cannot be read."""

    @abstractmethod
    def record(self, line: bytes, parts: Parsed) -> tuple[bytes | None, bytes]:
        """Key and value of the row's record."""

    @cached_property
    def _total(self) -> int | None:
        lines = count_lines(self.path)
        return None if lines is None else lines - self._first_line

    def _check(self) -> None:
        """Read the first line; readers with a header look for their columns in it."""
        next(iter(line_blocks(self.path)), None)

    def _lines(self) -> Iterator[list[bytes]]:
        """The data lines, without the header, in blocks."""
        for number, block in enumerate(line_blocks(self.path)):
            yield block[self._first_line :] if number == 0 else block


class CsvSource(LineSource[Sequence[str]]):
    """Comma-separated values; columns are found by name, in any order, and others are ignored.

    `columns` maps our name to the names that the header may use. With `headerless`, a file whose first line is a row
    already has its columns in our order.
    """

    columns: ClassVar[dict[str, tuple[str, ...]]]
    headerless: ClassVar[bool] = False

    _pick: Callable[[Sequence[str]], Sequence[str]]
    _width: int

    def parse(self, line: bytes) -> Sequence[str] | None:
        """The values of our columns, in the order of `columns`."""
        fields = split_csv(line)
        return self._pick(fields) if fields is not None and len(fields) == self._width else None

    def record(self, line: bytes, parts: Sequence[str]) -> tuple[bytes | None, bytes]:
        """The event as JSON, keyed by its user; its id is a hash of the line, so that a repeated line is one event."""
        event = self.event(parts)
        return encode(event, line)

    @abstractmethod
    def event(self, fields: Sequence[str]) -> Event:
        """The event of one row, without its id."""

    def _check(self) -> None:
        header = first_line(self.path)
        found = None if header is None else split_csv(header)
        names = list(self.columns)
        if found is not None and not (missing := self._missing(found)):
            self._first_line = 1
            self._width = len(found)
            where = {name: place for place, name in enumerate(found)}
            self._pick = itemgetter(*(next(where[a] for a in self.columns[name] if a in where) for name in names))
        elif self.headerless and found is not None and len(found) == len(names) and self.time(found) is not None:
            self._width = len(found)
            self._pick = itemgetter(*range(len(found)))
        elif header is None:
            raise SourceError(f"{self.path}: the file is empty; {self.format} has the columns {', '.join(names)}")
        else:
            shown = header[:200].decode("utf-8", "replace")
            lacking = f" (missing: {', '.join(missing)})" if found is not None else ""
            raise SourceError(
                f"{self.path}: not a {self.format} file: expected the columns "
                f"{', '.join(aliases[0] for aliases in self.columns.values())}{lacking}; the first line is {shown!r}"
            )

    def _missing(self, header: Sequence[str]) -> list[str]:
        return [aliases[0] for aliases in self.columns.values() if not set(aliases) & set(header)]


def first_line(path: Path) -> bytes | None:
    """The first line of a file, or None where it has none."""
    return next((block[0] for block in line_blocks(path)), None)


def split_csv(line: bytes) -> list[str] | None:
    """The fields of one line, or None where its quotes do not balance; bytes that are no UTF-8 become surrogates."""
    text = line.decode("utf-8", "surrogateescape")
    if '"' not in text:
        return text.split(",")
    try:
        return next(csv.reader([text], strict=True), None)
    except csv.Error:
        return None


def encode(event: Event, line: bytes) -> tuple[bytes | None, bytes]:
    """Key and JSON of an event whose id follows from the line; the line itself where it holds what JSON cannot."""
    try:
        user = event.get("user_id")
        value = orjson.dumps({"event_id": xxhash.xxh3_128_hexdigest(line), **event})
        return (user.encode() if user else None), value
    except (TypeError, ValueError):
        return None, line


def number(text: str) -> float | str:
    """A finite number, or the text as it came, for the decoder to refuse."""
    try:
        value = float(text)
    except ValueError:
        return text
    return value if isfinite(value) else text


def whole(text: str) -> int | None:
    """An integer of up to 15 decimal digits, or None."""
    return int(text) if len(text) <= 15 and text.isascii() and text.isdigit() else None


@lru_cache(maxsize=1 << 16)
def utc_ms(text: str) -> int | None:
    """Epoch milliseconds of an ISO date and time (RFC 3339 with an offset, otherwise UTC), or None."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    # Not timestamp(): floats lose the millisecond, and this one has no year that it cannot do.
    return (moment - _EPOCH) // _MILLISECOND


def rounded(amount: float) -> float:
    """Money without the noise of binary fractions, and without a negative zero."""
    return round(amount, 6) + 0.0


_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = datetime(1970, 1, 1, 0, 0, 0, 1_000) - datetime(1970, 1, 1)  # noqa: DTZ001


def _blocks(lines: Iterator[list[bytes]]) -> Iterator[list[bytes]]:
    """Smaller lists of the same lines: what waits for the clock stays small."""
    for block in lines:
        for begin in range(0, len(block), BLOCK_ROWS):
            yield block[begin : begin + BLOCK_ROWS]
