"""When the client is asked for what comes next, and what is waited for: on a fetcher that notes its calls."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from kafka.structs import TopicPartition as KafkaPartition

from stream.transport import kafka_fetch
from stream.transport.kafka_fetch import Ahead
from stream.transport.records import RecordColumns

WHERE = KafkaPartition("events", 0)


class Fetcher:
    """Holds answers; `waits_for` comes only to who waits."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.held: list[int] = []
        self.waits_for: list[int] = []
        self._manager = SimpleNamespace(call_soon=self.call_soon)
        self.turn = True
        """Whether the thread of the connections gets to what it is asked for."""

    def call_soon(self, what: Any) -> Any:
        self.calls.append("asked")
        assert what == self._send_fetches_async
        return SimpleNamespace(is_done=self.turn)

    async def _send_fetches_async(self) -> None:
        raise AssertionError("on the thread of the connections only")

    def fetched_records(self, most: int) -> tuple[dict[Any, list[Any]], bool]:
        self.calls.append("drained")
        found, self.held = self.held, []
        return ({WHERE: [columns(count) for count in found]} if found else {}), False

    def fetch_records(self, most: int, timeout_ms: int) -> tuple[dict[Any, list[Any]], bool]:
        self.calls.append("waited")
        assert timeout_ms == kafka_fetch.ANSWER_MS
        self.held, self.waits_for = self.waits_for, []
        found = self.fetched_records(most)
        self.calls.pop()
        return found


def columns(count: int) -> RecordColumns:
    numbers = np.arange(count)
    return RecordColumns("events", 0, numbers, numbers, [b"k"] * count, [b"v"] * count)


def ahead_of(fetcher: Fetcher) -> Ahead:
    return Ahead(SimpleNamespace(_fetcher=fetcher))


def test_what_is_there_is_taken_without_waiting_and_no_more_is_asked_for_until_it_is_time() -> None:
    fetcher = Fetcher()
    ahead = ahead_of(fetcher)
    ahead.ask()
    fetcher.held = [3, 4]
    assert sum(map(len, ahead.take(100)[WHERE])) == 7
    assert fetcher.calls == ["asked", "drained"]


def test_an_answer_that_is_late_is_waited_for() -> None:
    fetcher = Fetcher()
    ahead = ahead_of(fetcher)
    ahead.ask()
    fetcher.waits_for = [5]
    assert sum(map(len, ahead.take(100)[WHERE])) == 5
    assert fetcher.calls == ["asked", "drained", "waited"]
    assert ahead.take(100) == {}, "and nothing may come"


def test_nothing_is_drained_while_the_request_has_not_had_its_turn() -> None:
    fetcher = Fetcher()
    fetcher.turn = False
    ahead = ahead_of(fetcher)
    ahead.ask()
    fetcher.waits_for = [5]
    assert sum(map(len, ahead.take(100)[WHERE])) == 5
    assert fetcher.calls == ["asked", "waited"]


@pytest.mark.parametrize(("found", "asks"), [([99], False), ([60, 40], True), ([250], True)])
def test_a_backlog_is_asked_for_at_once(found: list[int], asks: bool) -> None:
    fetcher = Fetcher()
    fetcher.held = found
    ahead_of(fetcher).take(100)
    assert fetcher.calls == ["drained", "asked"][: 1 + asks]


def test_an_unknown_client_has_nothing_for_us(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka_fetch, "supported", lambda: False)
    fetcher = Fetcher()
    ahead = ahead_of(fetcher)
    ahead.ask()
    assert ahead.take(100) == {} and fetcher.calls == []
