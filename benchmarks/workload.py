"""The events that benchmarks read: zipf users, 200 bytes or so, the last hour of a busy shop; seeded."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import orjson

from schemas.topics import EVENTS
from stream.transport.base import OutRecord

TYPES = ("browse", "click", "add_to_cart", "search", "purchase", "favourite")
SHARES = (0.62, 0.16, 0.09, 0.06, 0.04, 0.03)


def events(count: int, users: int, end_ms: int, seed: int = 1) -> Iterator[OutRecord]:
    """`count` events of `users` users, evenly over the hour before `end_ms`, keyed by user."""
    rng = np.random.default_rng(seed)
    who = (rng.zipf(1.3, count) * 7919) % users
    kinds = rng.choice(len(TYPES), count, p=SHARES)
    times = np.linspace(end_ms - 3_600_000, end_ms, count).astype(np.int64)
    amounts = np.round(rng.lognormal(3.2, 0.8, count), 2)
    for i, (user, kind, time, amount) in enumerate(
        zip(who.tolist(), kinds.tolist(), times.tolist(), amounts.tolist(), strict=True)
    ):
        name = f"user-{user:08d}"
        event = {
            "event_id": f"{i:012d}-{seed}",
            "user_id": name,
            "occurred_at": time,
            "type": TYPES[kind],
            "session_id": f"s{user:08d}{time // 1_800_000:09d}",
            "item_id": f"item-{(i * 31) % 50_000}",
            "category": f"category-{(user + i % 3) % 40}",
        }
        if TYPES[kind] == "purchase":
            event |= {"amount": amount, "currency": "EUR", "quantity": 1}
        elif TYPES[kind] == "browse":
            event["dwell_ms"] = 1000 + (i * 37) % 90_000
        yield OutRecord(EVENTS, name.encode(), orjson.dumps(event), timestamp=time)
