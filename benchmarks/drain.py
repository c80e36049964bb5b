"""`python -m benchmarks.drain`: how fast a backlog is drained, beside a loop that only polls and parses.

One run, in turns (limit, Kafka, embedded, limit, ...), each contestant in a process of its own whose CPU seconds are
told apart from the broker's. Kafka is real, with transactions, on loopback; events are 200 bytes, users zipf. It is the
quick look while one works on the hot path; `make bench` has the peers beside it.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
from pathlib import Path

from benchmarks.arena import PARTITIONS, Arena, Laps, fill, module
from stream.config import load


def main() -> None:
    """Print a table, and the figures as JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=300_000)
    parser.add_argument("--users", type=int, default=20_000)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    count, warm = chosen.events, chosen.events // 3
    results: dict[str, list[Laps]] = {"limit": [], "kafka": [], "embedded": []}
    with Arena(count, chosen.users) as arena:
        for turn in range(chosen.turns):
            prefix = f"turn{turn}."
            arena.fill(prefix, count)
            for name in ("limit", "kafka"):
                arguments: tuple[object, ...] = (name, arena.cluster.bootstrap, prefix, count, warm)
                results[name].append(arena.contest(module("benchmarks.contestants", *arguments)))
            directory = arena.directory / f"embedded{turn}"
            transport = load(None, {"transport.data_dir": directory}).transport.open()
            fill(transport, arena.records[:count], arena.model)
            transport.close()
            arguments = ("embedded", directory, count, warm)
            results["embedded"].append(arena.contest(module("benchmarks.contestants", *arguments)))
            shutil.rmtree(directory)
    print(f"{count:,} events of {chosen.users:,} users, {PARTITIONS} partitions, {chosen.turns} turns")
    print(f"{'':10} {'us CPU an event':>16} {'events/s a core':>16} {'of the limit':>13}  (median; spread)")
    base = statistics.median(laps["all"]["cpu"] for laps in results["limit"])
    for name, runs in results.items():
        costs = sorted(laps["all"]["cpu"] / count * 1e6 for laps in runs)
        cost = statistics.median(costs)
        share = base / count * 1e6 / cost
        print(f"{name:10} {cost:16.2f} {1e6 / cost:16,.0f} {share:13.2f}  ({costs[0]:.2f} to {costs[-1]:.2f})")
    if chosen.json:
        chosen.json.write_text(json.dumps({"arguments": {**vars(chosen), "json": None}, "results": results}, indent=1))


if __name__ == "__main__":
    main()
