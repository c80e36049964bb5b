"""What is true about the shop, beside its events: who was which persona when.

`truth.jsonl` holds one object an interval: `user`, `from`, `until` (epoch ms, half open), `persona`, `is_bot`; users in
order, each one's intervals by time. A person's intervals are adjacent; between a bot's there is silence. A session
belongs to the persona in force when it starts, and may run a little beyond; refunds follow days later.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import orjson

from producers.shop.personas import PERSONAS
from producers.shop.population import Intervals, user_name
from producers.source import SourceError


class TruthInterval(NamedTuple):
    """A user was this persona in [start, end), epoch milliseconds."""

    user: str
    start: int
    end: int
    persona: str
    is_bot: bool


class Move(NamedTuple):
    """A person became another persona."""

    user: str
    at: int
    before: str
    after: str


class Truth:
    """Personas by user and time."""

    def __init__(self, intervals: Iterable[TruthInterval]) -> None:
        self.intervals = tuple(sorted(intervals))
        self._start = np.array([interval.start for interval in self.intervals], np.int64)
        self._end = np.array([interval.end for interval in self.intervals], np.int64)

    @classmethod
    def of(cls, intervals: Intervals) -> Truth:
        """Of a simulated population."""
        columns = (intervals.user.tolist(), intervals.start.tolist(), intervals.end.tolist())
        personas = [PERSONAS[number] for number in intervals.persona.tolist()]
        return cls(
            TruthInterval(user_name(user), start, end, persona.name, persona.is_bot)
            for user, start, end, persona in zip(*columns, personas, strict=True)
        )

    @classmethod
    def load(cls, path: Path) -> Truth:
        """From `truth.jsonl`; raises SourceError where it is missing or not what `write` wrote."""
        try:
            found = [orjson.loads(line) for line in path.read_bytes().splitlines()]
            return cls(TruthInterval(o["user"], o["from"], o["until"], o["persona"], o["is_bot"]) for o in found)
        except FileNotFoundError:
            raise SourceError(f"{path}: no such file; the synthetic shop writes it beside its events") from None
        except (orjson.JSONDecodeError, KeyError, TypeError) as error:
            raise SourceError(f"{path}: not a truth file of the synthetic shop: {error!r}") from None

    def write(self, path: Path) -> None:
        """As JSON Lines; an existing file is replaced."""
        with path.open("wb") as file:
            for user, start, end, persona, is_bot in self.intervals:
                row = {"user": user, "from": start, "until": end, "persona": persona, "is_bot": is_bot}
                file.write(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))

    def at(self, time: int) -> dict[str, str]:
        """Everybody who is somebody at this time: persona by user."""
        rows = np.flatnonzero((self._start <= time) & (time < self._end)).tolist()
        return {self.intervals[row].user: self.intervals[row].persona for row in rows}

    def moves(self) -> list[Move]:
        """All moves of people, by user and time."""
        return [
            Move(after.user, after.start, before.persona, after.persona)
            for before, after in pairwise(self.intervals)
            if before.user == after.user and before.end == after.start and not after.is_bot
        ]

    def bots(self) -> frozenset[str]:
        """Users who are no people: crawlers and card testers."""
        return frozenset(interval.user for interval in self.intervals if interval.is_bot)
