"""The actions of one partition that are still to be delivered.

Invariant: what one user is to get at one route goes out in the order in which it was decided: an action is taken only
when no earlier one of the same user and route is pending. Everything but the order of readiness is in the table,
and so survives a restart.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Generator, Iterable
from itertools import islice
from typing import Any, NamedTuple

import orjson

from schemas.campaign import CampaignAction
from stream.campaigns.table import Row, StateTable, exhaust
from stream.runtime.stage import StateDelta


class Route(NamedTuple):
    """Where an action goes: kind ("log", "webhook", "cancel", "unknown") and URL, path or campaign."""

    kind: str
    target: str


class Pending:
    """One action that waits. Its row in the table is [number, attempts, due, the action as JSON text]."""

    __slots__ = ("campaign", "decided_at", "id", "occurred_at", "route", "row", "trigger", "user_id")

    def __init__(self, action: dict[str, Any], row: Row, route: Route) -> None:
        self.id: str = action["id"]
        self.campaign: str = action["campaign"]
        self.user_id: str = action["user_id"]
        self.trigger: str = action["trigger"]
        self.occurred_at: int = action["occurred_at"]
        self.decided_at: int = action["decided_at"]
        self.row = row
        self.route = route

    @property
    def number(self) -> int:
        """Its place in the order of decisions."""
        return int(self.row[0])

    @property
    def attempts(self) -> int:
        """Made so far."""
        return int(self.row[1])

    @property
    def due(self) -> int:
        """When the next may be made, epoch milliseconds."""
        return int(self.row[2])

    @property
    def text(self) -> str:
        """The action's JSON, as it stands in the topic."""
        return str(self.row[3])


Lane = deque[Pending]


class Outbox:
    """Pending actions, by route and user.

    `route_of` names the route of a campaign. `horizon` (ms) is longer than any wait: an action that is due later than
    that after now was put off by a clock that has been set back, and is due.
    """

    def __init__(self, partition: int, route_of: Callable[[str], Route], horizon: int) -> None:
        self.partition = partition
        self._route_of = route_of
        self._horizon = horizon
        self._table = StateTable()
        self._lanes: dict[tuple[Route, str], Lane] = {}
        self._ready: dict[Route, list[tuple[int, int, Pending]]] = {}
        self._number = 0

    def __len__(self) -> int:
        return len(self._table)

    @property
    def routes(self) -> list[Route]:
        """Those for which something is pending, in the order in which they came up."""
        return list(self._ready)

    def restore(self, deltas: Iterable[tuple[dict[str, Any], bytes]]) -> dict[str, Any]:
        """Become what the deltas say; returns the last one's meta."""
        return exhaust(self.restoring(deltas))

    def restoring(self, deltas: Iterable[tuple[dict[str, Any], bytes]]) -> Generator[None, None, dict[str, Any]]:
        """As `restore`, with a pause after each delta."""
        meta = yield from self._table.restoring(deltas)
        for row in sorted(self._table.rows.values()):
            self._number = row[0] + 1
            action = orjson.loads(row[3])
            self._enter(Pending(action, row, self._route_of(action["campaign"])))
        return meta

    def add(self, action: CampaignAction, text: str) -> bool:
        """Take an action in, due at once; False where one of the same id is pending already."""
        if self._table.get(action.id) is not None:
            return False
        row: Row = [self._number, 0, 0, text]
        self._number += 1
        self._table.put(action.id, row)
        self._enter(Pending(dict(action), row, self._route_of(action.campaign)))
        return True

    def take(self, route: Route, now: int) -> Pending | None:
        """The action of a route that has been due longest, if one is. Give it back: `done`, `retry` or `untouched`."""
        heap = self._ready.get(route)
        if not heap or now < heap[0][0] <= now + self._horizon:
            return None
        pending = heapq.heappop(heap)[2]
        if not heap:
            del self._ready[route]
        return pending

    def take_run(self, route: Route, now: int, limit: int) -> list[Pending]:
        """Up to `limit` actions that may go out together, in the order in which they were decided: with each user's
        due action those that wait behind it. Give them back whole: `done` or `untouched`."""
        run: list[Pending] = []
        while len(run) < limit and (head := self.take(route, now)) is not None:
            run.extend(islice(self._lanes[route, head.user_id], limit - len(run)))
        run.sort(key=lambda pending: pending.number)
        return run

    def done(self, *taken: Pending) -> None:
        """It is over with these; their users' next actions of that route come up."""
        for pending in taken:
            self._table.remove(pending.id)
            self._lanes[pending.route, pending.user_id].popleft()
        self.untouched(*taken)

    def retry(self, pending: Pending, due: int) -> None:
        """An attempt was made in vain; the next is due then."""
        pending.row[1] += 1
        pending.row[2] = due
        self._table.put(pending.id, pending.row)
        self._come_up(pending)

    def untouched(self, *taken: Pending) -> None:
        """No attempt was made after all: what stands first for their users comes up again."""
        for key in dict.fromkeys((pending.route, pending.user_id) for pending in taken):
            lane = self._lanes[key]
            if lane:
                self._come_up(lane[0])
            else:
                del self._lanes[key]

    @property
    def changed(self) -> bool:
        """Whether the next delta has something to tell."""
        return self._table.changed

    def delta(self, meta: dict[str, Any]) -> StateDelta:
        """What changed since the last one."""
        return self._table.delta(meta)

    def _enter(self, pending: Pending) -> None:
        lane = self._lanes.setdefault((pending.route, pending.user_id), deque())
        lane.append(pending)
        if len(lane) == 1:
            self._come_up(pending)

    def _come_up(self, pending: Pending) -> None:
        # Numbers are unique, so that two entries never compare by the action itself.
        heapq.heappush(self._ready.setdefault(pending.route, []), (pending.due, pending.number, pending))
