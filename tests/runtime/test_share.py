"""Duty cycles, by a clock of our own: of a share itself, of a runner, of the processor's sweeps."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.runtime.runner import Runner
from stream.runtime.share import LONGEST_REST_S, Share
from stream.transport.base import OutRecord
from tests.runtime.memory import MemoryTransport
from tests.runtime.test_runner import Sums


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@given(st.floats(0.05, 1.0), st.lists(st.floats(0.001, 2.0), min_size=1, max_size=20))
def test_work_takes_its_share_of_the_time(share: float, pieces: list[float]) -> None:
    clock = Clock()
    limited = Share(share, clock)
    for seconds in pieces:
        with limited.working():
            clock.now += seconds
        clock.now += limited.left()
        assert limited.left() == 0
    assert sum(pieces) / clock.now == pytest.approx(share)


def test_work_that_fails_is_work() -> None:
    clock = Clock()
    limited = Share(0.5, clock)
    with pytest.raises(RuntimeError), limited.working():
        clock.now += 3.0
        raise RuntimeError
    assert limited.left() == 3.0


def test_no_rest_is_so_long_that_the_group_would_give_the_member_up() -> None:
    clock = Clock()
    limited = Share(0.01, clock)
    with limited.working():
        clock.now += 100.0
    assert limited.left() == LONGEST_REST_S


class Slow(Sums):
    """Takes two seconds a batch, by the clock."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.clock = clock

    def process(self, batch, now_ms):  # type: ignore[no-untyped-def]
        self.clock.now += 2.0
        return super().process(batch, now_ms)


class Stop(threading.Event):
    """Waits by the clock, and is set when the records are done."""

    def __init__(self, clock: Clock, transport: MemoryTransport, commits: int) -> None:
        super().__init__()
        self.clock, self.transport, self.commits = clock, transport, commits
        self.waited: list[float] = []

    def is_set(self) -> bool:
        return self.transport.commits >= self.commits

    def wait(self, timeout: float | None = None) -> bool:
        assert timeout is not None
        self.waited.append(timeout)
        self.clock.now += timeout
        return False


@pytest.mark.parametrize(("share", "rest"), [(1.0, 0.0), (0.5, 2.0), (0.25, 6.0)])
def test_a_runner_rests_between_batches(share: float, rest: float, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, transport = Clock(), MemoryTransport()
    transport.append([OutRecord("numbers", b"k", b"1", 0) for _ in range(3)])
    runner = Runner(Slow(clock), transport, group="g", batch_records=1, share=share)
    monkeypatch.setattr(runner, "_share", Share(share, clock))
    stop = Stop(clock, transport, commits=3)
    runner.run(stop, poll_timeout=0.0)
    assert sum(stop.waited) == pytest.approx(3 * rest)
    assert max(stop.waited, default=0.0) <= 1.0, "the loop must be seen to come round while it rests"
