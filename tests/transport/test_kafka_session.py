"""A session's poll while partitions change hands in the middle of it; the rest is shown on a real broker."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import numpy as np
from kafka.structs import MemberState
from kafka.structs import TopicPartition as KafkaPartition

from stream.transport.base import TopicPartition
from stream.transport.kafka_session import KafkaSession
from stream.transport.records import RecordColumns

KEPT, LOST, BACK = (KafkaPartition("x.events", number) for number in range(3))


class Client:
    """Each poll brings one record of every partition; the group's changes come between the first one and the second."""

    def __init__(self) -> None:
        self.sought: list[KafkaPartition] = []
        self._polls = 0

    def poll(self, timeout_ms: int, max_records: int) -> dict[KafkaPartition, list[RecordColumns]]:
        self._polls += 1
        at = np.array([self._polls], np.int64)
        there = (KEPT, LOST, BACK) if self._polls == 1 else (KEPT,)
        return {where: [RecordColumns(where.topic, where.partition, at, at, [b"k"], [b"v"], None)] for where in there}

    def group_metadata(self) -> Any:
        return SimpleNamespace(state=MemberState.STABLE, member_id="m", generation_id=4)

    def committed(self, where: KafkaPartition, timeout_ms: int) -> int:
        return 0

    def seek(self, where: KafkaPartition, offset: int) -> None:
        self.sought.append(where)

    def position(self, where: KafkaPartition, timeout_ms: int) -> int:
        return 0


def test_records_of_a_partition_that_changed_hands_in_the_middle_of_a_poll_are_dropped() -> None:
    """One that came back has its position fetched again, so that what is dropped here is read once more."""
    client = Client()
    session = KafkaSession.__new__(KafkaSession)
    changes = ({BACK}, {LOST, BACK}, {BACK})
    session.__dict__ |= {
        "_closed": False,
        "_dead": False,
        "_prefix": "x.",
        "_consumer": client,
        "_clients": SimpleNamespace(errors=nullcontext, settings=SimpleNamespace(stall_timeout=60_000)),
        "_ownership": SimpleNamespace(changes=lambda: changes, identity=("m", 4)),
        "_metadata": None,
        "_unplaced": set(),
        "_stale": set(),
        "_waiting_since": 0.0,
        "_committed": dict.fromkeys((KEPT, LOST, BACK), 0),
    }
    poll = session.poll(100, 0.0)
    assert {where: records.offsets.tolist() for where, records in poll.records.items()} == {  # type: ignore[attr-defined]
        TopicPartition("events", 0): [1, 2]
    }
    assert poll.revoked == {TopicPartition("events", 1), TopicPartition("events", 2)}
    assert poll.assigned == {TopicPartition("events", 2)}
    assert client.sought == [BACK]
