"""What must be true after any number of faults: everything that was published follows from the committed input.

`check` computes it all anew, offline, in one process: from the events and the journal of commits each user table,
change, membership, anomaly, dead letter and observation; from the observations the models; from the changes the
campaign actions. Under the data's own clock the outcome must be the same bit for bit; under the wall clock the
features must be, and `verify` says the rest.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from schemas import topics
from stream.campaigns.worker import CampaignWorker
from stream.config import Config
from stream.features.events import decode
from stream.features.table import UserTable
from stream.runtime.changelog import Changelog
from stream.segments.modeller import Modeller
from stream.segments.observations import Sampler
from stream.segments.population import COLUMNS, Population
from stream.segments.processor import Processor
from stream.transport.base import OutRecord, Record, TopicPartition, Transport
from stream.verify import verify
from tests.faults.campaigns import CAMPAIGNS
from tests.faults.journal import Entry, read_journal

PER_PARTITION = (topics.SEGMENT_CHANGES, topics.DEAD_LETTERS, topics.ANOMALIES)
CHUNK = 500


@dataclass(frozen=True)
class Checked:
    """How much was held against the oracle."""

    events: int
    commits: int
    changes: int
    models: int
    actions: int
    users: int


def check(transport: Transport, config: Config, partitions: int) -> Checked:
    """Raises AssertionError where anything was lost, doubled, disordered or made up."""
    report = verify(transport, config, partitions)
    assert not report.findings, "\n".join(map(str, report.findings))
    assert report.still, "somebody is still at work"
    entries = read_journal(transport, partitions)
    for (stage, partition), commits in entries.items():
        _check_chain(stage, partition, commits)
    models = _records(transport, topics.SEGMENT_MODEL, 0)
    observed: Counter[bytes | None] = Counter()
    users = 0
    for partition in range(partitions):
        commits = entries.get(("processor", partition), [])
        stored = _restored(transport, config, partition)
        users += len(stored)
        _check_features(transport, config, partition, stored)
        if config.runner.clock == "record":
            replay = _Replay(transport, config, partition, partitions, models)
            replay.run(commits)
            replay.compare(stored)
            observed += replay.observed
    if config.runner.clock == "record":
        assert observed == Counter(one.value for one in _records(transport, topics.OBSERVATIONS, 0)), "observations"
        _check_models(transport, config)
        for partition in range(partitions):
            _check_actions(transport, config, partition)
    counted = report.checked
    commits_of_all = sum(map(len, entries.values()))
    return Checked(counted["events"], commits_of_all, counted["changes"], counted["models"], counted["actions"], users)


def _check_chain(stage: str, partition: int, commits: Sequence[Entry]) -> None:
    """Each commit begins where the one before it ended: no part of the input was worked on twice, or left out."""
    stands: dict[str, int | None] = {}
    for entry in commits:
        for topic, offset in entry.stands.items():
            before, first = stands.get(topic) or 0, entry.first.get(topic)
            place = f"{stage}/{partition}: commit by {entry.worker} of {topic} {first}..{offset} after {before}"
            if first is None:
                assert (offset or 0) == before, place
            elif topic == topics.EVENTS:
                assert first == before, place
            else:  # written in transactions, whose markers take offsets of their own
                assert first >= before, place
            assert (offset or 0) >= before, place
        stands = dict(entry.stands)


class _Replay:
    """One partition through a fresh processor, in the batches in which it was committed, with the models of then."""

    def __init__(
        self, transport: Transport, config: Config, partition: int, partitions: int, models: Sequence[Record]
    ) -> None:
        self._transport = transport
        self._partition = partition
        self._models = {int(record.key or b"0"): record for record in models}
        self._stage = Processor(
            config.layout(),
            inputs=config.topics.events,
            settings=config.processor,
            ingest=config.ingest,
            decision=config.decision,
            quarantine=config.quarantine,
            sampler=Sampler(config.sampler, partitions),
            rules=config.rules,
        )
        self._stage.restore(partition, ())
        self._made: dict[str, list[OutRecord]] = {}

    def run(self, commits: Iterable[Entry]) -> None:
        where = TopicPartition(topics.EVENTS, self._partition)
        events = self._transport.read(where, 0)
        version = 0
        for entry in commits:
            if entry.model_version != version:
                version = entry.model_version
                self._stage.update_table(topics.SEGMENT_MODEL, [self._models[version]])
            batch = [next(events) for _ in range((entry.stands[topics.EVENTS] or 0) - entry.first[topics.EVENTS])]
            assert batch[-1].offset + 1 == entry.stands[topics.EVENTS]
            output = self._stage.process({self._partition: batch}, None)
            for record in output.records:
                self._made.setdefault(record.topic, []).append(record)

    @property
    def observed(self) -> Counter[bytes | None]:
        return Counter(record.value for record in self._made.get(topics.OBSERVATIONS, ()))

    def compare(self, stored: Population) -> None:
        for topic in PER_PARTITION:
            found = _records(self._transport, topic, self._partition)
            assert list(map(_content, found)) == list(map(_content, self._made.get(topic, ()))), topic
        members = {r.key: r.value for r in self._made.get(topics.SEGMENT_MEMBERSHIP, ()) if r.value is not None}
        left = {r.key: r.value for r in self._made.get(topics.SEGMENT_MEMBERSHIP, ())}
        assert _latest(self._transport, topics.SEGMENT_MEMBERSHIP, self._partition) == {
            key: value for key, value in left.items() if value is not None
        }, members.keys() ^ left.keys()
        fresh = self._stage.populations[self._partition]
        assert_same_table(stored.table, fresh.table)
        for name in ("clock", "swept_at", "model_version", "counters"):
            assert getattr(stored, name) == getattr(fresh, name), name


def _restored(transport: Transport, config: Config, partition: int) -> Population:
    """As a new owner of the partition would have it."""
    group = f"{config.runner.group}-processor"
    offset = transport.committed(group, TopicPartition(topics.EVENTS, partition))
    population = Population(partition, config.layout())
    population.restore(Changelog(transport, "processor", topics.USER_STATE).restore(partition, {topics.EVENTS: offset}))
    return population


def _check_features(transport: Transport, config: Config, partition: int, stored: Population) -> None:
    """The features follow from the accepted events alone, whatever the clock was: bit for bit in their order."""
    group = f"{config.runner.group}-processor"
    where = TopicPartition(topics.EVENTS, partition)
    table = UserTable(config.layout())
    events = list(transport.read(where, 0, transport.committed(group, where) or 0))
    for start in range(0, len(events), CHUNK):
        batch, _ = decode(events[start : start + CHUNK], None, config.ingest)
        table.apply(batch)
    assert_same_table(stored.table, table, but={f"extra {column.name}" for column in COLUMNS})


def assert_same_table(stored: UserTable, fresh: UserTable, but: Iterable[str] = ()) -> None:
    """The same users in the same rows, with the same bits in every column but those named."""
    assert stored.user_ids == fresh.user_ids
    assert stored.stream_time == fresh.stream_time
    for name in set(stored.layout.places) - set(but):
        place, users = stored.layout.places[name], len(stored)
        one, other = (t._arrays[place.group][:users, place.start : place.stop] for t in (stored, fresh))
        if one.tobytes() != other.tobytes():
            rows = np.flatnonzero((one != other).any(axis=1) & ~(np.isnan(one) & np.isnan(other)).all(axis=1))
            raise AssertionError(f"column {name!r} of users {[stored.user_ids[row] for row in rows[:5]]}")


def _check_models(transport: Transport, config: Config) -> None:
    """The versions are those that one modeller makes of the committed observations without ever dying."""
    where = TopicPartition(topics.OBSERVATIONS, 0)
    committed = transport.committed(f"{config.runner.group}-modeller", where) or 0
    modeller = Modeller([feature for feature in config.features if feature.learn], config.modeller)
    modeller.restore(0, ())
    made: dict[bytes | None, bytes | None] = {}
    observations = list(transport.read(where, 0, committed))
    for start in range(0, len(observations), CHUNK):
        output = modeller.process({0: observations[start : start + CHUNK]}, None)
        made |= {record.key: record.value for record in output.records}
    found = _latest(transport, topics.SEGMENT_MODEL, 0)
    assert sorted(found.items()) == sorted((k, v) for k, v in made.items() if v is not None), "models"


def _check_actions(transport: Transport, config: Config, partition: int) -> None:
    """The actions are those that one worker takes on the committed changes."""
    where = TopicPartition(topics.SEGMENT_CHANGES, partition)
    committed = transport.committed(f"{config.runner.group}-campaigns", where) or 0
    worker = CampaignWorker(CAMPAIGNS)
    worker.restore(partition, ())
    made: list[OutRecord] = []
    changes = list(transport.read(where, 0, committed))
    for start in range(0, len(changes), CHUNK):
        made += worker.process({partition: changes[start : start + CHUNK]}, None).records
    found = _records(transport, topics.CAMPAIGN_ACTIONS, partition)
    assert list(map(_content, found)) == list(map(_content, made)), topics.CAMPAIGN_ACTIONS


def _records(transport: Transport, topic: str, partition: int) -> list[Record]:
    return list(transport.read(TopicPartition(topic, partition), 0))


def _latest(transport: Transport, topic: str, partition: int) -> dict[bytes | None, bytes | None]:
    """Of a compacted topic, what each key has last; without those that were deleted."""
    latest = {record.key: record.value for record in _records(transport, topic, partition)}
    return {key: value for key, value in latest.items() if value is not None}


def _content(record: Any) -> tuple[Any, ...]:
    return record.key, record.value, record.timestamp, tuple(record.headers)
