"""Two processors on two cores against one: CPU for an event, the broker's not counted.

`python -m benchmarks.workers BOOTSTRAP PREFIX SHARE` is one member of the group. Joining, and what
one did alone before the other had joined, is not counted.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from typing import Any

from benchmarks.arena import PARTITIONS, Arena, module
from benchmarks.contestants import kafka_settings
from benchmarks.figures import Bar, Part, spread
from benchmarks.peers.stopwatch import cpu
from schemas.topics import EVENTS
from stream.assembly import Deployment
from stream.config import load
from stream.transport.base import TransportError

_QUIET_POLLS = 5
"""Of a tenth of a second: what was appended is known to every member by then."""


def member(bootstrap: str, prefix: str, share: int) -> None:
    """Drain `share` partitions, say so, wait for a line, and drain what is there then."""
    config = load(None, {**kafka_settings(bootstrap, prefix), "processor.sweep_interval": "1h"})
    transport = config.transport.open()
    deployment = Deployment(config, transport, transport.partitions(EVENTS), ("processor",))
    (runner,) = deployment.runners

    def drain() -> dict[str, float]:
        start = last = (0, time.perf_counter(), cpu())
        quiet = 0
        while quiet < _QUIET_POLLS or len(deployment.processor.populations) != share:
            try:
                done = runner.step(0.1)
            except TransportError:
                done = 0  # a rebalance in the middle of a commit: it starts over by itself
            quiet = 0 if done or runner.behind() else quiet + 1
            if done:
                last = (last[0] + done, time.perf_counter(), cpu())
        events, wall, seconds = (b - a for a, b in zip(start, last, strict=True))
        return {"events": events, "wall": wall, "cpu": seconds}

    drain()
    print("ready", flush=True)
    sys.stdin.readline()
    print(json.dumps(drain()), flush=True)
    # The other one must not get these partitions while it counts.
    sys.stdin.read()
    runner.abandon()
    transport.close()


def contest(arena: Arena, prefix: str, count: int, processes: int) -> dict[str, Any]:
    """So many processes at once; they know the users from a first third of the events, and count the rest."""
    known = count // 3
    arena.fill(prefix, known)
    command = module("benchmarks.workers", arena.cluster.bootstrap, prefix, PARTITIONS // processes)
    members = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(processes)
    ]
    for one in members:
        assert _line(one) == "ready"
    arena.append(prefix, known, count)
    before = arena.broker_cpu()
    for one in members:
        assert one.stdin is not None
        one.stdin.write("go\n")
        one.stdin.flush()
    laps = [json.loads(_line(one)) for one in members]
    broker = arena.broker_cpu() - before
    for one in members:
        one.communicate()
    assert sum(lap["events"] for lap in laps) == count - known
    return {
        "events": count - known,
        "cpu": sum(lap["cpu"] for lap in laps),
        "wall": max(lap["wall"] for lap in laps),
        "broker": broker,
        "members": laps,
    }


def _line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip() or sys.exit("workers: a member failed")


def run(arena: Arena, count: int, turns: int) -> Part:
    """One, two, one, two."""
    repetitions: dict[str, list[dict[str, Any]]] = {"1 process": [], "2 processes": []}
    for turn in range(turns):
        for processes, runs in zip((1, 2), repetitions.values(), strict=True):
            runs.append(contest(arena, f"workers{processes}.{turn}.", count, processes))
    costs = {name: [one["cpu"] / one["events"] * 1e6 for one in runs] for name, runs in repetitions.items()}
    rates = {name: [one["events"] / one["wall"] for one in runs] for name, runs in repetitions.items()}
    one, two = (statistics.median(values) for values in costs.values())
    bar = Bar(
        "2 processors on 2 cores against 1, brokers excluded from the CPU count",
        "CPU per event at most 1.1x",
        [two / one],
        [1.1],
        "at most",
        "x",
    )
    summary = {f"{name} cpu": spread(values) for name, values in costs.items()}
    summary |= {f"{name} events/s": spread(values) for name, values in rates.items()}
    return Part("workers", "make bench PARTS=workers", repetitions, summary, [bar])


if __name__ == "__main__":
    member(sys.argv[1], sys.argv[2], int(sys.argv[3]))
