"""`resegment topics create|check`: the topics with the right policies, and every difference from them."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from schemas.topics import BY_NAME, EVENTS, TOPICS, TopicSpec
from stream.commands.common import configuration, opened, place_options, positive, print_json
from stream.config import Config


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = commands.add_parser("topics", help="create the topics, or check them", description=__doc__)
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    create = verbs.add_parser("create", help="create what is missing; what is there is left as it is")
    create.add_argument("--partitions", type=positive, metavar="N", help="of the event topics (default: configured)")
    create.set_defaults(run=run_create)
    check = verbs.add_parser("check", help="name each difference; exit code 1 if there is any")
    check.set_defaults(run=run_check)
    for verb in (create, check):
        place_options(verb)
        verb.add_argument("--json", action="store_true", help="print JSON")


def run_create(arguments: argparse.Namespace) -> int:
    """Create what is missing."""
    config = configuration(arguments)
    partitions = arguments.partitions or config.topics.partitions
    with opened(config, create=True) as transport:
        created = transport.create_topics(specs(config), partitions)
    if arguments.json:
        print_json({"created": created})
    else:
        print(f"created {', '.join(created)}" if created else "nothing to create: every topic exists")
    return 0


def run_check(arguments: argparse.Namespace) -> int:
    """Name each difference."""
    config = configuration(arguments)
    with opened(config) as transport:
        differences = transport.check_topics(specs(config))
    if arguments.json:
        print_json(differences)
    for one in () if arguments.json else differences:
        print(f"{one.topic}: {one.setting} is {one.actual}, expected {one.expected}; {one.remedy}")
    if not differences and not arguments.json:
        print("every topic is as it must be")
    return 1 if differences else 0


def specs(config: Config) -> Iterator[TopicSpec]:
    """Of all topics, the event topics by their configured names."""
    yield from (spec for spec in TOPICS if spec.name != EVENTS)
    like = BY_NAME[EVENTS]
    for name in config.topics.events:
        yield TopicSpec(name, like.partitions, like.cleanup, like.retention_ms, like.key, like.config)
