"""`resegment segments`: what the segments are, by the newest published model and the configured rules, and how many
users are in each."""

from __future__ import annotations

import argparse
from collections import Counter
from datetime import UTC, datetime
from typing import NamedTuple

import orjson
from rich.markup import escape
from rich.table import Table

from schemas import topics
from schemas.model import Lineage
from stream.commands.common import CommandError, configuration, opened, place_options, print_json
from stream.config import Config
from stream.report import plain_console, traits
from stream.segments.prototypes import Model
from stream.segments.rules import PREFIX
from stream.transport.base import TopicPartition, Transport


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = commands.add_parser("segments", help="what the segments are, and their sizes", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--history", action="store_true", help="what became of every segment, version by version")
    place_options(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print a row for each segment."""
    config = configuration(arguments)
    if arguments.history:
        return _history(config, arguments.json)
    with opened(config) as transport:
        model = newest_model(transport)
        members = memberships(transport)
    in_rules = Counter({name: members.pop(name) for name in [*members] if name.startswith(PREFIX)})
    if model is None and not in_rules:
        raise CommandError("no model has been published yet: it takes some hundred users with a few events each")
    total = sum(members.values())
    profiles = model.profiles if model is not None else ()
    rows = [
        {
            "id": profile.id,
            "name": profile.name,
            "users": members[profile.id],
            "share": members[profile.id] / total if total else 0.0,
            "born_version": profile.born_version,
            "means": profile.means,
            "z": profile.z,
        }
        for profile in profiles
    ]
    if arguments.json:
        print_json(
            {
                "model_version": model.version if model is not None else 0,
                "created_at": model.created_at if model is not None else None,
                "segments": rows,
                "others": {name: count for name, count in members.items() if name not in {p.id for p in profiles}},
                "rules": [
                    {"id": rule.id, "name": rule.name, "users": in_rules[rule.id], "when": rule.when}
                    for rule in config.rules
                ],
            }
        )
        return 0
    titles = {feature.name: feature for feature in config.features}
    table = Table(box=None, pad_edge=False, title=_title(model, total))
    for heading in ("segment", "name", "users", "share", "who they are"):
        table.add_column(heading, justify="right" if heading in ("users", "share") else "left")
    for profile in sorted(profiles, key=lambda one: -members[one.id]):
        users = members.pop(profile.id, 0)
        table.add_row(profile.id, profile.name, f"{users:,}", f"{users / max(1, total):.0%}", traits(profile, titles))
    for name, users in members.most_common():
        table.add_row(name, "", f"{users:,}", f"{users / max(1, total):.0%}", "")
    for rule in config.rules:
        share = f"{in_rules[rule.id] / total:.0%}" if total else ""
        table.add_row(rule.id, escape(rule.name), f"{in_rules[rule.id]:,}", share, escape(rule.title or rule.when))
    plain_console().print(table)
    return 0


def _title(model: Model | None, total: int) -> str:
    return "no model yet" if model is None else f"model {model.version}, {total:,} users in segments"


def newest_model(transport: Transport) -> Model | None:
    """The model that processors use: the pinned one, else the newest, if there is one."""
    published = versions(transport)
    return published.pinned or (published.by_version[max(published.by_version)] if published.by_version else None)


def _history(config: Config, as_json: bool) -> int:
    """Births, splits, merges and deaths; that a segment merely lived on is not told."""
    with opened(config) as transport:
        published = versions(transport).by_version
    names: dict[str, str] = {}
    told: list[tuple[int, int, Lineage, str]] = []
    for version, model in published.items():
        names |= {profile.id: profile.name for profile in model.profiles}
        told += [
            (version, model.created_at, line, names.get(line.segment, ""))
            for line in model.lineage
            if line.kind != "survived"
        ]
    if as_json:
        print_json([{"version": v, "at": at, "name": name, **line.model_dump()} for v, at, line, name in told])
        return 0
    for version, at, line, name in told:
        day = datetime.fromtimestamp(at / 1000, UTC)
        parents = f" from {', '.join(line.parents)}" if line.parents else ""
        print(f"{day:%Y-%m-%d %H:%M}  version {version:>4}  {line.segment:<8} {line.kind}{parents}  {name}")
    if not told:
        print("no model has been published yet")
    return 0


class Versions(NamedTuple):
    """What the model topic holds."""

    by_version: dict[int, Model]
    pinned: Model | None


def versions(transport: Transport) -> Versions:
    """All versions that are kept, ascending, and the pinned one."""
    values: dict[bytes | None, bytes | None] = {}
    if transport.partitions(topics.SEGMENT_MODEL):
        for record in transport.read(TopicPartition(topics.SEGMENT_MODEL, 0), 0):
            values[record.key] = record.value
    pin = values.pop(topics.MODEL_PIN_KEY, None)
    models = [Model.from_bytes(value) for value in values.values() if value is not None]
    return Versions(
        {model.version: model for model in sorted(models, key=lambda one: one.version)},
        None if pin is None else Model.from_bytes(pin),
    )


def memberships(transport: Transport) -> Counter[str]:
    """Users by segment id, from the compacted membership topic: the last record of a key counts. A user has one for
    the learned segment and one for each rule segment."""
    counts: Counter[str] = Counter()
    for partition in range(transport.partitions(topics.SEGMENT_MEMBERSHIP)):
        latest: dict[bytes | None, str] = {}
        for record in transport.read(TopicPartition(topics.SEGMENT_MEMBERSHIP, partition), 0):
            segment = orjson.loads(record.value)["segment"] if record.value is not None else None
            if segment is None:
                latest.pop(record.key, None)
            else:
                latest[record.key] = segment["id"]
        counts.update(latest.values())
    return counts
