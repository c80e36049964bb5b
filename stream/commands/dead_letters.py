"""`resegment dead-letters list|replay`: what could not be used, and sending it back once the cause is mended."""

from __future__ import annotations

import argparse
import time
from dataclasses import asdict
from datetime import UTC, datetime

from rich.console import Console
from rich.table import Table

from schemas.dead_letter import Reason
from schemas.topics import DEAD_LETTERS
from stream.commands.common import CommandError, configuration, opened, place_options, print_json
from stream.dead_letters import REASONS, Period, ReasonReplay, Replayed, summarise
from stream.durations import parse_duration


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = commands.add_parser("dead-letters", help="list the dead letters, or send them back", description=__doc__)
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    show = verbs.add_parser("list", help="how many by reason, with samples", description="Count the dead letters.")
    show.add_argument("--samples", type=int, default=3, metavar="N", help="newest letters of each reason (default: 3)")
    show.set_defaults(run=run_list)
    replay = verbs.add_parser(
        "replay",
        help="send them back to the topic that they came from",
        description="Send dead letters back to the topic and partition that they came from, byte for byte and each of "
        "them once, with headers that say where from and why it was dead. Letters that were rejected before --since "
        "are passed over for good; those from --until on wait for a later run.",
    )
    replay.add_argument("--all", action="store_true", help="of every reason (else name them: --reason)")
    replay.add_argument("--dry-run", action="store_true", help="say what would be sent, and send nothing")
    replay.set_defaults(run=run_replay)
    for verb in (show, replay):
        verb.add_argument(
            "--reason", action="append", choices=REASONS, metavar="REASON", help=f"one of {', '.join(REASONS)}"
        )
        verb.add_argument("--since", type=moment, metavar="TIME", help="rejected since: 2026-11-20T10:00, or 2h (ago)")
        verb.add_argument("--until", type=moment, metavar="TIME", help="rejected before")
        verb.add_argument("--json", action="store_true", help="print JSON")
        place_options(verb)


def run_list(arguments: argparse.Namespace) -> int:
    """A row for each reason."""
    config = configuration(arguments)
    reasons: tuple[Reason, ...] = tuple(arguments.reason or REASONS)
    with opened(config) as transport:
        if not transport.partitions(DEAD_LETTERS):
            raise CommandError(f"there is no topic {DEAD_LETTERS!r}; create it: resegment topics create")
        period = Period(arguments.since, arguments.until)
        found = summarise(transport, config, reasons, period, max(0, arguments.samples))
    if arguments.json:
        print_json({reason: {**asdict(one), "fields": dict(one.fields)} for reason, one in found.items()})
        return 0
    if not found:
        print("no dead letters")
        return 0
    table = Table(box=None, pad_edge=False)
    for heading in ("reason", "letters", "to replay", "first", "last", "fields"):
        table.add_column(heading, justify="right" if heading in ("letters", "to replay") else "left")
    console = Console()
    for reason, one in found.items():
        fields = ", ".join(f"{name} {count:,}" for name, count in one.fields.most_common(3) if name)
        first, last = _shown(one.first_at), _shown(one.last_at)
        table.add_row(reason, f"{one.count:,}", f"{one.waiting:,}", first, last, fields)
    console.print(table)
    for reason, one in found.items():
        for sample in one.samples:
            console.print(f"\n{reason} {sample['source']}: {sample['detail']}", highlight=False, markup=False)
            if sample["original"] is not None:
                console.print(f"  {sample['original']}", highlight=False, markup=False)
    return 0


def run_replay(arguments: argparse.Namespace) -> int:
    """Send them back."""
    if bool(arguments.reason) == arguments.all:
        raise CommandError("say which: --reason REASON (as often as you like), or --all")
    config = configuration(arguments)
    period = Period(arguments.since, arguments.until)
    told: dict[str, Replayed] = {}
    with opened(config) as transport:
        if not transport.partitions(DEAD_LETTERS):
            raise CommandError(f"there is no topic {DEAD_LETTERS!r}; create it: resegment topics create")
        for reason in dict.fromkeys(arguments.reason or REASONS):
            replay = ReasonReplay(transport, config, reason, period)
            planned = replay.plan()
            if planned != Replayed():
                told[reason] = planned if arguments.dry_run else replay.run()
    if arguments.json:
        print_json({"dry_run": arguments.dry_run, "reasons": {reason: asdict(one) for reason, one in told.items()}})
        return 0
    verb = "would be sent" if arguments.dry_run else "sent"
    for reason, one in told.items():
        line = f"{reason}: {one.sent:,} {verb} back"
        if one.passed_over:
            line += f", {one.passed_over:,} passed over (rejected before --since)"
        if one.incomplete:
            line += f", {one.incomplete:,} not whole any more (cut, and their source is deleted)"
        print(line)
    if not told:
        print("nothing to send back")
    return 0


def moment(text: str) -> int:
    """An argparse type: a date and time (UTC where it names no zone), or a duration ago; as epoch milliseconds."""
    try:
        return int(time.time() * 1000) - parse_duration(text)
    except ValueError:
        pass
    try:
        given = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a time (2026-11-20T10:00) nor a duration (2h)") from None
    return round((given if given.tzinfo else given.replace(tzinfo=UTC)).timestamp() * 1000)


def _shown(time_ms: int | None) -> str:
    return "" if time_ms is None else f"{datetime.fromtimestamp(time_ms / 1000, UTC):%Y-%m-%d %H:%M}"
