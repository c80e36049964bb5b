"""The topics: their names, policies, keys and record models, in one list."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

DAY_MS = 86_400_000

EVENTS = "events"
SEGMENT_CHANGES = "segment-changes"
SEGMENT_MEMBERSHIP = "segment-membership"
SEGMENT_MODEL = "segment-model"
ANOMALIES = "anomalies"
DEAD_LETTERS = "events-dead-letter"
OBSERVATIONS = "observations"
CAMPAIGN_ACTIONS = "campaign-actions"
CAMPAIGN_OUTCOMES = "campaign-outcomes"
USER_STATE = "user-state"
MODELLER_STATE = "modeller-state"
CAMPAIGN_STATE = "campaign-state"
DELIVERY_STATE = "delivery-state"

MODEL_PIN_KEY = b"pin"
"""On the model topic: a record with this key holds the version that all processors use, whatever is published after
it; a tombstone lets them follow the newest one again. All other keys are version numbers."""


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """How a topic must be created.

    `partitions` is "input" where the topic is co-partitioned with the events, else a number.
    `cleanup` is Kafka's cleanup.policy; `retention_ms` of None keeps for ever (state is trimmed by its owner).
    """

    name: str
    partitions: Literal["input"] | int
    cleanup: Literal["delete", "compact"] = "delete"
    retention_ms: int | None = 7 * DAY_MS
    key: str = "user_id"
    config: dict[str, str] = field(default_factory=dict)


_STATE = {"max.message.bytes": "1048588"}

TOPICS: tuple[TopicSpec, ...] = (
    TopicSpec(EVENTS, "input"),
    TopicSpec(SEGMENT_CHANGES, "input", retention_ms=30 * DAY_MS),
    TopicSpec(SEGMENT_MEMBERSHIP, "input", cleanup="compact", retention_ms=None),
    TopicSpec(SEGMENT_MODEL, 1, cleanup="compact", retention_ms=None, key="version"),
    TopicSpec(ANOMALIES, "input", retention_ms=30 * DAY_MS),
    TopicSpec(DEAD_LETTERS, "input", retention_ms=30 * DAY_MS, key="the original's"),
    TopicSpec(OBSERVATIONS, 1, retention_ms=7 * DAY_MS, key="none"),
    TopicSpec(CAMPAIGN_ACTIONS, "input", retention_ms=30 * DAY_MS),
    TopicSpec(CAMPAIGN_OUTCOMES, "input", retention_ms=30 * DAY_MS),
    TopicSpec(USER_STATE, "input", retention_ms=None, key="none", config=_STATE),
    TopicSpec(MODELLER_STATE, 1, retention_ms=None, key="none", config=_STATE),
    TopicSpec(CAMPAIGN_STATE, "input", retention_ms=None, key="none", config=_STATE),
    TopicSpec(DELIVERY_STATE, "input", retention_ms=None, key="none", config=_STATE),
)

BY_NAME: dict[str, TopicSpec] = {spec.name: spec for spec in TOPICS}
