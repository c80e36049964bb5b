"""A stage's state is lost and made anew: the same to the bit where all events are kept, and nothing published twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from producers.shop import Shop, ShopSettings
from producers.source import SourceRow
from schemas import topics
from schemas.topics import TOPICS
from stream.assembly import Deployment
from stream.campaigns.outbox import Outbox, Route
from stream.cli import main
from stream.config import Config, load
from stream.features.layout import LAST
from stream.rebuild import adopt_offsets, rebuild
from stream.runtime.changelog import Changelog, StateLostError
from stream.runtime.runner import Runner
from stream.segments.modeller import Modeller
from stream.segments.population import COLUMNS, Population
from stream.segments.rule_slots import read_words
from stream.transport.base import FencedError, OutRecord, Session, TopicPartition, Transport, TransportError
from stream.verify import verify
from tests.faults.oracle import assert_same_table

PARTITIONS = 2
SETTINGS: dict[str, Any] = {
    "runner.clock": "record",
    "runner.batch_records": 400,
    "modeller.warm_up.users": 80,
    "modeller.review.fewest": 100,
    "modeller.review.observations": 300,
    "rules": [
        {"id": "active", "name": "Active", "when": "recency_days <= 1.5"},
        {"id": "buyers", "name": "Buyers", "when": "purchases_30d >= 2", "leave_when": "purchases_30d < 1"},
    ],
}
CAMPAIGNS = """
campaigns:
  - name: back
    when: {enter: active}
    causes: [entered, behaviour, model, inactivity]
    cap: {at_most: 2, per: 7d}
    action: {webhook: {url: "http://127.0.0.1:9/x"}}
"""


class Shopping:
    """A deployment in this process that is fed, drained, damaged and mended."""

    def __init__(self, config: Config, transport: Transport) -> None:
        self.config, self.transport = config, transport
        self._rows: Iterator[SourceRow] = Shop(
            ShopSettings(users=200, days=60, seed=8, joining=0.2, broken=0.01, too_late=0.002)
        ).rows()

    def work(self, events: int) -> None:
        """Push events and take them through all stages; then everybody leaves."""
        rows = [next(self._rows) for _ in range(events)]
        self.transport.produce([OutRecord(topics.EVENTS, row.key, row.value, None, (), row.timestamp) for row in rows])
        deployment = Deployment(self.config, self.transport, PARTITIONS, wall_clock=False)
        try:
            for runner in deployment.runners:
                drain(runner)
        finally:
            for runner in deployment.runners:
                runner.abandon()

    def population(self, partition: int) -> Population:
        found = Population(partition, self.config.layout())
        found.restore(self.deltas("processor", topics.USER_STATE, partition, topics.EVENTS))
        return found

    def deltas(self, stage: str, topic: str, partition: int, source: str) -> list[tuple[dict[str, Any], bytes]]:
        offset = self.transport.committed(f"resegment-{stage}", TopicPartition(source, partition))
        return list(Changelog(self.transport, stage, topic).restore(partition, {source: offset}))

    def lose(self, topic: str) -> None:
        for partition in range(self.transport.partitions(topic)):
            where = TopicPartition(topic, partition)
            self.transport.trim(where, self.transport.end_offset(where))

    def published(self) -> Counter[tuple[Any, ...]]:
        names = (topics.SEGMENT_CHANGES, topics.ANOMALIES, topics.DEAD_LETTERS, topics.CAMPAIGN_ACTIONS)
        return Counter(
            (topic, partition, record.offset, record.value)
            for topic in names
            for partition in range(PARTITIONS)
            for record in self.transport.read(TopicPartition(topic, partition), 0)
        )


def drain(runner: Runner) -> None:
    while not runner.joined():
        runner.step(0.2)
    while runner.step(0.2) or runner.behind():
        pass


@pytest.fixture(params=["embedded", pytest.param("kafka", marks=pytest.mark.kafka)])
def shopping(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Shopping]:
    file = tmp_path / "campaigns.yaml"
    file.write_text(CAMPAIGNS)
    place: dict[str, Any] = {"transport.data_dir": tmp_path / "data", "transport.embedded.synchronous": "normal"}
    if request.param == "kafka":
        place = {
            "transport.kind": "kafka",
            "transport.kafka.bootstrap_servers": request.getfixturevalue("kafka_bootstrap"),
            "transport.kafka.topic_prefix": request.getfixturevalue("topic_prefix"),
            "transport.kafka.session_timeout": "3s",
        }
    retrying = {"campaigns.file": file, "campaigns.delivery.in_replays": True, "campaigns.delivery.call_budget": "10ms"}
    config = load(None, {**SETTINGS, **place, **retrying})
    transport = config.transport.open()
    keep = [topics.TopicSpec(s.name, s.partitions, s.cleanup, None, s.key, s.config) for s in TOPICS]
    transport.create_topics(keep, PARTITIONS)
    yield Shopping(config, transport)
    transport.close()


def test_users_are_the_same_to_the_bit_and_nothing_is_published_twice(shopping: Shopping) -> None:
    shopping.work(7_000)
    before = [shopping.population(partition) for partition in range(PARTITIONS)]
    published = shopping.published()
    shopping.lose(topics.USER_STATE)
    with pytest.raises(StateLostError, match="'A lost changelog'"):
        shopping.work(100)
    stood = list(rebuild(shopping.transport, shopping.config, "processor"))
    assert [one.partition for one in stood] == [0, 1]
    assert shopping.published() == published
    passing = {"observed", "row", "candidate", "looks", "candidate_cause", "streak", "rule_epoch"}
    own = {f"extra {column.name}" for column in COLUMNS}
    for was in before:
        now = shopping.population(was.partition)
        assert_same_table(now.table, was.table, but=own)
        for column in COLUMNS:
            if column.name not in passing and not column.name.startswith("rules_"):
                np.testing.assert_array_equal(now.table.column(column.name), was.table.column(column.name))
        for row in range(len(now)):
            inside = [
                [slot.id for slot in each.rules.of(read_words(each.table, slice(row, row + 1)))] for each in (now, was)
            ]
            assert inside[0] == inside[1]
        assert (now.clock, now.model_version) == (was.clock, was.model_version)
        counted = {
            name: count for name, count in was.counters.items() if name.partition(".")[0] in ("accepted", "dead")
        }
        assert counted.items() <= now.counters.items()
    assert verify(shopping.transport, shopping.config, PARTITIONS).findings == []
    shopping.work(4_000)
    report = verify(shopping.transport, shopping.config, PARTITIONS)
    assert report.findings == []
    assert any("rebuilt" in note for note in report.notes)
    assert shopping.published().total() > published.total()


def test_people_of_whom_no_event_is_kept_are_known_by_their_membership(shopping: Shopping) -> None:
    shopping.work(7_000)
    before = [shopping.population(partition) for partition in range(PARTITIONS)]
    for partition in range(PARTITIONS):
        where = TopicPartition(topics.EVENTS, partition)
        shopping.transport.trim(where, shopping.transport.end_offset(where) - 300)
    shopping.lose(topics.USER_STATE)
    list(rebuild(shopping.transport, shopping.config, "processor"))
    for was in before:
        now = shopping.population(was.partition)
        assert set(now.table.user_ids) == set(was.table.user_ids)
        rows = np.array([was.table.lookup(user) for user in now.table.user_ids], np.intp)
        for name in ("segment", "sequence", "since"):
            np.testing.assert_array_equal(now.table.column(name), was.table.column(name)[rows])
        features = now.table.features(None, now.now())
        assert not np.isinf(features).any()
        assert (now.table.column(LAST) > 0).all()
    assert verify(shopping.transport, shopping.config, PARTITIONS).findings == []
    shopping.work(3_000)
    assert verify(shopping.transport, shopping.config, PARTITIONS).findings == []


def test_the_modeller_keeps_the_segments_ids(shopping: Shopping) -> None:
    shopping.work(7_000)
    shopping.lose(topics.MODELLER_STATE)
    list(rebuild(shopping.transport, shopping.config, "modeller"))
    shopping.work(9_000)
    report = verify(shopping.transport, shopping.config, PARTITIONS)
    assert report.findings == [], "versions follow each other, and no id is used twice"
    restored = Modeller([f for f in shopping.config.features if f.learn], shopping.config.modeller)
    restored.restore(0, shopping.deltas("modeller", topics.MODELLER_STATE, 0, topics.OBSERVATIONS))
    assert restored.model is not None


def test_caps_and_pending_deliveries_come_from_the_actions(shopping: Shopping) -> None:
    shopping.work(7_000)
    caps = [rows_of(shopping, "campaigns", topics.CAMPAIGN_STATE, p, topics.SEGMENT_CHANGES) for p in range(PARTITIONS)]
    pending = [pending_of(shopping, partition) for partition in range(PARTITIONS)]
    assert sum(map(len, pending)) > 20
    shopping.lose(topics.CAMPAIGN_STATE)
    shopping.lose(topics.DELIVERY_STATE)
    for stage in ("campaigns", "delivery"):
        list(rebuild(shopping.transport, shopping.config, stage))
    for partition in range(PARTITIONS):
        now = rows_of(shopping, "campaigns", topics.CAMPAIGN_STATE, partition, topics.SEGMENT_CHANGES)
        # A cap that has run out may have been forgotten, and is remembered again: it holds nobody back.
        assert caps[partition].items() <= now.items()
        assert pending_of(shopping, partition) == pending[partition]
    assert verify(shopping.transport, shopping.config, PARTITIONS).findings == []


def rows_of(shopping: Shopping, stage: str, topic: str, partition: int, source: str) -> dict[str, Any]:
    from stream.campaigns.table import StateTable

    table = StateTable()
    table.restore(shopping.deltas(stage, topic, partition, source))
    return dict(table.rows)


def pending_of(shopping: Shopping, partition: int) -> dict[str, Any]:
    """Ids and actions that wait, in their order."""
    outbox = Outbox(partition, lambda name: Route("unknown", name), 0)
    outbox.restore(shopping.deltas("delivery", topics.DELIVERY_STATE, partition, topics.CAMPAIGN_ACTIONS))
    rows = sorted(outbox._table.rows.items(), key=lambda item: item[1][0])
    return {identifier: row[3] for identifier, row in rows}


def test_lost_offsets_are_no_fresh_start_and_can_be_taken_from_the_state(
    shopping: Shopping, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kafka forgets the offsets of a group that was empty for a week."""
    shopping.work(3_000)
    stands = {p: shopping.transport.committed("resegment-processor", TopicPartition(topics.EVENTS, p)) for p in (0, 1)}
    transport, config = shopping.transport, load_group(shopping.config, "expired")
    with monkeypatch.context() as patch:
        # Another group has no offsets, and finds the same state.
        patch.setattr(shopping, "config", config)
        with pytest.raises(StateLostError, match=r"state at \d+, committed None"):
            shopping.work(100)
    adopted = list(adopt_offsets(transport, config, "processor"))
    assert {one.partition: one.stands[topics.EVENTS] for one in adopted} == stands
    for partition, offset in stands.items():
        assert transport.committed("expired-processor", TopicPartition(topics.EVENTS, partition)) == offset


def load_group(config: Config, group: str) -> Config:
    return config.model_copy(update={"runner": config.runner.model_copy(update={"group": group})})


def test_broken_off_it_leaves_no_half_state(shopping: Shopping, monkeypatch: pytest.MonkeyPatch) -> None:
    shopping.work(5_000)
    shopping.lose(topics.USER_STATE)
    monkeypatch.setattr("stream.rebuild.users.USERS_A_RECORD", 20)
    join, commits = shopping.transport.session, 0

    def session(group: str, names: Any) -> Session:
        made = join(group, names)
        commit = made.commit

        def counted(*arguments: Any) -> Any:
            nonlocal commits
            commits += 1
            if commits == 3:
                raise FencedError("broken off")
            return commit(*arguments)

        made.commit = counted  # type: ignore[assignment, method-assign]
        return made

    with monkeypatch.context() as patch:
        patch.setattr(shopping.transport, "session", session)
        with pytest.raises(FencedError, match="broken off"):
            list(rebuild(shopping.transport, shopping.config, "processor"))
    with pytest.raises(StateLostError, match="does not stand where"):
        shopping.population(0)
    list(rebuild(shopping.transport, shopping.config, "processor"))
    assert verify(shopping.transport, shopping.config, PARTITIONS).findings == []


def test_not_while_others_are_at_work(shopping: Shopping, monkeypatch: pytest.MonkeyPatch) -> None:
    shopping.work(1_000)
    monkeypatch.setattr("stream.rebuild.stages.JOIN_S", 3.0)
    other = shopping.transport.session("resegment-processor", [topics.EVENTS])
    try:
        while not other.poll(1, 0.2).assigned:
            pass
        with pytest.raises(TransportError, match="stop every process with the role of the processor first"):
            list(in_between(rebuild(shopping.transport, shopping.config, "processor"), lambda: other.poll(1, 0.0)))
    finally:
        other.close()


def in_between(work: Iterator[Any], call: Callable[[], Any]) -> Iterator[Any]:
    """The other member polls in a thread, as a living one does."""
    import threading

    stop = threading.Event()

    def poll() -> None:
        while not stop.wait(0.1):
            call()

    thread = threading.Thread(target=poll)
    thread.start()
    try:
        yield from work
    finally:
        stop.set()
        thread.join()


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = ["--data-dir", str(tmp_path / "data")]
    main(["topics", "create", *place])
    capsys.readouterr()
    assert main(["state", "rebuild", *place]) == 1
    assert "say --yes" in capsys.readouterr().err
    assert main(["state", "rebuild", "--yes", *place]) == 0
    assert capsys.readouterr().out == "nothing was ever committed: there is nothing to do\n"
    assert main(["state", "offsets", "--yes", "--stage", "delivery", "--json", *place]) == 0
    assert capsys.readouterr().out == "[]\n"
