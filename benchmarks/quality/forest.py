"""The anomaly forest on Shuttle, which ships with River: how well it ranks, and whether numpy says what River says.

As live: a panel of the first rows, unlabelled, anomalies among them, gives the scale and trains the forest; all later
rows are scored.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from river import datasets
from sklearn.metrics import average_precision_score, roc_auc_score

from stream.anomalies.forest import ForestSettings
from stream.anomalies.training import Trainer, to_river
from stream.features.spec import parse_features
from stream.segments.scaling import Scaler

PANEL: Final = 5_000
COMPARED: Final = 3_000
"""Rows scored by River too, one by one."""


@dataclass(frozen=True, slots=True)
class Found:
    """Of the whole data set."""

    auc: float
    precision: float
    bit_equal: bool
    rows: int


def run() -> Found:
    """Once; it is seeded."""
    rows, anomalous = [], []
    for x, y in datasets.Shuttle():
        rows.append(list(x.values()))
        anomalous.append(bool(y))
    data, truth = np.array(rows, np.float64), np.array(anomalous)
    features = parse_features(
        [{"name": f"sensor_{j}", "aggregate": "count", "half_life": "1d", "log": False} for j in range(data.shape[1])]
    )
    scaler = Scaler.fit(data[:PANEL], features)
    forest = Trainer(ForestSettings()).train(scaler.transform(data[:PANEL]), scaler.weight)
    assert forest is not None
    z = scaler.transform(data[PANEL:])
    score = forest.score(z)
    river: Any = to_river(forest)
    told = [river.score_one(dict(enumerate(row))) for row in z[:COMPARED].tolist()]
    return Found(
        auc=float(roc_auc_score(truth[PANEL:], score)),
        precision=float(average_precision_score(truth[PANEL:], score)),
        bit_equal=told == score[:COMPARED].tolist(),
        rows=len(z),
    )
