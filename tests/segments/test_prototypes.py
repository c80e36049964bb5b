"""Models: scoring equals River's predict_one, and a record comes back to the bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from river.cluster import KMeans

from schemas.model import ModelQuality, OutlierThresholds, SegmentModel, SegmentProfile
from stream.anomalies.forest import ForestSettings
from stream.anomalies.training import Trainer
from stream.segments.prototypes import Model, segment_id, segment_number
from stream.segments.scaling import Feature, Scaler

FloatArray = NDArray[np.float64]


def model_of(centres: FloatArray, segments: list[int] | None = None, **changes: Any) -> Model:
    """A model on an identity scale, so that rows are their own scaled rows."""
    p, d = centres.shape
    numbers = list(range(1, p + 1)) if segments is None else segments
    values: dict[str, Any] = {
        "version": 3,
        "created_at": 1_700_000_000_000,
        "algorithm": "kmeans",
        "observations": 1234,
        "scaler": Scaler(
            tuple(f"f{j}" for j in range(d)), np.zeros(d, bool), np.zeros(d), np.ones(d), np.ones(d), clip=1e6
        ),
        "centres": centres,
        "weights": np.full(p, 1.0 / p),
        "segments": np.array(numbers, np.int32),
        "radii": np.ones(p),
        "thresholds": OutlierThresholds(score=0.9, score_release=0.8, distance=5.0, distance_release=4.0),
        "quality": ModelQuality(panel=10, inertia=1.0),
        "profiles": tuple(
            SegmentProfile(
                id=segment_id(n),
                name=f"Name {n}",
                born_version=1,
                size=0.1,
                means={f"f{j}": None if j == 0 else float(j) / 3 for j in range(d)},
                z={f"f{j}": float(n) / 7 for j in range(d)},
            )
            for n in sorted(set(numbers))
        ),
    }
    return Model(**values | changes)


def river_kmeans(centres: FloatArray) -> Any:
    river: Any = KMeans(n_clusters=len(centres), halflife=0.01, seed=0)
    for number, row in enumerate(centres.tolist()):
        river.centers[number].update(enumerate(row))
    return river


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    k=st.integers(1, 9),
    d=st.integers(1, 12),
    grid=st.booleans(),
    twins=st.booleans(),
)
def test_nearest_is_rivers_predict_one_ties_included(seed: int, k: int, d: int, grid: bool, twins: bool) -> None:
    rng = np.random.default_rng(seed)
    # A coarse grid makes exact ties common, and one in steps of 0.1 ties that only rounding decides.
    draw = (
        (lambda *shape: rng.integers(-2, 3, shape) * rng.choice([0.1, 0.3, 1.0]))
        if grid
        else (lambda *shape: rng.normal(size=shape))
    )
    centres = np.array(draw(k, d), np.float64)
    if twins and k > 1:
        centres[k - 1] = centres[0]
    z = np.array(draw(80, d), np.float64)
    expected = [river_kmeans(centres).predict_one(dict(enumerate(row))) for row in z.tolist()]
    found = model_of(centres).nearest(z)
    assert found.prototype.tolist() == expected
    distance = np.sqrt(((z - centres[expected]) ** 2).sum(axis=1))
    assert np.allclose(found.distance, distance, atol=1e-12)


def test_a_tie_that_only_rivers_rounding_decides() -> None:
    """Python's x ** 2 is the C library's pow, which rounds one square in a thousand unlike x * x."""
    rng = np.random.default_rng(0)
    z = np.zeros((1, 2))
    differ = 0
    for a in rng.uniform(0, 10, 60_000).tolist():
        if a**2 == a * a:
            continue
        u = a * rng.random()
        centres = np.array([[a, 0.0], [u, np.sqrt(a * a - u * u)]])
        for pair in (centres, centres[::-1].copy()):
            model = model_of(pair)
            expected = river_kmeans(pair).predict_one({0: 0.0, 1: 0.0})
            assert model.nearest(z).prototype[0] == expected
            differ += int(model._squared(z).argmin() != expected)
    if not differ:
        pytest.skip("this C library rounds pow(x, 2) as x * x")


@given(st.integers(0, 2**32 - 1))
def test_answers_do_not_depend_on_the_batch(seed: int) -> None:
    rng = np.random.default_rng(seed)
    model = model_of(rng.normal(size=(5, 7)), [1, 4, 1, 9, 4])
    z = rng.normal(size=(40, 7))
    whole = model.nearest(z)
    cut = int(rng.integers(1, 40))
    parts = [model.nearest(z[:cut]), model.nearest(z[cut:])]
    for name in ("prototype", "distance", "runner_up"):
        assert np.array_equal(np.concatenate([getattr(p, name) for p in parts]), getattr(whole, name))
    assert np.array_equal(model.segment_distances(z)[cut:], model.segment_distances(z[cut:]))


def test_runner_up_and_distances_are_between_segments_not_prototypes() -> None:
    centres = np.array([[0.0], [1.0], [10.0]])
    model = model_of(centres, [5, 5, 2])
    z = np.array([[0.1], [9.0]])
    found = model.nearest(z)
    assert np.allclose(found.runner_up, [9.9, 8.0])
    assert model.segment_ids.tolist() == [2, 5]
    assert np.allclose(model.segment_distances(z), [[9.9, 0.1], [1.0, 8.0]])
    alone = model_of(centres, [5, 5, 5]).nearest(z)
    assert np.isinf(alone.runner_up).all()


def test_distances_by_segment_are_in_the_order_of_their_numbers() -> None:
    centres = np.array([[0.0], [1.0], [10.0]])
    assert np.allclose(model_of(centres, [7, 2, 4]).segment_distances(np.zeros((1, 1))), [[1.0, 10.0, 0.0]])


def test_a_record_comes_back_to_the_bit() -> None:
    rng = np.random.default_rng(1)
    x = rng.lognormal(1, 1, size=(400, 5))
    scaler = Scaler.fit(x, [Feature(f"f{j}") for j in range(5)])
    forest = Trainer(ForestSettings(trees=3, height=4)).train(scaler.transform(x), scaler.weight)
    model = model_of(rng.normal(size=(6, 5)), [1, 2, 3, 4, 9, 9], scaler=scaler, forest=forest)
    again = Model.from_bytes(model.to_bytes())
    assert again.to_record() == model.to_record()
    for name in ("centres", "weights", "segments", "radii"):
        assert getattr(again, name).tobytes() == getattr(model, name).tobytes()
    z = model.scale(x)
    assert again.scale(x).tobytes() == z.tobytes()
    assert np.array_equal(again.outlier_scores(z), model.outlier_scores(z))
    assert again.nearest(z).distance.tobytes() == model.nearest(z).distance.tobytes()
    assert (again.names, again.means) == (model.names, model.means)


def test_a_model_cannot_be_changed() -> None:
    model = model_of(np.zeros((2, 2)))
    with pytest.raises(ValueError, match="read-only"):
        model.centres[0, 0] = 1
    with pytest.raises(AttributeError):
        model.version = 4  # type: ignore[misc]


def test_parts_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="model 3: 2 segment labels"):
        model_of(np.zeros((2, 2)), radii=np.ones(3))
    with pytest.raises(ValueError, match="finite"):
        model_of(np.array([[np.nan, 0.0]]))
    record = model_of(np.zeros((2, 2))).to_record()
    with pytest.raises(ValueError, match="seg-1, seg-2"):
        Model.from_record(
            record.model_copy(update={"prototypes": record.prototypes.model_copy(update={"segments": ("a", "b")})})
        )
    with pytest.raises(ValueError, match="version"):
        Model.from_bytes(b"{}")


def test_columns_are_found_by_name_and_missing_ones_are_named() -> None:
    model = model_of(np.zeros((1, 3)))
    assert model.columns(["x", "f2", "f0", "f1"]).tolist() == [2, 3, 1]
    with pytest.raises(ValueError, match="f0, f2"):
        model.columns(["f1"])


def test_centre_of_a_segment_with_several_prototypes() -> None:
    model = model_of(np.array([[0.0], [4.0], [9.0]]), [1, 1, 2], weights=np.array([0.3, 0.1, 0.6]))
    centre = model.centre_of(1)
    assert centre is not None
    assert np.allclose(centre, [1.0])
    assert model.centre_of(3) is None


def test_without_a_forest_nobody_scores() -> None:
    model = model_of(np.zeros((1, 2)))
    assert model.to_record().forest is None
    assert model.outlier_scores(np.ones((3, 2))).tolist() == [0, 0, 0]


@pytest.mark.parametrize("text", ["seg-0", "seg--1", "seg-", "seg-١", "newcomer", "7", "seg-1x", ""])
def test_only_learned_segments_have_numbers(text: str) -> None:
    with pytest.raises(ValueError, match="seg-1"):
        segment_number(text)


def test_segment_ids_round_trip() -> None:
    assert [segment_number(segment_id(n)) for n in (1, 42)] == [1, 42]


def test_the_record_says_what_it_is_in_json() -> None:
    record = SegmentModel.model_validate_json(model_of(np.zeros((2, 2))).to_bytes())
    assert record.prototypes.segments == ("seg-1", "seg-2")
    assert record.profiles[0].means == {"f0": None, "f1": 1 / 3}
