"""`python -m benchmarks.quality [vectors] [shop] [forest] [histories]`: measure, and print the table as Markdown."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Final, ParamSpec, TypeVar

import orjson

from benchmarks.quality import bars, forest, histories, shops, vectors
from benchmarks.quality.bars import Bar
from benchmarks.quality.world import SCENARIOS

P = ParamSpec("P")
T = TypeVar("T")
PARTS: Final = ("vectors", "shop", "forest", "histories")


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 1 where a bar is missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)} (default: all)")
    parser.add_argument("--seeds", type=int, default=10, metavar="N", help="worlds and shops a scenario (default: 10)")
    parser.add_argument("--scenarios", nargs="+", choices=SCENARIOS, default=list(SCENARIOS), help="default: all")
    parser.add_argument("--users", type=int, default=2_000, metavar="N", help="of a shop (default: 2000)")
    parser.add_argument("--days", type=int, default=45, metavar="N", help="of a shop (default: 45)")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write the table there too, with every seed's figure")
    chosen = parser.parse_args(arguments)
    if strangers := sorted(set(chosen.parts) - set(PARTS)):
        parser.error(f"unknown part {', '.join(strangers)}; known are {', '.join(PARTS)}")
    found: list[Bar] = []
    print("| what | bar | measured | met |\n|---|---|---|---|")
    for bar in _measure(chosen):
        found.append(bar)
        met = {True: "yes", False: "**no**", None: ""}[bar.met]
        print(f"| {bar.what} | {bar.target} | {bar.figure} | {met} |", flush=True)
    if chosen.json is not None:
        chosen.json.write_bytes(orjson.dumps([asdict(bar) for bar in found], option=orjson.OPT_INDENT_2))
    return int(any(bar.met is False for bar in found))


def _measure(chosen: argparse.Namespace) -> Iterator[Bar]:
    parts = chosen.parts or PARTS
    if "forest" in parts:
        yield from bars.of_forest(forest.run())
    if "vectors" in parts:
        for scenario in chosen.scenarios:
            worlds = [_timed(f"vectors {scenario} {seed}", vectors.run, scenario, seed) for seed in range(chosen.seeds)]
            yield from bars.of_vectors(scenario, worlds)
    if "shop" in parts:
        for scenario in chosen.scenarios:
            found = [
                _timed(f"shop {scenario} {seed}", shops.run, scenario, seed, users=chosen.users, days=chosen.days)
                for seed in range(1, chosen.seeds + 1)
            ]
            yield from bars.of_shops(scenario, found)
    if "histories" in parts:
        yield from _histories()


def _histories() -> Iterator[Bar]:
    folder = histories.folder()
    for name, file in histories.FILES.items():
        if folder is None or not (folder / file).exists():
            print(f"{name}: not measured; set RESEGMENT_DATA to the folder that has {file}", file=sys.stderr)
            continue
        yield from bars.of_history(name, _timed(name, histories.run, name, folder / file))


def _timed(name: str, function: Callable[P, T], *arguments: P.args, **more: P.kwargs) -> T:
    """Call it, and say on standard error how long it took."""
    began = time.perf_counter()
    found = function(*arguments, **more)
    print(f"{name}: {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)
    return found


if __name__ == "__main__":
    sys.exit(main())
