"""What the kernels do for an event, counted and not timed: it is the same on any machine, however busy.

`python -m benchmarks.counts` compares with benchmarks/counts.json and exits with 1 where a count has grown by more than
a tenth; `--record` writes the counts of this Python version and compiler there. For each event, user or change:

- `instructions`: bytecode instructions that the interpreter ran (sys.settrace). It sees every Python loop over events.
- `allocated`: bytes, from tracemalloc between one instruction and the next, steps of less than 512 bytes left out. It
  sees the arrays that numpy makes, and so one more pass over a batch, and the objects that a parser makes in one call.

Both are counted without the compiled kernels and with them, whose own work neither of them sees; therefore:

- `machine`: machine instructions of the compiled kernels (benchmarks/native.py), where there is valgrind.

The first two depend on the minor version of Python, the second on the locked versions of numpy and others, the third on
the compiler.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from benchmarks import native
from stream import kernels

BASELINE = Path(__file__).with_name("counts.json")
GROWTH = 0.10
WARM_CALLS = 3
_LEAST_STEP = 512
"""Bytes: below it is the tracing's own."""
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"

Counts = dict[str, dict[str, Any]]


def instructions(call: Callable[[], Any]) -> int:
    """Bytecode instructions of one call."""
    count = 0

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal count
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        count += event == "opcode"
        return trace

    _traced(call, trace)
    return count


def allocated(call: Callable[[], Any]) -> int:
    """Bytes that one call allocates, in steps of 512 or more."""
    total = last = 0
    measure, reset = tracemalloc.get_traced_memory, tracemalloc.reset_peak

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal total, last
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        step = measure()[1] - last
        if step >= _LEAST_STEP:
            total += step
        reset()
        last = measure()[0]
        return trace

    tracemalloc.start(1)
    try:
        last = measure()[0]
        _traced(call, trace)
    finally:
        tracemalloc.stop()
    return total


def _traced(call: Callable[[], Any], trace: Callable[[FrameType, str, Any], Any]) -> None:
    gc.collect()
    gc.disable()
    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(before)
        gc.enable()


def count() -> Counts:
    """All kernels, here and now. Call it in a process whose PYTHONHASHSEED is fixed."""
    from benchmarks.kernels import Kernels

    counts: Counts = {}
    for name, kernel in Kernels().all().items():
        for _ in range(WARM_CALLS):
            kernel.call()
        counts[name] = {
            "unit": kernel.unit,
            "instructions": round(instructions(kernel.call) / kernel.units, 2),
            "allocated": round(allocated(kernel.call) / kernel.units, 1),
        }
    return counts


def measured(compiled: bool) -> Counts:
    """The same in a process of its own, where nothing was imported or cached before; with or without the kernels."""
    command = [sys.executable, "-m", "benchmarks.counts", "--raw"]
    done = subprocess.run(
        command,
        env={**os.environ, "PYTHONHASHSEED": "0", kernels.SWITCH: "on" if compiled else "off"},
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).resolve().parents[1],
    )
    if done.returncode != 0:
        raise RuntimeError(f"counting failed:\n{done.stderr[-3000:]}")
    counts: Counts = json.loads(done.stdout)
    return counts


def ways() -> dict[str, Callable[[], Counts]]:
    """Everything that can be counted here: the name of its baseline, and how it is counted."""
    found: dict[str, Callable[[], Counts]] = {f"{PYTHON} without kernels": lambda: measured(False)}
    if kernels.built():
        found[f"{PYTHON} with kernels"] = lambda: measured(True)
    if native.available():
        found[native.compiler()] = native.counted
    return found


def baseline(way: str) -> Counts | None:
    """What was recorded under this name, if anything was."""
    recorded: Counts | None = json.loads(BASELINE.read_text()).get(way) if BASELINE.exists() else None
    return recorded


def grown(now: Counts, then: Counts) -> list[str]:
    """Every count that grew by more than GROWTH, and every kernel without a baseline, in words."""
    wrong = [f"{name} has no baseline" for name in now if name not in then]
    wrong += [f"{name} is in the baseline, and is counted no more" for name in then if name not in now]
    for name in now.keys() & then.keys():
        for what in now[name].keys() - {"unit"}:
            before, after = then[name][what], now[name][what]
            if after > before * (1 + GROWTH):
                wrong.append(f"{name}: {what} for each {now[name]['unit']} grew from {before:g} to {after:g}")
    return sorted(wrong)


def record(way: str, counts: Counts) -> None:
    """Write a baseline; the others stay."""
    held = json.loads(BASELINE.read_text()) if BASELINE.exists() else {}
    BASELINE.write_text(json.dumps({**held, way: counts}, indent=1, sort_keys=True) + "\n")


def main() -> None:
    """Print the counts beside the baselines."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.counts", description=__doc__)
    parser.add_argument("--record", action="store_true")
    parser.add_argument("--raw", action="store_true", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.raw:
        print(json.dumps(count()))
        return
    wrong: list[str] = []
    for way, counting in ways().items():
        now, then = counting(), baseline(way)
        if chosen.record:
            record(way, now)
        elif then is None:
            wrong.append(f"there is no baseline for {way}: record one with python -m benchmarks.counts --record")
        else:
            wrong += [f"{way}: {line}" for line in grown(now, then)]
        print(way)
        for name, counts in now.items():
            was = (then or {}).get(name, {})
            cells = [f"{what} {counts[what]:g} (was {was.get(what, '-')})" for what in counts if what != "unit"]
            print(f"  {name:12} for each {counts['unit']:7} {'  '.join(cells)}")
    if wrong:
        sys.exit("\n".join(wrong))


if __name__ == "__main__":
    main()
