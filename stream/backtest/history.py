"""What the data holds, read once before the replay: its span, who buys when, and a sample for the naive baseline.

Invariant: nothing here reaches the pipeline. It is the world that the segments are judged against: every valid,
distinct event counts in it, also one that came too late for the features. What lies before a checkpoint is what had
arrived before it; what comes next is what happened at or after it and had not arrived.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Final, NamedTuple

import numpy as np
import xxhash
from numpy.typing import NDArray

from producers.source import Source
from schemas.topics import EVENTS
from stream.features.batch import PURCHASE, REFUND, EventBatch
from stream.features.events import IngestSettings, decode
from stream.features.layout import HALF_HOUR_MS
from stream.transport.records import ReadRecord

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
Mask = NDArray[np.bool_]

CHUNK: Final = 5_000
SAMPLE_EVENTS: Final = 10_000
"""Events of the sampled users are kept up to twice as many; then half of the users are let go."""


class Outcome(NamedTuple):
    """What users did next, one entry each in the order that was asked for."""

    spend: FloatArray
    """Purchases less refunds, not below 0."""
    bought: Mask
    """At least one purchase, at whatever price."""


class Rfm(NamedTuple):
    """What users had bought, one entry each; somebody who never bought has -inf, 0 and 0."""

    recency: FloatArray
    """Time of the last purchase, epoch milliseconds: larger is more recent."""
    frequency: FloatArray
    """Orders: half-hours (UTC) with a purchase, since the lines of an order arrive together."""
    monetary: FloatArray
    """Purchases less refunds; the number of purchases where the data has no prices."""


class Sampled(NamedTuple):
    """Events of sampled users, and when each arrived."""

    batch: EventBatch
    arrival: IntArray


@dataclass(slots=True)
class Sales:
    """Purchases and refunds: n rows, distinct, in order of arrival."""

    user: IntArray
    time: IntArray
    arrival: IntArray
    amount: FloatArray
    purchase: Mask
    order: Mask
    """The first row of its order to arrive."""

    @property
    def priced(self) -> bool:
        """Whether any purchase has a price."""
        return bool((self.amount != 0).any())


@dataclass(slots=True)
class History:
    """Users are numbered in the order in which they first appear among valid events."""

    rows: int
    events: int
    """Valid ones."""
    start: int
    """First arrival, epoch milliseconds."""
    end: int
    """One past the last arrival."""
    users: dict[str, int]
    sales: Sales
    sample: list[Sampled]
    share: float
    """Of the users, in the sample."""
    _known: list[int] = field(default_factory=list)

    def numbers(self, user_ids: Sequence[str]) -> IntArray:
        """The numbers of these users, (m,). Raises KeyError for one who is not in the data."""
        return np.fromiter((self.users[user] for user in user_ids), np.int64, len(user_ids))

    def outcome(self, users: IntArray, at_ms: int, horizon_ms: int) -> Outcome:
        """What `users` (m,) did from `at_ms` up to one horizon later, by event time."""
        sales = self.sales
        next_ones = (sales.time >= at_ms) & (sales.time < at_ms + horizon_ms) & (sales.arrival >= at_ms)
        who = sales.user[next_ones]
        spend = np.bincount(who, sales.amount[next_ones], len(self.users))
        bought = np.bincount(who, sales.purchase[next_ones], len(self.users)) > 0
        return Outcome(np.maximum(spend[users], 0.0), bought[users])

    def rfm(self, users: IntArray, at_ms: int) -> Rfm:
        """What `users` (m,) had bought by `at_ms`, as far as it had arrived."""
        sales, count = self.sales, len(self.users)
        known = sales.arrival < at_ms
        bought = known & sales.purchase
        recency = np.full(count, -np.inf)
        np.maximum.at(recency, sales.user[bought], sales.time[bought].astype(np.float64))
        frequency = np.bincount(sales.user[known & sales.order], minlength=count).astype(np.float64)
        worth = sales.amount if sales.priced else sales.purchase.astype(np.float64)
        monetary: FloatArray = np.bincount(sales.user[known], worth[known], count).astype(np.float64)
        return Rfm(recency[users], frequency[users], monetary[users])


def scan(source: Source, ingest: IngestSettings, tell: Callable[[int], None] = lambda rows: None) -> History:
    """Read all rows once; `tell` hears how many were read so far. Raises ValueError where no row is an event."""
    users: dict[str, int] = {}
    parts: list[tuple[IntArray, IntArray, IntArray, FloatArray, Mask, NDArray[np.uint64]]] = []
    sample = _Sample()
    rows = events = 0
    start = end = 0
    for records in _chunks(source):
        rows += len(records)
        batch, _ = decode(records, None, ingest)
        events += len(batch)
        if len(batch):
            arrival = np.fromiter((records[p].timestamp for p in batch.position.tolist()), np.int64, len(batch))
            start = start or int(arrival[0])
            end = int(arrival[-1]) + 1
            number = np.fromiter((users.setdefault(u, len(users)) for u in batch.user_ids), np.int64, len(batch))
            sale = np.flatnonzero((batch.kind == PURCHASE) | (batch.kind == REFUND))
            parts.append(
                (
                    number[sale],
                    batch.time[sale],
                    arrival[sale],
                    batch.amount[sale],
                    batch.kind[sale] == PURCHASE,
                    batch.id_hash[sale],
                )
            )
            sample.add(batch, arrival)
        tell(rows)
    if not events:
        raise ValueError(f"none of the {rows} rows is a valid event")
    columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
    return History(rows, events, start, end, users, _sales(*columns), sample.kept, sample.share)


def _sales(
    user: IntArray, time: IntArray, arrival: IntArray, amount: FloatArray, purchase: Mask, event: NDArray[np.uint64]
) -> Sales:
    first = _first_of(user, event.view(np.int64))
    sales = Sales(user[first], time[first], arrival[first], amount[first], purchase[first], np.zeros(len(first), bool))
    bought = np.flatnonzero(sales.purchase)
    sales.order[bought[_first_of(sales.user[bought], sales.time[bought] // HALF_HOUR_MS)]] = True
    return sales


def _first_of(a: IntArray, b: IntArray) -> NDArray[np.intp]:
    """The first row of each distinct pair, ascending."""
    _, first = np.unique(np.stack([a, b], axis=1), axis=0, return_index=True)
    return np.sort(first)


def _chunks(source: Source) -> Iterator[list[ReadRecord]]:
    rows = source.rows()
    offset = 0
    while chunk := list(islice(rows, CHUNK)):
        yield [ReadRecord(EVENTS, 0, offset + i, r.timestamp, r.key, r.value, ()) for i, r in enumerate(chunk)]
        offset += len(chunk)


class _Sample:
    """All events of some users: those whose hash is below a threshold that falls as events come."""

    def __init__(self) -> None:
        self.kept: list[Sampled] = []
        self.share = 1.0
        self._count = 0

    def add(self, batch: EventBatch, arrival: IntArray) -> None:
        part = self._thinned(Sampled(batch, arrival))
        self.kept.append(part)
        self._count += len(part.batch)
        while self._count > 2 * SAMPLE_EVENTS:
            self.share /= 2
            self.kept = [thinned for one in self.kept if len((thinned := self._thinned(one)).batch)]
            self._count = sum(len(one.batch) for one in self.kept)
            if len(self.kept) == 1 and len(set(self.kept[0].batch.user_ids)) == 1:
                return

    def _thinned(self, part: Sampled) -> Sampled:
        if self.share == 1.0:
            return part
        limit = int(self.share * 2**64)
        hashes = (xxhash.xxh3_64_intdigest(user.encode(), 1) < limit for user in part.batch.user_ids)
        own = np.flatnonzero(np.fromiter(hashes, bool, len(part.batch)))
        return Sampled(part.batch.take(own), part.arrival[own])
