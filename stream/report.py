"""What a marketer reads: each segment's name, size and profile, and what moved."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from schemas.model import SegmentProfile
from stream.features.spec import AnyFeature
from stream.ledger import Ledger
from stream.segments.assign import BUILT_IN_NAMES, NONE
from stream.segments.processor import Processor

TRAITS = 3
"""Features that a segment's profile names."""
PLAIN_WIDTH = 150
NOTABLE_Z = 0.25
"""Nearer than this to the population's middle is nothing to tell."""


def describe(ledger: Ledger, processor: Processor) -> RenderableType:
    """The summary of a replay or demo."""
    return Group(*_lines(ledger, processor))


def _lines(ledger: Ledger, processor: Processor) -> Iterator[RenderableType]:
    rate = ledger.events_read / ledger.seconds if ledger.seconds > 0 else 0.0
    yield Text(
        f"{ledger.events_read:,} events read: {ledger.events_accepted:,} accepted, "
        f"{ledger.events_duplicate:,} duplicate, {ledger.events_dead_lettered:,} dead-lettered, "
        f"in {ledger.seconds:,.1f} s ({rate:,.0f} a second)"
    )
    yield Text(f"{ledger.users:,} users, {ledger.segments} learned segments, {ledger.anomalies:,} put into quarantine")
    yield segment_table(processor)
    causes = ", ".join(f"{n:,} {cause}" for cause, n in ledger.changes_by_cause.items() if n)
    yield Text(f"{ledger.changes:,} segment changes" + (f": {causes}" if causes else ""))
    yield Text(f"{ledger.campaign_actions:,} campaign actions")


def segment_table(processor: Processor) -> Table:
    """One row a segment, the largest first; then the built-in ones, and the rule segments as they are declared."""
    sizes: Counter[int] = Counter()
    for population in processor.populations.values():
        sizes.update(population.sizes())
    total = max(1, sum(sizes.values()))
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("segment")
    table.add_column("name")
    table.add_column("users", justify="right")
    table.add_column("share", justify="right")
    table.add_column("who they are")
    titles = {feature.name: feature for feature in processor.layout.features}
    profiles = {} if processor.model is None else processor.model.profile
    for segment, profile in sorted(profiles.items(), key=lambda item: (-sizes[item[0]], item[0])):
        users = sizes[segment]
        table.add_row(profile.id, profile.name, f"{users:,}", f"{users / total:.0%}", traits(profile, titles))
    for segment, name in (*BUILT_IN_NAMES.items(), (NONE, "Not assigned yet")):
        if users := sizes[segment]:
            table.add_row("", name, f"{users:,}", f"{users / total:.0%}", "")
    inside = sum(
        (population.rules.members() for population in processor.populations.values()), Counter[tuple[str, str]]()
    )
    for rule in processor.rules:
        users = inside[rule.id, rule.name]
        table.add_row(
            rule.id, rule.name, f"{users:,}", f"{users / total:.0%}", rule.title or " ".join(rule.when.split())
        )
    return table


def traits(profile: SegmentProfile, features: dict[str, AnyFeature]) -> str:
    """The features in which a segment differs most from everybody, with its typical value."""
    told = []
    for name, z in sorted(profile.z.items(), key=lambda item: -abs(item[1]))[:TRAITS]:
        if abs(z) < NOTABLE_Z:
            break
        feature = features.get(name)
        title = (feature.title if feature and feature.title else name).lower()
        mean = profile.means.get(name)
        value = "" if mean is None else f" ({quantity(mean, feature)})"
        told.append(f"{'high' if z > 0 else 'low'} {title}{value}")
    return ", ".join(told) or "like everybody"


def quantity(value: float | None, feature: AnyFeature | None) -> str:
    """A feature's value as a person writes it: 25%, 72.5 s, 1,240."""
    if value is None:
        return "-"
    unit = feature.unit if feature else ""
    if unit == "share":
        return f"{value:.0%}" if abs(value) >= 0.1 else f"{value:.1%}"
    number = f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return f"{number} {unit}" if unit not in ("", "money") else number


def plain_console() -> Console:
    """For standard output: as wide as the terminal, or wide enough to read where it goes to a file."""
    console = Console()
    return console if console.is_terminal else Console(width=PLAIN_WIDTH)
