"""The work that every peer does: five decayed metrics at three half-lives, nearest of six prototypes, change events.

A user's sum of half-life h is the sum of x * 2^(-age / h) at the user's latest event. A user leaves a segment for one
that is nearer by a tenth at two events in a row, as ours do: without that rule the peers would publish several times as
many changes. Standard library only, since the Quix peer runs in an environment of its own; Core.java says the same.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, NamedTuple

DAY_MS = 86_400_000
HALF_LIVES_MS = (DAY_MS, 7 * DAY_MS, 30 * DAY_MS)
METRICS = ("activity", "dwell", "clicks", "carts", "spend")
WIDTH = len(METRICS) * len(HALF_LIVES_MS)
MARGIN = 0.10
LOOKS = 2

Event = dict[str, Any]
State = list[float]
"""Latest event time, segment (-1: none yet), candidate, looks, then the sums: by metric, then by half-life."""
SUMS = 4


def measure(event: Event) -> tuple[float, float, float, float, float]:
    """What an event adds to each of the metrics."""
    kind = event["type"]
    return (
        1.0,
        event.get("dwell_ms", 0) / 1000.0,
        1.0 if kind == "click" else 0.0,
        1.0 if kind == "add_to_cart" else 0.0,
        float(event["amount"]) if kind == "purchase" else 0.0,
    )


def update(state: State | None, event: Event) -> State:
    """The state after one event, early or late."""
    time = event["occurred_at"]
    if state is None:
        state = [time, -1, -1, 0] + [0.0] * WIDTH
    passed = time - state[0]
    if passed > 0:
        state[0] = time
    at = SUMS
    fades = [2.0 ** (-abs(passed) / half_life) for half_life in HALF_LIVES_MS]
    for value in measure(event):
        for fade in fades:
            state[at] = state[at] * fade + value if passed > 0 else state[at] + value * fade
            at += 1
    return state


class Model(NamedTuple):
    """Frozen: log1p of a sum, less the centre, by the spread, is an axis; a segment is the prototype's number."""

    centre: list[float]
    spread: list[float]
    prototypes: list[list[float]]

    @staticmethod
    def load(file: Path) -> Model:
        """Read what `save` wrote."""
        return Model(**json.loads(file.read_text()))

    def save(self, file: Path) -> None:
        """As JSON; Core.java reads it too."""
        file.write_text(json.dumps(self._asdict()))

    def distances(self, sums: list[float]) -> list[float]:
        """To each prototype."""
        axes = zip(sums, self.centre, self.spread, strict=True)
        z = [(math.log1p(value) - centre) / spread for value, centre, spread in axes]
        return [math.dist(z, prototype) for prototype in self.prototypes]


def decide(state: State, distances: list[float], event: Event) -> dict[str, Any] | None:
    """Move the user calmly; the change where there is one."""
    best = min(range(len(distances)), key=distances.__getitem__)
    current = int(state[1])
    if current < 0:
        return _move(state, best, distances, event)
    if best == current or distances[best] >= (1.0 - MARGIN) * distances[current]:
        state[2], state[3] = -1, 0
        return None
    state[3] = state[3] + 1 if state[2] == best else 1
    state[2] = best
    return _move(state, best, distances, event) if state[3] >= LOOKS else None


def _move(state: State, segment: int, distances: list[float], event: Event) -> dict[str, Any]:
    left = int(state[1])
    state[1], state[2], state[3] = segment, -1, 0
    return {
        "user_id": event["user_id"],
        "from": left,
        "to": segment,
        "occurred_at": event["occurred_at"],
        "event_id": event["event_id"],
        "distance": distances[segment],
    }
