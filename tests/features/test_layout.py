"""What features are compiled to: shared columns, known sizes, a fingerprint that tells layouts apart."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from stream.features.layout import Extra, Layout, compile_layout
from stream.features.spec import DEFAULT_FEATURES, parse_features

BUY = {"kinds": ["purchase"]}
QUARTER = {"half_life": "90d"}


def compiled(*declarations: dict[str, Any], **settings: Any) -> Layout:
    named = [{"name": f"f{index}", **declaration} for index, declaration in enumerate(declarations)]
    return compile_layout(parse_features(named), **settings)


def test_the_default_features_fit_the_budget() -> None:
    assert compile_layout(DEFAULT_FEATURES).bytes_per_user <= 560, "800 with the index of ids and the segment columns"


def test_features_that_need_the_same_sum_share_it() -> None:
    purchases = {"aggregate": "count", **BUY, **QUARTER}
    price = {"aggregate": "mean", "field": "unit_price", **BUY, **QUARTER}
    spend = {"aggregate": "mean", "field": "amount", **BUY, **QUARTER}
    rate = {
        "aggregate": "ratio",
        **QUARTER,
        "numerator": {"of": "count", **BUY},
        "denominator": {"of": "visits"},
    }
    # The number of purchases, the sum of prices and the sum of amounts: one count serves all three.
    assert len(compiled(purchases, price, spend).decayed) == 3
    assert len(compiled(purchases, rate).decayed) == 2
    assert compiled(purchases, purchases).fingerprint == compiled(purchases).fingerprint


def test_windows_on_the_same_tiles_share_the_longest_ring() -> None:
    week = {"aggregate": "visits", "window": "7d", "tiles": 7}
    month = {"aggregate": "visits", "window": "30d", "tiles": 30}
    (ring,) = compiled(week, month).rings
    assert ring.tiles == 30
    assert compiled(week, month).bytes_per_user == compiled(month).bytes_per_user


def test_every_kind_listed_is_no_filter() -> None:
    everything = ["browse", "click", "purchase", "search", "add_to_cart", "favourite", "review", "share", "refund"]
    assert (
        compiled({"aggregate": "count", "kinds": everything, **QUARTER}).fingerprint
        == compiled({"aggregate": "count", **QUARTER}).fingerprint
    )


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"aggregate": "count", "half_life": "90d"}, {"aggregate": "count", "half_life": "91d"}),
        ({"aggregate": "count", "half_life": "90d"}, {"aggregate": "count", "window": "90d"}),
        ({"aggregate": "count", "window": "90d"}, {"aggregate": "count", "window": "90d", "tiles": 9}),
        ({"aggregate": "count", **QUARTER}, {"aggregate": "count", **QUARTER, **BUY}),
        ({"aggregate": "count", **QUARTER}, {"aggregate": "visits", **QUARTER}),
        (
            {"aggregate": "count", **QUARTER, "categories": ["a,b"]},
            {"aggregate": "count", **QUARTER, "categories": ["a", "b"]},
        ),
        ({"aggregate": "sum", "field": "amount", **QUARTER}, {"aggregate": "sum", "field": "discount", **QUARTER}),
        ({"aggregate": "diversity", **QUARTER}, {"aggregate": "diversity", **QUARTER, "buckets": 8}),
    ],
)
def test_another_definition_is_another_layout(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert compiled(one).fingerprint != compiled(other).fingerprint


def test_names_titles_and_hints_do_not_change_what_is_stored() -> None:
    plain = parse_features([{"name": "a", "aggregate": "count", **QUARTER}])
    dressed = parse_features(
        [{"name": "b", "aggregate": "count", **QUARTER, "title": "T", "learn": False, "log": True}]
    )
    assert compile_layout(plain).fingerprint == compile_layout(dressed).fingerprint


def test_the_fingerprint_is_the_same_in_every_process() -> None:
    code = (
        "from stream.features.layout import compile_layout;from stream.features.spec import DEFAULT_FEATURES;"
        "print(compile_layout(DEFAULT_FEATURES).fingerprint)"
    )
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert other.stdout.strip() == compile_layout(DEFAULT_FEATURES).fingerprint


def test_the_bitmaps_cover_the_lateness() -> None:
    def words(lateness_ms: int) -> int:
        layout = compiled({"aggregate": "visits", **QUARTER}, lateness_ms=lateness_ms)
        return next(c.width for g in layout.groups for c in g.columns if c.name == layout.half_hours[0].bitmap)

    half_hour = 1_800_000
    assert [words(0), words(62 * half_hour), words(63 * half_hour), words(96 * half_hour)] == [1, 1, 2, 2]


def test_extra_columns_that_cannot_be_are_refused() -> None:
    tenure = {"aggregate": "tenure"}
    with pytest.raises(ValueError, match="extra column 'name': dtype 'U8' is not numeric"):
        compiled(tenure, extras=[Extra("name", "U8")])
    with pytest.raises(ValueError, match="declared twice"):
        compiled(tenure, extras=[Extra("segment", "i4"), Extra("segment", "i4")])
    with pytest.raises(ValueError, match="must not be negative"):
        compiled(tenure, dedupe_depth=-1)
