"""The modeller with each clusterer, end to end: versions, identities, restarts and noise."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.datasets import make_moons
from sklearn.metrics import adjusted_rand_score

from stream.anomalies.forest import ForestSettings
from stream.segments.assign import (
    BEHAVIOUR,
    MODEL,
    NEWCOMER,
    NONE,
    QUARANTINE,
    DecisionSettings,
    Standing,
    assign,
)
from stream.segments.clusterers import LEARNERS
from stream.segments.modeller import Modeller
from stream.segments.observations import Observations
from stream.segments.prototypes import WITH_NOISE, Model
from stream.segments.scaling import Feature
from stream.segments.settings import LearnerSettings, ModellerSettings, ReviewSettings, WarmUpSettings
from tests.segments.test_modeller import START, cut, feed, fresh, observed, published, restored

FloatArray = NDArray[np.float64]
Labels = NDArray[np.intp]
FEATURES = [Feature("spend", log=False), Feature("visits", log=False)]


def asked(name: str, segments: int = 4) -> ModellerSettings:
    return ModellerSettings(
        learner=LearnerSettings(algorithm=name, segments=segments),
        warm_up=WarmUpSettings(users=1_500),
        review=ReviewSettings(observations=1_000, fewest=1_000),
        forest=ForestSettings(trees=3, height=4, rows=200),
        buffer=2_000,
    )


def people(x: FloatArray) -> Observations:
    n = len(x)
    return observed(np.arange(n), START + np.arange(n) * 1_000, x, FEATURES)


def blobs(seed: int, rows: int) -> tuple[FloatArray, Labels]:
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 4, rows)
    return 7.0 * np.array([[0, 0], [1, 0], [0, 1], [1, 1.0]])[truth] + rng.normal(size=(rows, 2)), truth


def moons(seed: int, rows: int) -> tuple[FloatArray, Labels]:
    return make_moons(rows, noise=0.06, random_state=seed)  # type: ignore[no-any-return]


def segments_of(model: Model, x: FloatArray) -> NDArray[np.int32]:
    return model.segments[model.nearest(model.scale(x)).prototype]


@pytest.mark.parametrize("name", sorted(LEARNERS))
def test_gaussian_people_are_found_and_keep_their_ids(name: str) -> None:
    x, truth = blobs(0, 4_000)
    modeller = fresh(asked(name), FEATURES)
    versions = published(feed(modeller, people(x)).records)
    assert modeller.counters["reviews"] >= 3
    for model in versions:
        assert model.algorithm == name
        assert len(model.segment_ids) == 4
    assert all(line.kind == "survived" for model in versions[1:] for line in model.lineage)
    newest = Model.from_bytes(versions[-1].to_bytes())
    assert adjusted_rand_score(truth, segments_of(newest, x)) >= 0.98
    assert newest.weights.sum() == pytest.approx(1.0)
    assert (len(newest.centres) > 4) == (name not in ("kmeans", "clustream"))


@pytest.mark.parametrize("name", sorted(WITH_NOISE))
def test_two_moons_become_two_segments(name: str) -> None:
    x, truth = moons(1, 5_000)
    versions = published(feed(fresh(asked(name), FEATURES), people(x)).records)
    assert len(versions[-1].segment_ids) == 2
    assert adjusted_rand_score(truth, segments_of(versions[-1], x)) >= 0.95


@pytest.mark.parametrize("name", sorted(LEARNERS))
def test_a_crash_changes_nothing(name: str) -> None:
    x, _ = blobs(2, 3_500)
    seen = people(x)
    config = asked(name)
    expected = feed(fresh(config, FEATURES), seen).records
    modeller = fresh(config, FEATURES)
    config_often = config.model_copy(update={"checkpoint_observations": 1})
    modeller = Modeller(FEATURES, config_often)
    modeller.restore(0, ())
    records = []
    for at in range(0, len(seen), 700):
        output = feed(modeller, cut(seen, at, at + 700))
        records += output.records
        modeller = restored(output, config_often, FEATURES)
    assert records == expected


@pytest.mark.parametrize("name", sorted(set(LEARNERS) - {"kmeans"}))
def test_another_clusterer_takes_the_segments_over(name: str) -> None:
    x, _ = blobs(3, 2_200)
    seen = people(x)
    before = feed(fresh(asked("kmeans"), FEATURES), cut(seen, 0, 1_700))
    modeller = restored(before, asked(name), FEATURES)
    after = published(feed(modeller, cut(seen, 1_700, 2_200)).records)
    assert after[0].algorithm == name
    assert {line.kind for line in after[0].lineage} == {"survived"}
    old = published(before.records)[-1]
    assert (segments_of(old, x) == segments_of(after[0], x)).mean() >= 0.98


def test_noise_keeps_what_it_has_and_enters_nothing() -> None:
    segments = np.array([3, 8], np.int32)
    current = np.array([3, NONE, NEWCOMER, 5, QUARANTINE, NEWCOMER, 8, NONE], np.int32)
    noise = np.array([True] * 7 + [False])
    n = len(current)
    standing = Standing.nowhere(n)
    standing.segment[:] = current
    standing.candidate[:] = np.where(current == 3, 8, 0)
    standing.looks[:] = 1
    newcomer = np.array([False] * 5 + [True, False, False])
    distances = np.tile([9.0, 2.0], (n, 1))
    once = DecisionSettings(looks=1, dwell=0)
    for look in (BEHAVIOUR, MODEL):
        held = np.zeros(n, np.bool_)
        decided = assign(distances, segments, standing, newcomer, held, look, 0, once, noise)
        assert decided.standing.segment.tolist() == [3, NONE, NONE, NONE, NONE, NEWCOMER, 8, 8]
        assert not decided.standing.candidate.any()
    plain = assign(distances, segments, standing, newcomer, held, BEHAVIOUR, 0, once)
    assert plain.standing.segment.tolist() == [8, 8, 8, 8, 8, NEWCOMER, 8, 8]


def test_only_algorithms_with_borders_have_noise() -> None:
    x, _ = blobs(4, 2_000)
    far = np.array([[3.5, 30.0], [100.0, 100.0]])
    for name in sorted(LEARNERS):
        model = published(feed(fresh(asked(name), FEATURES), people(x)).records)[-1]
        noise = model.noise(model.scale(np.concatenate([x, far])))
        if name in WITH_NOISE:
            assert noise is not None
            assert noise[-2:].all()
            assert noise[:-2].mean() <= 0.1
        else:
            assert noise is None


@pytest.mark.parametrize("name", sorted(WITH_NOISE))
def test_where_nothing_stands_apart_there_is_one_segment_and_a_warning(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    x = np.random.default_rng(5).normal(size=(2_600, 12))
    features = [Feature(f"f{j}", log=False) for j in range(12)]
    seen = observed(np.arange(len(x)), START + np.arange(len(x)) * 1_000, x, features)
    model = published(feed(fresh(asked(name), features), seen).records)[-1]
    assert len(model.segment_ids) == 1
    assert f"{name} on 12 features" in caplog.text
    noise = model.noise(model.scale(x))
    assert noise is not None
    assert noise.mean() < 0.05
