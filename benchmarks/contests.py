"""Ours beside the limit and the peers: the same events, in turns, each in a process of its own.

`python -m benchmarks.contests check` runs the peers on a sample and compares what they publish with a naive
recomputation.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

import orjson

from benchmarks.arena import PARTITIONS, PEER_CHANGES, Arena, Laps, module
from benchmarks.figures import Bar, Part, spread
from benchmarks.peers.check import differences, expected
from benchmarks.peers.core import Model
from benchmarks.peers.install import HERE, quix_python, streams_classpath
from stream.transport.base import TopicPartition
from tests.kafka.jars import java


@dataclass(frozen=True, slots=True)
class Contestant:
    """What runs, and on which share of the events: slow ones get fewer, so that a turn stays a minute."""

    name: str
    share: float

    def events(self, most: int) -> int:
        """How many it drains."""
        return max(1_000, round(most * self.share))


CONTESTANTS = (
    Contestant("limit", 1),
    Contestant("ours", 1),
    Contestant("ours_core", 1),
    Contestant("kafka_streams", 1),
    Contestant("quix", 0.1),
    Contestant("river_kmeans", 0.1),
    Contestant("river_clustream", 0.01),
)
COLD_SHARE = 1 / 3
"""The first part of the events is the cold lap."""


def command(arena: Arena, name: str, prefix: str, count: int) -> list[str]:
    """The command of one contestant on the topics of a prefix."""
    warm = round(count * COLD_SHARE)
    place = (arena.cluster.bootstrap, prefix, count, warm)
    match name:
        case "limit":
            return module("benchmarks.contestants", "limit", *place)
        case "ours":
            return module("benchmarks.contestants", "kafka", *place)
        case "ours_core":
            ours = module("benchmarks.contestants", "kafka", *place)
            return ["/usr/bin/env", f"RESEGMENT_CONFIG={arena.core_config}", *ours]
        case "river_kmeans" | "river_clustream":
            return module("benchmarks.peers.river_pipeline", name.removeprefix("river_"), *place)
        case "quix":
            state = arena.directory / f"{prefix}quix"
            arguments = [*map(str, place), str(arena.peer_model), str(state)]
            return [str(quix_python()), str(HERE / "quix_pipeline.py"), *arguments]
        case "kafka_streams":
            state = arena.directory / f"{prefix}kafka-streams"
            options = ["-Dorg.slf4j.simpleLogger.defaultLogLevel=error", "-cp", streams_classpath()]
            return [java(), *options, "peer.Core", *map(str, place), str(arena.peer_model), str(state)]
    raise ValueError(name)


def turn(arena: Arena, number: int, most: int) -> dict[str, Laps]:
    """Everybody once, on fresh topics; those who drain the same events share them."""
    laps: dict[str, Laps] = {}
    filled: set[str] = set()
    for contestant in CONTESTANTS:
        count = contestant.events(most)
        core = contestant.name == "ours_core"
        prefix = f"turn{number}.{count}.{'core.' if core else ''}"
        if prefix not in filled:
            arena.fill(prefix, count, arena.core_model if core else None)
            filled.add(prefix)
        laps[contestant.name] = arena.contest(command(arena, contestant.name, prefix, count))
    return laps


def check(arena: Arena, count: int) -> None:
    """Exit with what is wrong where a peer with frozen prototypes publishes other changes than it should."""
    model = Model.load(arena.peer_model)
    wanted = list(expected((orjson.loads(record.value or b"") for record in arena.records[:count]), model))
    for name in ("quix", "kafka_streams"):
        prefix = f"check.{name}."
        arena.fill(prefix, count)
        arena.contest(command(arena, name, prefix, count))
        transport = arena.config(prefix).transport.open()
        places = [TopicPartition(PEER_CHANGES.name, partition) for partition in range(PARTITIONS)]
        values = [record.value or b"" for place in places for record in transport.read(place, 0)]
        transport.close()
        if wrong := differences(values, wanted):
            sys.exit(f"{name} does not do the work, {len(wrong)} of {len(wanted)} changes: " + "\n".join(wrong[:5]))
        print(f"{name}: {len(values)} changes of {count} events, as they should be")


def run(arena: Arena, most: int, turns: int) -> Part:
    """The turns, and what they say: ratios of CPU seconds an event, ours in the denominator."""
    rounds = [turn(arena, number, most) for number in range(turns)]
    repetitions = {one.name: [laps[one.name] for laps in rounds] for one in CONTESTANTS}
    summary: dict[str, dict[str, float]] = {}
    for name, laps in repetitions.items():
        for lap in ("all", "warm"):
            for clock in ("cpu", "wall"):
                costs = [one[lap][clock] / one[lap]["events"] * 1e6 for one in laps]
                summary[f"{name} {lap} {clock}"] = spread(costs)
        summary[f"{name} broker"] = spread([one["broker"] / one["all"]["events"] * 1e6 for one in laps])

    def cost(name: str, lap: str) -> float:
        return summary[f"{name} {lap} cpu"]["median"]

    # A backlog is drained from its first event on; against the peers it is the steady state that counts, since a
    # compiler that warms up (Java's) is no part of the work.
    ratios = {
        "limit": cost("limit", "all") / cost("ours", "all"),
        "river": cost("river_kmeans", "warm") / cost("ours", "warm"),
        "river_clustream": cost("river_clustream", "warm") / cost("ours", "warm"),
        "quix": cost("quix", "warm") / cost("ours", "warm"),
        "kafka_streams": cost("kafka_streams", "warm") / cost("ours", "warm"),
    }
    # The same with the core's features only on our side too, so that neither does more work.
    for name in ("river_kmeans", "river_clustream", "quix", "kafka_streams"):
        ratios[f"{name}_same_features"] = cost(name, "warm") / cost("ours_core", "warm")

    def same(*names: str) -> str:
        told = "; ".join(f"{ratios[f'{name}_same_features']:.1f}x" for name in names)
        return f"{told} with the peers' features only on our side too"

    bars = [
        Bar(
            "Kafka drain, everything on, per core, against the limit",
            "at least 0.6",
            [ratios["limit"]],
            [0.6],
            "at least",
        ),
        Bar(
            "against per-event River with the same features (KMeans; CluStream as shipped)",
            "at least 15x; 100x",
            [ratios["river"], ratios["river_clustream"]],
            [15, 100],
            "at least",
            "x",
            same("river_kmeans", "river_clustream"),
        ),
        Bar("against Quix Streams", "at least 12x", [ratios["quix"]], [12], "at least", "x", same("quix")),
        Bar(
            "against Kafka Streams (Java) per CPU second of the processing process",
            "at least 1x",
            [ratios["kafka_streams"]],
            [1],
            "at least",
            "x",
            same("kafka_streams"),
        ),
    ]
    return Part("contests", "make bench PARTS=contests", repetitions, summary, bars, ratios)


if __name__ == "__main__":
    if sys.argv[1:] != ["check"]:
        sys.exit(__doc__)
    with Arena(5_000, 500) as sample:
        check(sample, 5_000)
