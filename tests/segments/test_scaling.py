"""The scaler: robustness that the textbook z-score lacks, and algebra that must be exact."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from stream.segments.scaling import CLIP, Feature, Scaler, weighted_quantiles

FloatArray = NDArray[np.float64]


def named(count: int, log: bool | None = None) -> list[Feature]:
    return [Feature(f"f{j}", log=log) for j in range(count)]


finite = st.floats(-1e9, 1e9, allow_nan=False)
matrices = hnp.arrays(
    np.float64, hnp.array_shapes(min_dims=2, max_dims=2, max_side=12), elements=finite | st.just(np.nan)
)


@given(matrices, st.booleans() | st.none())
def test_transform_is_finite_bounded_and_row_by_row(x: FloatArray, log: bool | None) -> None:
    scaler = Scaler.fit(x, named(x.shape[1], log))
    z = scaler.transform(x)
    assert np.isfinite(z).all()
    assert (np.abs(z) <= CLIP).all()
    assert (z[np.isnan(x)] == 0).all()
    assert z.flags.c_contiguous
    for i in range(len(x)):
        assert np.array_equal(scaler.transform(x[i : i + 1]), z[i : i + 1])


@given(matrices)
def test_transform_is_monotone_and_leaves_its_input_alone(x: FloatArray) -> None:
    before = x.copy()
    z = Scaler.fit(x, named(x.shape[1])).transform(x)
    assert np.array_equal(x, before, equal_nan=True)
    for column, scaled in zip(x.T, z.T, strict=True):
        known = ~np.isnan(column)
        order = np.argsort(column[known], kind="stable")
        assert (np.diff(scaled[known][order]) >= 0).all()


def test_a_gaussian_becomes_standard() -> None:
    x = np.random.default_rng(0).normal(40, 7, size=(20_000, 1))
    z = Scaler.fit(x, named(1, log=False)).transform(x)
    assert abs(float(np.median(z))) < 0.02
    assert abs(float(z.std()) - 1) < 0.05


def test_a_lognormal_is_recognised_as_skewed_and_a_gaussian_or_debt_is_not() -> None:
    rng = np.random.default_rng(1)
    x = np.column_stack([rng.lognormal(3, 1, 5_000), rng.normal(50, 5, 5_000), -rng.lognormal(3, 1, 5_000)])
    assert Scaler.fit(x, named(3)).log.tolist() == [True, False, False]
    assert Scaler.fit(x, [Feature("a", log=False), Feature("b", log=True), Feature("c")]).log.tolist() == [
        False,
        True,
        False,
    ]


def test_constant_and_unknown_features_are_inert() -> None:
    x = np.column_stack([np.full(50, 7.3), np.full(50, np.nan), np.arange(50.0)])
    scaler = Scaler.fit(x, named(3))
    assert scaler.active.tolist() == [2]
    far = np.array([[1e9, -1e9, 10.0]])
    assert scaler.transform(far)[0, :2].tolist() == [0, 0]


def test_a_feature_that_is_not_to_be_learned_has_no_weight_but_a_scale() -> None:
    x = np.random.default_rng(2).normal(size=(500, 2))
    scaler = Scaler.fit(x, [Feature("a"), Feature("b", learn=False)])
    assert scaler.weight.tolist() == [1, 0]
    assert np.abs(scaler.standardise(x)[:, 1]).max() > 1
    assert not scaler.transform(x)[:, 1].any()


@pytest.mark.parametrize("share", [0.002, 0.01, 0.05, 0.2])
@pytest.mark.parametrize("residue", [0.0, 1e-7])
def test_rare_behaviour_stands_out_and_does_not_drown_the_rest(share: float, residue: float) -> None:
    """MAD and IQR are 0 here, or the residue of a decayed sum: they would put everybody active at the clip."""
    rng = np.random.default_rng(3)
    active = rng.random(10_000) < share
    x = np.where(active, rng.lognormal(1, 0.5, 10_000), residue * rng.random(10_000))[:, None]
    z = Scaler.fit(x, named(1, log=True)).transform(x)[:, 0]
    assert 1.5 < float(np.median(z[active])) < 4
    assert float(np.abs(z[~active]).max()) < 0.05
    assert float(z.var()) < 1.3, "no feature may count for more than a standardised one"


def test_a_handful_of_bots_does_not_move_the_scale() -> None:
    rng = np.random.default_rng(4)
    x = rng.lognormal(2, 1, size=(5_000, 1))
    with_bots = x.copy()
    with_bots[:25] = 1e9
    honest, spoiled = Scaler.fit(x, named(1)), Scaler.fit(with_bots, named(1))
    assert honest.moved(spoiled) < 0.05


def test_weights_undo_stratification() -> None:
    rng = np.random.default_rng(5)
    x = np.concatenate([rng.normal(0, 1, 9_000), rng.normal(10, 1, 1_000)])[:, None]
    weight = np.concatenate([np.full(1_000, 9.0), np.ones(1_000)])
    sample = np.concatenate([x[:9_000:9], x[9_000:]])
    assert Scaler.fit(x, named(1, False)).moved(Scaler.fit(sample, named(1, False), weight)) < 0.1


@settings(max_examples=50)
@given(st.integers(0, 2**32 - 1))
def test_the_map_between_scalers_takes_points_along(seed: int) -> None:
    rng = np.random.default_rng(seed)
    old_x = rng.lognormal(1, 1, size=(300, 4)) * [1, 10, 100, 1]
    new_x = old_x * rng.uniform(0.5, 3, 4)
    features = [Feature("a"), Feature("b", log=False), Feature("c", log=True), Feature("d", learn=False)]
    old = Scaler.fit(old_x, features)
    new = Scaler.fit(new_x, features, log=old.log_choices)
    x = old_x[:20]  # inside the clip on both scales, where the map is exact
    z_old, z_new = old.transform(x), new.transform(x)
    inside = (np.abs(z_old) < CLIP) & (np.abs(z_new) < CLIP)
    assert np.allclose(old.map_to(new)(z_old)[inside], z_new[inside], rtol=0, atol=1e-9)
    there_and_back = new.map_to(old)(old.map_to(new)(z_old))
    assert np.allclose(there_and_back, z_old, atol=1e-9)


def test_a_feature_that_comes_alive_starts_at_the_population() -> None:
    x = np.column_stack([np.arange(100.0), np.full(100, np.nan)])
    old = Scaler.fit(x, named(2, False))
    x[:60, 1] = np.arange(60.0)
    new = Scaler.fit(x, named(2, False), log=old.log_choices)
    assert new.active.tolist() == [0, 1]
    assert old.map_to(new)(np.array([[1.0, 0.0]]))[0, 1] == 0
    assert old.moved(new) == np.inf


def test_maps_between_different_kinds_are_refused() -> None:
    x = np.random.default_rng(6).lognormal(size=(100, 1))
    with pytest.raises(ValueError, match="kinds of scale"):
        Scaler.fit(x, named(1, True)).map_to(Scaler.fit(x, named(1, False)))
    with pytest.raises(ValueError, match="2 features"):
        Scaler.fit(x, named(2))
    with pytest.raises(ValueError, match="infinity"):
        Scaler.fit(np.array([[np.inf]]), named(1))


@given(matrices)
def test_scales_round_trip_to_the_bit(x: FloatArray) -> None:
    scaler = Scaler.fit(x, named(x.shape[1]))
    again = Scaler.from_scales(scaler.to_scales(), scaler.clip)
    assert np.array_equal(again.transform(x), scaler.transform(x))
    assert again.moved(scaler) == 0


def test_aligned_keeps_known_features_and_leaves_new_ones_inert() -> None:
    x = np.random.default_rng(7).normal(size=(200, 3))
    scaler = Scaler.fit(x, named(3, False))
    other = scaler.aligned([Feature("f2"), Feature("new"), Feature("f0")])
    assert other.weight.tolist() == [1, 0, 1]
    assert np.array_equal(other.transform(x[:, [2, 1, 0]])[:, [2, 0]], scaler.transform(x)[:, [0, 2]])


def test_inverse_undoes_transform() -> None:
    x = np.random.default_rng(8).lognormal(1, 0.5, size=(100, 2))
    scaler = Scaler.fit(x, [Feature("a", log=True), Feature("b", log=False)])
    assert np.allclose(scaler.inverse(scaler.transform(x)), x)


@given(
    st.lists(st.tuples(st.integers(-50, 50), st.integers(1, 5)), min_size=1, max_size=40),
    st.floats(0, 1),
)
def test_weighted_quantiles_are_those_of_repeated_values(pairs: list[tuple[int, int]], q: float) -> None:
    values, weights = np.array(pairs, np.float64).T
    repeated = np.sort(np.repeat(values, weights.astype(int)))
    rank = max(1, int(np.ceil(q * len(repeated) - 1e-9)))
    assert weighted_quantiles(values, weights, [q])[0] == repeated[rank - 1]
