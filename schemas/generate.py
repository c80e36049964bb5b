"""Writes schemas/generated/: a JSON Schema a message, and one AsyncAPI document of all topics.

Run `python -m schemas.generate` after changing a schema; with `--check` it writes nothing, names the files that are
stale and exits with 1. The output follows from the models, the topics and the examples alone.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode

from schemas import events, examples
from schemas.anomaly import Anomaly
from schemas.asyncapi import asyncapi_text
from schemas.campaign import CampaignAction, CampaignOutcome
from schemas.change import SegmentChange
from schemas.dead_letter import DeadLetter
from schemas.membership import SegmentMembership
from schemas.model import SegmentModel

DIRECTORY = Path(__file__).parent / "generated"
DIALECT = "https://json-schema.org/draft/2020-12/schema"


@dataclass(frozen=True, slots=True)
class Message:
    """One kind of record. Events are described as we take them, everything else as we write it."""

    name: str
    type: Any
    examples: tuple[dict[str, Any], ...]
    mode: JsonSchemaMode = "serialization"


EVENT_MESSAGES: tuple[Message, ...] = (
    Message("event", events.Event, tuple(examples.EVENTS.values()), "validation"),
    Message("event-browse", events.Browse, (examples.EVENTS["browse"],), "validation"),
    Message("event-click", events.Click, (examples.EVENTS["click"],), "validation"),
    Message("event-purchase", events.Purchase, (examples.EVENTS["purchase"],), "validation"),
    Message("event-search", events.Search, (examples.EVENTS["search"],), "validation"),
    Message("event-add-to-cart", events.AddToCart, (examples.EVENTS["add_to_cart"],), "validation"),
    Message("event-favourite", events.Favourite, (examples.EVENTS["favourite"],), "validation"),
    Message("event-review", events.Review, (examples.EVENTS["review"],), "validation"),
    Message("event-share", events.Share, (examples.EVENTS["share"],), "validation"),
)

MESSAGES: tuple[Message, ...] = (
    *EVENT_MESSAGES,
    Message("segment-change", SegmentChange, (examples.CHANGE, examples.RULE_CHANGE)),
    Message("segment-membership", SegmentMembership, (examples.MEMBERSHIP, examples.RULE_MEMBERSHIP)),
    Message("segment-model", SegmentModel, (examples.MODEL,)),
    Message("anomaly", Anomaly, (examples.ANOMALY,)),
    Message("dead-letter", DeadLetter, (examples.DEAD_LETTER,)),
    Message("campaign-action", CampaignAction, (examples.ACTION,)),
    Message("campaign-outcome", CampaignOutcome, (examples.OUTCOME,)),
)


class _Plain(GenerateJsonSchema):
    """Without titles that only repeat a field's name, and without OpenAPI's discriminator: `const` says it already."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False

    def tagged_union_schema(self, schema: Any) -> dict[str, Any]:
        described: dict[str, Any] = super().tagged_union_schema(schema)
        described.pop("discriminator", None)
        return described


def json_schema(message: Message) -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of one message."""
    body = TypeAdapter(message.type).json_schema(mode=message.mode, schema_generator=_Plain)
    title = body.pop("title", "Event")
    return {
        "$schema": DIALECT,
        "$id": f"urn:resegment:{message.name}",
        "title": title,
        **body,
        "examples": list(message.examples),
    }


def components(messages: Sequence[Message], ref_template: str) -> tuple[dict[str, str], dict[str, Any]]:
    """(reference of each message by name, schemas by name) with one entry for what several messages share."""
    inputs = [(message.name, message.mode, TypeAdapter(message.type)) for message in messages]
    refs, found = TypeAdapter.json_schemas(inputs, ref_template=ref_template, schema_generator=_Plain)
    return {name: ref["$ref"] for (name, _), ref in refs.items()}, found["$defs"]


def documents() -> dict[str, str]:
    """Every generated file's content, by its name."""
    files = {f"{message.name}.schema.json": _dump(json_schema(message)) for message in MESSAGES}
    files["asyncapi.yaml"] = asyncapi_text(MESSAGES, components)
    return files


def stale(directory: Path = DIRECTORY) -> list[str]:
    """Names of files that are missing, differ from what would be written, or belong to nothing."""
    wanted = documents()
    found = {path.name: path.read_text("utf-8") for path in directory.iterdir()} if directory.is_dir() else {}
    return sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))


def write(directory: Path = DIRECTORY) -> list[str]:
    """Bring the directory up to date; returns the names of the files that changed."""
    changed = stale(directory)
    wanted = documents()
    directory.mkdir(parents=True, exist_ok=True)
    for name in changed:
        if name in wanted:
            (directory / name).write_text(wanted[name], "utf-8")
        else:
            (directory / name).unlink()
    return changed


def _dump(document: dict[str, Any]) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m schemas.generate", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; name stale files and exit with 1")
    if parser.parse_args(arguments).check:
        for name in (names := stale()):
            print(f"schemas/generated/{name} is stale: run python -m schemas.generate", file=sys.stderr)
        return 1 if names else 0
    for name in write():
        print(f"schemas/generated/{name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
