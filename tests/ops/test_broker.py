"""The compose file's broker settings on a real broker: it starts, serves both listeners, and commits transactions."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer
from kafka.admin import NewTopic

from tests.kafka.broker import Broker, free_port, wait_for
from tests.kafka.jars import NoJarsError, classpath

COMPOSE = yaml.safe_load((Path(__file__).parents[2] / "docker-compose.yml").read_text())
ENVIRONMENT: dict[str, str] = COMPOSE["services"]["kafka"]["environment"]


class ComposeBroker(Broker):
    """A broker with the compose file's properties and no others; ports and host are this test's."""

    def __init__(self, directory: Path) -> None:
        super().__init__(1, "broker,controller", directory, "384m", {})
        self.host_port = free_port()

    def _properties(self, voters: str, brokers: int) -> dict[str, str]:
        ports = {"9092": self.port, "9093": self.controller_port, "29092": self.host_port}
        properties = {
            name.removeprefix("KAFKA_").lower().replace("_", "."): text
            for name, text in ENVIRONMENT.items()
            if name.startswith("KAFKA_") and name != "KAFKA_HEAP_OPTS"
        }
        for name, text in properties.items():
            moved = re.sub(r":(\d+)", lambda port: f":{ports[port[1]]}", text)
            properties[name] = moved.replace("//kafka:", "//127.0.0.1:").replace("//:", "//127.0.0.1:")
        return properties | {"log.dirs": str(self.directory / "data")}


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComposeBroker]:
    try:
        classpath()
    except NoJarsError as error:
        if os.environ.get("RESEGMENT_REQUIRE_KAFKA") == "1":
            raise
        pytest.skip(f"no jars of a broker: {error}")
    broker = ComposeBroker(tmp_path_factory.mktemp("compose"))
    broker.format(ENVIRONMENT["CLUSTER_ID"], "", 1)
    broker.start()
    try:
        wait_for(broker.address, {1}, alive=broker.is_running)
        yield broker
    except TimeoutError:
        pytest.fail(broker.tail(40))
    finally:
        broker.kill()


@pytest.mark.kafka
@pytest.mark.slow
def test_the_composed_broker_commits_a_transaction_on_both_listeners(broker: ComposeBroker) -> None:
    outside = f"localhost:{broker.host_port}"
    for address in (broker.address, outside):
        admin = KafkaAdminClient(bootstrap_servers=address)
        topic = f"checked-through-{address.split(':')[1]}"
        try:
            admin.create_topics([NewTopic(topic, 1, -1)])
        finally:
            admin.close()
        producer = KafkaProducer(bootstrap_servers=address, transactional_id=topic, acks="all")
        try:
            producer.init_transactions()
            producer.begin_transaction()
            producer.send(topic, b"moved").get(20)
            producer.commit_transaction()
        finally:
            producer.close()
        consumer = KafkaConsumer(
            topic,
            bootstrap_servers=address,
            group_id=f"read-{topic}",
            auto_offset_reset="earliest",
            isolation_level="read_committed",
            consumer_timeout_ms=15_000,
        )
        try:
            assert next(consumer).value == b"moved"
        finally:
            consumer.close()


@pytest.mark.kafka
@pytest.mark.slow
def test_the_composed_broker_creates_no_topic_by_itself(broker: ComposeBroker) -> None:
    producer = KafkaProducer(bootstrap_servers=broker.address, max_block_ms=2_000)
    try:
        with pytest.raises(Exception, match=r"(?i)metadata|topic|timeout|unknown"):
            producer.send("misspelt", b"x").get(3)
    finally:
        producer.close()
    admin = KafkaAdminClient(bootstrap_servers=broker.address)
    try:
        assert "misspelt" not in admin.list_topics()
    finally:
        admin.close()
