"""`resegment verify`: it finds nothing where nothing is wrong, and every kind of damage where something is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from schemas import topics
from stream.cli import main
from stream.config import Config
from stream.replay import Replay
from stream.runtime.pipeline import Pipeline
from stream.segments.changes import change_id
from stream.transport.base import OutRecord, Record, TopicPartition, Transport
from stream.transport.embedded import EmbeddedTransport
from stream.verify import Report, verify
from tests.pipeline.support import configured, replay, small_shop
from tests.runtime.memory import MemoryTransport, Stored

RULES = [{"id": "buyers", "name": "Buyers", "when": "purchases_30d >= 2", "leave_when": "purchases_30d < 1"}]
STAGES = ("processor", "modeller", "campaigns", "delivery")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Config, Path]:
    """A replay with everything in it: rules, quarantine, dead letters, several models, campaigns."""
    directory = tmp_path_factory.mktemp("verify") / "data"
    replay(directory, small_shop(), rules=RULES)
    return configured(directory, rules=RULES), directory


@pytest.fixture
def memory(finished: tuple[Config, Path]) -> MemoryTransport:
    """The same in memory, where it can be damaged."""
    return copied(finished[1])


def copied(directory: Path, *more: str) -> MemoryTransport:
    """The topics (and `more`) of a directory with one partition, and the groups' offsets."""
    source, copy = EmbeddedTransport(directory, create=False), MemoryTransport()
    for name in (*topics.BY_NAME, *more):
        where = TopicPartition(name, 0)
        log: list[Stored] = copy.logs.setdefault(where, [])
        for record in source.read(where, 0):
            # Compacted topics and trimmed ones have no record at every offset; a list has.
            log += [Stored(*where, offset, 0, b"hole", b"hole") for offset in range(len(log), record.offset)]
            log.append(Stored(*where, record.offset, record.timestamp, record.key, record.value, record.headers))
        copy.starts[where] = source.start_offset(where)
    for stage in STAGES:
        for topic in (topics.EVENTS, topics.OBSERVATIONS, topics.SEGMENT_CHANGES, topics.CAMPAIGN_ACTIONS):
            where = TopicPartition(topic, 0)
            if (offset := source.committed(f"resegment-{stage}", where)) is not None:
                copy.offsets[f"resegment-{stage}", where] = offset
    source.close()
    return WithoutHoles(copy)


class WithoutHoles(MemoryTransport):
    """Skips what only fills a list up."""

    def __init__(self, made: MemoryTransport) -> None:
        super().__init__()
        self.__dict__.update(made.__dict__)

    def read(self, where: TopicPartition, start: int, end: int | None = None) -> Iterator[Record]:
        return (record for record in super().read(where, start, end) if record.value != b"hole")


def log_of(memory: MemoryTransport, topic: str) -> list[Stored]:
    return memory.logs[TopicPartition(topic, 0)]


def again(memory: MemoryTransport, topic: str, at: int = -1, **changed: Any) -> None:
    """Append a record once more, its JSON changed."""
    log = log_of(memory, topic)
    record = [one for one in log if one.value is not None and one.value != b"hole"][at]
    value = {**orjson.loads(record.value or b""), **changed}
    log.append(record._replace(offset=len(log), value=orjson.dumps(value)))


def rewrite(memory: MemoryTransport, topic: str, at: int, **changed: Any) -> None:
    log = log_of(memory, topic)
    places = [i for i, one in enumerate(log) if one.value is not None and one.value != b"hole"]
    value = {**orjson.loads(log[places[at]].value or b""), **changed}
    log[places[at]] = log[places[at]]._replace(value=orjson.dumps(value))


def lose(memory: MemoryTransport, topic: str, at: int) -> None:
    """One record is gone; the others keep their offsets."""
    log = log_of(memory, topic)
    log[at] = log[at]._replace(value=b"hole")


def state_of(memory: MemoryTransport) -> TopicPartition:
    return TopicPartition(topics.USER_STATE, 0)


def test_nothing_is_found_where_nothing_is_wrong(finished: tuple[Config, Path], memory: MemoryTransport) -> None:
    config, directory = finished
    transport = EmbeddedTransport(directory, create=False)
    report = verify(transport, config, 1)
    transport.close()
    assert report.findings == []
    assert report.still and not report.notes
    assert report.checked["events"] == small_shop().summary.rows
    for what in ("changes", "memberships", "dead_letters", "anomalies", "models", "actions", "outcomes", "users"):
        assert report.checked[what] > 2, what
    assert verify(memory, config, 1).findings == [], "the copy that the other tests damage"


def change_of_gone(memory: MemoryTransport) -> None:
    """Of somebody who has a later one: without it the state would have to tell."""
    users = [record.key for record in log_of(memory, topics.SEGMENT_CHANGES)]
    lose(memory, topics.SEGMENT_CHANGES, next(at for at, user in enumerate(users) if user in users[at + 1 :]))


def change_with_gap(memory: MemoryTransport) -> None:
    last = orjson.loads(log_of(memory, topics.SEGMENT_CHANGES)[-1].value or b"")
    sequence = last["sequence"] + 2
    again(memory, topics.SEGMENT_CHANGES, sequence=sequence, id=change_id(last["user_id"], sequence))


def last_changes_gone(memory: MemoryTransport) -> None:
    del log_of(memory, topics.SEGMENT_CHANGES)[-20:]


def offsets(memory: MemoryTransport, stage: str, topic: str, by: int) -> None:
    memory.offsets[f"resegment-{stage}", TopicPartition(topic, 0)] += by


def lost_state(memory: MemoryTransport) -> None:
    memory.logs[state_of(memory)].clear()
    memory.starts[state_of(memory)] = 0


def trimmed_state(memory: MemoryTransport) -> None:
    memory.starts[state_of(memory)] = memory.end_offset(state_of(memory)) - 1


def wrong_state(memory: MemoryTransport) -> None:
    """An earlier state, and offsets that agree with it: as if the changelog had been put back from a backup."""
    log = memory.logs[state_of(memory)]
    log.pop()
    header = log[-1].value or b""
    length = int.from_bytes(header[4:8], "little")
    memory.offsets["resegment-processor", TopicPartition(topics.EVENTS, 0)] = orjson.loads(header[8 : 8 + length])[
        "inputs"
    ][topics.EVENTS]


def unread_and_deleted(memory: MemoryTransport) -> None:
    where = TopicPartition(topics.EVENTS, 0)
    log_of(memory, topics.EVENTS).append(Stored(*where, memory.end_offset(where), 0, b"k", b"{}"))
    memory.starts[where] = memory.end_offset(where)


def segment(identifier: str) -> dict[str, str]:
    return {"id": identifier, "name": identifier}


DAMAGE: dict[str, tuple[str, str, Callable[[MemoryTransport], None]]] = {
    "a change lost": ("changes", "with a gap", change_of_gone),
    "the last changes lost": ("state", "but the changes end with", last_changes_gone),
    "a change twice": ("changes", "again", lambda m: again(m, topics.SEGMENT_CHANGES)),
    "a sequence with a gap": ("changes", "with a gap", change_with_gap),
    "an id made up": ("changes", "has id", lambda m: rewrite(m, topics.SEGMENT_CHANGES, 50, id="0" * 32)),
    "a change from elsewhere": (
        "changes",
        "leaves seg-99",
        lambda m: rewrite(m, topics.SEGMENT_CHANGES, 50, **{"from": segment("seg-99")}),
    ),
    "a rule left twice": (
        "changes",
        "is not in it",
        lambda m: rewrite(m, topics.SEGMENT_CHANGES, 50, **{"from": segment("rule:none"), "to": None}),
    ),
    "a segment that the model lacks": (
        "changes",
        "does not have",
        lambda m: rewrite(m, topics.SEGMENT_CHANGES, 50, to=segment("seg-99")),
    ),
    "a change that is none": (
        "changes",
        "no segment change",
        lambda m: rewrite(m, topics.SEGMENT_CHANGES, 50, user_id=7),
    ),
    "a source not read yet": (
        "changes",
        "has not read",
        lambda m: rewrite(m, topics.SEGMENT_CHANGES, -1, source={"topic": "events", "partition": 0, "offset": 10**9}),
    ),
    "a membership behind": (
        "memberships",
        "stands at sequence",
        lambda m: again(m, topics.SEGMENT_MEMBERSHIP, sequence=1),
    ),
    "a membership elsewhere": (
        "memberships",
        "another one",
        lambda m: again(m, topics.SEGMENT_MEMBERSHIP, segment=segment("seg-99")),
    ),
    "a membership lost": (
        "memberships",
        "has none",
        lambda m: lose(m, topics.SEGMENT_MEMBERSHIP, len(log_of(m, topics.SEGMENT_MEMBERSHIP)) - 1),
    ),
    "a membership without a change": (
        "memberships",
        "no change brought about",
        lambda m: log_of(m, topics.SEGMENT_MEMBERSHIP).append(
            log_of(m, topics.SEGMENT_MEMBERSHIP)[-1]._replace(
                offset=len(log_of(m, topics.SEGMENT_MEMBERSHIP)),
                key=b"nobody",
                value=b'{"user_id":"nobody","segment":null,"sequence":1,"cause":"entered","model_version":1,"confidence":1}',
            )
        ),
    ),
    "a dead letter twice": ("dead letters", "published twice", lambda m: again(m, topics.DEAD_LETTERS)),
    "a dead letter lost": ("counts", "of dead", lambda m: lose(m, topics.DEAD_LETTERS, 3)),
    "an anomaly twice": ("anomalies", "twice", lambda m: again(m, topics.ANOMALIES)),
    "an anomaly lost": ("anomalies", "are not the", lambda m: lose(m, topics.ANOMALIES, 0)),
    "an event that counted nowhere": ("state", "stands at offset", lambda m: offsets(m, "processor", topics.EVENTS, 1)),
    "an event lost": ("counts", "accounts for", lambda m: lose(m, topics.EVENTS, 1000)),
    "events deleted unread": ("offsets", "are gone", unread_and_deleted),
    "the state lost": ("state", "stands at offset 0", lost_state),
    "the state cut off": ("state", "needs", trimmed_state),
    "the state put back": ("state", "", wrong_state),
    "the modeller's offset": ("state", "observations", lambda m: offsets(m, "modeller", topics.OBSERVATIONS, -1)),
    "a campaign's offset": ("state", "segment-changes", lambda m: offsets(m, "campaigns", topics.SEGMENT_CHANGES, -1)),
    "a version twice": ("models", "comes after version", lambda m: again(m, topics.SEGMENT_MODEL)),
    "a pin that was never published": (
        "models",
        "pins version 99",
        lambda m: log_of(m, topics.SEGMENT_MODEL).append(
            log_of(m, topics.SEGMENT_MODEL)[-1]._replace(
                offset=len(log_of(m, topics.SEGMENT_MODEL)),
                key=topics.MODEL_PIN_KEY,
                value=orjson.dumps({**orjson.loads(log_of(m, topics.SEGMENT_MODEL)[-1].value or b""), "version": 99}),
            )
        ),
    ),
    "an action twice": ("actions", "after change", lambda m: again(m, topics.CAMPAIGN_ACTIONS)),
    "an action's id": ("actions", "has id", lambda m: rewrite(m, topics.CAMPAIGN_ACTIONS, 3, id="act_" + "0" * 32)),
    "an action without a change": (
        "actions",
        "does not exist",
        lambda m: again(m, topics.CAMPAIGN_ACTIONS, sequence=10**6),
    ),
    "an outcome twice": ("outcomes", "are not", lambda m: again(m, topics.CAMPAIGN_OUTCOMES)),
    "an outcome lost": ("outcomes", "are not", lambda m: lose(m, topics.CAMPAIGN_OUTCOMES, 2)),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_found(finished: tuple[Config, Path], memory: MemoryTransport, name: str) -> None:
    check, told, damage = DAMAGE[name]
    damage(memory)
    report = verify(memory, finished[0], 1)
    assert [one for one in report.findings if one.check == check and told in one.what], [
        str(one) for one in report.findings
    ]


def test_a_segment_that_returns_after_its_death_is_found(
    finished: tuple[Config, Path], memory: MemoryTransport
) -> None:
    log = log_of(memory, topics.SEGMENT_MODEL)
    newest = orjson.loads(log[-1].value or b"")
    gone, stays = newest["profiles"][0], newest["profiles"][1:]
    lineage = [{"kind": "survived", "segment": profile["id"]} for profile in stays]
    died = {**newest, "profiles": stays, "lineage": [*lineage, {"kind": "died", "segment": gone["id"]}]}
    returned = {**newest, "lineage": [*lineage, {"kind": "born", "segment": gone["id"]}]}
    for model in (died, returned):
        version = model["version"] = newest["version"] + 1 + (model is returned)
        log.append(log[-1]._replace(offset=len(log), key=b"%012d" % version, value=orjson.dumps(model)))
    told = [one.what for one in verify(memory, finished[0], 1).findings if one.check == "models"]
    assert f"{gone['id']} is used again after its death" in told


def test_a_pinned_version_is_no_finding(finished: tuple[Config, Path], memory: MemoryTransport) -> None:
    log = log_of(memory, topics.SEGMENT_MODEL)
    first = next(record for record in log if record.value != b"hole")
    log.append(first._replace(offset=len(log), key=topics.MODEL_PIN_KEY))
    assert verify(memory, finished[0], 1).findings == []
    log.append(first._replace(offset=len(log), key=topics.MODEL_PIN_KEY, value=None))
    assert verify(memory, finished[0], 1).findings == []


def test_a_user_in_two_partitions_is_found(finished: tuple[Config, Path], memory: MemoryTransport) -> None:
    memory.count = 2
    for (topic, _), log in list(memory.logs.items()):
        memory.logs[TopicPartition(topic, 1)] = [record._replace(partition=1) for record in log]
        memory.starts[TopicPartition(topic, 1)] = memory.starts.get(TopicPartition(topic, 0), 0)
    for (group, where), offset in list(memory.offsets.items()):
        memory.offsets[group, TopicPartition(where.topic, 1)] = offset
    found = verify(memory, finished[0], 2).findings
    assert any(one.check == "partitions" and "more than one partition" in one.what for one in found)


def test_what_retention_deleted_is_no_finding(finished: tuple[Config, Path], memory: MemoryTransport) -> None:
    for topic in (
        topics.EVENTS,
        topics.SEGMENT_CHANGES,
        topics.DEAD_LETTERS,
        topics.ANOMALIES,
        topics.CAMPAIGN_ACTIONS,
    ):
        where = TopicPartition(topic, 0)
        memory.starts[where] = memory.end_offset(where) // 2
    report = verify(memory, finished[0], 1)
    assert report.findings == []
    assert len(report.notes) == 3


class Moving(MemoryTransport):
    """Not a transport of its own: hands every question on, and lets the pipeline work between any two of them."""

    def __init__(self, inner: Transport, pipeline: Pipeline) -> None:
        self.inner, self.pipeline, self.asked = inner, pipeline, 0

    def _work(self) -> Transport:
        self.asked += 1
        if self.asked % 3 == 0:
            self.pipeline.step()
        return self.inner

    def read(self, where: TopicPartition, start: int, end: int | None = None) -> Iterator[Record]:
        return self._work().read(where, start, end)

    def start_offset(self, where: TopicPartition) -> int:
        return self._work().start_offset(where)

    def end_offset(self, where: TopicPartition) -> int:
        return self._work().end_offset(where)

    def committed(self, group: str, where: TopicPartition) -> int | None:
        return self._work().committed(group, where)


def test_on_a_running_deployment_nothing_is_found_either(tmp_path: Path) -> None:
    """Whatever is committed between any two questions of the verification."""
    config = configured(tmp_path / "data", rules=RULES, runner__batch_records=97)
    with Replay(config, small_shop(), partitions=2) as running:
        running.run(lambda rows: rows < 3_000)
        moving = Moving(running.transport, running._pipeline)
        reports: list[Report] = []
        while running._pipeline.step():
            reports.append(verify(moving, config, 2))
        last = verify(running.transport, config, 2)
    assert [one for report in reports for one in report.findings] == []
    assert len(reports) >= 3 and not any(report.still for report in reports)
    assert last.findings == [] and last.still


def test_the_command(finished: tuple[Config, Path], capsys: pytest.CaptureFixture[str]) -> None:
    _, directory = finished
    assert main(["verify", "--data-dir", str(directory)]) == 0
    assert capsys.readouterr().out.startswith("everything holds: ")
    assert main(["verify", "--fast", "--json", "--data-dir", str(directory)]) == 0
    assert orjson.loads(capsys.readouterr().out)["ok"] is True


def test_the_command_tells_each_finding_and_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory = tmp_path / "data"
    replay(directory, small_shop(), lambda rows: rows < 6_000)
    transport = EmbeddedTransport(directory, create=False)
    letters = list(transport.read(TopicPartition(topics.DEAD_LETTERS, 0), 0))
    transport.produce([OutRecord(topics.DEAD_LETTERS, letters[0].key, letters[0].value, 0)])
    transport.close()
    assert main(["verify", "--data-dir", str(directory)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("dead letters: events-dead-letter/0@")
    assert "findings: " in lines[-1]
