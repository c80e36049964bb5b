"""Who people really are, where that is known: personas by row of the user table, and their moves.

Bots are no people: whether quarantine finds them is measured elsewhere, so here they are unknown (-1), like users
whom the truth does not name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from producers.shop import Truth

IntArray = NDArray[np.int64]

UNKNOWN: Final = -1


class Moves(NamedTuple):
    """n true moves by time."""

    row: IntArray
    """Of the user in the table; UNKNOWN where the user was never seen."""
    at: IntArray
    """Epoch milliseconds."""
    before: IntArray
    """Persona."""
    after: IntArray


class Personas:
    """The truth of a synthetic shop, in numbers. `names[n]` is persona n."""

    def __init__(self, truth: Truth) -> None:
        self._truth = truth
        self._bots = truth.bots()
        self.names = sorted({interval.persona for interval in truth.intervals if not interval.is_bot})
        self._code = {name: number for number, name in enumerate(self.names)}
        self._stays: dict[str, list[tuple[int, int, int]]] = {}
        for user, start, end, persona, is_bot in truth.intervals:
            if not is_bot:
                self._stays.setdefault(user, []).append((start, end, self._code[persona]))

    def at(self, time: int, user_ids: Sequence[str]) -> IntArray:
        """Persona (m,) of each user at `time`; UNKNOWN for bots and strangers."""
        names = self._truth.at(time)
        found = (UNKNOWN if user in self._bots else self._code.get(names.get(user, ""), UNKNOWN) for user in user_ids)
        return np.fromiter(found, np.int64, len(user_ids))

    def during(self, user_ids: Sequence[str], times: IntArray) -> IntArray:
        """Persona (n,) of each user at a time of their own; UNKNOWN for bots and strangers."""
        found = np.full(len(times), UNKNOWN)
        for i, (user, time) in enumerate(zip(user_ids, times.tolist(), strict=True)):
            for start, end, code in self._stays.get(user, ()):
                if start <= time < end:
                    found[i] = code
        return found

    def is_bot(self, user_ids: Sequence[str]) -> NDArray[np.bool_]:
        """(m,)"""
        return np.fromiter((user in self._bots for user in user_ids), bool, len(user_ids))

    def moves(self, row_of: Callable[[str], int | None]) -> Moves:
        """All of them; `row_of` gives a user's row in the table."""
        moves = sorted(self._truth.moves(), key=lambda move: move.at)
        rows = [row_of(move.user) for move in moves]
        return Moves(
            np.array([UNKNOWN if row is None else row for row in rows], np.int64),
            np.array([move.at for move in moves], np.int64),
            np.array([self._code[move.before] for move in moves], np.int64),
            np.array([self._code[move.after] for move in moves], np.int64),
        )
