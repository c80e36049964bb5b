"""Topics on Kafka: created as specified, and compared with their specification."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from kafka.admin import ConfigResource, ConfigResourceType

from schemas.topics import EVENTS, TopicSpec
from stream.transport.base import Difference, TransportError
from stream.transport.settings import KafkaSettings

_TIMEOUT_MS = 15_000


def describe(admin: Any, names: Sequence[str]) -> dict[str, int]:
    """Partition counts of those topics that exist."""
    return {
        topic["name"]: len(topic["partitions"])
        for topic in admin.describe_topics(list(names))
        if not topic["error_code"]
    }


def create(admin: Any, specs: Sequence[TopicSpec], input_partitions: int, settings: KafkaSettings) -> list[str]:
    """Create the topics that are missing and wait until they have leaders; returns their names."""
    if input_partitions < 1:
        raise TransportError(f"topics need at least one partition, not {input_partitions}")
    prefix = settings.topic_prefix
    existing = describe(admin, [prefix + spec.name for spec in specs])
    missing = {
        prefix + spec.name: {
            "num_partitions": input_partitions if spec.partitions == "input" else spec.partitions,
            "replication_factor": settings.replication_factor,
            "configs": _config(spec),
        }
        for spec in specs
        if prefix + spec.name not in existing
    }
    if missing:
        admin.create_topics(missing, timeout_ms=_TIMEOUT_MS, wait_for_metadata=True)
    return [name.removeprefix(prefix) for name in missing]


def check(
    admin: Any, specs: Sequence[TopicSpec], input_partitions: int | None, settings: KafkaSettings
) -> list[Difference]:
    """Every difference, with the command that mends it."""
    prefix = settings.topic_prefix
    counts = describe(admin, [prefix + spec.name for spec in specs])
    resources = [ConfigResource(ConfigResourceType.TOPIC, name) for name in counts]
    configs = admin.describe_configs(resources, config_filter="all")["topic"] if resources else {}
    if input_partitions is None:
        names = sorted((spec.name for spec in specs if spec.partitions == "input"), key=lambda name: name != EVENTS)
        input_partitions = next((counts[prefix + name] for name in names if prefix + name in counts), None)
    differences: list[Difference] = []
    for spec in specs:
        if prefix + spec.name not in counts:
            differences.append(Difference(spec.name, "topic", "exists", "missing", "run `resegment topics create`"))
            continue
        expected = input_partitions if spec.partitions == "input" else spec.partitions
        differences += _partitions(spec, expected, counts[prefix + spec.name], settings)
        differences += _settings(spec, configs.get(prefix + spec.name, {}), settings)
    return differences


def _config(spec: TopicSpec) -> dict[str, str]:
    retention = "-1" if spec.retention_ms is None else str(spec.retention_ms)
    return {"cleanup.policy": spec.cleanup, "retention.ms": retention, **spec.config}


def _partitions(spec: TopicSpec, expected: int | None, actual: int, settings: KafkaSettings) -> Iterator[Difference]:
    if expected is None or expected == actual:
        return
    name = settings.topic_prefix + spec.name
    if actual < expected:
        remedy = (
            f"kafka-topics.sh --bootstrap-server {settings.bootstrap_servers} --alter --topic {name} "
            f"--partitions {expected}; users change partitions: do it before the first event, or rebuild the state"
        )
    else:
        remedy = f"partitions cannot be taken away: delete {name} and run `resegment topics create`"
    yield Difference(spec.name, "partitions", str(expected), str(actual), remedy)


def _settings(
    spec: TopicSpec, actual: Mapping[str, Mapping[str, Any]], settings: KafkaSettings
) -> Iterator[Difference]:
    for setting, expected in _config(spec).items():
        value = str(actual.get(setting, {}).get("value"))
        # A compacted topic's retention is of no effect, unless it is deleted from as well.
        if value == expected or (setting == "retention.ms" and spec.cleanup == "compact"):
            continue
        remedy = (
            f"kafka-configs.sh --bootstrap-server {settings.bootstrap_servers} --alter --entity-type topics "
            f"--entity-name {settings.topic_prefix}{spec.name} --add-config {setting}={expected}"
        )
        yield Difference(spec.name, setting, expected, value, remedy)
