"""Which segment a user is in, decided calmly: a challenger must be clearly nearer, and stay so.

Plain argmin moves a user 22 times for every true move (docs/quality.md). Here a learned segment is left only for
one whose prototype is nearer by a margin, in as many consecutive looks as configured; built-in segments
(newcomer, quarantine) and segments that no longer exist are left at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from schemas.types import CAUSES
from stream.durations import Duration

NONE: Final = 0
NEWCOMER: Final = -1
QUARANTINE: Final = -2
BUILT_IN_NAMES: Final = {NEWCOMER: "Newcomers", QUARANTINE: "Quarantine"}

ENTERED, BEHAVIOUR, INACTIVITY, MODEL, ANOMALY = range(len(CAUSES))

IntArray = NDArray[np.int32]
FloatArray = NDArray[np.float64]


def segment_name(segment: int) -> str | None:
    """The id that the outside sees: "seg-7", "newcomer", "quarantine", or None where there is none."""
    if segment > 0:
        return f"seg-{segment}"
    return {NEWCOMER: "newcomer", QUARANTINE: "quarantine"}.get(segment)


class DecisionSettings(BaseModel):
    """How calmly segments are decided."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    margin: float = Field(default=0.10, ge=0, lt=1, description="How much nearer a challenger must be, as a share")
    model_margin: float = Field(
        default=0.30, ge=0, lt=1, description="The same at a new model version: people have done nothing to move"
    )
    looks: int = Field(default=2, ge=1, le=100, description="Consecutive looks at which it must be")
    newcomer_events: int = Field(default=3, ge=1, description="With fewer events a user is a newcomer ...")
    newcomer_period: Duration = Field(default=14 * 86_400_000, description="... until this long after the first one")


@dataclass(slots=True)
class Standing:
    """Where m users stand: columns of length m."""

    segment: IntArray
    candidate: IntArray
    looks: NDArray[np.int8]
    candidate_cause: NDArray[np.int8]


@dataclass(slots=True)
class Assignment:
    """What a look decided, columns of length m; `cause` means something only where the segment changed.

    `share` is rival / (own + rival) of the distances: 0.5 on the border, 1 at the centre, and 1 for those who are in a
    built-in segment, whose rule is no matter of distance.
    """

    standing: Standing
    cause: NDArray[np.int8]
    share: FloatArray


def assign(
    distances: FloatArray,
    segments: IntArray,
    standing: Standing,
    newcomer: NDArray[np.bool_],
    held: NDArray[np.bool_],
    look: int,
    settings: DecisionSettings,
    noise: NDArray[np.bool_] | None = None,
) -> Assignment:
    """Decide m users at once.

    Parameters: `distances` (m, s) to the nearest prototype of each of the s learned `segments` (s,); where the users
    stand; who is a newcomer; who is held in quarantine; `look` is the cause code that this look has if it is the
    one that moves somebody (BEHAVIOUR after events, INACTIVITY at a sweep, MODEL at a new version, which needs
    one look only, since everybody is relabelled at that instant); who is `noise`, beyond every radius of a
    clusterer that knows noise: they keep the learned segment that they have, and enter none.
    """
    m = len(standing.segment)
    every = np.arange(m)
    best = distances.argmin(axis=1)
    nearest = segments[best]
    current = standing.segment
    column = np.searchsorted(segments, current)
    column[column == len(segments)] = 0
    alive = segments[column] == current
    own = np.where(alive, distances[every, column], np.inf)
    # The margin is on the distance itself; beaten by a margin also means nearest is another one.
    margin = settings.model_margin if look == MODEL else settings.margin
    challenged = alive & (nearest != current) & (distances[every, best] < (1.0 - margin) * own)
    if noise is not None:
        challenged &= ~noise
        nearest = np.where(noise, NONE, nearest)
    needed = 1 if look == MODEL else settings.looks
    same = challenged & (standing.candidate == nearest)
    looks = np.where(challenged, np.where(same, np.minimum(standing.looks, 100) + 1, 1), 0).astype(np.int8)
    first_cause = np.where(same & (standing.looks > 0), standing.candidate_cause, look).astype(np.int8)
    moves = challenged & (looks >= needed)

    target = np.where(alive & ~moves, current, nearest)
    # A newcomer who was in a learned segment once stays out of the built-in one: more events cannot become fewer.
    target = np.where(newcomer & (current <= 0), NEWCOMER, target)
    target = np.where(held, QUARANTINE, target).astype(np.int32)
    changed = target != current
    cause = np.where(challenged, first_cause, look).astype(np.int8)
    # A dead segment is left because the segments moved, whenever it is noticed.
    cause = np.where((current > 0) & ~alive, MODEL, cause)
    cause = np.where(current == NONE, ENTERED, cause)
    cause = np.where(changed & (held | (current == QUARANTINE)), ANOMALY, cause).astype(np.int8)

    pending = challenged & ~changed
    after = Standing(
        segment=target,
        candidate=np.where(pending, nearest, NONE).astype(np.int32),
        looks=np.where(pending, looks, 0).astype(np.int8),
        candidate_cause=np.where(pending, first_cause, 0).astype(np.int8),
    )
    return Assignment(after, cause, _share(distances, segments, target))


def _share(distances: FloatArray, segments: IntArray, target: IntArray) -> FloatArray:
    column = np.searchsorted(segments, target)
    column[column == len(segments)] = 0
    learned = segments[column] == target
    rows = np.arange(len(target))
    own = distances[rows, column]
    others = distances.copy()
    others[rows, column] = np.inf
    rival = others.min(axis=1)
    with np.errstate(invalid="ignore"):
        share = np.where(np.isinf(rival), 1.0, rival / np.maximum(own + rival, 1e-12))
    return np.where(learned, share, 1.0)
