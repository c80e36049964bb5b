"""Which rows a delta carries beside those that changed, so that the oldest deltas are needed no more.

The changelog of a table is a log with garbage: every delta makes the earlier copies of its rows needless, but a delta
can go only when nothing in it is the newest copy of its row. So the rows whose newest copy is in the oldest delta are
written again, as the cleaner of a log-structured file system does it (Rosenblum and Ousterhout 1992), and no sooner
than the log has grown to `HELD_SHARE` rows for each row of the table. What changes often is never written again.

Invariant: the deltas that `next` counts hold the newest copy of every row.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.intp]

HELD_SHARE = 2
"""Rows in the deltas that are kept, for each row of the table."""
FLOOR = 64
"""Rows that a delta rewrites at the most where fewer have changed; otherwise as many as have changed. That is always
enough: were every row rewritten before it changes again, a turn of all rows would write each of them twice. A smaller
delta counts as so many rows, for it costs a restore as much: a table that changes row by row is not a million deltas.
"""
LOOKS = 16
"""So many times as many rows are looked at, at the most, for those that are rewritten: a sweep makes deltas of very
many, most of which may have newer copies."""

_MASK = 0xFFFF_FFFF


@dataclass(slots=True)
class _Delta:
    number: int
    rows: NDArray[np.int32]
    """Those of its rows that may have their newest copy in it, ascending."""
    cost: int
    """Rows that were written in it, or FLOOR."""
    start: int = 0
    """How many of `rows` have been looked at, and have a newer copy now."""


class Rewrite:
    """The deltas of one table's changelog that are needed. Rows are numbers from 0 on, and never leave the table."""

    def __init__(self) -> None:
        self._written = np.zeros(0, np.uint32)
        """By row, the number of the delta that has its newest copy, modulo 2**32. Longer than there are rows."""
        self._users = 0
        self._deltas: deque[_Delta] = deque()
        self._number = 0
        self._held = 0

    def next(self, changed: Rows, users: int) -> tuple[Rows, int]:
        """The rows of the next delta, ascending, and how many of the last deltas, this one among them, are kept.

        `changed` (m,) are rows, ascending and each once; `users` is how many rows there are. Rows that no delta has
        carried yet come too.
        """
        self._number += 1
        if self._users < users:
            changed = distinct([changed, np.arange(self._users, users)])
            self._reserve(users)
        self._written[changed] = self._number & _MASK
        again = self._rewritten(len(changed), users)
        rows = distinct([changed, *again]) if again else changed
        self._add(self._number, rows, len(rows))
        return rows, self._number - self._deltas[0].number + 1

    def restore(self, rows: Rows) -> None:
        """Take the rows of the next delta that is read back; after the last one `reorder`."""
        self._number += 1
        if len(rows):
            self._reserve(int(rows.max()) + 1)
        self._written[rows] = self._number & _MASK
        # Which of them have their newest copy in it shows at the end.
        self._add(self._number, rows[:0], len(rows))

    def reorder(self, order: Rows) -> None:
        """What was row `order[i]` is row i from now on: after a restore, and before the next delta."""
        self._written = self._written[order]
        by_age = np.argsort(self._written, kind="stable")
        numbers = self._written[by_age]
        for delta in self._deltas:
            start, stop = np.searchsorted(numbers, (delta.number, delta.number + 1)).tolist()
            delta.rows = by_age[start:stop].astype(np.int32)
        # At once: whoever had the table before may be about to delete them.
        while self._deltas and not len(self._deltas[0].rows):
            self._drop_oldest()

    def _rewritten(self, changed: int, users: int) -> list[Rows]:
        """Rows of the oldest deltas, where they are in the way, and no more than are due."""
        parts: list[Rows] = []
        room = most = max(FLOOR, changed)
        looks = LOOKS * most
        while self._deltas and room and looks > 0:
            oldest = self._deltas[0]
            left = len(oldest.rows) - oldest.start
            # Beside the deltas that are held: this one, and what is rewritten so far.
            free = HELD_SHARE * users - self._held - most - (most - room)
            if left <= free:
                break
            part = oldest.rows[oldest.start : oldest.start + min(looks, 2 * most)]
            alive = np.flatnonzero(self._written[part] == oldest.number & _MASK)
            seen = len(part)
            if seen == left and 0 < len(alive) <= free:
                break
            if len(alive) > room:
                seen = int(alive[room - 1]) + 1
                alive = alive[:room]
            some = part[alive].astype(np.intp)
            self._written[some] = self._number & _MASK
            parts.append(some)
            oldest.start += seen
            looks -= seen
            room -= len(some)
            if oldest.start >= len(oldest.rows):
                self._drop_oldest()
        return parts

    def _drop_oldest(self) -> None:
        """It holds no row's newest copy any more."""
        self._held -= self._deltas.popleft().cost

    def _add(self, number: int, rows: Rows, count: int) -> None:
        cost = max(count, FLOOR)
        self._deltas.append(_Delta(number, rows.astype(np.int32), cost))
        self._held += cost

    def _reserve(self, users: int) -> None:
        """Know of so many rows, at the least; room is doubled, so that growing costs a constant for each row."""
        self._users = max(users, self._users)
        if users > len(self._written):
            grown = np.zeros(max(users, 2 * len(self._written)), np.uint32)
            grown[: len(self._written)] = self._written
            self._written = grown


def distinct(parts: Sequence[Rows]) -> Rows:
    """The rows of all parts, ascending, each once. Parts are mostly sorted: a merge is a seventh of `np.unique`."""
    rows = np.sort(np.concatenate([*parts, np.empty(0, np.intp)]), kind="stable")
    first = np.ones(len(rows), bool)
    np.not_equal(rows[1:], rows[:-1], out=first[1:])
    return rows[first]
