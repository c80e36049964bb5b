"""How well the modeller follows streams whose truth is known, against k-means refitted on the last rows.

Each observation is a fresh draw, judged by the version that was published before it. The refit oracle sees the last
5,000 observations, unlimited in time. Short versions of what docs/quality.md measures at length.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score

from stream.anomalies.forest import ForestSettings
from stream.segments.modeller import Modeller
from stream.segments.observations import Observations, feature_fingerprint
from stream.segments.prototypes import Model
from stream.segments.scaling import Feature
from stream.segments.settings import ModellerSettings, ReviewSettings
from stream.transport.base import OutRecord
from tests.segments.test_modeller import records

FloatArray = NDArray[np.float64]
WINDOW = 1_000
USERS = 3_000
D = 8
FEATURES = [Feature(f"x{j}", log=False) for j in range(D)]
SETTINGS = ModellerSettings(
    review=ReviewSettings(observations=WINDOW, fewest=500), forest=ForestSettings(trees=2, height=3, rows=100)
)


class Window(NamedTuple):
    user: NDArray[np.int64]
    kind: NDArray[np.int64]
    x: FloatArray


class Shop:
    """Six kinds of users as Gaussians; a seventh may be born and one may die."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.centre = self.rng.normal(0, 1.9, (7, D))
        self.sigma = self.rng.uniform(0.7, 1.2, 7)
        self.kind = self.rng.choice(6, USERS, p=self.rng.dirichlet(np.full(6, 8.0)))
        self.drift = self.rng.normal(size=(7, D))
        self.drift /= np.linalg.norm(self.drift, axis=1, keepdims=True)

    def window(self) -> Window:
        user = self.rng.integers(0, USERS, WINDOW)
        kind = self.kind[user]
        return Window(user, kind, self.centre[kind] + self.rng.normal(size=(WINDOW, D)) * self.sigma[kind, None])


def static(shop: Shop, number: int) -> None:
    """Nothing changes."""


def drifting(shop: Shop, number: int) -> None:
    """Every kind wanders a way of its own, three standard deviations in all."""
    shop.centre = shop.centre + shop.drift * 0.15


def birth_and_death(shop: Shop, number: int) -> None:
    """A sixth of the users turn into a new kind; later one kind turns into the others."""
    if number == 5:
        shop.kind[shop.rng.random(USERS) < 1 / 6] = 6
    if number == 12:
        gone = shop.kind == 0
        shop.kind[gone] = shop.rng.integers(1, 6, int(gone.sum()))


class Verdict(NamedTuple):
    ours: FloatArray
    oracle: FloatArray
    """ARI of each window"""
    continuity: float
    """ARI of the ids over all windows, divided by the mean of the windows'"""
    ids: int
    versions: int


def follow(seed: int, change: Callable[[Shop, int], None], windows: int = 20) -> Verdict:
    shop = Shop(seed)
    modeller = Modeller(FEATURES, SETTINGS)
    modeller.restore(0, ())
    out: list[OutRecord] = []
    history: list[Window] = []
    ours, oracle, found, truth = [], [], [], []
    for number in range(windows):
        change(shop, number)
        now = shop.window()
        if modeller.model is not None:
            segment = modeller.model.segments[modeller.model.nearest(modeller.model.scale(now.x)).prototype]
            past = np.concatenate([w.x for w in history[-5:]])
            mean, spread = past.mean(axis=0), past.std(axis=0)
            refit = KMeans(6, n_init=2, random_state=0).fit((past - mean) / spread)
            ours.append(adjusted_rand_score(now.kind, segment))
            oracle.append(adjusted_rand_score(now.kind, refit.predict((now.x - mean) / spread)))
            found.append(segment)
            truth.append(now.kind)
        history.append(now)
        out += modeller.process({0: records([_observed(now, number)])}, None).records
    whole = adjusted_rand_score(np.concatenate(truth), np.concatenate(found))
    assert modeller.model is not None
    ids = {line.segment for record in out if record.value for line in Model.from_bytes(record.value).lineage}
    return Verdict(np.array(ours), np.array(oracle), whole / float(np.mean(ours)), len(ids), modeller.model.version)


def _observed(window: Window, number: int) -> Observations:
    n = len(window.user)
    return Observations(
        feature_fingerprint([f.name for f in FEATURES]),
        window.user.astype(np.uint64) + np.uint64(1),
        1_700_000_000_000 + (number * n + np.arange(n)) * 60_000,
        np.zeros(n, np.int32),
        np.zeros(n, np.uint8),
        np.ones(n),
        window.x,
    )


@pytest.mark.slow
@pytest.mark.parametrize("change", [static, drifting])
def test_it_follows_as_well_as_the_refit_oracle(change: Callable[[Shop, int], None]) -> None:
    verdicts = [follow(seed, change) for seed in range(3)]
    ratio = np.mean([v.ours.mean() for v in verdicts]) / np.mean([v.oracle.mean() for v in verdicts])
    assert ratio >= 0.98
    assert min(v.continuity for v in verdicts) >= 0.99
    assert max(v.ids for v in verdicts) == 6, "no event, no new id"
    assert change is drifting or max(v.versions for v in verdicts) <= 4, "and no versions for nothing"


@pytest.mark.slow
def test_nobody_is_stuck_after_a_birth_and_a_death() -> None:
    verdicts = [follow(seed, birth_and_death, windows=24) for seed in range(4)]
    stuck = [v for v in verdicts if v.ours[-2:].mean() < 0.93 * v.oracle[-2:].mean()]
    assert not stuck
    assert np.mean([v.continuity for v in verdicts]) >= 0.95
    assert max(v.ids for v in verdicts) <= 8
