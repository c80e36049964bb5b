"""Membership in a consumer group on Kafka: which partitions are ours, and since when.

Eager rebalancing, with an assignor of our own and with continuity decided here. Why eager: while a rebalance runs the
client delivers nothing under either protocol, and the cooperative one needs a second round for every partition that
moves. What makes it cheap is that a partition that stays need not be restored, and that the assignor moves as few as
it can.

Invariant: a partition counts as kept only if this member, under one member id, had it in generation g and has it in
generation g + 1. Then nobody else can have had it in between. Whatever else comes back to us is reported as revoked
and assigned anew, and its position is fetched again: the client itself keeps the old position even after an eviction.

The callbacks run on the client's I/O thread, where nothing may block: they record and pause.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from kafka import ConsumerRebalanceListener
from kafka.coordinator.assignors.abstract import AbstractPartitionAssignor
from kafka.protocol.consumer.metadata import ConsumerProtocolAssignment, ConsumerProtocolSubscription
from kafka.structs import TopicPartition

from stream.transport.base import TransportError
from stream.transport.copartition import assign, unequal_partitions

_VERSION = 0


class CopartitionAssignor(AbstractPartitionAssignor):  # type: ignore[misc]
    """Partition p of every topic to the same member; even shares, few moves. Run by the group's leader.

    Each member says in its subscription what it has and since which generation; where two claim the same, the later
    one is believed. Claims only save moves: nothing that must be right depends on them.
    """

    name = "resegment-copartition"
    version = _VERSION

    def __init__(self) -> None:
        self._claim: dict[str, Any] = {"generation": -1, "partitions": []}

    def metadata(self, topics: Sequence[str]) -> Any:
        """Our part of the JoinGroup request."""
        return ConsumerProtocolSubscription(
            version=_VERSION, topics=sorted(topics), user_data=orjson.dumps(self._claim)
        )

    def on_assignment(self, assignment: Any, generation: int) -> None:
        """Remember what to claim next time."""
        partitions = sorted({partition for _, partition in assignment.partitions()})
        self._claim = {"generation": generation, "partitions": partitions}

    def assign(self, cluster: Any, members: Sequence[Any]) -> dict[str, Any]:
        """The new assignment, by member id."""
        # Static members first and by their lasting id, so that a restart finds the same order.
        ordered = sorted(
            members, key=lambda each: (each.group_instance_id is None, each.group_instance_id or "", each.member_id)
        )
        topics = sorted({topic for member in members for topic in member.metadata.topics})
        partitions = {topic: sorted(cluster.partitions_for_topic(topic) or ()) for topic in topics}
        # They were equal when each member came; somebody may have added some since.
        known = {topic: len(numbers) for topic, numbers in partitions.items() if numbers}
        if known and (problem := unequal_partitions(known)):
            raise TransportError(problem)
        before: dict[int, str | None] = {}
        for member in sorted(ordered, key=lambda each: _claim(each)["generation"]):
            before |= dict.fromkeys(_claim(member)["partitions"], member.member_id)
        count = max((len(numbers) for numbers in partitions.values()), default=0)
        owners = assign(count, [member.member_id for member in ordered], before)
        return {
            member.member_id: ConsumerProtocolAssignment(
                _VERSION,
                [
                    (topic, [number for number in partitions[topic] if owners[number] == member.member_id])
                    for topic in sorted(member.metadata.topics)
                ],
                b"",
            )
            for member in members
        }


class Ownership(ConsumerRebalanceListener):  # type: ignore[misc]
    """Records what the callbacks say; `changes` gives it to the session's own thread."""

    def __init__(self) -> None:
        self.consumer: Any = None
        self._lock = threading.Lock()
        self._owned: frozenset[TopicPartition] = frozenset()
        self._identity = ("", -1)
        self._assigned: set[TopicPartition] = set()
        self._revoked: set[TopicPartition] = set()
        self._stale: set[TopicPartition] = set()

    @property
    def identity(self) -> tuple[str, int]:
        """Member id and generation under which the partitions are ours."""
        return self._identity

    def changes(self) -> tuple[set[TopicPartition], set[TopicPartition], set[TopicPartition]]:
        """Since the last call: (assigned, revoked, those of assigned whose position the client must not trust)."""
        with self._lock:
            taken = self._assigned, self._revoked, self._stale
            self._assigned, self._revoked, self._stale = set(), set(), set()
        return taken

    def on_partitions_revoked(self, revoked: Any) -> None:
        """Under the eager protocol everything, before each rebalance: what counts is what comes back."""

    def on_partitions_lost(self, lost: Any) -> None:
        """Evicted: others may have the partitions already."""
        with self._lock:
            self._replace(frozenset(), frozenset())
            self._identity = ("", -1)

    def on_partitions_assigned(self, assigned: Any) -> None:
        """The whole assignment of a new generation."""
        metadata = self.consumer.group_metadata()
        member, generation = self._identity
        owned = frozenset(assigned)
        with self._lock:
            unbroken = metadata.member_id == member and metadata.generation_id == generation + 1
            self._replace(owned, owned & self._owned if unbroken else frozenset())
            self._identity = (metadata.member_id, metadata.generation_id)

    def _replace(self, owned: frozenset[TopicPartition], kept: frozenset[TopicPartition]) -> None:
        fresh = owned - kept
        self._stale |= fresh & self._owned
        self._stale &= owned
        # A partition that was assigned and is lost again before anybody heard of it is not worth a word.
        self._revoked |= (self._owned - kept) - self._assigned
        self._assigned = (self._assigned & kept) | fresh
        self._owned = owned
        # Before the poll that runs us can fetch anything.
        if fresh:
            self.consumer.pause(*fresh)


def _claim(member: Any) -> Mapping[str, Any]:
    """What a member says that it has. A member of another version may say it in another way: then nothing."""
    try:
        claim = orjson.loads(member.metadata.user_data)
        return {"generation": int(claim["generation"]), "partitions": [int(each) for each in claim["partitions"]]}
    except (ValueError, TypeError, KeyError):
        return {"generation": -1, "partitions": []}
