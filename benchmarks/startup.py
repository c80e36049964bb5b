"""Start to first processed batch: `resegment run` on a broker that has events and a model, until the first commit.

From the moment in which the process is started, Python and imports included. The first start is not counted: it warms
the caches. The broker's group.initial.rebalance.delay.ms is 0 here; Kafka's own default adds three seconds to any
group's first member.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time

from benchmarks.arena import PARTITIONS, Arena, module
from benchmarks.figures import Bar, Part, spread
from schemas.topics import EVENTS
from stream.transport.base import TopicPartition

_EVENTS = 2_000
_PATIENCE_S = 60.0
_LOOK_S = 0.025
"""Between two looks, each of which takes milliseconds of these cores; the figure is too large by half of it."""


def start(arena: Arena, number: int) -> dict[str, float]:
    """Start the service once; seconds until offsets are committed."""
    prefix = f"start{number}."
    arena.fill(prefix, _EVENTS)
    config = arena.config(prefix)
    transport = config.transport.open()
    places = [TopicPartition(EVENTS, partition) for partition in range(PARTITIONS)]
    group = f"{config.runner.group}-processor"
    assert transport.committed(group, places[0]) is None
    command = module("stream.cli", "run", "--roles", "processor", "--bootstrap", arena.cluster.bootstrap)
    variables = {"RESEGMENT_TRANSPORT__KAFKA__TOPIC_PREFIX": prefix, "RESEGMENT_METRICS__PORT": "0"}
    started = time.perf_counter()
    process = subprocess.Popen(command, env=os.environ | variables, stderr=subprocess.PIPE, text=True)
    try:
        while not any(transport.committed(group, place) for place in places):
            if process.poll() is not None or time.perf_counter() - started > _PATIENCE_S:
                process.kill()
                sys.exit(f"startup: nothing was committed:\n{process.communicate()[1][-3000:]}")
            time.sleep(_LOOK_S)
        return {"wall": time.perf_counter() - started}
    finally:
        process.terminate()
        process.communicate()
        transport.close()


def run(arena: Arena, turns: int) -> Part:
    """Start it `turns` times after one that is not counted."""
    runs = [start(arena, number) for number in range(turns + 1)][1:]
    summary = {"wall": spread([one["wall"] for one in runs])}
    bar = Bar(
        "start to first processed batch, warm caches", "at most 2 s", [summary["wall"]["median"]], [2], "at most", "s"
    )
    return Part("startup", "make bench PARTS=startup", {"startup": runs}, summary, [bar])
