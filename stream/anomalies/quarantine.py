"""Quarantine: who behaves like nobody else, decided calmly from the forest's score and the distance.

Invariant: one odd look holds nobody, and one ordinary look releases nobody. A look is an outlier's when it is above
either enter threshold, and an ordinary one when it is below both release thresholds; between the two it is
neither, and breaks any streak. The thresholds travel with the model, so that every replica decides alike.

Forest or distance, not their mean: a bot that is extreme in two of twenty features is far from every prototype and
hardly moves the forest, and a user in an empty region close to a large segment is the forest's alone.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from schemas.model import OutlierThresholds

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
StreakArray = NDArray[np.int8]


class QuarantineSettings(BaseModel):
    """When to hold a user, and when to let go."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    enabled: bool = True
    enter_looks: int = Field(default=3, ge=1, le=100, description="Consecutive outlying looks that put a user in")
    release_looks: int = Field(default=5, ge=1, le=100, description="Consecutive ordinary looks that let a user out")


class Verdict(NamedTuple):
    """Columns of length m."""

    held: BoolArray
    streak: StreakArray
    """Consecutive looks that speak against the present state: towards holding, or towards release."""


def outlying(score: FloatArray, distance: FloatArray, thresholds: OutlierThresholds) -> BoolArray:
    """Which looks are an outlier's."""
    return (score > thresholds.score) | (distance > thresholds.distance)


def decide(
    score: FloatArray,
    distance: FloatArray,
    thresholds: OutlierThresholds,
    held: BoolArray,
    streak: StreakArray,
    settings: QuarantineSettings,
) -> Verdict:
    """One look at m users: the forest's scores, distances to the nearest prototype, and where they stand.

    Switched off, it lets everybody out at once.
    """
    if not settings.enabled:
        return Verdict(np.zeros(len(held), bool), np.zeros(len(held), np.int8))
    ordinary = (score < thresholds.score_release) & (distance < thresholds.distance_release)
    against = np.where(held, ordinary, outlying(score, distance, thresholds))
    run = np.where(against, np.minimum(streak.astype(np.int16), 100) + 1, 0)
    turns = run >= np.where(held, settings.release_looks, settings.enter_looks)
    return Verdict(held ^ turns, np.where(turns, 0, run).astype(np.int8))
