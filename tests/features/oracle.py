"""The user table as its definitions say it, one event at a time, with lists and dicts of Python objects.

It keeps every accepted event for ever and computes a feature from all of them, so it has no rings, tiles of sums,
bitmaps or decays that could be wrong in the same way as those of the kernels. It shares no code with them.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xxhash

from stream.features.batch import KINDS, EventBatch

HALF_HOUR = 30 * 60 * 1000
DAY = 24 * 60 * 60 * 1000
ROUNDING = 2e-5
"""Relative to the gross sum: what float32 may lose in some hundred additions."""
VANISHED = 1e-30
"""Decayed sums this small may be 0: float32 ends at 2^-126 of one event."""


@dataclass(frozen=True)
class Event:
    user: str
    id: str
    kind: str
    time: int
    amount: float | None = None
    quantity: float | None = None
    discount: float | None = None
    dwell_ms: float | None = None
    rating: float | None = None
    category: str | None = None


def to_batch(events: list[Event]) -> EventBatch:
    def numbers(name: str) -> Any:
        return np.array([getattr(event, name) for event in events], np.float64)

    def hashes(texts: list[str | None]) -> Any:
        return np.array([0 if t is None else xxhash.xxh3_64_intdigest(t.encode()) for t in texts], np.uint64)

    return EventBatch(
        position=np.arange(len(events), dtype=np.int32),
        user_ids=[event.user for event in events],
        event_ids=[event.id for event in events],
        kind=np.array([KINDS.index(event.kind) for event in events], np.int8),
        time=np.array([event.time for event in events], np.int64),
        id_hash=hashes([event.id for event in events]),
        amount=numbers("amount"),
        quantity=numbers("quantity"),
        discount=numbers("discount"),
        dwell_ms=numbers("dwell_ms"),
        rating=numbers("rating"),
        category=hashes([event.category for event in events]),
    )


@dataclass
class Value:
    """A number and how far rounding may move it."""

    value: float
    tolerance: float = 0.0


@dataclass
class _User:
    accepted: list[Event] = field(default_factory=list)
    recent: deque[str] = field(default_factory=deque)


class Oracle:
    def __init__(self, lateness: int, depth: int) -> None:
        self.lateness = lateness
        self.depth = depth
        self.clock: int | None = None
        self.users: dict[str, _User] = {}

    def see(self, event: Event) -> str:
        """accepted, duplicate or too_late."""
        if self.clock is not None and event.time < self.clock - self.lateness:
            return "too_late"
        self.clock = event.time if self.clock is None else max(self.clock, event.time)
        user = self.users.setdefault(event.user, _User(recent=deque(maxlen=self.depth)))
        if event.id in user.recent:
            return "duplicate"
        user.recent.append(event.id)
        user.accepted.append(event)
        return "accepted"

    def feature(self, spec: Any, user_id: str, at: int) -> Value:
        events = self.users[user_id].accepted
        at = max(at, max(event.time for event in events))
        match spec.aggregate:
            case "count" | "sum" | "visits":
                return _total(_points(spec, spec.aggregate, events), spec, at)
            case "mean":
                points = _points(spec, "sum", events)
                return _quotient(points, [(time, 1.0) for time, _ in points], spec, at)
            case "ratio":
                above, below = spec.numerator, spec.denominator
                return _quotient(_points(above, above.of, events), _points(below, below.of, events), spec, at)
            case "recency":
                times = [event.time for event in events if _passes(spec, event)]
                return Value((at - max(times)) / DAY, 1e-9) if times else Value(math.nan)
            case "tenure":
                return Value((at - min(event.time for event in events)) / DAY, 1e-9)
            case _:
                return _spread(spec, events, at)


def _passes(spec: Any, event: Event) -> bool:
    return (not spec.kinds or event.kind in spec.kinds) and (not spec.categories or event.category in spec.categories)


def _field(name: str, event: Event) -> float | None:
    if name == "unit_price":
        return None if event.amount is None else event.amount / (event.quantity or 1.0)
    if name == "list_amount":
        return None if event.amount is None else event.amount + (event.discount or 0.0)
    if name == "dwell_seconds":
        return None if event.dwell_ms is None else event.dwell_ms / 1000
    value: float | None = getattr(event, name)
    return value


def _points(spec: Any, what: str, events: list[Event]) -> list[tuple[int, float]]:
    """The times and amounts that a total is made of."""
    passing = [event for event in events if _passes(spec, event)]
    if what == "count":
        return [(event.time, 1.0) for event in passing]
    if what == "visits":
        return [(half_hour * HALF_HOUR, 1.0) for half_hour in {event.time // HALF_HOUR for event in passing}]
    return [(event.time, value) for event in passing if (value := _field(spec.field, event)) is not None]


def _total(points: list[tuple[int, float]], horizon: Any, at: int) -> Value:
    if horizon.half_life is not None:
        terms = [amount * 2.0 ** (-(at - time) / horizon.half_life) for time, amount in points]
        return Value(math.fsum(terms), VANISHED + ROUNDING * math.fsum(map(abs, terms)))
    tile = horizon.window // horizon.tiles
    oldest = at // tile - horizon.tiles + 1
    amounts = [amount for time, amount in points if time // tile >= oldest]
    whole = all(amount == 1.0 for amount in amounts)
    return Value(math.fsum(amounts), 0.0 if whole else ROUNDING * math.fsum(map(abs, amounts)))


def _quotient(above: list[tuple[int, float]], below: list[tuple[int, float]], horizon: Any, at: int) -> Value:
    top, bottom = _total(above, horizon, at), _total(below, horizon, at)
    if abs(bottom.value) < 2.0**-64:
        return Value(math.nan)
    ratio = top.value / bottom.value
    return Value(ratio, 1e-9 + (top.tolerance + abs(ratio) * bottom.tolerance) / abs(bottom.value))


def _spread(spec: Any, events: list[Event], at: int) -> Value:
    buckets: dict[int, float] = {}
    for event in events:
        if _passes(spec, event) and event.category is not None:
            bucket = xxhash.xxh3_64_intdigest(event.category.encode()) % spec.buckets
            buckets[bucket] = buckets.get(bucket, 0.0) + 2.0 ** (-(at - event.time) / spec.half_life)
    total = math.fsum(buckets.values())
    if total < 2.0**-64:
        return Value(math.nan)
    shares = [weight / total for weight in buckets.values()]
    if spec.aggregate == "top_share":
        return Value(max(shares), 1e-4)
    return Value(math.exp(-math.fsum(share * math.log(share) for share in shares if share)), 1e-3)
