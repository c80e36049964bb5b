"""The exported forest against River's own score_one: equality is to the bit, so that no tolerance hides a slip."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from river import anomaly, datasets
from sklearn.metrics import roc_auc_score

from stream import kernels
from stream.anomalies.forest import Forest, ForestSettings
from stream.anomalies.training import Trainer, from_river, to_river, untrained
from stream.segments.scaling import Feature, Scaler

pytestmark = pytest.mark.usefixtures("either_kernels")

FloatArray = NDArray[np.float64]


def river_scores(river: Any, z: FloatArray) -> FloatArray:
    """One at a time; NaN is a missing feature."""
    rows = [{axis: value for axis, value in enumerate(row) if value == value} for row in z.tolist()]
    return np.array([river.score_one(row) for row in rows], np.float64)


def learned(z: FloatArray, window_size: int, height: int = 6, trees: int = 7, seed: int = 1) -> Any:
    limits: Any = dict.fromkeys(range(z.shape[1]), (-4.0, 4.0))
    river: Any = anomaly.HalfSpaceTrees(n_trees=trees, height=height, window_size=window_size, limits=limits, seed=seed)
    for row in z.tolist():
        river.learn_one(dict(enumerate(row)))
    return river


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    rows=st.integers(1, 400),
    window=st.integers(1, 120),
    height=st.integers(1, 8),
    width=st.integers(1, 6),
)
def test_score_is_rivers_to_the_bit(seed: int, rows: int, window: int, height: int, width: int) -> None:
    rng = np.random.default_rng(seed)
    river = learned(rng.normal(size=(rows, width)), window, height=height, seed=seed % 1000)
    # Far outside the limits, on thresholds exactly, and partly missing: all must go the way River goes.
    z = rng.normal(size=(60, width)) * rng.choice([0.5, 3.0, 1e6], size=(60, 1))
    forest = from_river(river)
    z[:10, 0] = rng.choice(forest.threshold.ravel(), 10)
    z[20:40][rng.random((20, width)) < 0.4] = np.nan
    assert np.array_equal(forest.score(z), river_scores(river, z))
    assert np.array_equal(forest.score(z[:1]), forest.score(z)[:1])


def test_early_stop_is_exercised() -> None:
    z = np.random.default_rng(3).normal(size=(500, 4))
    forest = from_river(learned(z, 250, height=8))
    # Below a tenth of the window River stops; a forest in which that never happens would prove nothing.
    assert (forest.mass[:, 1:] < 25).mean() > 0.5
    assert (forest.mass[:, 1:] >= 25).any()


def test_before_the_first_full_window_scores_are_zero() -> None:
    z = np.random.default_rng(4).normal(size=(30, 3))
    river = learned(z, 31)
    assert river.score_one(dict(enumerate(z[0].tolist()))) == 0
    assert np.array_equal(from_river(river).score(z), np.zeros(30))


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), first=st.integers(1, 130), more=st.integers(0, 150))
def test_a_rebuilt_forest_learns_on_as_if_nothing_had_happened(seed: int, first: int, more: int) -> None:
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(first + more, 3))
    river = learned(z[:first], 50)
    again: Any = to_river(Forest.from_record(from_river(river).to_record()))
    for row in z[first:].tolist():
        river.learn_one(dict(enumerate(row)))
        again.learn_one(dict(enumerate(row)))
    probes = rng.normal(size=(20, 3)) * 3
    assert np.array_equal(river_scores(river, probes), river_scores(again, probes))
    assert np.array_equal(from_river(again).live, from_river(river).live)


def test_the_trainer_is_river_on_exactly_one_window() -> None:
    rng = np.random.default_rng(5)
    config = ForestSettings(trees=9, height=6, rows=300)
    weight = np.array([1.0, 0.0, 1.0, 1.0])
    trainer = Trainer(config)
    trainer.train(rng.normal(size=(170, 4)), weight)  # an earlier window, of another size, must leave no trace
    z = rng.normal(size=(250, 4))
    forest = trainer.train(z, weight)
    assert forest is not None
    river: Any = untrained(weight, config, len(z))
    for row in z.tolist():
        river.learn_one(dict(enumerate(row)))
    probes = rng.normal(size=(100, 4)) * 3
    assert np.array_equal(forest.score(probes), river_scores(river, probes))
    assert 1 not in set(forest.feature.ravel().tolist()), "an inert axis must not be split"


def test_the_trainer_thins_evenly_and_refuses_nan() -> None:
    rng = np.random.default_rng(6)
    z = rng.normal(size=(1_000, 2))
    trainer = Trainer(ForestSettings(trees=2, height=3, rows=100))
    forest = trainer.train(z, np.ones(2))
    assert forest is not None
    assert forest.window_size == 100
    assert forest.mass[:, 0].tolist() == [100, 100]
    z[500, 1] = np.nan
    with pytest.raises(ValueError, match="finite"):
        trainer.train(z, np.ones(2))
    assert trainer.train(z[:10], np.zeros(2)) is None
    assert trainer.train(z[:0], np.ones(2)) is None


def test_record_round_trip_to_the_bit() -> None:
    z = np.random.default_rng(7).normal(size=(330, 5))
    forest = from_river(learned(z, 100, height=5))
    again = Forest.from_record(forest.to_record().model_validate_json(forest.to_record().model_dump_json()))
    for name in ("feature", "threshold", "mass", "live"):
        assert np.array_equal(getattr(again, name), getattr(forest, name)), name
    assert (again.counter, again.first_window, again.window_size) == (30, False, 100)


def test_damaged_arrays_are_refused() -> None:
    record = from_river(learned(np.zeros((5, 2)), 5, height=3)).to_record()
    with pytest.raises(ValueError, match="damaged"):
        Forest.from_record(record.model_copy(update={"mass": record.mass[:-8]}))
    with pytest.raises(ValueError, match="7 x 15"):
        Forest.from_record(record.model_copy(update={"mass": record.threshold}))
    with pytest.raises(ValueError, match="learned nothing"):
        from_river(untrained(np.ones(2), ForestSettings(), 10))


def test_shuttle_auc_and_equality() -> None:
    if not (Path(datasets.__file__).parent / "shuttle.csv.gz").exists():
        pytest.skip("this River does not ship the Shuttle data")
    rows = [(list(x.values()), label) for x, label in datasets.Shuttle()]
    x = np.array([row for row, _ in rows], np.float64)
    label = np.array([int(label) for _, label in rows])
    reference = x[:5_000]
    scaler = Scaler.fit(reference, [Feature(str(axis)) for axis in range(x.shape[1])])
    config = ForestSettings()
    forest = Trainer(config).train(scaler.transform(reference), scaler.weight)
    assert forest is not None
    z = scaler.transform(x)
    score = forest.score(z)
    assert roc_auc_score(label, score) >= 0.99
    some = np.random.default_rng(8).choice(len(z), 500, replace=False)
    assert np.array_equal(score[some], river_scores(to_river(forest), z[some]))


# The compiled kernel

needs_kernels = pytest.mark.skipif(not kernels.built(), reason="the kernels are not compiled here")


@needs_kernels
@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    rows=st.integers(0, 300),
    trees=st.integers(1, 9),
    height=st.integers(1, 7),
    width=st.integers(1, 6),
    odd=st.lists(st.floats(), max_size=20),
)
def test_the_kernel_gives_the_same_bits(
    seed: int, rows: int, trees: int, height: int, width: int, odd: list[float]
) -> None:
    """For any trees and masses, not only for those that learning makes, and for any numbers."""
    rng = np.random.default_rng(seed)
    inner = 2**height - 1
    forest = Forest(
        window_size=int(rng.integers(1, 1000)),
        feature=rng.integers(0, width, (trees, inner)).astype(np.int16),
        threshold=rng.normal(size=(trees, inner)),
        mass=rng.integers(0, 2**31, (trees, 2 * inner + 1)).astype(np.int32),
        live=rng.integers(0, 3, (trees, 2 * inner + 1)).astype(np.int32),
    )
    z = rng.choice([*odd, np.nan, *forest.threshold.ravel()[:50], *rng.normal(size=50)], size=(rows, width))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels, "_on", False)
        plain = forest.score(z)
        patch.setattr(kernels, "_on", True)
        assert forest.score(z).tobytes() == plain.tobytes()
        assert forest.score(np.asfortranarray(z)).tobytes() == plain.tobytes()


@needs_kernels
def test_trees_that_do_not_fit_are_refused() -> None:
    good: dict[str, Any] = {
        "z": np.zeros((2, 3)),
        "feature": np.full((4, 7), 2, np.int16),
        "threshold": np.zeros((4, 7)),
        "missing_right": np.zeros(28, np.uint8),
        "worth": np.zeros(32),
        "out": np.zeros(2),
    }
    kernels.forest.collect(*good.values())
    wrong: dict[str, list[Any]] = {
        "z": [np.zeros((2, 2)), np.zeros((3, 3)), np.zeros((2, 0))],
        "feature": [
            np.full((4, 7), 3, np.int16),
            np.full((4, 7), -1, np.int16),
            np.full((4, 6), 2, np.int16),
            np.full((4, 0), 2, np.int16),
            np.full((5, 7), 2, np.int16),
        ],
        "threshold": [np.zeros((4, 6)), np.zeros((3, 7))],
        "missing_right": [np.zeros(27, np.uint8)],
        "worth": [np.zeros(31)],
        "out": [np.zeros(1), np.zeros(3)],
    }
    for name, arrays in wrong.items():
        for array in arrays:
            with pytest.raises(ValueError):
                kernels.forest.collect(*(good | {name: array}).values())
