"""Configuration: one TOML file plus RESEGMENT_* variables, validated by one model.

A variable wins over the file, and names a key by its path with two underscores between the parts:
`RESEGMENT_TRANSPORT__KAFKA__BOOTSTRAP_SERVERS=broker:9092`. Every package declares its own settings; this
file composes them. Errors name the key and say where it was set.
"""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from schemas import topics
from stream.anomalies.quarantine import QuarantineSettings
from stream.campaigns.settings import CampaignSettings
from stream.durations import Duration
from stream.features.events import IngestSettings
from stream.features.layout import Layout, compile_layout
from stream.features.spec import DEFAULT_FEATURES, FeatureSpecs
from stream.runtime.health_server import MetricsSettings
from stream.runtime.logs import LogSettings
from stream.segments.assign import DecisionSettings
from stream.segments.observations import SamplerSettings
from stream.segments.population import COLUMNS
from stream.segments.processor import ProcessorSettings
from stream.segments.rules import RuleSegments, check_rules
from stream.segments.settings import ModellerSettings
from stream.transport.base import Transport
from stream.transport.settings import EmbeddedSettings, KafkaSettings

PREFIX = "RESEGMENT_"
NOT_SETTINGS = frozenset(
    {
        "RESEGMENT_CONFIG",
        "RESEGMENT_CRASH_POINT",
        "RESEGMENT_DATA",
        "RESEGMENT_KERNELS",
        "RESEGMENT_REQUIRE_COUNTS",
        "RESEGMENT_REQUIRE_KAFKA",
        "RESEGMENT_REQUIRE_KERNELS",
        "RESEGMENT_TEST_BOOTSTRAP",
    }
)
"""Variables of that prefix which are no keys: the file's place, and the tests' own."""

_STRICT = ConfigDict(frozen=True, extra="forbid")


class ConfigError(Exception):
    """Configuration cannot be used: one line for each key that is wrong."""


class TransportSettings(BaseModel):
    """Where the topics live."""

    model_config = _STRICT

    kind: Literal["embedded", "kafka"] = "embedded"
    data_dir: Path = Field(default=Path("data"), description="The embedded transport's directory")
    embedded: EmbeddedSettings = EmbeddedSettings()
    kafka: KafkaSettings = KafkaSettings()

    def open(self, *, create: bool = True) -> Transport:
        """The transport. Raises TransportError, UnavailableError."""
        if self.kind == "kafka":
            from stream.transport.kafka import KafkaTransport  # the client costs 0.2 s to import

            return KafkaTransport(self.kafka)
        from stream.transport.embedded import EmbeddedTransport

        return EmbeddedTransport(self.data_dir, self.embedded, create=create)


class TopicSettings(BaseModel):
    """The topics."""

    model_config = _STRICT

    events: tuple[str, ...] = Field(default=(topics.EVENTS,), min_length=1, description="Co-partitioned event topics")
    partitions: int = Field(default=4, ge=1, le=10_000, description="Of the event topics, where we create them")


class RunnerSettings(BaseModel):
    """How stages are run."""

    model_config = _STRICT

    group: str = Field(default="resegment", min_length=1, description="Prefix of the consumer groups")
    batch_records: int = Field(
        default=5_000,
        ge=1,
        le=1_000_000,
        description="At most so many records a poll; the processor has its own bound under the wall clock",
    )
    poll_timeout: Duration = Field(default=200, ge=1, le=5_000, description="How long a poll waits for the first one")
    clock: Literal["wall", "record"] = Field(
        default="wall", description="wall: now is now; record: now is when a record arrived (backfills, replays)"
    )


class Config(BaseSettings):
    """Everything that can be set."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_nested_delimiter="__", extra="forbid", frozen=True)

    transport: TransportSettings = TransportSettings()
    topics: TopicSettings = TopicSettings()
    runner: RunnerSettings = RunnerSettings()
    ingest: IngestSettings = IngestSettings()
    features: FeatureSpecs = DEFAULT_FEATURES
    rules: RuleSegments = ()
    processor: ProcessorSettings = ProcessorSettings()
    decision: DecisionSettings = DecisionSettings()
    sampler: SamplerSettings = SamplerSettings()
    modeller: ModellerSettings = ModellerSettings()
    quarantine: QuarantineSettings = QuarantineSettings()
    campaigns: CampaignSettings = CampaignSettings()
    metrics: MetricsSettings = MetricsSettings()
    log: LogSettings = LogSettings()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments only: `load` merges the file, the variables and the command line in their order."""
        return (init_settings,)

    @field_validator("rules")
    @classmethod
    def _about_features(cls, rules: RuleSegments, info: ValidationInfo) -> RuleSegments:
        if "features" in info.data:  # where they are wrong themselves, that is what is told
            check_rules(rules, info.data["features"])
        return rules

    def layout(self) -> Layout:
        """The compiled columns of the user table."""
        return compile_layout(
            self.features,
            COLUMNS,
            lateness_ms=self.ingest.allowed_lateness,
            dedupe_depth=self.ingest.dedupe_depth,
        )


def load(file: Path | None = None, overrides: dict[str, Any] | None = None) -> Config:
    """The configuration of `file` (by default RESEGMENT_CONFIG's, if set), variables, and `overrides` by path.

    `overrides` come from the command line and win over everything: {"transport.data_dir": "/tmp/x"}.
    Raises ConfigError.
    """
    if file is None and (named := os.environ.get("RESEGMENT_CONFIG")):
        file = Path(named)
    _refuse_unknown_variables()
    values = _read(file) if file is not None else {}
    try:
        _merge(values, EnvSettingsSource(Config)())
    except SettingsError as error:
        raise ConfigError(f"variables: {error}; write lists as JSON") from None
    for path, value in (overrides or {}).items():
        branch: Any = value
        for part in reversed(path.split(".")):
            branch = {part: branch}
        _merge(values, branch)
    try:
        return Config(**values)
    except ValidationError as error:
        raise ConfigError(_explain(error, file)) from None


def _merge(into: dict[str, Any], new: dict[str, Any]) -> None:
    """Put `new` over `into`, key by key down the tables."""
    for key, value in new.items():
        held = into.get(key)
        if isinstance(held, dict) and isinstance(value, dict):
            _merge(held, value)
        else:
            into[key] = value


def _read(file: Path) -> dict[str, Any]:
    try:
        with file.open("rb") as stream:
            return tomllib.load(stream)
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: is no valid TOML: {error}") from None


def _refuse_unknown_variables() -> None:
    """A misspelt variable that is ignored is a setting that is silently lost."""
    known = {f"{PREFIX}{name.upper()}" for name in Config.model_fields}
    for name in sorted(os.environ):
        if name.startswith(PREFIX) and name not in NOT_SETTINGS and name.split("__")[0].upper() not in known:
            raise ConfigError(f"variable {name} sets nothing; the sections are {', '.join(sorted(known))}")


def _explain(error: ValidationError, file: Path | None) -> str:
    lines = []
    for one in error.errors(include_url=False):
        path = ".".join(str(part) for part in one["loc"])
        message = "is not a setting" if one["type"] == "extra_forbidden" else one["msg"].removeprefix("Value error, ")
        variable = PREFIX + "__".join(str(part) for part in one["loc"]).upper()
        where = f"variable {variable}" if variable in os.environ else str(file or "configuration")
        lines.append(f"{where}: {path}: {message}")
    return "\n".join(lines)
