"""The pictures of the report: each takes what a result holds and returns SVG.

A segment has one colour in all of them. Whatever is coloured is also written, or has a tool tip.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

import numpy as np
from numpy.typing import NDArray

from stream.backtest.backtest import Checkpoint
from stream.backtest.reliability import Curve
from stream.backtest.svg import (
    INK,
    MUTED,
    Scale,
    area,
    dot,
    line,
    mix,
    path,
    picture,
    rect,
    shortened,
    spread_out,
    text,
    ticks,
)
from stream.segments.assign import NEWCOMER, NONE, QUARANTINE

WIDTH: Final = 1040
PALETTE: Final = (
    "#2f6fb0",
    "#e08a2c",
    "#3f9a72",
    "#b5527e",
    "#7a6bb5",
    "#c9a227",
    "#4aa5b8",
    "#a0522d",
    "#6b8e23",
    "#c85a54",
    "#5d6d7e",
    "#9370ab",
)
BUILT_IN: Final = {NEWCOMER: "#cfd6dd", QUARANTINE: "#4a4a4a", NONE: "#eceff2"}
METHOD_COLOURS: Final = {
    "resegment": "#d1432b",
    "oracle": "#2f6fb0",
    "rfm8": "#8a9a5b",
    "rfm25": "#bfae6a",
    "naive": "#a9a3b8",
}
CAUSE_COLOURS: Final = {
    "entered": "#cfd6dd",
    "behaviour": "#3f9a72",
    "inactivity": "#e08a2c",
    "model": "#2f6fb0",
    "anomaly": "#4a4a4a",
}
WARM, COLD, WHITE = "#c8502d", "#2f6fb0", "#ffffff"
DAY_MS: Final = 86_400_000


def colours(segments: Sequence[int]) -> dict[int, str]:
    """Of each segment number: by its place among those that ever were."""
    learned = [segment for segment in sorted(segments) if segment > NONE]
    return {**BUILT_IN, **{segment: PALETTE[i % len(PALETTE)] for i, segment in enumerate(learned)}}


def sizes(checkpoints: Sequence[Checkpoint], names: Mapping[int, str], colour: Mapping[int, str]) -> str:
    """Shares of all users over time, stacked, named at the right edge; births and deaths marked above."""
    height, left, right, top, bottom = 380.0, 44.0, 272.0, 34.0, 30.0
    times = [one.at_ms for one in checkpoints]
    x, y = Scale(times[0], times[-1], left, WIDTH - right), Scale(0, 1, height - bottom, top)
    order = sorted({segment for one in checkpoints for segment in one.sizes}, key=lambda s: (s <= NONE, abs(s)))
    if len(times) == 1:
        x = Scale(times[0], times[0] + 1, left, WIDTH - right)
    parts: list[str] = []
    base = [0.0] * len(checkpoints)
    labels: list[tuple[float, int, float]] = []
    for segment in order:
        share = [one.sizes.get(segment, 0) / one.users if one.users else 0.0 for one in checkpoints]
        above = [b + s for b, s in zip(base, share, strict=True)]
        lower = [(x(t), y(b)) for t, b in zip(times, base, strict=True)]
        upper = [(x(t), y(a)) for t, a in zip(times, above, strict=True)]
        if len(times) == 1:
            lower, upper = [*lower, (WIDTH - right, lower[0][1])], [*upper, (WIDTH - right, upper[0][1])]
        tip = f"{names[segment]}: {share[0]:.0%} at first, {share[-1]:.0%} at last"
        parts.append(area([*upper, *lower[::-1]], fill=colour[segment], tip=tip))
        if share[-1] > 0:
            labels.append((y((base[-1] + above[-1]) / 2), segment, share[-1]))
        base = above
    labels.sort()
    places = spread_out([label[0] for label in labels], 17, top + 4, height - bottom - 4)
    for (middle, segment, share_now), place in zip(labels, places, strict=True):
        edge = WIDTH - right
        parts.append(path([(edge + 2, middle), (edge + 10, place), (edge + 16, place)], stroke=MUTED, width=0.8))
        parts.append(rect(edge + 19, place - 5, 10, 10, fill=colour[segment], radius=2))
        parts.append(text(edge + 34, place, f"{share_now:4.0%}  {shortened(names[segment], 28)}", size=12))
    quarters = (0, 0.25, 0.5, 0.75, 1)
    parts += [text(left - 8, y(share), f"{share:.0%}", anchor="end", size=11, fill=MUTED) for share in quarters]
    parts += _dates(times, x, height - bottom + 14)
    for one in checkpoints:
        events = [event for event in one.lineage if event.kind != "merged"]
        if events:
            told = ", ".join(f"{event.segment} {event.kind} (version {event.version})" for event in events)
            parts.append(dot((x(one.at_ms), top - 12), 3 + min(4, len(events)), fill=MUTED, tip=told))
    parts.append(
        text(
            left,
            8,
            "dots: segments were born, split or died since the checkpoint before (point at one)",
            size=10.5,
            fill=MUTED,
        )
    )
    return picture(WIDTH, height, "Segment sizes over time", parts)


def series(
    title: str, times: Sequence[int], values: Mapping[str, Sequence[float | None]], *, width: float = 330
) -> str:
    """One measure of each method over the checkpoints."""
    height, left, right, top, bottom = 200.0, 42.0, 20.0, 30.0, 24.0
    known = [value for one in values.values() for value in one if value is not None]
    low, high = min(0.0, *known), max(known)
    x, y = Scale(times[0], times[-1], left, width - right), Scale(low, high or 1.0, height - bottom, top)
    parts = [text(left, 12, title, size=13, weight=600)]
    for value in ticks(low, high or 1.0, 4):
        parts.append(line((left, y(value)), (width - right, y(value))))
        parts.append(text(left - 6, y(value), f"{value:g}", anchor="end", size=10.5, fill=MUTED))
    # Ours last, so that it lies on top.
    for name in reversed(list(values)):
        points = [(x(t), y(v)) for t, v in zip(times, values[name], strict=True) if v is not None]
        ours = name == "resegment"
        parts.append(
            path(
                points, stroke=METHOD_COLOURS[name], width=2.6 if ours else 1.5, dash="4 3" if name == "oracle" else ""
            )
        )
        parts += [
            dot((x(t), y(v)), 3.2 if ours else 2.2, fill=METHOD_COLOURS[name], tip=f"{name} {_day(t)}: {v:.3f}")
            for t, v in zip(times, values[name], strict=True)
            if v is not None
        ]
    parts += _dates(times, x, height - bottom + 13, most=3)
    return picture(width, height, title, parts)


def profiles(checkpoint: Checkpoint, titles: Mapping[str, str], colour: Mapping[int, str]) -> str:
    """Segments by features: how far each segment's people are from everybody, in robust standard deviations."""
    told = sorted(checkpoint.profiles, key=lambda profile: -profile.size)
    features = [name for name in told[0].z if any(abs(profile.z[name]) > 0 for profile in told)]
    left, top, cell_h = 258.0, 140.0, 34.0
    cell_w = min(60.0, (WIDTH - left - 100) / max(1, len(features)))
    parts: list[str] = []
    for j, name in enumerate(features):
        parts.append(
            text(left + (j + 0.5) * cell_w + 3, top - 10, shortened(titles.get(name, name), 28), size=11.5, rotate=-48)
        )
    for i, profile in enumerate(told):
        middle = top + (i + 0.5) * cell_h
        parts.append(rect(0, middle - 6, 12, 12, fill=colour[int(profile.id.partition("-")[2])], radius=2))
        parts.append(text(18, middle - 7, shortened(profile.name, 32), size=12.5, weight=600))
        parts.append(text(18, middle + 8, f"{profile.id}, {profile.size:.0%} of people", size=10.5, fill=MUTED))
        for j, name in enumerate(features):
            z = profile.z[name]
            fill = mix(WHITE, WARM if z > 0 else COLD, min(1.0, abs(z) / 2.0) ** 0.8)
            mean = profile.means.get(name)
            tip = (
                f"{profile.name}: {titles.get(name, name)} {'unknown' if mean is None else f'{mean:,.4g}'}, z {z:+.2f}"
            )
            parts.append(
                rect(left + j * cell_w + 1, top + i * cell_h + 1, cell_w - 2, cell_h - 2, fill=fill, tip=tip, radius=2)
            )
            parts.append(
                text(
                    left + (j + 0.5) * cell_w,
                    middle,
                    f"{z:+.1f}",
                    anchor="middle",
                    size=11,
                    fill=WHITE if abs(z) > 1.2 else INK,
                )
            )
    return picture(WIDTH, top + len(told) * cell_h + 6, "Profiles of the segments", parts)


def matrix(
    rows: Sequence[str],
    columns: Sequence[str],
    counts: NDArray[np.int64],
    *,
    row_colours: Sequence[str],
    title: str,
    same: bool,
) -> str:
    """Counts by row and column, as shares of each row; with `same`, what stays where it is lies on the diagonal."""
    left, top, cell_h = 258.0, 120.0, 30.0
    cell_w = min(92.0, (WIDTH - left - 120) / max(1, len(columns)))
    parts: list[str] = []
    totals = counts.sum(axis=1)
    for j, name in enumerate(columns):
        parts.append(text(left + (j + 0.5) * cell_w + 2, top - 10, shortened(name, 24), size=11.5, rotate=-38))
    parts.append(text(left + len(columns) * cell_w + 52, top - 10, "people", size=10.5, fill=MUTED, anchor="end"))
    for i, name in enumerate(rows):
        middle = top + (i + 0.5) * cell_h
        parts.append(rect(0, middle - 6, 12, 12, fill=row_colours[i], radius=2))
        parts.append(text(18, middle, shortened(name, 34), size=12.5))
        for j in range(len(columns)):
            share = float(counts[i, j] / totals[i]) if totals[i] else 0.0
            stays = same and i == j
            fill = mix(WHITE, "#8b98a5" if stays else WARM, share**0.6 * (0.55 if stays else 0.95))
            tip = (
                f"{name} → {columns[j]}: {counts[i, j]:,} ({share:.1%})"
                if same
                else f"{name}, {columns[j]}: {counts[i, j]:,}"
            )
            parts.append(
                rect(left + j * cell_w + 1, top + i * cell_h + 1, cell_w - 2, cell_h - 2, fill=fill, tip=tip, radius=2)
            )
            if counts[i, j]:
                shown = f"{share:.0%}" if share >= 0.005 else "<1%"
                parts.append(
                    text(
                        left + (j + 0.5) * cell_w,
                        middle,
                        shown,
                        anchor="middle",
                        size=11,
                        fill=INK if share >= 0.02 else MUTED,
                    )
                )
        parts.append(
            text(left + len(columns) * cell_w + 52, middle, f"{totals[i]:,}", anchor="end", size=11, fill=MUTED)
        )
    return picture(WIDTH, top + len(rows) * cell_h + 6, title, parts)


def churn(checkpoints: Sequence[Checkpoint], causes: Sequence[Mapping[str, int]]) -> str:
    """Changes by cause since the last checkpoint, for each 100 people who were judged."""
    height, left, right, top, bottom = 240.0, 44.0, 150.0, 16.0, 28.0
    heights = [
        {cause: 100 * n / max(1, one.judged) for cause, n in by.items()}
        for one, by in zip(checkpoints, causes, strict=True)
    ]
    most = max((sum(column.values()) for column in heights), default=1.0) or 1.0
    y = Scale(0, most, height - bottom, top)
    wide = (WIDTH - left - right) / len(checkpoints)
    parts: list[str] = []
    for value in ticks(0, most, 4):
        parts.append(line((left, y(value)), (WIDTH - right, y(value))))
        parts.append(text(left - 6, y(value), f"{value:g}", anchor="end", size=10.5, fill=MUTED))
    for i, (one, column) in enumerate(zip(checkpoints, heights, strict=True)):
        base = 0.0
        for cause, value in column.items():
            tip = f"{_day(one.at_ms)}: {causes[i][cause]:,} by {cause}"
            parts.append(
                rect(
                    left + (i + 0.15) * wide,
                    y(base + value),
                    0.7 * wide,
                    y(base) - y(base + value),
                    fill=CAUSE_COLOURS[cause],
                    tip=tip,
                )
            )
            base += value
        if len(checkpoints) <= 14 or i % (len(checkpoints) // 12 + 1) == 0:
            parts.append(
                text(
                    left + (i + 0.5) * wide,
                    height - bottom + 14,
                    _day(one.at_ms),
                    anchor="middle",
                    size=10.5,
                    fill=MUTED,
                )
            )
    for i, cause in enumerate(causes[0]):
        parts.append(rect(WIDTH - right + 18, top + 4 + i * 20, 11, 11, fill=CAUSE_COLOURS[cause], radius=2))
        parts.append(text(WIDTH - right + 35, top + 10 + i * 20, cause, size=12))
    return picture(WIDTH, height, "Changes by cause", parts)


def reliability(curves: Mapping[str, Curve]) -> str:
    """Confidence against what came of it; on the diagonal it keeps its word. Dots are as large as their bins."""
    width, height, left, right, top, bottom = 520.0, 340.0, 52.0, 20.0, 18.0, 44.0
    x, y = Scale(0, 1, left, width - right), Scale(0, 1, height - bottom, top)
    parts = [line((x(0), y(0)), (x(1), y(1)), stroke="#9aa5b1", dash="4 4")]
    for value in (0, 0.25, 0.5, 0.75, 1):
        parts.append(line((left, y(value)), (width - right, y(value))))
        parts.append(text(left - 6, y(value), f"{value:.0%}", anchor="end", size=10.5, fill=MUTED))
        parts.append(text(x(value), height - bottom + 14, f"{value:.0%}", anchor="middle", size=10.5, fill=MUTED))
    parts.append(text(x(0.5), height - 10, "confidence as published", anchor="middle", size=11.5, fill=MUTED))
    for (name, curve), stroke in zip(
        curves.items(), (METHOD_COLOURS["resegment"], METHOD_COLOURS["oracle"]), strict=False
    ):
        most = max(curve.count, default=1)
        points = [(x(c), y(s)) for c, s in zip(curve.confidence, curve.share, strict=True)]
        parts.append(path(points, stroke=stroke, width=1.6))
        for point, c, s, n in zip(points, curve.confidence, curve.share, curve.count, strict=True):
            parts.append(
                dot(point, 3 + 7 * (n / most) ** 0.5, fill=stroke, tip=f"{name}: confidence {c:.2f}, {s:.0%} of {n:,}")
            )
    for i, (name, stroke) in enumerate(
        zip(curves, (METHOD_COLOURS["resegment"], METHOD_COLOURS["oracle"]), strict=False)
    ):
        parts.append(rect(left + 12, top + 6 + i * 20, 11, 11, fill=stroke, radius=2))
        parts.append(text(left + 29, top + 12 + i * 20, name, size=12))
    return picture(width, height, "Reliability of the confidence", parts)


def _day(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%d %b").lstrip("0")


def _dates(times: Sequence[int], x: Scale, y: float, most: int = 8) -> list[str]:
    """Labels under a time axis: some of the times, in short."""
    span = times[-1] - times[0]
    pattern = "%H:%M" if span < 2 * DAY_MS else "%d %b" if span < 300 * DAY_MS else "%b %Y"
    chosen = sorted({round(i * (len(times) - 1) / (most - 1)) for i in range(most)}) if len(times) > 1 else [0]
    return [
        text(
            x(times[i]),
            y,
            datetime.fromtimestamp(times[i] / 1000, UTC).strftime(pattern).lstrip("0"),
            anchor="middle",
            size=10.5,
            fill=MUTED,
        )
        for i in chosen
    ]
