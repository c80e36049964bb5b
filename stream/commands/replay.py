"""`resegment replay`: a data set through the embedded pipeline, its clock the data's own."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import orjson
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from producers.readers import FORMATS, open_source
from producers.source import SourceError
from stream.commands.common import CommandError, positive
from stream.config import load
from stream.replay import Replay
from stream.report import describe, plain_console
from stream.runtime import interpreter
from stream.runtime.signals import stop_on_signals


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "replay",
        help="a data set through the embedded pipeline",
        description="Replay a data set through all stages in one process. The clock is the data's own. Interrupted or "
        "killed and run again on the same directory, it carries on; run again when finished, it does nothing twice.",
    )
    parser.add_argument("file", type=Path, help="the data set, plain or gzip")
    parser.add_argument("--format", required=True, choices=sorted(FORMATS), help="what the file is")
    parser.add_argument("--data-dir", type=Path, required=True, metavar="DIR", help="where topics and state are kept")
    parser.add_argument("--summary-json", type=Path, metavar="FILE", help="write the summary there, as JSON")
    parser.add_argument("--partitions", type=positive, default=1, metavar="N", help="event partitions (default: 1)")
    parser.add_argument("--config", type=Path, metavar="FILE", help="TOML file (default: RESEGMENT_CONFIG)")
    parser.add_argument("--json", action="store_true", help="print the summary as JSON, and nothing else")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Carry the command out; exit code 0, or 130 where it was interrupted."""
    config = load(arguments.config, {"transport.kind": "embedded", "transport.data_dir": arguments.data_dir})
    try:
        source = open_source(arguments.format, arguments.file)
    except SourceError as error:
        raise CommandError(str(error)) from None
    console = Console(stderr=True, quiet=arguments.json)
    with stop_on_signals() as stop, Replay(config, source, partitions=arguments.partitions) as replay:
        interpreter.settle()
        with _bar(console, source.total) as bar:
            task = bar.add_task(arguments.format, total=source.total, completed=replay.rows)

            def go_on(rows: int) -> bool:
                bar.update(task, completed=rows)
                return not stop.is_set()

            try:
                finished = replay.run(go_on)
            except SourceError as error:
                raise CommandError(str(error)) from None
        ledger = replay.ledger()
        text = describe(ledger, replay.deployment.processor)
    summary = orjson.dumps(ledger.as_json(), option=orjson.OPT_INDENT_2)
    if arguments.summary_json is not None:
        arguments.summary_json.write_bytes(summary + b"\n")
    if arguments.json:
        print(summary.decode())
    else:
        plain_console().print(text)
    if not finished:
        console.print("interrupted; run the same command again to carry on")
        return 130
    return 0


@contextmanager
def _bar(console: Console, total: int | None) -> Iterator[Progress]:
    columns = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("rows")]
    timing = TimeElapsedColumn() if total is None else TimeRemainingColumn()
    with Progress(*columns, timing, console=console, disable=not console.is_terminal) as progress:
        yield progress
