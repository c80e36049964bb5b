"""Do the peers do the work? What they publish on a sample, beside a naive recomputation of every sum from all events.

A change tells the distance to the prototype that was entered, which no peer gets right that has one of the fifteen sums
wrong: 1e-9 of it is allowed, as sums are added up in other orders.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from benchmarks.peers.core import HALF_LIVES_MS, LOOKS, MARGIN, Model

TOLERANCE = 1e-9


def sums(events: list[dict[str, Any]]) -> NDArray[np.float64]:
    """A user's fifteen sums at the latest event, from the definition: by metric, then by half-life."""
    times = np.array([event["occurred_at"] for event in events], np.float64)
    kinds = np.array([event["type"] for event in events])
    x = np.array(
        [
            np.ones(len(events)),
            [event.get("dwell_ms", 0) / 1000 for event in events],
            kinds == "click",
            kinds == "add_to_cart",
            [event.get("amount", 0) if event["type"] == "purchase" else 0 for event in events],
        ]
    )
    weights = 0.5 ** ((times.max() - times)[:, None] / np.array(HALF_LIVES_MS))
    decayed: NDArray[np.float64] = (x @ weights).reshape(-1)
    return decayed


def expected(events: Iterable[dict[str, Any]], model: Model) -> Iterator[dict[str, Any]]:
    """The changes that these events cause, each user's in the order of the events."""
    seen: dict[str, list[dict[str, Any]]] = {}
    segment: dict[str, int] = {}
    rivals: dict[str, list[int]] = {}
    for event in events:
        user = event["user_id"]
        seen.setdefault(user, []).append(event)
        z = (np.log1p(sums(seen[user])) - model.centre) / model.spread
        distances = np.linalg.norm(np.array(model.prototypes) - z, axis=1)
        best = int(distances.argmin())
        current = segment.get(user, -1)
        if current >= 0:
            beaten = distances[best] < (1 - MARGIN) * distances[current]
            streak = rivals.setdefault(user, [])
            streak.append(best if beaten else -1)
            if not beaten or len(streak) < LOOKS or len(set(streak[-LOOKS:])) > 1:
                continue
        segment[user], rivals[user] = best, []
        yield {
            "user_id": user,
            "from": current,
            "to": best,
            "occurred_at": event["occurred_at"],
            "event_id": event["event_id"],
            "distance": float(distances[best]),
        }


def differences(values: Iterable[bytes], wanted: Iterable[dict[str, Any]]) -> list[str]:
    """What a peer published otherwise than it should have; empty where it did the work."""
    found: dict[str, dict[str, Any]] = {}
    wrong = []
    for value in values:
        change = orjson.loads(value)
        if change["event_id"] in found:
            wrong.append(f"{change['event_id']} caused two changes")
        found[change["event_id"]] = change
    for change in wanted:
        held = found.pop(change["event_id"], None)
        if held is None:
            wrong.append(f"{change['event_id']} should have caused a change, and caused none")
            continue
        off = abs(held.pop("distance") - (distance := change["distance"]))
        if off > TOLERANCE * max(1.0, distance) or held != {k: v for k, v in change.items() if k != "distance"}:
            wrong.append(f"{change['event_id']}: {held}, off by {off:.2g}, expected {change}")
    return wrong + [f"{event} should have caused no change, and caused one" for event in found]
