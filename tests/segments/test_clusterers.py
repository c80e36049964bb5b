"""The clusterers beside k-means, against River itself, scikit-learn, and the truth of synthetic populations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from river.cluster import DBSTREAM, CluStream, DenStream
from scipy.spatial.distance import cdist
from sklearn.cluster import DBSCAN, AgglomerativeClustering, KMeans
from sklearn.datasets import make_moons
from sklearn.metrics import adjusted_rand_score

from stream.segments.clusterer_settings import (
    CluStreamSettings,
    DBStreamSettings,
    DenStreamSettings,
    HierarchicalSettings,
)
from stream.segments.clusterers import LEARNERS
from stream.segments.clusterers.clustream import CluStreamLearner
from stream.segments.clusterers.dbstream import DBStreamLearner
from stream.segments.clusterers.density import DensityLearner
from stream.segments.clusterers.denstream import DenStreamLearner, FadingMicroCluster
from stream.segments.clusterers.hierarchical import HierarchicalLearner, agglomerate
from stream.segments.clusterers.micro_clusters import MicroClusters
from stream.segments.learner import Learner
from stream.segments.prototypes import WITH_NOISE
from stream.segments.scaling import AffineMap
from stream.segments.settings import LearnerSettings

FloatArray = NDArray[np.float64]
Labels = NDArray[np.intp]
RNG = np.random.default_rng(0)
DENSITY: tuple[type[DensityLearner], ...] = (DBStreamLearner, DenStreamLearner)


def blobs(seed: int, rows: int, k: int = 5, d: int = 4, apart: float = 4.0) -> tuple[FloatArray, Labels]:
    rng = np.random.default_rng(seed)
    label = rng.integers(0, k, rows)
    return rng.normal(0, apart, (k, d))[label] + rng.normal(size=(rows, d)), label


def moons(seed: int, rows: int = 3_000, noise: float = 0.06) -> tuple[FloatArray, Labels]:
    z, label = make_moons(rows, noise=noise, random_state=seed)
    return (z - z.mean(axis=0)) / z.std(axis=0), label


def begun(kind: type[Learner], z: FloatArray, first: int = 1_000, **settings: Any) -> Learner:
    """Started on the first rows, and taught the others."""
    learner = kind.start(z[:first], np.arange(z.shape[1]), LearnerSettings(**settings))
    for row in z[first:]:
        learner.learn(row)
    for number in range(2):
        learner.repair(z, np.random.default_rng(number))
    return learner


def labelled(learner: Learner, z: FloatArray) -> Labels:
    """By the nearest prototype."""
    found = learner.prototypes()
    labels: Labels = found.groups[cdist(z, found.centres).argmin(axis=1)]
    return labels


def dicts(z: FloatArray) -> list[dict[int, float]]:
    return [dict(enumerate(row)) for row in z.tolist()]


def reviewed(learner: Learner) -> Learner:
    learner.repair(np.zeros((0, 0)), np.random.default_rng(0))
    return learner


# -- every clusterer ------------------------------------------------------------------------------------------------


def test_noise_is_known_by_the_algorithms_that_publish_borders() -> None:
    z, _ = blobs(0, 400, d=2)
    for name, kind in LEARNERS.items():
        found = begun(kind, z, 200, segments=5).prototypes()
        assert (found.radii is not None) == (name in WITH_NOISE), name
        assert (found.evident is not None) == (name in WITH_NOISE), name
        groups = int(found.groups.max()) + 1
        assert sorted(set(found.groups.tolist())) == list(range(groups)), name
        assert found.centres.shape == (len(found.groups), 2), name


@pytest.mark.parametrize("name", sorted(LEARNERS))
@pytest.mark.parametrize("d", [2, 4])
def test_gaussian_people_are_told_apart(name: str, d: int) -> None:
    rng = np.random.default_rng(d)
    centres = 7.0 * np.array([[0, 0, 0, 0], [1, 0, 0, 0], [0, 1, 0, 0], [1, 1, 1, 0], [2, 1, 0, 1.0]])[:, :d]
    truth = rng.integers(0, 5, 3_000)
    z = (centres[truth] + rng.normal(size=(3_000, d))) / 5.0
    assert adjusted_rand_score(truth, labelled(begun(LEARNERS[name], z, segments=5), z)) >= 0.98


@pytest.mark.parametrize("name", sorted(LEARNERS))
def test_a_learner_restored_between_reviews_ends_with_the_same_bits(name: str) -> None:
    z, _ = blobs(1, 1_200, d=3)
    kind, settings = LEARNERS[name], LearnerSettings(segments=5, dbstream=DBStreamSettings(half_life=100))
    learner = kind.start(z[:300], np.arange(3), settings)
    again = learner
    for at in range(300, 1_200, 300):
        again = kind.restore({key: array.copy() for key, array in again.state().items()}, settings)
        for row in z[at : at + 300]:
            learner.learn(row)
            again.learn(row)
        learner.repair(z[:at], np.random.default_rng(at))
        again.repair(z[:at], np.random.default_rng(at))
    one, two = learner.state(), again.state()
    assert one.keys() == two.keys()
    assert all(one[key].tobytes() == two[key].tobytes() and one[key].dtype == two[key].dtype for key in one)


@pytest.mark.parametrize("name", sorted(LEARNERS))
def test_learning_goes_on_across_a_change_of_scale(name: str) -> None:
    """The same people on axes of twice the size: what was learned there and here is the same."""
    z, _ = blobs(2, 1_500, d=3)
    change = AffineMap(np.full(3, 2.0), np.array([1.0, -2.0, 0.5]))
    moved = begun(LEARNERS[name], z[:900], 300, segments=5)
    moved.rescale(change, np.arange(3))
    stayed = begun(LEARNERS[name], z[:900], 300, segments=5)
    for row in z[900:]:
        stayed.learn(row)
        moved.learn(change(row))
    reviewed_z = z[900:]
    stayed.repair(reviewed_z, np.random.default_rng(0))
    moved.repair(change(reviewed_z), np.random.default_rng(0))
    assert np.allclose(moved.prototypes().centres, change(stayed.prototypes().centres), atol=1e-6)
    assert moved.prototypes().groups.tolist() == stayed.prototypes().groups.tolist()


@pytest.mark.parametrize("name", sorted(LEARNERS))
def test_features_may_come_and_go(name: str) -> None:
    z, _ = blobs(3, 600, d=3)
    learner = begun(LEARNERS[name], z, 400, segments=5)
    before = learner.prototypes().centres
    learner.select(np.array([2, -1, 0, 1]), np.array([0, 2, 3]))
    after = learner.prototypes().centres
    assert np.array_equal(after[:, [0, 2, 3]], before[:, [2, 0, 1]])
    assert not after[:, 1].any()
    learner.learn(np.array([1.0, 0.0, 2.0, 0.0]))
    learner.repair(np.zeros((50, 4)) + np.arange(50)[:, None], np.random.default_rng(0))
    assert learner.prototypes().centres.shape[1] == 4


# -- CluStream and what stands on it ----------------------------------------------------------------------------------


def test_micro_clusters_are_rivers_to_the_bit() -> None:
    z, _ = blobs(4, 1_500)
    settings = CluStreamSettings(micro_clusters=30, window=400)
    river: Any = CluStream(
        n_macro_clusters=5, max_micro_clusters=30, micro_cluster_r_factor=8, time_window=400, time_gap=100, seed=0
    )
    micro = MicroClusters(4, np.arange(4), settings)
    for number, (row, x) in enumerate(zip(z, dicts(z), strict=True)):
        river.learn_one(x)
        micro.learn(row)
        if number % 500 == 17:
            micro = MicroClusters.restore(micro.state(), settings)
    assert micro.centres().tolist() == [list(mc.center.values()) for mc in river.micro_clusters.values()]
    assert micro.state()["time"][:, 0].tolist() == [mc.weight for mc in river.micro_clusters.values()]


def test_the_dead_weigh_nothing() -> None:
    """River keeps the micro-clusters of people who left, at the weight that they had."""
    rng = np.random.default_rng(5)
    left, here = rng.normal(0, 1, (2_000, 2)), rng.normal(30, 1, (2_000, 2))
    micro = MicroClusters(2, np.arange(2), CluStreamSettings(window=1_000))
    for row in np.concatenate([left, here]):
        micro.learn(row)
    dead = micro.centres()[:, 0] < 15
    assert dead.any(), "River would have had to take them away"
    assert micro.state()["time"][dead, 0].sum() > 1_000
    weights = micro.weights()
    assert not weights[dead].any()
    assert 800 <= weights.sum() <= 1_200


def test_the_macro_step_is_a_weighted_k_means() -> None:
    z, truth = blobs(6, 4_000)
    settings = LearnerSettings(segments=5)
    learner = CluStreamLearner.start(z, np.arange(4), settings)
    learner.repair(z, np.random.default_rng(1))
    micro = learner._micro
    oracle = KMeans(5, n_init=10, random_state=0).fit(micro.centres(), sample_weight=micro.weights())
    found = learner.prototypes().centres
    nearest = np.sqrt(cdist(oracle.cluster_centers_, found).min(axis=1))
    assert nearest.max() < 0.05
    full = KMeans(5, n_init=5, random_state=0).fit(z)
    ours = adjusted_rand_score(truth, labelled(learner, z))
    assert ours >= 0.98 * adjusted_rand_score(truth, full.labels_)


def test_clustream_follows_people_who_move_and_keeps_its_places() -> None:
    rng = np.random.default_rng(7)
    kinds = 8.0 * np.array([[0, 0], [1, 0], [0, 1.0]])
    truth = rng.integers(0, 3, 3_000)
    settings = LearnerSettings(segments=3, clustream=CluStreamSettings(window=1_000))
    learner = CluStreamLearner.start(kinds[truth] + rng.normal(size=(3_000, 2)), np.arange(2), settings)
    before = learner.prototypes()
    drift = np.array([3.0, 3.0])
    for step in range(6_000):
        learner.learn(kinds[truth[step % 3_000]] + drift * min(1.0, step / 3_000) + rng.normal(size=2))
        if step % 1_000 == 999:
            learner.repair(np.zeros((0, 0)), rng)
    after = learner.prototypes()
    assert after.lasting
    assert np.abs(after.centres - before.centres - drift).max() < 0.6


@pytest.mark.parametrize("method", ["ward", "complete", "average", "single"])
def test_the_cut_by_number_is_scikit_learns(method: str) -> None:
    points = np.random.default_rng(8).normal(0, 3, (60, 3))
    settings = LearnerSettings(segments=7, hierarchical=HierarchicalSettings(linkage=method, trim=0))
    kept, groups = agglomerate(points, np.ones(60), settings)
    oracle = AgglomerativeClustering(7, linkage=method).fit_predict(points)
    assert np.array_equal(kept, points)
    assert adjusted_rand_score(oracle, groups) == 1.0


@pytest.mark.parametrize("distance", [1.0, 3.0, 9.0])
def test_the_cut_by_distance_is_scikit_learns(distance: float) -> None:
    points = np.random.default_rng(9).normal(0, 3, (60, 3))
    settings = LearnerSettings(hierarchical=HierarchicalSettings(distance=distance, trim=0))
    groups = agglomerate(points, np.ones(60), settings)[1]
    oracle = AgglomerativeClustering(None, linkage="ward", distance_threshold=distance).fit_predict(points)
    assert adjusted_rand_score(oracle, groups) == 1.0


def test_stragglers_are_no_segments() -> None:
    points = np.array([[0.0, 0], [0.5, 0], [9, 0], [9.5, 0], [50, 50]])
    weights = np.array([100.0, 90, 80, 70, 1])
    settings = LearnerSettings(segments=2)
    kept, groups = agglomerate(points, weights, settings)
    assert kept.tolist() == points[:4].tolist()
    assert groups.tolist() in ([0, 0, 1, 1], [1, 1, 0, 0])
    whole = settings.model_copy(update={"hierarchical": HierarchicalSettings(trim=0)})
    assert len(agglomerate(points, weights, whole)[0]) == 5


def test_single_linkage_follows_two_moons() -> None:
    z, truth = moons(0, noise=0.04)
    learner = begun(
        HierarchicalLearner,
        z,
        segments=2,
        clustream=CluStreamSettings(micro_clusters=120, r_factor=2),
        hierarchical=HierarchicalSettings(linkage="single", trim=0.05),
    )
    assert adjusted_rand_score(truth, labelled(learner, z)) >= 0.95


def test_clustream_and_hierarchical_know_when_they_must_start_anew() -> None:
    z, _ = blobs(0, 300, d=2)
    for kind in (CluStreamLearner, HierarchicalLearner):
        learner = begun(kind, z, 200, segments=5)
        more = LearnerSettings(segments=5, clustream=CluStreamSettings(micro_clusters=80))
        assert not learner.fits(more)
        again = kind.restore(learner.state(), more)
        assert not again.fits(more)


# -- DBSTREAM and DenStream ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", DENSITY)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_two_moons_are_two_segments(kind: type[DensityLearner], seed: int) -> None:
    z, truth = moons(seed)
    learner = begun(kind, z)
    assert adjusted_rand_score(truth, labelled(learner, z)) >= 0.95
    assert len(set(learner.prototypes().groups.tolist())) == 2
    oracle = DBSCAN(eps=0.2, min_samples=10).fit_predict(z)
    dense = oracle >= 0
    assert adjusted_rand_score(oracle[dense], labelled(learner, z)[dense]) >= 0.95


def test_rivers_own_labels_of_the_same_graph_are_much_worse() -> None:
    z, truth = moons(0)
    learner = begun(DBStreamLearner, z)
    assert isinstance(learner, DBStreamLearner)
    river: Any = DBSTREAM(
        clustering_threshold=learner._radius, fading_factor=1 / 5_000, cleanup_interval=1_000, intersection_factor=0.1
    )
    for x in dicts(z):
        river.learn_one(x)
    theirs = [river.predict_one(x) for x in dicts(z)]
    assert adjusted_rand_score(truth, theirs) < 0.5


def test_dbstreams_micro_clusters_are_rivers_to_the_bit() -> None:
    z, _ = moons(3, 1_200)
    learner = begun(DBStreamLearner, z, 400, dbstream=DBStreamSettings(radius=0.25))
    river: Any = DBSTREAM(
        clustering_threshold=0.25, fading_factor=1 / 5_000, cleanup_interval=1_000, intersection_factor=0.1
    )
    for x in dicts(np.concatenate([z[:400], z])):  # a start goes over its rows twice
        river.learn_one(x)
    assert isinstance(learner, DBStreamLearner)
    state = learner.river_state()
    assert state["key"].tolist() == list(river._micro_clusters)
    assert state["place"].tolist() == [list(mc.center.values()) for mc in river._micro_clusters.values()]
    assert state["weight"].tolist() == [mc.weight for mc in river._micro_clusters.values()]


def test_a_dead_micro_cluster_takes_its_shared_densities_along() -> None:
    rng = np.random.default_rng(10)
    z = np.cumsum(rng.normal(0, 0.05, (4_000, 2)), axis=0) + rng.normal(0, 0.3, (4_000, 2))
    learner = begun(DBStreamLearner, z, 200, dbstream=DBStreamSettings(radius=0.3, half_life=100))
    assert isinstance(learner, DBStreamLearner)
    here = set(learner.river._micro_clusters)
    assert len(here) < 150, "nothing died"
    assert set(learner.river.s) <= here
    assert {b for row in learner.river.s.values() for b in row} <= here


def test_denstreams_sums_fade_and_its_radius_is_the_root_mean_square() -> None:
    rng = np.random.default_rng(11)
    x = rng.normal(20.0, 1.5, (300, 3))  # River's own radius is 0 so far from the origin
    times = np.sort(rng.integers(0, 500, 300))
    one = FadingMicroCluster(dict(enumerate(x[0].tolist())), int(times[0]), 0.01)
    for row, at in zip(dicts(x[1:]), times[1:].tolist(), strict=True):
        expected = one.radius_with(row, at)
        one.insert(row, at)
        assert one.calc_radius(at) == pytest.approx(expected)
    weight = 2.0 ** (-0.01 * (times[-1] - times))
    centre = np.average(x, axis=0, weights=weight)
    assert [one.center[j] for j in range(3)] == pytest.approx(centre.tolist())
    spread = np.average(((x - centre) ** 2).sum(axis=1), weights=weight)
    assert one.calc_radius(500) == pytest.approx(float(np.sqrt(spread)))
    assert one.calc_weight(500) == pytest.approx(float((2.0 ** (-0.01 * (500 - times))).sum()))


def test_denstream_works_away_from_the_origin_where_rivers_does_not() -> None:
    z, truth = moons(4)
    learner = begun(DenStreamLearner, z + 5.0)
    assert adjusted_rand_score(truth, labelled(learner, z + 5.0)) >= 0.95
    assert isinstance(learner, DenStreamLearner)
    river: Any = DenStream(
        decaying_factor=1 / 5_000, beta=1.0, mu=3.0, epsilon=learner._radius, n_samples_init=600, stream_speed=1
    )
    for x in dicts(z + 5.0):
        river.learn_one(x)
    assert not any(mc.calc_radius(0) > 0 for mc in river.p_micro_clusters.values())
    assert all(0 < mc.calc_radius(0) <= learner._radius for mc in learner.river.p_micro_clusters.values())


@pytest.mark.parametrize("kind", DENSITY)
def test_what_nobody_is_near_is_noise(kind: type[DensityLearner]) -> None:
    z, _ = moons(5)
    rng = np.random.default_rng(0)
    scattered = rng.uniform(-4, 4, (3_000, 2))
    far = scattered[cdist(scattered, z).min(axis=1) > 1.0][:60]
    mixed = np.concatenate([z[:1_500], far, z[1_500:]])
    found = begun(kind, mixed).prototypes()
    radii = found.radii
    assert radii is not None

    def inside(points: FloatArray) -> NDArray[np.bool_]:
        near = cdist(points, found.centres) <= radii
        return np.asarray(near.any(axis=1))

    assert inside(far).mean() <= 0.05
    assert inside(z).mean() >= 0.97
    assert len(set(found.groups.tolist())) == 2


@pytest.mark.parametrize("kind", DENSITY)
def test_a_configured_radius_is_meant_literally(kind: type[DensityLearner]) -> None:
    z, _ = moons(6, 800)
    ask: Callable[[float | None], LearnerSettings] = lambda r: LearnerSettings(  # noqa: E731
        dbstream=DBStreamSettings(radius=r), denstream=DenStreamSettings(radius=r)
    )
    learner = kind.start(z, np.arange(2), ask(0.3))
    learner.rescale(AffineMap(np.full(2, 2.0), np.zeros(2)), np.arange(2))
    assert learner._radius == 0.3
    assert learner.fits(ask(0.3))
    assert learner.fits(ask(None))
    assert not learner.fits(ask(0.4))


@pytest.mark.parametrize("kind", DENSITY)
def test_people_who_are_all_alike_are_one_segment(kind: type[DensityLearner]) -> None:
    learner = kind.start(np.zeros((50, 2)), np.arange(2), LearnerSettings())
    found = learner.prototypes()
    assert found.groups.tolist() == [0] * len(found.groups)
    assert len(found.groups) >= 1


@pytest.mark.parametrize("kind", DENSITY)
def test_a_birth_and_a_merger_wait_for_a_second_review(kind: type[DensityLearner]) -> None:
    rng = np.random.default_rng(12)

    def at(place: float, n: int) -> FloatArray:
        return np.array([place, 0.0]) + rng.normal(0, 0.3, (n, 2))

    def taught(rows: FloatArray) -> None:
        for row in rng.permutation(rows):
            learner.learn(row)

    def groups() -> int:
        return len(set(learner.prototypes().groups.tolist()))

    radius = 0.4 if kind is DBStreamLearner else 0.25
    settings = LearnerSettings(
        dbstream=DBStreamSettings(radius=radius, half_life=500),
        denstream=DenStreamSettings(radius=radius, half_life=500),
    )
    learner = kind.start(rng.permutation(np.concatenate([at(0, 400), at(6, 400)])), np.arange(2), settings)
    assert groups() == 2
    # Somebody new: seen at the first review, believed at the second.
    taught(np.concatenate([at(0, 300), at(6, 300), at(12, 300)]))
    reviewed(learner)
    evident = learner.prototypes().evident
    assert evident is not None
    assert evident.tolist() == [True, True, False]
    reviewed(learner)
    evident = learner.prototypes().evident
    assert evident is not None
    assert evident.all()
    # The first two grow together.
    bridge = np.stack([rng.uniform(0, 6, 3_000), rng.normal(0, 0.3, 3_000)], axis=1)
    taught(np.concatenate([bridge, at(12, 500)]))
    reviewed(learner)
    assert groups() == 3
    reviewed(learner)
    assert groups() == 2
    # And part again.
    taught(np.concatenate([at(0, 2_000), at(6, 2_000), at(12, 800)]))
    reviewed(learner)
    assert groups() == 2
    reviewed(learner)
    assert groups() == 3
