"""What can be set about the transports; stream/config.py composes it."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator

from stream.durations import Duration

DEFAULT_MAX_MESSAGE_BYTES = 1_048_588
"""Kafka's own default of max.message.bytes; the embedded transport refuses the same records."""


class EmbeddedSettings(BaseModel):
    """The embedded transport: one directory on this machine."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    synchronous: Literal["full", "normal"] = Field(
        default="full",
        description="full: a commit survives a power cut; normal: it survives a crash of the program, and is faster",
    )
    member_lease: Duration = Field(
        default=45_000,
        ge=100,
        description="A member that hangs for so long loses its partitions; one that died loses them at once",
    )
    busy_timeout: Duration = Field(default=30_000, description="How long to wait for another process that writes")


class KafkaSettings(BaseModel):
    """The Kafka transport. Security settings are handed to the client as they are."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bootstrap_servers: str = Field(default="localhost:9092", description="host:port, several with commas")
    topic_prefix: str = Field(
        default="",
        description="Put before the names of topics, groups and transactions, so that deployments share a broker",
    )
    client_id: str = "resegment"
    group_instance_id: str | None = Field(
        default=None,
        description="Static membership: a restart within the session timeout moves no partition. One to a process",
    )
    replication_factor: int = Field(
        default=-1, ge=-1, description="Of the topics we create; -1 is the broker's default"
    )

    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    ssl_cafile: str | None = None
    ssl_certfile: str | None = None
    ssl_keyfile: str | None = None
    ssl_password: SecretStr | None = None
    ssl_crlfile: str | None = None
    ssl_check_hostname: bool = True
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "GSSAPI", "OAUTHBEARER"] | None = None
    sasl_plain_username: str | None = None
    sasl_plain_password: SecretStr | None = None
    sasl_kerberos_service_name: str = "kafka"
    sasl_kerberos_domain_name: str | None = None
    sasl_oauth_token_provider: str | None = Field(
        default=None, description="module:name of a callable that makes a kafka.net.sasl.oauth token provider"
    )

    session_timeout: Duration = Field(default=10_000, description="A member that is silent for so long loses its place")
    max_poll_interval: Duration = Field(default=300_000, description="The longest batch between two polls")
    transaction_timeout: Duration = Field(
        default=10_000, description="The broker aborts a transaction left open for so long; readers wait until then"
    )
    commit_timeout: Duration = Field(default=30_000, description="After it a commit that hangs is given up as in doubt")
    connect_timeout: Duration = Field(default=10_000, description="How long to look for a broker before saying so")
    stall_timeout: Duration = Field(default=60_000, description="A read that gets nowhere for so long is given up")
    request_timeout: Duration = 30_000
    retry_backoff: Duration = Field(default=15, description="The client sleeps so long in every retry in a transaction")

    compression: Literal["none", "gzip", "snappy", "lz4", "zstd"] = "zstd"
    linger: Duration = Field(
        default=20, description="How long a producer outside a transaction waits for a fuller batch"
    )
    max_message_bytes: int = Field(
        default=DEFAULT_MAX_MESSAGE_BYTES, gt=0, description="As max.message.bytes of the topics"
    )
    fetch_bytes: int = Field(default=4_194_304, gt=0, description="The most that one fetch brings of one partition")

    @field_validator("bootstrap_servers")
    @classmethod
    def _check_servers(cls, servers: str) -> str:
        for server in servers.split(","):
            host, colon, port = server.strip().rpartition(":")
            if not (host and colon and port.isdecimal()):
                raise ValueError(f"{server.strip()!r} is no broker address; write host:port, several with commas")
        return servers
