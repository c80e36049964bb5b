"""`resegment model list|diff|pin|unpin|rollback`: the versions, what changed between two, and which one is used."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime
from typing import Any

from schemas import topics
from stream.commands.common import CommandError, configuration, opened, place_options, print_json
from stream.commands.segments import Versions, versions
from stream.segments.prototypes import Model, segment_id
from stream.transport.base import OutRecord, Transport


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = commands.add_parser("model", help="the model's versions", description=__doc__)
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    listing = verbs.add_parser("list", help="every version that is kept, and why it was published")
    listing.set_defaults(run=run_list)
    diff = verbs.add_parser("diff", help="what changed from one version to another")
    diff.add_argument("before", type=int)
    diff.add_argument("after", type=int)
    diff.set_defaults(run=run_diff)
    pin = verbs.add_parser("pin", help="use this version until it is unpinned, whatever is published")
    pin.add_argument("version", type=int)
    pin.set_defaults(run=run_pin)
    unpin = verbs.add_parser("unpin", help="follow the newest version again")
    unpin.set_defaults(run=run_unpin)
    rollback = verbs.add_parser("rollback", help="pin the version before the one that is used now")
    rollback.set_defaults(run=run_rollback)
    for verb in (listing, diff, pin, unpin, rollback):
        place_options(verb)
        verb.add_argument("--json", action="store_true", help="print JSON")


def run_list(arguments: argparse.Namespace) -> int:
    """One line a version."""
    with opened(configuration(arguments)) as transport:
        published = versions(transport)
    used = _used(published)
    rows = [_row(model, used, published.pinned is not None) for model in published.by_version.values()]
    if arguments.json:
        print_json(rows)
        return 0
    for row in rows:
        day = datetime.fromtimestamp(row["created_at"] / 1000, UTC)
        silhouette = "-" if row["silhouette"] is None else f"{row['silhouette']:.3f}"
        print(
            f"{row['version']:>5}  {day:%Y-%m-%d %H:%M}  {row['segments']} segments  silhouette {silhouette}  "
            f"moves {row['moved']:.1%}  by {row['promoted_by']}{'  ' + row['state'] if row['state'] else ''}"
        )
    if not rows:
        print("no model has been published yet")
    return 0


def run_diff(arguments: argparse.Namespace) -> int:
    """Segments of both versions by id: name, size, and how the typical member changed."""
    with opened(configuration(arguments)) as transport:
        published = versions(transport)
    before, after = (_version(published, number) for number in (arguments.before, arguments.after))
    rows = [_difference(before, after, segment) for segment in sorted({*before.profile, *after.profile})]
    if arguments.json:
        print_json(rows)
        return 0
    for row in rows:
        print(f"{row['segment']:<8} {row['what']}")
    return 0


def run_pin(arguments: argparse.Namespace) -> int:
    """Pin a version."""
    with opened(configuration(arguments)) as transport:
        model = _version(versions(transport), arguments.version)
        _pin(transport, model)
    return _told(arguments, "pinned", model.version)


def run_unpin(arguments: argparse.Namespace) -> int:
    """Let processors follow the newest version."""
    with opened(configuration(arguments)) as transport:
        published = versions(transport)
        if published.pinned is None:
            raise CommandError("no version is pinned")
        transport.produce([OutRecord(topics.SEGMENT_MODEL, topics.MODEL_PIN_KEY, None, 0)])
    return _told(arguments, "unpinned", published.pinned.version)


def run_rollback(arguments: argparse.Namespace) -> int:
    """Pin the version before the used one."""
    with opened(configuration(arguments)) as transport:
        published = versions(transport)
        used = _used(published)
        earlier = [number for number in published.by_version if used is not None and number < used]
        if not earlier:
            raise CommandError("there is no earlier version to go back to")
        model = published.by_version[max(earlier)]
        _pin(transport, model)
    return _told(arguments, "pinned", model.version)


def _pin(transport: Transport, model: Model) -> None:
    transport.produce([OutRecord(topics.SEGMENT_MODEL, topics.MODEL_PIN_KEY, model.to_bytes(), 0)])


def _told(arguments: argparse.Namespace, what: str, version: int) -> int:
    if arguments.json:
        print_json({what: version})
    else:
        print(f"{what} version {version}; processors take it within seconds, and what moves has the cause model")
    return 0


def _used(published: Versions) -> int | None:
    if published.pinned is not None:
        return published.pinned.version
    return max(published.by_version, default=None)


def _version(published: Versions, number: int) -> Model:
    model = published.by_version.get(number)
    if model is None:
        kept = f"{min(published.by_version)} to {max(published.by_version)}" if published.by_version else "none"
        raise CommandError(f"version {number} is not kept; there is {kept}")
    return model


def _row(model: Model, used: int | None, pinned: bool) -> dict[str, Any]:
    quality = model.quality
    return {
        "version": model.version,
        "created_at": model.created_at,
        "segments": len(model.segment_ids),
        "observations": model.observations,
        "inertia": quality.inertia if quality else None,
        "silhouette": quality.silhouette if quality else None,
        "moved": quality.moved if quality else 0.0,
        "promoted_by": quality.promoted_by if quality else "first",
        "state": ("pinned" if pinned else "in use") if model.version == used else "",
    }


def _difference(before: Model, after: Model, segment: int) -> dict[str, Any]:
    old, new = before.profile.get(segment), after.profile.get(segment)
    row: dict[str, Any] = {"segment": segment_id(segment)}
    if old is None:
        assert new is not None
        return {**row, "what": f"new: {new.name}, {new.size:.0%} of people"}
    if new is None:
        return {**row, "what": f"gone: {old.name}, {old.size:.0%} of people"}
    shared = sorted(old.z.keys() & new.z.keys(), key=lambda name: -abs(new.z[name] - old.z[name]))[:3]
    shifts = {name: round(new.z[name] - old.z[name], 3) for name in shared if abs(new.z[name] - old.z[name]) >= 0.05}
    told = ", ".join(f"{name} {shift:+.2f}" for name, shift in shifts.items()) or "nobody typical changed"
    name = old.name if old.name == new.name else f"{old.name} is now {new.name}"
    return {**row, "shifts": shifts, "what": f"{name}: {old.size:.0%} to {new.size:.0%} of people; z: {told}"}
