"""What the client and the broker do in the corners of a group, and that our session stays out of them.

Each test named `client_` pins the behaviour for which stream/transport/kafka_session.py is as it is: if one fails after
an upgrade, the hazard may be gone, and its guard with it (docs/decisions/0003-the-clients-hazards.md).
"""

from __future__ import annotations

import importlib.metadata
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
from kafka import ConsumerRebalanceListener, KafkaConsumer, KafkaProducer
from kafka.errors import KafkaError
from kafka.structs import ConsumerGroupMetadata, OffsetAndMetadata
from kafka.structs import TopicPartition as KafkaPartition

from schemas.topics import TopicSpec
from stream.transport.base import OutRecord, TopicPartition
from stream.transport.kafka import KafkaTransport
from stream.transport.settings import KafkaSettings
from tests.transport.drive import acquire

pytestmark = pytest.mark.kafka

TOPIC = "hazards"


@pytest.fixture
def topic(kafka_bootstrap: str, topic_prefix: str) -> Iterator[str]:
    """A topic of two partitions, of this test alone."""
    transport = KafkaTransport(KafkaSettings(bootstrap_servers=kafka_bootstrap, topic_prefix=topic_prefix))
    transport.create_topics([TopicSpec(TOPIC, 2)], 2)
    transport.close()
    yield topic_prefix + TOPIC


@pytest.fixture
def producer(kafka_bootstrap: str) -> Iterator[Callable[..., Any]]:
    made: list[Any] = []

    def make(bootstrap: str = kafka_bootstrap, **options: Any) -> Any:
        options = {"transactional_id": uuid.uuid4().hex, "transaction_timeout_ms": 30_000, **options}
        made.append(KafkaProducer(bootstrap_servers=bootstrap, **options))
        made[-1].init_transactions()
        return made[-1]

    yield make
    for each in made:
        with suppress(KafkaError, AssertionError):
            each.close(timeout=0.2)


def committed(bootstrap: str, topic: str, group: str) -> dict[int, int]:
    transport = KafkaTransport(KafkaSettings(bootstrap_servers=bootstrap))
    found = {partition: transport.committed(group, TopicPartition(topic, partition)) for partition in (0, 1)}
    transport.close()
    return {partition: offset for partition, offset in found.items() if offset is not None}


def offsets(topic: str, partition: int, offset: int) -> dict[KafkaPartition, OffsetAndMetadata]:
    return {KafkaPartition(topic, partition): OffsetAndMetadata(offset, "", -1)}


# After a failure


def test_a_session_is_of_no_more_use_after_a_failure(kafka_bootstrap: str, topic_prefix: str) -> None:
    transport = KafkaTransport(
        KafkaSettings(bootstrap_servers=kafka_bootstrap, topic_prefix=topic_prefix, session_timeout=2_000)
    )
    transport.create_topics([TopicSpec(TOPIC, 2)], 2)
    session = transport.session("g", [TOPIC])
    acquire(session)
    session._metadata = session._metadata._replace(generation_id=99)
    with pytest.raises(Exception, match="failed"):
        session.commit({TopicPartition(TOPIC, 0): 0}, [])
    with pytest.raises(Exception, match="closed"):
        session.commit({TopicPartition(TOPIC, 1): 0}, [])
    session.close()
    transport.close()


# D. Offsets without a generation


def test_client_d_lets_offsets_without_a_generation_pass_a_living_group(
    kafka_bootstrap: str, topic: str, producer: Callable[..., Any]
) -> None:
    group = f"{topic}-d"
    member = KafkaConsumer(topic, bootstrap_servers=kafka_bootstrap, group_id=group, enable_auto_commit=False)
    deadline = time.monotonic() + 30
    while not member.assignment() and time.monotonic() < deadline:
        member.poll(timeout_ms=200)
    assert member.assignment()
    client = producer()
    client.begin_transaction()
    client.send_offsets_to_transaction(offsets(topic, 0, 42), ConsumerGroupMetadata(group, -1, "", None))
    client.commit_transaction()
    assert committed(kafka_bootstrap, topic, group) == {0: 42}, "nobody asked who that was"
    # With a generation the broker does ask.
    client.begin_transaction()
    with pytest.raises(KafkaError):
        client.send_offsets_to_transaction(offsets(topic, 0, 43), ConsumerGroupMetadata(group, 99, "x", None))
    member.close(autocommit=False)


def test_d_a_session_never_commits_without_a_generation(kafka_bootstrap: str, topic_prefix: str) -> None:
    transport = KafkaTransport(
        KafkaSettings(bootstrap_servers=kafka_bootstrap, topic_prefix=topic_prefix, session_timeout=2_000)
    )
    transport.create_topics([TopicSpec(TOPIC, 2)], 2)
    session = transport.session("g", [TOPIC])
    acquire(session)
    session._metadata = session._metadata._replace(generation_id=-1, member_id="")
    with pytest.raises(Exception, match="not in the group"):
        session.commit({TopicPartition(TOPIC, 0): 0}, [OutRecord(TOPIC, None, b"x", 0)])
    session.close()
    transport.close()


# G. Listeners run on the I/O thread


def test_client_g_calls_listeners_on_its_own_thread(kafka_bootstrap: str, topic: str) -> None:
    threads: list[int] = []
    errors: list[BaseException] = []
    consumer = KafkaConsumer(bootstrap_servers=kafka_bootstrap, group_id=f"{topic}-g", enable_auto_commit=False)

    class Listener(ConsumerRebalanceListener):  # type: ignore[misc]
        def on_partitions_revoked(self, revoked: Any) -> None:
            pass

        def on_partitions_assigned(self, assigned: Any) -> None:
            threads.append(threading.get_ident())
            try:
                consumer.committed(next(iter(assigned)), timeout_ms=2_000)
            except BaseException as error:
                errors.append(error)

    consumer.subscribe([topic], listener=Listener())
    deadline = time.monotonic() + 30
    while not threads and time.monotonic() < deadline:
        consumer.poll(timeout_ms=200)
    consumer.close(autocommit=False)
    assert threads and threads[0] != threading.get_ident()
    assert errors, "a blocking call in it fails"


# H. Offsets that are not stable


def test_client_h_shows_unstable_offsets_unless_told_not_to(
    kafka_bootstrap: str, topic: str, producer: Callable[..., Any]
) -> None:
    group, client = f"{topic}-h", producer()
    client.begin_transaction()
    client.send_offsets_to_transaction(offsets(topic, 0, 9), ConsumerGroupMetadata(group, -1, "", None))
    where = KafkaPartition(topic, 0)
    hasty = KafkaConsumer(bootstrap_servers=kafka_bootstrap, group_id=group, enable_auto_commit=False)
    careful = KafkaConsumer(
        bootstrap_servers=kafka_bootstrap,
        group_id=group,
        enable_auto_commit=False,
        isolation_level="read_committed",
    )
    assert hasty.committed(where) is None, "as if nothing were under way"
    with pytest.raises(KafkaError):
        careful.committed(where, timeout_ms=1_500)
    client.commit_transaction()
    assert careful.committed(where, timeout_ms=10_000) == 9
    for consumer in (hasty, careful):
        consumer.close(autocommit=False)


# I. Stalls that were mended


def test_i_the_client_is_new_enough() -> None:
    version = tuple(int(part) for part in importlib.metadata.version("kafka-python").split(".")[:3])
    assert version >= (3, 0, 9), "#3106 and #3131: consumers that stall"
