"""Whether a confidence keeps its word: of the changes that were published with it, how many held.

A change holds if the user is still in that segment `stay` later (quarantine aside); one whose segment was redrawn by a
new model before then is not judged, for the user did not leave it. Where the truth is known, a change is right if the
segment is a home of the persona that the user was. Calibrated means that of changes with confidence 0.8 four in five
hold. Niculescu-Mizil & Caruana, "Predicting good probabilities", ICML 2005.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from stream.backtest.changes import Changes
from stream.backtest.truth import UNKNOWN
from stream.segments.assign import MODEL

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
Mask = NDArray[np.bool_]

BINS: Final = 10


@dataclass(frozen=True, slots=True)
class Curve:
    """Bins of equal width over confidence 0 to 1; empty ones are left out."""

    confidence: tuple[float, ...]
    """Mean of each bin."""
    share: tuple[float, ...]
    """Of its changes, how many held (or were right)."""
    count: tuple[int, ...]
    error: float | None
    """Expected calibration error: mean distance of share and confidence, weighted by count."""


def curve(confidence: FloatArray, kept: Mask) -> Curve:
    """Of n changes with these confidences (n,), and whether each held (n,)."""
    place = np.minimum((confidence * BINS).astype(np.int64), BINS - 1)
    count = np.bincount(place, minlength=BINS)
    filled = count > 0
    mean = np.bincount(place, confidence, BINS)[filled] / count[filled]
    share = np.bincount(place, kept, BINS)[filled] / count[filled]
    error = float(np.average(np.abs(mean - share), weights=count[filled])) if filled.any() else None
    return Curve(tuple(mean.tolist()), tuple(share.tolist()), tuple(count[filled].tolist()), error)


def stays(changes: Changes, stay_ms: int, start_ms: int, end_ms: int) -> Curve:
    """By whether the user's next change into another learned segment comes later than `stay_ms`; of the changes from
    `start_ms` on whose `stay_ms` ended by `end_ms`, without those that a new model undid before then."""
    into = changes.after > 0
    order = np.lexsort((np.arange(len(changes)), changes.user))
    left_at = np.full(len(changes), np.iinfo(np.int64).max)
    ordered = order[into[order]]
    same_user = changes.user[ordered[1:]] == changes.user[ordered[:-1]]
    other = changes.after[ordered[1:]] != changes.after[ordered[:-1]]
    leaves = ordered[:-1][same_user & other]
    left_at[leaves] = changes.at[ordered[1:][same_user & other]]
    redrawn = np.zeros(len(changes), bool)
    redrawn[leaves] = changes.cause[ordered[1:][same_user & other]] == MODEL
    holds = left_at > changes.at + stay_ms
    judged = into & (changes.at >= start_ms) & (changes.at + stay_ms <= end_ms) & (holds | ~redrawn)
    return curve(changes.confidence[judged], holds[judged])


def right(changes: Changes, persona: IntArray, home: dict[int, int]) -> Curve:
    """By whether the segment is a home of the user's `persona` (n,) at the time of the change."""
    judged = (changes.after > 0) & (persona != UNKNOWN)
    lives = np.array([home.get(segment, UNKNOWN) for segment in changes.after[judged].tolist()], np.int64)
    return curve(changes.confidence[judged], lives == persona[judged])
