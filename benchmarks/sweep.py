"""A sweep over a million users, and what live events feel of it.

The sweep itself is timed without anything beside it, from its first slice to its last, in a process that does nothing
else. Then a processor with as many users sweeps under a live load of a quarter of the maximum rate; the latencies
that count are of changes whose event came, or which were read, while a sweep was on.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from typing import Any

from benchmarks.arena import Arena, module
from benchmarks.crowd import fresh, gather
from benchmarks.figures import Bar, Part, quantile, spread
from benchmarks.latency import maximum_rate
from benchmarks.live import Sample, under_load, windows
from schemas.topics import SEGMENT_CHANGES
from stream.config import load

FULL = 1_000_000
LIMIT_S, LIMIT_MS = 1.0, 300.0


def alone(model: bytes, users: int, turns: int) -> list[dict[str, Any]]:
    """Sweeps of a stage that holds these users, one after the other; the first one is not counted."""
    interval, processor = load(None).processor.sweep_interval, fresh(model)
    now = int(time.time() * 1000)
    gather(processor, users, now)
    runs = []
    for turn in range(turns + 1):
        now += interval
        wall, cpu, changes = time.perf_counter(), time.process_time(), 0
        while (output := processor.tick(now)) is not None:
            changes += sum(record.topic == SEGMENT_CHANGES for record in output.records)
        told = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu, "changes": changes}
        if turn:
            runs.append(told)
    return runs


def live(arena: Arena, users: int, rate: float, seconds: float, interval: str) -> dict[str, Any]:
    """Sweeps every `interval` under load."""
    prefix = "sweep."
    arena.fill(prefix, 0)
    command = module("benchmarks.live", arena.cluster.bootstrap, prefix, users, interval)
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    if process.stdout.readline() != "ready\n":
        sys.exit("sweep: the live processor failed")
    trial = under_load(arena, prefix, rate, seconds, arena.users)
    sweeps = windows(json.loads(process.communicate()[0]))
    during = [one.latency for one in trial.samples if _meets(one, sweeps)]
    if not during:
        sys.exit("sweep: no change came during a sweep; the load is too small or too short")
    return {
        "users": users,
        "load": trial.load,
        "sweeps": sweeps,
        "samples": len(trial.samples),
        "samples_during": len(during),
        "p50_during_ms": quantile(during, 0.5),
        "p99_during_ms": quantile(during, 0.99),
        "p99_ms": quantile([one.latency for one in trial.samples], 0.99),
    }


def _meets(sample: Sample, sweeps: list[dict[str, Any]]) -> bool:
    return any(sample.due <= sweep["ended"] and sample.read >= sweep["began"] for sweep in sweeps)


def run(arena: Arena, users: int, count: int, turns: int, seconds: float, interval: str) -> Part:
    """Alone, then live."""
    runs = alone(arena.model, users, turns)
    told = live(arena, users, maximum_rate(arena, count, turns) / 4, seconds, interval)
    summary = {"sweep wall s": spread([one["wall"] for one in runs])}
    summary |= {"sweep cpu s": spread([one["cpu"] for one in runs]), "p99_during_ms": spread([told["p99_during_ms"]])}
    bar = Bar(
        "sweep of 1,000,000 users; live p99 meanwhile",
        "at most 1 s; 300 ms",
        [summary["sweep wall s"]["median"], told["p99_during_ms"]],
        [LIMIT_S, LIMIT_MS],
        "at most",
        "s; ms",
        "" if users >= FULL else f"with {users:,} users only",
    )
    return Part("sweep", "make bench PARTS=sweep", {"alone": runs, "live": [told]}, summary, [bar])
