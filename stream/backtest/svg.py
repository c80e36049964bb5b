"""Pictures without a library: the few SVG elements that the report draws with, and linear scales.

Every text is escaped here, so that a segment's name can be anything.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

INK: Final = "#1f2933"
MUTED: Final = "#66727f"
GRID: Final = "#e4e8ec"

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Scale:
    """Maps [low, high] to the pixels [start, stop]; with low == high everything is in the middle."""

    low: float
    high: float
    start: float
    stop: float

    def __call__(self, value: float) -> float:
        """The pixel."""
        if self.high == self.low:
            return (self.start + self.stop) / 2
        return self.start + (value - self.low) / (self.high - self.low) * (self.stop - self.start)


def picture(width: float, height: float, title: str, parts: Iterable[str]) -> str:
    """The whole picture; `title` is for those who cannot see it."""
    return (
        f'<svg viewBox="0 0 {width:g} {height:g}" width="{width:g}" height="{height:g}" role="img" '
        f'aria-label="{escape(title)}" xmlns="http://www.w3.org/2000/svg">{"".join(parts)}</svg>'
    )


def text(
    x: float,
    y: float,
    content: str,
    *,
    anchor: str = "start",
    size: float = 12,
    fill: str = INK,
    weight: int = 400,
    rotate: float | None = None,
) -> str:
    """One line; `y` is the middle of it."""
    turned = "" if rotate is None else f' transform="rotate({rotate:g} {x:.1f} {y:.1f})"'
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" dominant-baseline="central" font-size="{size:g}" '
        f'fill="{fill}" font-weight="{weight}"{turned}>{escape(content)}</text>'
    )


def line(a: Point, b: Point, *, stroke: str = GRID, width: float = 1, dash: str = "") -> str:
    """From a to b."""
    dashed = f' stroke-dasharray="{dash}"' if dash else ""
    return (
        f'<line x1="{a[0]:.1f}" y1="{a[1]:.1f}" x2="{b[0]:.1f}" y2="{b[1]:.1f}" stroke="{stroke}" '
        f'stroke-width="{width:g}"{dashed}/>'
    )


def path(points: Sequence[Point], *, stroke: str, width: float = 2, dash: str = "") -> str:
    """A line through points."""
    if not points:
        return ""
    dashed = f' stroke-dasharray="{dash}"' if dash else ""
    return (
        f'<path d="M{_joined(points)}" fill="none" stroke="{stroke}" stroke-width="{width:g}" '
        f'stroke-linejoin="round" stroke-linecap="round"{dashed}/>'
    )


def area(points: Sequence[Point], *, fill: str, tip: str = "") -> str:
    """A filled shape."""
    return f'<path d="M{_joined(points)}Z" fill="{fill}" stroke="#fff" stroke-width="1">{_tip(tip)}</path>'


def rect(x: float, y: float, width: float, height: float, *, fill: str, tip: str = "", radius: float = 0) -> str:
    """A filled rectangle."""
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(0.0, width):.1f}" height="{max(0.0, height):.1f}" '
        f'rx="{radius:g}" fill="{fill}">{_tip(tip)}</rect>'
    )


def dot(at: Point, radius: float, *, fill: str, tip: str = "") -> str:
    """A circle with a thin white rim."""
    return (
        f'<circle cx="{at[0]:.1f}" cy="{at[1]:.1f}" r="{radius:.1f}" fill="{fill}" stroke="#fff" '
        f'stroke-width="1">{_tip(tip)}</circle>'
    )


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Round numbers from low to high: steps of 1, 2 or 5 times a power of ten, at most `most` + 1 of them."""
    if not high > low:
        return [low]
    raw = (high - low) / most
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    return [round(k * step, 12) for k in range(first, math.floor(high / step + 1e-9) + 1)]


def spread_out(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Places as near to the ascending `wanted` ones as they can be, at least `gap` apart, within low and high."""
    places = list(wanted)
    for i in range(len(places)):
        places[i] = max(places[i], low + i * gap, places[i - 1] + gap if i else low)
    for i in range(len(places) - 1, -1, -1):
        places[i] = min(places[i], high - (len(places) - 1 - i) * gap)
        if i + 1 < len(places):
            places[i] = min(places[i], places[i + 1] - gap)
    return places


def mix(colour: str, towards: str, share: float) -> str:
    """A colour `share` of the way to another one, both "#rrggbb"."""
    a, b = ([int(c[i : i + 2], 16) for i in (1, 3, 5)] for c in (colour, towards))
    return "#" + "".join(f"{round(x + (y - x) * min(1.0, max(0.0, share))):02x}" for x, y in zip(a, b, strict=True))


def shortened(content: str, most: int) -> str:
    """At most so many characters, with an ellipsis where some were cut."""
    return content if len(content) <= most else content[: most - 1].rstrip() + "…"


def _joined(points: Sequence[Point]) -> str:
    return "L".join(f"{x:.1f} {y:.1f}" for x, y in points)


def _tip(content: str) -> str:
    return f"<title>{escape(content)}</title>" if content else ""
