"""What only the truth can tell: who truly moved, how that was followed, and whether a confidence was right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from producers.shop import Truth
from stream.backtest.changes import Changes, between
from stream.backtest.metrics import contingency
from stream.backtest.moves import Following, Looks, follow, homes
from stream.backtest.reliability import Curve, right
from stream.backtest.snapshot import Snapshot
from stream.backtest.touched import Touched
from stream.backtest.truth import UNKNOWN, Moves, Personas
from stream.segments.population import Population

IntArray = NDArray[np.int64]
Rows = NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Crosstab:
    """Judged people at the last checkpoint, by segment and persona."""

    segments: tuple[int, ...]
    personas: tuple[str, ...]
    counts: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Verdict:
    """Over the whole backtest."""

    following: Following
    oracle: Following
    """The same of the oracle, which labels at checkpoints only: what could be followed at all from these features."""
    right: Curve
    crosstab: Crosstab


class Judge:
    """Watches a replay of one partition beside the truth."""

    def __init__(self, truth: Truth) -> None:
        self._personas = Personas(truth)
        self._looks = Looks()
        self._touched = Touched()

    def watch(self, population: Population) -> None:
        """After a batch: whose events were in it."""
        self._looks.add(population.clock, self._touched.since_last(population))

    def persona(self, snapshot: Snapshot) -> IntArray:
        """(m,) of those judged at a checkpoint."""
        return self._personas.at(snapshot.at_ms, snapshot.user_ids)

    def movers(self, population: Population, last: Snapshot, until_ms: int) -> Rows:
        """Rows of those who truly moved since the last checkpoint, of people judged there; one entry a move."""
        return self._moves(population, last, until_ms).row.astype(np.intp)

    def verdict(
        self,
        population: Population,
        snapshots: Sequence[Snapshot],
        changes: Changes,
        oracle: Sequence[IntArray],
    ) -> Verdict:
        """From the snapshots of all checkpoints, all changes up to the last one, and the `oracle`'s labels."""
        personas = np.concatenate([self.persona(snapshot) for snapshot in snapshots])
        home = homes(np.concatenate([snapshot.segment for snapshot in snapshots]), personas)
        users = population.table.user_ids
        judged = changes.at >= snapshots[0].at_ms
        persona_then = self._personas.during([users[row] for row in changes.user[judged].tolist()], changes.at[judged])
        parts = [self._moves(population, last, snapshot.at_ms) for last, snapshot in pairwise(snapshots)]
        moves = Moves(*(np.concatenate([np.empty(0, np.int64), *(part[i] for part in parts)]) for i in range(4)))
        end = snapshots[-1].at_ms
        relabelled = between([s.at_ms for s in snapshots], [s.rows for s in snapshots], oracle)
        return Verdict(
            following=follow(moves, changes, self._looks, home, end),
            oracle=follow(moves, relabelled, self._looks, homes(np.concatenate(oracle), personas), end),
            right=right(changes[judged], persona_then, home),
            crosstab=self._crosstab(snapshots[-1]),
        )

    def _moves(self, population: Population, last: Snapshot, until_ms: int) -> Moves:
        moves = self._personas.moves(population.table.lookup)
        chosen = (moves.at > last.at_ms) & (moves.at <= until_ms) & np.isin(moves.row, last.rows)
        return Moves(*(column[chosen] for column in moves))

    def _crosstab(self, snapshot: Snapshot) -> Crosstab:
        persona = self.persona(snapshot)
        people = persona != UNKNOWN
        return Crosstab(
            segments=tuple(np.unique(snapshot.segment[people]).tolist()),
            personas=tuple(self._personas.names[p] for p in np.unique(persona[people]).tolist()),
            counts=contingency(snapshot.segment[people], persona[people]),
        )
