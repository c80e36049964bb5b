"""A checkpoint's picture of everybody: features, standing and model, as the live code has them at that time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stream.features.layout import EVENTS, FIRST
from stream.segments.assign import DecisionSettings
from stream.segments.processor import Processor
from stream.segments.prototypes import Model
from stream.segments.scaling import Scaler

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """n users in all, m of them judged: those who are no newcomers. Rows are the user table's, which never change."""

    at_ms: int
    standing: IntArray
    """(n,) everybody's segment number"""
    rows: NDArray[np.intp]
    """(m,) the judged ones"""
    user_ids: Sequence[str]
    """(m,)"""
    segment: IntArray
    """(m,) their segment number: learned ones, and built-in ones as cells of their own"""
    features: FloatArray
    """(m, F) those that segments are learned from, NaN where unknown"""
    z: FloatArray
    """(m, F) the same on a scale that is fitted to these users now, equal for all methods"""
    model: Model | None


def take(processor: Processor, at_ms: int, decision: DecisionSettings) -> Snapshot:
    """Of a processor with one partition, which must have seen every event that arrived before `at_ms`, and no other."""
    population = processor.populations[0]
    table = population.table
    column = table.column
    now = max(at_ms, population.now())
    # The processor's own rule: with few events, and for a while only.
    newcomer = (now - column(FIRST) < decision.newcomer_period) & (column(EVENTS) < decision.newcomer_events)
    rows = np.flatnonzero(~newcomer)
    learned = [feature for feature in processor.layout.features if feature.learn]
    columns = [processor.layout.names.index(feature.name) for feature in learned]
    features = table.features(rows, now)[:, columns]
    standing = column("segment").astype(np.int64)
    return Snapshot(
        at_ms=at_ms,
        standing=standing,
        rows=rows,
        user_ids=[table.user_ids[row] for row in rows.tolist()],
        segment=standing[rows],
        features=features,
        z=Scaler.fit(features, learned).transform(features) if len(rows) else features,
        model=processor.model,
    )
