"""Names that a marketer would say, from what is most unusual about a segment.

Invariants: names within one model are distinct; a name is bound to its segment's id and changes only with lineage
(the caller passes those to keep); the same profile gives the same name.

A name has a head, who they are ("big spenders"); before it at most one word on how ("Frequent"); behind it at most
one on now ("lapsing"). What a feature is about is recognised from its name and title (vocabulary.py); one that is not
known there is called high or low by its title.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stream.segments.scaling import FeatureInfo
from stream.segments.vocabulary import BUYING, Concept, Words, concept_of

FloatArray = NDArray[np.float64]

TELLING: Final = 0.45
"""Robust standard deviations from the population below which nothing about a segment is worth a name ..."""
HINTING: Final = 0.2
"""... or a second word that tells it from another."""
FADING: Final = 0.3
"""A second word must be at least this share of the strongest one's z."""
PLAIN: Final = "Everyday shoppers"


class Trait(NamedTuple):
    """One thing that stands out about a segment."""

    concept: str
    family: str
    high: bool
    words: Words
    strength: float
    covers: frozenset[str] = frozenset()
    """concepts that the words say already"""


def name_segments(z: FloatArray, features: Sequence[FeatureInfo], kept: Mapping[int, str] | None = None) -> list[str]:
    """One name a row of `z` (s, F), the segments' profiles in robust standard deviations from the population.

    `kept` are names by row that must stay; the others are told apart from them and from one another. Rows are
    named in order, so the first of two alike gets the plainer name.
    """
    kept = dict(kept or {})
    concepts = [concept_of(feature) for feature in features]
    taken = {name.casefold() for name in kept.values()}
    names: list[str] = []
    for row in range(len(z)):
        name = kept.get(row) or next(n for n in _proposals(_traits(z[row], concepts)) if n.casefold() not in taken)
        taken.add(name.casefold())
        names.append(name)
    return names


def _proposals(traits: Sequence[Trait]) -> Iterator[str]:
    """Names for one profile, the best first; the later ones say more, or count, so that one is always free."""
    best = PLAIN
    if traits and traits[0].strength >= TELLING:
        heads = [t for t in traits if t.words.head and t.strength >= FADING * traits[0].strength]
        heads = _spenders_first(heads)
        clear = [t for t in traits if t.strength >= max(TELLING, FADING * traits[0].strength)]
        if heads:
            best = _compose(heads[0], *_around(heads[0], clear))
            yield best
        hints = [t for t in traits if t.strength >= HINTING]
        for head in heads:
            yield _compose(head, None, None)
            fitting = _fitting(head, hints)
            # One word more that tells it apart, the strongest first; then two.
            for trait in fitting:
                yield _compose(head, trait, None) if trait.words.before else _compose(head, None, trait)
            for before in fitting:
                for behind in fitting:
                    yield _compose(head, before, behind)
    else:
        yield best
        for trait in traits:
            if trait.strength >= HINTING and trait.words.behind:
                yield f"{PLAIN}, {trait.words.behind}"
    number = 2
    while True:
        yield f"{best} {number}"
        number += 1


def _spenders_first(heads: list[Trait]) -> list[Trait]:
    """Who spends and orders alike much, or alike little, is a spender first: "Frequent big spenders"."""
    if (
        len(heads) > 1
        and {heads[0].concept, heads[1].concept} == {"spend", "orders"}
        and heads[0].high == heads[1].high
    ):
        return sorted(heads[:2], key=lambda t: t.concept != "spend") + heads[2:]
    return heads


def _around(head: Trait, traits: Sequence[Trait]) -> tuple[Trait | None, Trait | None]:
    """The strongest fitting word before the head, and behind it."""
    fitting = list(_fitting(head, traits))
    before = next((t for t in fitting if t.words.before), None)
    behind = next((t for t in fitting if t.words.behind and not (before and _says_the_same(before, t))), None)
    return before, behind


def _fitting(head: Trait, traits: Sequence[Trait]) -> list[Trait]:
    """Traits that say something that the head does not."""
    return [t for t in traits if t.concept not in head.covers and not _says_the_same(head, t)]


def _says_the_same(a: Trait, b: Trait) -> bool:
    return a.concept == b.concept or (a.family == b.family and a.high == b.high)


def _compose(head: Trait, before: Trait | None, behind: Trait | None) -> str:
    name = head.words.head
    if before is not None and before.words.before and before.words.before.lower() not in name:
        name = f"{before.words.before} {name}"
    if behind is not None and behind.words.behind and not (before is not None and _says_the_same(before, behind)):
        name = f"{name}, {behind.words.behind}"
    return name[0].upper() + name[1:]


def _traits(z: FloatArray, concepts: Sequence[Concept]) -> list[Trait]:
    """What stands out, the strongest first; of several features of one concept the most unusual speaks."""
    loudest: dict[str, tuple[float, Concept]] = {}
    for value, concept in zip(z.tolist(), concepts, strict=True):
        if abs(value) > abs(loudest.get(concept.key, (0.0, concept))[0]):
            loudest[concept.key] = (value, concept)
    traits = []
    for value, concept in loudest.values():
        words = concept.high if value > 0 else concept.low
        if any(words):
            traits.append(Trait(concept.key, concept.family, value > 0, words, abs(value) * concept.rank))
    traits += _composites({key: value for key, (value, _) in loudest.items()})
    return sorted(traits, key=lambda t: (-t.strength, t.concept))


def _composites(z: Mapping[str, float]) -> Iterator[Trait]:
    """Heads that it takes two concepts to say: who does not buy is a window shopper only if they look."""
    buying = [z[key] for key in BUYING if key in z]
    if not buying or max(buying) > -HINTING:
        return
    least = -min(buying)
    activity, recency = z.get("activity", 0.0), z.get("recency", 0.0)
    everything = BUYING | {"basket", "price", "activity", "taste", "recency", "purchase recency"}
    if activity >= HINTING:
        yield Trait("looking", "buying", False, Words("window shoppers"), 1.2 * max(activity, least), everything)
    elif recency >= TELLING:
        words = Words("lapsed customers")
        yield Trait("gone", "now", True, words, 1.2 * max(recency, least), everything)
    elif activity <= -TELLING:
        words = Words("passers-by")
        yield Trait("passing", "breadth", False, words, 1.2 * max(-activity, least), everything)
