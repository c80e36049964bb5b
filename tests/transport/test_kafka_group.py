"""Ownership and assignment on Kafka, without a broker: which partitions may be taken for kept."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from kafka.structs import ConsumerGroupMetadata, TopicPartition

from stream.transport.base import TransportError
from stream.transport.kafka_group import CopartitionAssignor, Ownership


class FakeConsumer:
    def __init__(self) -> None:
        self.paused: list[TopicPartition] = []
        self.metadata = ConsumerGroupMetadata("g")

    def group_metadata(self) -> ConsumerGroupMetadata:
        return self.metadata

    def pause(self, *partitions: TopicPartition) -> None:
        self.paused += partitions


class Rig:
    def __init__(self) -> None:
        self.consumer = FakeConsumer()
        self.ownership = Ownership()
        self.ownership.consumer = self.consumer

    def assign(self, member: str, generation: int, *numbers: int) -> None:
        self.consumer.metadata = ConsumerGroupMetadata("g", generation, member)
        self.consumer.paused.clear()
        self.ownership.on_partitions_revoked(set())
        self.ownership.on_partitions_assigned({TopicPartition("t", number) for number in numbers})

    def changes(self) -> tuple[set[int], set[int], set[int]]:
        assigned, revoked, stale = self.ownership.changes()
        return tuple({where.partition for where in each} for each in (assigned, revoked, stale))  # type: ignore[return-value]

    @property
    def paused(self) -> set[int]:
        return {where.partition for where in self.consumer.paused}


def test_what_stays_in_the_next_generation_is_kept_and_flows_on() -> None:
    rig = Rig()
    rig.assign("m", 1, 0, 1, 2, 3)
    assert rig.changes() == ({0, 1, 2, 3}, set(), set())
    assert rig.paused == {0, 1, 2, 3}
    rig.assign("m", 2, 0, 1)
    assert rig.changes() == (set(), {2, 3}, set())
    assert rig.paused == set()
    rig.assign("m", 3, 0, 1, 3)
    assert rig.changes() == ({3}, set(), set())
    assert rig.paused == {3}
    assert rig.ownership.identity == ("m", 3)


def test_after_a_generation_that_was_missed_nothing_is_kept() -> None:
    """Somebody else may have had it in between, whatever the client believes."""
    rig = Rig()
    rig.assign("m", 1, 0, 1)
    rig.changes()
    rig.assign("m", 3, 0)
    assert rig.changes() == ({0}, {0, 1}, {0})
    assert rig.paused == {0}


def test_under_another_member_id_nothing_is_kept() -> None:
    rig = Rig()
    rig.assign("m", 1, 0, 1)
    rig.changes()
    rig.assign("n", 2, 1)
    assert rig.changes() == ({1}, {0, 1}, {1})


def test_after_an_eviction_the_client_has_no_old_position() -> None:
    rig = Rig()
    rig.assign("m", 1, 0, 1)
    rig.changes()
    rig.ownership.on_partitions_lost({TopicPartition("t", 0), TopicPartition("t", 1)})
    rig.assign("n", 2, 0)
    assert rig.changes() == ({0}, {0, 1}, set())
    assert rig.paused == {0}


def test_two_rebalances_between_two_polls_add_up() -> None:
    rig = Rig()
    rig.assign("m", 1, 0, 1)
    rig.changes()
    rig.assign("m", 2, 0, 2)
    rig.assign("m", 3, 0, 3)
    assert rig.changes() == ({3}, {1}, set())
    # Assigned and lost again before anybody heard: not a word. Stale stays stale until it is dealt with.
    rig.assign("m", 5, 0)
    rig.assign("m", 6, 0, 1)
    assert rig.changes() == ({0, 1}, {0, 3}, {0})
    assert rig.changes() == (set(), set(), set())


def member(name: str, assignor: CopartitionAssignor, topics: list[str], instance: str | None = None) -> Any:
    """A member as the leader sees it: through the wire format."""
    encoded = assignor.metadata(topics).encode()
    decoded = type(assignor.metadata(topics)).decode(encoded)
    return SimpleNamespace(member_id=name, group_instance_id=instance, metadata=decoded)


class FakeCluster:
    def __init__(self, **partitions: int) -> None:
        self._partitions = partitions

    def partitions_for_topic(self, topic: str) -> set[int] | None:
        return set(range(self._partitions[topic])) if topic in self._partitions else None


def assigned(assignment: Any) -> dict[str, list[int]]:
    decoded = type(assignment).decode(assignment.encode())
    topics: dict[str, list[int]] = {}
    for topic, partition in decoded.partitions():
        topics.setdefault(topic, []).append(partition)
    return topics


def test_the_assignor_keeps_topics_together_and_partitions_where_they_are() -> None:
    cluster = FakeCluster(events=5, clicks=5)
    topics = ["events", "clicks"]
    assignors = {name: CopartitionAssignor() for name in ("a", "b", "c")}
    held: dict[str, list[int]] = {}
    for generation, names in enumerate((["b"], ["a", "b"], ["a", "b", "c"], ["a", "c"]), start=1):
        result = CopartitionAssignor().assign(cluster, [member(name, assignors[name], topics) for name in names])
        before = dict(held)
        held = {}
        for name in names:
            own = assigned(result[name])
            assert own["events"] == own["clicks"]
            held[name] = own["events"]
            assignors[name].on_assignment(result[name], generation)
        assert sorted(number for own in held.values() for number in own) == list(range(5))
        assert max(map(len, held.values())) - min(map(len, held.values())) <= 1
        for name in set(before) & set(held):
            smaller, larger = sorted((before[name], held[name]), key=len)
            assert set(smaller) <= set(larger)


def test_of_two_claims_the_later_generation_is_believed() -> None:
    zombie, owner = CopartitionAssignor(), CopartitionAssignor()
    cluster = FakeCluster(events=2)
    everything = CopartitionAssignor().assign(cluster, [member("x", CopartitionAssignor(), ["events"])])["x"]
    zombie.on_assignment(everything, 3)
    owner.on_assignment(everything, 4)
    for names in (("a", "z"), ("z", "a")):
        members = [member(names[0], zombie, ["events"]), member(names[1], owner, ["events"])]
        result = CopartitionAssignor().assign(cluster, members)
        # The shares are even; the one that is kept is the owner's, and the first of its two.
        assert assigned(result[names[1]]) == {"events": [0]}


def test_static_members_come_first_and_unknown_claims_are_ignored() -> None:
    cluster = FakeCluster(events=3)
    stranger = member("a", CopartitionAssignor(), ["events"])
    stranger.metadata.user_data = b"\x00not ours"
    static = member("z", CopartitionAssignor(), ["events"], instance="one")
    result = CopartitionAssignor().assign(cluster, [stranger, static])
    assert {name: assigned(each) for name, each in result.items()} == {"z": {"events": [0, 1]}, "a": {"events": [2]}}


def test_partitions_added_to_one_topic_only_stop_the_group_with_the_fix() -> None:
    cluster = FakeCluster(events=4, clicks=2)
    with pytest.raises(TransportError, match="give clicks 4 partitions"):
        CopartitionAssignor().assign(cluster, [member("a", CopartitionAssignor(), ["events", "clicks"])])


def test_a_topic_without_metadata_is_left_out() -> None:
    result = CopartitionAssignor().assign(FakeCluster(), [member("a", CopartitionAssignor(), ["events"])])
    assert assigned(result["a"]) == {}
