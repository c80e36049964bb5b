"""Dead letters on both transports: listed by reason, and sent back once, byte for byte, whatever happens meanwhile."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import orjson
import pytest

from schemas.topics import DEAD_LETTERS, EVENTS, TOPICS
from stream.assembly import Deployment
from stream.cli import main
from stream.config import Config, load
from stream.dead_letters import FROM_HEADER, REASON_HEADER, Period, ReasonReplay, Replayed, group_of, summarise
from stream.features.events import IngestSettings, decode
from stream.segments.dead_letters import MAX_ORIGINAL_BYTES, dead_letter
from stream.transport.base import FencedError, OutRecord, Poll, Record, Session, TopicPartition, Transport
from stream.verify import verify
from tests.pipeline.support import configured, small_shop
from tests.pipeline.support import replay as play

PARTITIONS = 3
START = 1_770_000_000_000


@pytest.fixture(params=["embedded", pytest.param("kafka", marks=pytest.mark.kafka)])
def config(request: pytest.FixtureRequest, tmp_path: Path) -> Config:
    if request.param == "embedded":
        return load(None, {"transport.data_dir": tmp_path / "data", "transport.embedded.synchronous": "normal"})
    return load(
        None,
        {
            "transport.kind": "kafka",
            "transport.kafka.bootstrap_servers": request.getfixturevalue("kafka_bootstrap"),
            "transport.kafka.topic_prefix": request.getfixturevalue("topic_prefix"),
            "transport.kafka.session_timeout": "3s",
        },
    )


@pytest.fixture
def transport(config: Config) -> Iterator[Transport]:
    made = config.transport.open()
    made.create_topics(TOPICS, PARTITIONS)
    yield made
    made.close()


def broken(number: int) -> OutRecord:
    """A record for the events that decodes to one of three reasons."""
    user = f"u{number}"
    event = {"event_id": f"e{number}", "type": "browse", "user_id": user, "occurred_at": START + number}
    match number % 3:
        case 0:
            value = orjson.dumps({**event, "type": "teleport"})
        case 1:
            value = orjson.dumps(event)[:-3] + b"\xff\xfe"
        case _:
            value = orjson.dumps({**event, "occurred_at": "yesterday"})
    return OutRecord(EVENTS, user.encode(), value, timestamp=START + number)


def bury(transport: Transport, records: Iterable[OutRecord]) -> Counter[str]:
    """Push records, and write the dead letter of each, as the processor would; by reason."""
    before = [transport.end_offset(TopicPartition(EVENTS, p)) for p in range(PARTITIONS)]
    transport.produce(records)
    found: Counter[str] = Counter()
    for partition in range(PARTITIONS):
        events = list(transport.read(TopicPartition(EVENTS, partition), before[partition]))
        _, rejected = decode(events, None, IngestSettings())
        transport.produce([dead_letter(events[one.index], one, events[one.index].timestamp) for one in rejected])
        found.update(one.reason for one in rejected)
    return found


def all_of(transport: Transport, topic: str) -> list[Record]:
    return [r for p in range(PARTITIONS) for r in transport.read(TopicPartition(topic, p), 0)]


def sent_back(transport: Transport) -> dict[str, list[Record]]:
    """Records that a replay sent, by where they came from."""
    found: dict[str, list[Record]] = {}
    for record in all_of(transport, EVENTS):
        if (place := dict(record.headers).get(FROM_HEADER)) is not None:
            found.setdefault(place.decode(), []).append(record)
    return found


def replay(transport: Transport, config: Config, reason: str, period: Period | None = None) -> Replayed:
    running = ReasonReplay(transport, config, reason, period or Period())  # type: ignore[arg-type]
    planned = running.plan()
    done = running.run()
    assert done == planned
    return done


def test_they_go_back_once_byte_for_byte(config: Config, transport: Transport) -> None:
    bury(transport, [broken(number) for number in range(60)])
    originals = {f"{r.topic}/{r.partition}@{r.offset}": r for r in all_of(transport, EVENTS)}
    assert replay(transport, config, "unknown_type").sent == 20
    back = sent_back(transport)
    assert len(back) == 20
    for place, records in back.items():
        (record,) = records
        original = originals[place]
        assert (record.key, record.value, record.partition) == (original.key, original.value, original.partition)
        assert dict(record.headers)[REASON_HEADER] == b"unknown_type"
    assert replay(transport, config, "unknown_type") == Replayed(), "a second time there is nothing to do"
    # The other reasons waited.
    assert replay(transport, config, "invalid_field").sent == 20
    assert replay(transport, config, "not_utf8").sent == 20
    assert {len(records) for records in sent_back(transport).values()} == {1}
    assert len(sent_back(transport)) == 60


def test_what_is_dead_again_is_not_sent_again_in_the_same_run(config: Config, transport: Transport) -> None:
    bury(transport, [broken(3 * number) for number in range(9)])
    running = ReasonReplay(transport, config, "unknown_type", Period())
    running.plan()
    bury(transport, [broken(3 * number) for number in range(100, 105)])
    assert running.run().sent == 9
    assert replay(transport, config, "unknown_type").sent == 5


class Failing(Session):
    """Its commits fail, some of them after they were made."""

    def __init__(self, inner: Session, rng: random.Random) -> None:
        self.inner, self.rng = inner, rng

    def poll(self, max_records: int, timeout: float) -> Poll:
        return self.inner.poll(7, timeout)

    def resume(self, partitions: Iterable[TopicPartition]) -> None:
        self.inner.resume(partitions)

    def commit(self, offsets: Mapping[TopicPartition, int], outputs: Sequence[OutRecord]) -> dict[TopicPartition, int]:
        if (chance := self.rng.random()) < 0.25:
            raise FencedError("before it was made")
        first = self.inner.commit(offsets, outputs)
        if chance < 0.5:
            raise FencedError("after it was made")
        return first

    def lag(self) -> dict[TopicPartition, int]:
        return self.inner.lag()

    def close(self) -> None:
        self.inner.close()


def test_whatever_fails_each_goes_back_once(
    config: Config, transport: Transport, monkeypatch: pytest.MonkeyPatch
) -> None:
    bury(transport, [broken(3 * number) for number in range(60)])
    rng, join = random.Random(1), transport.session

    def session(group: str, topics: Sequence[str]) -> Session:
        return Failing(join(group, topics), rng)

    monkeypatch.setattr(transport, "session", session)
    monkeypatch.setattr("stream.dead_letters._ATTEMPTS", 1_000)
    monkeypatch.setattr("stream.dead_letters.time", type("Time", (), {"sleep": staticmethod(lambda seconds: None)}))
    running = ReasonReplay(transport, config, "unknown_type", Period())
    running.plan()
    running.run()
    assert {len(records) for records in sent_back(transport).values()} == {1}
    assert len(sent_back(transport)) == 60


def test_two_at_once_share_the_work(config: Config, transport: Transport) -> None:
    bury(transport, [broken(3 * number) for number in range(300)])
    sent: list[Replayed] = []

    def work(place: Transport) -> None:
        running = ReasonReplay(place, config, "unknown_type", Period())
        running.plan()
        sent.append(running.run())

    places = [config.transport.open() for _ in range(2)]
    threads = [threading.Thread(target=work, args=(place,)) for place in places]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for place in places:
        place.close()
    assert len(sent) == 2
    assert {len(records) for records in sent_back(transport).values()} == {1}
    assert len(sent_back(transport)) == 300


def test_a_period_is_kept_to(config: Config, transport: Transport) -> None:
    bury(transport, [broken(3 * number) for number in range(30)])
    done = replay(transport, config, "unknown_type", Period(START + 30, START + 60))
    assert (done.sent, done.passed_over) == (10, 10)
    assert {record.value for records in sent_back(transport).values() for record in records} == {
        broken(3 * number).value for number in range(10, 20)
    }
    # What came before is passed over for good; what comes after waits.
    assert replay(transport, config, "unknown_type").sent == 10


def test_a_cut_original_is_taken_from_its_source(config: Config, transport: Transport) -> None:
    large = b'{"event_id":"' + b"x" * (MAX_ORIGINAL_BYTES + 10_000) + b'"}'
    assert bury(transport, [OutRecord(EVENTS, b"u", large)]) == {"too_large": 1}
    assert replay(transport, config, "too_large").sent == 1
    ((record,),) = sent_back(transport).values()
    assert record.value == large
    bury(transport, [OutRecord(EVENTS, b"u", large)])
    where = TopicPartition(EVENTS, record.partition)
    transport.trim(where, transport.end_offset(where))
    assert replay(transport, config, "too_large") == Replayed(incomplete=1)


def test_they_are_counted_by_reason_with_samples(config: Config, transport: Transport) -> None:
    bury(transport, [broken(number) for number in range(50)])
    replay(transport, config, "not_utf8")
    found = summarise(transport, config, ("unknown_type", "not_utf8"), Period(START + 30), 2)
    assert {reason: (one.count, one.waiting) for reason, one in found.items()} == {
        "unknown_type": (7, 7),
        "not_utf8": (7, 0),
    }
    summary = found["unknown_type"]
    assert (summary.first_at, summary.last_at) == (START + 30, START + 48)
    assert summary.fields == {"type": 7}
    assert len(summary.samples) == 2
    assert all("teleport" in str(sample["original"]) for sample in summary.samples)
    assert summarise(transport, config, ("unknown_type",), Period(), 0)["unknown_type"].samples == []


def test_the_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = ["--data-dir", str(tmp_path / "data")]
    assert main(["topics", "create", "--partitions", str(PARTITIONS), *place]) == 0
    assert main(["dead-letters", "list", *place]) == 0
    transport = load(None, {"transport.data_dir": tmp_path / "data"}).transport.open()
    bury(transport, [broken(number) for number in range(30)])
    capsys.readouterr()

    def told(*arguments: str, code: int = 0) -> str:
        assert main(["dead-letters", *arguments, *place]) == code
        return "".join(capsys.readouterr())

    assert orjson.loads(told("list", "--json"))["unknown_type"]["count"] == 10
    assert "unknown_type" in told("list")
    assert "say which: --reason" in told("replay", code=1)
    assert "unknown_type: 10 would be sent back" in told("replay", "--all", "--dry-run")
    assert told("replay", "--reason", "unknown_type") == "unknown_type: 10 sent back\n"
    assert orjson.loads(told("replay", "--all", "--json"))["reasons"].keys() == {"not_utf8", "invalid_field"}
    assert told("replay", "--all") == "nothing to send back\n"
    assert transport.committed(group_of(load(), "unknown_type"), TopicPartition(DEAD_LETTERS, 0)) is not None
    transport.close()


def test_what_came_too_late_counts_once_it_is_allowed_to(tmp_path: Path) -> None:
    """A finished replay, its late events sent back under a longer lateness: all are accepted, and the books balance."""
    directory = tmp_path / "data"
    before = play(directory, small_shop())
    config = configured(directory, runner__clock="record", ingest__allowed_lateness="30d")
    transport = config.transport.open(create=False)
    late = replay(transport, config, "too_late").sent
    assert late > 5
    deployment = Deployment(config, transport, 1, ("processor", "modeller"), wall_clock=False)
    for runner in deployment.runners:
        runner.step(0.0)
        while runner.step(0.0) or runner.behind():
            pass
    counters = deployment.processor.populations[0].counters
    accepted = sum(count for name, count in counters.items() if name.startswith("accepted."))
    assert accepted == before.events_accepted + late
    for runner in deployment.runners:
        runner.abandon()
    assert verify(transport, config, 1).findings == []
    transport.close()


@pytest.mark.parametrize(("text", "valid"), [("2h", True), ("2026-11-20T10:00", True), ("last week", False)])
def test_times_are_read_or_refused_in_one_line(
    text: str, valid: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["dead-letters", "list", "--since", text, "--data-dir", str(tmp_path / "none")]
    code: Callable[[], int | str | None] = lambda: main(arguments)  # noqa: E731
    if valid:
        assert code() == 1  # there is no such directory, but the time was understood
    else:
        with pytest.raises(SystemExit):
            code()
        assert "neither a time" in capsys.readouterr().err
