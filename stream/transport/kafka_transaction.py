"""Transactions on Kafka, driven request by request: records, offsets, end.

kafka-python's own transactional producer takes a transaction through three threads and five round trips, and has the
hazards of docs/decisions/0003-the-clients-hazards.md. Here one coroutine on the client's connections makes the requests
in their order. Where the cluster's `transaction.version` is 2 (KIP-890, from Kafka 4.0 on) the records and the offsets
enter the transaction by themselves, and its end gives the next one another epoch, so that nothing late gets into it.
With version 1 they are entered beforehand: two requests more.

Invariant: the end is asked for once every record and every offset has been acknowledged; nothing is in flight by then.
A coordinator that ends a transaction while one of its partitions has no leader takes that partition for deleted, and
never ends it there (Kafka 4.3.1): so whoever starts, or had trouble, first looks whether all have one (decision 4).
Whatever passes by itself (a leader that moves, a coordinator that loads) is tried again, with the same numbers, so that
brokers know what they have already. Anything else ends the producer.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from kafka import errors as kafka_errors
from kafka.protocol.metadata import CoordinatorType
from kafka.protocol.producer import (
    AddOffsetsToTxnRequest,
    AddPartitionsToTxnRequest,
    EndTxnRequest,
    InitProducerIdRequest,
    ProduceRequest,
    TxnOffsetCommitRequest,
)
from kafka.structs import TopicPartition as KafkaPartition

from stream.runtime import crash
from stream.transport.kafka_encode import Encoded, seal
from stream.transport.kafka_exchange import PASSING, Exchange, check, raise_worst

T = TypeVar("T")

_FEATURE = "transaction.version"
_SEQUENCES = 2**31
_OFFSETS = "__consumer_offsets"
_GRACE_S = 1.0
"""So much longer than its requests a coroutine may take to say that its time is up."""


class TransactionalProducer:
    """One transactional id. Belongs to one thread at a time; after an error it is of use for `abort` and `close` only.

    Parameters: `topics` are those that a predecessor may have written to; `timeout` is the transaction's, in
    milliseconds: brokers abort what stays open for longer; `request_timeout` is how long a leader may wait for its
    followers, in milliseconds; `compression` is the client's number of a codec.
    """

    def __init__(
        self,
        exchange: Exchange,
        transactional_id: str,
        topics: Iterable[str],
        *,
        timeout: int,
        request_timeout: int,
        compression: int,
    ) -> None:
        self._exchange = exchange
        self._topics = [*topics, _OFFSETS]
        self._id = transactional_id
        self._timeout = timeout
        self._request_timeout = request_timeout
        self._compression = compression
        self._producer_id, self._epoch = -1, -1
        self._implicit = False
        """Whether records and offsets enter the transaction by themselves."""
        self._sequences: dict[KafkaPartition, int] = {}
        """The number of the next record of each partition, in this epoch."""
        self._open = False

    def start(self, seconds: float) -> None:
        """Fence whoever had the id, and finish or abort what they left open."""
        deadline = time.monotonic() + seconds

        async def steps() -> None:
            self._implicit = await self._exchange.insist(self._is_implicit, deadline)
            await self._exchange.insist(self._check_led, deadline)
            await self._exchange.insist(self._initialize, deadline)

        self._exchange.run(steps, seconds + _GRACE_S)

    def begin(
        self,
        outputs: Mapping[KafkaPartition, Sequence[Encoded]],
        offsets: Mapping[KafkaPartition, int],
        group: Any,
        seconds: float,
    ) -> Callable[[], tuple[dict[KafkaPartition, int], float]]:
        """Begin one transaction of these records and offsets, which must be some; `group` is the consumer's metadata.

        What is returned waits for its end, and returns the offset of the first record of each partition, -1 where a
        broker had it already and does not say, and when it ended by time.monotonic(). It raises errors of kafka-python;
        TimeoutError where no end came in so many seconds from now.
        """
        deadline = time.monotonic() + seconds
        rounds = self._seal(outputs)

        async def steps() -> tuple[dict[KafkaPartition, int], float]:
            first: dict[KafkaPartition, int] = {}
            self._open = True
            untroubled = self._exchange.recoveries

            async def end() -> None:
                if self._exchange.recoveries != untroubled:
                    await self._check_led()
                await self._end(committed=True)

            early: list[Awaitable[Any]] = []

            def follow(node: int) -> None:
                """A broker answers one connection in order: where it has everything, the offsets go right behind the
                records, and wait for no answer but their own."""
                if not early and node == self._exchange.known_coordinator(CoordinatorType.GROUP, group.group_id):
                    early.append(self._exchange.send(self._offsets_request(offsets, group), node))

            if not self._implicit:
                await self._enter(outputs, group.group_id, deadline)
            try:
                for number, batches in enumerate(rounds, 1):
                    written = await self._produce(batches, deadline, follow if number == len(rounds) else None)
                    for where, offset in written.items():
                        first.setdefault(where, offset)
            except Exception:
                for answer in early:  # nothing may be on its way when the transaction is aborted
                    with suppress(kafka_errors.KafkaError):
                        await answer
                raise
            crash.reach("after_produce")
            await self._exchange.insist(lambda: self._send_offsets(offsets, group, early), deadline)
            crash.reach("after_offsets")
            crash.reach("in_commit")
            await self._exchange.insist(end, deadline)
            return first, time.monotonic()

        wait = self._exchange.begin(steps)
        return lambda: wait(max(deadline + _GRACE_S - time.monotonic(), 0.0))

    def abort(self, seconds: float) -> None:
        """Best effort, so that readers need not wait for the broker's time-out."""
        if self._open:
            deadline = time.monotonic() + seconds

            async def end() -> None:
                await self._check_led()
                await self._end(committed=False)

            self._exchange.run(lambda: self._exchange.insist(end, deadline), seconds + _GRACE_S)

    def close(self) -> None:
        """End the thread and its connections. What is open is left to the successor, or to the broker's time-out."""
        self._exchange.close()

    # -- steps ------------------------------------------------------------------------------------------------

    async def _is_implicit(self) -> bool:
        known = ((ProduceRequest, 12), (TxnOffsetCommitRequest, 5), (EndTxnRequest, 5))
        if not all(self._exchange.speaks(request, version) for request, version in known):
            return False
        return await self._exchange.feature(_FEATURE) >= 2

    async def _check_led(self) -> None:
        node = await self._exchange.coordinator(CoordinatorType.TRANSACTION, self._id)
        await self._exchange.check_led(self._topics, node)

    async def _initialize(self) -> None:
        response = await self._ask(
            InitProducerIdRequest(
                transactional_id=self._id,
                transaction_timeout_ms=self._timeout,
                producer_id=-1,
                producer_epoch=-1,
                max_version=5,
            )
        )
        check([response.error_code], f"start of {self._id!r}")
        self._producer_id, self._epoch = response.producer_id, response.producer_epoch

    async def _enter(self, partitions: Iterable[KafkaPartition], group_id: str, deadline: float) -> None:
        """Version 1: say beforehand to whom records and offsets will go."""
        topics = _by_topic((where, where.partition) for where in partitions)
        topic = AddPartitionsToTxnRequest.AddPartitionsToTxnTopic

        async def enter_partitions() -> None:
            request = AddPartitionsToTxnRequest(
                v3_and_below_transactional_id=self._id,
                v3_and_below_producer_id=self._producer_id,
                v3_and_below_producer_epoch=self._epoch,
                v3_and_below_topics=[topic(name=name, partitions=numbers) for name, numbers in topics.items()],
                max_version=3,
            )
            response = await self._ask(request)
            check(
                (code for _, results in response.results_by_topic_v3_and_below for _, code in results),
                f"partitions of a transaction of {self._id!r}",
            )

        async def enter_offsets() -> None:
            response = await self._ask(
                AddOffsetsToTxnRequest(
                    transactional_id=self._id,
                    producer_id=self._producer_id,
                    producer_epoch=self._epoch,
                    group_id=group_id,
                    max_version=3,
                )
            )
            check([response.error_code], f"offsets of a transaction of {self._id!r}")

        if topics:
            await self._exchange.insist(enter_partitions, deadline)
        await self._exchange.insist(enter_offsets, deadline)

    async def _produce(
        self, batches: Mapping[KafkaPartition, bytes], deadline: float, follow: Callable[[int], None] | None
    ) -> dict[KafkaPartition, int]:
        """Have one batch of each partition written; returns where they begin. Where one node leads them all, `follow`
        is called with it as soon as they are sent."""
        written: dict[KafkaPartition, int] = {}

        async def step() -> None:
            by_node = await self._exchange.leaders(where for where in batches if where not in written)
            answers: list[Awaitable[Any]] = []
            errors: list[Exception] = []

            async def settle() -> None:
                while answers:
                    try:
                        errors.extend(_take(await answers.pop(), written))
                    except kafka_errors.KafkaError as error:
                        errors.append(error)

            for node, own in by_node.items():
                try:
                    answers.append(self._exchange.send(self._produce_request(own, batches), node))
                    if follow is not None and len(by_node) == 1:
                        follow(node)
                except PASSING as error:
                    errors.append(error)
                if self._implicit:
                    # Each leader enters its partitions, and the coordinator turns away whoever comes meanwhile: they
                    # would wait 20 ms for another try.
                    await settle()
            # All of them, whatever one says: nothing may be on its way when the transaction is aborted.
            await settle()
            raise_worst(errors)

        await self._exchange.insist(step, deadline)
        return written

    def _produce_request(self, partitions: Iterable[KafkaPartition], batches: Mapping[KafkaPartition, bytes]) -> Any:
        topic = ProduceRequest.TopicProduceData
        data = _by_topic(
            (where, topic.PartitionProduceData(index=where.partition, records=batches[where])) for where in partitions
        )
        return ProduceRequest(
            transactional_id=self._id,
            acks=-1,
            timeout_ms=self._request_timeout,
            topic_data=[topic(name=name, partition_data=own) for name, own in data.items()],
            min_version=3,
            max_version=12 if self._implicit else 9,
        )

    async def _send_offsets(
        self, offsets: Mapping[KafkaPartition, int], group: Any, early: list[Awaitable[Any]]
    ) -> None:
        """Have the offsets noted; `early` holds the answer of a request that is out already, if one is."""
        if early:
            response = await early.pop()
        else:
            node = await self._exchange.coordinator(CoordinatorType.GROUP, group.group_id)
            response = await self._exchange.send(self._offsets_request(offsets, group), node)
        check(
            (each.error_code for topic in response.topics for each in topic.partitions),
            f"offsets of {group.group_id!r}",
        )

    def _offsets_request(self, offsets: Mapping[KafkaPartition, int], group: Any) -> Any:
        topic = TxnOffsetCommitRequest.TxnOffsetCommitRequestTopic
        partition = topic.TxnOffsetCommitRequestPartition
        own = _by_topic(
            (
                where,
                partition(
                    partition_index=where.partition,
                    committed_offset=offset,
                    committed_leader_epoch=-1,
                    committed_metadata="",
                ),
            )
            for where, offset in offsets.items()
        )
        return TxnOffsetCommitRequest(
            transactional_id=self._id,
            group_id=group.group_id,
            producer_id=self._producer_id,
            producer_epoch=self._epoch,
            generation_id=group.generation_id,
            member_id=group.member_id,
            group_instance_id=group.group_instance_id,
            topics=[topic(name=name, partitions=partitions) for name, partitions in own.items()],
            min_version=3,  # those before do not say whose offsets they are
            max_version=5 if self._implicit else 3,
        )

    async def _end(self, *, committed: bool) -> None:
        response = await self._ask(
            EndTxnRequest(
                transactional_id=self._id,
                producer_id=self._producer_id,
                producer_epoch=self._epoch,
                committed=committed,
                max_version=5 if self._implicit else 3,
            )
        )
        check([response.error_code], f"end of a transaction of {self._id!r}")
        self._open = False
        if self._implicit:
            self._producer_id, self._epoch = response.producer_id, response.producer_epoch
            self._sequences.clear()

    async def _ask(self, request: Any) -> Any:
        """The answer of the coordinator of our transactions."""
        return await self._exchange.send(
            request, await self._exchange.coordinator(CoordinatorType.TRANSACTION, self._id)
        )

    def _seal(self, outputs: Mapping[KafkaPartition, Sequence[Encoded]]) -> list[dict[KafkaPartition, bytes]]:
        """Numbered batches, in rounds: a request holds one batch of a partition."""
        rounds: list[dict[KafkaPartition, bytes]] = [{} for _ in range(max(map(len, outputs.values()), default=0))]
        for where, batches in outputs.items():
            sequence = self._sequences.get(where, 0)
            for number, encoded in enumerate(batches):
                rounds[number][where] = seal(encoded, self._compression, self._producer_id, self._epoch, sequence)
                sequence = (sequence + encoded.count) % _SEQUENCES
            self._sequences[where] = sequence
        return rounds


def _by_topic(items: Iterable[tuple[KafkaPartition, T]]) -> dict[str, list[T]]:
    """What requests say of partitions, by their topics' names."""
    grouped: dict[str, list[T]] = defaultdict(list)
    for where, item in items:
        grouped[where.topic].append(item)
    return grouped


def _take(response: Any, written: dict[KafkaPartition, int]) -> list[Exception]:
    """Note where batches were written; returns what became of the others."""
    errors: list[Exception] = []
    for topic in response.responses:
        for each in topic.partition_responses:
            where = KafkaPartition(topic.name, each.index)
            if each.error_code:
                said = [each.error_message, *(one.batch_index_error_message for one in each.record_errors or ())]
                about = f"{where.topic}/{where.partition}: {'; '.join(part for part in said if part)}".rstrip(": ")
                errors.append(kafka_errors.for_code(each.error_code)(about))
            else:
                written[where] = each.base_offset
    return errors
