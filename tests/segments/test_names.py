"""Names: what a marketer reads for typical profiles, and what must hold for any."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from stream.features.spec import DEFAULT_FEATURES
from stream.segments.names import PLAIN, name_segments
from stream.segments.scaling import Feature
from stream.segments.vocabulary import CONCEPTS, concept_of

LEARNED = [feature for feature in DEFAULT_FEATURES if feature.learn]


def name_of(**z: float) -> str:
    unknown = set(z) - {f.name for f in LEARNED}
    assert not unknown
    return name_segments(np.array([[z.get(f.name, 0.0) for f in LEARNED]]), LEARNED)[0]


@pytest.mark.parametrize(
    ("z", "name"),
    [
        ({"orders_hl90d": 1.2, "spend_hl90d": 1.0, "activity_hl30d": 0.3}, "Frequent big spenders"),
        (
            {"spend_hl90d": 1.2, "orders_hl90d": 1.0, "purchase_recency_days": -1.0},
            "Frequent big spenders, just bought",
        ),
        ({"spend_hl90d": -0.9, "orders_hl90d": -1.0, "activity_hl30d": -0.2}, "Occasional small spenders"),
        ({"discount_level": 2.0, "recency_days": 1.5}, "Bargain hunters, lapsing"),
        ({"orders_hl90d": -0.6, "conversion": -0.7, "activity_hl30d": 0.8}, "Window shoppers"),
        ({"orders_hl90d": -0.6, "conversion": -0.6, "activity_hl30d": -0.7, "category_diversity": -0.6}, "Passers-by"),
        ({"orders_hl90d": -0.6, "spend_hl90d": -0.5, "recency_days": 2.0}, "Lapsed customers"),
        ({"engagement_hl30d": 2.0, "activity_hl30d": 1.0}, "Active fans"),
        ({"price_level": 2.0, "orders_hl90d": -0.9}, "Occasional premium buyers"),
        ({"carts_hl7d": 1.7, "activity_hl30d": 0.9}, "Active cart fillers"),
        # "Frequent frequent visitors" nobody would say.
        ({"orders_hl90d": 0.9, "activity_hl30d": 1.2}, "Frequent visitors"),
        ({"conversion": 2.8, "activity_hl30d": -1.2, "category_diversity": -1.2}, "Quiet decisive buyers"),
        ({"rating_mean": -2.0}, "Critics"),
        ({"spend_hl90d": 0.2, "recency_days": -0.1}, PLAIN),
    ],
)
def test_typical_profiles_read_well(z: dict[str, float], name: str) -> None:
    assert name_of(**z) == name


profiles = hnp.arrays(
    np.float64, st.tuples(st.integers(1, 12), st.just(len(LEARNED))), elements=st.floats(-8, 8, width=32)
)


@given(profiles)
def test_names_are_distinct_short_and_capitalised(z: NDArray[np.float64]) -> None:
    names = name_segments(z, LEARNED)
    assert len({name.casefold() for name in names}) == len(z)
    for name in names:
        assert name[0].isupper()
        assert 3 < len(name) <= 60
        words = name.lower().replace(",", "").split()
        assert all(a != b for a, b in pairwise(words)), name
    assert name_segments(z, LEARNED) == names


@given(st.integers(2, 40))
def test_many_alike_are_told_apart(count: int) -> None:
    z = np.tile([1.0 if f.name == "spend_hl90d" else 0.0 for f in LEARNED], (count, 1))
    names = name_segments(z, LEARNED)
    assert names[0] == "Big spenders"
    assert len(set(names)) == count
    everyday = name_segments(np.zeros((count, len(LEARNED))), LEARNED)
    assert everyday[:2] == [PLAIN, f"{PLAIN} 2"]


def test_alike_segments_get_a_word_that_tells_them_apart_before_they_get_a_number() -> None:
    features = [Feature("spend"), Feature("recency_days"), Feature("visits")]
    z = np.array([[1.5, 0.0, 0.1], [1.5, 0.3, 0.1], [1.5, 0.1, 0.4]])
    assert name_segments(z, features) == ["Big spenders", "Big spenders, lapsing", "Active big spenders"]


def test_kept_names_stay_and_nobody_else_gets_them() -> None:
    features = [Feature("spend")]
    z = np.array([[1.0], [1.0], [-1.0]])
    assert name_segments(z, features, {1: "Big spenders", 2: "VIPs"}) == ["Big spenders 2", "Big spenders", "VIPs"]


def test_what_the_vocabulary_does_not_know_is_called_by_its_title() -> None:
    features = [Feature("moon_phase", "Moon phase"), Feature("tides")]
    assert name_segments(np.array([[2.0, 0.0], [0.0, -2.0]]), features) == ["High moon phase", "Low tides"]


def test_every_default_feature_is_known() -> None:
    keys = {feature.name: concept_of(feature).key for feature in DEFAULT_FEATURES}
    assert all(concept_of(feature) in CONCEPTS for feature in DEFAULT_FEATURES)
    assert keys["purchase_recency_days"] == "purchase recency"
    assert keys["recency_days"] == "recency"
    assert keys["orders_hl90d"] == "orders"
    assert keys["average_order_value"] == "basket"
    assert keys["activity_hl1d"] == "today"
    assert keys["activity_hl30d"] == "activity"
    assert keys["engagement_hl30d"] == "engagement"
    assert keys["conversion"] == "conversion"
    assert keys["return_rate"] == "returns"
