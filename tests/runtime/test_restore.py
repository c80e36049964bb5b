"""Restores that go on between the polls of live partitions, and partitions that are lost in the middle of one."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from stream.runtime import changelog
from stream.runtime import runner as runner_module
from stream.runtime.observing import SilentObserver
from stream.runtime.restore import AHEAD
from stream.runtime.runner import RESTORES_AT_ONCE, Runner
from stream.transport.base import OutRecord, Record, TopicPartition, UnavailableError
from tests.runtime.memory import MemoryTransport
from tests.runtime.test_runner import Sums, drain, expected, numbers

STATE = "sums-state"


def live(runner: Runner) -> int:
    """One step as `run` makes it."""
    return runner.advance(0)


def until(condition: Callable[[], bool], runner: Runner) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        live(runner)
        assert time.monotonic() < deadline


def with_state(partitions: int, count: int, seed: int = 1) -> tuple[MemoryTransport, list[OutRecord]]:
    """A transport on which so many numbers were summed up already."""
    transport = MemoryTransport(partitions)
    records = numbers(seed, count, partitions)
    transport.produce(records)
    runner = Runner(Sums(), transport, group="g", batch_records=5)
    drain(runner)
    runner.abandon()
    return transport, records


def gated(transport: MemoryTransport, partition: int) -> threading.Event:
    """Reading this partition's state waits for the event, from its second record on."""
    gate, read = threading.Event(), transport.read

    def waiting(where: TopicPartition, start: int, end: int | None = None) -> Iterator[Record]:
        for number, record in enumerate(read(where, start, end)):
            if number and where == TopicPartition(STATE, partition):
                assert gate.wait(10)
            yield record

    transport.read = waiting  # type: ignore[method-assign]
    return gate


def test_live_partitions_flow_while_another_one_is_restored() -> None:
    transport, records = with_state(3, 300)
    gate = gated(transport, 1)
    more = numbers(2, 60, 3)
    transport.produce(more)
    stage = Sums()
    runner = Runner(stage, transport, group="g", batch_records=5)
    try:
        for partition in (0, 2):
            whole = len(transport.logs[TopicPartition("numbers", partition)])
            until(lambda p=partition, n=whole: transport.offsets["g", TopicPartition("numbers", p)] == n, runner)  # type: ignore[misc]
        assert 1 not in stage.sums
        assert transport.offsets["g", TopicPartition("numbers", 1)] == 100, "not before it is restored"
    finally:
        gate.set()
    until(lambda: not runner.behind(), runner)
    assert {(p, k): v for p, held in stage.sums.items() for k, v in held.items()} == dict(expected(records + more)[0])


def test_readiness_waits_for_every_restore_and_liveness_for_none() -> None:
    class Told(SilentObserver):
        def __init__(self) -> None:
            self.said: list[str] = []
            self.beats = 0

        def beat(self, stage: str) -> None:
            self.beats += 1

        def ready(self, stage: str) -> None:
            self.said.append("ready")

        def not_ready(self, stage: str, reason: str) -> None:
            self.said.append(reason)

    transport, _ = with_state(2, 300)
    gate = gated(transport, 1)
    stage, told = Sums(), Told()
    runner = Runner(stage, transport, group="g", observer=told)
    try:
        until(lambda: 0 in stage.sums, runner)
        told.said.clear()
        before = told.beats
        for _ in range(5):
            live(runner)
        assert set(told.said) == {"restoring partition 1"}
        assert told.beats == before + 5
    finally:
        gate.set()
    until(lambda: 1 in stage.sums, runner)
    assert told.said[-1] == "ready"


def test_one_that_stands_still_keeps_none_of_many_from_being_restored() -> None:
    partitions = 3 * RESTORES_AT_ONCE
    transport, _ = with_state(partitions, 20 * partitions)
    gate = gated(transport, 0)
    stage = Sums()
    runner = Runner(stage, transport, group="g")
    try:
        until(lambda: len(stage.sums) == partitions - 1, runner)
    finally:
        gate.set()
    until(lambda: len(stage.sums) == partitions, runner)


def test_a_partition_that_is_lost_in_the_middle_leaves_no_trace() -> None:
    transport, _ = with_state(2, 300)
    gate = gated(transport, 1)
    transport.owners = {0: transport.sessions, 1: transport.sessions}
    stage = Sums()
    runner = Runner(stage, transport, group="g")
    until(lambda: 0 in stage.sums, runner)
    assert any(thread.name == "restore-sums-1" for thread in threading.enumerate())
    transport.owners[1] = -1
    live(runner)
    assert not runner._restores and not runner._placed
    gate.set()
    deadline = time.monotonic() + 10
    while any(thread.name == "restore-sums-1" for thread in threading.enumerate()):
        assert time.monotonic() < deadline, "its reader goes on"
        time.sleep(0.01)
    for _ in range(3):
        live(runner)
    assert list(stage.sums) == [0]
    transport.owners[1] = transport.owners[0]
    until(lambda: 1 in stage.sums, runner)


@pytest.mark.parametrize("seed", range(6))
def test_whoever_has_a_partition_and_for_how_long_every_number_counts_once(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three members, partitions that move at random times, reads that dawdle or fail, slices of a millisecond.

    Moves are frequent first, then rare, and at last none, or a restore might never come to its end.
    """
    monkeypatch.setattr(runner_module, "RESTORE_SLICE_S", 0.001)
    monkeypatch.setattr(changelog, "TRIM_BYTES", 5_000)
    rng = random.Random(seed)
    transport, records = with_state(4, 4 * 5 * (AHEAD + 4), seed)
    more = numbers(seed + 100, 400, 4)
    transport.produce(more)
    read = transport.read
    commits: list[int] = []
    transport.after_commit = lambda: commits.append(1)
    failures = moves = 0

    def unsteady(where: TopicPartition, start: int, end: int | None = None) -> Iterator[Record]:
        nonlocal failures
        for record in read(where, start, end):
            if where.topic == STATE:
                time.sleep(rng.choice((0, 0, 0.002)))
                if rng.random() < 0.01 and failures < 50:
                    failures += 1
                    raise UnavailableError("the broker went away")
            yield record

    transport.read = unsteady  # type: ignore[method-assign]
    transport.owners = dict.fromkeys(range(4), -1)
    members = [Runner(Sums(), transport, group="g", batch_records=3) for _ in range(3)]
    lost_in_the_middle = 0
    deadline = time.monotonic() + 60
    while any(transport.offsets["g", w] < transport.end_offset(w) for w in places(4)):
        assert time.monotonic() < deadline
        if rng.random() < (0.03 if moves < 60 else 0.003):
            partition, owner = rng.randrange(4), rng.choice(members)
            if moves >= 120 and transport.owners[partition] in map(number_of, members):
                continue
            moves += 1
            lost_in_the_middle += any(partition in member._restores for member in members)
            transport.owners[partition] = number_of(owner)
        member = rng.choice(members)
        try:
            live(member)
        except UnavailableError:
            # Its session is gone, and with it what it had.
            for partition, owner_number in transport.owners.items():
                if owner_number not in map(number_of, members):
                    transport.owners[partition] = -1
    assert lost_in_the_middle
    sums, running = expected(records + more)
    found = Counter[tuple[int, str]]()
    for partition in range(4):
        log = transport.logs[TopicPartition("running", partition)]
        assert [(r.partition, r.key, r.value) for r in log] == [r for r in running if r[0] == partition]
        for record in log:
            found[partition, (record.key or b"").decode()] = int(record.value or 0)
    assert found == sums


def places(partitions: int) -> list[TopicPartition]:
    return [TopicPartition("numbers", partition) for partition in range(partitions)]


def number_of(runner: Runner) -> int:
    session = runner._session
    return -2 if session is None else session.number  # type: ignore[attr-defined]
