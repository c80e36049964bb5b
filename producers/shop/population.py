"""Who comes to the shop: every user's traits, and the intervals in which they are which persona (the ground truth).

`Intervals` holds one row for each time that a user is one persona, [start, end) in epoch milliseconds, ordered by
user and time. A person's intervals are adjacent, from joining to the end of the simulation; a bot's have gaps in
which it is silent. Everything follows from (seed, user number), so users do not depend on one another.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from producers.shop.catalogue import CATEGORIES
from producers.shop.draws import Floats, Ints, Keys, child, choice, exponential, normal, root, uniform
from producers.shop.personas import CARD_TESTER, CRAWLER, HONEST, NEWCOMER, SPELL_GAP_DAYS, column
from producers.shop.scenario import Scenario
from producers.shop.settings import DAY_MS, ShopSettings

_ROLE, _JOINS, _JOIN_TIME, _FIRST, _RECRUITED, _RECRUIT_TIME, _DIE_TIME, _FAVOURITE = range(8)
_RATE, _PAGES, _DWELL, _TASTE, _BUY, _DISCOUNT, _RATING, _EVENING = range(8, 16)
_STAY, _NEXT, _GAP = range(3)
_MOVES, DAYS = range(2)
"""Below a user's key: the key of its moves, and the key of its days."""

MIN_STAY_MS: Final = 2 * DAY_MS
_SPREADS: Final = {_RATE: 0.3, _PAGES: 0.2, _DWELL: 0.2, _TASTE: 0.3, _BUY: 0.35, _DISCOUNT: 0.5, _RATING: 0.3}
_EVENING_SPREAD: Final = 0.2


def user_name(number: int) -> str:
    """The user_id; it does not tell who is a bot."""
    return f"u{number:07d}"


@dataclass(frozen=True, slots=True)
class Intervals:
    """Who was which persona when; `ordinal` counts a user's intervals from 0."""

    user: Ints
    start: Ints
    end: Ints
    persona: Ints
    ordinal: Ints
    since: Ints
    """The start before it was cut by `within`."""

    def __len__(self) -> int:
        return len(self.user)

    def __getitem__(self, rows: Ints | NDArray[np.bool_]) -> Intervals:
        return Intervals(
            self.user[rows],
            self.start[rows],
            self.end[rows],
            self.persona[rows],
            self.ordinal[rows],
            self.since[rows],
        )

    def within(self, begin: int, end: int) -> Intervals:
        """Those that overlap [begin, end), cut to it."""
        found = self[np.flatnonzero((self.start < end) & (self.end > begin))]
        return replace(found, start=np.maximum(found.start, begin), end=np.minimum(found.end, end))


class Population:
    """The users of a shop. Traits are arrays by user number; factors are 1 and shifts 0 for the typical person."""

    def __init__(self, settings: ShopSettings, scenario: Scenario) -> None:
        n = settings.users
        self.keys = root(settings.seed, n)
        role = uniform(self.keys, _ROLE)
        self._crawler = role < settings.crawlers
        self._tester = ~self._crawler & (role < settings.crawlers + settings.card_testers)
        trait = {what: settings.heterogeneity * by * normal(self.keys, what) for what, by in _SPREADS.items()}
        self.rate_factor: Floats = np.exp(trait[_RATE]) * settings.activity
        self.pages_factor: Floats = np.exp(trait[_PAGES])
        self.dwell_factor: Floats = np.exp(trait[_DWELL])
        self.taste_shift: Floats = trait[_TASTE]
        self.buy_shift: Floats = trait[_BUY]
        """On the logit, like the next."""
        self.discount_shift: Floats = trait[_DISCOUNT]
        self.rating_shift: Floats = trait[_RATING]
        self.evening: Floats = np.exp(settings.heterogeneity * _EVENING_SPREAD * normal(self.keys, _EVENING))
        """Above 1: later in the day than others of the same persona (the power of the rhythm's distribution)."""
        self.favourite: Ints = (uniform(self.keys, _FAVOURITE) * len(CATEGORIES)).astype(np.int64)
        parts = [self._people(settings, scenario), *(self._spells(settings, bot) for bot in (CRAWLER, CARD_TESTER))]
        user, start, end, persona, ordinal = (np.concatenate(column) for column in zip(*parts, strict=True))
        self.intervals = Intervals(user, start, end, persona, ordinal, start)[np.lexsort((start, user))]

    def _people(self, settings: ShopSettings, scenario: Scenario) -> tuple[Ints, Ints, Ints, Ints, Ints]:
        user = np.flatnonzero(~self._crawler & ~self._tester).astype(np.int64)
        keys = self.keys
        mix = np.cumsum(column("share")[:HONEST])
        joins = uniform(keys[user], _JOINS) < settings.joining
        joined = (uniform(keys[user], _JOIN_TIME) * settings.join_over).astype(np.int64)
        time = settings.start_ms + np.where(joins, joined, 0)
        persona = np.where(joins, NEWCOMER, choice(mix / mix[-1], uniform(keys[user], _FIRST))).astype(np.int64)
        forced = scenario.forced_moves(*(uniform(keys, what) for what in (_RECRUITED, _RECRUIT_TIME, _DIE_TIME)))

        here = time < settings.end_ms
        user, time, persona = user[here], time[here], persona[here]
        moves = child(keys, _MOVES)
        found: list[tuple[Ints, Ints, Ints, Ints, Ints]] = []
        while len(user):
            ordinal = len(found)
            key = child(moves[user], ordinal)
            until, target = forced.next(user, time, persona, time + _stay(settings, persona, key))
            found.append((user, time, np.minimum(until, settings.end_ms), persona, np.full(len(user), ordinal)))
            weights = scenario.weights(persona, until)
            wanted = choice(np.cumsum(weights, axis=1) / weights.sum(axis=1)[:, None], uniform(key, _NEXT))
            on = until < settings.end_ms
            user, time, persona = user[on], until[on], np.where(target >= 0, target, wanted)[on]
        return _stack(found)

    def _spells(self, settings: ShopSettings, bot: int) -> tuple[Ints, Ints, Ints, Ints, Ints]:
        user = np.flatnonzero(self._crawler if bot == CRAWLER else self._tester).astype(np.int64)
        moves = child(self.keys, _MOVES)
        mean_gap, mean_stay = SPELL_GAP_DAYS[bot] * DAY_MS, column("stay_days")[bot] * DAY_MS
        time = settings.start_ms + (uniform(self.keys[user], _JOIN_TIME) * mean_gap).astype(np.int64)
        found: list[tuple[Ints, Ints, Ints, Ints, Ints]] = []
        while len(user := user[time < settings.end_ms]):
            time = time[time < settings.end_ms]
            key = child(moves[user], len(found))
            until = time + (mean_stay * (0.5 + uniform(key, _STAY))).astype(np.int64)
            found.append(
                (
                    user,
                    time,
                    np.minimum(until, settings.end_ms),
                    np.full(len(user), bot),
                    np.full(len(user), len(found)),
                )
            )
            time = until + (mean_gap * (0.5 + uniform(key, _GAP))).astype(np.int64)
        return _stack(found)


def _stay(settings: ShopSettings, persona: Ints, key: Keys) -> Ints:
    """How long these people stay what they are, at least `MIN_STAY_MS`."""
    if settings.moves == 0:
        return np.full(len(persona), settings.days * DAY_MS)
    mean = column("stay_days")[persona] * DAY_MS / settings.moves
    return MIN_STAY_MS + (np.maximum(mean - MIN_STAY_MS, MIN_STAY_MS) * exponential(key, _STAY)).astype(np.int64)


def _stack(found: list[tuple[Ints, Ints, Ints, Ints, Ints]]) -> tuple[Ints, Ints, Ints, Ints, Ints]:
    empty = np.empty(0, np.int64)
    user, start, end, persona, ordinal = (
        np.concatenate([empty, *(rows[column] for rows in found)]) for column in range(5)
    )
    return user, start, end, persona, ordinal


def logit(p: Floats) -> Floats:
    """Of a probability; 0 and 1 give a large number."""
    bounded = np.clip(p, 1e-9, 1 - 1e-9)
    return np.log(bounded / (1 - bounded))


def shifted(p: Floats, by: Floats) -> NDArray[np.float64]:
    """A probability moved on the logit; 0 stays 0."""
    return np.where(p > 0, 1 / (1 + np.exp(-(logit(p) + by))), 0.0)
