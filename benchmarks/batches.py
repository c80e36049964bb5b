"""What one batch costs the processor by its size: a part for the batch, a part for each event. No broker.

`python -m benchmarks.batches` prints the median time of batches of each size, in turns, and the line through them.
`--lines MODULE:FUNCTION ...` (say stream.features.update:Update._add) prints where in these functions the time of
batches of `--size` events goes, line by line; it takes line_profiler.
"""

from __future__ import annotations

import argparse
import importlib
import operator
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from types import FunctionType

import numpy as np

from benchmarks.arena import LEARNED_FROM, PARTITIONS, learned
from benchmarks.crowd import fresh
from benchmarks.figures import quantile
from benchmarks.workload import events
from schemas.topics import EVENTS
from stream.transport.base import OutRecord, Record
from stream.transport.murmur2 import partitions_of
from stream.transport.records import RecordColumns
from stream.transport.spans import packed

SIZES = (100, 400, 1_000, 2_000, 5_000)
COUNT, USERS, WARM = 400_000, 20_000, 50_000
PROFILED = 100
"""Batches that are profiled."""


class Bench:
    """A processor that has a model and has seen some events, and the events to come."""

    def __init__(self, seed: int) -> None:
        records = list(events(COUNT, USERS, int(time.time() * 1000), seed))
        with tempfile.TemporaryDirectory(prefix="bench-") as directory:
            model = learned(Path(directory), None, records[:LEARNED_FROM], USERS // 40)
        self.processor = fresh(model)
        numbers = partitions_of([record.key or b"" for record in records], PARTITIONS)
        self._rows: list[Iterator[OutRecord]] = [
            iter([records[i] for i in np.flatnonzero(numbers == partition).tolist()]) for partition in range(PARTITIONS)
        ]
        self._offset = 0

    def batch(self, size: int) -> dict[int, Sequence[Record]] | None:
        """The next events, as many from each partition; None where they are used up."""
        found: dict[int, Sequence[Record]] = {}
        for partition, rows in enumerate(self._rows):
            some = list(islice(rows, size // PARTITIONS))
            if len(some) < size // PARTITIONS:
                return None
            times = np.array([row.timestamp for row in some], np.int64)
            offsets = np.arange(self._offset, self._offset + len(some))
            found[partition] = RecordColumns(
                EVENTS,
                partition,
                offsets,
                times,
                packed([row.key for row in some]),
                packed([row.value for row in some]),
            )
        self._offset += size
        return found

    def step(self, size: int) -> float | None:
        """Seconds that one batch took; None where the events are used up."""
        if (batch := self.batch(size)) is None:
            return None
        began = time.perf_counter()
        self.processor.process(batch, int(time.time() * 1000))
        return time.perf_counter() - began


def sizes(bench: Bench) -> dict[int, list[float]]:
    """Microseconds by size, the sizes in turns."""
    taken: dict[int, list[float]] = {size: [] for size in SIZES}
    while True:
        for size in SIZES:
            if (seconds := bench.step(size)) is None:
                return taken
            taken[size].append(seconds * 1e6)


def lines(bench: Bench, names: Sequence[str], size: int) -> None:
    """Print the profile of these functions."""
    try:
        from line_profiler import LineProfiler  # type: ignore[import-not-found]
    except ImportError:
        sys.exit("--lines takes line_profiler: python -m pip install line_profiler")
    profiler = LineProfiler()
    for name in names:
        profiler.add_function(_function(name))
    profiler.enable()
    for _ in range(PROFILED):
        if bench.step(size) is None:
            break
    profiler.disable()
    profiler.print_stats(output_unit=1e-6, stripzeros=True)


def _function(name: str) -> Callable[..., object]:
    module, _, path = name.partition(":")
    try:
        found = operator.attrgetter(path)(importlib.import_module(module))
    except (ImportError, AttributeError, TypeError) as error:
        sys.exit(f"{name!r} is no MODULE:FUNCTION: {error}")
    if not isinstance(found, FunctionType):
        sys.exit(f"{name!r} is no Python function")
    return found


def main() -> None:
    """Time, or profile."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.batches", description=__doc__)
    parser.add_argument("--lines", nargs="+", metavar="MODULE:FUNCTION", default=[])
    parser.add_argument("--size", type=int, default=SIZES[0])
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args()
    bench = Bench(chosen.seed)
    for _ in range(WARM // SIZES[-1]):
        bench.step(SIZES[-1])
    if chosen.lines:
        lines(bench, chosen.lines, chosen.size)
        return
    medians = {size: quantile(taken, 0.5) for size, taken in sizes(bench).items()}
    for size, median in medians.items():
        print(f"{size:>6,} events: {median:>8,.0f} us, {median / size:.2f} an event")
    each, fixed = np.polyfit(list(medians), list(medians.values()), 1)
    print(f"a batch of {PARTITIONS} partitions {fixed:,.0f} us, an event {each:.2f} us")


if __name__ == "__main__":
    main()
