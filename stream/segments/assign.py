"""Which segment a user is in, decided calmly: a challenger must be clearly nearer, and stay so.

Plain argmin moves a user 22 times for every true move (docs/quality.md). Here a learned segment is left only for
one whose prototype is nearer by a margin, in as many consecutive looks as configured. What people do comes in bursts,
and the looks of one visit are one piece of evidence: so a challenger that behaviour brought must also lead for a time,
unless its lead is beyond doubt, and a segment is kept for a time once it was entered. Silence comes in no bursts: two
looks are enough. Built-in segments (newcomer, quarantine) and segments that no longer exist are left at once.
"""

from __future__ import annotations

from collections.abc import Sequence
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
    confirm: Duration = Field(
        default=21_600_000, ge=0, description="How long it must be where behaviour brought it: a visit is one evidence"
    )
    clear_margin: float = Field(
        default=0.35, ge=0, lt=1, description="Nearer by this share, it need not wait for `confirm`"
    )
    dwell: Duration = Field(
        default=21_600_000, ge=0, description="How long behaviour moves nobody on who has just entered a segment"
    )
    newcomer_events: int = Field(default=3, ge=1, description="With fewer events a user is a newcomer ...")
    newcomer_period: Duration = Field(default=14 * 86_400_000, description="... until this long after the first one")


@dataclass(slots=True)
class Standing:
    """Where m users stand: columns of length m."""

    segment: IntArray
    candidate: IntArray
    looks: NDArray[np.int8]
    candidate_cause: NDArray[np.int8]
    candidate_at: NDArray[np.int64]
    """Epoch milliseconds of the first of those looks."""
    since: NDArray[np.int64]
    """Epoch milliseconds of the last change of segment; read only."""

    @classmethod
    def nowhere(cls, m: int) -> Standing:
        """Of m users who were never looked at."""
        return cls(
            np.zeros(m, np.int32),
            np.zeros(m, np.int32),
            np.zeros(m, np.int8),
            np.zeros(m, np.int8),
            np.zeros(m, np.int64),
            np.zeros(m, np.int64),
        )

    def take(self, rows: NDArray[np.intp] | slice) -> Standing:
        """Copies of these rows, in their order; views of a slice."""
        return Standing(
            self.segment[rows],
            self.candidate[rows],
            self.looks[rows],
            self.candidate_cause[rows],
            self.candidate_at[rows],
            self.since[rows],
        )

    @classmethod
    def joined(cls, parts: Sequence[Standing]) -> Standing:
        """All of them, one after the other."""
        if len(parts) == 1:
            return parts[0]
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in cls.__slots__))

    def put(self, rows: NDArray[np.intp], new: Standing) -> None:
        """Write these rows, all but `since`."""
        self.segment[rows], self.candidate[rows] = new.segment, new.candidate
        self.looks[rows], self.candidate_cause[rows] = new.looks, new.candidate_cause
        self.candidate_at[rows] = new.candidate_at


@dataclass(slots=True)
class Assignment:
    """What a look decided, columns of length m; `cause` means something only where the segment changed.

    `share` is rival / (own + rival) of the distances: 0.5 on the border, 1 at the centre, and 1 for those who are in a
    built-in segment, whose rule is no matter of distance.
    """

    standing: Standing
    cause: NDArray[np.int8]
    share: FloatArray

    def part(self, some: slice) -> Assignment:
        """Views of some of the users."""
        return Assignment(self.standing.take(some), self.cause[some], self.share[some])


def assign(
    distances: FloatArray,
    segments: IntArray,
    standing: Standing,
    newcomer: NDArray[np.bool_],
    held: NDArray[np.bool_],
    look: int,
    at: int | NDArray[np.int64],
    settings: DecisionSettings,
    noise: NDArray[np.bool_] | None = None,
) -> Assignment:
    """Decide m users at once.

    Parameters: `distances` (m, s) to the nearest prototype of each of the s learned `segments` (s,); where the users
    stand; who is a newcomer; who is held in quarantine; `look` is the cause code that this look has if it is the
    one that moves somebody (BEHAVIOUR after events, INACTIVITY at a sweep, MODEL at a new version, which needs
    one look only, since everybody is relabelled at that instant); `at` is its time in epoch milliseconds, one for all
    or (m,); who is `noise`, beyond every radius of a clusterer that knows noise: they keep the learned segment that
    they have, and enter none.
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
    # No further than is needed: who only waits for the time must not be written at every look.
    looks = np.where(challenged, np.where(same, np.minimum(standing.looks + 1, settings.looks), 1), 0).astype(np.int8)
    goes_on = same & (standing.looks > 0)
    first_cause = np.where(goes_on, standing.candidate_cause, look).astype(np.int8)
    first_at = np.where(goes_on, standing.candidate_at, at)
    moves = challenged & (looks >= needed)
    if look != MODEL:
        sure = (at - first_at >= settings.confirm) | (distances[every, best] < (1.0 - settings.clear_margin) * own)
        moves &= (first_cause != BEHAVIOUR) | (sure & (at - standing.since >= settings.dwell))

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
        candidate_at=np.where(pending, first_at, 0),
        since=standing.since,
    )
    return Assignment(after, cause, share_of(distances, segments, target))


def share_of(distances: FloatArray, segments: IntArray, target: IntArray) -> FloatArray:
    """(m,) rival / (own + rival) of distances (m, s) to `segments` (s,), for users in `target` (m,); 1 where that is
    no learned segment, or the only one."""
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
