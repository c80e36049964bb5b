"""From an event to its committed change, end to end: `resegment run`, a load, and a reader of what is committed.

The maximum is what one processor drains in a second of wall time on this machine, with the broker beside it. Under
load the broker, the producer and the reader run on the same cores; what they take by themselves is the floor.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from benchmarks.arena import Arena, module
from benchmarks.figures import Bar, Part, quantile, spread
from benchmarks.live import echo, service, under_load

LIMITS_MS = (50.0, 150.0)
SHARES = (0.1, 0.25, 0.5)
"""Loads, as shares of the maximum rate. The last one is the bar's."""


@cache
def maximum_rate(arena: Arena, count: int) -> float:
    """Events a second of one processor that drains `count`, after the first third. Found once in a run."""
    prefix = "maximum."
    arena.fill(prefix, count)
    laps = arena.contest(module("benchmarks.contestants", "kafka", arena.cluster.bootstrap, prefix, count, count // 3))
    return float(laps["warm"]["events"] / laps["warm"]["wall"])


def run(arena: Arena, count: int, seconds: float) -> Part:
    """One drain for the rate, then one load after the other; those that are not the bar's for half as long."""
    rate = maximum_rate(arena, count)
    told = [_under(arena, rate, share, seconds if share == SHARES[-1] else seconds / 2) for share in SHARES]
    floor = _under(arena, rate, SHARES[-1], seconds / 2, floor=True)
    summary = {"maximum_rate": spread([rate])}
    for one in told:
        summary |= {f"{name} at {one['share']:.0%}": spread([one[name]]) for name in ("p50_ms", "p99_ms")}
    last = told[-1]
    bar = Bar(
        "event to committed change, p50 and p99, at half the maximum rate",
        "at most 50 ms; 150 ms",
        [last["p50_ms"], last["p99_ms"]],
        LIMITS_MS,
        "at most",
        "ms",
        f"{last['load']['rate']:,.0f} events/s, {last['samples']:,} changes; "
        + ", ".join(f"{one['share']:.0%}: {one['p50_ms']:.0f}; {one['p99_ms']:.0f} ms" for one in told[:-1])
        + f"; half with a stage that does nothing: {floor['p50_ms']:.0f}; {floor['p99_ms']:.0f} ms",
    )
    return Part("latency", "make bench PARTS=latency", {"latency": told, "floor": [floor]}, summary, [bar])


def _under(arena: Arena, rate: float, share: float, seconds: float, *, floor: bool = False) -> dict[str, Any]:
    prefix = f"latency{share:.0%}{'floor' if floor else ''}.".replace("%", "")
    arena.fill(prefix, 0)
    with echo(arena, prefix) if floor else service(arena, prefix):
        trial = under_load(arena, prefix, rate * share, seconds, arena.users)
    latencies = [sample.latency for sample in trial.samples]
    told: dict[str, Any] = {"maximum_rate": rate, "share": share, "load": trial.load, "samples": len(latencies)}
    return told | {f"{name}_ms": quantile(latencies, q) for name, q in (("p50", 0.5), ("p99", 0.99), ("p999", 0.999))}
