"""The pusher, on a clock of its own and on the embedded transport: order, rates, retiming, stops and restarts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from threading import Event
from typing import Any

import orjson
import pytest
from pydantic import ValidationError

from producers.pusher import Pusher, PushProgress, PushSettings
from producers.shop import Shop, ShopSettings
from producers.source import Source, SourceError, SourceRow
from schemas.topics import EVENTS, TOPICS
from stream.transport.base import OutRecord, TopicPartition, Transport, TransportError, UnavailableError
from stream.transport.embedded import EmbeddedTransport

START = 1_600_000_000_000


class Time:
    """Time that passes only while somebody waits, or works."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


class Waiting(Event):
    """A stop event on that time; it can be set beforehand for a moment to come."""

    def __init__(self, time: Time, stop_at: float = float("inf")) -> None:
        super().__init__()
        self._time, self._stop_at = time, stop_at

    def wait(self, timeout: float | None = None) -> bool:
        assert timeout is not None and timeout > 0
        self._time.now += max(timeout, 0.000_1)  # no timer is finer, and neither is the float
        return self.is_set()

    def is_set(self) -> bool:
        return super().is_set() or self._time.now >= self._stop_at


class Rows(Source):
    """Rows of a list."""

    def __init__(self, rows: list[SourceRow], name: str = "rows") -> None:
        self._rows, self._name = rows, name

    @property
    def total(self) -> int:
        return len(self._rows)

    @property
    def fingerprint(self) -> str:
        return self._name

    def rows(self, start: int = 0) -> Iterator[SourceRow]:
        return iter(self._rows[start:])


class Sink(Transport):
    """Keeps what is produced, with the time at which it was; everything else is out of reach."""

    def __init__(self, time: Time, cost_s: float = 0.0) -> None:
        self.got: list[OutRecord] = []
        self.at: list[float] = []
        self.failures: list[Exception] = []
        self.dies_at: int | None = None
        """Produce this many records, and then be killed before the pusher hears of it."""
        self._time, self._cost = time, cost_s

    def produce(self, records: Iterable[OutRecord]) -> int:
        if self.failures:
            raise self.failures.pop(0)
        new = list(records)
        self._time.now += self._cost
        self.got.extend(new)
        self.at.extend([self._time.now] * len(new))
        if len(self.got) == self.dies_at:
            self.dies_at = None
            raise KeyboardInterrupt
        return len(new)

    def _no(self, *_: Any, **__: Any) -> Any:
        raise AssertionError("a pusher only produces")

    session = read = partitions = start_offset = end_offset = committed = trim = _no
    create_topics = check_topics = close = _no


def event(number: int) -> SourceRow:
    value = orjson.dumps({"event_id": str(number), "user_id": f"u{number % 7}", "occurred_at": START + 900 * number})
    return SourceRow(b"u%d" % (number % 7), value, START + 1_000 * number)


def push(
    rows: list[SourceRow],
    *,
    time: Time | None = None,
    sink: Sink | None = None,
    stop_at: float = float("inf"),
    **given: Any,
) -> tuple[Sink, PushProgress]:
    time = time or Time()
    sink = sink or Sink(time)
    pusher = Pusher(Rows(rows), sink, PushSettings(**given), wall=time, monotonic=time)
    return sink, pusher.run(Waiting(time, stop_at))


ROWS = [event(number) for number in range(1_000)]


def test_rows_go_out_in_order_as_they_are() -> None:
    sink, report = push(ROWS, batch_rows=64)
    assert sink.got == [OutRecord(EVENTS, row.key, row.value, None, (), row.timestamp) for row in ROWS]
    assert (report.pushed, report.next_row, report.total, report.finished) == (1_000, 1_000, 1_000, True)
    assert report.last_arrival == ROWS[-1].timestamp


def test_an_empty_source_is_finished() -> None:
    sink, report = push([])
    assert sink.got == []
    assert (report.pushed, report.finished, report.rate) == (0, True, 0.0)


def test_progress_is_told_after_every_batch() -> None:
    told: list[PushProgress] = []
    time = Time()
    Pusher(Rows(ROWS), Sink(time), PushSettings(batch_rows=300), wall=time, monotonic=time).run(progress=told.append)
    assert [report.pushed for report in told] == [300, 600, 900, 1_000]
    assert [report.finished for report in told] == [False, False, False, True]


@pytest.mark.parametrize("rate", [0.5, 3.0, 100.0, 50_000.0])
@pytest.mark.parametrize("cost_s", [0.0, 0.005])
def test_the_rate_holds_over_every_second(rate: float, cost_s: float) -> None:
    time = Time()
    sink = Sink(time, cost_s)
    rows = (ROWS * 60)[: int(rate * 20) + 1]
    began = time.now
    _, report = push(rows, time=time, sink=sink, rate=rate, batch_rows=700)
    assert report.finished
    assert report.rate <= rate * 1.01
    if cost_s * rate < 1 or rate == 50_000:  # the sink can keep up
        assert report.rate == pytest.approx(rate, rel=0.1)
    for second in range(20):
        sent = sum(began + second <= at < began + second + 1 for at in sink.at)
        assert sent <= rate + max(1.0, rate * 0.1)


def test_after_a_stall_there_is_no_more_than_one_second_at_once() -> None:
    time = Time()
    sink = Sink(time)
    sink.failures = [UnavailableError("no broker")] * 6
    began = time.now
    push(ROWS, time=time, sink=sink, rate=50)
    assert sink.at[0] - began > 15
    assert sum(at < sink.at[0] + 0.5 for at in sink.at) <= 50 + 25 + 2


def test_retiming_maps_the_start_to_now_and_keeps_the_pace() -> None:
    time = Time()
    began = time.now
    sink, _ = push(ROWS, time=time, retime=True, speed=20)
    for number, (record, at) in enumerate(zip(sink.got, sink.at, strict=True)):
        assert record.timestamp == round(began * 1000 + 1_000 * number / 20)
        assert orjson.loads(record.value or b"")["occurred_at"] == round(began * 1000 + 900 * number / 20)
        assert 0 <= at - (record.timestamp or 0) / 1000 <= 0.3
    assert sink.at[-1] - began == pytest.approx(999 / 20, abs=0.3)


def test_retiming_leaves_alone_what_has_no_time() -> None:
    odd = [
        b'{"occurred_at":"2020-09-13T12:26:41.500z","x":1}',
        b'{"occurred_at":"soon"}',
        b'{"occurred_at":true}',
        b'{"occurred_at":0}',
        b"[]",
        b"{",
        b"",
        b"\xff",
    ]
    sink, report = push([SourceRow(None, value, START) for value in (*odd, None)], retime=True)
    assert orjson.loads(sink.got[0].value or b"") == {"occurred_at": 1_700_000_001_500, "x": 1}
    assert orjson.loads(sink.got[3].value or b"") == {"occurred_at": 100_000_000_000}
    assert [record.value for record in sink.got[1:3] + sink.got[4:]] == [*odd[1:3], *odd[4:], None]
    assert report.finished


def test_records_can_be_stamped_with_the_time_of_sending() -> None:
    time = Time()
    sink, _ = push(ROWS[:10], time=time, stamp="now", rate=2)
    assert [record.timestamp for record in sink.got] == [int(at * 1000) for at in sink.at]
    assert [record.value for record in sink.got] == [row.value for row in ROWS[:10]]


def test_a_value_too_long_for_a_broker_is_cut_and_stays_a_record() -> None:
    long = SourceRow(b"u", b'{"query":"' + b"x" * 5_000 + b'"}', START)
    sink, report = push([ROWS[0], long, ROWS[1]], max_value_bytes=2_000)
    assert [len(record.value or b"") for record in sink.got][1] == 2_000
    assert (report.pushed, report.cut) == (3, 1)
    with pytest.raises(orjson.JSONDecodeError):
        orjson.loads(sink.got[1].value or b"")


def test_an_unavailable_transport_is_tried_again_with_backoff() -> None:
    time = Time()
    sink = Sink(time)
    sink.failures = [UnavailableError("no broker")] * 7
    began = time.now
    _, report = push(ROWS, time=time, sink=sink)
    assert [record.value for record in sink.got] == [row.value for row in ROWS]
    assert report.finished
    assert time.now - began == pytest.approx(0.5 + 1 + 2 + 4 + 8 + 10 + 10)


def test_other_errors_of_the_transport_are_the_callers() -> None:
    time = Time()
    sink = Sink(time)
    sink.failures = [TransportError("no such topic")]
    with pytest.raises(TransportError, match="no such topic"):
        push(ROWS, time=time, sink=sink)


@pytest.mark.parametrize("given", [{"rate": 40.0}, {"retime": True}, {"retime": True, "rate": 0.7}])
def test_it_stops_when_told_and_knows_where(given: dict[str, Any]) -> None:
    time = Time()
    sink, report = push(ROWS, time=time, stop_at=time.now + 5.1, **given)
    assert 0 < report.pushed < 1_000
    assert not report.finished
    assert report.next_row == len(sink.got)


def test_it_stops_while_it_waits_for_a_broker() -> None:
    time = Time()
    sink = Sink(time)
    sink.failures = [UnavailableError("no broker")] * 100
    _, report = push(ROWS, time=time, sink=sink, stop_at=time.now + 30)
    assert (report.pushed, report.next_row, sink.got) == (0, 0, [])


@pytest.mark.parametrize("given", [{}, {"retime": True, "speed": 50.0}])
def test_a_second_run_carries_on_from_the_position_file(tmp_path: Path, given: dict[str, Any]) -> None:
    time = Time()
    whole, interrupted = Sink(time), Sink(time)
    settings = PushSettings(batch_rows=50, **given)
    began = time.now
    Pusher(Rows(ROWS), whole, settings, wall=time, monotonic=time).run(Waiting(time))
    time.now = began
    for _ in range(20):
        pusher = Pusher(Rows(ROWS), interrupted, settings, position=tmp_path / "at", wall=time, monotonic=time)
        report = pusher.run(Waiting(time), limit=117)
        time.now += 0.5
    assert report.finished
    assert interrupted.got == whole.got


def test_a_crash_after_producing_sends_only_that_batch_again(tmp_path: Path) -> None:
    sink = Sink(Time())
    sink.dies_at = 200
    settings = PushSettings(batch_rows=100)
    with pytest.raises(KeyboardInterrupt):
        Pusher(Rows(ROWS), sink, settings, position=tmp_path / "at").run()
    Pusher(Rows(ROWS), sink, settings, position=tmp_path / "at").run()
    values = [row.value for row in ROWS]
    assert [record.value for record in sink.got] == values[:200] + values[100:]


def test_a_position_in_another_source_and_nonsense_are_refused(tmp_path: Path) -> None:
    time = Time()
    position = tmp_path / "at"
    Pusher(Rows(ROWS), Sink(time), position=position).run(limit=10)
    with pytest.raises(SourceError, match=r"another source \(rows, not others\); delete it"):
        Pusher(Rows(ROWS, "others"), Sink(time), position=position).run()
    for content in (b"", b"[]", b"{}", b'{"source":"rows","next_row":"x","origin_ms":0}'):
        position.write_bytes(content)
        with pytest.raises(SourceError, match="not a position file"):
            Pusher(Rows(ROWS), Sink(time), position=position).run()


def test_start_and_limit_choose_the_rows(tmp_path: Path) -> None:
    sink = Sink(Time())
    report = Pusher(Rows(ROWS), sink, PushSettings(batch_rows=7)).run(start=500, limit=30)
    assert [record.value for record in sink.got] == [row.value for row in ROWS[500:530]]
    assert (report.pushed, report.next_row, report.finished) == (30, 530, False)


@pytest.mark.parametrize("given", [{"rate": 0}, {"speed": 0}, {"batch_rows": 0}, {"stamp": "later"}, {"reate": 5}])
def test_settings_that_make_no_sense_are_refused(given: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(given))):
        PushSettings(**given)


def test_the_shop_goes_whole_into_the_embedded_transport(tmp_path: Path) -> None:
    shop = Shop(ShopSettings(users=50, days=3, broken=0.05))
    transport = EmbeddedTransport(tmp_path)
    transport.create_topics(TOPICS, 3)
    Pusher(shop, transport, PushSettings(batch_rows=113)).run()
    partitions: dict[bytes | None, set[int]] = {}
    found = []
    for partition in range(3):
        for record in transport.read(TopicPartition(EVENTS, partition), 0):
            partitions.setdefault(record.key, set()).add(partition)
            found.append(SourceRow(record.key, record.value, record.timestamp))
    transport.close()
    assert sorted(found, key=repr) == sorted(shop.rows(), key=repr)
    assert all(len(where) == 1 for key, where in partitions.items() if key)
