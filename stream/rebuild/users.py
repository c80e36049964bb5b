"""The processor's state of one partition, from the events that are kept and from what was published.

Features come from the events, through the processor itself, whose outputs are thrown away. Where a user stands
comes from the memberships, and how far the user's sequence has come from these and from the changes. Users of whom no
event is kept any more are known by their membership alone.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

import numpy as np
import orjson

from schemas import topics
from schemas.topics import DAY_MS
from stream.config import Config
from stream.features.layout import FIRST, LAST, NEVER
from stream.runtime.stage import StateDelta
from stream.segments.assign import NEWCOMER, NONE, QUARANTINE, segment_name
from stream.segments.population import REBUILT, Population, Rows
from stream.segments.processor import Processor
from stream.segments.prototypes import segment_number
from stream.segments.rule_slots import EPOCH, RuleDefinition, put, read_words, write_words
from stream.segments.rules import PREFIX as RULE
from stream.transport.base import Record, TopicPartition, Transport

BATCH: Final = 5_000
USERS_A_RECORD: Final = 20_000
NO_SWEEPS: Final = 36_500 * DAY_MS
LEAP: Final = 1_000
"""Added to a sequence whose last changes are deleted: some of them may have left no membership behind."""


@dataclass(slots=True)
class _Stood:
    """Where one user stood when the state was lost."""

    segment: str | None = None
    since: int = 0
    seen: int = 0
    """When we last heard of the user."""
    sequence: int = 0
    model_version: int = 0
    rules: dict[str, str] = field(default_factory=dict)
    """Names by id."""


def rebuild_users(
    transport: Transport, config: Config, partition: int, stands: Mapping[str, int]
) -> Iterator[StateDelta]:
    """The deltas that hold the state at these offsets."""
    population = _from_events(transport, config, partition, stands)
    _stand(population, config, _stood(transport, partition))
    population.counters[REBUILT] += 1
    count = len(population)
    for number, start in enumerate(range(0, max(count, 1), USERS_A_RECORD), 1):
        rows = np.arange(start, min(start + USERS_A_RECORD, count))
        yield StateDelta(population.table.pack(rows), population.meta(), keeps=number)


def _from_events(transport: Transport, config: Config, partition: int, stands: Mapping[str, int]) -> Population:
    settings = config.processor.model_copy(update={"record_sweep_interval": NO_SWEEPS})
    processor = Processor(config.layout(), inputs=config.topics.events, settings=settings, ingest=config.ingest)
    processor.restore(partition, ())
    kept = [transport.read(TopicPartition(topic, partition), 0, offset) for topic, offset in sorted(stands.items())]
    events: Iterator[Record] = heapq.merge(*kept, key=lambda record: record.timestamp) if len(kept) > 1 else kept[0]
    while batch := list(islice(events, BATCH)):
        processor.process({partition: batch}, None)
    population = processor.populations[partition]
    # Nobody has seen the observations of this run.
    population.table.column("observed")[:] = 0
    interval = config.processor.record_sweep_interval
    population.swept_at = population.clock // interval * interval
    return population


def _stood(transport: Transport, partition: int) -> dict[str, _Stood]:
    users: dict[str, _Stood] = {}
    for key, value in _memberships(transport, partition).items():
        said = orjson.loads(value)
        user = users.setdefault(said["user_id"], _Stood())
        user.sequence = max(user.sequence, said["sequence"])
        user.model_version = max(user.model_version, said["model_version"])
        user.seen = max(user.seen, said["since"])
        segment = said["segment"]
        if segment is not None and segment["id"].startswith(RULE):
            user.rules[segment["id"]] = segment["name"]
        elif key == said["user_id"].encode():
            user.segment = None if segment is None else segment["id"]
            user.since = said["since"]
    where = TopicPartition(topics.SEGMENT_CHANGES, partition)
    told: dict[str, int] = {}
    for record in transport.read(where, 0):
        change = orjson.loads(record.value or b"")
        user = users.setdefault(change["user_id"], _Stood())
        user.seen = max(user.seen, change["occurred_at"])
        told[change["user_id"]] = change["sequence"]
    whole = transport.start_offset(where) == 0
    for name, user in users.items():
        user.sequence = max(user.sequence, told.get(name, 0)) + (0 if whole or name in told else LEAP)
    return users


def _memberships(transport: Transport, partition: int) -> dict[bytes | None, bytes]:
    latest: dict[bytes | None, bytes] = {}
    for record in transport.read(TopicPartition(topics.SEGMENT_MEMBERSHIP, partition), 0):
        if record.value is None:
            latest.pop(record.key, None)
        else:
            latest[record.key] = record.value
    return latest


def _stand(population: Population, config: Config, users: Mapping[str, _Stood]) -> None:
    """Put everybody where they stood."""
    if not users:
        return
    stood = list(users.values())
    table = population.table
    rows = table.ensure(list(users))
    column = table.column
    population.know(rows)
    seen = np.array([user.seen for user in stood], np.int64)
    silent = column(LAST)[rows] == NEVER
    for name in (FIRST, LAST):
        column(name)[rows[silent]] = seen[silent]
    column("segment")[rows] = [_number(user.segment) for user in stood]
    column("sequence")[rows] = [user.sequence for user in stood]
    column("since")[rows] = [user.since for user in stood]
    population.model_version = max(user.model_version for user in stood)
    population.clock = max(population.clock, int(seen.max()))
    _be_in_rules(population, config, rows, stood)


def _number(segment: str | None) -> int:
    built_in = {segment_name(number): number for number in (NONE, NEWCOMER, QUARANTINE)}
    return built_in[segment] if segment in built_in else segment_number(str(segment))


def _be_in_rules(population: Population, config: Config, rows: Rows, stood: list[_Stood]) -> None:
    """The bits of the rule segments that people are in, and of the configured ones."""
    features = config.features
    digests = {rule.id: RuleDefinition(rule.id, rule.name, rule.definition(features)) for rule in config.rules}
    # Rules that were taken out since have members who must leave: known, but not as anything that is configured.
    gone = {i: RuleDefinition(i, name, "") for user in stood for i, name in user.rules.items() if i not in digests}
    slots = population.rules
    slots.adopt([*digests.values(), *gone.values()])
    slots.settle()
    words = read_words(population.table, rows)
    for identifier, slot in slots.slots.items():
        put(words, slot.bit, np.array([identifier in user.rules for user in stood]))
    write_words(population.table, rows, words)
    population.table.column(EPOCH)[:] = slots.epoch
