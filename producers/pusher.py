"""Pushes a source to a transport at a chosen rate, and carries on where it stopped.

Rows go out in order, keyed by user, in batches; a batch is durable before the next one begins, and then the position
file, if there is one, says so. A crash between the two sends one batch again, under the same event ids, so
consumers drop it as duplicates.

Rates: as fast as it goes; so many events a second (a token bucket of one second); or, with `retime`, at the pace of
the data, its start mapped to now and its time sped up. Both together: whichever is slower.

Kafka keeps records by their timestamps. It refuses one more than an hour ahead of its clock
(message.timestamp.after.max.ms) and soon deletes one older than the topic's retention.ms. To push old or future
data there, retime it, or stamp the records with the time of sending.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from threading import Event
from typing import Final, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field

from producers.readers.base import utc_ms
from producers.source import Source, SourceError, SourceRow
from schemas.topics import EVENTS
from stream.transport.base import OutRecord, Transport, UnavailableError

_log = logging.getLogger(__name__)

_NAP_S: Final = 0.25
_TICK_S: Final = 0.02
_BACKOFF_S: Final = (0.5, 10.0)
_ROUNDING: Final = 1e-6


class PushSettings(BaseModel):
    """How a source is pushed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    topic: str = EVENTS
    rate: float | None = Field(default=None, gt=0, description="Events a second; null: as fast as it goes")
    retime: bool = Field(default=False, description="Shift occurred_at and arrival so that the data starts now")
    speed: float = Field(default=1.0, gt=0, description="With retime: seconds of the data in a second of ours")
    stamp: Literal["arrival", "now"] = Field(default="arrival", description="The records' timestamps")
    batch_rows: int = Field(default=5_000, ge=1, le=1_000_000)
    max_value_bytes: int = Field(
        default=1_000_000,
        ge=1_024,
        description="A longer value is cut here, since a broker would refuse it: it stays one record, and one that no "
        "decoder accepts",
    )


@dataclass(frozen=True, slots=True)
class PushProgress:
    """How far a run has come."""

    pushed: int
    """Rows in this run."""
    next_row: int
    """The number of the first row that is not pushed yet."""
    total: int | None
    last_arrival: int | None
    """The source's own time of the last row."""
    cut: int
    """Values that were too long, in this run."""
    seconds: float
    finished: bool
    """The source has no more rows."""

    @property
    def rate(self) -> float:
        """Rows a second over the run."""
        return self.pushed / self.seconds if self.seconds > 0 else 0.0


class Pusher:
    """One source on its way to one topic.

    `position` names a file that holds the next row: a second run with it carries on, and refuses another source.
    """

    def __init__(
        self,
        source: Source,
        transport: Transport,
        settings: PushSettings | None = None,
        *,
        position: Path | None = None,
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._source = source
        self._transport = transport
        self._settings = settings or PushSettings()
        self._position = position
        self._wall = wall
        self._monotonic = monotonic

    def run(
        self,
        stop: Event | None = None,
        progress: Callable[[PushProgress], None] | None = None,
        *,
        start: int | None = None,
        limit: int | None = None,
    ) -> PushProgress:
        """Push until the source ends, `limit` rows are pushed or `stop` is set; returns how far it came.

        `start` is the first row, by default the position file's, or 0. `progress` is called after every batch. An
        unavailable transport is tried again, with backoff, until it answers. Raises SourceError and TransportError.
        """
        settings, stop = self._settings, stop or Event()
        first, origin = self._begin(start)
        shift = _Retiming(self._data_start(), origin, settings.speed) if settings.retime else None
        rows = self._source.rows(first)
        held = next(rows, None)
        bucket = _TokenBucket(settings.rate, self._monotonic) if settings.rate else None
        began = self._monotonic()
        report = PushProgress(0, first, self._source.total, None, 0, 0.0, held is None)
        while held is not None and not stop.is_set() and (limit is None or report.pushed < limit):
            room = settings.batch_rows if limit is None else min(settings.batch_rows, limit - report.pushed)
            if bucket and (wait := bucket.wait_for(room)) > 0:
                stop.wait(min(wait, _NAP_S))
                continue
            if bucket:
                room = min(room, bucket.tokens)
            if shift and (wait := shift.wall(held.timestamp) / 1000 - self._wall()) > 0:
                stop.wait(min(wait, _NAP_S))
                continue
            batch = [held]
            held = self._fill(batch, rows, room, shift)
            cut = sum(row.value is not None and len(row.value) > settings.max_value_bytes for row in batch)
            if not self._produce([self._record(row, shift) for row in batch], stop):
                break
            if bucket:
                bucket.spend(len(batch))
            report = PushProgress(
                report.pushed + len(batch),
                report.next_row + len(batch),
                report.total,
                batch[-1].timestamp,
                report.cut + cut,
                self._monotonic() - began,
                held is None,
            )
            self._save(report.next_row, origin)
            if progress:
                progress(report)
        return report

    def _fill(
        self, batch: list[SourceRow], rows: Iterator[SourceRow], room: int, shift: _Retiming | None
    ) -> SourceRow | None:
        """Add the rows that may go now, up to `room`; returns the next one."""
        if shift is None:
            batch.extend(islice(rows, room - 1))
            return next(rows, None)
        due = shift.data(self._wall() * 1000)
        while (row := next(rows, None)) is not None and row.timestamp <= due and len(batch) < room:
            batch.append(row)
        return row

    def _record(self, row: SourceRow, shift: _Retiming | None) -> OutRecord:
        value, timestamp = row.value, row.timestamp
        if shift is not None:
            value, timestamp = shift.value(value), shift.wall(timestamp)
        if value is not None and len(value) > self._settings.max_value_bytes:
            value = value[: self._settings.max_value_bytes]
        if self._settings.stamp == "now":
            timestamp = int(self._wall() * 1000)
        return OutRecord(self._settings.topic, row.key, value, timestamp=timestamp)

    def _produce(self, records: list[OutRecord], stop: Event) -> bool:
        """Until it is done; False where `stop` came first."""
        pause, longest = _BACKOFF_S
        while True:
            try:
                self._transport.produce(records)
                return True
            except UnavailableError as error:
                _log.warning("cannot push to %s: %s; trying again in %.1f s", self._settings.topic, error, pause)
                if stop.wait(pause):
                    return False
                pause = min(2 * pause, longest)

    def _data_start(self) -> int:
        first = next(self._source.rows(0), None)
        return 0 if first is None else first.timestamp

    def _begin(self, start: int | None) -> tuple[int, int]:
        """The first row, and the wall time (ms) at which the data's start lies."""
        now = int(self._wall() * 1000)
        if self._position is None or not self._position.exists():
            return start or 0, now
        try:
            saved = orjson.loads(self._position.read_bytes())
            source, next_row, origin = saved["source"], int(saved["next_row"]), int(saved["origin_ms"])
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError):
            raise SourceError(f"{self._position}: not a position file; delete it to start over") from None
        if source != self._source.fingerprint:
            raise SourceError(
                f"{self._position}: holds the position in another source ({source}, not {self._source.fingerprint}); "
                "delete it to start over"
            )
        return (next_row, origin) if start is None else (start, now)

    def _save(self, next_row: int, origin: int) -> None:
        if self._position is None:
            return
        new = self._position.with_name(self._position.name + ".new")
        saved = {"source": self._source.fingerprint, "next_row": next_row, "origin_ms": origin}
        try:
            new.write_bytes(orjson.dumps(saved))
            new.replace(self._position)
        except OSError as error:
            raise SourceError(f"{self._position}: the position cannot be written: {error.strerror or error}") from None


class _Retiming:
    """Maps the data's time to the wall's: the data's start to `origin`, `speed` times as fast."""

    def __init__(self, data_start: int, origin: int, speed: float) -> None:
        self._start, self._origin, self._speed = data_start, origin, speed

    def wall(self, time_ms: int) -> int:
        return self._origin + round((time_ms - self._start) / self._speed)

    def data(self, wall_ms: float) -> float:
        return self._start + (wall_ms - self._origin) * self._speed

    def value(self, value: bytes | None) -> bytes | None:
        """The event with its time mapped; a value without a readable time as it is."""
        if not value:
            return value
        try:
            event = orjson.loads(value)
        except orjson.JSONDecodeError:
            return value
        if not isinstance(event, dict):
            return value
        occurred = event.get("occurred_at")
        moment = utc_ms(occurred.upper()) if isinstance(occurred, str) else occurred
        if not isinstance(moment, int) or isinstance(moment, bool) or (mapped := self.wall(moment)) < 0:
            return value
        event["occurred_at"] = mapped
        return orjson.dumps(event)


class _TokenBucket:
    """Allows `rate` events a second, and at most one second's worth after a pause."""

    def __init__(self, rate: float, monotonic: Callable[[], float]) -> None:
        self._rate, self._monotonic = rate, monotonic
        self._capacity = max(rate, 1.0)
        self._level, self._last = 0.0, monotonic()

    @property
    def tokens(self) -> int:
        self._refill()
        return int(self._level + _ROUNDING)

    def wait_for(self, room: int) -> float:
        """Seconds until a batch is worth sending: a tick's worth of events, or `room` of them."""
        self._refill()
        wanted = max(1.0, min(float(room), self._rate * _TICK_S, self._capacity))
        lacking = wanted - self._level
        return lacking / self._rate if lacking > _ROUNDING else 0.0

    def spend(self, events: int) -> None:
        self._level -= events

    def _refill(self) -> None:
        now = self._monotonic()
        self._level = min(self._capacity, self._level + (now - self._last) * self._rate)
        self._last = now
