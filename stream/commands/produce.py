"""`resegment produce`: push a data set or the synthetic shop to the events topic, at a chosen rate."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime
from pathlib import Path

from pydantic import ValidationError
from rich.console import Console

from producers.pusher import Pusher, PushProgress, PushSettings
from producers.readers import FORMATS, open_source
from producers.shop import Shop, ShopSettings
from producers.source import Source, SourceError
from stream.commands.common import (
    CommandError,
    configuration,
    input_partitions,
    opened,
    place_options,
    positive,
)
from stream.runtime.logs import configure
from stream.runtime.signals import stop_on_signals

REPORT_SECONDS = 5.0


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = commands.add_parser("produce", help="push events to the events topic", description=__doc__)
    kinds = parser.add_subparsers(metavar="SOURCE", required=True)
    shop = kinds.add_parser("shop", help="a synthetic shop: personas, bots, faults, with the truth beside it")
    shop.add_argument("--users", type=positive, metavar="N", help="people and bots that may ever come")
    shop.add_argument("--days", type=positive, metavar="N", help="simulated days")
    shop.add_argument("--seed", type=int, metavar="N")
    shop.add_argument("--scenario", choices=("static", "drift", "birth_death"))
    shop.add_argument("--truth", type=Path, metavar="DIR", help="write who was which persona when")
    shop.set_defaults(source=_shop)
    data = kinds.add_parser("file", help="a data set, plain or gzip")
    data.add_argument("file", type=Path)
    data.add_argument("--format", required=True, choices=sorted(FORMATS))
    data.set_defaults(source=_file)
    for kind in (shop, data):
        kind.add_argument("--rate", type=float, metavar="R", help="events a second (default: as fast as it goes)")
        kind.add_argument("--retime", action="store_true", help="shift the data's time so that it starts now")
        kind.add_argument("--speed", type=float, default=1.0, help="with --retime: its seconds in one of ours")
        kind.add_argument("--limit", type=positive, metavar="N", help="stop after so many events")
        kind.add_argument("--topic", help="an event topic (default: the first configured one)")
        kind.add_argument("--position", type=Path, metavar="FILE", help="carry on from the row that this file holds")
        place_options(kind)
        kind.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Push until the source ends or a signal comes."""
    config = configuration(arguments)
    configure(config.log)
    topic = arguments.topic or config.topics.events[0]
    try:
        settings = PushSettings(topic=topic, rate=arguments.rate, retime=arguments.retime, speed=arguments.speed)
        source = arguments.source(arguments)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise CommandError(f"--{'-'.join(str(part) for part in first['loc'])}: {first['msg']}") from None
    except SourceError as error:
        raise CommandError(str(error)) from None
    console = Console(stderr=True)
    with stop_on_signals() as stop, opened(config) as transport:
        input_partitions(transport, config)
        pusher = Pusher(source, transport, settings, position=arguments.position)
        try:
            report = pusher.run(stop, _reporter(console), limit=arguments.limit)
        except SourceError as error:
            raise CommandError(str(error)) from None
    console.print(_line(report), highlight=False)
    return 0 if report.finished or not stop.is_set() else 130


def _shop(arguments: argparse.Namespace) -> Source:
    chosen = {name: getattr(arguments, name) for name in ("users", "days", "seed", "scenario")}
    shop = Shop(ShopSettings.model_validate({name: value for name, value in chosen.items() if value is not None}))
    if arguments.truth is not None:
        shop.write_truth(arguments.truth)
    return shop


def _file(arguments: argparse.Namespace) -> Source:
    return open_source(arguments.format, arguments.file)


class _reporter:  # noqa: N801 - used as a function
    """Prints a line every few seconds."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._told = 0.0

    def __call__(self, progress: PushProgress) -> None:
        if progress.seconds - self._told >= REPORT_SECONDS:
            self._told = progress.seconds
            self._console.print(_line(progress), highlight=False)


def _line(progress: PushProgress) -> str:
    total = f" of {progress.total:,}" if progress.total is not None else ""
    at = progress.last_arrival
    day = "" if at is None else f", the data's time is {datetime.fromtimestamp(at / 1000, UTC):%Y-%m-%d %H:%M}"
    return (
        f"{progress.pushed:,} events pushed ({progress.rate:,.0f} a second), next row {progress.next_row:,}{total}{day}"
    )
