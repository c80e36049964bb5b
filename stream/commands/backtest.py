"""`resegment backtest`: history through the live code, and what the segments would have been worth."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import orjson
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from producers.source import SourceError
from stream.backtest.backtest import METHODS, Backtest, BacktestInterruptedError, Result
from stream.backtest.backtest import Progress as HowFar
from stream.backtest.definitions import TITLES, best_of, headline
from stream.backtest.document import document, iso
from stream.backtest.history import History, scan
from stream.backtest.page import page
from stream.backtest.plan import Plan, PlanError, make_plan
from stream.backtest.subject import FORMATS, SHOP, Subject, open_subject
from stream.commands.common import CommandError, positive
from stream.config import Config, load
from stream.durations import format_duration, parse_duration
from stream.runtime.signals import stop_on_signals


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "backtest",
        help="what the segments would have been worth, on your history",
        description="Replay a data set through the live stages, halt at checkpoints, and judge the segments there by "
        "what people did next, beside k-means refitted each time, RFM cells and a naive learner on the same features.",
    )
    parser.add_argument(
        "file", metavar="FILE", help="the data set, plain or gzip; for --format shop: shop:users=2000,days=45,seed=3"
    )
    parser.add_argument("--format", required=True, choices=sorted(FORMATS), help="what the file is")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write everything there, as JSON")
    parser.add_argument("--html", type=Path, metavar="OUT", help="write a page with pictures there")
    parser.add_argument(
        "--data-dir", type=Path, metavar="DIR", help="keep topics and state in this empty directory (default: none)"
    )
    when = parser.add_mutually_exclusive_group()
    when.add_argument("--checkpoints", type=positive, metavar="N", help="how many, evenly (default: 12)")
    when.add_argument("--every", type=duration, metavar="DUR", help="or one so often, such as 7d")
    parser.add_argument(
        "--horizon",
        type=duration,
        metavar="DUR",
        help="how far the next period reaches (default: 30d; of short data two ninths)",
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="TOML file (default: RESEGMENT_CONFIG)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Carry the command out; exit code 0, or 130 where it was interrupted."""
    for out in (arguments.json, arguments.html):
        _writable(out)
    console = Console(stderr=True)
    try:
        subject = open_subject(arguments.format, arguments.file)
        with _directory(arguments.data_dir) as directory, stop_on_signals() as stop, _bar(console) as bar:
            config = load(
                arguments.config,
                {
                    "transport.kind": "embedded",
                    "transport.data_dir": directory,
                    "transport.embedded.synchronous": "normal",
                },
            )
            history, plan = _prepare(arguments, config, subject, bar)
            task = bar.add_task("replay", total=plan.times[-1] - plan.start)

            def tell(far: HowFar) -> bool:
                bar.update(
                    task,
                    completed=far.at_ms - plan.start,
                    description=f"replay  {iso(far.at_ms)[:10]}  checkpoint {far.passed}/{len(plan.times)}",
                )
                return not stop.is_set()

            result = Backtest(config, subject.source, history, plan, subject.truth).run(tell)
    except (SourceError, PlanError) as error:
        raise CommandError(str(error)) from None
    except BacktestInterruptedError:
        console.print("interrupted; nothing was written")
        return 130
    source = {"file": arguments.file, "format": arguments.format, "fingerprint": subject.source.fingerprint}
    found = document(result, source, config.modeller.learner.segments)
    if arguments.json is not None:
        arguments.json.write_bytes(orjson.dumps(found, option=orjson.OPT_INDENT_2) + b"\n")
    if arguments.html is not None:
        titles = {feature.name: feature.title for feature in config.features}
        arguments.html.write_text(page(result, found, titles), encoding="utf-8")
    _print(result)
    return 0


def duration(text: str) -> int:
    """An argparse type: milliseconds of "7d", above 0."""
    try:
        if (parsed := parse_duration(text)) > 0:
            return parsed
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"{text!r} is no duration; write a number and a unit, such as 7d or 12h")


def _prepare(arguments: argparse.Namespace, config: Config, subject: Subject, bar: Progress) -> tuple[History, Plan]:
    """Read the data once, and decide when to look."""
    rows = None if arguments.format == SHOP else subject.source.total
    task = bar.add_task("read", total=rows)
    try:
        history = scan(subject.source, config.ingest, lambda count: bar.update(task, completed=count))
    except ValueError as error:
        raise CommandError(f"{arguments.file}: {error}") from None
    bar.update(task, total=history.rows, completed=history.rows)
    plan = make_plan(
        history.start, history.end, count=arguments.checkpoints, every=arguments.every, horizon=arguments.horizon
    )
    return history, plan


def _writable(out: Path | None) -> None:
    """Say now, and not after the replay, that a report cannot be written."""
    if out is None:
        return
    if out.is_dir() or not out.parent.is_dir():
        raise CommandError(f"{out}: cannot be written: {'it is a directory' if out.is_dir() else 'no such directory'}")


@contextmanager
def _directory(chosen: Path | None) -> Iterator[Path]:
    if chosen is not None:
        if chosen.exists() and (not chosen.is_dir() or any(chosen.iterdir())):
            raise CommandError(f"{chosen}: a backtest begins anew; give --data-dir an empty directory, or leave it out")
        yield chosen
        return
    with tempfile.TemporaryDirectory(prefix="resegment-backtest-") as temporary:
        yield Path(temporary) / "data"


@contextmanager
def _bar(console: Console) -> Iterator[Progress]:
    columns = [TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn()]
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        yield progress


def _print(result: Result) -> None:
    """The comparison, for a terminal."""
    plan, history = result.plan, result.history
    console = Console()
    console.print(
        f"{history.rows:,} rows, {len(history.users):,} users, {iso(plan.start)[:10]} to {iso(plan.end)[:10]}; "
        f"{len(plan.times)} checkpoints, the next {format_duration(plan.horizon)} after each",
        highlight=False,
        soft_wrap=True,
    )
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("")
    for name in METHODS:
        table.add_column(name, justify="right")
    for measure, title in TITLES.items():
        values = [headline(result.overall[name], measure) for name in METHODS]
        best = best_of(values, measure)
        cells = [
            "–" if v is None else f"[bold]{v:.3f}[/bold]" if i in best else f"{v:.3f}" for i, v in enumerate(values)
        ]
        table.add_row(title, *cells)
    console.print(table)
    if result.verdict is None:
        return
    following, oracle = result.verdict.following, result.verdict.oracle
    if (share := following.missed_share) is not None:
        console.print(
            f"of {following.followed + following.missed:,} true moves that could be seen, {share:.1%} were missed; the "
            f"others took {following.delay_looks or 0:.0f} looks ({following.delay_days or 0:.1f} days) at the median"
            + ("" if oracle.missed_share is None else f" (the oracle missed {oracle.missed_share:.1%} of its)"),
            highlight=False,
            soft_wrap=True,
        )
