"""Declarations of features: what they default to, and errors that a person can act on."""

from __future__ import annotations

import keyword
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from stream.features.spec import DEFAULT_FEATURES, FeatureSpecs, parse_features


def count(**changes: Any) -> dict[str, Any]:
    return {"name": "x", "aggregate": "count", "half_life": "7d", **changes}


def window(**changes: Any) -> dict[str, Any]:
    return {"name": "x", "aggregate": "count", "window": "7d", **changes}


@pytest.mark.parametrize(
    ("declaration", "says"),
    [
        (count(name="Spend"), "feature 'Spend': name: must be a lower-case identifier"),
        (count(name="class"), "feature 'class': name: must be a lower-case identifier"),
        (count(name="a" * 65), "name: must be a lower-case identifier of at most 64"),
        ({"aggregate": "tenure"}, "feature '?': name: Field required"),
        ("spend", "feature '?': Input should be a valid dictionary"),
        (count(aggregate="cuont"), "feature 'x': aggregate: must be one of count, sum, mean"),
        ({"name": "x"}, "feature 'x': aggregate: must be one of count, sum, mean"),
        (count(half_life=None), "feature 'x': half_life: give either a half_life or a window"),
        (count(window="7d"), "feature 'x': half_life: give either a half_life or a window"),
        (count(half_life="1 day"), "feature 'x': half_life: '1 day' is no duration"),
        (count(half_life=0), "feature 'x': half_life: must be longer than 0"),
        (count(tiles=3), "feature 'x': tiles: only a window has tiles"),
        (window(tiles=11), "feature 'x': tiles: a window of 7d does not divide into 11 equal tiles"),
        (window(tiles=1001), "feature 'x': tiles: Input should be less than or equal to 1000"),
        (window(tiles=0), "feature 'x': tiles: Input should be greater than or equal to 1"),
        (window(window="0d"), "feature 'x': tiles: a window of 0ms does not divide"),
        (count(kinds=["browze"]), "feature 'x': kinds.0: Input should be 'browse'"),
        (count(colour="red"), "feature 'x': colour: is not a setting of this aggregate"),
        (count(field="amount"), "feature 'x': field: is not a setting of this aggregate"),
        (count(aggregate="sum"), "feature 'x': field: Field required"),
        (count(aggregate="sum", field="price"), "feature 'x': field: Input should be 'amount'"),
        (
            count(aggregate="mean", field="rating", kinds=["browse"]),
            "kinds: browse events carry no rating; only review do",
        ),
        (count(aggregate="ratio"), "numerator: Field required; denominator: Field required"),
        (
            count(aggregate="ratio", numerator={"of": "mean"}, denominator={"of": "count"}),
            "feature 'x': numerator.of: must be one of count, sum, visits",
        ),
        (
            count(aggregate="ratio", numerator={"of": "count"}, denominator={"of": "count", "knds": []}),
            "feature 'x': denominator.knds: is not a setting of this aggregate",
        ),
        (
            count(aggregate="ratio", numerator={"of": "count"}, denominator={"of": "sum", "field": "amount"}),
            "feature 'x': denominator: refunds would make it negative; set kinds = ['purchase']",
        ),
        ({"name": "x", "aggregate": "diversity"}, "feature 'x': half_life: Field required"),
        (
            {"name": "x", "aggregate": "top_share", "half_life": "1d", "buckets": 1},
            "feature 'x': buckets: Input should be",
        ),
    ],
)
def test_an_error_names_the_feature_and_the_key(declaration: Any, says: str) -> None:
    with pytest.raises(ValidationError) as raised:
        parse_features([declaration])
    (error,) = raised.value.errors()
    assert says in error["msg"]


def test_names_are_unique_and_there_is_at_least_one() -> None:
    with pytest.raises(ValidationError, match="feature 'x': name: is declared twice"):
        parse_features([count(), window()])
    with pytest.raises(ValidationError, match="declare at least one feature"):
        parse_features([])


def test_the_errors_survive_in_a_model_that_holds_the_list() -> None:
    class Config(BaseModel):
        features: FeatureSpecs = DEFAULT_FEATURES

    with pytest.raises(ValidationError) as raised:
        Config.model_validate({"features": [count(name="good"), count(tiles=3)]})
    (error,) = raised.value.errors()
    assert error["loc"][:2] == ("features", 1)
    assert error["msg"] == "feature 'x': tiles: only a window has tiles"
    assert Config().features == DEFAULT_FEATURES


def test_declarations_are_brought_to_one_form() -> None:
    one, other = parse_features(
        [
            {"name": "a", "aggregate": "sum", "field": "amount", "window": "30d"},
            count(kinds=["share", "browse", "share"], categories=["b", "a", "b"]),
        ]
    )
    assert one.aggregate == "sum" and one.kinds == ("purchase", "refund")
    assert (one.window, one.tiles, one.unit, one.title) == (30 * 86_400_000, 10, "money", "A")
    assert other.aggregate == "count" and other.kinds == ("browse", "share") and other.categories == ("a", "b")


def test_features_survive_being_written_and_read() -> None:
    assert parse_features([feature.model_dump(mode="json") for feature in DEFAULT_FEATURES]) == DEFAULT_FEATURES


def test_the_defaults_are_what_an_analyst_would_choose() -> None:
    names = [feature.name for feature in DEFAULT_FEATURES]
    assert 20 <= len(names) <= 30
    assert all(name.isidentifier() and not keyword.iskeyword(name) for name in names)
    titles = [feature.title for feature in DEFAULT_FEATURES]
    assert len(set(titles)) == len(titles) and all(title[0].isupper() for title in titles)
    assert sum(feature.learn for feature in DEFAULT_FEATURES) >= 12
    # Purchase-only data over years needs a horizon to match.
    longest = max(getattr(feature, "half_life", None) or 0 for feature in DEFAULT_FEATURES)
    assert longest >= 90 * 86_400_000
