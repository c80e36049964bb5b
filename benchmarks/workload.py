"""The events that benchmarks read: zipf users, 200 bytes or so, the last hour of a busy shop; seeded."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import orjson

from schemas.topics import EVENTS
from stream.transport.base import OutRecord

TYPES = ("browse", "click", "add_to_cart", "search", "purchase", "favourite")
SHARES = (0.62, 0.16, 0.09, 0.06, 0.04, 0.03)
ZIPF = 1.3


def user_name(user: int) -> str:
    """The id of a user."""
    return f"user-{user:08d}"


def details(kind: str, number: int, user: int, amount: float) -> dict[str, Any]:
    """What an event carries beside its id, user, time and type."""
    event: dict[str, Any] = {
        "item_id": f"item-{(number * 31) % 50_000}",
        "category": f"category-{(user + number % 3) % 40}",
    }
    if kind == "purchase":
        event |= {"amount": round(amount, 2), "currency": "EUR", "quantity": 1}
    elif kind == "browse":
        event["dwell_ms"] = 1000 + (number * 37) % 90_000
    return event


def events(count: int, users: int, end_ms: int, seed: int = 1) -> Iterator[OutRecord]:
    """`count` events of `users` users, evenly over the hour before `end_ms`, keyed by user."""
    rng = np.random.default_rng(seed)
    who = (rng.zipf(ZIPF, count) * 7919) % users
    kinds = rng.choice(len(TYPES), count, p=SHARES)
    times = np.linspace(end_ms - 3_600_000, end_ms, count).astype(np.int64)
    amounts = rng.lognormal(3.2, 0.8, count)
    for i, (user, kind, time, amount) in enumerate(
        zip(who.tolist(), kinds.tolist(), times.tolist(), amounts.tolist(), strict=True)
    ):
        name = user_name(user)
        event = {
            "event_id": f"{i:012d}-{seed}",
            "user_id": name,
            "occurred_at": time,
            "type": TYPES[kind],
            "session_id": f"s{user:08d}{time // 1_800_000:09d}",
        } | details(TYPES[kind], i, user, amount)
        yield OutRecord(EVENTS, name.encode(), orjson.dumps(event), timestamp=time)
