"""One method's labels over the checkpoints, and the measures that follow from them.

Invariant: all methods are judged on the same users at the same times, against the same outcomes: whoever is no newcomer
at the checkpoint. For resegment the users in quarantine, and those without a segment yet, are cells of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream.backtest.metrics import (
    adjusted_rand,
    best_lift,
    changed,
    eta_squared,
    id_continuity,
    silhouette,
)
from stream.backtest.truth import UNKNOWN

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
Mask = NDArray[np.bool_]
Rows = NDArray[np.intp]

DAY_MS = 86_400_000


@dataclass(frozen=True, slots=True)
class Churn:
    """How much a method moves people."""

    share_moved: float | None
    """Of those judged at this checkpoint and the last one, how many have another label now."""
    flips_per_user_day: float | None
    """Changes from a segment to another one, for each judged user and day; null for methods that label at
    checkpoints only."""
    by_cause: dict[str, int] | None
    """Changes of any kind by cause; null for methods that know none."""


@dataclass(frozen=True, slots=True)
class Scores:
    """The measures of one method, at one checkpoint or overall; None where the data cannot say."""

    silhouette: float | None
    eta2_next_spend: float | None
    eta2_next_purchase: float | None
    lift_best_segment: float | None
    ari_truth: float | None
    id_continuity: float | None
    flips_per_true_move: float | None
    churn: Churn | None

    def as_json(self) -> dict[str, Any]:
        """By these names."""
        return asdict(self)


MEASURES = tuple(f.name for f in fields(Scores))


@dataclass(frozen=True, slots=True)
class Window:
    """What is the same for all methods at a checkpoint; m users are judged."""

    at_ms: int
    since_ms: int | None
    """The last checkpoint, if there was one."""
    rows: Rows
    """(m,) ascending"""
    z: FloatArray
    """(m, d)"""
    log_spend: FloatArray | None
    """(m,) log1p of the next period's spend; None where the data has no prices"""
    bought: Mask
    """(m,) in the next period"""
    persona: IntArray | None
    """(m,) the truth, UNKNOWN for bots; None where there is no truth"""
    movers: Rows | None
    """Rows of those who truly moved since the last checkpoint, one entry a move, of users judged then"""

    @property
    def days(self) -> float:
        """Since the last checkpoint."""
        return 0.0 if self.since_ms is None else (self.at_ms - self.since_ms) / DAY_MS


@dataclass(frozen=True, slots=True)
class Flips:
    """Changes from a segment to another one since the last checkpoint, as a method counts them itself."""

    rows: Rows
    """Of the users, one entry a change."""
    known: Mask | None = None
    """By row: the users whom the method follows; None for everybody."""


class Track:
    """One method. Call `add` once a checkpoint, in order."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.checkpoints: list[Scores] = []
        self._windows: list[tuple[IntArray, IntArray]] = []
        self._rows: Rows = np.empty(0, np.intp)
        self._labels: IntArray = np.empty(0, np.int64)
        self._people: Mask = np.empty(0, bool)
        self._flips = self._moves = 0
        self._user_days = self._all_flips = 0.0
        self._counted = False

    def add(
        self,
        window: Window,
        labels: IntArray,
        *,
        segments: Mask | None = None,
        flips: Flips | None = None,
        causes: dict[str, int] | None = None,
    ) -> Scores:
        """Judge `labels` (m,). `segments` (m,) says whose label may win the lift (all by default); without `flips`
        they are the labels that changed since the last checkpoint."""
        people = np.zeros(len(labels), bool) if window.persona is None else window.persona != UNKNOWN
        if window.persona is not None:
            self._windows.append((labels[people], window.persona[people]))
        _, then, now = np.intersect1d(self._rows, window.rows, assume_unique=True, return_indices=True)
        share = changed(self._labels[then], labels[now]) if window.since_ms is not None else None
        moved = self._rows[then[self._labels[then] != labels[now]]]
        counted = flips is not None
        ratio = self._ratio(window, Flips(moved) if flips is None else flips)
        rate = self._rate(window, flips)
        self._counted = self._counted or counted
        scores = Scores(
            silhouette=silhouette(window.z, labels),
            eta2_next_spend=None if window.log_spend is None else eta_squared(labels, window.log_spend),
            eta2_next_purchase=eta_squared(labels, window.bought.astype(np.float64)),
            lift_best_segment=best_lift(labels, window.bought, segments),
            ari_truth=None if window.persona is None else adjusted_rand(labels[people], window.persona[people]),
            id_continuity=id_continuity(self._windows),
            flips_per_true_move=ratio,
            churn=Churn(share, rate, causes),
        )
        self.checkpoints.append(scores)
        self._rows, self._labels, self._people = window.rows, labels, people
        return scores

    def _ratio(self, window: Window, flips: Flips) -> float | None:
        """Flips for each true move since the last checkpoint, of people judged then."""
        if window.movers is None or window.since_ms is None:
            return None
        people = self._rows[self._people]
        mine = int(np.isin(flips.rows, people).sum())
        movers = window.movers if flips.known is None else window.movers[flips.known[window.movers]]
        self._flips += mine
        self._moves += len(movers)
        return mine / len(movers) if len(movers) else None

    def _rate(self, window: Window, flips: Flips | None) -> float | None:
        if flips is None or window.since_ms is None:
            return None
        followed = self._rows if flips.known is None else self._rows[flips.known[self._rows]]
        count, user_days = int(np.isin(flips.rows, self._rows).sum()), len(followed) * window.days
        self._all_flips += count
        self._user_days += user_days
        return count / user_days if user_days else None

    def overall(self) -> Scores:
        """Means over the checkpoints that can say; flips and changes by their totals; id continuity over all."""
        churns = [scores.churn for scores in self.checkpoints if scores.churn is not None]
        causes = [churn.by_cause for churn in churns if churn.by_cause is not None]
        return Scores(
            silhouette=self._mean("silhouette"),
            eta2_next_spend=self._mean("eta2_next_spend"),
            eta2_next_purchase=self._mean("eta2_next_purchase"),
            lift_best_segment=self._mean("lift_best_segment"),
            ari_truth=self._mean("ari_truth"),
            id_continuity=id_continuity(self._windows),
            flips_per_true_move=self._flips / self._moves if self._moves else None,
            churn=Churn(
                share_moved=mean([churn.share_moved for churn in churns]),
                flips_per_user_day=self._all_flips / self._user_days if self._user_days else None,
                by_cause={cause: sum(c[cause] for c in causes) for cause in causes[0]} if causes else None,
            ),
        )

    def _mean(self, measure: str) -> float | None:
        return mean([getattr(scores, measure) for scores in self.checkpoints])


def mean(values: Sequence[float | None]) -> float | None:
    """Of those that are known; None where none is."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
