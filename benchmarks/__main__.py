"""The suite: every bar of docs/performance.md in one run. `python -m benchmarks [--quick] [--parts NAME,...]`.

Writes a Markdown table to standard output and everything to benchmarks/results/latest.json (not where only some parts
were chosen). Quick is for a look at whether the suite works: too few events for its figures to be quoted.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks import backfill, contests, latency, memory, startup, sweep, users, workers
from benchmarks.arena import Arena
from benchmarks.figures import Part
from benchmarks.machine import commit, machine, versions
from benchmarks.report import table, write

RESULTS = Path(__file__).with_name("results") / "latest.json"


@dataclass(frozen=True, slots=True)
class Size:
    """How much of everything."""

    events: int
    users: int
    turns: int
    """Of the contests; the other parts take three, or as few as the contests."""
    crowd: int
    """Users where a million is meant."""
    loaded: int
    """Users where ten million are meant."""
    backfill: int
    seconds: float
    """Of live load that counts."""
    sweeps: str
    """How often it is swept under live load."""

    @property
    def rounds(self) -> int:
        """Repetitions of what takes long."""
        return min(self.turns, 3)


FULL = Size(1_000_000, 20_000, 5, users.MANY, memory.FULL, backfill.FULL, 40.0, "5s")
QUICK = Size(30_000, 4_000, 1, 50_000, 100_000, 50_000, 6.0, "1s")

PARTS: dict[str, Callable[[Arena, Size], Part]] = {
    # First: what it compares is how a small and a large table fit into caches and memory that the other parts fill.
    "users": lambda arena, size: users.run(arena, size.crowd, size.events // 4, size.turns),
    "contests": lambda arena, size: contests.run(arena, size.events, size.turns),
    "workers": lambda arena, size: workers.run(arena, size.events, size.rounds),
    "memory": lambda arena, size: memory.run(size.loaded),
    "latency": lambda arena, size: latency.run(arena, size.events, size.seconds, size.rounds),
    "sweep": lambda arena, size: sweep.run(arena, size.crowd, size.events, size.rounds, size.seconds, size.sweeps),
    "backfill": lambda arena, size: backfill.run(arena, size.backfill),
    "startup": lambda arena, size: startup.run(arena, size.turns),
}


def main() -> None:
    """Run the parts one after the other."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--parts", type=_parts, default=list(PARTS), metavar="NAME,...", help=", ".join(PARTS))
    chosen = parser.parse_args()
    size = QUICK if chosen.quick else FULL
    began, head = time.time(), {"machine": machine(), "versions": versions(), "commit": commit()}
    found: list[Part] = []

    def document(seed: int) -> dict[str, Any]:
        return {
            "command": "make bench-quick" if chosen.quick else "make bench",
            "began": datetime.fromtimestamp(began, UTC).isoformat(timespec="seconds"),
            "seconds": round(time.time() - began),
            "quick": chosen.quick,
            "complete": len(found) == len(PARTS),
            **head,
            "seeds": {"events": seed, "crowd": 1, "shop": 1},
            "size": {name: getattr(size, name) for name in Size.__slots__},
            "ratios": {name: round(ratio, 3) for part in found for name, ratio in part.ratios.items()},
            "bars": [bar.as_json() for part in found for bar in part.bars],
            "parts": {part.name: part.as_json() for part in found},
        }

    with Arena(size.events, size.users) as arena:
        for name in chosen.parts:
            started = time.time()
            found.append(PARTS[name](arena, size))
            print(f"{name}: {time.time() - started:.0f} s", file=sys.stderr, flush=True)
            if len(chosen.parts) == len(PARTS):  # after each part: a run that was broken off is not lost
                write(RESULTS, document(arena.seed))
    print(table(document(arena.seed)))


def _parts(text: str) -> list[str]:
    names = text.split(",")
    if unknown := set(names) - set(PARTS):
        raise argparse.ArgumentTypeError(f"{', '.join(sorted(unknown))} is none of {', '.join(PARTS)}")
    return [name for name in PARTS if name in names]


if __name__ == "__main__":
    main()
