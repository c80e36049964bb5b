"""Counts of what a topic holds, up to a cut and up to the end, and whether two of them can agree.

The cut is where a topic ended before anything else was read. Whatever was published while we read lies between
the two, so on a running deployment a count is compared within them, and on a still one exactly.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

_BITS = 128


@dataclass(slots=True)
class Tally:
    """How many, and the sum of their ids: two sets of ids with equal sums are equal, whatever the order.

    A sum modulo 2^128 of ids that are hashes costs no memory, and misses a difference once in 2^128 times.
    """

    count: int = 0
    total: int = 0

    def add(self, identifier: str) -> None:
        """One more; `identifier` ends in 32 hexadecimal digits."""
        self.count += 1
        self.total = (self.total + int(identifier[-32:], 16)) % (1 << _BITS)

    def __add__(self, other: Tally) -> Tally:
        return Tally(self.count + other.count, (self.total + other.total) % (1 << _BITS))


@dataclass(slots=True)
class Counted:
    """Counts by name, up to the cut and up to the end."""

    cut: int
    start: int
    at_cut: Counter[str] = field(default_factory=Counter)
    at_end: Counter[str] = field(default_factory=Counter)

    @property
    def whole(self) -> bool:
        """Nothing was ever deleted from this topic, so that counts since the beginning can be compared."""
        return self.start == 0

    def add(self, name: str, offset: int) -> None:
        """One record."""
        self.at_end[name] += 1
        if offset < self.cut:
            self.at_cut[name] += 1

    def agrees(self, name: str, count: int) -> bool:
        """Whether a count that was taken between the cut and the end can be this one."""
        return self.at_cut[name] <= count and (not self.whole or count <= self.at_end[name])

    def told(self, name: str) -> str:
        """The count, for a person."""
        low, high = self.at_cut[name], self.at_end[name]
        return f"{low:,}" if low == high else f"{low:,} to {high:,}"
