"""A live processor under load, and how long events take to their committed changes.

`python -m benchmarks.live BOOTSTRAP PREFIX USERS SWEEP_INTERVAL` is a processor that holds so many users from the
beginning; it runs until its standard input closes, and prints when it swept.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from benchmarks.arena import Arena, module
from benchmarks.contestants import kafka_settings
from benchmarks.crowd import gather
from schemas.topics import EVENTS
from stream.assembly import Deployment
from stream.config import load
from stream.runtime import interpreter
from stream.runtime.stage import Output
from stream.runtime.supervisor import stop_when_orphaned

EVENTS_EACH = 200
"""Events of a user in a trial, at the most and in the mean."""


class Sample(NamedTuple):
    """One change: when its event was due, and when it was read, epoch milliseconds."""

    due: float
    read: float

    @property
    def latency(self) -> float:
        """Milliseconds."""
        return self.read - self.due


class Trial(NamedTuple):
    """What a load led to."""

    samples: list[Sample]
    load: dict[str, float]


@contextmanager
def service(arena: Arena, prefix: str) -> Iterator[None]:
    """`resegment run` with the role processor, on topics that are there."""
    command = module("stream.cli", "run", "--roles", "processor", "--bootstrap", arena.cluster.bootstrap)
    variables = {"RESEGMENT_TRANSPORT__KAFKA__TOPIC_PREFIX": prefix, "RESEGMENT_METRICS__PORT": "0"}
    with (arena.directory / f"{prefix}log").open("w") as log:
        process = subprocess.Popen(command, env=os.environ | variables, stderr=log)
        try:
            yield
        finally:
            process.terminate()
            if process.wait(30) != 0:
                sys.exit(f"resegment run ended with {process.returncode}")


@contextmanager
def echo(arena: Arena, prefix: str) -> Iterator[None]:
    """The stage that computes nothing, on topics that are there."""
    command = module("benchmarks.floor", arena.cluster.bootstrap, prefix)
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    if process.stdout.readline() != "ready\n":
        sys.exit("the stage that computes nothing did not start")
    try:
        yield
    finally:
        process.communicate()


def under_load(arena: Arena, prefix: str, rate: float, seconds: float, users: int, warm: float | None = None) -> Trial:
    """Put a load of at least so many users on what runs; samples of the last `seconds`, after `warm` ones that do not
    count, by default a quarter as many."""
    warm = seconds / 4 if warm is None else warm
    duration = warm + seconds
    # However high the rate: who has had thousands of events in a few seconds moves no more.
    users = max(users, int(rate * duration) // EVENTS_EACH)
    command = module("benchmarks.load", arena.cluster.bootstrap, prefix, rate, duration, users, arena.seed)
    sender = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert sender.stdout is not None
    if not (line := sender.stdout.readline()):
        sys.exit(f"the load did not start: exit code {sender.wait()}")
    began = float(json.loads(line)["began"])
    watched = began - time.time() + duration + 2.0
    watcher = subprocess.Popen(
        module("benchmarks.watch", arena.cluster.bootstrap, prefix, watched), stdout=subprocess.PIPE, text=True
    )
    assert watcher.stdout is not None and watcher.stdout.readline() == "ready\n"
    if time.time() > began:
        sys.exit("the reader of changes was not there when the load began")
    sent = json.loads(sender.communicate()[0])
    if sender.returncode != 0:
        sys.exit(f"the load ended with {sender.returncode}")
    seen = [Sample(*one) for one in json.loads(watcher.communicate()[0])]
    counted = [one for one in seen if one.due > (began + warm) * 1000]
    if not counted:
        sys.exit(f"no change came of {rate:,.0f} events a second: the load is too short, or the service did not run")
    return Trial(counted, sent | {"users": users})


def sweeping(bootstrap: str, prefix: str, users: int, interval: str) -> None:
    """A processor with a crowd, its sweeps noted: [began, ended, users] for each whole one, epoch milliseconds."""
    config = load(None, {**kafka_settings(bootstrap, prefix), "processor.sweep_interval": interval})
    transport = config.transport.open()
    deployment = Deployment(config, transport, transport.partitions(EVENTS), ("processor",))
    (runner,) = deployment.runners
    processor = deployment.processor
    while not runner.joined():
        runner.step(0.5)
    gather(processor, users, int(time.time() * 1000))
    slices: list[tuple[float, float]] = []
    tick = processor.tick

    def noted(now_ms: int | None) -> Output | None:
        began = time.time() * 1000
        output = tick(now_ms)
        if output is not None:
            slices.append((began, time.time() * 1000))
        return output

    processor.tick = noted  # type: ignore[method-assign]
    interpreter.settle()  # as `resegment run` does
    stop = threading.Event()
    stop_when_orphaned(stop)
    print("ready", flush=True)
    runner.run(stop, poll_timeout=config.runner.poll_timeout / 1000)
    transport.close()
    print(json.dumps(slices), flush=True)


def windows(slices: Sequence[Sequence[float]], gap_ms: float = 1_000.0) -> list[dict[str, Any]]:
    """Sweeps made of their slices: slices that follow each other within `gap_ms` are one sweep."""
    found: list[dict[str, Any]] = []
    for began, ended in slices:
        if found and began - found[-1]["ended"] < gap_ms:
            found[-1]["ended"] = ended
            found[-1]["busy"] += ended - began
        else:
            found.append({"began": began, "ended": ended, "busy": ended - began})
    return found


if __name__ == "__main__":
    sweeping(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4])
