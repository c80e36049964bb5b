"""What a part of the suite found: every repetition, medians with their spread, and the bars that they are held to."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Repetitions = list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Bar:
    """One row of the table of bars. It may hold several figures, each with a limit of its own; met where all are.

    Parameters: what is measured, the bar in words, the figures, their limits, and whether a figure must be at least its
    limit or at most. `note` says what a reader must know, such as that this run was too small to tell.
    """

    name: str
    words: str
    figures: Sequence[float]
    limits: Sequence[float]
    side: Literal["at least", "at most"]
    unit: str = ""
    note: str = ""

    @property
    def met(self) -> bool:
        """Whether every figure keeps its limit."""
        pairs = list(zip(self.figures, self.limits, strict=True))
        return all(f >= limit for f, limit in pairs) if self.side == "at least" else all(f <= b for f, b in pairs)

    def as_json(self) -> dict[str, Any]:
        """An entry under `bars`."""
        rounded = [round(figure, 4) for figure in self.figures]
        return {
            "name": self.name,
            "bar": self.words,
            "figure": rounded[0] if len(rounded) == 1 else rounded,
            "unit": self.unit,
            "met": self.met,
            **({"note": self.note} if self.note else {}),
        }


@dataclass(slots=True)
class Part:
    """What one part of the suite found."""

    name: str
    command: str
    """That repeats this part alone."""
    repetitions: dict[str, Repetitions]
    summary: dict[str, dict[str, float]]
    bars: list[Bar]
    ratios: dict[str, float] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """An entry under `parts`."""
        return {"command": self.command, "summary": self.summary, "repetitions": self.repetitions}


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, least, most and number of repetitions."""
    return {
        "median": round(statistics.median(values), 6),
        "low": round(min(values), 6),
        "high": round(max(values), 6),
        "repetitions": len(values),
    }


def quantile(values: Sequence[float], q: float) -> float:
    """The smallest value that a share `q` of them does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, -int(-q * len(ordered) // 1) - 1))]
