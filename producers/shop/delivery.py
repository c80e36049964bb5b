"""How events reach the shop's collector: with the network's delay, some late, some twice, and broken ones among them.

Delivery only sets `arrival` and `fate` and adds rows; what happened in the shop is the same with and without faults.
An event never arrives before it happened.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from producers.shop.draws import Ints, child, exponential, normal, uniform
from producers.shop.events import BROKEN, DUPLICATE, LATE, TOO_LATE, Events
from producers.shop.faults import KINDS
from producers.shop.settings import DAY_MS, ShopSettings

_LATENCY, _FATE, _DELAY, _TWICE, _RESEND, _BREAKS, _KIND, _BROKEN_DELAY = range(8)

LATENCY_MS: Final = (20, 30_000)
_LATENCY_MEDIAN_MS: Final = 250
LATE_MS: Final = (60_000, 20 * 3_600_000)
_LATE_MEAN_MS: Final = 5_400_000
TOO_LATE_MS: Final = (5 * DAY_MS // 2, 4 * DAY_MS)
RESEND_MS: Final = (500, 600_000)
_RESEND_MEDIAN_MS: Final = 8_000


def deliver(events: Events, settings: ShopSettings) -> Events:
    """The events with their arrivals, and their duplicates and broken neighbours; unordered.

    Nothing of the last days comes too late: what never sees a clock days ahead of itself would not be.
    """
    key = events["key"]
    latency = np.clip(_LATENCY_MEDIAN_MS * np.exp(0.8 * normal(key, _LATENCY)), *LATENCY_MS)
    events["arrival"] = events["occurred"] + latency.astype(np.int64)
    fate = uniform(key, _FATE)
    too_late = (fate < settings.too_late) & (events["occurred"] < settings.end_ms - TOO_LATE_MS[1])
    late = ~too_late & (fate >= settings.too_late) & (fate < settings.too_late + settings.late)
    rows = np.flatnonzero(too_late)
    low, high = TOO_LATE_MS
    events["arrival"][rows] += (low + (high - low) * uniform(key[rows], _DELAY)).astype(np.int64)
    events["fate"][rows] = TOO_LATE
    rows = np.flatnonzero(late)
    delay = np.clip(_LATE_MEAN_MS * exponential(key[rows], _DELAY), *LATE_MS)
    events["arrival"][rows] += delay.astype(np.int64)
    events["fate"][rows] = LATE
    again = np.flatnonzero(~too_late & (uniform(key, _TWICE) < settings.duplicates))
    beside = np.flatnonzero(uniform(key, _BREAKS) < settings.broken)
    return np.concatenate((events, _resent(events, again), _broken(events, beside)))


def _resent(events: Events, rows: Ints) -> Events:
    """The same events once more, seconds to minutes after they arrived."""
    copies = events[rows]
    after = np.clip(_RESEND_MEDIAN_MS * np.exp(1.2 * normal(copies["key"], _RESEND)), *RESEND_MS)
    copies["arrival"] += after.astype(np.int64)
    copies["fate"] = DUPLICATE
    return copies


def _broken(events: Events, rows: Ints) -> Events:
    """Broken records that look like these events at first sight, under ids of their own."""
    wrecks = events[rows]
    key = wrecks["key"].copy()
    wrecks["fault"] = (uniform(key, _KIND) * len(KINDS)).astype(np.int8)
    wrecks["arrival"] += (1 + 1_000 * uniform(key, _BROKEN_DELAY)).astype(np.int64)
    wrecks["key"] = child(key, _BREAKS)
    wrecks["fate"] = BROKEN
    return wrecks
