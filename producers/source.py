"""A source: numbered rows, each the bytes to put on the topic and the time at which they arrive.

Invariants, whatever the source:

- Row n is always the same row: `rows(n)` yields the tail of `rows(0)`, byte for byte, so that whoever knows how many
  rows were pushed can carry on after a crash.
- Every row of the origin yields exactly one SourceRow, also one that cannot be mapped: it carries a value that the
  decoder refuses (the event without its user, or the broken line as it came). So read = accepted + duplicate + dead
  letters holds by construction, and the reason is the decoder's, not a second opinion of the reader's.
- Timestamps never decrease. They are the data's own clock (`producers.clock` says how it is kept from being pushed).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import NamedTuple


class SourceError(Exception):
    """A source cannot be opened or read on: one line that says what, where, and what to do."""


class SourceRow(NamedTuple):
    """One record for the topic: key (the user id) and value as bytes, arrival in epoch milliseconds."""

    key: bytes | None
    value: bytes | None
    timestamp: int


class Source(ABC):
    """Rows by number: deterministic, and resumable at any of them."""

    @property
    @abstractmethod
    def total(self) -> int | None:
        """How many rows there are, or None where finding out would cost a pass of its own."""

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """Tells whether two sources have the same rows: a file's name, size and first bytes; a generator's settings.

        Keep it beside a row number, and refuse to resume when it differs.
        """

    @abstractmethod
    def rows(self, start: int = 0) -> Iterator[SourceRow]:
        """The rows from number `start` (from 0) to the end; nothing where `start` is beyond it.

        Raises SourceError when the origin breaks off (a truncated gzip file).
        """
