"""Backfill: the synthetic shop through all stages, embedded, in one process, as `resegment replay` does it.

`python -m benchmarks.backfill EVENTS DIRECTORY` prints one JSON line; the shop's own making of events is in the time.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.arena import Arena, module
from benchmarks.figures import Bar, Part, spread
from benchmarks.peers.stopwatch import cpu
from producers.shop import Shop, ShopSettings
from stream.config import load
from stream.replay import Replay
from stream.runtime import interpreter

FULL = 10_000_000
LIMIT_S = 240.0
_A_USER = 200
"""Events that one user makes in the default 45 days, a little less than on average."""


def measure(count: int, directory: Path) -> None:
    """Replay `count` events into `directory`, which must be empty."""
    shop = Shop(ShopSettings(users=max(500, count // _A_USER)))
    started = time.perf_counter()
    with Replay(load(None, {"transport.data_dir": directory}), shop) as replay:
        interpreter.settle()  # as `resegment replay` does
        replay.run(lambda rows: rows < count)
        rows = replay.rows
        users = sum(len(population) for population in replay.deployment.processor.populations.values())
        model = replay.deployment.processor.model
    told = {
        "events": rows,
        "wall": time.perf_counter() - started,
        "cpu": cpu(),
        "users": users,
        "model_version": model.version if model else 0,
    }
    print(json.dumps(told))


def run(arena: Arena, count: int) -> Part:
    """Once: it is long enough to be its own average."""
    directory = arena.directory / "backfill"
    done = subprocess.run(module("benchmarks.backfill", count, directory), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"backfill: failed:\n{done.stderr[-3000:]}")
    told = json.loads(done.stdout)
    assert told["events"] >= count, f"the shop made {told['events']} events only"
    cost = told["wall"] / told["events"] * 1e6
    full = count >= FULL
    bar = Bar(
        "backfill of 10,000,000 synthetic events, embedded, one process",
        "at most 240 s",
        [told["wall"] if full else cost * FULL / 1e6],
        [LIMIT_S],
        "at most",
        "s",
        "" if full else f"extrapolated from {count:,} events",
    )
    summary = {"wall us an event": spread([cost]), "cpu us an event": spread([told["cpu"] / told["events"] * 1e6])}
    return Part("backfill", "make bench PARTS=backfill", {"backfill": [told]}, summary, [bar])


if __name__ == "__main__":
    measure(int(sys.argv[1]), Path(sys.argv[2]))
