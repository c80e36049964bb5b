"""The Kafka transport beyond what all transports do: open transactions, predecessors, brokers that go away."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import pytest
from kafka import KafkaProducer
from kafka.errors import KafkaConnectionError, KafkaError, NotCoordinatorError
from kafka.structs import OffsetAndMetadata
from kafka.structs import TopicPartition as KafkaPartition
from pydantic import ValidationError

from schemas.topics import TopicSpec
from stream.transport.base import FencedError, OutRecord, Record, TopicPartition, TransportError, UnavailableError
from stream.transport.kafka import KafkaTransport
from stream.transport.kafka_clients import Clients
from stream.transport.kafka_transaction import TransactionalProducer
from stream.transport.settings import KafkaSettings
from tests.kafka.broker import Cluster, free_port
from tests.kafka.jars import CACHE
from tests.transport.drive import (
    CHANGES,
    EVENTS,
    PATIENCE,
    SINGLE,
    SPECS,
    Member,
    acquire,
    flat,
    numbered,
    read_all,
    take,
    until,
    values,
)

T = TypeVar("T")

ONLY = TopicPartition(SINGLE, 0)


@pytest.fixture
def open_kafka(kafka_bootstrap: str, topic_prefix: str) -> Iterator[Callable[..., KafkaTransport]]:
    opened: list[KafkaTransport] = []

    def make(**settings: Any) -> KafkaTransport:
        defaults = {"bootstrap_servers": kafka_bootstrap, "topic_prefix": topic_prefix, "session_timeout": 2_000}
        opened.append(KafkaTransport(KafkaSettings(**{**defaults, **settings})))
        return opened[-1]

    make().create_topics(SPECS, 4)
    yield make
    for transport in opened:
        transport.close()


@pytest.fixture
def stranger(kafka_bootstrap: str) -> Iterator[Any]:
    """Somebody else's transactional producer, which the broker aborts after four seconds."""
    producer = KafkaProducer(
        bootstrap_servers=kafka_bootstrap, transactional_id=uuid.uuid4().hex, transaction_timeout_ms=4_000
    )
    producer.init_transactions()
    yield producer
    producer.close(timeout=0.1)


# Other people's transactions


@pytest.mark.kafka
def test_a_read_to_the_end_waits_for_what_is_being_committed(
    open_kafka: Callable[..., KafkaTransport], topic_prefix: str, stranger: Any
) -> None:
    transport = open_kafka()
    transport.produce([OutRecord(SINGLE, b"k", b"before")])
    stranger.begin_transaction()
    stranger.send(topic_prefix + SINGLE, b"open").get(10)
    # What is surely committed can be read at once,
    assert transport.end_offset(ONLY) == 1
    assert values(list(transport.read(ONLY, 0, transport.end_offset(ONLY)))) == [b"before"]
    # and the end is where this transaction's outcome is known.
    threading.Timer(0.7, stranger.commit_transaction).start()
    started = time.monotonic()
    assert values(list(transport.read(ONLY, 0))) == [b"before", b"open"]
    assert time.monotonic() - started > 0.5


@pytest.mark.kafka
def test_an_abandoned_transaction_delays_readers_and_is_never_seen(
    open_kafka: Callable[..., KafkaTransport], topic_prefix: str, stranger: Any
) -> None:
    transport = open_kafka(stall_timeout=500)
    transport.produce([OutRecord(SINGLE, b"k", b"before")])
    stranger.begin_transaction()
    stranger.send(topic_prefix + SINGLE, b"never").get(10)
    transport.produce([OutRecord(SINGLE, b"k", b"after")])
    with pytest.raises(UnavailableError, match=r"stands still at 1 of 3: .*a transaction is open there"):
        list(transport.read(ONLY, 0))
    assert values(list(open_kafka().read(ONLY, 0))) == [b"before", b"after"]


@pytest.mark.kafka
def test_a_partition_is_handed_over_when_its_offset_is_stable(
    open_kafka: Callable[..., KafkaTransport], topic_prefix: str, stranger: Any
) -> None:
    transport = open_kafka(stall_timeout=800)
    transport.produce(numbered(SINGLE, 10))
    stranger.begin_transaction()
    pending = {KafkaPartition(topic_prefix + SINGLE, 0): OffsetAndMetadata(7, "", -1)}
    stranger.send_offsets_to_transaction(pending, topic_prefix + "g")
    session = transport.session("g", [SINGLE])
    started = time.monotonic()
    complaints = []
    while time.monotonic() - started < 1.5:
        try:
            assert not session.poll(10, 0.2).assigned
        except UnavailableError as error:
            complaints.append(str(error))
    assert complaints
    assert all("single/0 are not stable yet: a transaction is open" in complaint for complaint in complaints)
    stranger.commit_transaction()
    session.resume(acquire(session))
    assert values(flat(take(session, 3))) == [b"7", b"8", b"9"]
    session.close()


# Transactions of our own


@pytest.mark.kafka
@pytest.mark.parametrize("version", [1, 2])
def test_both_versions_of_transactions_commit_all_or_nothing(
    open_kafka: Callable[..., KafkaTransport], version: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A broker of version 2 takes transactions of version 1 too, as one that was not upgraded would."""

    async def implicit(self: TransactionalProducer) -> bool:
        return version == 2

    if version == 1:
        monkeypatch.setattr(TransactionalProducer, "_is_implicit", implicit)
    transport = open_kafka()
    transport.produce(numbered(SINGLE, 6))
    session = transport.session("g", [SINGLE])
    assert session._producer._implicit is (version == 2), "the broker of the tests has version 2"
    session.resume(acquire(session))
    large = [OutRecord(CHANGES, b"k", b"%d" % n * 1_000, n % 2) for n in range(2_000)]  # several batches a partition
    for number in range(1, 4):
        first = session.commit({ONLY: number}, large)
        # Readers see it once the coordinator has told everybody.
        until(lambda number=number: transport.committed("g", ONLY) == number, "the offsets")  # type: ignore[misc]
        kept = list(transport.read(TopicPartition(CHANGES, 1), first[TopicPartition(CHANGES, 1)]))
        assert values(kept) == [record.value for record in large if record.partition == 1]
    session._metadata = session._metadata._replace(generation_id=99)
    with pytest.raises(FencedError, match=r"(?i)generation"):
        session.commit({ONLY: 5}, large)
    assert transport.committed("g", ONLY) == 3
    assert len(list(transport.read(TopicPartition(CHANGES, 0), 0))) == 3_000, "what was aborted is not read"
    session.close()


@pytest.mark.kafka
def test_records_come_while_a_commit_is_under_way_and_partitions_do_not_go(
    open_kafka: Callable[..., KafkaTransport],
) -> None:
    transport = open_kafka()
    transport.produce(numbered(EVENTS, 40))
    session = transport.session("g", [EVENTS])
    session.resume(acquire(session))
    places = [TopicPartition(EVENTS, partition) for partition in range(4)]
    read: dict[TopicPartition, Sequence[Record]] = {}
    until(lambda: read.update(session.poll(1, 1.0).records) or read, "a record")
    first = next(iter(read))
    session.ask_ahead()
    end = session.begin({first: read[first][-1].offset + 1}, [OutRecord(CHANGES, b"k", b"first", 0)])
    found: dict[TopicPartition, list[Record]] = {where: list(records) for where, records in read.items()}
    while sum(map(len, found.values())) < 40:
        for where, records in session.ahead(15).items():
            found.setdefault(where, []).extend(records)
    assert end().first == {TopicPartition(CHANGES, 0): 0}
    until(lambda: transport.committed("g", first) == read[first][-1].offset + 1, "its offset")
    assert {where: [r.offset for r in records] for where, records in found.items()} == {
        where: list(range(transport.end_offset(where))) for where in places if transport.end_offset(where)
    }
    # Another member wants its share: this one hears of it, and is to be polled before it goes on.
    session.commit({where: len(records) for where, records in found.items()}, [])
    other = Member(transport.session("g", [EVENTS]))
    until(session._consumer._coordinator.need_rejoin, "the news")
    transport.produce(numbered(EVENTS, 8))
    assert session.ahead(15) == {}
    until(lambda: session.poll(1, 0.2).revoked, "the other's share")
    session.close()
    other.leave()


# Predecessors and successors


@pytest.mark.kafka
def test_a_successor_ends_what_its_predecessor_left_open(
    open_kafka: Callable[..., KafkaTransport], topic_prefix: str
) -> None:
    transport = open_kafka(transaction_timeout=600_000)
    dead = transport.session("g", [EVENTS])
    acquire(dead)
    ended = dead._producer._end

    async def die(*, committed: bool) -> None:
        raise KafkaError("it dies without a word to the broker, as far as the transaction is concerned")

    dead._producer._end = die
    with pytest.raises(FencedError, match="without a word"):
        dead.commit({}, [OutRecord(CHANGES, b"k", b"left open", 0)])
    dead._producer._end = ended
    dead._drop_producer = lambda: None  # type: ignore[method-assign]
    dead.close()
    started = time.monotonic()
    successor = transport.session("g", [EVENTS])
    acquire(successor)
    assert list(transport.read(TopicPartition(CHANGES, 0), 0)) == []
    assert time.monotonic() - started < 20
    # The dead one's producer is fenced, should it wake.
    with pytest.raises(KafkaError, match=r"(?i)epoch|fenced"):
        dead._producer.begin({}, {KafkaPartition(topic_prefix + EVENTS, 0): 0}, dead._metadata, 10.0)()
    dead._producer.close()
    successor.close()


@pytest.mark.kafka
def test_sessions_of_one_process_do_not_fence_each_other(open_kafka: Callable[..., KafkaTransport]) -> None:
    transport = open_kafka()
    one, other = transport.session("one", [SINGLE]), transport.session("other", [SINGLE])
    acquire(one)
    acquire(other)
    for number in range(3):
        one.commit({}, numbered(CHANGES, 1, first=number))
        other.commit({}, numbered(CHANGES, 1, first=100 + number))
    assert sorted(values(read_all(transport, CHANGES))) == [b"0", b"1", b"100", b"101", b"102", b"2"]
    one.close()
    other.close()


@pytest.mark.kafka
def test_a_static_member_comes_back_to_its_partitions(open_kafka: Callable[..., KafkaTransport]) -> None:
    settings = {"session_timeout": 10_000, "transaction_timeout": 4_000}
    one = Member(open_kafka(group_instance_id="one", **settings).session("g", [EVENTS]))
    two = Member(open_kafka(group_instance_id="two", **settings).session("g", [EVENTS]))
    until(lambda: len(one.owned) == len(two.owned) == 2 and not one.owned & two.owned, "even shares")
    before, undisturbed = set(one.owned), set(two.owned)
    one.leave()
    again = Member(open_kafka(group_instance_id="one", **settings).session("g", [EVENTS]))
    until(lambda: again.owned == before, "its old partitions")
    assert two.owned == undisturbed
    for member in (again, two):
        member.leave()
        assert member.error is None


# Names


@pytest.mark.kafka
def test_without_a_prefix_names_are_the_brokers_own(kafka_bootstrap: str) -> None:
    topic = f"plain-{uuid.uuid4().hex[:8]}"
    transport = KafkaTransport(KafkaSettings(bootstrap_servers=kafka_bootstrap, session_timeout=2_000))
    transport.create_topics([TopicSpec(topic, 1)], 1)
    transport.produce(numbered(topic, 3))
    session = transport.session(topic, [topic])
    (records,) = take(session, 3).values()
    assert {record.topic for record in [*records, *read_all(transport, topic)]} == {topic}
    session.close()
    transport.close()


# Brokers that are not there


def test_no_broker_is_one_clear_line_and_costs_no_thread() -> None:
    transport = KafkaTransport(KafkaSettings(bootstrap_servers=f"127.0.0.1:{free_port()}"))
    threads = threading.active_count()
    for call in (
        lambda: transport.session("g", [EVENTS]),
        lambda: transport.produce(numbered(EVENTS, 1)),
        lambda: transport.partitions(EVENTS),
        lambda: transport.check_topics(SPECS),
    ):
        with pytest.raises(
            UnavailableError, match=r"no Kafka broker answers at 127\.0\.0\.1:\d+ .*is it running"
        ) as caught:
            call()
        assert "\n" not in str(caught.value)
    assert threading.active_count() == threads
    transport.close()


@pytest.mark.kafka
def test_the_wrong_security_protocol_is_no_hang(kafka_bootstrap: str) -> None:
    transport = KafkaTransport(
        KafkaSettings(bootstrap_servers=kafka_bootstrap, security_protocol="SSL", connect_timeout=1_500)
    )
    started = time.monotonic()
    with pytest.raises(UnavailableError):
        transport.partitions(EVENTS)
    assert time.monotonic() - started < 10


@pytest.fixture(scope="module")
def cluster(kafka_jars: str) -> Iterator[Cluster]:
    """A broker of our own, to be stopped and killed."""
    with Cluster(CACHE / f"faults-{uuid.uuid4().hex[:8]}", separate_controller=True) as made:
        yield made


def patiently(call: Callable[[], T]) -> T:
    """As the runner does: where nothing was changed, try again."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return call()
        except UnavailableError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.3)


@pytest.mark.kafka
@pytest.mark.faults
def test_a_broker_that_hangs_in_a_commit_leaves_it_in_doubt_and_the_successor_knows(cluster: Cluster) -> None:
    settings = KafkaSettings(
        bootstrap_servers=cluster.bootstrap,
        topic_prefix="hang.",
        session_timeout=3_000,
        commit_timeout=2_000,
        transaction_timeout=5_000,
        connect_timeout=3_000,
    )
    transport = KafkaTransport(settings)
    transport.create_topics(SPECS, 4)
    transport.produce(numbered(EVENTS, 20))
    session = transport.session("g", [EVENTS])
    first = take(session, 20)
    session.commit({}, [OutRecord(CHANGES, b"k", b"warm", 0)])
    (broker,) = cluster.brokers
    broker.pause()
    try:
        started = time.monotonic()
        with pytest.raises(FencedError, match=r"hung|failed"):
            session.commit({where: records[-1].offset + 1 for where, records in first.items()}, numbered(CHANGES, 20))
        session.close()
        assert time.monotonic() - started < 25
    finally:
        broker.unpause()
    successor = KafkaTransport(settings)
    again = patiently(lambda: successor.session("g", [EVENTS]))
    owned = acquire(again)
    committed = sum(successor.committed("g", where) or 0 for where in owned)
    outputs = [value for value in values(read_all(successor, CHANGES)) if value != b"warm"]
    # Either all of it happened or nothing, and offsets and outputs agree.
    assert (committed, len(outputs)) in ((0, 0), (20, 20))
    again.resume(owned)
    if not committed:
        assert len(flat(take(again, 20))) == 20
    again.close()
    successor.close()
    transport.close()


@pytest.mark.kafka
@pytest.mark.faults
def test_a_broker_that_was_killed_comes_back(cluster: Cluster) -> None:
    settings = KafkaSettings(
        bootstrap_servers=cluster.bootstrap,
        topic_prefix="kill.",
        session_timeout=3_000,
        commit_timeout=3_000,
        transaction_timeout=5_000,
    )
    transport = KafkaTransport(settings)
    patiently(lambda: transport.create_topics(SPECS, 4))
    transport.produce(numbered(EVENTS, 20))
    session = transport.session("g", [EVENTS])
    polled = take(session, 20)
    session.commit({where: records[-1].offset + 1 for where, records in polled.items()}, numbered(CHANGES, 20))
    (broker,) = cluster.brokers
    broker.kill()
    deadline = time.monotonic() + 30
    # The client is silent about it; we are not.
    with pytest.raises(UnavailableError):
        while time.monotonic() < deadline:
            session.poll(10, 0.5)
    broker.start()
    cluster.wait()
    session.close()
    patiently(lambda: transport.produce(numbered(EVENTS, 10, first=20)))
    again = patiently(lambda: transport.session("g", [EVENTS]))
    assert sorted(int(value) for value in values(flat(take(again, 10)))) == list(range(20, 30))
    again.commit({}, numbered(CHANGES, 1, first=20))
    assert len(read_all(transport, CHANGES)) == 21
    again.close()
    transport.close()


# Settings


def test_settings_are_checked_and_secrets_kept() -> None:
    with pytest.raises(ValidationError, match="'localhost' is no broker address; write host:port"):
        KafkaSettings(bootstrap_servers="localhost")
    with pytest.raises(ValidationError, match="unknown_setting"):
        KafkaSettings(unknown_setting=1)  # type: ignore[call-arg]
    settings = KafkaSettings(
        bootstrap_servers="one:9092, [::1]:9093",
        session_timeout="12s",
        security_protocol="SASL_SSL",
        sasl_mechanism="PLAIN",
        sasl_plain_username="me",
        sasl_plain_password="secret",
        ssl_cafile="/ca.pem",
    )
    assert settings.session_timeout == 12_000
    assert "secret" not in repr(settings) + settings.model_dump_json()
    common = Clients(settings)._common
    assert common["bootstrap_servers"] == ["one:9092", "[::1]:9093"]
    assert common["sasl_plain_password"] == "secret"
    assert (common["sasl_mechanism"], common["security_protocol"], common["ssl_cafile"]) == (
        "PLAIN",
        "SASL_SSL",
        "/ca.pem",
    )


def test_a_token_provider_is_found_by_name_or_named_in_the_error() -> None:
    made = Clients(KafkaSettings(sasl_oauth_token_provider="collections:OrderedDict"))
    assert type(made._common["sasl_oauth_token_provider"]).__name__ == "OrderedDict"
    with pytest.raises(TransportError, match="nowhere"):
        KafkaTransport(KafkaSettings(sasl_oauth_token_provider="nowhere:Provider"))


# Coordinators and leaders that move


class StaleAdmin:
    """It asks the coordinator that it once knew, for ever; as kafka-python's does."""

    def __init__(self, error: Exception | None) -> None:
        self.error = error
        self.closed = False

    def list_group_offsets(self, groups: dict[str, list[KafkaPartition]]) -> dict[str, dict[KafkaPartition, Any]]:
        if self.error is not None:
            raise self.error
        return {group: {where: OffsetAndMetadata(7, "", -1) for where in places} for group, places in groups.items()}

    def close(self) -> None:
        self.closed = True


def test_an_admin_client_that_asks_in_vain_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    transport = KafkaTransport(KafkaSettings(bootstrap_servers="127.0.0.1:1"))
    admins = [StaleAdmin(NotCoordinatorError()), StaleAdmin(KafkaConnectionError()), StaleAdmin(None)]
    left = list(admins)
    monkeypatch.setattr(transport._clients, "admin", lambda: left.pop(0))
    where = TopicPartition(SINGLE, 0)
    with pytest.raises(UnavailableError):  # the coordinator moved, and the next client finds nobody
        transport.committed("g", where)
    assert transport.committed("g", where) == 7
    assert transport.committed("g", where) == 7
    assert [admin.closed for admin in admins] == [True, True, False]
