"""What bots do in a session.

A crawler reads item after item through the catalogue: many pages, hardly any dwell, even pauses, and nothing else. A
card tester looks at a page or two and then buys for tiny amounts, one purchase after the other; many are
refunded within minutes.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from producers.shop.catalogue import ITEMS
from producers.shop.draws import Ints, child, normal, uniform
from producers.shop.events import BROWSE, PURCHASE, WEB, Events, make, refunds
from producers.shop.personas import CARD_TESTER, CRAWLER, column
from producers.shop.sessions import Sessions

_PAGES, _FIRST_ITEM = range(2)
_DWELL, _PAUSE, _AMOUNT, _REFUNDED, _REFUND_TIME = range(5)
_BUYS: Final = 1 << 20
"""Children of a session's key below it are pages, from it on purchases."""

ATTEMPTS: Final = (12, 48)
AMOUNTS: Final = (0.5, 3.0)


def crawler_events(sessions: Sessions) -> list[Events]:
    """The pages of crawlers' sessions."""
    return [_pages(sessions, CRAWLER, spread=0.2, pause_ms=250)]


def card_tester_events(sessions: Sessions, end_ms: int) -> list[Events]:
    """Pages, purchases and refunds of card testers' sessions."""
    pages = _pages(sessions, CARD_TESTER, spread=0.4, pause_ms=1_500)
    low, high = ATTEMPTS
    count = (low + (high - low) * uniform(sessions.key, _PAGES)).astype(np.int64)
    at, number = _runs(count)
    key = child(sessions.key[at], _BUYS + number)
    gap = (4_000 + 11_000 * uniform(key, _PAUSE)).astype(np.int64)
    cheapest, dearest = AMOUNTS
    lines = make(
        PURCHASE,
        key=child(key, PURCHASE),
        user=sessions.user[at],
        persona=sessions.persona[at],
        session=key,  # every attempt is an order of its own
        channel=np.full(len(at), WEB),
        occurred=sessions.start[at] + 30_000 + _running(gap, count),
        item=(uniform(key, _FIRST_ITEM) * ITEMS).astype(np.int64),
        a=np.round(cheapest + (dearest - cheapest) * uniform(key, _AMOUNT), 2),
        b=1.0,
    )
    later = (30_000 + 270_000 * uniform(key, _REFUND_TIME)).astype(np.int64)
    returned = (uniform(key, _REFUNDED) < column("refund")[CARD_TESTER]) & (lines["occurred"] + later < end_ms)
    return [pages, lines, refunds(lines[returned], key[returned], later[returned])]


def _pages(sessions: Sessions, bot: int, spread: float, pause_ms: int) -> Events:
    """Pages of about the declared number and dwell, one item after the other."""
    count = np.maximum(np.rint(column("pages")[bot] * np.exp(spread * normal(sessions.key, _PAGES))), 1)
    count = count.astype(np.int64)
    at, number = _runs(count)
    key = child(sessions.key[at], number)
    dwell = np.rint(column("dwell_s")[bot] * 1000 * np.exp(spread * normal(key, _DWELL)))
    gap = (dwell + pause_ms * (0.9 + 0.2 * uniform(key, _PAUSE))).astype(np.int64)
    first = (uniform(sessions.key, _FIRST_ITEM) * ITEMS).astype(np.int64)
    return make(
        BROWSE,
        key=child(key, BROWSE),
        user=sessions.user[at],
        persona=sessions.persona[at],
        session=sessions.key[at],
        channel=np.full(len(at), WEB),
        occurred=sessions.start[at] + _running(gap, count) - gap,
        item=(first[at] + number) % ITEMS,
        a=dwell,
    )


def _runs(count: Ints) -> tuple[Ints, Ints]:
    """For runs of these lengths: the run of each row, and its number within it."""
    at = np.repeat(np.arange(len(count)), count)
    return at, np.arange(len(at)) - np.repeat(np.cumsum(count) - count, count)


def _running(gap: Ints, count: Ints) -> Ints:
    """The sum of the gaps of each run so far, this row's included."""
    total = np.cumsum(gap)
    before = np.concatenate(([0], total))[np.cumsum(count) - count]
    running: Ints = total - np.repeat(before, count)
    return running
