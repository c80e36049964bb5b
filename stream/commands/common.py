"""What several commands share: the options that say where, and the configuration that they lead to."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson

from stream.config import Config, load
from stream.transport.base import Transport, TransportError


class CommandError(Exception):
    """A command cannot go on: one line for the person who typed it. Exit code 1."""


def place_options(parser: argparse.ArgumentParser) -> None:
    """--config, --data-dir, --bootstrap: where the topics are."""
    parser.add_argument("--config", type=Path, metavar="FILE", help="TOML file (default: RESEGMENT_CONFIG)")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--data-dir", type=Path, metavar="DIR", help="topics in this directory (embedded transport)")
    where.add_argument("--bootstrap", metavar="HOST:PORT[,...]", help="topics on this Kafka cluster")


def configuration(arguments: argparse.Namespace, overrides: dict[str, Any] | None = None) -> Config:
    """The configuration that the options lead to. Raises ConfigError."""
    chosen = dict(overrides or {})
    if arguments.data_dir is not None:
        chosen |= {"transport.kind": "embedded", "transport.data_dir": arguments.data_dir}
    if arguments.bootstrap is not None:
        chosen |= {"transport.kind": "kafka", "transport.kafka.bootstrap_servers": arguments.bootstrap}
    return load(arguments.config, chosen)


@contextmanager
def opened(config: Config, *, create: bool = False) -> Iterator[Transport]:
    """The transport, closed afterwards. Raises CommandError where there is nothing to open."""
    try:
        transport = config.transport.open(create=create)
    except TransportError as error:
        raise CommandError(str(error)) from None
    try:
        yield transport
    finally:
        transport.close()


def input_partitions(transport: Transport, config: Config) -> int:
    """Of the event topics. Raises CommandError where they are missing or unequal, naming the fix."""
    counts = {topic: transport.partitions(topic) for topic in config.topics.events}
    if missing := [topic for topic, count in counts.items() if count == 0]:
        raise CommandError(f"topic {', '.join(missing)} does not exist; create it: resegment topics create")
    if len(set(counts.values())) > 1:
        told = ", ".join(f"{topic} has {count}" for topic, count in counts.items())
        raise CommandError(
            f"the event topics must have equal partition counts, but {told}: add partitions to the smaller"
        )
    return next(iter(counts.values()))


def positive(text: str) -> int:
    """An argparse type: a whole number of at least 1."""
    number = int(text) if text.isascii() and text.isdigit() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number of at least 1")
    return number


def print_json(value: object) -> None:
    """One JSON document on standard output, for programs."""
    print(orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_NUMPY).decode())
