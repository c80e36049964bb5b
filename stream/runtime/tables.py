"""The tables that a stage follows: one-partition topics, read whole, and again as far as they have grown."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import Future
from typing import NamedTuple

from stream.aside import Aside
from stream.runtime.stage import Stage
from stream.transport.base import Record, TopicPartition, Transport

INTERVAL_S = 0.5
"""How often a live stage looks for new records: well within the minute that a model may take."""


class _News(NamedTuple):
    """What a table has from one offset to another."""

    topic: str
    start: int
    end: int
    records: list[Record]


class Tables:
    """Of one stage. With `wall_clock` False they are looked at whenever `follow` is called (replays: deterministic)."""

    def __init__(self, stage: Stage, transport: Transport, *, wall_clock: bool) -> None:
        self._stage = stage
        self._transport = transport
        self._wall_clock = wall_clock
        self._offsets: dict[str, int] = {}
        self._looked_at = float("-inf")
        self._look: Future[list[_News]] | None = None
        """What was asked for aside, and not told to the stage yet."""

    def hurry(self) -> None:
        """The next `follow` looks at once and waits for it: somebody may know more than we do."""
        self._looked_at, self._look = float("-inf"), None

    def follow(self, aside: Aside | None) -> None:
        """Tell the stage what is new, on the thread of the call.

        The look itself is made `aside` where there is one, and told by a later call. Raises what the transport raises.
        """
        if self._look is not None:
            if self._look.done():
                look, self._look = self._look, None
                self._tell(look.result())
            return
        clock = time.monotonic()
        if not self._stage.tables or (self._wall_clock and clock - self._looked_at < INTERVAL_S):
            return
        hurried, self._looked_at = self._looked_at == float("-inf"), clock
        if aside is None or hurried:
            self._tell(self._read())
        else:
            self._look = aside.call(self._read)

    def _read(self) -> list[_News]:
        news = []
        for topic in self._stage.tables:
            where = TopicPartition(topic, 0)
            start, end = self._offsets.get(topic, 0), self._transport.end_offset(where)
            if end > start:
                news.append(_News(topic, start, end, list(self._transport.read(where, start, end))))
        return news

    def _tell(self, news: Sequence[_News]) -> None:
        for topic, _, end, records in news:
            if records:
                self._stage.update_table(topic, records)
            self._offsets[topic] = end
