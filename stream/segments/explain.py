"""Why a user is in a segment: features against the segment and the population, rivals, and the history of changes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from stream.features.layout import EVENTS, FIRST, LAST, Layout
from stream.segments.assign import BUILT_IN_NAMES, QUARANTINE, segment_name
from stream.segments.population import Population
from stream.segments.prototypes import Model
from stream.segments.rule_slots import read_words


@dataclass(frozen=True, slots=True)
class FeatureLine:
    """One feature of a user. `z` is against the population; `pull` how much it speaks for the segment against its
    nearest rival, as a share of everything that speaks for it or against it (negative: it speaks for the rival)."""

    name: str
    title: str
    unit: str
    value: float | None
    segment_mean: float | None
    z: float | None
    pull: float | None


@dataclass(frozen=True, slots=True)
class Explanation:
    """What is known of one user at `at`."""

    user_id: str
    at: int
    segment: dict[str, Any] | None
    since: int
    changes: int
    events: int
    first_seen: int
    last_seen: int
    model_version: int
    rival: dict[str, Any] | None
    distance: float | None
    rival_distance: float | None
    pending: dict[str, Any] | None
    score: float | None
    held: bool
    rules: tuple[dict[str, str], ...]
    features: tuple[FeatureLine, ...]


def explain(user_id: str, population: Population, layout: Layout, model: Model | None, at: int) -> Explanation | None:
    """Explain a user at time `at` (ms); None where the population does not know them."""
    table = population.table
    row = table.lookup(user_id)
    if row is None:
        return None
    column = {name: table.column(name)[row].item() for name in _COLUMNS}
    segment = column["segment"]
    values = table.features(np.array([row]), at)[0]
    scored = _Scored(model, layout, values, segment) if model is not None else None
    lines = tuple(
        FeatureLine(
            feature.name,
            feature.title,
            feature.unit,
            None if np.isnan(value) else float(value),
            scored.mean(feature.name) if scored else None,
            scored.z.get(feature.name) if scored else None,
            scored.pull.get(feature.name) if scored else None,
        )
        for feature, value in zip(layout.features, values, strict=True)
    )
    names = model.names if model else {}
    return Explanation(
        user_id=user_id,
        at=at,
        segment=_reference(segment, names),
        since=column["since"],
        changes=column["sequence"],
        events=column[EVENTS],
        first_seen=column[FIRST],
        last_seen=column[LAST],
        model_version=model.version if model else 0,
        rival=_reference(scored.rival, names) if scored else None,
        distance=scored.distance if scored else None,
        rival_distance=scored.rival_distance if scored else None,
        pending=_reference(column["candidate"], names),
        score=scored.score if scored else None,
        held=segment == QUARANTINE,
        rules=tuple({"id": slot.id, "name": slot.name} for slot in population.rules.of(read_words(table, [row]))),
        features=lines,
    )


_COLUMNS = ("segment", "candidate", "since", "sequence", EVENTS, FIRST, LAST)


class _Scored:
    """A user under a model: distances, the nearest rival, and what each feature adds."""

    def __init__(
        self, model: Model, layout: Layout, values: np.ndarray[Any, np.dtype[np.float64]], segment: int
    ) -> None:
        self._model = model
        own_values = values[model.columns(layout.names)][None, :]
        z = model.scale(own_values)
        distances = dict(zip(model.segment_ids.tolist(), model.segment_distances(z)[0].tolist(), strict=True))
        own = distances.pop(segment, None)
        self._segment = segment
        self.rival = min(distances, key=lambda one: distances[one]) if distances else 0
        self.distance = own
        self.rival_distance = distances.get(self.rival)
        self.score = float(model.outlier_scores(z)[0])
        self.z = dict(zip(model.features, model.scaler.standardise(own_values)[0].tolist(), strict=True))
        self.pull: dict[str, float] = {}
        mine, theirs = model.centre_of(segment), model.centre_of(self.rival)
        if mine is not None and theirs is not None:
            parts = (z[0] - theirs) ** 2 - (z[0] - mine) ** 2
            total = float(np.abs(parts).sum())
            if total > 0:
                self.pull = dict(zip(model.features, (parts / total).tolist(), strict=True))

    def mean(self, feature: str) -> float | None:
        """The segment's typical value."""
        return (self._model.means.get(self._segment) or {}).get(feature)


def _reference(segment: int, names: dict[int, str]) -> dict[str, Any] | None:
    identifier = segment_name(segment)
    if identifier is None:
        return None
    return {"id": identifier, "name": BUILT_IN_NAMES.get(segment) or names.get(segment)}
