"""A processor without a transport: it is fed, its outputs are kept, and it can be restarted from what it committed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple
from unittest.mock import Mock

import numpy as np
import orjson

from schemas import topics
from schemas.change import SegmentChange
from schemas.membership import SegmentMembership, membership_key
from schemas.model import ModelQuality, OutlierThresholds, SegmentProfile
from stream.anomalies.quarantine import QuarantineSettings
from stream.features.layout import Layout, compile_layout
from stream.features.spec import AnyFeature, parse_features
from stream.runtime.stage import Output
from stream.segments.assign import DecisionSettings, segment_name
from stream.segments.changes import change_id
from stream.segments.population import COLUMNS, Population
from stream.segments.processor import Processor, ProcessorSettings
from stream.segments.prototypes import Model
from stream.segments.rule_slots import read_words
from stream.segments.rules import RuleSegment
from stream.segments.scaling import Scaler
from stream.transport.base import OutRecord

DAY = 86_400_000
HOUR = 3_600_000
START = 20_000 * DAY
"""In October 2024."""

FEATURES = parse_features(
    [
        {"name": "pages_7d", "aggregate": "count", "kinds": ["browse"], "window": "7d", "tiles": 7},
        {"name": "purchases_7d", "aggregate": "count", "kinds": ["purchase"], "window": "7d", "tiles": 7},
        {"name": "spend_7d", "aggregate": "sum", "field": "amount", "window": "7d", "tiles": 7},
        {"name": "recency_days", "aggregate": "recency"},
        {"name": "purchase_recency_days", "aggregate": "recency", "kinds": ["purchase"], "learn": False},
        {"name": "rating_mean", "aggregate": "mean", "field": "rating", "half_life": "90d", "learn": False},
    ]
)


class Sent(NamedTuple):
    """A record as the processor reads it."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]] = ()


def rule(identifier: str, when: str, leave_when: str | None = None, name: str = "") -> RuleSegment:
    return RuleSegment(id=identifier, name=name or identifier.title(), when=when, leave_when=leave_when)


def model_of(centre: float, distance: float, version: int = 1) -> Model:
    """Two segments on `pages_7d` alone, unscaled: around 0 and around `centre`; an outlier is beyond `distance`."""
    learned = [feature.name for feature in FEATURES if feature.learn]
    d = len(learned)
    weights = np.array([1.0, *[0.0] * (d - 1)])
    centres = np.zeros((2, d))
    centres[1, 0] = centre
    return Model(
        version=version,
        created_at=START,
        algorithm="kmeans",
        observations=1_000,
        scaler=Scaler(tuple(learned), np.zeros(d, bool), np.zeros(d), np.ones(d), weights, clip=1e6),
        centres=centres,
        weights=np.array([0.5, 0.5]),
        segments=np.array([1, 2], np.int32),
        radii=np.ones(2),
        thresholds=OutlierThresholds(score=1.0, score_release=0.9, distance=distance, distance_release=distance / 2),
        quality=ModelQuality(panel=10, inertia=1.0),
        profiles=tuple(
            SegmentProfile(id=f"seg-{n}", name=f"Segment {n}", born_version=1, size=0.5, means={}, z={}) for n in (1, 2)
        ),
    )


class Driven:
    """One partition of a processor. `wall` says whether it has a clock, or the records' own."""

    def __init__(self, *rules: RuleSegment, wall: bool = True, features: Sequence[AnyFeature] = FEATURES) -> None:
        self.wall = wall
        self.features = tuple(features)
        self.written: list[OutRecord] = []
        self._deltas: list[tuple[dict[str, Any], bytes]] = []
        self._models: list[Sent] = []
        self._offset = 0
        self.recorder = Mock()
        self.restart(*rules)

    def restart(self, *rules: RuleSegment, features: Sequence[AnyFeature] | None = None) -> None:
        """Kill it, and start another one from what was committed, with these rules."""
        if features is not None:
            self.features = tuple(features)
        self.rules = rules
        self.layout: Layout = compile_layout(self.features, COLUMNS)
        self.processor = Processor(
            self.layout,
            rules=rules,
            settings=ProcessorSettings(sweep_slice=100),
            decision=DecisionSettings(looks=1, confirm=0, dwell=0, newcomer_events=2),
            quarantine=QuarantineSettings(enter_looks=1, release_looks=1),
            recorder=self.recorder,
        )
        self.processor.restore(0, self._deltas)
        if self._models:
            self.processor.update_table(topics.SEGMENT_MODEL, self._models)

    @property
    def population(self) -> Population:
        return self.processor.populations[0]

    def publish(self, model: Model) -> None:
        self._models.append(Sent(topics.SEGMENT_MODEL, 0, len(self._models), START, b"1", model.to_bytes()))
        self.processor.update_table(topics.SEGMENT_MODEL, self._models[-1:])

    def feed(self, *events: tuple[str, int, str, dict[str, Any]]) -> list[SegmentChange]:
        """Events (user, time, type, the rest) that arrive when they happen; returns the changes that they cause."""
        records = []
        for user, time, kind, rest in events:
            self._offset += 1
            event = {"type": kind, "event_id": f"e{self._offset}", "occurred_at": time, "user_id": user, **rest}
            records.append(Sent(topics.EVENTS, 0, self._offset, time, user.encode(), orjson.dumps(event)))
        now = max(record.timestamp for record in records) if self.wall else None
        return self._keep(self.processor.process({0: records}, now))

    def browse(self, user: str, time: int, times: int = 1) -> list[SegmentChange]:
        return self.feed(*[(user, time, "browse", {"item_id": "i"})] * times)

    def buy(self, user: str, time: int, amount: float = 10.0) -> list[SegmentChange]:
        return self.feed((user, time, "purchase", {"item_id": "i", "amount": amount, "currency": "EUR", "quantity": 1}))

    def tick(self, now: int) -> list[SegmentChange]:
        """Under the wall clock."""
        output = self.processor.tick(now)
        return [] if output is None else self._keep(output)

    def sweep(self, now: int) -> list[SegmentChange]:
        """Tick until a whole sweep is over and nothing is under way; `now` is later than the last sweep."""
        swept = self.population.counters["sweeps"]
        found: list[SegmentChange] = []
        for _ in range(1_000):
            found += self.tick(now)
            if self.population.counters["sweeps"] > swept and self.population.rules.settled:
                return found
        raise AssertionError(f"no sweep at {now}")

    def _keep(self, output: Output) -> list[SegmentChange]:
        self.written += output.records
        for delta in output.state.values():
            # Through JSON and bytes, as the changelog does it.
            self._deltas.append((orjson.loads(orjson.dumps(delta.meta)), bytes(delta.payload)))
        return changes(output.records)

    # -- what must be true of all that was written --------------------------------------------------------------

    def members(self) -> dict[str, set[str]]:
        """By user, the rule segments of the state."""
        table, slots = self.population.table, self.population.rules
        words = read_words(table, slice(None))
        return {user: {slot.id for slot in slots.of(words[row : row + 1])} for row, user in enumerate(table.user_ids)}

    def check(self) -> None:
        """Changes follow on each other without a gap; they, the memberships, the state and the counters agree."""
        segment: dict[str, str | None] = {}
        inside: dict[str, set[str]] = {}
        sequences: Counter[str] = Counter()
        causes: Counter[str] = Counter()
        expected: dict[str, tuple[str | None, int]] = {}
        for change in changes(self.written):
            user = change.user_id
            sequences[user] += 1
            causes[change.cause] += 1
            assert change.sequence == sequences[user]
            assert change.id == change_id(user, change.sequence)
            left = change.from_.id if change.from_ else None
            entered = change.to.id if change.to else None
            assert left != entered
            if (rule_id := next((one for one in (left, entered) if one and one.startswith("rule:")), None)) is None:
                assert segment.get(user) == left
                segment[user] = entered
                expected[user] = entered, change.sequence
                continue
            rules = inside.setdefault(user, set())
            assert (left is None) != (entered is None)
            assert (rule_id in rules) == (left is not None)
            rules ^= {rule_id}
            if entered is None:
                del expected[membership_key(user, rule_id)]
            else:
                expected[membership_key(user, rule_id)] = entered, change.sequence
        table = self.population.table
        names = dict(zip(table.user_ids, table.column("segment").tolist(), strict=True))
        assert {user: segment_name(number) for user, number in names.items()} == {
            user: segment.get(user) for user in table.user_ids
        }
        assert self.members() == {user: inside.get(user, set()) for user in table.user_ids}
        assert dict(zip(table.user_ids, table.column("sequence").tolist(), strict=True)) == {
            user: sequences[user] for user in table.user_ids
        }
        assert {name[8:]: n for name, n in self.population.counters.items() if name.startswith("changes.")} == causes
        counted = Counter(one for rules in self.members().values() for one in rules)
        assert {identifier: n for (identifier, _), n in self.population.rules.members().items()} == counted
        assert memberships(self.written) == expected


def changes(records: Iterable[OutRecord]) -> list[SegmentChange]:
    found = []
    for record in records:
        if record.topic == topics.SEGMENT_CHANGES:
            assert record.value is not None
            change = SegmentChange.model_validate_json(record.value)
            assert record.key == change.user_id.encode()
            assert record.partition == 0
            assert dict(record.headers)["ce_id"] == change.id.encode()
            found.append(change)
    return found


def memberships(records: Iterable[OutRecord]) -> dict[str, tuple[str | None, int]]:
    """The compacted topic: by key the segment and the sequence."""
    kept: dict[str, tuple[str | None, int]] = {}
    for record in records:
        if record.topic != topics.SEGMENT_MEMBERSHIP:
            continue
        assert record.key is not None
        if record.value is None:
            del kept[record.key.decode()]
            continue
        said = SegmentMembership.model_validate_json(record.value)
        kept[record.key.decode()] = said.segment.id if said.segment else None, said.sequence
    return kept


def told(found: Iterable[SegmentChange]) -> list[tuple[str, str, str]]:
    """Rule changes in short: user, "+vip" or "-vip", cause."""
    return [
        (change.user_id, f"{'+' if change.to else '-'}{segment.id.removeprefix('rule:')}", change.cause)
        for change in found
        if (segment := change.to or change.from_) is not None and segment.id.startswith("rule:")
    ]
