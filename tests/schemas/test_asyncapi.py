"""The AsyncAPI document, checked as far as goes without its official schema (which it was found valid against)."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml
from jsonschema import Draft7Validator, Draft202012Validator

from schemas.asyncapi import ROLES
from schemas.generate import DIRECTORY, MESSAGES
from schemas.topics import BY_NAME, TOPICS
from stream.campaigns.delivery import Delivery
from stream.campaigns.worker import CampaignWorker
from stream.runtime.stage import Stage
from stream.segments.modeller import Modeller
from stream.segments.processor import Processor

DOCUMENT: dict[str, Any] = yaml.safe_load((DIRECTORY / "asyncapi.yaml").read_text("utf-8"))


def references(node: Any) -> list[str]:
    if isinstance(node, dict):
        own = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
        return own + [ref for value in node.values() for ref in references(value)]
    return [ref for value in node for ref in references(value)] if isinstance(node, list) else []


def resolve(ref: str) -> Any:
    assert ref.startswith("#/")
    node: Any = DOCUMENT
    for part in ref[2:].split("/"):
        node = node[part]
    return node


def test_every_reference_resolves() -> None:
    found = set(references(DOCUMENT))
    assert len(found) > 30
    for ref in found:
        resolve(ref)


def test_the_members_that_asyncapi_3_requires_are_there_and_no_others() -> None:
    assert DOCUMENT["asyncapi"] == "3.0.0"
    assert set(DOCUMENT) == {"asyncapi", "info", "defaultContentType", "channels", "operations", "components"}
    assert {"title", "version"} <= DOCUMENT["info"].keys()
    for channel in DOCUMENT["channels"].values():
        assert set(channel) == {"address", "title", "messages", "bindings"}
        assert channel["messages"]
        assert all(ref["$ref"].startswith("#/components/messages/") for ref in channel["messages"].values())
    for operation in DOCUMENT["operations"].values():
        assert {"action", "channel"} <= operation.keys() <= {"action", "channel", "summary", "tags", "bindings"}
        assert operation["action"] in ("send", "receive")
        assert operation["channel"]["$ref"].startswith("#/channels/")
    for name in [*DOCUMENT["components"]["schemas"], *DOCUMENT["components"]["messages"]]:
        assert re.fullmatch(r"[\w.\-]+", name)


def test_every_topic_is_a_channel_with_its_policies() -> None:
    assert list(DOCUMENT["channels"]) == [spec.name for spec in TOPICS]
    for name, channel in DOCUMENT["channels"].items():
        spec, kafka = BY_NAME[name], channel["bindings"]["kafka"]
        assert channel["address"] == name
        assert kafka["bindingVersion"] == "0.5.0"
        assert kafka.get("partitions") == (spec.partitions if isinstance(spec.partitions, int) else None)
        assert ("x-partitions" in kafka) == (spec.partitions == "input")
        settings = kafka["topicConfiguration"]
        assert settings["cleanup.policy"] == [spec.cleanup]
        assert settings["retention.ms"] == (-1 if spec.retention_ms is None else spec.retention_ms)
        assert all(settings[key] == int(value) for key, value in spec.config.items())


def test_every_message_is_described_once_and_its_example_fits_its_payload() -> None:
    crossing = {name for channel in DOCUMENT["channels"].values() for name in channel["messages"]}
    assert crossing == set(DOCUMENT["components"]["messages"])
    assert crossing - {"packed"} == {message.name for message in MESSAGES} - {"event"}
    for name, message in DOCUMENT["components"]["messages"].items():
        if name == "packed":
            continue
        # An AsyncAPI schema is one of draft 7; ours say the same to both.
        schema = {**resolve(message["payload"]["$ref"]), "components": DOCUMENT["components"]}
        for validator in (Draft7Validator, Draft202012Validator):
            validator.check_schema(schema)
            for example in message["examples"]:
                validator(schema).validate(example["payload"])
        assert message["bindings"]["kafka"]["key"]["type"] == "string"


def test_the_schemas_need_nothing_that_draft_7_does_not_know() -> None:
    newer = {"prefixItems", "$defs", "dependentRequired", "dependentSchemas", "unevaluatedProperties", "discriminator"}

    def keywords(node: Any) -> set[str]:
        if isinstance(node, dict):
            return set(node) | {word for value in node.values() for word in keywords(value)}
        return {word for value in node for word in keywords(value)} if isinstance(node, list) else set()

    assert not keywords(DOCUMENT["components"]["schemas"]) & newer


def test_the_headers_of_changes_are_described_and_exemplified() -> None:
    change = DOCUMENT["components"]["messages"]["segment-change"]
    (example,) = change["examples"]
    Draft7Validator(change["headers"]).validate(example["headers"])
    for name in example["headers"]:
        without = {k: v for k, v in example["headers"].items() if k != name}
        assert not Draft7Validator(change["headers"]).is_valid(without)


@pytest.mark.parametrize("stage", [Processor, Modeller, CampaignWorker, Delivery])
def test_the_operations_of_a_role_are_what_its_stage_reads(stage: type[Stage]) -> None:
    changelog = {stage.changelog} if stage.changelog else set()
    inputs = set(stage.inputs) if isinstance(getattr(stage, "inputs", None), tuple) else {"events"}
    assert set(ROLES[stage.name]["receive"]) == inputs | set(stage.tables) | changelog
    assert changelog <= set(ROLES[stage.name]["send"])


def test_every_topic_has_somebody_who_sends_and_somebody_who_receives() -> None:
    for action in ("send", "receive"):
        named = {
            op["channel"]["$ref"].removeprefix("#/channels/")
            for op in DOCUMENT["operations"].values()
            if op["action"] == action
        }
        missing = set(DOCUMENT["channels"]) - named
        assert missing == ({"events-dead-letter"} if action == "receive" else set())
