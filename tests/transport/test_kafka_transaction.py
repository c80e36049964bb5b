"""Transactions against a broker in memory that loses requests and answers, as its own state says what came of them.

The broker knows what Kafka's does of producers, sequence numbers and transactions, and nothing of our code; the tests
in tests/kafka and tests/faults have the real one.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kafka import errors as kafka_errors
from kafka.protocol.metadata import ApiVersionsRequest, FindCoordinatorRequest, MetadataRequest
from kafka.protocol.producer import (
    EndTxnRequest,
)
from kafka.record import MemoryRecords
from kafka.structs import ConsumerGroupMetadata
from kafka.structs import TopicPartition as KafkaPartition

from stream.transport.base import OutRecord
from stream.transport.kafka_encode import encode
from stream.transport.kafka_exchange import Exchange
from stream.transport.kafka_transaction import TransactionalProducer

T = TypeVar("T")

A, B, IN = KafkaPartition("out", 0), KafkaPartition("out", 1), KafkaPartition("in", 0)
MEMBER = ConsumerGroupMetadata("g", 3, "member", None)
INVALID_EPOCH, NOT_LEADER, CONCURRENT, OUT_OF_ORDER, INVALID_STATE, ILLEGAL_GENERATION = 47, 6, 51, 45, 48, 22


@dataclass
class Broker:
    """Partition logs, one transactional id and one group's offsets. `faults` are taken one a request."""

    version: int = 2
    faults: Iterator[str | int] = field(default_factory=lambda: iter(()))
    generation: int = 3
    producer: tuple[int, int] = (7, -1)
    entered: set[Any] = field(default_factory=set)
    written: dict[Any, list[tuple[tuple[int, int], int, list[bytes]]]] = field(default_factory=dict)
    """By partition, batches of the open transaction: whose, first sequence number, values."""
    visible: dict[Any, list[bytes]] = field(default_factory=dict)
    pending: dict[Any, int] = field(default_factory=dict)
    offsets: dict[Any, int] = field(default_factory=dict)
    expected: dict[Any, tuple[tuple[int, int], int]] = field(default_factory=dict)
    """By partition, the producer that wrote last, and its next sequence number."""
    ended: tuple[tuple[int, int], bool] | None = None
    heard: list[str] = field(default_factory=list)
    end_fault: str | int = ""
    leaderless: bool = False

    async def send(self, request: Any, node_id: int | None = None) -> Any:
        """One request: lost on the way, lost on the way back, refused with an error code, or answered."""
        if isinstance(request, FindCoordinatorRequest | ApiVersionsRequest | MetadataRequest):
            fault: str | int = ""
        else:
            fault = next(self.faults, "")
            self.heard.append(type(request).__name__.removesuffix("Request"))
        if isinstance(request, EndTxnRequest) and self.end_fault:
            fault = self.end_fault
        if fault == "lost":
            raise kafka_errors.KafkaConnectionError("the connection broke before the request arrived")
        answer = getattr(self, f"_{type(request).__name__}")(request, fault if isinstance(fault, int) else 0)
        if fault == "unheard":
            raise kafka_errors.KafkaConnectionError("the connection broke before the answer arrived")
        return answer

    def _ApiVersionsRequest(self, request: Any, code: int) -> Any:
        return SimpleNamespace(
            error_code=0,
            finalized_features=[SimpleNamespace(name="transaction.version", max_version_level=self.version)],
        )

    def _MetadataRequest(self, request: Any, code: int) -> Any:
        assert [topic.name for topic in request.topics] == ["out", "__consumer_offsets"]
        led = [SimpleNamespace(partition_index=0, leader_id=1)]
        missing = [SimpleNamespace(partition_index=0, leader_id=-1 if self.leaderless else 1)]
        self.heard.append("Metadata")
        return SimpleNamespace(
            topics=[SimpleNamespace(name="out", partitions=led), SimpleNamespace(name="in", partitions=missing)]
        )

    def _FindCoordinatorRequest(self, request: Any, code: int) -> Any:
        return SimpleNamespace(coordinators=[SimpleNamespace(error_code=0, node_id=1)])

    def _InitProducerIdRequest(self, request: Any, code: int) -> Any:
        if not code:
            self._finish(False)
            self.producer = (self.producer[0], self.producer[1] + 1)
            self.ended = None
        return SimpleNamespace(error_code=code, producer_id=self.producer[0], producer_epoch=self.producer[1])

    def _AddPartitionsToTxnRequest(self, request: Any, code: int) -> Any:
        code = code or self._fence((request.v3_and_below_producer_id, request.v3_and_below_producer_epoch))
        assert self.version == 1
        results = []
        for topic in request.v3_and_below_topics:
            if not code:
                self.entered |= {KafkaPartition(topic.name, number) for number in topic.partitions}
                self.ended = None
            results.append((topic.name, [(number, code) for number in topic.partitions]))
        return SimpleNamespace(results_by_topic_v3_and_below=results)

    def _AddOffsetsToTxnRequest(self, request: Any, code: int) -> Any:
        code = code or self._fence((request.producer_id, request.producer_epoch))
        assert self.version == 1
        if not code:
            self.entered.add(request.group_id)
            self.ended = None
        return SimpleNamespace(error_code=code)

    def _ProduceRequest(self, request: Any, code: int) -> Any:
        # A fault of one partition; the others are written.
        answers = []
        for topic in request.topic_data:
            own = []
            for each in topic.partition_data:
                offset = -1
                failed = code
                if not failed:
                    failed, offset = self._append(KafkaPartition(topic.name, each.index), bytes(each.records))
                code = 0
                own.append(
                    SimpleNamespace(
                        index=each.index, error_code=failed, base_offset=offset, error_message=None, record_errors=[]
                    )
                )
            answers.append(SimpleNamespace(name=topic.name, partition_responses=own))
        return SimpleNamespace(responses=answers)

    def _append(self, where: Any, sealed: bytes) -> tuple[int, int]:
        batch = MemoryRecords(sealed).next_batch()
        assert batch is not None and batch.validate_crc() and batch.is_transactional
        producer = (batch.producer_id, batch.producer_epoch)
        if code := self._fence(producer):
            return code, -1
        if self.version == 2:
            self.entered.add(where)
        elif where not in self.entered:
            return INVALID_STATE, -1
        first, values = batch.base_sequence, [record.value for record in batch]
        held = self.written.setdefault(where, [])
        place = len(self.visible.get(where, []))
        for whose, sequence, written in held:
            if (whose, sequence) == (producer, first):
                assert written == values, "the same numbers for other records"
                return 0, place
            place += len(written)
        whose, expected = self.expected.get(where, (producer, 0))
        if first != (expected if whose == producer else 0):
            return OUT_OF_ORDER, -1
        held.append((producer, first, values))
        self.expected[where] = (producer, first + len(values))
        return 0, place

    def _TxnOffsetCommitRequest(self, request: Any, code: int) -> Any:
        code = code or self._fence((request.producer_id, request.producer_epoch))
        if not code and (request.generation_id, request.member_id) != (self.generation, "member"):
            code = ILLEGAL_GENERATION
        if self.version == 2 and not code:
            self.entered.add(request.group_id)
        elif not code and request.group_id not in self.entered:
            code = INVALID_STATE
        topics = []
        for topic in request.topics:
            if not code:
                self.pending |= {
                    KafkaPartition(topic.name, one.partition_index): one.committed_offset for one in topic.partitions
                }
            topics.append(SimpleNamespace(partitions=[SimpleNamespace(error_code=code) for _ in topic.partitions]))
        return SimpleNamespace(topics=topics)

    def _EndTxnRequest(self, request: Any, code: int) -> Any:
        producer = (request.producer_id, request.producer_epoch)
        if not code and (producer, request.committed) != self.ended:
            code = self._fence(producer)
            if not code:
                self._finish(request.committed)
                self.ended = (producer, request.committed)
                if self.version == 2:
                    self.producer = (producer[0], producer[1] + 1)
        return SimpleNamespace(error_code=code, producer_id=self.producer[0], producer_epoch=self.producer[1])

    def _fence(self, producer: tuple[int, int]) -> int:
        return 0 if producer == self.producer else INVALID_EPOCH

    def _finish(self, committed: bool) -> None:
        if committed:
            for where, batches in self.written.items():
                self.visible.setdefault(where, []).extend(value for _, _, values in batches for value in values)
            self.offsets |= self.pending
        self.written, self.pending, self.entered = {}, {}, set()


class Immediate(Exchange):
    """An exchange with that broker and no threads: coroutines are run to their end where they are called."""

    def __init__(self, broker: Broker, leaders: Mapping[Any, int] | None = None) -> None:
        nodes = leaders or {}
        self._backoff = 0.001
        self.recoveries = 0
        self._coordinators = {}
        self._loop: Any = SimpleNamespace(sleep=_nothing)
        self._manager: Any = SimpleNamespace(
            send=broker.send,
            wait_for=_nothing,
            config={"client_software_name": "test", "client_software_version": "1"},
            broker_version_data=SimpleNamespace(api_version=lambda request: request.max_version),
        )
        self._cluster: Any = SimpleNamespace(
            leader_for_partition=lambda where: nodes.get(where, 1),
            add_coordinator=lambda answer, *rest, **named: answer.node_id,
            request_update=lambda: None,
            _topics={"out"},
        )

    def send(self, request: Any, node: int) -> Any:
        """At once: what comes of it is waited for."""
        answered = _outcome(self._manager.send(request, node_id=node))

        async def answer() -> Any:
            return answered()

        return answer()

    def begin(self, steps: Callable[[], Coroutine[Any, Any, T]]) -> Callable[[float], T]:
        return lambda seconds: _outcome(steps())()

    def close(self) -> None:
        pass


def _outcome(step: Coroutine[Any, Any, T]) -> Callable[[], T]:
    """Run a coroutine that waits for nothing; the call returns what it returns, or raises."""
    try:
        step.send(None)
    except StopIteration as stop:
        result: T = stop.value
        return lambda: result
    except kafka_errors.KafkaError as error:
        failed = error

        def fail() -> T:
            raise failed

        return fail
    raise AssertionError("it waits for something")


async def _nothing(*arguments: Any) -> None:
    pass


def producer_on(broker: Broker, leaders: Mapping[Any, int] | None = None) -> TransactionalProducer:
    producer = TransactionalProducer(
        Immediate(broker, leaders), "id", ["out"], timeout=1_000, request_timeout=1_000, compression=4
    )
    producer.start(1.0)
    return producer


def listen(producer: TransactionalProducer, note: Callable[[Any], None]) -> None:
    """Have each request noted, once its answer is waited for."""
    exchange: Any = producer._exchange
    send = exchange.send

    def listening(request: Any, node: int) -> Any:
        answer = send(request, node)

        async def listened() -> Any:
            note(request)
            return await answer

        return listened()

    exchange.send = listening


def commit(producer: TransactionalProducer, outputs: Mapping[Any, list[bytes]], offset: int) -> dict[Any, int]:
    """In small batches, several of a partition."""
    encoded = {
        where: list(encode([OutRecord(where.topic, None, value, timestamp=1) for value in values], 90))
        for where, values in outputs.items()
    }
    return producer.begin(encoded, {IN: offset}, MEMBER, 5.0)()[0]


VALUES = st.lists(st.binary(max_size=20), min_size=1, max_size=8)
TRANSACTIONS = st.lists(st.dictionaries(st.sampled_from([A, B]), VALUES, max_size=2), min_size=1, max_size=4)
PASSING = st.sampled_from(["", "lost", "unheard", NOT_LEADER, CONCURRENT])
FATAL = st.sampled_from([OUT_OF_ORDER, INVALID_STATE, INVALID_EPOCH, 29])


@pytest.mark.parametrize("version", [1, 2])
@given(transactions=TRANSACTIONS, faults=st.lists(PASSING, max_size=12))
def test_what_passes_by_itself_changes_nothing(
    version: int, transactions: list[dict[Any, list[bytes]]], faults: list[str | int]
) -> None:
    broker = Broker(version, iter(faults))
    producer = producer_on(broker)
    for number, outputs in enumerate(transactions, 1):
        before = {where: len(broker.visible.get(where, [])) for where in outputs}
        assert commit(producer, outputs, number) == before
        assert broker.offsets == {IN: number}
    for where in (A, B):
        assert broker.visible.get(where, []) == [value for each in transactions for value in each.get(where, [])]


@pytest.mark.parametrize("version", [1, 2])
@given(
    outputs=st.dictionaries(st.sampled_from([A, B]), VALUES, min_size=1),
    faults=st.lists(PASSING, max_size=6),
    fatal=FATAL,
)
def test_a_failure_leaves_all_or_nothing_and_the_successor_starts_clean(
    version: int, outputs: dict[Any, list[bytes]], faults: list[str | int], fatal: int
) -> None:
    broker = Broker(version)
    producer = producer_on(broker)
    commit(producer, {A: [b"before"]}, 1)
    broker.faults = iter([*faults, fatal])
    try:
        commit(producer, outputs, 2)
        done = True
    except kafka_errors.KafkaError:
        done = False
    broker.faults = iter(())
    if not done:
        with suppress(kafka_errors.KafkaError):
            producer.abort(1.0)
    successor = producer_on(broker)
    everything = {A: [b"before", *outputs.get(A, [])]} | ({B: outputs[B]} if B in outputs else {})
    if done or broker.offsets == {IN: 2}:
        assert (broker.visible, broker.offsets) == (everything, {IN: 2})
    else:
        assert (broker.visible, broker.offsets) == ({A: [b"before"]}, {IN: 1})
    commit(successor, {A: [b"after"]}, 3)
    assert broker.visible[A][-1] == b"after" and broker.offsets == {IN: 3}
    with pytest.raises(kafka_errors.KafkaError, match=r"(?i)epoch"):
        commit(producer, {A: [b"zombie"]}, 4)


def test_with_version_2_three_requests_make_a_transaction_and_each_has_an_epoch() -> None:
    broker = Broker(2)
    producer = producer_on(broker)
    broker.heard.clear()
    for number in range(3):
        commit(producer, {A: [b"x"], B: [b"y"]}, number)
    assert broker.heard == ["Produce", "TxnOffsetCommit", "EndTxn"] * 3
    assert broker.producer == (7, 3)


def test_with_version_1_partitions_and_offsets_are_entered_first() -> None:
    broker = Broker(1)
    producer = producer_on(broker)
    broker.heard.clear()
    commit(producer, {A: [b"x"]}, 1)
    commit(producer, {}, 2)
    entering = ["AddPartitionsToTxn", "AddOffsetsToTxn"]
    assert broker.heard == [*entering, "Produce", "TxnOffsetCommit", "EndTxn", entering[1], "TxnOffsetCommit", "EndTxn"]
    assert broker.producer == (7, 0)


def test_the_end_is_not_asked_for_before_everything_is_acknowledged() -> None:
    broker = Broker(2, iter([]))
    producer = producer_on(broker)
    broker.faults = iter([OUT_OF_ORDER])
    broker.heard.clear()
    with pytest.raises(kafka_errors.OutOfOrderSequenceNumberError, match="out/0"):
        commit(producer, {A: [b"x"]}, 1)
    assert broker.heard == ["Produce"]


def test_offsets_of_another_generation_are_refused() -> None:
    broker = Broker(2)
    producer = producer_on(broker)
    broker.generation = 4
    with pytest.raises(kafka_errors.IllegalGenerationError):
        commit(producer, {A: [b"x"]}, 1)
    producer.abort(1.0)
    assert (broker.visible, broker.offsets) == ({}, {})


def test_what_never_passes_is_said_when_the_time_is_up() -> None:
    broker = Broker(2)
    producer = producer_on(broker)
    broker.end_fault = "lost"
    with pytest.raises(kafka_errors.KafkaConnectionError, match="before the request arrived"):
        producer.begin({}, {IN: 1}, MEMBER, 0.05)()


def test_every_leader_gets_its_own_partitions() -> None:
    broker = Broker(2)
    producer = producer_on(broker, {A: 1, B: 2})
    broker.heard.clear()
    assert commit(producer, {A: [b"x"], B: [b"y"]}, 1) == {A: 0, B: 0}
    assert broker.heard == ["Produce", "Produce", "TxnOffsetCommit", "EndTxn"]


def test_offsets_go_right_behind_the_records_where_one_broker_has_it_all() -> None:
    broker = Broker(2)
    producer = producer_on(broker)
    commit(producer, {A: [b"x"]}, 1)  # now the coordinator is known
    heard: list[list[str]] = []
    listen(producer, lambda request: heard.append(list(broker.heard)))
    broker.heard.clear()
    assert commit(producer, {A: [b"y"], B: [b"z"]}, 2) == {A: 1, B: 0}
    assert heard[0] == ["Produce", "TxnOffsetCommit"], "the answer for the records was waited for first"
    assert broker.heard == ["Produce", "TxnOffsetCommit", "EndTxn"]
    broker.heard.clear()
    assert commit(producer, {A: [b"%d" % number * 80 for number in range(3)]}, 3) == {A: 2}
    assert broker.heard == [*["Produce"] * 3, "TxnOffsetCommit", "EndTxn"], "behind the last ones"


@pytest.mark.parametrize("faults", [[NOT_LEADER], ["", CONCURRENT], [CONCURRENT, CONCURRENT], ["unheard", "unheard"]])
def test_records_or_offsets_that_are_turned_away_come_again_before_the_end(faults: list[str | int]) -> None:
    broker = Broker(2)
    producer = producer_on(broker)
    commit(producer, {A: [b"x"]}, 1)
    broker.heard.clear()
    broker.faults = iter(faults)
    assert commit(producer, {A: [b"y"]}, 2) == {A: 1}
    assert (broker.visible, broker.offsets) == ({A: [b"x", b"y"]}, {IN: 2})
    assert broker.heard[:2] == ["Produce", "TxnOffsetCommit"] and broker.heard[-1] == "EndTxn"
    assert broker.heard.count("Produce") == 1 + bool(faults[0])
    assert broker.heard.count("TxnOffsetCommit") == 1 + (len(faults) > 1)


def test_after_records_that_are_refused_no_offsets_are_on_their_way() -> None:
    broker = Broker(2)
    producer = producer_on(broker)
    commit(producer, {A: [b"x"]}, 1)
    awaited: list[str] = []
    listen(producer, lambda request: awaited.append(type(request).__name__))
    broker.faults = iter([OUT_OF_ORDER, ILLEGAL_GENERATION])
    with pytest.raises(kafka_errors.OutOfOrderSequenceNumberError, match="out/0"):
        commit(producer, {A: [b"y"]}, 2)
    assert awaited == ["ProduceRequest", "TxnOffsetCommitRequest"]
    producer.abort(1.0)
    assert (broker.visible, broker.offsets) == ({A: [b"x"]}, {IN: 1})


def test_the_offsets_of_another_broker_wait_for_the_records() -> None:
    broker = Broker(2)
    producer = producer_on(broker, {A: 2})
    commit(producer, {A: [b"x"]}, 1)
    broker.heard.clear()
    broker.faults = iter([OUT_OF_ORDER])
    with pytest.raises(kafka_errors.OutOfOrderSequenceNumberError):
        commit(producer, {A: [b"y"]}, 2)
    assert broker.heard == ["Produce"]


def test_a_partition_without_a_leader_is_waited_for() -> None:
    broker = Broker(2)
    leaders = {A: -1}
    producer = producer_on(broker, leaders)

    async def elect(*arguments: Any) -> None:
        leaders[A] = 1

    producer._exchange._manager.wait_for = elect
    assert commit(producer, {A: [b"x"]}, 1) == {A: 0}


def test_no_transaction_is_ended_while_a_partition_has_no_leader() -> None:
    """The coordinator would take it for deleted. Asked for where there was trouble: a broker that restarts."""
    broker = Broker(2)
    producer = producer_on(broker)
    broker.faults, broker.leaderless = iter(["", "", "lost"]), True
    broker.heard.clear()
    waits: list[None] = []

    async def sleep(seconds: float) -> None:
        waits.append(None)
        broker.leaderless = len(waits) < 4

    producer._exchange._loop.sleep = sleep
    commit(producer, {A: [b"x"]}, 1)
    assert broker.heard == ["Produce", "TxnOffsetCommit", "EndTxn", *["Metadata"] * 4, "EndTxn"]
    broker.leaderless = True
    waits.clear()
    TransactionalProducer(producer._exchange, "id", ["out"], timeout=1, request_timeout=1, compression=0).start(5.0)
    assert len(waits) == 4 and broker.heard[-6:] == [*["Metadata"] * 5, "InitProducerId"]


def test_what_a_broker_says_of_a_refused_record_is_passed_on() -> None:
    class Refusing(Broker):
        def _ProduceRequest(self, request: Any, code: int) -> Any:
            one = SimpleNamespace(batch_index=0, batch_index_error_message="Timestamp 5 is out of range")
            said = SimpleNamespace(
                index=0, error_code=32, base_offset=-1, error_message="rejected", record_errors=[one]
            )
            return SimpleNamespace(responses=[SimpleNamespace(name="out", partition_responses=[said])])

    producer = producer_on(Refusing())
    with pytest.raises(kafka_errors.InvalidTimestampError, match=r"out/0: rejected; Timestamp 5 is out of range"):
        commit(producer, {A: [b"x"]}, 1)
