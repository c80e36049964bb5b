"""`resegment explain USER`: features, segment, why, and the history of changes."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import orjson
from rich.markup import escape
from rich.table import Table

from schemas import topics
from stream.commands.common import CommandError, configuration, input_partitions, opened, place_options, print_json
from stream.commands.segments import newest_model
from stream.config import Config
from stream.report import plain_console
from stream.runtime.changelog import Changelog
from stream.segments.explain import Explanation, FeatureLine, explain
from stream.segments.population import Population
from stream.segments.processor import Processor
from stream.segments.prototypes import Model, segment_id
from stream.segments.rules import PREFIX as RULE
from stream.segments.whatif import WhatIf, what_if
from stream.transport.base import TopicPartition, Transport
from stream.transport.murmur2 import partition_of

_WORDS = {
    "purchase": "purchase",
    "add_to_cart": "item put into the cart",
    "browse": "page view",
    "click": "click",
    "search": "search",
}


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = commands.add_parser("explain", help="why a user is in a segment", description=__doc__)
    parser.add_argument("user", help="the user id")
    parser.add_argument("--json", action="store_true", help="print JSON")
    place_options(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Explain one user from the committed state."""
    config = configuration(arguments)
    with opened(config) as transport:
        partition, found, moves = _find(transport, config, arguments.user)
        history = list(_history(transport, partition, arguments.user))
    if arguments.json:
        print_json({**asdict(found), "what_would_move_them": moves, "history": history})
    else:
        _print(found, moves, history)
    return 0


def _find(transport: Transport, config: Config, user: str) -> tuple[int, Explanation, list[str]]:
    """Look in the partition that the user's key belongs to, then, for foreign partitioners, in the others."""
    count = input_partitions(transport, config)
    first = partition_of(user.encode(), count)
    layout = config.layout()
    model = newest_model(transport)
    for partition in sorted(range(count), key=lambda p: p != first):
        population = Population(partition, layout)
        changelog = Changelog(transport, Processor.name, topics.USER_STATE)
        population.restore(changelog.restore(partition, {}))
        # As the processor saw them last: after a replay the wall clock would make everybody a stranger.
        if (found := explain(user, population, layout, model, population.now())) is not None:
            moves = what_if(user, population, layout, model, config.decision, population.now()) if model else None
            return partition, found, list(_sentences(moves, model)) if moves and model else []
    raise CommandError(f"no event of user {user!r} has been accepted")


def _history(transport: Transport, partition: int, user: str) -> Iterator[dict[str, Any]]:
    key = user.encode()
    for record in transport.read(TopicPartition(topics.SEGMENT_CHANGES, partition), 0):
        if record.key == key and record.value is not None:
            yield orjson.loads(record.value)


def _print(found: Explanation, moves: list[str], history: list[dict[str, Any]]) -> None:
    console = plain_console()
    where = _label(found.segment)
    console.print(f"[bold]{escape(found.user_id)}[/bold]  {where}, since {_day(found.since) if found.segment else '-'}")
    console.print(
        f"{found.events:,} events from {_day(found.first_seen)} to {_day(found.last_seen)}; as of {_day(found.at)}, "
        f"model {found.model_version}"
    )
    if found.distance is not None and found.rival is not None and found.rival_distance is not None:
        console.print(
            f"distance {found.distance:.2f} to its segment, {found.rival_distance:.2f} to the next, "
            f"{_label(found.rival)}"
        )
    if found.pending:
        console.print(f"on the way to {_label(found.pending)}: clearly nearer at the last look, to be confirmed")
    if found.rules:
        console.print(f"also in {', '.join(map(_label, found.rules))}")
    console.print(_features(found.features))
    if moves:
        console.print("\n[bold]what would move them[/bold]")
    for sentence in moves:
        console.print(escape(sentence), highlight=False)
    if history:
        console.print(f"\n[bold]{len(history)} changes[/bold]")
    for change in history:
        why = ", ".join(f"{one['feature']} {_number(one['value'])}" for one in change["why"])
        console.print(
            f"{_day(change['occurred_at'])}  {_step(change)}  "
            f"[dim]{change['cause']}, confidence {change['confidence']:.2f}[/dim]  {escape(why)}",
            highlight=False,
        )


def _sentences(found: WhatIf, model: Model) -> Iterator[str]:
    def name(segment: int) -> str:
        return f"{model.names.get(segment)} ({segment_id(segment)})"

    silence = found.silence
    if silence is not None:
        days = silence.after_ms / 86_400_000
        after = f"{days:.0f} days" if days >= 2 else f"{silence.after_ms / 3_600_000:.0f} hours"
        yield f"silence for {after}: to {name(silence.segment)}"
        if len(silence.kept_by) == len(_WORDS):
            yield f"anything they do within {after} keeps them"
        elif silence.kept_by:
            yield f"one {' or '.join(_WORDS[kind] for kind in silence.kept_by)} within {after} keeps them"
    for deed in found.deeds:
        yield f"{_more(deed.kind, deed.count)} now: to {name(deed.segment)}"


def _more(kind: str, count: int) -> str:
    if kind == "add_to_cart":
        return f"{count} more item{'s' if count > 1 else ''} put into the cart"
    return f"{count} more {_WORDS[kind]}{'' if count == 1 else 'es' if kind == 'search' else 's'}"


def _features(lines: tuple[FeatureLine, ...]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("feature", "value", "segment's", "z", "speaks for it"):
        table.add_column(heading, justify="left" if heading == "feature" else "right")
    for line in sorted(lines, key=lambda one: -abs(one.pull or 0.0)):
        table.add_row(
            line.title or line.name,
            _number(line.value),
            _number(line.segment_mean),
            "" if line.z is None else f"{line.z:+.1f}",
            "" if line.pull is None else f"{line.pull:+.0%}",
        )
    return table


def _step(change: dict[str, Any]) -> str:
    left, entered = change["from"], change["to"]
    if entered is not None and entered["id"].startswith(RULE):
        return f"into {_label(entered)}"
    if left is not None and left["id"].startswith(RULE):
        return f"out of {_label(left)}"
    return f"{_label(left)} → {_label(entered)}"


def _label(segment: dict[str, Any] | None) -> str:
    return "no segment" if segment is None else escape(f"{segment['name'] or '?'} ({segment['id']})")


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:,.4g}"


def _day(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M")
