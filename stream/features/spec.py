"""Declared features: what is computed for every user, in a form that configuration can hold.

A feature is an aggregate over a user's events, filtered by kind and category, over a horizon:

- `half_life`: a decayed sum. An event of value x and age a counts x * 2^(-a / half_life). Smooth; for the learner.
- `window` with `tiles`: the events of the last `window`, to a precision of one tile of window / tiles (at time T the
  tile that T is in and the tiles - 1 before it). For people, and for the rules that they write.

A mean or ratio is unknown (NaN) where its denominator is 0, or has decayed below 2^-64.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterable
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from stream.durations import Duration, format_duration
from stream.features.batch import FIELDS, KINDS, Kind

FieldName = Literal[
    "amount", "quantity", "discount", "unit_price", "list_amount", "dwell_ms", "dwell_seconds", "rating"
]
MAX_TILES = 1000
_NAME = re.compile(r"^[a-z][a-z0-9_]{0,63}$")
_STRICT = ConfigDict(frozen=True, extra="forbid")


class Filter(BaseModel):
    """Which events count: none given means all of them. `categories` are compared exactly."""

    model_config = _STRICT

    kinds: tuple[Kind, ...] = ()
    categories: tuple[Annotated[str, Field(min_length=1, max_length=256)], ...] = ()

    @field_validator("kinds")
    @classmethod
    def _in_order(cls, kinds: tuple[Kind, ...]) -> tuple[Kind, ...]:
        return tuple(kind for kind in KINDS if kind in kinds)

    @field_validator("categories")
    @classmethod
    def _sorted(cls, categories: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(sorted(set(categories)))


class _FieldFilter(Filter):
    """A filter over a field: without kinds, those that carry it."""

    field: FieldName

    @model_validator(mode="after")
    def _carried(self) -> Self:
        carriers = FIELDS[self.field].kinds
        if not self.kinds:
            object.__setattr__(self, "kinds", carriers)
        if strangers := [kind for kind in self.kinds if kind not in carriers]:
            raise ValueError(
                f"kinds: {', '.join(strangers)} events carry no {self.field}; only {', '.join(carriers)} do"
            )
        return self


class CountOf(Filter):
    """A term of a ratio: the number of events."""

    of: Literal["count"] = "count"


class SumOf(_FieldFilter):
    """A term of a ratio: the sum of a field."""

    of: Literal["sum"] = "sum"


class VisitsOf(Filter):
    """A term of a ratio: the number of distinct half-hours with such events."""

    of: Literal["visits"] = "visits"


Term = Annotated[CountOf | SumOf | VisitsOf, Field(discriminator="of")]


class _Feature(BaseModel):
    """What every feature says."""

    model_config = _STRICT

    name: str
    title: str = Field(default="", description="In a marketer's words")
    unit: str = ""
    learn: bool = Field(default=True, description="Part of the vector that segments are learned on")
    weight: float = Field(
        default=1.0, gt=0, le=10, description="How much it counts there: differences are multiplied by it"
    )
    log: bool = Field(default=False, description="Hint for the scaler: the values span orders of magnitude")

    @field_validator("name")
    @classmethod
    def _identifier(cls, name: str) -> str:
        if not _NAME.match(name) or keyword.iskeyword(name):
            raise ValueError("must be a lower-case identifier of at most 64 characters, such as 'spend_30d'")
        return name

    @model_validator(mode="after")
    def _titled(self) -> Self:
        if not self.title:
            object.__setattr__(self, "title", self.name.replace("_", " ").capitalize())
        return self


class _Horizon(_Feature):
    """A feature over a half-life, or a window of tiles."""

    half_life: Duration | None = None
    window: Duration | None = None
    tiles: int | None = Field(default=None, ge=1, le=MAX_TILES)

    @model_validator(mode="after")
    def _one_horizon(self) -> Self:
        if (self.half_life is None) == (self.window is None):
            raise ValueError("half_life: give either a half_life or a window (with tiles), not both or none")
        if self.window is None:
            if self.tiles is not None:
                raise ValueError("tiles: only a window has tiles")
            if not self.half_life:
                raise ValueError("half_life: must be longer than 0")
            return self
        tiles = 10 if self.tiles is None else self.tiles
        if not self.window or self.window % tiles:
            raise ValueError(
                f"tiles: a window of {format_duration(self.window)} does not divide into {tiles} equal tiles"
            )
        object.__setattr__(self, "tiles", tiles)
        return self


class Count(_Horizon, Filter):
    """The number of events."""

    aggregate: Literal["count"]


class _FieldFeature(_Horizon, _FieldFilter):
    @model_validator(mode="after")
    def _measured(self) -> Self:
        if not self.unit:
            object.__setattr__(self, "unit", FIELDS[self.field].unit)
        return self


class Sum(_FieldFeature):
    """The sum of a field over the events that carry it."""

    aggregate: Literal["sum"]


class Mean(_FieldFeature):
    """The mean of a field over the events that carry it; NaN where there are none."""

    aggregate: Literal["mean"]


class Visits(_Horizon, Filter):
    """The number of distinct half-hours (UTC) with such events.

    Unlike sessions by a gap this does not depend on the order of events. With `kinds = ["purchase"]` it counts
    orders, since the lines of an order arrive together. A half-hour stands at its beginning.
    """

    aggregate: Literal["visits"]


class Ratio(_Horizon):
    """One term over another on the same horizon; NaN where the denominator is 0."""

    aggregate: Literal["ratio"]
    numerator: Term
    denominator: Term

    @field_validator("denominator")
    @classmethod
    def _never_negative(cls, term: Term) -> Term:
        # A sum that refunds can bring near 0 makes ratios without meaning.
        if isinstance(term, SumOf) and FIELDS[term.field].signed and "refund" in term.kinds:
            raise ValueError("refunds would make it negative; set kinds = ['purchase']")
        return term


class Recency(_Feature, Filter):
    """Days since the last such event; NaN where there was none."""

    aggregate: Literal["recency"]


class Tenure(_Feature):
    """Days since the user's first event."""

    aggregate: Literal["tenure"]


class _Spread(_Feature, Filter):
    """How events spread over categories, kept as decayed counts in `buckets` hash buckets.

    Two categories share a bucket with probability 1 / buckets and then count as one: of c equally frequent
    categories about buckets * (1 - (1 - 1 / buckets)^c) are told apart (16 buckets: 4.4 of 5, 7.6 of 10).
    """

    half_life: Duration = Field(gt=0)
    buckets: int = Field(default=16, ge=2, le=256)


class Diversity(_Spread):
    """The effective number of categories: exp of the entropy of their shares (Hill number of order 1); NaN for none."""

    aggregate: Literal["diversity"]


class TopShare(_Spread):
    """The share of the most frequent category, 0 to 1; NaN for none."""

    aggregate: Literal["top_share"]


AnyFeature = Count | Sum | Mean | Visits | Ratio | Recency | Tenure | Diversity | TopShare
AGGREGATES = ("count", "sum", "mean", "visits", "ratio", "recency", "tenure", "diversity", "top_share")


def _name_the_feature(value: Any, handler: ValidatorFunctionWrapHandler) -> AnyFeature:
    try:
        feature: AnyFeature = handler(value)
    except ValidationError as error:
        name = value.get("name", "?") if isinstance(value, dict) else "?"
        lines = "; ".join(_line(line) for line in error.errors(include_url=False, include_input=False))
        raise PydanticCustomError("feature", "feature {name}: {lines}", {"name": repr(name), "lines": lines}) from None
    return feature


def _line(error: Any) -> str:
    if error["type"] in ("union_tag_invalid", "union_tag_not_found"):
        place = [str(part) for part in error["loc"] if part not in AGGREGATES]
        key = ".".join([*place, "of" if place else "aggregate"])
        known = "count, sum, visits" if place else ", ".join(AGGREGATES)
        return f"{key}: must be one of {known}"
    place = [str(part) for part in error["loc"][1:] if part not in ("count", "sum", "visits")]
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        message = "is not a setting of this aggregate"
    return ": ".join([".".join(place), message]) if place else message


FeatureSpec = Annotated[
    Annotated[AnyFeature, Field(discriminator="aggregate")],
    WrapValidator(_name_the_feature),
]
"""A pydantic field type; its errors name the feature and the key."""


def _unique(features: tuple[AnyFeature, ...]) -> tuple[AnyFeature, ...]:
    if not features:
        raise ValueError("declare at least one feature")
    seen: set[str] = set()
    for feature in features:
        if feature.name in seen:
            raise ValueError(f"feature {feature.name!r}: name: is declared twice")
        seen.add(feature.name)
    return features


FeatureSpecs = Annotated[tuple[FeatureSpec, ...], AfterValidator(_unique)]
"""A pydantic field type for the whole list: at least one, names unique."""

_SPECS: TypeAdapter[tuple[AnyFeature, ...]] = TypeAdapter(FeatureSpecs)


def parse_features(declarations: Iterable[Any]) -> tuple[AnyFeature, ...]:
    """Features of plain dicts, as a TOML file has them. Raises pydantic.ValidationError naming feature and key."""
    return _SPECS.validate_python(tuple(declarations))


def _default(name: str, aggregate: str, title: str, **settings: Any) -> dict[str, Any]:
    return {"name": name, "aggregate": aggregate, "title": title, **settings}


_BUY = ["purchase"]
_QUARTER = {"half_life": "90d"}
_MONTH = {"half_life": "30d"}
_VALUE = {"weight": 1.4}
"""Recency, frequency and monetary value of purchases count double in a squared distance: they tell what a customer is
worth (Hughes, "Strategic Database Marketing", 1994), and the many other axes how one shops."""
_RULES = {"log": True, "learn": False}
"""Windows serve rules and people: the learner sees the same behaviour in the decayed sums beside them."""

DEFAULT_FEATURES: tuple[AnyFeature, ...] = parse_features(
    [
        _default("recency_days", "recency", "Days since last seen", unit="days", log=True),
        _default("tenure_days", "tenure", "Days since first seen", unit="days", **_RULES),
        _default("activity_hl1d", "count", "Activity today", half_life="1d", learn=False, log=True),
        _default("activity_hl7d", "count", "Activity this week", half_life="7d", learn=False, log=True),
        _default("activity_hl30d", "count", "Activity this month", **_MONTH, log=True),
        _default("pages_1d", "count", "Pages viewed in 1 day", kinds=["browse"], window="1d", tiles=8, **_RULES),
        _default("pages_7d", "count", "Pages viewed in 7 days", kinds=["browse"], window="7d", tiles=7, **_RULES),
        _default("visits_7d", "visits", "Visits in 7 days", window="7d", tiles=7, **_RULES),
        _default("visits_30d", "visits", "Visits in 30 days", window="30d", tiles=30, **_RULES),
        _default("dwell_seconds", "mean", "Time on a page", field="dwell_seconds", **_MONTH, log=True),
        _default("clicks_hl7d", "count", "Clicks on campaigns", kinds=["click"], half_life="7d", log=True),
        _default("searches_hl30d", "count", "Searches", kinds=["search"], **_MONTH, log=True),
        _default("carts_hl7d", "count", "Items put into the cart", kinds=["add_to_cart"], half_life="7d", log=True),
        _default(
            "engagement_hl30d",
            "count",
            "Favourites, reviews and shares",
            kinds=["favourite", "review", "share"],
            **_MONTH,
            log=True,
        ),
        _default(
            "purchase_recency_days",
            "recency",
            "Days since last purchase",
            kinds=_BUY,
            unit="days",
            log=True,
            **_VALUE,
        ),
        _default("orders_hl90d", "visits", "Orders this quarter", kinds=_BUY, **_QUARTER, log=True, **_VALUE),
        _default("purchases_30d", "count", "Purchases in 30 days", kinds=_BUY, window="30d", tiles=15, **_RULES),
        _default("spend_hl90d", "sum", "Spend this quarter", field="amount", **_QUARTER, log=True, **_VALUE),
        _default("spend_30d", "sum", "Spend in 30 days", field="amount", window="30d", tiles=15, **_RULES),
        _default(
            "average_order_value",
            "ratio",
            "Average order value",
            numerator={"of": "sum", "field": "amount", "kinds": _BUY},
            denominator={"of": "visits", "kinds": _BUY},
            unit="money",
            **_QUARTER,
            log=True,
        ),
        _default(
            "items_per_order",
            "ratio",
            "Items in an order",
            numerator={"of": "sum", "field": "quantity", "kinds": _BUY},
            denominator={"of": "visits", "kinds": _BUY},
            unit="items",
            **_QUARTER,
            **_RULES,
        ),
        _default(
            "conversion",
            "ratio",
            "Orders for each visit",
            numerator={"of": "visits", "kinds": _BUY},
            denominator={"of": "visits"},
            **_QUARTER,
        ),
        _default(
            "price_level",
            "mean",
            "Price of an item",
            field="unit_price",
            kinds=_BUY,
            unit="money",
            **_QUARTER,
            log=True,
        ),
        _default(
            "discount_level",
            "ratio",
            "Share of the price saved by discounts",
            numerator={"of": "sum", "field": "discount", "kinds": _BUY},
            denominator={"of": "sum", "field": "list_amount", "kinds": _BUY},
            **_QUARTER,
        ),
        _default(
            "return_rate",
            "ratio",
            "Refunds for each purchase",
            numerator={"of": "count", "kinds": ["refund"]},
            denominator={"of": "count", "kinds": _BUY},
            learn=False,
            **_QUARTER,
        ),
        _default("rating_mean", "mean", "Stars given", field="rating", **_QUARTER),
        _default("category_diversity", "diversity", "Different categories", **_MONTH, log=True),
        _default("top_category_share", "top_share", "Share of the favourite category", **_MONTH, learn=False),
    ]
)
"""What an e-commerce analyst would choose: recency, frequency, monetary value, activity, dwell, prices, ratings, taste.

Half-lives of 90 days carry purchase-only data over years; the short ones carry a clickstream of days. What a
shop never sends stays constant or unknown and says nothing. A name ends in the window (`_30d`) or the half-life
(`_hl30d`) where there is more than one of its kind.
"""
