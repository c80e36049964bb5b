"""The personas: what kinds of people and bots come to the shop, as one table of declared rates.

A number here is the typical person's; `producers.shop.population` spreads people around it, so that neighbours overlap
as they do in life. Where a rate says "a session" or "a page", it is a probability for each.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from functools import cache
from math import inf
from typing import Final

import numpy as np

from producers.shop.draws import Floats

_WORKWEEK: Final = (1.1, 1.1, 1.1, 1.05, 0.95, 0.8, 0.9)
_WEEKEND: Final = (0.6, 0.6, 0.7, 0.8, 1.1, 1.8, 1.4)
_LEVEL: Final = (1.0,) * 7

# Visits by hour of the day, 0 to 23; only the proportions count.
_LUNCH_AND_EVENING: Final = (1, 1, 1, 1, 1, 1, 2, 4, 6, 6, 6, 8, 12, 11, 7, 6, 6, 8, 10, 13, 14, 11, 6, 3)
_NIGHT: Final = (10, 7, 4, 2, 1, 1, 1, 2, 3, 4, 5, 6, 7, 6, 6, 6, 6, 7, 8, 10, 12, 14, 15, 13)
_OFFICE: Final = (2, 1, 1, 1, 1, 1, 2, 5, 9, 12, 12, 10, 9, 10, 11, 10, 9, 7, 6, 7, 9, 10, 8, 4)
_AFTERNOON: Final = (1, 1, 1, 1, 1, 1, 1, 2, 4, 7, 10, 12, 11, 12, 14, 14, 12, 9, 7, 6, 5, 4, 2, 1)
_EVENING: Final = (3, 2, 1, 1, 1, 1, 2, 3, 4, 5, 6, 6, 7, 7, 6, 7, 8, 10, 12, 13, 13, 12, 9, 5)
_LATE_SHOW: Final = (14, 10, 5, 2, 1, 1, 1, 1, 1, 1, 2, 2, 3, 3, 3, 3, 4, 5, 6, 10, 18, 24, 24, 20)
_ROUND_THE_CLOCK: Final = (1,) * 24


@dataclass(frozen=True, slots=True)
class Persona:
    """How one kind of visitor behaves."""

    name: str
    is_bot: bool = False
    share: float = 0.0
    """Of the people who are there at the start."""
    stay_days: float = 40.0
    """Mean time until such a person becomes another one."""
    becomes: dict[str, float] = field(default_factory=dict)
    """Which ones, by weight."""

    sessions_per_day: float = 0.0
    decay_days: float = inf
    """The visits of somebody who became this persona d days ago are exp(-d / decay_days) of the usual."""
    weekday: tuple[float, ...] = _LEVEL
    """Monday to Sunday, mean 1."""
    hours: tuple[float, ...] = _ROUND_THE_CLOCK
    pages: float = 1.0
    """Median of a session."""
    dwell_s: float = 1.0
    """Median of a page, seconds."""
    search: float = 0.0
    """A session."""
    click: float = 0.0
    """A page, like the next three."""
    favourite: float = 0.0
    cart: float = 0.0
    recommend: float = 0.0
    """Sharing the item with others."""
    buy: float = 0.0
    """A session; what is in the cart is bought, or the last item seen."""
    taste: float = 0.0
    """Where in a category's price range, in standard deviations from its middle."""
    extra_pieces: float = 0.0
    """Mean pieces beyond the first, an order line."""
    discount: float = 0.0
    """An order line."""
    discount_depth: float = 0.0
    """Typical share of the price."""
    refund: float = 0.0
    """An order line, some days later."""
    review: float = 0.0
    """A session."""
    rating: float = 4.0
    app: float = 0.5
    """A session in the app; others come by web, a few by e-mail."""
    focus: float = 0.3
    """A session in the person's favourite category."""


PERSONAS: Final = (
    Persona(
        "loyal",
        share=0.17,
        stay_days=120,
        becomes={"drifting_away": 5, "bargain_hunter": 2, "window_shopper": 2, "gift_buyer": 1},
        sessions_per_day=0.75,
        weekday=_WORKWEEK,
        hours=_LUNCH_AND_EVENING,
        pages=4,
        dwell_s=36,
        search=0.2,
        click=0.35,
        favourite=0.04,
        cart=0.14,
        recommend=0.01,
        buy=0.26,
        taste=0.9,
        extra_pieces=0.3,
        discount=0.12,
        discount_depth=0.10,
        refund=0.03,
        review=0.18,
        rating=4.6,
        app=0.75,
        focus=0.7,
    ),
    Persona(
        "bargain_hunter",
        share=0.23,
        stay_days=100,
        becomes={"window_shopper": 4, "drifting_away": 3, "loyal": 2, "gift_buyer": 1},
        sessions_per_day=0.6,
        weekday=_LEVEL,
        hours=_NIGHT,
        pages=5.5,
        dwell_s=14,
        search=0.65,
        click=0.55,
        favourite=0.06,
        cart=0.15,
        recommend=0.02,
        buy=0.15,
        taste=-1.0,
        extra_pieces=0.9,
        discount=0.85,
        discount_depth=0.30,
        refund=0.08,
        review=0.07,
        rating=3.7,
        app=0.45,
        focus=0.2,
    ),
    Persona(
        "window_shopper",
        share=0.29,
        stay_days=90,
        becomes={"bargain_hunter": 4, "loyal": 2, "gift_buyer": 2, "drifting_away": 3},
        sessions_per_day=0.5,
        weekday=_WORKWEEK,
        hours=_OFFICE,
        pages=6.5,
        dwell_s=60,
        search=0.12,
        click=0.28,
        favourite=0.11,
        cart=0.02,
        recommend=0.05,
        buy=0.006,
        taste=0.3,
        discount=0.2,
        discount_depth=0.10,
        refund=0.05,
        review=0.01,
        rating=4.1,
        app=0.6,
        focus=0.4,
    ),
    Persona(
        "gift_buyer",
        share=0.16,
        stay_days=110,
        becomes={"window_shopper": 3, "bargain_hunter": 2, "loyal": 2, "drifting_away": 2},
        sessions_per_day=0.2,
        weekday=_WEEKEND,
        hours=_AFTERNOON,
        pages=4,
        dwell_s=26,
        search=0.8,
        click=0.4,
        favourite=0.01,
        cart=0.22,
        buy=0.55,
        taste=0.4,
        extra_pieces=2.2,
        discount=0.2,
        discount_depth=0.12,
        refund=0.10,
        review=0.03,
        rating=4.3,
        app=0.2,
        focus=0.05,
    ),
    Persona(
        "drifting_away",
        share=0.10,
        stay_days=80,
        becomes={"bargain_hunter": 3, "window_shopper": 2, "loyal": 2},
        sessions_per_day=0.7,
        decay_days=7,
        weekday=_LEVEL,
        hours=_EVENING,
        pages=2.5,
        dwell_s=8,
        search=0.15,
        click=0.18,
        favourite=0.01,
        cart=0.05,
        buy=0.05,
        taste=0.2,
        extra_pieces=0.1,
        discount=0.35,
        discount_depth=0.15,
        refund=0.20,
        review=0.12,
        rating=2.4,
        app=0.5,
        focus=0.5,
    ),
    Persona(
        "newcomer",
        share=0.05,
        stay_days=16,
        becomes={"window_shopper": 4, "bargain_hunter": 3, "loyal": 2, "gift_buyer": 2, "drifting_away": 2},
        sessions_per_day=0.55,
        weekday=_LEVEL,
        hours=_EVENING,
        pages=3.5,
        dwell_s=22,
        search=0.45,
        click=0.45,
        favourite=0.03,
        cart=0.07,
        buy=0.05,
        taste=-0.2,
        extra_pieces=0.1,
        discount=0.5,
        discount_depth=0.15,
        refund=0.06,
        review=0.02,
        rating=4.0,
        app=0.35,
        focus=0.15,
    ),
    # Only in the scenario birth_death, which gives birth to it.
    Persona(
        "live_shopper",
        stay_days=110,
        becomes={"window_shopper": 2, "bargain_hunter": 2, "drifting_away": 2},
        sessions_per_day=0.8,
        weekday=_WEEKEND,
        hours=_LATE_SHOW,
        pages=5,
        dwell_s=5,
        search=0.04,
        click=0.75,
        favourite=0.06,
        cart=0.12,
        recommend=0.18,
        buy=0.2,
        taste=-0.4,
        extra_pieces=0.2,
        discount=0.5,
        discount_depth=0.2,
        refund=0.12,
        review=0.10,
        rating=4.5,
        app=0.97,
        focus=0.9,
    ),
    # Bots come in spells: `sessions_per_day` within one, and `stay_days` is how long one lasts.
    Persona("crawler", is_bot=True, stay_days=8, sessions_per_day=8, pages=32, dwell_s=0.4, app=0.0),
    Persona(
        "card_tester",
        is_bot=True,
        stay_days=2.5,
        sessions_per_day=1.6,
        pages=2,
        dwell_s=3,
        refund=0.4,
        app=0.0,
    ),
)

NAMES: Final = tuple(persona.name for persona in PERSONAS)
LOYAL, BARGAIN, WINDOW, GIFT, DRIFTING, NEWCOMER, LIVE, CRAWLER, CARD_TESTER = range(len(PERSONAS))
HONEST: Final = CRAWLER
"""How many personas are people: they come first."""

SPELL_GAP_DAYS: Final = {CRAWLER: 20.0, CARD_TESTER: 15.0}
"""Mean time between two spells of a bot."""

_NUMBERS: Final = frozenset(f.name for f in fields(Persona)) - {"name", "is_bot", "becomes", "weekday", "hours"}


@cache
def column(name: str) -> Floats:
    """One rate of every persona, in the order of `PERSONAS`."""
    if name not in _NUMBERS:
        raise ValueError(f"{name!r} is no number of a persona")
    return np.array([getattr(persona, name) for persona in PERSONAS], np.float64)


@cache
def transitions() -> Floats:
    """Weights of moves between people's personas, from row to column."""
    return np.array([[PERSONAS[a].becomes.get(NAMES[b], 0.0) for b in range(HONEST)] for a in range(HONEST)])
