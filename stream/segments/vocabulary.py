"""What features are about, and how a marketer says that a segment is high or low in it.

To teach it a feature: give the feature a title that one of the patterns finds, or add a concept. The first concept
whose pattern is found in "name title" (lower case) is the feature's, so the special ones stand before the general.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from stream.segments.scaling import FeatureInfo


class Words(NamedTuple):
    """How one end of a concept is said; an empty word says nothing in that place."""

    head: str = ""
    """who they are: "big spenders" """
    before: str = ""
    """how: "Frequent" """
    behind: str = ""
    """now: "lapsing" """


class Concept(NamedTuple):
    """Something that features measure."""

    key: str
    family: str
    """Of one family, in one direction, one word is enough: who visits a lot, sees many categories."""
    pattern: re.Pattern[str]
    high: Words
    low: Words
    rank: float
    """How much it says about who somebody is, as a factor on z: what people buy says more than when."""


BUYING: Final = frozenset({"orders", "spend", "conversion"})


def concept_of(feature: FeatureInfo) -> Concept:
    """What a feature is about; for one that is not known, a concept of its own."""
    text = f"{feature.name} {feature.title}".casefold()
    for concept in CONCEPTS:
        if concept.pattern.search(text):
            return concept
    title = (feature.title or feature.name.replace("_", " ")).lower()
    return _concept(feature.name, feature.name, "", Words(f"high {title}"), Words(f"low {title}"), 0.9)


def _concept(key: str, family: str, pattern: str, high: Words, low: Words, rank: float = 1.0) -> Concept:
    return Concept(key, family, re.compile(pattern), high, low, rank)


CONCEPTS: Final = (
    _concept(
        "purchase recency",
        "now",
        r"(purchase|order|bought|buy)\w*[_ ]recency|since (the )?last (purchase|order)",
        Words("past buyers", behind="not bought lately"),
        Words("recent buyers", behind="just bought"),
        0.8,
    ),
    _concept(
        "recency",
        "now",
        r"recency|last seen|inactiv",
        Words("lapsing visitors", behind="lapsing"),
        Words("current visitors", behind="active now"),
        0.75,
    ),
    _concept(
        "tenure",
        "tenure",
        r"tenure|first seen|age_days",
        Words("long-time customers", "Long-time"),
        Words("new faces", "New"),
        0.7,
    ),
    _concept(
        "discount",
        "price",
        r"discount|bargain|promo|coupon|sale_share",
        Words("bargain hunters", "Bargain-hunting"),
        Words("full-price buyers", "Full-price"),
        1.1,
    ),
    _concept("returns", "returns", r"return_|refund|returns", Words("returners", "Often-returning"), Words(), 1.1),
    _concept(
        "rating",
        "rating",
        r"rating|stars",
        Words("happy reviewers", behind="happy"),
        Words("critics", behind="unhappy"),
        0.9,
    ),
    _concept(
        "engagement",
        "engagement",
        r"engagement|wishlist|reviews|shares\b|favou?rites",
        Words("fans", "Engaged", "engaged"),
        Words(),
    ),
    _concept(
        "basket",
        "money",
        r"average_order|order_value|aov\b|basket_(size|value)|items_per_order|order size",
        Words("big-basket buyers", "Big-basket"),
        Words("small-basket buyers", "Small-basket"),
    ),
    _concept(
        "conversion",
        "buying",
        r"conversion|orders for each visit|buy_rate",
        Words("decisive buyers", "Decisive"),
        Words("hesitant shoppers", "Hesitant"),
    ),
    _concept("price", "money", r"price", Words("premium buyers", "Premium"), Words("budget buyers", "Budget")),
    _concept(
        "taste",
        "breadth",
        r"diversity|different categories|n_categories",
        Words("explorers", "Wide-ranging"),
        Words("one-category shoppers", "One-category"),
        0.8,
    ),
    _concept(
        "focus",
        "focus",
        r"top_?categor|favou?rite category|top_share|concentration",
        Words("one-category shoppers", "One-category"),
        Words("explorers", "Wide-ranging"),
        0.8,
    ),
    _concept(
        "spend",
        "money",
        r"spend|monetary|revenue|amount|value|money",
        Words("big spenders", "High-spending"),
        Words("small spenders", "Low-spending"),
        1.15,
    ),
    _concept(
        "orders",
        "buying",
        r"orders?|purchases?|frequency|bought|buys",
        Words("frequent buyers", "Frequent"),
        Words("rare buyers", "Occasional"),
        1.1,
    ),
    _concept("carts", "carts", r"cart|basket_adds", Words("cart fillers", "Cart-filling"), Words()),
    _concept("clicks", "clicks", r"click", Words("campaign clickers", "Campaign-clicking"), Words(), 0.9),
    _concept("searches", "searches", r"search|quer", Words("searchers", "Searching"), Words(), 0.9),
    _concept(
        "dwell", "dwell", r"dwell|time on", Words("careful readers", "Careful"), Words("quick lookers", "Quick"), 0.8
    ),
    _concept(
        "today",
        "now",
        r"_1h\b|_6h\b|_1d\b|hl1h|hl6h|hl1d|today|hour",
        Words(behind="active today"),
        Words(),
        0.7,
    ),
    _concept(
        "activity",
        "breadth",
        r"activity|visits?|pages?|browse|views?|sessions?|events?",
        Words("frequent visitors", "Active"),
        Words("occasional visitors", "Quiet"),
        0.9,
    ),
)
