"""A synthetic shop: people with personas, bots, a funnel, and the faults of real pipelines, as a source of events.

    shop = Shop(ShopSettings(users=2_000, days=45, seed=1))
    for key, value, timestamp in shop.rows(): ...
    shop.write_truth(Path("out"))

Rows come in the order of their arrival, which is their timestamp. The shop is simulated a day at a time, in slices of
some thousand sessions; what has not arrived by the end of a slice waits for a later one (late events, resent ones,
refunds). Slicing does not show in the result. Row n is found by simulating up to it without writing JSON, about three
times as fast as reading.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import starmap
from pathlib import Path
from typing import Any, Final

import numpy as np
import orjson
import xxhash

from producers.shop.behaviour import people_events
from producers.shop.bots import card_tester_events, crawler_events
from producers.shop.delivery import deliver
from producers.shop.events import BROKEN, DTYPE, DUPLICATE, LATE, TOO_LATE, Events
from producers.shop.faults import KINDS
from producers.shop.personas import CARD_TESTER, CRAWLER, HONEST, NAMES
from producers.shop.population import Population
from producers.shop.records import records
from producers.shop.scenario import Scenario
from producers.shop.sessions import Sessions, sessions_of_day
from producers.shop.settings import DAY_MS, ShopSettings
from producers.shop.truth import Truth
from producers.source import Source, SourceRow
from schemas.events import EVENT_TYPES

VERSION: Final = 2
"""Raise it when the same settings give other rows: what was begun with the old ones must not go on with the new."""

SLICE_SESSIONS: Final = 4_000
JSON_ROWS: Final = 5_000
_NEVER: Final = np.iinfo(np.int64).max


@dataclass(frozen=True, slots=True)
class ShopSummary:
    """Counts over all rows. rows = events + duplicates + broken; of the events some came late or too late."""

    rows: int
    events: int
    duplicates: int
    late: int
    too_late: int
    broken: dict[str, int]
    by_type: dict[str, int]
    """Of the events, like the next."""
    by_persona: dict[str, int]
    users: dict[str, int]
    """Users who were ever this persona."""
    moves: int


class Shop(Source):
    """The rows of one simulation."""

    def __init__(self, settings: ShopSettings) -> None:
        self.settings = settings
        self._scenario = Scenario(settings)
        self._population = Population(settings, self._scenario)
        self._summary: ShopSummary | None = None

    @property
    def total(self) -> int | None:
        """Known once somebody asked for the summary; a simulation of its own otherwise, so None."""
        return None if self._summary is None else self._summary.rows

    @property
    def fingerprint(self) -> str:
        """Version and settings."""
        return f"shop:{VERSION}:{xxhash.xxh3_64_hexdigest(self.settings.model_dump_json().encode())}"

    @cached_property
    def truth(self) -> Truth:
        """Who was which persona when."""
        return Truth.of(self._population.intervals)

    @property
    def summary(self) -> ShopSummary:
        """Counts of everything; the first time costs a simulation."""
        if self._summary is None:
            self._summary = self._count()
        return self._summary

    def rows(self, start: int = 0) -> Iterator[SourceRow]:
        """The rows from number `start` on."""
        skip = start
        for events in self.slices():
            if skip >= len(events):
                skip -= len(events)
                continue
            for begin in range(skip, len(events), JSON_ROWS):
                part = events[begin : begin + JSON_ROWS]
                keys, values = records(part, self.settings.huge_string_bytes)
                yield from starmap(SourceRow, zip(keys, values, part["arrival"].tolist(), strict=True))
            skip = 0

    def slices(self) -> Iterator[Events]:
        """All events as columns (see `producers.shop.events`), by arrival, some thousand at a time."""
        waiting = np.zeros(0, DTYPE)
        for day_ms in range(self.settings.start_ms, self.settings.end_ms, DAY_MS):
            sessions = sessions_of_day(self._population, self._scenario, day_ms)
            for begin in range(0, len(sessions), SLICE_SESSIONS):
                part = sessions[begin : begin + SLICE_SESSIONS]
                # Nothing that is still to come arrives before the next session starts.
                rest = sessions.start[begin + SLICE_SESSIONS :]
                known_until = int(rest[0]) if len(rest) else day_ms + DAY_MS
                waiting = _by_arrival(np.concatenate((waiting, deliver(self._events(part), self.settings))))
                arrived = int(np.searchsorted(waiting["arrival"], known_until))
                yield waiting[:arrived]
                waiting = waiting[arrived:]
        yield waiting

    def write_truth(self, directory: Path) -> None:
        """`truth.jsonl` (see `producers.shop.truth`) and `summary.json` (settings and counts) into a directory."""
        directory.mkdir(parents=True, exist_ok=True)
        self.truth.write(directory / "truth.jsonl")
        content = {"settings": self.settings.model_dump(mode="json"), "summary": self.summary}
        (directory / "summary.json").write_bytes(orjson.dumps(content, option=orjson.OPT_INDENT_2))

    def _events(self, sessions: Sessions) -> Events:
        people = sessions[np.flatnonzero(sessions.persona < HONEST)]
        crawlers = sessions[np.flatnonzero(sessions.persona == CRAWLER)]
        testers = sessions[np.flatnonzero(sessions.persona == CARD_TESTER)]
        end_ms = self.settings.end_ms
        return np.concatenate(
            [
                *people_events(people, self._population, self._scenario, end_ms),
                *crawler_events(crawlers),
                *card_tester_events(testers, end_ms),
            ]
        )

    def _count(self) -> ShopSummary:
        fates = np.zeros(BROKEN + 1, np.int64)
        kinds = np.zeros(len(EVENT_TYPES), np.int64)
        personas = np.zeros(len(NAMES), np.int64)
        faults = np.zeros(len(KINDS), np.int64)
        for events in self.slices():
            fates += np.bincount(events["fate"], minlength=len(fates))
            valid = events[events["fate"] < DUPLICATE]
            kinds += np.bincount(valid["kind"], minlength=len(kinds))
            personas += np.bincount(valid["persona"], minlength=len(personas))
            faults += np.bincount(events["fault"][events["fate"] == BROKEN], minlength=len(faults))
        intervals = self._population.intervals
        pairs = np.unique(np.stack((intervals.user, intervals.persona)), axis=1)
        return ShopSummary(
            rows=int(fates.sum()),
            events=int(fates[:DUPLICATE].sum()),
            duplicates=int(fates[DUPLICATE]),
            late=int(fates[LATE]),
            too_late=int(fates[TOO_LATE]),
            broken=_named((fault.name for fault in KINDS), faults),
            by_type=_named(EVENT_TYPES, kinds),
            by_persona=_named(NAMES, personas),
            users=_named(NAMES, np.bincount(pairs[1], minlength=len(NAMES))),
            moves=len(self.truth.moves()),
        )


def _by_arrival(events: Events) -> Events:
    """In the order of arrival; ties in an order of their own that does not depend on the slices."""
    return events[np.lexsort((events["fate"], events["key"], events["arrival"]))]


def _named(names: Any, counts: Any) -> dict[str, int]:
    return dict(zip(names, counts.tolist(), strict=True))
