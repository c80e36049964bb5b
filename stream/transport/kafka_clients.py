"""kafka-python's clients as we configure them, and what its errors mean.

Why each setting that is not a default is what it is stands beside it. Errors of kafka-python never leave this
package: `explain` turns them into those of `stream.transport.base`, each with one line for a person.
"""

from __future__ import annotations

import importlib
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer
from kafka import errors as kafka_errors
from kafka.record.default_records import DefaultRecordBatchBuilder

from schemas.topics import BY_NAME
from stream.transport import kafka_fetch, kafka_receive
from stream.transport.base import FencedError, TransportError, UnavailableError
from stream.transport.kafka_exchange import Exchange
from stream.transport.kafka_transaction import TransactionalProducer
from stream.transport.settings import KafkaSettings

_FENCED = (
    kafka_errors.FencedInstanceIdError,
    kafka_errors.ProducerFencedError,
    kafka_errors.InvalidProducerEpochError,
    kafka_errors.IllegalGenerationError,
    kafka_errors.UnknownMemberIdError,
    kafka_errors.CommitFailedError,
    kafka_errors.IllegalStateError,
)

_TRANSIENT = (
    kafka_errors.RetriableError,
    OSError,
    # No class of errors that may be tried again has these, but a broker that restarts brings them about: a partition
    # whose leader is broker -1 for now, a broker that has not registered yet, an error of its own.
    kafka_errors.UnknownBrokerIdError,
    kafka_errors.BrokerNotAvailableError,
    kafka_errors.StaleBrokerEpochError,
    kafka_errors.BrokerIdNotRegisteredError,
    kafka_errors.RebalanceInProgressError,
    kafka_errors.UnknownError,
)
BATCH_BYTES = 262_144
"""Of one batch of records, before it is compressed."""
_TIMES = (kafka_errors.InvalidRecordError, kafka_errors.InvalidTimestampError)


class Clients:
    """Makes consumers, producers and admin clients for one cluster."""

    def __init__(self, settings: KafkaSettings) -> None:
        self.settings = settings
        kafka_receive.install()
        with self.errors():
            self._common = _common(settings)

    def consumer(self, **more: Any) -> Any:
        """A consumer that sees committed records only, and polls columns: see `stream.transport.kafka_fetch`."""
        settings = self.settings
        self._reach()
        with self.errors():
            consumer = KafkaConsumer(
                **self._common,
                # Without it aborted records are read, and offsets are fetched while a transaction may still move them.
                isolation_level="read_committed",
                enable_auto_commit=False,
                auto_offset_reset="earliest",
                allow_auto_create_topics=False,
                max_partition_fetch_bytes=settings.fetch_bytes,
                request_timeout_ms=settings.request_timeout,
                metrics_enabled=False,
                **more,
            )
        kafka_fetch.install(consumer)
        return consumer

    def transactional(self, transactional_id: str) -> TransactionalProducer:
        """A producer of transactions to the topics of this deployment, not started."""
        settings = self.settings
        self._reach()
        with self.errors():
            exchange = Exchange(
                {**self._common, "request_timeout_ms": settings.request_timeout},
                settings.connect_timeout,
                settings.retry_backoff / 1000,
            )
        return TransactionalProducer(
            exchange,
            transactional_id,
            [settings.topic_prefix + name for name in BY_NAME],
            timeout=settings.transaction_timeout,
            request_timeout=settings.request_timeout,
            compression=getattr(DefaultRecordBatchBuilder, f"CODEC_{settings.compression.upper()}"),
        )

    def producer(self, **more: Any) -> Any:
        """An idempotent producer."""
        settings = self.settings
        self._reach()
        with self.errors():
            return KafkaProducer(
                **self._common,
                acks="all",
                compression_type=None if settings.compression == "none" else settings.compression,
                batch_size=BATCH_BYTES,
                max_request_size=settings.max_message_bytes,
                delivery_timeout_ms=settings.request_timeout + 1_000,
                # How long a send may wait for metadata; we have looked whether the topic exists.
                max_block_ms=settings.connect_timeout,
                allow_auto_create_topics=False,
                request_timeout_ms=settings.request_timeout,
                metrics_enabled=False,
                **more,
            )

    def admin(self) -> Any:
        """An admin client."""
        self._reach()
        with self.errors():
            return KafkaAdminClient(**self._common, request_timeout_ms=self.settings.request_timeout)

    def _reach(self) -> None:
        """Raise UnavailableError where nothing listens at any of the addresses.

        The client would find out too, but a constructor of it that fails leaves its I/O thread running: one more for
        every attempt while the broker is away.
        """
        refused: Exception | None = None
        for server in self.settings.bootstrap_servers.split(","):
            host, _, port = server.strip().rpartition(":")
            try:
                with socket.create_connection((host.strip("[]"), int(port)), self.settings.connect_timeout / 1000):
                    return
            except OSError as error:
                refused = error
        raise self.explain(refused or OSError("no address"))

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Translate what kafka-python raises in the block."""
        try:
            yield
        except TransportError:
            raise
        except Exception as error:
            raise self.explain(error) from error

    def explain(self, error: Exception) -> TransportError:
        """The error that says what is wrong and what to do."""
        servers = self.settings.bootstrap_servers
        said = str(error) or type(error).__name__
        if isinstance(error, _FENCED):
            return FencedError(f"the group or the transaction moved on: {said}")
        if isinstance(error, kafka_errors.AuthorizationError):
            return UnavailableError(f"Kafka at {servers} does not permit it ({said}): grant the right to this user")
        if isinstance(error, kafka_errors.SaslAuthenticationFailedError):
            return UnavailableError(f"Kafka at {servers} refused the login ({said}): check the sasl settings")
        if isinstance(error, kafka_errors.UnknownTopicOrPartitionError):
            return UnavailableError(f"a topic does not exist ({said}): run `resegment topics create`")
        if (
            isinstance(error, kafka_errors.InvalidRecordError | kafka_errors.InvalidTimestampError)
            and "imestamp" in said
        ):
            return UnavailableError(
                f"Kafka at {servers} refuses a record for its time ({said}): is this machine's clock right, or the "
                "broker's wrong?"
            )
        if isinstance(error, _TRANSIENT):
            return UnavailableError(
                f"no Kafka broker answers at {servers} ({said}): is it running, is the address right?"
            )
        if isinstance(error, kafka_errors.KafkaConfigurationError | ValueError | ImportError | AttributeError):
            return TransportError(f"the settings of Kafka are wrong: {said}")
        return TransportError(f"Kafka at {servers}: {type(error).__name__}: {said}")


def _common(settings: KafkaSettings) -> dict[str, Any]:
    common: dict[str, Any] = {
        "bootstrap_servers": [server.strip() for server in settings.bootstrap_servers.split(",")],
        "client_id": settings.client_id,
        "bootstrap_timeout_ms": settings.connect_timeout,
        # A transaction sleeps so long in each of its retries, which are many while its predecessor completes.
        "retry_backoff_ms": settings.retry_backoff,
        "reconnect_backoff_max_ms": 2_000,
        "security_protocol": settings.security_protocol,
    }
    names = ("ssl_cafile", "ssl_certfile", "ssl_keyfile", "ssl_crlfile", "sasl_mechanism", "sasl_plain_username")
    common |= {name: getattr(settings, name) for name in names}
    common["ssl_check_hostname"] = settings.ssl_check_hostname
    common["ssl_password"] = settings.ssl_password and settings.ssl_password.get_secret_value()
    common["sasl_plain_password"] = settings.sasl_plain_password and settings.sasl_plain_password.get_secret_value()
    common["sasl_kerberos_service_name"] = settings.sasl_kerberos_service_name
    common["sasl_kerberos_domain_name"] = settings.sasl_kerberos_domain_name
    if settings.sasl_oauth_token_provider is not None:
        module, _, name = settings.sasl_oauth_token_provider.partition(":")
        common["sasl_oauth_token_provider"] = getattr(importlib.import_module(module), name)()
    return common
