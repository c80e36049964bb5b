"""Promotion under a churn budget: what a candidate version would move, and whether it may.

A candidate is tried in the shadow on the panel: every person is labelled by the last version and by the candidate at
one instant, with the margin that the live decision uses. The share of people it would move is paid from a budget that
accrues with the data's time; over budget the candidate is held and the learner goes on. Drift, a last version
whose segments have come apart (silhouette) or that too many people are outliers to (coverage), or a change of
configuration forces it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from stream.durations import Duration
from stream.segments.prototypes import Model

FloatArray = NDArray[np.float64]
DAY_MS: Final = 86_400_000

Ruling = Literal["first", "budget", "configuration", "drift", "silhouette", "coverage", "held"]
"""Why a version was published, or that it was not."""


class PromotionSettings(BaseModel):
    """What a new version may cost in moved people."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    budget: float = Field(
        default=0.05, gt=0, le=1, description="Share of people whom new models may move in a day, on average"
    )
    saved: Duration = Field(
        default=7 * DAY_MS, ge=DAY_MS, description="So long unused budget is saved, for a version that is worth more"
    )
    margin: float = Field(
        default=0.30, ge=0, lt=1, description="As decision.model_margin: who would move live, counts as moved"
    )
    silhouette_loss: float = Field(
        default=0.05, gt=0, le=1, description="A last version that separates people worse by this is replaced anyway"
    )


@dataclass(frozen=True, slots=True)
class Moves:
    """What a candidate would do to the panel: shares of all people by (from, to) segment number."""

    share: float
    by_pair: dict[tuple[int, int], float]
    rows: NDArray[np.bool_] | None = None
    """(m,) which of the panel's people would move."""


def expected_moves(
    last: Model, before_z: FloatArray, after: FloatArray, segments: NDArray[np.int32], weight: FloatArray, margin: float
) -> Moves:
    """Label the panel by both versions.

    Parameters: rows (m, d) on the last version's axes; distances (m, s) to each of the candidate's `segments` (s,)
    on its own axes, ascending; the people that each row stands for. A person stays while the own segment is not
    beaten by the margin, and must go where it is no more.
    """
    old = last.segments[last.nearest(before_z).prototype]
    best = after.argmin(axis=1)
    column = np.minimum(np.searchsorted(segments, old), len(segments) - 1)
    alive = segments[column] == old
    rows = np.arange(len(old))
    moves = ~alive | (after[rows, best] < (1.0 - margin) * after[rows, column])
    new = np.where(moves, segments[best], old)
    total = float(weight.sum())
    by_pair: dict[tuple[int, int], float] = {}
    for a, b in sorted(set(zip(old[old != new].tolist(), new[old != new].tolist(), strict=True))):
        by_pair[a, b] = float(weight[(old == a) & (new == b)].sum()) / total
    return Moves(sum(by_pair.values()), by_pair, old != new)


class Budget:
    """A token bucket in the data's time. State: what is left, and when it was counted (ms)."""

    def __init__(self, settings: PromotionSettings, left: float | None = None, at_ms: int = 0) -> None:
        self._settings = settings
        self.left = settings.budget if left is None else left
        self.at_ms = at_ms

    def rule(
        self, moves: Moves, at_ms: int, *, asked: bool, drift: bool, uncovered: bool, silhouette_lost: float
    ) -> Ruling:
        """Whether a candidate that would move so many may be published now; what is published is paid for.

        `asked`: a person changed the configuration, and means it. `uncovered`: too many people are outliers to the
        last version, which would go on to put them into quarantine.
        """
        budget = self._settings.budget
        if self.at_ms:
            most = budget * self._settings.saved / DAY_MS
            self.left = min(most, self.left + budget * max(0, at_ms - self.at_ms) / DAY_MS)
        self.at_ms = max(self.at_ms, at_ms)
        ruling: Ruling = "held"
        if moves.share <= self.left:
            ruling = "budget"
        elif asked:
            ruling = "configuration"
        elif uncovered:
            ruling = "coverage"
        elif drift:
            ruling = "drift"
        elif silhouette_lost > self._settings.silhouette_loss:
            ruling = "silhouette"
        if ruling != "held":
            self.left = max(0.0, self.left - moves.share)
        return ruling
