"""`resegment state rebuild|offsets`: the way back where a stage's state, or its group's offsets, are lost."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from stream.commands.common import CommandError, configuration, input_partitions, opened, place_options, print_json
from stream.config import Config
from stream.transport.base import Transport

if TYPE_CHECKING:
    from stream.rebuild import Rebuilt

    Work = Callable[[Transport, Config, str], Iterator[Rebuilt]]

STAGES = ("processor", "modeller", "campaigns", "delivery")


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = commands.add_parser("state", help="make a stage's lost state anew", description=__doc__)
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    rebuild = verbs.add_parser(
        "rebuild",
        help="from the events that are kept, and from what was published",
        description="Make a stage's state anew, at the offsets that its group has committed. Features come from the "
        "events that are kept, where people stand from the memberships, caps and pending deliveries from the actions, "
        "the modeller's knowledge from its last version. Nothing is published, and nothing that was is published "
        "again. Stop every process with that role first.",
    )
    rebuild.set_defaults(run=run_rebuild)
    offsets = verbs.add_parser(
        "offsets",
        help="commit the offsets at which the state stands",
        description="Where the state is whole but the group's offsets are lost or expired: commit those at which the "
        "state stands. Stop every process with that role first.",
    )
    offsets.set_defaults(run=run_offsets)
    for verb in (rebuild, offsets):
        verb.add_argument("--stage", choices=STAGES, default="processor", help="whose (default: processor)")
        verb.add_argument("--yes", action="store_true", help="really: what is in the stage's changelog is replaced")
        verb.add_argument("--json", action="store_true", help="print JSON")
        place_options(verb)


def run_rebuild(arguments: argparse.Namespace) -> int:
    """Rebuild."""
    from stream.rebuild import rebuild

    return _run(arguments, "rebuilt", "replaces the state of", rebuild)


def run_offsets(arguments: argparse.Namespace) -> int:
    """Adopt the state's offsets."""
    from stream.rebuild import adopt_offsets

    return _run(arguments, "committed", "sets the offsets of", adopt_offsets)


def _run(arguments: argparse.Namespace, done: str, does: str, work: Work) -> int:
    if not arguments.yes:
        raise CommandError(f"this {does} the {arguments.stage}; stop its processes, and say --yes")
    config = configuration(arguments)
    told = []
    with opened(config) as transport:
        input_partitions(transport, config)
        for one in work(transport, config, arguments.stage):
            told.append({"partition": one.partition, "stands": one.stands, "state_bytes": one.state_bytes})
            if not arguments.json:
                places = ", ".join(f"{topic} {offset:,}" for topic, offset in one.stands.items())
                print(f"partition {one.partition}: {done} at {places} ({one.state_bytes:,} bytes)")
    if arguments.json:
        print_json(told)
    elif not told:
        print("nothing was ever committed: there is nothing to do")
    return 0
