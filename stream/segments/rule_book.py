"""The rules, applied to users: who enters and who leaves declared segments, and the records that this causes.

Invariant: who was looked at is in a rule segment exactly where its rule says so and they are not in quarantine. So a
user who is put into quarantine leaves every rule segment, nothing happens while they are held, and who is let out
enters again where a rule says so; all of these have the cause `anomaly`. Newcomers are users like all others.

Causes beside it: `behaviour` at a look that an event caused; `inactivity` at any other, for then only time has passed,
whatever became of the model; `model` where the rule itself, or a feature that it speaks of, was declared otherwise
since the user was last looked at. Rules never wait for a model.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import orjson
from numpy.typing import NDArray

from schemas.types import CAUSES
from stream.features.spec import AnyFeature
from stream.segments.assign import ANOMALY, BEHAVIOUR, INACTIVITY, MODEL
from stream.segments.changes import NULL, Moved, Moves, rule_records
from stream.segments.look import Moment, Triggers, position
from stream.segments.population import Population, Rows
from stream.segments.rule_slots import EPOCH, RuleDefinition, Slot, Words, bits_of, has, put, read_words, write_words
from stream.segments.rules import RuleSegment
from stream.transport.base import OutRecord

SLICE_CHANGES: Final = 20_000
"""What one slice of `overdue` users can change at most: after an edit everybody may have to move."""

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Looked:
    """A look at m users: their `rows`, features (m, F), who of them was in quarantine before it, when and why it
    took place, the model's version, and the events behind it."""

    rows: Rows
    features: FloatArray
    was_held: BoolArray
    moment: Moment
    model_version: int
    triggers: Triggers | None = None

    def without_events(self, index: NDArray[np.intp]) -> Looked:
        """Some of the users of a look that no event caused."""
        return Looked(self.rows[index], self.features[index], self.was_held[index], self.moment, self.model_version)


class RuleBook:
    """The configured rules over the declared `features`, which are the columns of the feature matrix."""

    def __init__(self, rules: Sequence[RuleSegment], features: Sequence[AnyFeature], source: str) -> None:
        self._rules = {rule.id: rule for rule in rules}
        self._definitions = [RuleDefinition(rule.id, rule.name, rule.definition(features)) for rule in rules]
        place = {feature.name: at for at, feature in enumerate(features)}
        self._columns = {name: place[name] for rule in rules for name in rule.features}
        self._source = source

    @property
    def columns(self) -> Iterable[int]:
        """Those of the feature matrix that the rules speak of."""
        return self._columns.values()

    def adopt(self, population: Population) -> None:
        """A population was taken over: from now on its users are under these rules."""
        population.rules.adopt(self._definitions)
        self.overdue(population)  # where there are no users, that settles it

    def overdue(self, population: Population) -> Rows | None:
        """The next slice of users who were not looked at since the rules were edited; None where nobody is left.

        They are for `follow`, and for it alone: an edit can move everybody at once, which must stall nothing.
        """
        slots = population.rules
        while not slots.settled:
            rows: Rows = np.flatnonzero(population.table.column(EPOCH) < slots.epoch)
            if len(rows):
                return rows[: max(1, SLICE_CHANGES // len(slots.slots))]
            slots.settle()
            slots.adopt(self._definitions)
        return None

    def at(self, population: Population, looked: Looked) -> list[OutRecord]:
        """Decide the users of a look, after their learned segment. Writes to their rows only.

        Returns the records of those who moved: by row, what they leave before what they enter, then by id.
        Users who are overdue since an edit are left to `follow`, unless an event or their quarantine is about them.
        """
        slots = population.rules
        if not slots.slots:
            return []
        if not slots.settled and looked.triggers is None:
            due = population.table.column(EPOCH)[looked.rows] >= slots.epoch
            due |= looked.was_held != population.held(looked.rows)
            looked = looked.without_events(np.flatnonzero(due))
        return self.follow(population, looked)

    def follow(self, population: Population, looked: Looked) -> list[OutRecord]:
        """The same for everybody in the look."""
        rows = looked.rows
        held = population.held(rows)
        before = read_words(population.table, rows)
        after = self._decide(population, looked.features, before, held)
        epochs = self._stamp(population, rows)
        changed = before ^ after
        moved = np.flatnonzero(changed.any(axis=1))
        if not len(moved):
            return []
        write_words(population.table, rows[moved], after[moved])
        population.touch(rows[moved])
        by_bit = {slot.bit: slot for slot in population.rules.slots.values()}
        look = BEHAVIOUR if looked.moment.cause == BEHAVIOUR else INACTIVITY
        moves: list[Moved] = []
        segments: list[str] = []
        for i in moved.tolist():
            entered = set(bits_of(after[i]))
            turned = [(bit in entered, by_bit[bit]) for bit in bits_of(changed[i])]
            for enters, slot in sorted(turned, key=lambda turn: (turn[0], turn[1].id)):
                cause = look
                if held[i] != looked.was_held[i]:
                    cause = ANOMALY
                elif epochs is not None and epochs[i] < slot.since:
                    cause = MODEL
                moves.append(self._move(population, looked, i, slot, enters, cause))
                segments.append(slot.id)
                population.rules.sizes[slot.id] += 1 if enters else -1
                population.counters[f"changes.{CAUSES[cause]}"] += 1
        return rule_records(Moves.of(moves), segments, looked.model_version, self._source, population.partition)

    def _decide(self, population: Population, features: FloatArray, before: Words, held: BoolArray) -> Words:
        columns = {name: np.ascontiguousarray(features[:, at]) for name, at in self._columns.items()}
        after = np.zeros_like(before)
        for slot in population.rules.slots.values():
            if slot.digest is not None:
                put(after, slot.bit, self._rules[slot.id].members(columns, has(before, slot.bit)))
        after[held] = 0
        return after

    @staticmethod
    def _stamp(population: Population, rows: Rows) -> NDArray[np.int32] | None:
        """Bring the rows' epochs up to date; returns what they were, or None where all are."""
        if population.rules.settled:
            return None
        column = population.table.column(EPOCH)
        epochs: NDArray[np.int32] = column[rows]
        overdue = rows[epochs < population.rules.epoch]
        column[overdue] = population.rules.epoch
        population.touch(overdue)
        return epochs

    def _move(self, population: Population, looked: Looked, i: int, slot: Slot, enters: bool, cause: int) -> Moved:
        row, triggers = int(looked.rows[i]), looked.triggers
        event = triggers if cause == BEHAVIOUR else None
        if event is not None:
            population.arrived.append(event.record(i).timestamp)
        sequence = population.table.column("sequence")
        sequence[row] += 1
        segment = orjson.dumps({"id": slot.id, "name": slot.name})
        return Moved(
            user_id=population.table.user_ids[row],
            sequence=int(sequence[row]),
            left=NULL if enters else segment,
            entered=segment if enters else NULL,
            cause=cause,
            occurred_at=int(triggers.times[i]) if triggers is not None else looked.moment.at,
            detected_at=looked.moment.detected_at,
            confidence=b"1.0",
            why=orjson.dumps([*self._why(slot, looked.features[i])] if enters or cause != ANOMALY else []),
            source=position(None if event is None else event.record(i)),
            event_id=NULL if event is None else orjson.dumps(event.event_ids[i]),
        )

    def _why(self, slot: Slot, features: FloatArray) -> Iterator[dict[str, Any]]:
        """The user's values of the features that the rule speaks of; nothing where it was taken out."""
        rule = self._rules.get(slot.id)
        for name in rule.features if rule is not None else ():
            value = float(features[self._columns[name]])
            yield {"feature": name, "value": None if np.isnan(value) else value, "segment_mean": None, "z": None}
