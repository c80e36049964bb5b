"""What a running stage does not wait for: looks at its tables, and trims of its changelog."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import pytest

from stream.runtime import changelog, tables
from stream.runtime.runner import Runner
from stream.runtime.stage import Output
from stream.transport.base import OutRecord, Record, TopicPartition, UnavailableError
from tests.runtime.memory import MemoryTransport
from tests.runtime.test_runner import Sums, expected, numbers

NAMES = TopicPartition("names", 0)


class Following(Sums):
    """Notes what it heard of its table, and on which thread it was called."""

    tables = ("names",)

    def __init__(self) -> None:
        super().__init__()
        self.known: list[bytes | None] = []
        self.threads: set[str] = set()
        self.ticks = 0

    def update_table(self, topic: str, records: Sequence[Record]) -> None:
        self.threads.add(threading.current_thread().name)
        self.known += [record.value for record in records]

    def tick(self, now_ms: int | None) -> Output | None:
        self.ticks += 1
        return None


class Slow(MemoryTransport):
    """Whose tables and trims may take their time, or fail."""

    def __init__(self) -> None:
        super().__init__()
        self.go_on = threading.Event()
        self.go_on.set()
        self.away = False
        self.asked: list[str] = []

    def end_offset(self, where: TopicPartition) -> int:
        if where == NAMES:
            self.asked.append(threading.current_thread().name)
            if self.away:
                raise UnavailableError("the broker went away")
            assert self.go_on.wait(10)
        return super().end_offset(where)

    def trim(self, where: TopicPartition, before: int) -> None:
        self.asked.append(threading.current_thread().name)
        assert self.go_on.wait(10)
        super().trim(where, before)


@contextmanager
def running(made: Runner) -> Iterator[None]:
    stop = threading.Event()
    thread = threading.Thread(target=made.run, args=(stop,), kwargs={"poll_timeout": 0.001}, name="runs")
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(10)
        assert not thread.is_alive()


def until(is_so: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + 10
    while not is_so():
        assert time.monotonic() < deadline, what
        time.sleep(0.002)


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "INTERVAL_S", 0.005)


def test_a_table_that_takes_its_time_stops_nobody_and_is_told_on_the_stages_own_thread() -> None:
    transport, stage = Slow(), Following()
    transport.produce([OutRecord("names", b"1", b"first", 0)])
    with running(Runner(stage, transport, group="g")):
        until(lambda: stage.ticks, "it runs")
        assert stage.known == [b"first"], "what there was is known before the first batch"
        transport.go_on.clear()
        looks = len(transport.asked)
        until(lambda: len(transport.asked) > looks, "a look that takes its time")
        transport.produce([OutRecord("names", b"1", b"second", 0)])
        ticks = stage.ticks
        until(lambda: stage.ticks > ticks + 20, "the loop goes on")
        assert stage.known == [b"first"]
        transport.go_on.set()
        until(lambda: stage.known == [b"first", b"second"], "the news, once")
        transport.produce([OutRecord("names", b"1", b"third", 0)])
        until(lambda: stage.known == [b"first", b"second", b"third"], "and what came later")
    assert stage.threads == {"runs"}
    assert set(transport.asked) == {"runs", "sums-aside"}


def test_with_the_datas_own_clock_a_table_is_read_before_every_batch_and_in_place() -> None:
    transport, stage = Slow(), Following()
    transport.produce(numbers(1, 50, 1))
    with running(Runner(stage, transport, group="g", batch_records=10, wall_clock=False)):
        until(lambda: transport.committed("g", TopicPartition("numbers", 0)) == 50, "all is committed")
    assert set(transport.asked) == {"runs"}
    assert len(transport.asked) >= 5


def test_a_table_that_cannot_be_read_starts_the_stage_over() -> None:
    transport, stage = Slow(), Following()
    with running(Runner(stage, transport, group="g")):
        until(lambda: stage.ticks > 3, "it runs")
        transport.away = True
        until(lambda: transport.sessions and not stage.sums, "the session is given up")
        transport.away = False
        transport.produce([OutRecord("names", b"1", b"new", 0)])
        until(lambda: stage.known == [b"new"], "it is back")
    assert transport.sessions >= 2


def test_a_partition_that_comes_while_a_table_is_read_aside_still_has_it_at_once() -> None:
    transport, stage = Slow(), Following()
    made = Runner(stage, transport, group="g")
    with running(made):
        until(lambda: stage.ticks > 3, "it runs")
        transport.go_on.clear()
        until(lambda: made._tables._look is not None, "a look under way")
        transport.produce([OutRecord("names", b"1", b"new", 0)])
        # As when a restore ends: whoever had the partition may have known more.
        made._tables.hurry()
        time.sleep(0.05)
        transport.go_on.set()
        until(lambda: stage.known, "the news")
        time.sleep(0.05)
        assert stage.known == [b"new"], "what the look aside brings is known by then, and not told again"


def test_a_changelog_is_trimmed_aside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changelog, "TRIM_BYTES", 1)
    monkeypatch.setattr(changelog, "TRIM_SHARE", 0.0)
    transport, stage = Slow(), Sums()
    transport.go_on.clear()
    records = numbers(1, 600, 1)
    where = TopicPartition("sums-state", 0)
    transport.produce(records)
    with running(Runner(stage, transport, group="g", batch_records=10)):
        until(lambda: transport.committed("g", TopicPartition("numbers", 0)) == 600, "all is committed meanwhile")
        until(lambda: transport.asked, "a trim that takes its time")
        assert transport.start_offset(where) == 0
        transport.go_on.set()
        until(lambda: transport.end_offset(where) - transport.start_offset(where) <= 2 * 3 + 1, "the trims come after")
    assert set(transport.asked) == {"sums-aside"}
    again = Sums()
    made = Runner(again, transport, group="g")
    made.step(0)
    assert again.sums[0] == {key: value for (_, key), value in expected(records)[0].items()}
