"""`resegment demo`: a synthetic shop through all stages, with a live view and a summary at the end."""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path

import orjson
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.text import Text

from producers.shop import Shop, ShopSettings
from schemas import topics
from stream.campaigns.file import parse_campaigns
from stream.commands.common import CommandError, positive
from stream.config import load
from stream.replay import SOURCE_FILE, Replay
from stream.report import describe, plain_console, segment_table
from stream.runtime.health_server import HealthServer, HealthServerError
from stream.runtime.signals import stop_on_signals
from stream.transport.base import TopicPartition

LONGEST_SECONDS = 100.0
"""The demo ends within two minutes, however slow the machine."""
PLAIN_SECONDS = 3.0
"""Between two lines where there is no terminal."""
LATEST = 8

CAMPAIGNS = b"""
campaigns:
  - name: welcome
    when: {enter: newcomer}
    cap: {at_most: 1, per: 365d}
    action: {log: {path: campaigns/welcome.jsonl}}
  - name: win-back
    when: {transition: {from: not newcomer, to: "*"}}
    causes: [inactivity]
    cap: {at_most: 1, per: 30d}
    action: {log: {path: campaigns/win-back.jsonl}}
  - name: thank-you
    when: {enter: ["*big spenders*", "*high-spending*", "*premium*", "*frequent buyers*"]}
    causes: [behaviour]
    cap: {at_most: 1, per: 90d}
    action: {log: {path: campaigns/thank-you.jsonl}}
"""


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "demo",
        help="a synthetic shop through all stages, live",
        description="Simulate two months of a shop and show what happens, live: segments, changes, campaigns. Ends by "
        "itself within two minutes. Afterwards look around: resegment segments --data-dir DIR.",
    )
    parser.add_argument("--users", type=positive, default=1_500, metavar="N", help="default: 1500")
    parser.add_argument("--days", type=positive, default=60, metavar="N", help="simulated days (default: 60)")
    parser.add_argument("--seed", type=int, default=1, metavar="N")
    parser.add_argument(
        "--seconds", type=float, default=45.0, help="how long it should take (default: 45; 0: no pause)"
    )
    parser.add_argument("--data-dir", type=Path, default=Path("data/demo"), metavar="DIR", help="default: data/demo")
    parser.add_argument("--port", type=int, default=9464, help="of /metrics, /healthz, /readyz (0: a free one)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the demo; exit code 0 also where it was interrupted."""
    _clear(arguments.data_dir)
    config = load(
        None,
        {
            "transport.kind": "embedded",
            "transport.data_dir": arguments.data_dir,
            "transport.embedded.synchronous": "normal",
            "runner.batch_records": 2_000,
        },
    )
    shop = Shop(ShopSettings(users=arguments.users, days=arguments.days, seed=arguments.seed))
    console = plain_console()
    with stop_on_signals() as stop, Replay(config, shop, campaigns=parse_campaigns(CAMPAIGNS, "the demo")) as replay:
        with _server(replay, arguments.port, console) as url:
            view = _View(replay, shop.settings, arguments.seconds, url)
            console.print(
                f"A shop with {arguments.users:,} users, {arguments.days} days of their behaviour, all stages in one "
                f"process. Metrics: {url or 'off'}",
                highlight=False,
            )
            live = Live(view, console=console, refresh_per_second=4) if console.is_terminal else nullcontext()
            with live:
                finished = replay.run(lambda rows: view.advance(console) and not stop.is_set())
        if not finished:
            console.print(
                "interrupted; this is how far it came:" if stop.is_set() else "time is up; this is how far it came:"
            )
        console.print()
        console.print(describe(replay.ledger(), replay.deployment.processor))
        console.print(view.campaigns_line(), highlight=False)
    program, where = _program(), f"--data-dir {arguments.data_dir}"
    console.print(
        f"\nLook around:  {program} segments {where}\n"
        f"              {program} explain {view.somebody or 'USER'} {where}\n"
        f"              {program} tail segment-changes {where}",
        highlight=False,
    )
    return 0


def _program() -> str:
    """How the person who started this can start it again: by its path, unless it is on PATH."""
    path = Path(sys.argv[0])
    if shutil.which(path.name) or path.suffix:
        return "resegment"
    return str(path.relative_to(Path.cwd())) if path.is_absolute() and path.is_relative_to(Path.cwd()) else str(path)


def _clear(directory: Path) -> None:
    """Start anew, but delete nothing that a demo or replay has not made."""
    if not directory.exists() or not any(directory.iterdir()):
        return
    if not (directory / SOURCE_FILE).exists():
        raise CommandError(f"{directory} holds something else than a demo; choose another --data-dir")
    shutil.rmtree(directory)


@contextmanager
def _server(replay: Replay, port: int, console: Console) -> Iterator[str]:
    """Metrics for whoever wants to look; a port that is taken is no reason not to show the demo."""
    server = HealthServer("127.0.0.1", port, replay.deployment.metrics, replay.deployment.health)
    try:
        server.start()
    except HealthServerError as error:
        console.print(f"no metrics: {error}", highlight=False)
        yield ""
        return
    try:
        yield f"{server.url}/metrics"
    finally:
        server.stop()


class _View:
    """What the terminal shows, and the pace at which the shop's time passes."""

    def __init__(self, replay: Replay, settings: ShopSettings, seconds: float, url: str) -> None:
        self.somebody = ""
        self._replay = replay
        self._settings = settings
        self._seconds = seconds
        self._url = url
        self._began = time.monotonic()
        self._told = self._began
        self._ends: Counter[str] = Counter()
        self._latest: deque[str] = deque(maxlen=LATEST)
        self._actions: Counter[str] = Counter()

    def advance(self, console: Console) -> bool:
        """After a step: take in what is new, keep the pace; False when the time is up."""
        self._take_in()
        elapsed = time.monotonic() - self._began
        if not console.is_terminal and time.monotonic() - self._told >= PLAIN_SECONDS:
            self._told = time.monotonic()
            console.print(self._headline(), highlight=False, soft_wrap=True)
        ahead = self._share() * self._seconds - elapsed
        if ahead > 0:
            time.sleep(min(ahead, 1.0))
        return elapsed < LONGEST_SECONDS

    def __rich__(self) -> RenderableType:
        share = self._share()
        changes = Text("\n".join(self._latest) or "none yet", overflow="ellipsis", no_wrap=True)
        return Group(
            Text(self._headline()),
            Padding(ProgressBar(total=1.0, completed=share), (0, 0)),
            Panel(segment_table(self._replay.deployment.processor), title="segments", title_align="left"),
            Panel(changes, title="latest changes", title_align="left"),
            Text(self.campaigns_line()),
        )

    def campaigns_line(self) -> str:
        """Campaigns fired so far."""
        fired = ", ".join(f"{name} {count:,}" for name, count in sorted(self._actions.items()))
        return f"campaigns fired: {fired or 'none yet'}"

    def _headline(self) -> str:
        elapsed = max(1e-9, time.monotonic() - self._began)
        rows, processor = self._replay.rows, self._replay.deployment.processor
        day = datetime.fromtimestamp(self._now() / 1000, UTC)
        users = sum(len(population) for population in processor.populations.values())
        version = processor.model.version if processor.model else 0
        return (
            f"{self._share():4.0%}  {day:%a %Y-%m-%d %H:%M}  {rows:,} events ({rows / elapsed:,.0f}/s)  "
            f"{users:,} users  model {version}  {sum(self._ends.values()) - sum(self._actions.values()):,} changes  "
            f"{sum(self._actions.values()):,} campaign actions"
        )

    def _now(self) -> int:
        populations = self._replay.deployment.processor.populations.values()
        return max((population.clock for population in populations), default=0) or self._settings.start_ms

    def _share(self) -> float:
        start, end = self._settings.start_ms, self._settings.end_ms
        return min(1.0, max(0.0, (self._now() - start) / (end - start)))

    def _take_in(self) -> None:
        for value in self._new(topics.SEGMENT_CHANGES):
            change = orjson.loads(value)
            if change["from"] is None or change["to"] is None:
                continue
            self.somebody = change["user_id"]
            day = datetime.fromtimestamp(change["occurred_at"] / 1000, UTC)
            self._latest.append(
                f"{day:%m-%d %H:%M}  {change['user_id']:<10} {change['cause']:<10} "
                f"{change['from']['name']} → {change['to']['name']}"
            )
        for value in self._new(topics.CAMPAIGN_ACTIONS):
            self._actions[orjson.loads(value)["campaign"]] += 1

    def _new(self, topic: str) -> Iterator[bytes]:
        where = TopicPartition(topic, 0)
        end = self._replay.transport.end_offset(where)
        if end > self._ends[topic]:
            for record in self._replay.transport.read(where, self._ends[topic], end):
                if record.value is not None:
                    yield record.value
            self._ends[topic] = end
