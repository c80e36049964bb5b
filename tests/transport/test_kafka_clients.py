"""What the client's errors mean: which may pass, and what the person on call is told."""

from __future__ import annotations

import pytest
from kafka import errors as kafka_errors

from stream.transport.base import FencedError, TransportError, UnavailableError
from stream.transport.kafka_clients import Clients
from stream.transport.settings import KafkaSettings

CLIENTS = Clients(KafkaSettings(bootstrap_servers="broker:9092"))


@pytest.mark.parametrize(
    "error",
    [
        kafka_errors.UnknownBrokerIdError(-1),
        kafka_errors.BrokerNotAvailableError(),
        kafka_errors.BrokerIdNotRegisteredError(),
        kafka_errors.NotLeaderForPartitionError(),
        kafka_errors.KafkaTimeoutError(),
        kafka_errors.UnknownError(),
        ConnectionRefusedError(111, "refused"),
    ],
)
def test_what_a_restarting_broker_brings_about_passes(error: Exception) -> None:
    """It would end the process if it were taken for an error of the program."""
    explained = CLIENTS.explain(error)
    assert isinstance(explained, UnavailableError)
    assert "broker:9092" in str(explained)


def test_a_record_that_is_refused_for_its_time() -> None:
    error = kafka_errors.InvalidRecordError("Timestamp 1802131200000 of message with offset 0 is out of range.")
    explained = CLIENTS.explain(error)
    assert isinstance(explained, UnavailableError)
    assert "is this machine's clock right" in str(explained)
    other = CLIENTS.explain(kafka_errors.InvalidRecordError("a compacted topic takes no record without a key"))
    assert not isinstance(other, UnavailableError)


def test_what_is_fenced_and_what_is_wrong_for_good() -> None:
    assert isinstance(CLIENTS.explain(kafka_errors.ProducerFencedError()), FencedError)
    assert isinstance(CLIENTS.explain(kafka_errors.IllegalGenerationError()), FencedError)
    wrong = CLIENTS.explain(kafka_errors.InvalidTopicError("a topic"))
    assert isinstance(wrong, TransportError)
    assert not isinstance(wrong, UnavailableError | FencedError)
