"""What people do in a session: pages with their dwell, and along the funnel clicks, carts and purchases.

A session is a run of pages. Each may be clicked into, and may lead to a favourite, a share or the cart; a buying
session ends with a checkout of what is in the cart (or of the last item seen, which then is in the cart). A
refund follows days later.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from producers.shop.catalogue import CATEGORIES, PRICES, pick
from producers.shop.draws import Floats, Ints, Keys, child, normal, poisson, uniform
from producers.shop.events import (
    ADD_TO_CART,
    APP,
    BROWSE,
    CLICK,
    EMAIL,
    FAVOURITE,
    PURCHASE,
    REVIEW,
    SEARCH,
    SHARE,
    WEB,
    Events,
    make,
    refunds,
)
from producers.shop.personas import column
from producers.shop.population import Population, shifted
from producers.shop.scenario import Scenario
from producers.shop.sessions import Sessions
from producers.shop.settings import DAY_MS

_PAGES, _FOCUSED, _TOPIC, _APP, _SEARCHES, _BUYS, _CHECKOUT, _REVIEWS, _RATING = range(9)
_DWELL, _PAUSE, _STRAYS, _STRAY, _TASTE, _CLICKS, _LIKES, _CARTS, _SHARES = range(9)
_PIECES, _DISCOUNTED, _DEPTH, _REFUNDED, _REFUND_TIME = range(10, 15)
_SESSION_EVENT: Final = 1 << 20
"""Children of a session's key below it are pages, from it on its own events."""

MAX_PAGES: Final = 80
_PAGES_SPREAD, _DWELL_SPREAD, _TASTE_SPREAD, _RATING_SPREAD = 0.5, 0.7, 0.5, 0.7
_STRAY_SHARE: Final = 0.15
_EMAIL_SHARE: Final = 0.08
_DWELL_MS: Final = (400, 1_200_000)
_FIRST_PAGE_MS: Final = 1_000


@dataclass(frozen=True, slots=True)
class _Pages:
    """The pages of all sessions, in order: row of the session, key, time, dwell, item."""

    session: Ints
    key: Keys
    time: Ints
    dwell: Floats
    item: Ints
    last: Ints
    """For each session, the row of its last page."""
    end: Ints
    """For each session, when its last page was left."""


def people_events(sessions: Sessions, population: Population, scenario: Scenario, end_ms: int) -> list[Events]:
    """All events of people's sessions, unordered; refunds only as far as `end_ms`."""
    persona, user, key = sessions.persona, sessions.user, sessions.key
    pages = _pages(sessions, population, scenario)
    way = uniform(key, _APP)
    channel = np.where(way > 1 - _EMAIL_SHARE, EMAIL, np.where(way < column("app")[persona], APP, WEB))

    def on_page(kind: int, rows: Ints, after: Floats | float, a: Floats | float = 0.0) -> Events:
        at = pages.session[rows]
        return make(
            kind,
            key=child(pages.key[rows], kind),
            user=user[at],
            persona=persona[at],
            session=key[at],
            channel=channel[at],
            occurred=pages.time[rows] + (pages.dwell[rows] * after).astype(np.int64),
            item=pages.item[rows],
            a=a,
        )

    def in_session(kind: int, at: Ints, occurred: Ints, item: Ints, a: Floats | float = 0.0) -> Events:
        return make(
            kind,
            key=child(key[at], _SESSION_EVENT + kind),
            user=user[at],
            persona=persona[at],
            session=key[at],
            channel=channel[at],
            occurred=occurred,
            item=item,
            a=a,
        )

    def chosen(what: int, rate: str) -> Ints:
        return np.flatnonzero(uniform(pages.key, what) < column(rate)[persona][pages.session])

    buys = uniform(key, _BUYS) < shifted(
        column("buy")[persona], population.buy_shift[user] + scenario.buy(persona, sessions.start)
    )
    in_cart = np.zeros(len(pages.key), bool)
    in_cart[chosen(_CARTS, "cart")] = True
    in_cart[pages.last[buys & (np.bincount(pages.session, in_cart, len(sessions)) == 0)]] = True
    searching = np.flatnonzero(uniform(key, _SEARCHES) < column("search")[persona])
    reviewing = np.flatnonzero(uniform(key, _REVIEWS) < column("review")[persona])
    rating = column("rating")[persona] + population.rating_shift[user] + _RATING_SPREAD * normal(key, _RATING)
    checkout = pages.end + (20_000 + 70_000 * uniform(key, _CHECKOUT)).astype(np.int64)
    first = np.concatenate(([0], pages.last[:-1] + 1)) if len(sessions) else pages.last
    return [
        on_page(BROWSE, np.arange(len(pages.key)), 0.0, pages.dwell),
        on_page(CLICK, chosen(_CLICKS, "click"), 0.5),
        on_page(FAVOURITE, chosen(_LIKES, "favourite"), 0.4),
        on_page(ADD_TO_CART, np.flatnonzero(in_cart), 0.9),
        on_page(SHARE, chosen(_SHARES, "recommend"), 0.7),
        in_session(SEARCH, searching, sessions.start[searching], pages.item[first[searching]]),
        in_session(
            REVIEW,
            reviewing,
            pages.end[reviewing] + 5_000,
            pages.item[pages.last[reviewing]],
            np.clip(np.rint(rating[reviewing]), 1, 5),
        ),
        *_orders(sessions, population, pages, np.flatnonzero(in_cart & buys[pages.session]), checkout, channel, end_ms),
    ]


def _pages(sessions: Sessions, population: Population, scenario: Scenario) -> _Pages:
    persona, user, key = sessions.persona, sessions.user, sessions.key
    spread = np.exp(_PAGES_SPREAD * normal(key, _PAGES))
    count = np.clip(np.rint(column("pages")[persona] * population.pages_factor[user] * spread), 1, MAX_PAGES)
    count = count.astype(np.int64)
    begin = np.cumsum(count) - count
    session = np.repeat(np.arange(len(sessions)), count)
    page = child(key[session], np.arange(len(session)) - begin[session])

    typical = (
        column("dwell_s")[persona] * 1000 * population.dwell_factor[user] * scenario.dwell(persona, sessions.start)
    )
    dwell = np.rint(np.clip(typical[session] * np.exp(_DWELL_SPREAD * normal(page, _DWELL)), *_DWELL_MS))
    left = np.cumsum((dwell + 600 + 2_400 * uniform(page, _PAUSE)).astype(np.int64))
    entered = np.concatenate(([0], left[:-1])) if len(left) else left
    offset = sessions.start + _FIRST_PAGE_MS - entered[begin] if len(left) else sessions.start
    last = begin + count - 1

    focused = uniform(key, _FOCUSED) < column("focus")[persona]
    topic = np.where(focused, population.favourite[user], _category(key, _TOPIC))
    strays = uniform(page, _STRAYS) < _STRAY_SHARE
    category = np.where(strays, _category(page, _STRAY), topic[session])
    taste = column("taste")[persona] + population.taste_shift[user] + scenario.taste(persona, sessions.start)
    item = pick(category, taste[session] + _TASTE_SPREAD * normal(page, _TASTE))
    return _Pages(session, page, entered + offset[session], dwell, item, last, left[last] + offset)


def _orders(
    sessions: Sessions,
    population: Population,
    pages: _Pages,
    bought: Ints,
    checkout: Ints,
    channel: Ints,
    end_ms: int,
) -> list[Events]:
    """The order lines of the bought pages, and the refunds of some of them."""
    at, key = pages.session[bought], pages.key[bought]
    persona, user = sessions.persona[at], sessions.user[at]
    quantity = 1.0 + poisson(column("extra_pieces")[persona], key, _PIECES).astype(np.float64)
    gross = PRICES[pages.item[bought]] * quantity
    cheaper = uniform(key, _DISCOUNTED) < shifted(column("discount")[persona], population.discount_shift[user])
    depth = column("discount_depth")[persona] * (0.5 + uniform(key, _DEPTH))
    discount = np.where(cheaper, gross * depth, 0.0).round(2)
    lines = make(
        PURCHASE,
        key=child(key, PURCHASE),
        user=user,
        persona=persona,
        session=sessions.key[at],
        channel=channel[at],
        occurred=checkout[at],
        item=pages.item[bought],
        a=(gross - discount).round(2),
        b=quantity,
        c=discount,
    )
    later = ((1 + 9 * uniform(key, _REFUND_TIME)) * DAY_MS).astype(np.int64)
    returned = (uniform(key, _REFUNDED) < column("refund")[persona]) & (lines["occurred"] + later < end_ms)
    return [lines, refunds(lines[returned], key[returned], later[returned])]


def _category(keys: Keys, what: int) -> Ints:
    return (uniform(keys, what) * (len(CATEGORIES))).astype(np.int64)
