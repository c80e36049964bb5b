"""From an event to its committed change, end to end: `resegment run`, a load of half the maximum rate, and a reader.

The maximum is what one processor drains in a second of wall time on this machine, with the broker beside it. At half
of it the broker, the producer and the reader run on the same cores.
"""

from __future__ import annotations

from functools import cache

from benchmarks.arena import Arena, module
from benchmarks.figures import Bar, Part, quantile, spread
from benchmarks.live import service, under_load

LIMITS_MS = (50.0, 150.0)


@cache
def maximum_rate(arena: Arena, count: int) -> float:
    """Events a second of one processor that drains `count`, after the first third. Found once in a run."""
    prefix = "maximum."
    arena.fill(prefix, count)
    laps = arena.contest(module("benchmarks.contestants", "kafka", arena.cluster.bootstrap, prefix, count, count // 3))
    return float(laps["warm"]["events"] / laps["warm"]["wall"])


def run(arena: Arena, count: int, seconds: float) -> Part:
    """One drain for the rate, then one load."""
    rate = maximum_rate(arena, count)
    prefix = "latency."
    arena.fill(prefix, 0)
    with service(arena, prefix):
        trial = under_load(arena, prefix, rate / 2, seconds, arena.users)
    latencies = [sample.latency for sample in trial.samples]
    p50, p99 = quantile(latencies, 0.5), quantile(latencies, 0.99)
    told = {"maximum_rate": rate, "load": trial.load, "samples": len(latencies), "p50_ms": p50, "p99_ms": p99}
    told["p999_ms"] = quantile(latencies, 0.999)
    bar = Bar(
        "event to committed change, p50 and p99, at half the maximum rate",
        "at most 50 ms; 150 ms",
        [p50, p99],
        LIMITS_MS,
        "at most",
        "ms",
        f"{trial.load['rate']:,.0f} events/s, {len(latencies):,} changes",
    )
    summary = {"p50_ms": spread([p50]), "p99_ms": spread([p99]), "maximum_rate": spread([rate])}
    return Part("latency", "make bench PARTS=latency", {"latency": [told]}, summary, [bar])
