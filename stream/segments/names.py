"""Names that a marketer would say, from what is most unusual about a segment.

Invariants: names within one model are distinct; a name is bound to its segment's id and changes only with lineage
(the caller passes those to keep); the same profile gives the same name.

A name has a head, who they are ("big spenders"); before it at most one word on how ("Frequent"); behind it at most
one on now ("lapsing"). What a feature is about is recognised from its name and title; one that the table does not
know is called high or low by its title.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stream.segments.scaling import FeatureInfo

FloatArray = NDArray[np.float64]

TELLING: Final = 0.35
"""Robust standard deviations from the population below which a feature says nothing about a segment."""
FADING: Final = 0.4
"""A second or third word must be at least this share of the strongest one's z."""


class Words(NamedTuple):
    """How one end of a concept is said; an empty word means that it does not say anything in that place."""

    head: str = ""
    before: str = ""
    behind: str = ""


class Concept(NamedTuple):
    """Something that features measure. The first concept whose pattern is in "name title" is the feature's."""

    key: str
    pattern: re.Pattern[str]
    high: Words
    low: Words
    rank: float
    """How much it says about who somebody is, as a factor on z: what people buy says more than when."""


def _concept(key: str, pattern: str, high: Words, low: Words, rank: float = 1.0) -> Concept:
    return Concept(key, re.compile(pattern), high, low, rank)


CONCEPTS: Final = (
    _concept(
        "purchase recency",
        r"(purchase|order|bought|buy)\w*[_ ]recency|since (the )?last (purchase|order)",
        Words("past buyers", "", "not bought lately"),
        Words("recent buyers", "", "just bought"),
        0.8,
    ),
    _concept(
        "recency",
        r"recency|last seen|inactiv",
        Words("lapsing visitors", "", "lapsing"),
        Words("current visitors", "", "here now"),
        0.7,
    ),
    _concept(
        "tenure",
        r"tenure|first seen|age_days",
        Words("long-time customers", "Long-time"),
        Words("new faces", "New"),
        0.7,
    ),
    _concept(
        "discount",
        r"discount|bargain|promo|coupon|sale_share",
        Words("bargain hunters", "Bargain-hunting"),
        Words("full-price buyers", "Full-price"),
        1.1,
    ),
    _concept("returns", r"return_|refund|returns", Words("returners", "Often-returning"), Words(), 1.1),
    _concept(
        "rating",
        r"rating|stars",
        Words("happy reviewers", "Happy", "happy"),
        Words("critics", "Critical", "unhappy"),
        0.9,
    ),
    _concept(
        "engagement",
        r"engagement|favou?rite.*(review|share)|wishlist|reviews?_|shares?_|favou?rites?_",
        Words("fans", "Engaged", "engaged"),
        Words(),
    ),
    _concept(
        "basket",
        r"average_order|order_value|aov|basket|items_per_order|order size",
        Words("big-basket buyers", "Big-basket"),
        Words("small-basket buyers", "Small-basket"),
    ),
    _concept(
        "conversion",
        r"conversion|orders for each visit|buy_rate",
        Words("decided buyers", "Decided"),
        Words("window shoppers", ""),
    ),
    _concept(
        "price",
        r"price",
        Words("premium buyers", "Premium"),
        Words("budget buyers", "Budget"),
    ),
    _concept(
        "taste",
        r"diversity|different categories|n_categories",
        Words("explorers", "Wide-ranging"),
        Words("one-category shoppers", "One-category"),
        0.8,
    ),
    _concept(
        "focus",
        r"top_?categor|favou?rite category|top_share|concentration",
        Words("one-category shoppers", "One-category"),
        Words("explorers", "Wide-ranging"),
        0.8,
    ),
    _concept(
        "spend",
        r"spend|monetary|revenue|amount|value|money",
        Words("big spenders", "High-spending"),
        Words("small spenders", "Low-spending"),
        1.15,
    ),
    _concept(
        "orders",
        r"orders?|purchases?|frequency|bought|buys",
        Words("frequent buyers", "Frequent"),
        Words("rare buyers", "Occasional"),
        1.1,
    ),
    _concept("carts", r"cart|basket_adds", Words("cart fillers", "Cart-filling"), Words()),
    _concept("clicks", r"click", Words("campaign clickers", "Campaign-clicking"), Words(), 0.9),
    _concept("searches", r"search|quer", Words("searchers", "Searching"), Words(), 0.9),
    _concept("dwell", r"dwell|time on", Words("careful readers", "Careful"), Words("quick lookers", "Quick"), 0.8),
    _concept(
        "today",
        r"_1h$|_6h$|_1d$|hl1h|hl6h|hl1d|today|hour",
        Words("shoppers of the day", "", "active today"),
        Words(),
        0.6,
    ),
    _concept(
        "activity",
        r"activity|visits?|pages?|browse|views?|sessions?|events?",
        Words("frequent visitors", "Active", "active"),
        Words("occasional visitors", "Quiet", "quiet"),
        0.9,
    ),
)
_TODAY: Final = frozenset({"activity"})
_BUYING: Final = ("orders", "spend", "conversion")


def name_segments(
    z: FloatArray,
    features: Sequence[FeatureInfo],
    kept: Mapping[int, str] | None = None,
) -> list[str]:
    """One name a row of `z` (s, F), the segments' profiles in robust standard deviations from the population.

    `kept` are names by row that must stay; the others are told apart from them and from one another. Rows are
    named in order, so the first of two alike gets the plainer name.
    """
    kept = dict(kept or {})
    concepts = [_concept_of(feature) for feature in features]
    taken = {name.casefold() for name in kept.values()}
    names: list[str] = []
    for row in range(len(z)):
        name = kept.get(row) or next(n for n in _proposals(z[row], features, concepts) if n.casefold() not in taken)
        taken.add(name.casefold())
        names.append(name)
    return names


def _proposals(z: FloatArray, features: Sequence[FeatureInfo], concepts: Sequence[Concept]) -> list[str]:
    """Names for one profile, the best first; the later ones say more, or count, so that one is always free."""
    traits = _traits(z, features, concepts)
    strong = [t for t in traits if t.strength >= max(TELLING, FADING * traits[0].strength)] if traits else []
    if not strong:
        plain = ["Everyday shoppers", "Average shoppers"]
        return plain + [f"{plain[0]} {n}" for n in range(2, 100)]
    head = _head(strong)
    rest = [t for t in strong if t.concept != head.concept and t.concept not in head.covers]
    before = [t for t in rest if t.words.before]
    behind = [t for t in rest if t.words.behind]
    first = before[0] if before and (not behind or before[0].strength >= behind[0].strength * 0.5) else None
    last = next((t for t in behind if t is not first and not _same(t, first)), None)
    best = _compose(head, first, last)
    more = [
        _compose(head, b, t)
        for b in [*before, None]
        for t in [*behind, None]
        if b is None or t is None or not _same(b, t)
    ]
    others = [_compose(t, None, None) for t in strong if t.words.head]
    numbered = [f"{best} {n}" for n in range(2, 100)]
    return [best, *more, *others, *numbered]


class _Trait(NamedTuple):
    concept: str
    words: Words
    strength: float
    covers: tuple[str, ...] = ()


def _same(a: _Trait, b: _Trait | None) -> bool:
    return b is not None and a.concept == b.concept


def _traits(z: FloatArray, features: Sequence[FeatureInfo], concepts: Sequence[Concept]) -> list[_Trait]:
    """What stands out, the strongest first; of several features of one concept the most unusual speaks."""
    best: dict[str, tuple[float, _Trait]] = {}
    strength_of: dict[str, float] = {}
    for value, feature, concept in zip(z.tolist(), features, concepts, strict=True):
        if abs(value) > abs(strength_of.get(concept.key, 0.0)):
            strength_of[concept.key] = value
        words = concept.high if value > 0 else concept.low
        strength = abs(value) * concept.rank
        if any(words) and strength > best.get(concept.key, (0.0, None))[0]:
            best[concept.key] = (strength, _Trait(concept.key, words, strength))
        del feature
    found = [trait for _, trait in best.values()]
    found += _composites(strength_of)
    return sorted(found, key=lambda t: (-t.strength, t.concept))


def _composites(z: Mapping[str, float]) -> list[_Trait]:
    """Heads that take two concepts to say."""
    found = []
    buying = [z[key] for key in _BUYING if key in z]
    activity = z.get("activity", 0.0)
    recency = z.get("recency", 0.0)
    if buying and max(buying) <= -TELLING:
        least = abs(min(buying))
        if activity >= TELLING:
            words = Words("window shoppers")
            found.append(_Trait("looking", words, 1.2 * max(activity, least), ("conversion", "orders", "spend")))
        elif recency >= TELLING:
            words = Words("visitors who left")
            found.append(_Trait("gone", words, 1.2 * max(recency, least), ("recency", "orders", "spend", "conversion")))
        elif activity <= -TELLING:
            words = Words("passers-by")
            found.append(_Trait("passing", words, 1.2 * max(-activity, least), ("activity", *_BUYING)))
    return found


def _head(strong: Sequence[_Trait]) -> _Trait:
    return next((t for t in strong if t.words.head), strong[0])


def _compose(head: _Trait, before: _Trait | None, behind: _Trait | None) -> str:
    name = head.words.head
    if before is not None and before.words.before:
        name = f"{before.words.before} {name}"
    if behind is not None and behind.words.behind:
        name = f"{name}, {behind.words.behind}"
    return name[0].upper() + name[1:]


def _concept_of(feature: FeatureInfo) -> Concept:
    text = f"{feature.name} {feature.title}".casefold()
    for concept in CONCEPTS:
        if concept.pattern.search(text):
            return concept
    title = feature.title or feature.name.replace("_", " ")
    return Concept(feature.name, re.compile(""), Words(f"high {title.lower()}"), Words(f"low {title.lower()}"), 0.9)
