"""One partition of the processor: its state, its changes, its memberships, dead letters and anomalies, side by side.

Read from the end of the stream to its beginning, the changes last and to the very end, so that whatever was derived
from a change that we see was published before we stopped looking at changes.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import orjson
import xxhash
from numpy.typing import NDArray

from schemas import topics
from schemas.membership import KEY_SEPARATOR, membership_key
from stream.config import Config
from stream.segments.assign import segment_name
from stream.segments.population import REBUILT, Population
from stream.segments.processor import Processor
from stream.segments.rule_slots import read_words
from stream.transport.base import Record, TopicPartition, Transport
from stream.verify import cut
from stream.verify.report import Report
from stream.verify.tally import Counted, Tally
from stream.verify.trails import Trail, Trails, digest

COUNTED = ("accepted", "duplicate", "dead")
Member = tuple[int, int]
"""Sequence, and digest of what it says."""


class UserCheck:
    """Checks one partition; `trails` and `users` are there afterwards for those further down the stream."""

    def __init__(
        self,
        transport: Transport,
        config: Config,
        partition: int,
        segments: dict[int, frozenset[str]],
        report: Report,
        *,
        count_events: bool,
    ) -> None:
        self._transport = transport
        self._config = config
        self._partition = partition
        self._report = report
        self._count_events = count_events
        where = TopicPartition(topics.SEGMENT_CHANGES, partition)
        self.trails = Trails(partition, transport.end_offset(where), transport.start_offset(where), segments, report)
        self.population: Population | None = None
        self._stands: Mapping[str, int | None] = {}

    def run(self) -> None:
        """Check."""
        cut_of = {name: self._counted(name) for name in (topics.DEAD_LETTERS, topics.ANOMALIES)}
        self._restore()
        members, end = self._memberships()
        letters = self._dead_letters(cut_of[topics.DEAD_LETTERS])
        anomalies = self._anomalies(cut_of[topics.ANOMALIES])
        self.trails.read(self._transport.read(self._at(topics.SEGMENT_CHANGES), 0))
        self._compare_members(members, end)
        self._compare_anomalies(*anomalies, cut_of[topics.ANOMALIES])
        if self.population is not None:
            self._compare_state(self.population)
            self._compare_counters(self.population, letters)
        if not self.trails.whole:
            self._report.note("older changes are deleted already: sequences are checked from the first one kept")

    @property
    def hashes(self) -> NDArray[np.uint64]:
        """Of the ids of all users that the partition knows."""
        names = set(self.trails.users)
        if self.population is not None:
            names.update(self.population.table.user_ids)
        return np.fromiter((xxhash.xxh3_64_intdigest(name.encode()) for name in names), np.uint64, len(names))

    # -- reading ----------------------------------------------------------------------------------------------

    def _restore(self) -> None:
        layout = self._config.layout()
        made: list[Population] = []

        def apply(deltas: cut.Deltas) -> None:
            made[:] = [Population(self._partition, layout)]
            made[0].restore(deltas)

        group = f"{self._config.runner.group}-{Processor.name}"
        inputs = self._config.topics.events
        stands = cut.restore(
            self._transport, Processor.name, topics.USER_STATE, self._partition, group, inputs, apply, self._report
        )
        if stands is not None:
            (self.population,) = made
            self._stands = stands
            self._report.checked["users"] += len(self.population)

    def _memberships(self) -> tuple[dict[str, Member], int]:
        """By key, what the topic holds last; and where it ended."""
        where = self._at(topics.SEGMENT_MEMBERSHIP)
        members: dict[str, Member] = {}
        end = self._transport.end_offset(where)
        for record in self._transport.read(where, 0, end):
            self._report.checked["memberships"] += 1
            self._member(record, members)
        return members, end

    def _member(self, record: Record, members: dict[str, Member]) -> None:
        key = (record.key or b"").decode(errors="replace")
        if record.value is None:
            members.pop(key, None)
            return
        place = f"{topics.SEGMENT_MEMBERSHIP}/{self._partition}@{record.offset}"
        try:
            said = orjson.loads(record.value)
            user, segment = said["user_id"], said["segment"]
            members[key] = said["sequence"], digest(segment, said)
        except (orjson.JSONDecodeError, KeyError, TypeError) as error:
            self._report.add("memberships", place, f"is no membership ({type(error).__name__}: {error})")
            return
        if key != user and (segment is None or key != membership_key(user, segment["id"])):
            self._report.add("memberships", place, f"is of user {user!r}, but its key is {key!r}")

    def _dead_letters(self, counted: Counted) -> Counted:
        """Each source position once: they are written in order, those that came too late after the others."""
        last: dict[tuple[str, bool], int] = {}
        for record in self._transport.read(self._at(topics.DEAD_LETTERS), 0):
            self._report.checked["dead_letters"] += 1
            place = f"{topics.DEAD_LETTERS}/{self._partition}@{record.offset}"
            try:
                letter = orjson.loads(record.value or b"")
                reason, source = letter["reason"], letter["source"]
                topic, partition, offset = source["topic"], source["partition"], source["offset"]
            except (orjson.JSONDecodeError, KeyError, TypeError) as error:
                self._report.add("dead letters", place, f"is no dead letter ({type(error).__name__}: {error})")
                continue
            counted.add(reason, record.offset)
            order = topic, reason == "too_late"
            if partition != self._partition:
                self._report.add("dead letters", place, f"is from partition {partition} of {topic}")
            elif offset <= last.get(order, -1):
                self._report.add(
                    "dead letters", place, f"is from {topic}@{offset}, after one from @{last[order]}: published twice?"
                )
            last[order] = max(offset, last.get(order, -1))
            if record.offset < counted.cut and offset >= (self._stands.get(topic) or 0) and self._stands:
                self._report.add("dead letters", place, f"is from {topic}@{offset}, which the state has not read")
        return counted

    def _anomalies(self, counted: Counted) -> tuple[Tally, Tally]:
        """Up to the cut, and to the end."""
        at_cut, at_end = Tally(), Tally()
        inside: dict[str, bool] = {}
        for record in self._transport.read(self._at(topics.ANOMALIES), 0):
            self._report.checked["anomalies"] += 1
            place = f"{topics.ANOMALIES}/{self._partition}@{record.offset}"
            try:
                anomaly = orjson.loads(record.value or b"")
                user, kind = anomaly["user_id"], anomaly["kind"]
                for tally in (at_end, at_cut) if record.offset < counted.cut else (at_end,):
                    tally.add(anomaly["id"])
            except (orjson.JSONDecodeError, KeyError, TypeError, ValueError) as error:
                self._report.add("anomalies", place, f"is no anomaly ({type(error).__name__}: {error})")
                continue
            counted.add(kind, record.offset)
            enters = kind == "entered"
            if inside.get(user, not enters if not counted.whole else False) == enters:
                self._report.add("anomalies", place, f"user {user!r} {kind} twice")
            inside[user] = enters
        return at_cut, at_end

    # -- comparing --------------------------------------------------------------------------------------------

    def _compare_members(self, members: dict[str, Member], end: int) -> None:
        """Each membership is what the user's last change said; of changes published meanwhile any one will do."""
        wrong: dict[str, str] = {}
        for user, trail in self.trails.users.items():
            moving = trail.sequence > trail.certain
            expected = {user: trail.entered, **{membership_key(user, rule): mark for rule, mark in trail.rules.items()}}
            for key, mark in expected.items():
                found = members.pop(key, None)
                if mark is None:  # its change is older than all that are kept
                    continue
                if moving and (found is None or found[0] >= trail.certain or mark[0] > trail.certain):
                    continue
                if found is None:
                    wrong[key] = f"user {user!r} has none, but a change to sequence {mark[0]}"
                elif found[0] != mark[0]:
                    wrong[key] = f"user {user!r} stands at sequence {found[0]}, but the last change has {mark[0]}"
                elif found[1] != mark[1]:
                    wrong[key] = f"user {user!r} has another one than the change of sequence {mark[0]} says"
        if self.trails.whole:
            for key, (sequence, _) in members.items():
                user = key.partition(KEY_SEPARATOR)[0]
                known = self.trails.users.get(user)
                if known is None or known.sequence == known.certain:
                    wrong[key] = f"user {user!r} has one of sequence {sequence} that no change brought about"
        if wrong:
            # What was superseded while we read may be compacted away already, before we came to it.
            for record in self._transport.read(self._at(topics.SEGMENT_MEMBERSHIP), end):
                wrong.pop((record.key or b"").decode(errors="replace"), None)
        for what in wrong.values():
            self._report.add("memberships", f"{topics.SEGMENT_MEMBERSHIP}/{self._partition}", what)

    def _compare_anomalies(self, at_cut: Tally, at_end: Tally, counted: Counted) -> None:
        trails = self.trails
        place = f"{topics.ANOMALIES}/{self._partition}"
        if not (trails.whole and counted.whole):
            return
        if (trails.held_at_cut, at_cut) == (trails.held, at_end):
            if at_end != trails.held:
                self._report.add(
                    "anomalies",
                    place,
                    f"{at_end.count} anomalies are not the {trails.held.count} changes of quarantine",
                )
        elif not (trails.held_at_cut.count <= at_end.count and at_cut.count <= trails.held.count):
            self._report.add("anomalies", place, f"{at_end.count} anomalies, {trails.held.count} changes of quarantine")

    def _compare_state(self, population: Population) -> None:
        table, users = population.table, self.trails.users
        sequences, segments = table.column("sequence").tolist(), table.column("segment").tolist()
        rules = read_words(table, slice(None))
        for row, user in enumerate(table.user_ids):
            trail = users.get(user)
            if trail is None:
                if sequences[row] and self.trails.whole:
                    self._wrong(user, f"has sequence {sequences[row]}, but no change")
                continue
            if not trail.certain <= sequences[row] <= trail.sequence:
                self._wrong(user, f"has sequence {sequences[row]}, but the changes end with {trail.sequence}")
            elif sequences[row] == trail.sequence:
                self._compare_user(user, trail, segment_name(segments[row]))
                if population.rules.slots or trail.rules:
                    inside = {slot.id for slot in population.rules.of(rules[row : row + 1])}
                    if inside != set(trail.rules) and self.trails.whole:
                        self._wrong(user, f"is in {sorted(inside)}, but the changes say {sorted(trail.rules)}")
        for user, trail in users.items():
            if table.lookup(user) is None and trail.certain:
                self._wrong(user, f"is unknown, but has {trail.sequence} changes")
        for topic, offset in self.trails.sources.items():
            if offset > (self._stands.get(topic) or 0):
                place = f"{topics.SEGMENT_CHANGES}/{self._partition}"
                self._report.add(
                    "changes", place, f"name {topic}@{offset - 1} as a source, which the state has not read"
                )

    def _compare_user(self, user: str, trail: Trail, segment: str | None) -> None:
        if segment != trail.segment and (trail.entered is not None or self.trails.whole):
            self._wrong(user, f"is in {segment}, but the last change led to {trail.segment}")

    def _compare_counters(self, population: Population, letters: Counted) -> None:
        counters, place = population.counters, f"{topics.USER_STATE}/{self._partition}"
        self._compare_events(sum(n for name, n in counters.items() if name.partition(".")[0] in COUNTED), place)
        if counters[REBUILT]:
            self._report.note(
                "the state was rebuilt: dead letters and changes of before are not held against its counts"
            )
            return
        for prefix, counted, topic in (
            ("dead", letters, topics.DEAD_LETTERS),
            ("changes", self.trails.causes, topics.SEGMENT_CHANGES),
        ):
            names = {name.partition(".")[2] for name in counters if name.startswith(f"{prefix}.")}
            for name in sorted(names | set(counted.at_end)):
                if not counted.agrees(name, counters[f"{prefix}.{name}"]):
                    told = counted.told(name)
                    what = f"counts {counters[f'{prefix}.{name}']:,} of {prefix} {name!r}, but {topic} has {told}"
                    self._report.add("counts", place, what)

    def _compare_events(self, total: int, place: str) -> None:
        """accepted + duplicate + dead = the events below the committed offsets, transaction markers left out."""
        self._report.checked["events"] += total
        read = gone = 0
        for topic in self._config.topics.events:
            where, stands = self._at(topic), self._stands.get(topic) or 0
            start = min(self._transport.start_offset(where), stands)
            gone += start
            if self._count_events:
                read += sum(1 for _ in self._transport.read(where, start, stands))
            else:
                read += stands - start
        low, high = (read if self._count_events else 0), read + gone
        if gone:
            self._report.note("older events are deleted already: their number is held against their offsets only")
        if not low <= total <= high:
            told = f"{high:,}" if low == high else f"{low:,} to {high:,}"
            self._report.add("counts", place, f"accounts for {total:,} events, but {told} were read")

    def _at(self, topic: str) -> TopicPartition:
        return TopicPartition(topic, self._partition)

    def _counted(self, topic: str) -> Counted:
        where = self._at(topic)
        return Counted(self._transport.end_offset(where), self._transport.start_offset(where))

    def _wrong(self, user: str, what: str) -> None:
        self._report.add("state", f"{topics.USER_STATE}/{self._partition}", f"user {user!r} {what}")
