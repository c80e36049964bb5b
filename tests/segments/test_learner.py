"""The learner against River's own KMeans, row by row, and its repair against a stuck start."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from river.cluster import KMeans

from stream.segments.clusterers import LEARNERS
from stream.segments.learner import KMeansLearner, Learner, QuickKMeans
from stream.segments.scaling import Feature, Scaler
from stream.segments.settings import LearnerSettings

FloatArray = NDArray[np.float64]


def plain_river(centres: FloatArray, halflife: float) -> Any:
    river: Any = KMeans(n_clusters=len(centres), halflife=halflife, seed=0)
    for number, row in enumerate(centres.tolist()):
        river.centers[number].update(enumerate(row))
    return river


def blobs(seed: int, rows: int, k: int = 4, d: int = 5, apart: float = 4.0) -> tuple[FloatArray, NDArray[np.intp]]:
    rng = np.random.default_rng(seed)
    label = rng.integers(0, k, rows)
    return rng.normal(0, apart, (k, d))[label] + rng.normal(size=(rows, d)), label


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 2**32 - 1), st.integers(1, 6), st.integers(1, 9), st.sampled_from([0.01, 0.1, 0.5]), st.booleans()
)
def test_quick_kmeans_is_river_to_the_bit(seed: int, k: int, d: int, halflife: float, grid: bool) -> None:
    rng = np.random.default_rng(seed)
    # On a grid, ties between centres are common.
    z: FloatArray = 0.1 * rng.integers(-2, 3, (120, d)).astype(float) if grid else rng.normal(size=(120, d))
    centres = z[:k].copy()
    quick: Any = QuickKMeans(centres, halflife)
    river = plain_river(centres, halflife)
    for row in z.tolist():
        x = dict(enumerate(row))
        assert quick.predict_one(x) == river.predict_one(x)
        quick.learn_one(x)
        river.learn_one(x)
    assert {c: dict(v) for c, v in quick.centers.items()} == {c: dict(v) for c, v in river.centers.items()}
    assert quick.points.tolist() == [list(v.values()) for v in river.centers.values()]


@pytest.fixture(params=sorted(LEARNERS))
def learner_class(request: pytest.FixtureRequest) -> type[Learner]:
    """Every learner there is keeps the same promises."""
    return LEARNERS[request.param]


ACTIVE = np.array([0, 2, 3, 4])


def started(learner_class: type[Learner], seed: int = 0) -> tuple[Learner, FloatArray]:
    z, _ = blobs(seed, 900)
    z[:, 1] = 0  # inert
    return learner_class.start(z[:400], ACTIVE, LearnerSettings(segments=4)), z[400:]


def test_a_restored_learner_goes_on_with_the_same_bits(learner_class: type[Learner]) -> None:
    learner, z = started(learner_class)
    for row in z[:250]:
        learner.learn(row)
    state = {name: array.copy() for name, array in learner.state().items()}
    again = learner_class.restore(state, LearnerSettings(segments=4))
    for row in z[250:]:
        learner.learn(row)
        again.learn(row)
    mine, theirs = learner.prototypes(), again.prototypes()
    assert mine.centres.tobytes() == theirs.centres.tobytes()
    assert mine.groups.tolist() == theirs.groups.tolist()
    for name, array in learner.state().items():
        assert array.tobytes() == again.state()[name].tobytes(), name


def test_what_is_not_finite_stays_outside(learner_class: type[Learner]) -> None:
    learner, z = started(learner_class)
    before = learner.prototypes().centres
    for bad in (np.nan, np.inf, -np.inf):
        row = z[0].copy()
        row[3] = bad
        with pytest.raises(ValueError, match="finite"):
            learner.learn(row)
    with pytest.raises(ValueError, match="5 numbers"):
        learner.learn(np.append(z[0], 1.0))
    assert np.array_equal(learner.prototypes().centres, before)


def test_inert_axes_stay_at_zero(learner_class: type[Learner]) -> None:
    learner, z = started(learner_class)
    for row in z:
        learner.learn(row)
    assert not learner.prototypes().centres[:, 1].any()


def test_it_says_whether_the_configuration_is_still_its_own(learner_class: type[Learner]) -> None:
    learner, _ = started(learner_class)
    assert learner.fits(LearnerSettings(segments=4))
    asked_for = learner_class.name in ("kmeans", "clustream", "hierarchical")
    assert learner.fits(LearnerSettings(segments=5)) != asked_for


def test_kmeans_learns_exactly_what_river_learns() -> None:
    learner, z = started(KMeansLearner)
    river = plain_river(learner.prototypes().centres[:, ACTIVE], LearnerSettings().step)
    for row in z:
        learner.learn(row)
        river.learn_one(dict(enumerate(row[ACTIVE].tolist())))
    assert learner.prototypes().centres[:, ACTIVE].tolist() == [list(c.values()) for c in river.centers.values()]


def test_the_warm_start_depends_on_nothing_but_rows_and_seed() -> None:
    z, _ = blobs(1, 300)
    every = np.arange(5)
    one, two = (KMeansLearner.start(z, every, LearnerSettings(segments=4)).prototypes().centres for _ in range(2))
    assert one.tobytes() == two.tobytes()
    other = KMeansLearner.start(z, every, LearnerSettings(segments=4, seed=8, restarts=1)).prototypes().centres
    assert other.tobytes() != one.tobytes()


def test_rescaling_takes_the_centres_along() -> None:
    rng = np.random.default_rng(2)
    x = rng.normal(size=(500, 3)) * [1, 10, 100] + [0, 5, -30]
    features = [Feature(f"f{j}", log=False) for j in range(3)]
    old, new = Scaler.fit(x, features), Scaler.fit(x * 2 + 3, features)
    learner = KMeansLearner.start(old.transform(x), old.active, LearnerSettings(segments=3))
    before = old.inverse(learner.prototypes().centres)
    learner.rescale(old.map_to(new), new.active)
    assert np.allclose(new.inverse(learner.prototypes().centres), before)


def test_features_may_come_go_and_change_places() -> None:
    learner, _ = started(KMeansLearner)
    before = learner.prototypes().centres
    learner.select(np.array([4, -1, 0]), np.array([0, 2]))
    after = learner.prototypes().centres
    assert np.array_equal(after[:, [0, 2]], before[:, [4, 0]])
    assert not after[:, 1].any()
    learner.learn(np.array([1.0, 0.0, 2.0]))


def test_repair_frees_stuck_centres_and_leaves_good_ones_alone() -> None:
    z, label = blobs(3, 2_000)
    truth = np.stack([z[label == c].mean(axis=0) for c in range(4)])
    rng = np.random.default_rng(0)
    # Two centres share one blob, and one stands between two others: River's small step never gets out of that.
    stuck = np.stack([truth[0] - 0.1, truth[0] + 0.1, truth[1], (truth[2] + truth[3]) / 2])
    learner = KMeansLearner(stuck, np.arange(5), LearnerSettings(segments=4))
    for row in z:
        learner.learn(row)
    assert learner.repair(z, rng)
    found = learner.prototypes().centres
    assert max(float(np.linalg.norm(found - t, axis=1).min()) for t in truth) < 0.2
    assert not learner.repair(z, rng)
    assert np.array_equal(learner.prototypes().centres, found)


def test_repair_keeps_the_places_of_those_that_stay() -> None:
    z, label = blobs(3, 2_000)
    truth = np.stack([z[label == c].mean(axis=0) for c in range(4)])
    stuck = np.stack([truth[3], truth[0] - 0.1, truth[2], truth[0] + 0.1])
    learner = KMeansLearner(stuck, np.arange(5), LearnerSettings(segments=4))
    assert learner.repair(z, np.random.default_rng(0))
    found = learner.prototypes().centres
    assert np.linalg.norm(found[0] - truth[3]) < 0.2
    assert np.linalg.norm(found[2] - truth[2]) < 0.2
