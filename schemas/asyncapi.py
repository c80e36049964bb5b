"""The AsyncAPI 3.0 document: topics as channels, what crosses them, and which role sends and receives it.

Internal topics (state, observations) are in it by name and policy, so that an operator sees all of them; their
contents are packed and belong to the role that writes them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, Protocol

import yaml

from schemas import examples, topics
from schemas.cloudevents import CHANGE_TYPE, CONTENT_TYPE
from schemas.topics import BY_NAME, TOPICS, TopicSpec

CONTRACT_VERSION = "0.1.0"
"""Of what crosses the topics: raise it with every change that a reader or a writer must know of."""
_BINDING = "0.5.0"
_PACKED = "packed"


class Described(Protocol):
    """A message as schemas.generate lists it."""

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def examples(self) -> tuple[dict[str, Any], ...]: ...  # noqa: D102


Components = Callable[[Sequence[Any], str], tuple[dict[str, str], dict[str, Any]]]


class Channel(NamedTuple):
    """What a topic is for, what its keys are, and which messages cross it."""

    title: str
    messages: tuple[str, ...]
    key: str | None = "The user's id: everything about one user is in one partition, in order"


_EVENT_TYPES = ("browse", "click", "purchase", "search", "add-to-cart", "favourite", "review", "share")

CHANNELS: dict[str, Channel] = {
    topics.EVENTS: Channel("The clickstream", tuple(f"event-{kind}" for kind in _EVENT_TYPES)),
    topics.SEGMENT_CHANGES: Channel("One record whenever somebody's segment changes", ("segment-change",)),
    topics.SEGMENT_MEMBERSHIP: Channel(
        "Who is in which segment now; a record without a value: no longer in it",
        ("segment-membership",),
        "The user's id; for a rule segment U+001F and its id follow. Beside the user's other records, whatever the key",
    ),
    topics.SEGMENT_MODEL: Channel("The published segments", ("segment-model",), "The version, as decimal digits"),
    topics.ANOMALIES: Channel("Who went into quarantine, and who came out", ("anomaly",)),
    topics.DEAD_LETTERS: Channel("Input that could not be used", ("dead-letter",), "The rejected record's own key"),
    topics.OBSERVATIONS: Channel("A sample of feature vectors to learn from", (_PACKED,), None),
    topics.CAMPAIGN_ACTIONS: Channel("What campaigns decided to do", ("campaign-action",)),
    topics.CAMPAIGN_OUTCOMES: Channel("What came of it", ("campaign-outcome",)),
    topics.USER_STATE: Channel("The processor's changelog", (_PACKED,), None),
    topics.MODELLER_STATE: Channel("The modeller's changelog", (_PACKED,), None),
    topics.CAMPAIGN_STATE: Channel("The campaign worker's changelog", (_PACKED,), None),
    topics.DELIVERY_STATE: Channel("Delivery's changelog", (_PACKED,), None),
}

Does = Literal["send", "receive"]

ROLES: dict[str, dict[Does, tuple[str, ...]]] = {
    "producer": {"send": (topics.EVENTS,)},
    "processor": {
        "receive": (topics.EVENTS, topics.SEGMENT_MODEL, topics.USER_STATE),
        "send": (
            topics.SEGMENT_CHANGES,
            topics.SEGMENT_MEMBERSHIP,
            topics.ANOMALIES,
            topics.DEAD_LETTERS,
            topics.OBSERVATIONS,
            topics.USER_STATE,
        ),
    },
    "modeller": {
        "receive": (topics.OBSERVATIONS, topics.MODELLER_STATE),
        "send": (topics.SEGMENT_MODEL, topics.MODELLER_STATE),
    },
    "campaigns": {
        "receive": (topics.SEGMENT_CHANGES, topics.CAMPAIGN_STATE),
        "send": (topics.CAMPAIGN_ACTIONS, topics.CAMPAIGN_STATE),
    },
    "delivery": {
        "receive": (topics.CAMPAIGN_ACTIONS, topics.DELIVERY_STATE),
        "send": (topics.CAMPAIGN_OUTCOMES, topics.DELIVERY_STATE),
    },
    "subscriber": {
        "receive": (
            topics.SEGMENT_CHANGES,
            topics.SEGMENT_MEMBERSHIP,
            topics.SEGMENT_MODEL,
            topics.ANOMALIES,
            topics.CAMPAIGN_OUTCOMES,
        )
    },
}
"""Producers and subscribers are anybody; the others are the stages of the same names."""

_STAGES = ("processor", "modeller", "campaigns", "delivery")


def asyncapi_text(messages: Sequence[Described], components: Components) -> str:
    """The document as YAML."""
    return str(yaml.safe_dump(asyncapi(messages, components), sort_keys=False, allow_unicode=True, width=100))


def asyncapi(messages: Sequence[Described], components: Components) -> dict[str, Any]:
    """The document. `components(messages, ref_template)` gives each message's reference, and the schemas."""
    crossing = [m for m in messages if any(m.name in channel.messages for channel in CHANNELS.values())]
    refs, schemas = components(crossing, "#/components/schemas/{model}")
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "resegment",
            "version": CONTRACT_VERSION,
            "description": (
                "People move between segments as they behave. Clickstream events in; a record whenever somebody's "
                "segment changes, with the cause. An operation's tag is the role that does it. Unknown members of a "
                "message are to be ignored. Read with isolation.level=read_committed: records are written in "
                "transactions."
            ),
            "license": {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
        },
        "defaultContentType": CONTENT_TYPE,
        "channels": {spec.name: _channel(spec) for spec in TOPICS},
        "operations": dict(_operations()),
        "components": {
            "messages": {
                **{message.name: _message(message, refs[message.name]) for message in crossing},
                _PACKED: {
                    "title": "Packed rows",
                    "contentType": "application/octet-stream",
                    "description": "Internal: compressed rows in the writer's own packing. Do not read, do not write.",
                },
            },
            "schemas": schemas,
        },
    }


def _channel(spec: TopicSpec) -> dict[str, Any]:
    about = CHANNELS[spec.name]
    settings: dict[str, Any] = {
        "cleanup.policy": [spec.cleanup],
        "retention.ms": -1 if spec.retention_ms is None else spec.retention_ms,
    }
    settings.update({name: int(value) if value.isdigit() else value for name, value in spec.config.items()})
    binding: dict[str, Any] = {"topicConfiguration": settings, "bindingVersion": _BINDING}
    if isinstance(spec.partitions, int):
        binding = {"partitions": spec.partitions, **binding}
    else:
        binding = {**binding, "x-partitions": "as many as the events topic has"}
    return {
        "address": spec.name,
        "title": about.title,
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in about.messages},
        "bindings": {"kafka": binding},
    }


def _operations() -> list[tuple[str, dict[str, Any]]]:
    found = []
    for role, does in ROLES.items():
        for action, names in does.items():
            for name in names:
                camel = "".join(word.capitalize() for word in name.split("-"))
                operation: dict[str, Any] = {
                    "action": action,
                    "channel": {"$ref": f"#/channels/{name}"},
                    "summary": f"{role} {action}s: {CHANNELS[name].title[0].lower()}{CHANNELS[name].title[1:]}",
                    "tags": [{"name": role}],
                }
                if action == "receive" and role in _STAGES and _consumed_in_a_group(role, name):
                    group = {
                        "type": "string",
                        "description": "Prefix from the settings, then the role",
                        "pattern": f"-{role}$",
                    }
                    operation["bindings"] = {"kafka": {"groupId": group, "bindingVersion": _BINDING}}
                found.append((f"{role}{action.capitalize()}s{camel}", operation))
    return found


def _consumed_in_a_group(role: str, name: str) -> bool:
    """State and tables are read whole by whoever needs them, without a group."""
    return not name.endswith("-state") and not (role == "processor" and BY_NAME[name].cleanup == "compact")


def _message(message: Described, ref: str) -> dict[str, Any]:
    channel = next(channel for channel in CHANNELS.values() if message.name in channel.messages)
    described: dict[str, Any] = {
        "name": message.name,
        "contentType": CONTENT_TYPE,
        "payload": {"$ref": ref},
        "bindings": {"kafka": {"key": {"type": "string", "description": channel.key}, "bindingVersion": _BINDING}},
    }
    example: dict[str, Any] = {"payload": message.examples[0]}
    if message.name == "segment-change":
        described["headers"] = _cloudevents()
        example = {"headers": examples.CHANGE_HEADERS, **example}
    return {**described, "examples": [example]}


def _cloudevents() -> dict[str, Any]:
    """CloudEvents 1.0, Kafka protocol binding, binary content mode."""
    return {
        "type": "object",
        "description": "CloudEvents 1.0 attributes in Kafka's binary content mode; every value is UTF-8 text",
        "required": list(examples.CHANGE_HEADERS),
        "properties": {
            "ce_specversion": {"const": "1.0"},
            "ce_id": {"type": "string", "minLength": 1, "description": "The change's id"},
            "ce_type": {"const": CHANGE_TYPE},
            "ce_source": {"type": "string", "format": "uri-reference", "description": "Names the deployment"},
            "ce_time": {"type": "string", "format": "date-time", "description": "occurred_at"},
            "ce_subject": {"type": "string", "minLength": 1, "description": "The user's id"},
            "content-type": {"const": CONTENT_TYPE},
        },
    }
