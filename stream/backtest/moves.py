"""How true moves were followed: at which look, or not at all.

A person who becomes another persona should come into a segment of that persona. A segment is a persona's home if most
of its people are that persona, over all checkpoints together. A move counts only where it could be seen: the person
was judged at the checkpoint before it, the new persona has a home, the person was not in one already, and had two looks
(batches with events of theirs) or more before the next move or the end.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from stream.backtest.changes import Changes
from stream.backtest.truth import UNKNOWN, Moves

IntArray = NDArray[np.int64]

FEWEST_LOOKS: Final = 2


@dataclass(frozen=True, slots=True)
class Following:
    """Of all moves: those that could be followed, and how they were."""

    moves: int
    homeless: int
    """The new persona has no segment of its own."""
    there_already: int
    unseen: int
    """Fewer than two looks."""
    followed: int
    missed: int
    """Never in a home of the new persona before the next move or the end."""
    delay_looks: float | None
    """Median over those that were followed: looks from the move to the one that changed the segment, at least 1."""
    delay_days: float | None
    """The same in days."""

    @property
    def missed_share(self) -> float | None:
        """Of the moves that could be followed."""
        could = self.followed + self.missed
        return self.missed / could if could else None


class Looks:
    """When each user was looked at because of events of theirs: rows by time, in order."""

    def __init__(self) -> None:
        self._rows: list[NDArray[np.intp]] = []
        self._times: list[int] = []

    def add(self, at_ms: int, rows: NDArray[np.intp]) -> None:
        """One batch."""
        self._rows.append(rows)
        self._times.append(at_ms)

    def by_user(self) -> dict[int, IntArray]:
        """Times of each user's looks, ascending."""
        rows = np.concatenate([np.empty(0, np.intp), *self._rows])
        times = np.repeat(np.array(self._times, np.int64), [len(r) for r in self._rows])
        order = np.argsort(rows, kind="stable")
        users, first = np.unique(rows[order], return_index=True)
        return dict(zip(users.tolist(), _pieces(times[order], first), strict=True))


def homes(segments: IntArray, personas: IntArray) -> dict[int, int]:
    """The persona of most of each learned segment's people; pairs of all checkpoints together, (n,) each."""
    known = (segments > 0) & (personas != UNKNOWN)
    found: dict[int, int] = {}
    for segment in np.unique(segments[known]).tolist():
        found[segment] = int(np.bincount(personas[known & (segments == segment)]).argmax())
    return found


def follow(moves: Moves, changes: Changes, looks: Looks, home: dict[int, int], end_ms: int) -> Following:
    """Judge `moves` by the ledger of all `changes`."""
    seen = looks.by_user()
    ledger = _by_user(changes)
    there = homeless = unseen = missed = 0
    delays: list[tuple[int, float]] = []
    nobody = np.empty(0, np.int64)
    for row, at, persona, until in zip(
        moves.row.tolist(), moves.at.tolist(), moves.after.tolist(), _next_move(moves, end_ms), strict=True
    ):
        own = {segment for segment, lives in home.items() if lives == persona}
        times, segments = ledger.get(row, (nobody, nobody))
        stands = int(np.searchsorted(times, at, side="right"))
        mine = seen.get(row, nobody)
        after = mine[(mine > at) & (mine <= until)]
        if not own:
            homeless += 1
        elif stands and int(segments[stands - 1]) in own:
            there += 1
        elif len(after) < FEWEST_LOOKS:
            unseen += 1
        else:
            came = next((t for t, s in zip(times[stands:], segments[stands:], strict=True) if s in own), None)
            if came is None or came > until:
                missed += 1
            else:
                delays.append((max(1, int((after <= came).sum())), (int(came) - at) / 86_400_000))
    return Following(
        moves=len(moves.row),
        homeless=homeless,
        there_already=there,
        unseen=unseen,
        followed=len(delays),
        missed=missed,
        delay_looks=float(np.median([d[0] for d in delays])) if delays else None,
        delay_days=float(np.median([d[1] for d in delays])) if delays else None,
    )


def _next_move(moves: Moves, end_ms: int) -> list[int]:
    """When each mover moves again, or the end; moves are in the order of time."""
    until = [end_ms] * len(moves.row)
    following: dict[int, int] = {}
    for i in range(len(moves.row) - 1, -1, -1):
        row = int(moves.row[i])
        until[i] = following.get(row, end_ms)
        following[row] = int(moves.at[i])
    return until


def _by_user(changes: Changes) -> dict[int, tuple[IntArray, IntArray]]:
    """Times and new segments of each user's changes, in order."""
    order = np.argsort(changes.user, kind="stable")
    users, first = np.unique(changes.user[order], return_index=True)
    times = _pieces(changes.at[order], first)
    segments = _pieces(changes.after[order], first)
    return {user: (t, s) for user, t, s in zip(users.tolist(), times, segments, strict=True)}


def _pieces(values: IntArray, first: NDArray[np.intp]) -> list[IntArray]:
    """Split where each piece begins; no pieces where there are none."""
    return np.split(values, first[1:]) if len(first) else []
