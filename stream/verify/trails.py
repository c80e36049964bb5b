"""What the changes of one partition say about its users, and whether they follow on each other.

Invariants checked, for each user: sequences count up from 1 by 1; ids follow from user and sequence; a change begins
where the last one ended; a rule segment is entered before it is left. One small object a user is kept, however many
changes there are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import orjson
import xxhash

from schemas import topics
from schemas.types import CAUSES
from stream.segments.assign import QUARANTINE, segment_name
from stream.segments.changes import change_id
from stream.segments.rules import PREFIX as RULE
from stream.transport.base import Record
from stream.verify.report import Report
from stream.verify.tally import Counted, Tally

HELD = segment_name(QUARANTINE)


class Trail:
    """One user. `certain` is the sequence at the cut: later changes may have been published while we read."""

    __slots__ = ("certain", "entered", "rules", "segment", "sequence")

    def __init__(self) -> None:
        self.sequence = 0
        self.certain = 0
        self.segment: str | None = None
        """The learned or built-in segment's id, after the last change that was not a rule's."""
        self.entered: tuple[int, int] | None = None
        """Of that change: sequence, and digest of what the membership must repeat."""
        self.rules: dict[str, tuple[int, int]] = {}
        """By rule segment that the user is in, the same of the change that brought the user there."""


@dataclass(slots=True)
class Trails:
    """All changes of one partition. `segments` holds the segment ids of each model version that is kept."""

    partition: int
    cut: int
    start: int
    segments: dict[int, frozenset[str]]
    report: Report
    users: dict[str, Trail] = field(default_factory=dict)
    causes: Counted = field(init=False)
    held: Tally = field(default_factory=Tally)
    """Changes into quarantine and out of it, up to the end."""
    held_at_cut: Tally = field(default_factory=Tally)
    sources: Counter[str] = field(default_factory=Counter)
    """By input topic, one past the last offset that a change names as its source, up to the cut."""

    def __post_init__(self) -> None:
        self.causes = Counted(self.cut, self.start)

    @property
    def whole(self) -> bool:
        """No change was ever deleted: everybody's trail begins with sequence 1."""
        return self.start == 0

    def read(self, records: Iterable[Record]) -> None:
        """Take the changes in, in order."""
        for record in records:
            self.report.checked["changes"] += 1
            try:
                self._take(record, orjson.loads(record.value or b""))
            except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError, ValueError) as error:
                self._found(record, f"is no segment change ({type(error).__name__}: {error})")

    def _take(self, record: Record, change: dict[str, Any]) -> None:
        user, sequence, identifier = change["user_id"], change["sequence"], change["id"]
        key = user.encode()
        trail = self.users.get(user)
        fresh = trail is None
        if trail is None:
            trail = self.users[user] = Trail()
        if record.key != key:
            self._found(record, f"is of user {user!r}, but its key is {record.key!r}")
        if identifier != change_id(user, sequence):
            self._found(record, f"has id {identifier}, expected {change_id(user, sequence)} for sequence {sequence}")
        if dict(record.headers).get("ce_id") != identifier.encode():
            self._found(record, "has another ce_id than id")
        if sequence != trail.sequence + 1 and (self.whole or not fresh):
            what = "again" if sequence <= trail.sequence else "with a gap"
            self._found(record, f"has sequence {sequence} of user {user!r} after {trail.sequence}: {what}")
        self._follow(record, change, trail)
        self._stamp(record, change)
        trail.sequence = sequence
        if record.offset < self.cut:
            trail.certain = sequence

    def _follow(self, record: Record, change: dict[str, Any], trail: Trail) -> None:
        left, entered = _id(change["from"]), _id(change["to"])
        if left == entered:
            self._found(record, f"leads from {left} to {entered}")
        rule = next((segment for segment in (entered, left) if segment is not None and segment.startswith(RULE)), None)
        mark = change["sequence"], digest(change["to"], change)
        if rule is None:
            if left != trail.segment and (self.whole or trail.entered is not None):
                self._found(record, f"leaves {left}, but user {change['user_id']!r} is in {trail.segment}")
            trail.segment, trail.entered = entered, mark
            if HELD in (left, entered):
                self.held.add(change["id"])
                if record.offset < self.cut:
                    self.held_at_cut.add(change["id"])
            return
        if left is not None and entered is not None:
            self._found(
                record, f"leads from {left} to {entered}: a rule segment is entered from none and left for none"
            )
        if entered is None and trail.rules.pop(rule, None) is None and self.whole:
            self._found(record, f"leaves {rule}, but user {change['user_id']!r} is not in it")
        if entered is not None:
            if rule in trail.rules:
                self._found(record, f"enters {rule}, but user {change['user_id']!r} is in it")
            trail.rules[rule] = mark

    def _stamp(self, record: Record, change: dict[str, Any]) -> None:
        """Cause, model version and source."""
        cause, version, source = change["cause"], change["model_version"], change["source"]
        if cause not in CAUSES:
            self._found(record, f"has the cause {cause!r}")
        self.causes.add(cause, record.offset)
        entered = _id(change["to"])
        known = self.segments.get(version)
        if known is not None and entered is not None and entered.startswith("seg-") and entered not in known:
            self._found(record, f"enters {entered}, which model {version} does not have")
        if source is not None and record.offset < self.cut:
            self.sources[source["topic"]] = max(self.sources[source["topic"]], source["offset"] + 1)

    def _found(self, record: Record, what: str) -> None:
        self.report.add("changes", f"{topics.SEGMENT_CHANGES}/{self.partition}@{record.offset}", what)


def digest(segment: dict[str, Any] | None, stamped: dict[str, Any]) -> int:
    """Of what a change and the membership that follows from it both say, beside user and sequence."""
    said = (
        _id(segment),
        segment and segment["name"],
        stamped["cause"],
        stamped["model_version"],
        stamped["confidence"],
    )
    return xxhash.xxh3_64_intdigest(repr(said).encode())


def _id(segment: dict[str, Any] | None) -> str | None:
    return None if segment is None else str(segment["id"])
