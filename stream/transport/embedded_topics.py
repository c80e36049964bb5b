"""Topics of the embedded transport, compared with their specification."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from schemas.topics import EVENTS, TopicSpec
from stream.transport.base import Difference
from stream.transport.embedded_log import Topic


def check(
    specs: Sequence[TopicSpec], found: Mapping[str, Topic | None], input_partitions: int | None
) -> list[Difference]:
    """Every difference between the topics that were found and their specifications.

    Without `input_partitions` the co-partitioned topics should have as many as the events, or as the first that exists.
    """
    if input_partitions is None:
        names = sorted((spec.name for spec in specs if spec.partitions == "input"), key=lambda name: name != EVENTS)
        input_partitions = next((topic.partitions for name in names if (topic := found[name]) is not None), None)
    return [difference for spec in specs for difference in _differences(spec, found[spec.name], input_partitions)]


def _differences(spec: TopicSpec, topic: Topic | None, input_partitions: int | None) -> Iterator[Difference]:
    remedy = "use another directory, or replay the events into an empty one"
    if topic is None:
        yield Difference(spec.name, "topic", "exists", "missing", "run `resegment topics create`")
        return
    partitions = input_partitions if spec.partitions == "input" else spec.partitions
    if partitions is not None and topic.partitions != partitions:
        yield Difference(spec.name, "partitions", str(partitions), str(topic.partitions), remedy)
    cleanup = "compact" if topic.compacted else "delete"
    if cleanup != spec.cleanup:
        yield Difference(spec.name, "cleanup.policy", spec.cleanup, cleanup, remedy)
    if topic.retention_ms != spec.retention_ms:
        yield Difference(
            spec.name, "retention.ms", _retention(spec.retention_ms), _retention(topic.retention_ms), remedy
        )
    for setting, expected in spec.config.items():
        if (actual := topic.config.get(setting, "default")) != expected:
            yield Difference(spec.name, setting, expected, actual, remedy)


def _retention(retention_ms: int | None) -> str:
    """As Kafka writes it: -1 is for ever."""
    return "-1" if retention_ms is None else str(retention_ms)
