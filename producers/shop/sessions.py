"""Who comes on one day, and when: sessions of people, crawlers and card testers, ordered by their start.

People come by a Poisson process whose rate follows persona, person, weekday, hour, scenario and decay. Somebody who
becomes another persona during the day has two pieces of it, so that every session starts within its persona's
interval. Crawlers come at even intervals round the clock, card testers in bursts at any time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from producers.shop.draws import Ints, Keys, child, poisson, uniform
from producers.shop.personas import CARD_TESTER, CRAWLER, HONEST, column
from producers.shop.population import DAYS, Intervals, Population
from producers.shop.rhythm import moment, reached, weekday_factor
from producers.shop.scenario import Scenario
from producers.shop.settings import DAY_MS

_COUNT, _WHEN = range(2)
_CRAWLER_JITTER_MS: Final = 60_000


@dataclass(frozen=True, slots=True)
class Sessions:
    """One row a session: user number, persona number, key of its draws, start in epoch milliseconds."""

    user: Ints
    persona: Ints
    key: Keys
    start: Ints

    def __len__(self) -> int:
        return len(self.user)

    def __getitem__(self, rows: slice | Ints) -> Sessions:
        return Sessions(self.user[rows], self.persona[rows], self.key[rows], self.start[rows])


def sessions_of_day(population: Population, scenario: Scenario, day_ms: int) -> Sessions:
    """All sessions that start within the day that begins at `day_ms`."""
    pieces = population.intervals.within(day_ms, day_ms + DAY_MS)
    parts = [
        _people(population, scenario, pieces[pieces.persona < HONEST], day_ms),
        _crawlers(population, pieces[pieces.persona == CRAWLER], day_ms),
        _card_testers(population, pieces[pieces.persona == CARD_TESTER], day_ms),
    ]
    found = Sessions(
        np.concatenate([part.user for part in parts]),
        np.concatenate([part.persona for part in parts]),
        np.concatenate([part.key for part in parts]),
        np.concatenate([part.start for part in parts]),
    )
    return found[np.lexsort((found.key, found.start))]


def _people(population: Population, scenario: Scenario, pieces: Intervals, day_ms: int) -> Sessions:
    persona, evening = pieces.persona, population.evening[pieces.user]
    first = reached(persona, evening, (pieces.start - day_ms) / DAY_MS)
    share = reached(persona, evening, (pieces.end - day_ms) / DAY_MS) - first
    rate = column("sessions_per_day")[persona] * population.rate_factor[pieces.user]
    rate *= weekday_factor(persona, day_ms) * scenario.visits(persona, pieces.start)
    rate *= np.exp((pieces.since - pieces.start) / DAY_MS / column("decay_days")[persona])
    key = _piece_keys(population, pieces, day_ms)
    piece, session_key = _repeat(key, poisson(rate * share, key, _COUNT))
    when = moment(persona[piece], evening[piece], first[piece] + share[piece] * uniform(session_key, _WHEN))
    # Rounding may put a moment just outside its piece.
    start = np.clip(day_ms + (when * DAY_MS).astype(np.int64), pieces.start[piece], pieces.end[piece] - 1)
    return Sessions(pieces.user[piece], persona[piece], session_key, start)


def _crawlers(population: Population, pieces: Intervals, day_ms: int) -> Sessions:
    a_day = int(column("sessions_per_day")[CRAWLER])
    piece, key = _repeat(_piece_keys(population, pieces, day_ms), np.full(len(pieces), a_day))
    number = np.arange(len(piece)) % a_day
    phase = uniform(population.keys[pieces.user], _WHEN)[piece]
    jitter = _CRAWLER_JITTER_MS * uniform(key, _WHEN)
    start = day_ms + ((number + phase * 0.9) * (DAY_MS / a_day) + jitter).astype(np.int64)
    inside = np.flatnonzero((start >= pieces.start[piece]) & (start < pieces.end[piece]))
    return Sessions(pieces.user[piece], pieces.persona[piece], key, start)[inside]


def _card_testers(population: Population, pieces: Intervals, day_ms: int) -> Sessions:
    length = (pieces.end - pieces.start).astype(np.float64)
    key = _piece_keys(population, pieces, day_ms)
    rate = column("sessions_per_day")[CARD_TESTER]
    piece, session_key = _repeat(key, poisson(rate * length / DAY_MS, key, _COUNT))
    start = pieces.start[piece] + (uniform(session_key, _WHEN) * length[piece]).astype(np.int64)
    return Sessions(pieces.user[piece], pieces.persona[piece], session_key, start)


def _piece_keys(population: Population, pieces: Intervals, day_ms: int) -> Keys:
    return child(child(child(population.keys[pieces.user], DAYS), day_ms // DAY_MS), pieces.ordinal)


def _repeat(keys: Keys, count: Ints) -> tuple[Ints, Keys]:
    """For each session: the row of its piece, and a key of its own."""
    piece = np.repeat(np.arange(len(keys)), count)
    number = np.arange(len(piece)) - np.repeat(np.cumsum(count) - count, count)
    return piece, child(keys[piece], number)
