"""What kafka-python does in the corners of a transaction, on a real broker, and that our session stays out of them.

Each test named `client_` pins the behaviour of the client for which stream/transport/kafka_session.py is as it is: if
one fails after an upgrade, the hazard may be gone, and its guard with it (docs/decisions/0003-the-clients-hazards.md).
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
from stream.transport.kafka_send import send_all
from stream.transport.settings import KafkaSettings
from tests.kafka.broker import Cluster
from tests.kafka.jars import CACHE
from tests.transport.drive import acquire

pytestmark = pytest.mark.kafka

TOPIC = "hazards"
HUNG_S = 8.0


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


# A. Offsets of an aborted transaction are kept


def test_client_a_takes_the_offsets_of_an_aborted_transaction_into_the_next(
    kafka_bootstrap: str, topic: str, producer: Callable[..., Any]
) -> None:
    group, client = f"{topic}-a", producer()
    client.begin_transaction()
    with pytest.raises(KafkaError):  # a member that the group does not have
        client.send_offsets_to_transaction(offsets(topic, 0, 111), ConsumerGroupMetadata(group, 7, "nobody", None))
    client.abort_transaction()
    client.begin_transaction()
    client.send_offsets_to_transaction(offsets(topic, 1, 5), ConsumerGroupMetadata(group, -1, "", None))
    client.commit_transaction()
    assert committed(kafka_bootstrap, topic, group) == {0: 111, 1: 5}, "111 was aborted"


def test_a_session_gives_its_producer_up_after_a_failure(kafka_bootstrap: str, topic_prefix: str) -> None:
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


# B. A batch that expired, and a commit that succeeds; E. no time-outs


@pytest.fixture(scope="module")
def cluster(kafka_jars: str) -> Iterator[Cluster]:
    """A broker of our own, to be stopped."""
    with Cluster(CACHE / f"hazards-{uuid.uuid4().hex[:8]}", separate_controller=True) as made:
        yield made


@pytest.mark.faults
def test_client_b_commits_without_a_batch_that_expired(cluster: Cluster, producer: Callable[..., Any]) -> None:
    transport = KafkaTransport(KafkaSettings(bootstrap_servers=cluster.bootstrap))
    transport.create_topics([TopicSpec("b", 1)], 1)
    transport.close()
    client = producer(cluster.bootstrap, delivery_timeout_ms=2_000, request_timeout_ms=1_500, linger_ms=0)
    client.begin_transaction()
    client.send("b", b"first", partition=0).get(10)
    (broker,) = cluster.brokers
    broker.kill()
    lost = client.send("b", b"lost", partition=0)
    with pytest.raises(KafkaError):
        lost.get(10)
    broker.start()
    cluster.wait()
    outcome = "committed"
    try:
        client.commit_transaction()
    except KafkaError as error:
        outcome = type(error).__name__
    transport = KafkaTransport(KafkaSettings(bootstrap_servers=cluster.bootstrap))
    values = [record.value for record in transport.read(TopicPartition("b", 0), 0)]
    transport.close()
    assert (outcome, values) == ("committed", [b"first"])


@pytest.mark.faults
def test_b_every_future_is_looked_at(cluster: Cluster, producer: Callable[..., Any]) -> None:
    transport = KafkaTransport(KafkaSettings(bootstrap_servers=cluster.bootstrap))
    transport.create_topics([TopicSpec("b2", 1)], 1)
    transport.close()
    client = producer(cluster.bootstrap, delivery_timeout_ms=2_000, request_timeout_ms=1_500, linger_ms=300)
    client.begin_transaction()
    send_all(client, "", [OutRecord("b2", None, b"first")], [0])
    (broker,) = cluster.brokers
    broker.kill()
    with pytest.raises(KafkaError):
        send_all(client, "", [OutRecord("b2", None, b"lost")], [0], 10.0)
    broker.start()
    cluster.wait()


@pytest.mark.faults
def test_client_e_waits_without_end_for_a_broker_that_is_gone(cluster: Cluster, producer: Callable[..., Any]) -> None:
    """One that is stopped is another matter: the request's own time-out ends the call, with an error."""
    transport = KafkaTransport(KafkaSettings(bootstrap_servers=cluster.bootstrap))
    transport.create_topics([TopicSpec("e", 1)], 1)
    transport.close()
    client = producer(cluster.bootstrap, request_timeout_ms=1_500)
    client.begin_transaction()
    client.send("e", b"x", partition=0).get(10)
    (broker,) = cluster.brokers
    broker.kill()
    call = threading.Thread(target=suppressed(client.commit_transaction), daemon=True)
    call.start()
    call.join(HUNG_S)
    hung = call.is_alive()
    broker.start()
    cluster.wait()
    assert hung, "after five times the time-out of a request"


def suppressed(call: Callable[[], object]) -> Callable[[], None]:
    def run() -> None:
        with suppress(KafkaError):
            call()

    return run


# C. Nothing is in flight at the commit


def test_c_nothing_is_in_flight_when_the_commit_begins(
    kafka_bootstrap: str, topic_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error that bumps the epoch while committing is taken for success. It takes a batch that is in flight."""
    transport = KafkaTransport(
        KafkaSettings(bootstrap_servers=kafka_bootstrap, topic_prefix=topic_prefix, session_timeout=2_000)
    )
    transport.create_topics([TopicSpec(TOPIC, 2)], 2)
    session = transport.session("g", [TOPIC])
    acquire(session)
    seen: list[tuple[bool, bool]] = []
    client = session._producer
    commit = client.commit_transaction

    def look() -> None:
        accumulator = client._accumulator
        seen.append((accumulator.has_undrained(), accumulator.has_incomplete))
        commit()

    monkeypatch.setattr(client, "commit_transaction", look)
    for number in range(3):
        records = [OutRecord(TOPIC, None, b"%d" % n, n % 2) for n in range(2_000)]
        session.commit({TopicPartition(TOPIC, 0): number}, records)
    assert seen == [(False, False)] * 3
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


# F. Sleeps between retries


def test_client_f_sleeps_in_every_retry(kafka_bootstrap: str, topic: str, producer: Callable[..., Any]) -> None:
    """Each transaction meets its predecessor's completion once or twice; the back-off is what it costs."""

    def seconds(backoff: int) -> float:
        client = producer(retry_backoff_ms=backoff)
        started = time.monotonic()
        for number in range(20):
            client.begin_transaction()
            client.send(topic, b"x", partition=0).get(10)
            client.send_offsets_to_transaction(
                offsets(topic, 0, number), ConsumerGroupMetadata(f"{topic}-f", -1, "", None)
            )
            client.commit_transaction()
        return (time.monotonic() - started) / 20

    slow, fast = seconds(300), seconds(15)
    print(f"a transaction: {1000 * slow:.0f} ms with a back-off of 300 ms, {1000 * fast:.0f} ms with 15")
    assert fast < slow


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
