"""The baselines against what they claim to be: scikit-learn's k-means, and River asked event by event."""

from __future__ import annotations

import numpy as np
import pytest
from river.cluster import KMeans
from river.preprocessing import StandardScaler
from scipy.spatial.distance import cdist
from sklearn.cluster import KMeans as BatchKMeans

from producers.shop import Shop, ShopSettings
from stream.backtest.history import scan
from stream.backtest.metrics import adjusted_rand
from stream.backtest.naive import SEED, Naive
from stream.backtest.oracle import Oracle
from stream.config import Config
from stream.features.events import IngestSettings
from stream.features.table import UserTable


def cloud(seed: int, users: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    kind = rng.integers(0, 6, users)
    return rng.normal(size=(users, 8)) + 2.2 * rng.normal(size=(6, 8))[kind], kind


def inertia(z: np.ndarray, labels: np.ndarray) -> float:
    return float(sum(((z[labels == c] - z[labels == c].mean(axis=0)) ** 2).sum() for c in np.unique(labels)))


@pytest.mark.parametrize("seed", range(5))
def test_the_oracle_is_as_good_as_sklearns(seed: int) -> None:
    z, _ = cloud(seed, 1_500)
    ours = Oracle(6, seed=seed).label(np.arange(len(z)), z)
    theirs = BatchKMeans(6, init="k-means++", n_init=10, random_state=seed).fit_predict(z)
    assert inertia(z, ours) <= 1.002 * inertia(z, theirs)
    agreement = adjusted_rand(ours, theirs)
    assert agreement is not None and agreement > 0.97


def test_the_oracles_ids_follow_the_people() -> None:
    oracle = Oracle(6, seed=3)
    z, _ = cloud(1, 1_200)
    rows = np.arange(1_200)
    first = oracle.label(rows, z)
    # The same people in another order of axes, a little moved, and with others: k-means starts elsewhere.
    moved = (z + 0.05 * np.random.default_rng(2).normal(size=z.shape))[:, ::-1]
    later = oracle.label(
        np.concatenate([rows[200:], np.arange(2_000, 2_200)]), np.concatenate([moved[200:], moved[:200]])
    )
    assert (first[200:] == later[:1_000]).mean() > 0.97
    assert len(oracle.label(np.arange(3), z[:3])) == 3
    assert len(oracle.label(np.empty(0, np.intp), z[:0])) == 0


def test_the_naive_learner_is_river_event_by_event() -> None:
    layout = Config().layout()
    history = scan(Shop(ShopSettings(users=25, days=6, seed=4)), IngestSettings())
    naive = Naive(layout, history.sample)

    table = UserTable(layout)
    learned = [i for i, feature in enumerate(layout.features) if feature.learn]
    pipeline = StandardScaler() | KMeans(seed=SEED)
    labels: dict[int, int] = {}
    flips: list[str] = []
    asked = 0
    until = history.start + 4 * 86_400_000
    for part in history.sample:
        for event, arrival in enumerate(part.arrival.tolist()):
            applied = table.apply(part.batch.take(np.array([event])))
            if arrival >= until or not len(applied.rows):
                continue
            row = int(applied.rows[0])
            x = np.nan_to_num(table.features(applied.rows, 0)[0, learned])
            pipeline.learn_one(dict(enumerate(x.tolist())))
            label = pipeline.predict_one(dict(enumerate(x.tolist())))
            if row in labels:
                asked += 1
                if labels[row] != label:
                    flips.append(part.batch.user_ids[event])
            labels[row] = label

    naive.advance(history.start + 86_400_000)
    told = naive.new_flips()
    naive.advance(until)
    assert told + naive.new_flips() == flips
    assert len(flips) > 10
    assert naive.changed_share == pytest.approx(len(flips) / asked)
    assert naive.new_flips() == []
    features = table.features(None, until)[:, learned]
    expected = [pipeline.predict_one(dict(enumerate(np.nan_to_num(row).tolist()))) for row in features]
    assert naive.label(features).tolist() == expected
    assert len(set(expected)) > 1


def test_before_any_event_the_naive_learner_has_one_cell() -> None:
    naive = Naive(Config().layout(), [])
    naive.advance(10**13)
    assert naive.label(np.ones((3, 17))).tolist() == [0, 0, 0]
    assert naive.changed_share is None


def test_cells_are_those_of_the_nearest_centre() -> None:
    z, kind = cloud(7, 600)
    labels = Oracle(6, seed=1).label(np.arange(600), z)
    centres = np.stack([z[labels == c].mean(axis=0) for c in np.unique(labels)])
    nearest = np.unique(labels)[cdist(z, centres).argmin(axis=1)]
    assert (nearest == labels).mean() > 0.99
    assert adjusted_rand(labels, kind) is not None
