"""From an event to its committed change, end to end: `resegment run`, a load, and a reader of what is committed.

The maximum is what one processor drains in a second of wall time on this machine, with the broker beside it: the median
of several drains. Under load the broker, the producer and the reader run on the same cores; what they take by
themselves is the floor.
"""

from __future__ import annotations

import statistics
from functools import cache
from typing import Any

from benchmarks.arena import Arena, module
from benchmarks.figures import Bar, Part, quantile, spread
from benchmarks.live import echo, service, under_load

LIMITS_MS = (50.0, 150.0)
SHARES = (0.1, 0.25, 0.5)
"""Loads, as shares of the maximum rate. The last one is the bar's."""


@cache
def drains(arena: Arena, count: int, turns: int) -> tuple[float, ...]:
    """Events a second of one processor that drains `count`, after the first third, `turns` times: found once a run."""
    return tuple(_drain(arena, f"maximum{turn}.", count) for turn in range(turns))


def maximum_rate(arena: Arena, count: int, turns: int) -> float:
    """The median of `drains`."""
    return statistics.median(drains(arena, count, turns))


def _drain(arena: Arena, prefix: str, count: int) -> float:
    arena.fill(prefix, count)
    laps = arena.contest(module("benchmarks.contestants", "kafka", arena.cluster.bootstrap, prefix, count, count // 3))
    return float(laps["warm"]["events"] / laps["warm"]["wall"])


def run(arena: Arena, count: int, seconds: float, turns: int) -> Part:
    """Drains for the rate, then one load after the other; the bar's `turns` times, in turns with the floor."""
    rate = maximum_rate(arena, count, turns)
    smaller = [_under(arena, rate, share, seconds, turns) for share in SHARES[:-1]]
    told: dict[bool, list[dict[str, Any]]] = {True: [], False: []}
    for turn in range(turns):
        for floor in told:
            told[floor].append(_under(arena, rate, SHARES[-1], seconds, turns, turn, floor=floor))
    summary = {"maximum_rate": spread(drains(arena, count, turns))}
    by_load = [(f"{one['share']:.0%}", [one]) for one in smaller]
    for name, trials in [*by_load, ("half", told[False]), ("half, floor", told[True])]:
        summary |= {f"{of} at {name}": spread([one[of] for one in trials]) for of in ("p50_ms", "p99_ms")}
    p50, p99 = (summary[f"{of} at half"] for of in ("p50_ms", "p99_ms"))
    floor50, floor99 = (summary[f"{of} at half, floor"] for of in ("p50_ms", "p99_ms"))
    bar = Bar(
        "event to committed change, p50 and p99, at half the maximum rate",
        "at most 50 ms; 150 ms",
        [p50["median"], p99["median"]],
        LIMITS_MS,
        "at most",
        "ms",
        f"{told[False][0]['load']['rate']:,.0f} events/s, {sum(one['samples'] for one in told[False]):,} changes; "
        f"{turns} turns: {p50['low']:.0f} to {p50['high']:.0f}; {p99['low']:.0f} to {p99['high']:.0f} ms; "
        + ", ".join(f"{one['share']:.0%}: {one['p50_ms']:.0f}; {one['p99_ms']:.0f} ms" for one in smaller)
        + f"; half with a stage that does nothing: {floor50['median']:.0f}; {floor99['median']:.0f} ms",
    )
    runs = {"latency": [*smaller, *told[False]], "floor": told[True]}
    return Part("latency", "make bench PARTS=latency", runs, summary, [bar])


def _under(
    arena: Arena, rate: float, share: float, seconds: float, turns: int, turn: int = 0, *, floor: bool = False
) -> dict[str, Any]:
    """One of `turns` that together take `seconds`, each after a quarter of that: all users are new in the beginning."""
    prefix = f"latency{share:.0%}{'floor' if floor else ''}{turn}.".replace("%", "-")
    arena.fill(prefix, 0)
    with echo(arena, prefix) if floor else service(arena, prefix):
        trial = under_load(arena, prefix, rate * share, seconds / turns, arena.users, warm=seconds / 4)
    latencies = [sample.latency for sample in trial.samples]
    told: dict[str, Any] = {"maximum_rate": rate, "share": share, "load": trial.load, "samples": len(latencies)}
    return told | {f"{name}_ms": quantile(latencies, q) for name, q in (("p50", 0.5), ("p99", 0.99), ("p999", 0.999))}
