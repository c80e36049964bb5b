"""Profiles, radii and thresholds against plain numpy on repeated rows, and against bots in the panel."""

from __future__ import annotations

import numpy as np
import pytest

from stream.segments.profiles import profiles, radii, thresholds, widest
from stream.segments.recent import Recent
from stream.segments.scaling import Feature, Scaler
from stream.segments.settings import OutlierSettings


def test_weighted_profiles_are_those_of_the_whole_population() -> None:
    rng = np.random.default_rng(0)
    x = np.column_stack([rng.normal(5, 2, 300), rng.normal(-1, 1, 300)])
    x[:40, 1] = np.nan
    segment = (np.arange(300) % 3 + 4).astype(np.int32)
    weight = rng.integers(1, 5, 300).astype(np.float64)
    features = [Feature("a", log=False), Feature("b", log=False)]
    scaler = Scaler.fit(x, features, weight)
    told = profiles(x, scaler, segment, weight, np.array([4, 5, 6, 9], np.int32))
    every = np.repeat(np.arange(300), weight.astype(int))
    z = scaler.standardise(x)
    for i, number in enumerate((4, 5, 6)):
        rows = every[segment[every] == number]
        assert told.size[i] == pytest.approx(len(rows) / len(every))
        assert np.allclose(told.z[i], z[rows].mean(axis=0) - z[every].mean(axis=0))
        low, high = np.nanquantile(x[rows], [0.01, 0.99], axis=0)
        assert np.allclose(told.means[i], np.nanmean(np.clip(x[rows], low, high), axis=0), atol=0.03)
    assert told.size[3] == 0
    assert np.isnan(told.means[3]).all()
    assert not told.z[3].any()


def test_one_wholesaler_is_not_typical() -> None:
    x = np.concatenate([np.full(500, 20.0), [1e6]])[:, None]
    scaler = Scaler.fit(x, [Feature("spend", log=True)])
    told = profiles(x, scaler, np.ones(501, np.int32), np.ones(501), np.array([1], np.int32))
    assert told.means[0, 0] == pytest.approx(20, rel=0.01)


def test_radii_are_quantiles_and_borrow_where_there_are_few() -> None:
    rng = np.random.default_rng(1)
    distance = np.concatenate([rng.uniform(0, 1, 1_000), rng.uniform(0, 4, 1_000), [9.0]])
    prototype = np.array([0] * 1_000 + [1] * 1_000 + [2])
    found = radii(distance, prototype, np.ones(2_001), 4, 0.9)
    assert found[0] == pytest.approx(0.9, abs=0.03)
    assert found[1] == pytest.approx(3.6, abs=0.1)
    everybody = np.quantile(distance, 0.9)
    assert found[2:] == pytest.approx([everybody, everybody], abs=0.02)


def test_bots_in_the_panel_do_not_move_the_thresholds_to_themselves() -> None:
    rng = np.random.default_rng(2)
    distance, score = rng.chisquare(15, 5_000) ** 0.5, 1 - np.exp(-rng.gamma(6, 0.4, 5_000))
    honest = thresholds(score, distance, np.ones(5_000), OutlierSettings())
    bots = np.full(100, 30.0)  # 2% of the panel
    spoiled = thresholds(
        np.append(score, np.full(100, 0.9999)), np.append(distance, bots), np.ones(5_100), OutlierSettings()
    )
    assert ((score > honest.score) | (distance > honest.distance)).mean() < 0.006
    assert spoiled.distance < 1.12 * honest.distance
    assert (bots > spoiled.distance).all()
    assert spoiled.score < 0.9999
    assert honest.score_release < honest.score
    assert honest.distance_release < honest.distance


def test_people_who_are_all_alike_do_not_make_everybody_else_an_outlier() -> None:
    found = thresholds(np.full(1_000, 0.5), np.zeros(1_000), np.ones(1_000), OutlierSettings())
    assert found.distance > 1
    assert 0.5 < found.score < 1


def test_the_widest_of_two() -> None:
    settings = OutlierSettings()
    rng = np.random.default_rng(3)
    a = thresholds(rng.random(100), rng.random(100), np.ones(100), settings)
    b = thresholds(rng.random(100) / 2, rng.random(100) * 9, np.ones(100), settings)
    both = widest(a, b)
    assert (both.score, both.distance) == (max(a.score, b.score), max(a.distance, b.distance))
    assert both.distance_release == max(a.distance_release, b.distance_release)


def test_recent_is_the_last_so_many() -> None:
    recent = Recent(5, 1)
    for i in range(13):
        recent.put(np.array([float(i)]))
        assert sorted(recent.features[:, 0].tolist()) == [float(v) for v in range(max(0, i - 4), i + 1)]


@pytest.mark.parametrize("seen", [0, 3, 5, 13])
@pytest.mark.parametrize("capacity", [2, 5, 8])
def test_recent_comes_back_and_goes_on(seen: int, capacity: int) -> None:
    recent = Recent(5, 2)
    for i in range(seen):
        recent.put(np.array([i, -i], np.float64))
    state = {name: array.copy() for name, array in recent.state().items()}
    again = Recent(capacity, 2)
    again.restore(state, np.array([1, 0]))
    last = list(range(max(0, seen - min(5, capacity)), seen))
    assert sorted((-again.features[:, 0]).tolist()) == last
    for i in range(seen, seen + 3):
        recent.put(np.array([i, -i], np.float64))
        again.put(np.array([-i, i], np.float64))
    size = min(5, capacity) if seen > 5 or capacity < 5 else None
    expected = list(range(max(0, seen + 3 - capacity, seen - (size or 5)), seen + 3))
    assert sorted((-again.features[:, 0]).tolist()) == expected
    if capacity == 5:
        assert np.array_equal(again.features, recent.features[:, ::-1])
    renamed = Recent(5, 2)
    renamed.restore(state, np.array([-1, 0]))
    assert np.isnan(renamed.features[:, 0]).all()
