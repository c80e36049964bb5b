"""Requests to the brokers on kafka-python's own connections, beside its consumers and producers.

The client's I/O loop (`kafka.net`) runs coroutines on a thread of its own. What takes several requests is one coroutine
here, so that they follow each other without a change of threads; what fails in passing is asked again.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from kafka import errors as kafka_errors
from kafka.net.manager import KafkaConnectionManager
from kafka.net.selector import NetworkSelector
from kafka.protocol.metadata import ApiVersionsRequest, CoordinatorType, FindCoordinatorRequest, MetadataRequest
from kafka.structs import TopicPartition as KafkaPartition

T = TypeVar("T")

_REFRESH_MS = 1_000
"""So long new metadata may take before a request is tried again with the old."""
PASSING = (kafka_errors.RetriableError, kafka_errors.UnknownBrokerIdError)
"""Errors after which the same request may well succeed."""


class Exchange:
    """The connections of one user to one cluster; `run` belongs to one thread at a time, `close` ends their own.

    Parameters: `settings` are the client's, as for its consumers; `connect_timeout` in milliseconds; `backoff` is the
    wait before another try, in seconds. Raises what the client raises where no broker is found.
    """

    def __init__(self, settings: dict[str, Any], connect_timeout: int, backoff: float) -> None:
        self._backoff = backoff
        self.recoveries = 0
        """How often something failed that was tried again, but for transactions that met the one before."""
        self._coordinators: dict[tuple[CoordinatorType, str], int] = {}
        self._loop = NetworkSelector(**settings)
        self._manager = KafkaConnectionManager(self._loop, **settings)
        self._cluster = self._manager.cluster
        self._cluster.config["allow_auto_create_topics"] = False
        self._loop.start()
        try:
            self._manager.bootstrap(connect_timeout)
        except BaseException:
            self.close()
            raise

    def begin(self, steps: Callable[[], Coroutine[Any, Any, T]]) -> Callable[[float], T]:
        """Start a coroutine on the thread of the connections. What is returned waits so many seconds for its result.

        That raises the coroutine's error, or TimeoutError where it takes longer: it goes on all the same, and how it
        ends is in doubt.
        """
        done = threading.Event()
        future = self._loop.call_soon_with_future(steps)
        future.add_both(lambda _: done.set())

        def end(seconds: float) -> T:
            if not done.wait(seconds):
                raise TimeoutError
            if future.exception is not None:
                raise future.exception
            result: T = future.value
            return result

        return end

    def run(self, steps: Callable[[], Coroutine[Any, Any, T]], seconds: float) -> T:
        """`begin`, and wait."""
        return self.begin(steps)(seconds)

    def close(self) -> None:
        """Safe to call twice."""
        self._manager.close()
        self._loop.close()

    # -- for coroutines ---------------------------------------------------------------------------------------

    async def insist(self, step: Callable[[], Awaitable[T]], deadline: float) -> T:
        """What `step` returns, tried again while it fails in passing, up to a moment of the monotonic clock."""
        while True:
            try:
                return await step()
            except PASSING as error:
                if time.monotonic() + self._backoff > deadline:
                    raise
                await self._recover(error)

    def send(self, request: Any, node: int) -> Awaitable[Any]:
        """Send now, and await a node's answer later."""
        answer: Awaitable[Any] = self._manager.send(request, node_id=node)
        return answer

    async def coordinator(self, kind: CoordinatorType, key: str) -> int:
        """The node that coordinates a group, or the transactions of an id."""
        found = self._coordinators.get((kind, key))
        if found is None:
            response = await self._manager.send(
                FindCoordinatorRequest(key=key, key_type=kind.value, coordinator_keys=[key])
            )
            answer = response.coordinators[0] if response.coordinators else response
            check([answer.error_code], f"coordinator of {key!r}")
            # On the broker's own connection: what goes to it in both roles arrives in order.
            found = int(self._cluster.add_coordinator(answer, kind, key, synthesize_node_id=False))
            self._coordinators[kind, key] = found
        return found

    def known_coordinator(self, kind: CoordinatorType, key: str) -> int | None:
        """What `coordinator` found, and nothing has spoken against since."""
        return self._coordinators.get((kind, key))

    async def leaders(self, partitions: Iterable[KafkaPartition]) -> dict[int, list[KafkaPartition]]:
        """Partitions by the node that leads them. Raises LeaderNotAvailableError where one has no leader now."""
        by_node: dict[int, list[KafkaPartition]] = {}
        for where in partitions:
            node = self._cluster.leader_for_partition(where)
            if node is None and where.topic not in self._cluster._topics:
                await self._manager.wait_for(self._cluster.add_topic(where.topic), _REFRESH_MS)
                node = self._cluster.leader_for_partition(where)
            if node is None or node < 0:
                raise kafka_errors.LeaderNotAvailableError(f"{where.topic}/{where.partition} has no leader")
            by_node.setdefault(node, []).append(where)
        return by_node

    async def check_led(self, topics: Iterable[str], node: int) -> None:
        """Raise LeaderNotAvailableError where a node knows of no leader for a partition of these topics now."""
        request = MetadataRequest(
            topics=[MetadataRequest.MetadataRequestTopic(name=name) for name in topics],
            allow_auto_topic_creation=False,
        )
        response = await self._manager.send(request, node_id=node)
        for topic in response.topics:
            for partition in topic.partitions:
                if partition.leader_id < 0:
                    raise kafka_errors.LeaderNotAvailableError(
                        f"{topic.name}/{partition.partition_index} has no leader"
                    )

    async def feature(self, name: str) -> int:
        """The level of a feature that is in force in the whole cluster (KIP-584); 0 where there is none."""
        response = await self._manager.send(
            ApiVersionsRequest(
                client_software_name=self._manager.config["client_software_name"],
                client_software_version=self._manager.config["client_software_version"],
                min_version=3,
            )
        )
        check([response.error_code], "features of the cluster")
        levels = {each.name: each.max_version_level for each in response.finalized_features or []}
        return int(levels.get(name, 0))

    def speaks(self, request: Any, version: int) -> bool:
        """Whether client and brokers know this version of a request."""
        try:
            return bool(self._manager.broker_version_data.api_version(request) >= version)
        except kafka_errors.IncompatibleBrokerVersion:
            return False

    async def _recover(self, error: BaseException) -> None:
        """Wait, and learn who leads and coordinates now, where the answer may be that."""
        await self._loop.sleep(self._backoff)
        if isinstance(error, kafka_errors.ConcurrentTransactionsError):
            return  # of our own transaction before this one, which is being completed
        self.recoveries += 1
        self._coordinators.clear()
        if isinstance(error, kafka_errors.InvalidMetadataError | kafka_errors.UnknownBrokerIdError):
            with suppress(kafka_errors.KafkaError):  # the next try says what is wrong
                await self._manager.wait_for(self._cluster.request_update(), _REFRESH_MS)


def check(codes: Iterable[int], what: str) -> None:
    """Raise the worst of these error codes, if any is one."""
    raise_worst([kafka_errors.for_code(code)(what) for code in codes if code])


def raise_worst(errors: Sequence[Exception]) -> None:
    """Raise the first that does not pass by itself, else the first, if there is any."""
    for error in sorted(errors, key=lambda error: isinstance(error, PASSING)):
        raise error
