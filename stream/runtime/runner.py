"""The runner: polls, calls a stage, and commits what it returned in one atomic step.

Invariant: what a stage holds in memory for a partition is what its changelog and committed offsets say, plus at
most one uncommitted batch. After any failure or doubt the session is closed, everything is dropped and
restored: nothing is retried in place.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stream.aside import Aside
from stream.runtime import crash
from stream.runtime.changelog import Changelog
from stream.runtime.observing import Failure, Observer, SilentObserver
from stream.runtime.restore import Restore
from stream.runtime.share import Share
from stream.runtime.stage import Output, Stage, StateDelta
from stream.runtime.tables import Tables
from stream.transport.base import (
    Committed,
    FencedError,
    OutRecord,
    Poll,
    Record,
    Session,
    TopicPartition,
    Transport,
    TransportError,
    UnavailableError,
)
from stream.transport.records import timestamps_of

log = logging.getLogger(__name__)

RESTORE_SLICE_S = 0.1
"""A live runner restores for so long between two polls, and a delta longer at the most: the live ones wait no more."""
RESTORES_AT_ONCE = 4
"""Each has a reader, which may stand still for want of another's transaction: the others go on."""
_RESTORE_WAIT_S = 0.02
GROUP_INTERVAL_S = 1.0
"""A live runner whose commits leave no gap looks after its group so often, and at once where the group stirs."""


class _Flight(NamedTuple):
    """A commit that has begun."""

    end: Callable[[], Committed]
    """Waits for it."""
    started: float
    deltas: Sequence[tuple[int, StateDelta]]
    arrived: NDArray[np.int64]
    state_bytes: int


class Runner:
    """Runs one stage on one transport.

    Parameters: `group` is the consumer group; `batch_records` bounds a poll; with `wall_clock` False the stage
    gets no time but its records' own, and tables are followed before every batch (replays: deterministic). `share`
    is how much of its thread's time the stage may take in `run`: after a batch it rests.
    """

    def __init__(
        self,
        stage: Stage,
        transport: Transport,
        *,
        group: str,
        batch_records: int = 5_000,
        wall_clock: bool = True,
        observer: Observer | None = None,
        share: float = 1.0,
    ) -> None:
        self.stage = stage
        self._transport = transport
        self._group = group
        self._batch_records = batch_records
        self._wall_clock = wall_clock
        self._observer: Observer = observer or SilentObserver()
        self._share = Share(share)
        self._more = False
        """A tick did something and may have more to do, such as a sweep's next slice: no wait for records then."""
        self._session: Session | None = None
        self._flight: _Flight | None = None
        """The last commit, where it may still be under way: in `run` the next batch is worked on meanwhile."""
        self._polled_at = float("-inf")
        self._changelog = Changelog(transport, stage.name, stage.changelog) if stage.changelog else None
        self._owned: set[int] = set()
        self._placed: dict[int, set[str]] = {}
        """Topics of partitions that are ours and not restored: they may come one by one."""
        self._restores: dict[int, Restore] = {}
        self._offsets: dict[TopicPartition, int] = {}
        """Committed, or about to be, for every owned input partition that was ever read."""
        self._pending: set[TopicPartition] = set()
        self._tables = Tables(stage, transport, wall_clock=wall_clock)
        self._aside: Aside | None = None
        self._reported_lag_at = float("-inf")

    def step(self, timeout: float) -> int:
        """One poll, one call of the stage, one commit. Returns how many records were processed.

        New partitions are restored whole before it returns, so that the same log gives the same batches. Raises
        FencedError or UnavailableError after having dropped everything: call `step` again to start over.
        """
        return self._try(timeout, patient=True)

    def advance(self, timeout: float) -> int:
        """A step as `run` makes it: a restore takes its slice, and the commit may still be under way afterwards."""
        return self._try(timeout, patient=False)

    def finish(self) -> None:
        """Wait for the commit that is under way, if one is. Raises FencedError."""
        self._land()

    def _try(self, timeout: float, *, patient: bool) -> int:
        self._observer.beat(self.stage.name)
        try:
            return self._step(timeout, patient)
        except Exception as error:
            if not isinstance(error, FencedError | UnavailableError):
                self._observer.failed(self.stage.name, "error", str(error))
                raise
            kind: Failure = "fenced" if isinstance(error, FencedError) else "unavailable"
            self._observer.failed(self.stage.name, kind, str(error))
            self.abandon()
            raise

    def run(self, stop: threading.Event, *, poll_timeout: float = 0.5) -> None:
        """Step until `stop` is set, with backoff while the transport is unavailable; then leave.

        Restores go on between the polls: partitions that are live do not wait for them.
        """
        failures = 0
        if self._wall_clock:
            self._aside = Aside(f"{self.stage.name}-aside")
        try:
            while not stop.is_set():
                try:
                    self.advance(poll_timeout)
                    failures = 0
                    self._rest(stop)
                except FencedError as error:
                    failures += 1
                    log.warning("stage %s starts over: %s", self.stage.name, error)
                    stop.wait(min(5.0, 0.05 * 2**failures) * random.uniform(0.5, 1.0))
                except UnavailableError as error:
                    failures += 1
                    delay = min(10.0, 0.25 * 2**failures) * random.uniform(0.5, 1.0)
                    log.warning("stage %s waits %.1f s: %s", self.stage.name, delay, error)
                    stop.wait(delay)
            with suppress(FencedError, UnavailableError):
                self.finish()
        finally:
            self.abandon()
            if self._aside is not None:
                self._aside.close()
                self._aside = None

    def _rest(self, stop: threading.Event) -> None:
        while (left := self._share.left()) > 0 and not stop.wait(min(left, 1.0)):
            self._observer.beat(self.stage.name)

    def joined(self) -> bool:
        """Whether there is a session with partitions of its own."""
        return self._session is not None and bool(self._owned)

    def behind(self) -> bool:
        """Whether there are records to read that this member has not polled yet."""
        return self._session is not None and any(self._session.lag().values())

    def abandon(self) -> None:
        """Leave the group and forget all state; what was not committed will be read again."""
        session, self._session = self._session, None
        flight, self._flight = self._flight, None
        if flight is not None:
            # Whatever else failed: a transaction that is left open is in everybody's way until its time-out.
            with suppress(TransportError):
                flight.end()
        for partition in self._owned | set(self._placed):
            self._drop(partition)
        self._pending.clear()
        self._offsets.clear()
        if session is not None:
            session.close()

    def _step(self, timeout: float, patient: bool) -> int:
        if self._session is None:
            self._observer.not_ready(self.stage.name, "joining the group")
            self._session = self._transport.session(self._group, self.stage.inputs)
        self._tables.follow(self._aside)
        poll = self._poll(self._session, timeout)
        if poll.revoked or poll.assigned:
            self._rebalance(poll)
        if self._placed:
            self._advance_restores(None if patient else time.monotonic() + RESTORE_SLICE_S)
        if not self._placed:
            self._observer.ready(self.stage.name)
        now = int(time.time() * 1000) if self._wall_clock else None
        batch = self._by_partition(poll)
        if batch:
            crash.reach("after_poll")
            started = time.perf_counter()
            with self._share.working():
                output = self.stage.process(batch, now)
            self._observer.batch(self.stage.name, sum(map(len, batch.values())), time.perf_counter() - started)
            if not patient:
                self._session.ask_ahead()
            self._begin_commit(output, batch)
        # A commit of its own: a second delta of a partition in one commit would be framed before it is known where the
        # first one landed, and name a place in the changelog that is trimmed by then.
        ticked = self.stage.tick(now) if self._owned else None
        if ticked is not None:
            self._begin_commit(ticked, {})
        if patient or self._share.left() > 0:
            self._land()
        self._more = ticked is not None
        self._report_lag()
        return sum(map(len, batch.values()))

    def _poll(self, session: Session, timeout: float) -> Poll:
        """What the group and the log have for us; only what the log has while a commit is under way.

        Partitions come and go in polls alone. By then no commit is under way, and no batch waits for its own.
        """
        if self._flight is not None:
            calm = not self._placed and time.monotonic() - self._polled_at < GROUP_INTERVAL_S
            if calm and (records := session.ahead(self._batch_records)):
                return Poll(records)
            self._land()
        poll = session.poll(self._batch_records, self._poll_timeout(timeout))
        self._polled_at = time.monotonic()
        return poll

    def _poll_timeout(self, timeout: float) -> float:
        if self._more:
            return 0.0
        if not self._placed:
            return timeout
        return 0.0 if any(restore.ready() for restore in self._restores.values()) else min(timeout, _RESTORE_WAIT_S)

    def _by_partition(self, poll: Poll) -> dict[int, Sequence[Record]]:
        batch: dict[int, Sequence[Record]] = {}
        for where in sorted(poll.records):
            records = poll.records[where]
            self._offsets[where] = records[-1].offset + 1
            self._pending.add(where)
            held = batch.get(where.partition)
            batch[where.partition] = records if held is None else [*held, *records]
        return batch

    def _rebalance(self, poll: Poll) -> None:
        self._observer.rebalance(self.stage.name, len(poll.assigned), len(poll.revoked))
        for partition in {where.partition for where in poll.revoked}:
            self._drop(partition)
        for where in poll.assigned:
            self._placed.setdefault(where.partition, set()).add(where.topic)

    def _advance_restores(self, until: float | None) -> None:
        """Restore up to a moment of the monotonic clock, or with None all there is, and let flow what is done."""
        while self._placed:
            for partition in sorted(self._placed):
                if len(self._restores) < RESTORES_AT_ONCE and partition not in self._restores:
                    self._begin_restore(partition)
            self._observer.not_ready(self.stage.name, "restoring " + _listed(sorted(self._placed)))
            for restore in list(self._restores.values()):
                if restore.advance(until):
                    self._finish_restore(restore)
            if until is not None or not self._restores:
                break

    def _begin_restore(self, partition: int) -> None:
        """Where all inputs are placed."""
        if set(self.stage.inputs) <= self._placed[partition]:
            places = {topic: TopicPartition(topic, partition) for topic in self.stage.inputs}

            def offsets() -> dict[str, int | None]:
                return {topic: self._transport.committed(self._group, where) for topic, where in places.items()}

            self._restores[partition] = Restore(self.stage, self._changelog, partition, offsets)

    def _finish_restore(self, restore: Restore) -> None:
        partition = restore.partition
        del self._restores[partition]
        topics = self._placed.pop(partition)
        for topic, committed in restore.inputs.items():
            if committed is not None:
                self._offsets[TopicPartition(topic, partition)] = committed
        # Only now: a restore that broke off is no state that could be dropped.
        self._owned.add(partition)
        self._observer.restored(self.stage.name, partition, time.perf_counter() - restore.started)
        # Whoever had it before may have used newer tables than we have seen.
        self._tables.hurry()
        self._tables.follow(self._aside)
        assert self._session is not None
        self._session.resume([TopicPartition(topic, partition) for topic in topics])

    def _drop(self, partition: int) -> None:
        self._placed.pop(partition, None)
        if (restore := self._restores.pop(partition, None)) is not None:
            restore.cancel()
        if partition not in self._owned:
            return
        self._owned.discard(partition)
        self.stage.drop(partition)
        for topic in self.stage.inputs:
            where = TopicPartition(topic, partition)
            self._offsets.pop(where, None)
            self._pending.discard(where)
        if self._changelog:
            self._changelog.forget(partition)

    def _begin_commit(self, output: Output, batch: dict[int, Sequence[Record]]) -> None:
        if not output.commit:
            return
        # Before the next delta is framed it must be known where the last one landed.
        self._land()
        deltas = sorted(output.state.items())
        if self._changelog:
            told = {partition for partition, _ in deltas}
            if silent := {where.partition for where in self._pending} - told:
                raise RuntimeError(f"stage {self.stage.name} commits partitions {sorted(silent)} without their state")
        frames: list[OutRecord] = []
        for partition, delta in deltas:
            assert self._changelog is not None
            inputs = {topic: self._offsets.get(TopicPartition(topic, partition)) for topic in self.stage.inputs}
            frames += self._changelog.frame(partition, delta, inputs)
        records = [*output.records, *frames]
        offsets = {where: self._offsets[where] for where in self._pending}
        if not records and not offsets:
            return
        # Only offsets prove that the partitions are still ours: one that is committed already, where any is. Left to
        # itself the session takes a position that may be none yet.
        offsets = offsets or dict(list(self._offsets.items())[:1])
        arrived = [timestamps_of(records) for records in batch.values()] if self._wall_clock else []
        assert self._session is not None
        self._observer.begun(self.stage.name)
        started = time.monotonic()
        self._flight = _Flight(
            self._session.begin(offsets, records),
            started,
            deltas,
            np.concatenate(arrived) if arrived else np.empty(0, np.int64),
            sum(len(record.value or b"") for record in frames),
        )
        self._pending.clear()

    def _land(self) -> None:
        """Wait for the commit that is under way, if one is."""
        flight, self._flight = self._flight, None
        if flight is None:
            return
        committed = flight.end()
        crash.reach("after_commit")
        self._observer.commit(
            self.stage.name,
            committed.ended - flight.started,
            flight.arrived,
            flight.state_bytes,
            time.monotonic() - committed.ended,
        )
        if self._changelog:
            self._settle(self._changelog, flight.deltas, committed.first)

    def _settle(
        self, changelog: Changelog, deltas: Sequence[tuple[int, StateDelta]], written: dict[TopicPartition, int]
    ) -> None:
        """Tell the changelog where its records landed, and trim what the new cycles made needless."""
        assert self.stage.changelog is not None
        for partition, delta in deltas:
            before = changelog.written(partition, delta, written[TopicPartition(self.stage.changelog, partition)])
            if before is None:
                continue
            if self._aside is None:
                changelog.trim(partition, before)
            else:
                self._aside.call(partial(changelog.trim, partition, before))

    def _report_lag(self) -> None:
        clock = time.monotonic()
        if self._session is not None and clock - self._reported_lag_at >= 1.0:
            self._reported_lag_at = clock
            self._observer.lag(self.stage.name, self._session.lag())


def _listed(partitions: Sequence[int]) -> str:
    more = f" and {len(partitions) - 8} more" if len(partitions) > 8 else ""
    return ("partition " if len(partitions) == 1 else "partitions ") + ", ".join(map(str, partitions[:8])) + more
