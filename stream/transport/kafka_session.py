"""One member of a consumer group on Kafka: poll, restore, commit, with exactly-once semantics.

How a commit is made, and why in this order. A transaction never spans a poll, which looks after the group; what
`ahead` takes meanwhile is of the partitions that were ours at the last one (docs/decisions, 9).

1. Send the outputs, and hear of every batch that it was written.
2. Send the offsets with the group metadata as it was right after the last poll. Those taken at the commit may say
   generation -1 after an eviction, which the broker lets pass; those of the poll are fenced (KIP-447). A commit of
   outputs alone sends an unchanged offset along: only offsets prove that the partitions are still ours.
3. Commit. Nothing is in flight by then.

After any failure the producer is given up. The session is dead, and its successor begins by finishing or aborting
whatever this one left: it uses the same transactional id.

The id belongs to the process (or to its `group_instance_id`), not to partitions: the group's generation fences
zombies already, while a lasting id lets a restart abort its own open transaction at once rather than after a time-out.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from kafka.errors import KafkaError, KafkaTimeoutError
from kafka.structs import MemberState
from kafka.structs import TopicPartition as KafkaPartition

from stream.aside import Aside
from stream.transport.base import (
    Committed,
    FencedError,
    OutRecord,
    Poll,
    Record,
    Session,
    TopicPartition,
    UnavailableError,
)
from stream.transport.kafka_clients import BATCH_BYTES, Clients
from stream.transport.kafka_encode import encode
from stream.transport.kafka_fetch import Ahead, columns, poll, poll_once
from stream.transport.kafka_group import CopartitionAssignor, Ownership

log = logging.getLogger(__name__)

_SLICE_S = 0.1
"""The client's poll says nothing of a new assignment, and waits for unstable offsets: it gets so long at a time."""
_REBALANCE_S = 5.0
"""So long beyond its time a poll stays for the end of a rebalance, which may wait for a member that is busy."""
_GOODBYE_S = 5.0


class KafkaSession(Session):
    """See the base class. `prepare` checks outputs and chooses their partitions; `released` is called at the close."""

    def __init__(
        self,
        clients: Clients,
        group: str,
        topics: Sequence[str],
        transactional_id: str,
        instance_id: str | None,
        prepare: Callable[[Sequence[OutRecord]], dict[TopicPartition, list[OutRecord]]],
        released: Callable[[], None],
    ) -> None:
        settings = clients.settings
        self._clients = clients
        self._prefix = settings.topic_prefix
        self._group = group
        self._prepare = prepare
        self._released = released
        self._ownership = Ownership()
        self._metadata: Any = None
        self._unplaced: set[KafkaPartition] = set()
        self._waiting_since = time.monotonic()
        self._stale: set[KafkaPartition] = set()
        # The committed offset of each partition whose position is known, as far as we know.
        self._committed: dict[KafkaPartition, int] = {}
        self._heard_at = time.monotonic()
        self._closed = self._dead = False
        self._consumer: Any = None
        self._producer: Any = None
        try:
            self._producer = clients.transactional(transactional_id)
            # Fence first: what a predecessor left open is finished before we look at the offsets.
            with clients.errors():
                self._producer.start(settings.commit_timeout / 1000)
            self._consumer = clients.consumer(
                group_id=self._prefix + group,
                group_instance_id=instance_id,
                partition_assignment_strategy=[CopartitionAssignor()],
                session_timeout_ms=settings.session_timeout,
                heartbeat_interval_ms=max(settings.session_timeout // 10, 100),
                max_poll_interval_ms=settings.max_poll_interval,
            )
            self._ahead = Ahead(self._consumer)
            self._ownership.consumer = self._consumer
            names = [self._prefix + name for name in topics]
            self._consumer.subscribe(topics=names, listener=self._ownership)
            # A leader that knows no partitions yet would assign none, and rebalance again as soon as it does.
            for name in names:
                self._guard(partial(self._consumer.partitions_for_topic, name), settings.connect_timeout / 1000)
        except BaseException:
            self.close()
            raise

    def poll(self, max_records: int, timeout: float) -> Poll:
        """See the base class. Raises UnavailableError where no broker has answered for the session timeout."""
        self._check_open()
        deadline = time.monotonic() + timeout
        while True:
            # A join that ends while nobody waits for it is thrown away by the client, and begins anew: so stay.
            stable = self._is_stable()
            left = deadline - time.monotonic() if stable else _SLICE_S
            ask = poll if stable else poll_once
            with self._clients.errors():
                fetched = ask(self._consumer, max_records, min(max(left, 0.0), _SLICE_S))
                revoked = self._take_changes()
                # What came before a partition was lost: if it is ours again, its position is looked up anew.
                fetched = {where: records for where, records in fetched.items() if where in self._committed}
                assigned = self._place()
            self._snapshot()
            if fetched or assigned or revoked:
                self._heard_at = time.monotonic()
                return Poll(self._records(fetched), assigned, revoked)
            self._check_contact()
            if time.monotonic() >= deadline + (0.0 if self._is_stable() else _REBALANCE_S):
                return Poll()

    def resume(self, partitions: Iterable[TopicPartition]) -> None:
        """See the base class. Partitions that have been revoked meanwhile are passed over."""
        self._check_open()
        ours = [where for where in map(self._native, partitions) if where in self._committed]
        with self._clients.errors():
            self._consumer.resume(*ours)

    def ask_ahead(self) -> None:
        """See the base class."""
        self._check_open()
        with self._clients.errors():
            self._ahead.ask()

    def ahead(self, max_records: int) -> dict[TopicPartition, Sequence[Record]]:
        """See the base class. It does not let the client look after the group, so that nothing changes hands."""
        self._check_open()
        if self._unplaced or not self._is_stable() or self._consumer._coordinator.need_rejoin():
            return {}
        with self._clients.errors():
            fetched = self._ahead.take(max_records)
        return self._records({where: records for where, records in fetched.items() if where in self._committed})

    def commit(self, offsets: Mapping[TopicPartition, int], outputs: Sequence[OutRecord]) -> dict[TopicPartition, int]:
        """See the base class. After a FencedError the session is dead, whatever became of the commit."""
        return self.begin(offsets, outputs)().first

    def begin(self, offsets: Mapping[TopicPartition, int], outputs: Sequence[OutRecord]) -> Callable[[], Committed]:
        """See the base class. After a FencedError the session is dead, whatever became of the commit."""
        self._check_open()
        for where in offsets:
            if self._native(where) not in self._committed:
                raise FencedError(f"{where.topic}/{where.partition} is not, or no longer, this member's")
        if not offsets and not outputs:
            return lambda: Committed({}, time.monotonic())
        placed = self._prepare(outputs)
        positions = {self._native(where): offset for where, offset in offsets.items()}
        if not positions:
            if not self._committed:
                raise FencedError(f"this member of {self._group!r} has no partition, so it has nothing to publish")
            where, offset = next(iter(self._committed.items()))
            positions = {where: offset}
        metadata = self._metadata
        if metadata is None or metadata.generation_id < 0:
            raise FencedError(f"this member is not in the group {self._group!r}")
        settings = self._clients.settings
        limit = min(BATCH_BYTES, settings.max_message_bytes)
        with self._failing():
            batches = {self._native(where): list(encode(own, limit)) for where, own in placed.items()}
            wait = self._producer.begin(batches, positions, metadata, settings.commit_timeout / 1000)

        def end() -> Committed:
            with self._failing():
                written, ended = wait()
                for where, offset in written.items():
                    # A batch that the broker had already comes back without its offset: in doubt, like any failure.
                    if offset < 0:
                        raise KafkaError(f"the broker did not say where it put the records of {where.topic}")
            self._committed |= positions
            return Committed({self._ours(where): offset for where, offset in written.items()}, ended)

        return end

    def lag(self) -> dict[TopicPartition, int]:
        """See the base class. Counts control records and gaps too, so it is an upper bound."""
        self._check_open()
        lags: dict[TopicPartition, int] = {}
        with self._clients.errors():
            unknown = [where for where in self._committed if self._consumer.highwater(where) is None]
            ends = self._consumer.end_offsets(unknown) if unknown else {}
            for where in self._committed:
                end = ends[where] if where in ends else self._consumer.highwater(where)
                position = self._consumer.position(where, timeout_ms=0)
                lags[self._ours(where)] = max(end - (self._committed[where] if position is None else position), 0)
        return lags

    def close(self) -> None:
        """See the base class. A static member keeps its place until the session timeout, for its restart."""
        if self._closed:
            return
        self._closed = True
        goodbye = Aside(f"kafka-close-{self._group}")
        for step in (self._leave, self._drop_producer):
            try:
                goodbye.call(step).result(_GOODBYE_S)
            except (KafkaError, TimeoutError, RuntimeError) as error:
                log.warning("closing a session of %s: %s", self._group, str(error) or "timed out")
        goodbye.close()
        self._committed.clear()
        self._released()

    def _leave(self) -> None:
        if self._consumer is not None:
            self._consumer.close(autocommit=False, timeout_ms=int(_GOODBYE_S * 1000))

    def _drop_producer(self) -> None:
        if self._producer is not None:
            self._producer.close()

    @contextmanager
    def _failing(self) -> Iterator[None]:
        """A commit, or a part of one: whatever fails in it ends the session."""
        try:
            yield
        except BaseException as error:
            self._dead = True
            if isinstance(error, TimeoutError):
                raise FencedError(
                    f"a commit of {self._group!r} hung and was given up: its outcome is in doubt"
                ) from error
            if not isinstance(error, Exception):
                raise
            self._abort()
            explained = self._clients.explain(error)
            raise FencedError(f"a commit of {self._group!r} failed: {explained}") from error

    def _abort(self) -> None:
        """Best effort, so that readers need not wait for the broker's time-out. It fails where a commit was tried."""
        try:
            self._producer.abort(_GOODBYE_S)
        except (KafkaError, TimeoutError) as error:
            log.info("the transaction of %s is left to its successor: %s", self._group, str(error) or "timed out")

    def _take_changes(self) -> frozenset[TopicPartition]:
        """Note what the callbacks recorded; returns what was revoked."""
        assigned, revoked, stale = self._ownership.changes()
        for where in revoked | assigned:
            self._committed.pop(where, None)
        self._unplaced = (self._unplaced - revoked) | assigned
        self._stale = (self._stale - revoked) | stale
        return frozenset(map(self._ours, revoked))

    def _place(self) -> frozenset[TopicPartition]:
        """Learn the stable committed offsets of new partitions; returns those that have theirs.

        An offset is stable once no transaction may still move it. That can take as long as the transaction timeout of a
        member that died; meanwhile the other partitions flow.
        """
        placed = set()
        for where in sorted(self._unplaced):
            if where in self._stale:
                if not self._seek_committed(where):
                    break
                self._stale.discard(where)
            position = self._consumer.position(where, timeout_ms=int(_SLICE_S * 1000))
            if position is None:
                break
            self._committed[where] = position
            placed.add(where)
        self._unplaced -= placed
        if placed or not self._unplaced:
            self._waiting_since = time.monotonic()
        elif time.monotonic() - self._waiting_since > self._clients.settings.stall_timeout / 1000:
            self._waiting_since = time.monotonic()
            names = ", ".join(f"{where.topic}/{where.partition}" for where in sorted(self._unplaced))
            raise UnavailableError(
                f"the offsets of {self._group!r} for {names} are not stable yet: a transaction is open on them; if it "
                "stays, look with kafka-transactions.sh find-hanging"
            )
        return frozenset(map(self._ours, placed))

    def _seek_committed(self, where: KafkaPartition) -> bool:
        try:
            offset = self._consumer.committed(where, timeout_ms=int(_SLICE_S * 1000))
        except KafkaTimeoutError:
            return False
        if offset is None:
            self._consumer.seek_to_beginning(where)
        else:
            self._consumer.seek(where, offset)
        return True

    def _snapshot(self) -> None:
        """Keep the group metadata under which our partitions were assigned.

        Between polls the client may reset them or join the next generation without having its assignment; then the
        old ones stay, and the broker fences them when it is time.
        """
        metadata = self._consumer.group_metadata()
        if metadata.state == MemberState.STABLE and self._ownership.identity == (
            metadata.member_id,
            metadata.generation_id,
        ):
            self._metadata = metadata

    def _is_stable(self) -> bool:
        return bool(self._consumer.group_metadata().state == MemberState.STABLE)

    def _check_contact(self) -> None:
        """The client retries in silence for ever: after a silence that could be an outage, ask."""
        now = time.monotonic()
        seconds = self._clients.settings.session_timeout / 1000
        if now - self._heard_at < seconds:
            return
        where = next(iter(self._committed), None)
        with self._clients.errors():
            if where is None:
                self._clients.admin().close()
            else:
                self._consumer.end_offsets([where], timeout_ms=2_000)
        self._heard_at = now

    def _records(self, fetched: Mapping[KafkaPartition, Sequence[Any]]) -> dict[TopicPartition, Sequence[Record]]:
        """By our names, as columns."""
        ours = {self._ours(where): records for where, records in sorted(fetched.items())}
        return {where: columns(records, where.topic) for where, records in ours.items()}

    def _guard(self, call: Callable[[], Any], timeout: float) -> None:
        aside = Aside(f"kafka-join-{self._group}")
        with self._clients.errors():
            try:
                aside.call(call).result(timeout)
            except TimeoutError as error:
                raise KafkaTimeoutError(f"no answer within {timeout:g} s") from error
            finally:
                aside.close()

    def _check_open(self) -> None:
        if self._closed or self._dead:
            raise FencedError(f"the session of group {self._group!r} is closed")

    def _native(self, where: TopicPartition) -> KafkaPartition:
        return KafkaPartition(self._prefix + where.topic, where.partition)

    def _ours(self, where: KafkaPartition) -> TopicPartition:
        return TopicPartition(where.topic[len(self._prefix) :], where.partition)
