"""CPU for an event with many users against few: two processors in one process, on embedded transports, in turns.

Only the processor's part is timed (poll, apply, look, commit); the events are appended before.
"""

from __future__ import annotations

import statistics
import time
from typing import Any

from benchmarks.arena import PARTITIONS, Arena, fill
from benchmarks.crowd import gather
from benchmarks.figures import Bar, Part, spread
from benchmarks.workload import events
from schemas.topics import EVENTS
from stream.assembly import Deployment
from stream.config import load
from stream.transport.base import TopicPartition

FEW, MANY = 10_000, 1_000_000


class _Crowded:
    """A processor on a directory of its own, with so many users in its tables."""

    def __init__(self, arena: Arena, users: int) -> None:
        # No sweep: they were all looked at an hour ago, when they came.
        config = load(None, {"transport.data_dir": arena.directory / f"users{users}", "processor.sweep_interval": "1d"})
        self.users = users
        self._transport = config.transport.open()
        fill(self._transport, [], arena.model)
        self._deployment = Deployment(config, self._transport, PARTITIONS, ("processor",))
        (self._runner,) = self._deployment.runners
        while not self._runner.joined():
            self._runner.step(0.0)
        gather(self._deployment.processor, users, int(time.time() * 1000) - 3_600_000)

    def drain(self, count: int, seed: int) -> dict[str, Any]:
        """Append events, and time their processing."""
        # Every round is of the last hour: within the lateness that is allowed, and of ids of its own.
        self._transport.produce(events(count, self.users, int(time.time() * 1000), seed))
        left = self._behind()
        wall, cpu = time.perf_counter(), time.process_time()
        done = 0
        while done < left:
            done += self._runner.step(0.0)
        return {
            "events": done,
            "cpu": time.process_time() - cpu,
            "wall": time.perf_counter() - wall,
        }

    def close(self) -> None:
        """Leave."""
        self._runner.abandon()
        self._transport.close()

    def _behind(self) -> int:
        places = [TopicPartition(EVENTS, partition) for partition in range(PARTITIONS)]
        group = f"{self._deployment.config.runner.group}-processor"
        done = sum(self._transport.committed(group, place) or 0 for place in places)
        return sum(map(self._transport.end_offset, places)) - done


def run(arena: Arena, many: int, count: int, turns: int) -> Part:
    """Rounds of `count` events for each, A B A B; the first one of each is not counted."""
    crowds = [_Crowded(arena, FEW), _Crowded(arena, many)]
    repetitions: dict[str, list[dict[str, Any]]] = {f"{crowd.users} users": [] for crowd in crowds}
    for seed in range(1, turns + 2):
        for crowd in crowds:
            laps = crowd.drain(count, 1_000 + seed)
            if seed > 1:
                repetitions[f"{crowd.users} users"].append(laps)
    for crowd in crowds:
        crowd.close()
    costs = {name: [one["cpu"] / one["events"] * 1e6 for one in runs] for name, runs in repetitions.items()}
    few, crowded = (statistics.median(values) for values in costs.values())
    bar = Bar(
        "CPU per event at 1,000,000 users against 10,000",
        "at most 1.2x",
        [crowded / few],
        [1.2],
        "at most",
        "x",
        "" if many >= MANY else f"with {many:,} users only",
    )
    summary = {f"{name} cpu": spread(values) for name, values in costs.items()}
    return Part("users", "make bench PARTS=users", repetitions, summary, [bar])
