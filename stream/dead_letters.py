"""Dead letters, looked at and sent back to where they came from.

A replay reads the dead letters as a consumer group of its own for each reason, and commits its offsets in the same
transaction as the records that it sends back. So a letter goes back once, however often the replay is broken off or
run again, and one reason's letters wait while another's go. What is dead again lands among the dead letters again, as
a new letter; a replay goes no further than to where the topic ended when it began.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, get_args

from pydantic import ValidationError

from schemas.dead_letter import DeadLetter, Reason
from schemas.topics import DEAD_LETTERS
from stream.config import Config
from stream.segments.dead_letters import MAX_ORIGINAL_BYTES
from stream.transport.base import FencedError, OutRecord, Record, Session, TopicPartition, Transport, TransportError

REASONS: Final[tuple[Reason, ...]] = get_args(Reason)
FROM_HEADER: Final = "resegment-replayed-from"
REASON_HEADER: Final = "resegment-dead-letter-reason"
_BATCH = 500
_POLL_S = 0.5
_ATTEMPTS = 20
_SAMPLE_BYTES = 120


@dataclass(frozen=True, slots=True)
class Period:
    """Of rejection, epoch milliseconds: from `since` (included) to `until` (not included)."""

    since: int | None = None
    until: int | None = None

    def holds(self, time_ms: int) -> bool:
        """Whether a time lies in it."""
        return (self.since is None or time_ms >= self.since) and (self.until is None or time_ms < self.until)


@dataclass(slots=True)
class ReasonSummary:
    """The letters of one reason. `waiting` were not sent back yet; `samples` are details with their positions."""

    count: int = 0
    waiting: int = 0
    first_at: int | None = None
    last_at: int | None = None
    fields: Counter[str] = field(default_factory=Counter)
    samples: list[dict[str, object]] = field(default_factory=list)


def summarise(
    transport: Transport, config: Config, reasons: Sequence[Reason], period: Period, samples: int
) -> dict[Reason, ReasonSummary]:
    """Every reason that has letters in the period, the most frequent first, with its newest `samples`."""
    found: dict[Reason, ReasonSummary] = {}
    for partition in range(transport.partitions(DEAD_LETTERS)):
        where = TopicPartition(DEAD_LETTERS, partition)
        done = {reason: transport.committed(group_of(config, reason), where) or 0 for reason in reasons}
        for record in transport.read(where, 0):
            letter = read_letter(record)
            if letter.reason not in reasons or not period.holds(letter.rejected_at):
                continue
            summary = found.setdefault(letter.reason, ReasonSummary())
            summary.count += 1
            summary.waiting += record.offset >= done[letter.reason]
            summary.first_at = min(letter.rejected_at, summary.first_at or letter.rejected_at)
            summary.last_at = max(letter.rejected_at, summary.last_at or 0)
            summary.fields[letter.field or ""] += 1
            summary.samples.append(_sample(record, letter))
            del summary.samples[: -samples or None]
    return dict(sorted(found.items(), key=lambda item: -item[1].count))


def read_letter(record: Record) -> DeadLetter:
    """The letter in a record. Raises TransportError where there is none."""
    try:
        return DeadLetter.model_validate_json(record.value or b"")
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = f"{record.topic}/{record.partition}@{record.offset}"
        raise TransportError(f"{place} is no dead letter: {first['msg']} ({first['loc']})") from None


def group_of(config: Config, reason: Reason) -> str:
    """The consumer group that sends the letters of a reason back."""
    return f"{config.runner.group}-dead-letter-replay-{reason}"


def _sample(record: Record, letter: DeadLetter) -> dict[str, object]:
    return {
        "letter": f"{record.partition}@{record.offset}",
        "source": f"{letter.source.topic}/{letter.source.partition}@{letter.source.offset}",
        "detail": letter.detail,
        "original": None if letter.original is None else _shown(letter.original),
    }


def _shown(original: bytes) -> str:
    text = original[:_SAMPLE_BYTES].decode(errors="backslashreplace")
    return text + ("..." if len(original) > _SAMPLE_BYTES else "")


@dataclass(slots=True)
class Replayed:
    """What a replay of one reason did, or would do: letters sent back, passed over, and not whole any more."""

    sent: int = 0
    passed_over: int = 0
    """Rejected before the period: a later replay of this reason will not send them either."""
    incomplete: int = 0
    """The original was too large for a letter, and its source is deleted: it cannot be sent."""


class ReasonReplay:
    """Sends the letters of one reason back.

    A letter rejected at or after the period's end, and everything behind it, waits for a later run.
    """

    def __init__(self, transport: Transport, config: Config, reason: Reason, period: Period) -> None:
        self._transport = transport
        self._group = group_of(config, reason)
        self._reason = reason
        self._period = period
        # Under the data's own clock a record's time moves it: letters go back at the time of their rejection.
        self._keep_time = config.runner.clock == "record"
        self._targets: dict[TopicPartition, int] = {}

    def plan(self) -> Replayed:
        """Find out how far to go; returns what would be done."""
        planned = Replayed()
        self._targets.clear()
        for partition in range(self._transport.partitions(DEAD_LETTERS)):
            where = TopicPartition(DEAD_LETTERS, partition)
            for record in self._transport.read(where, self._transport.committed(self._group, where) or 0):
                letter = read_letter(record)
                if letter.reason != self._reason:
                    continue
                if self._period.until is not None and letter.rejected_at >= self._period.until:
                    break
                self._targets[where] = record.offset + 1
                self._count(planned, letter)
        return planned

    def run(self) -> Replayed:
        """Send back what the plan found. Broken off, it carries on when it is run again.

        Raises UnavailableError, TransportError.
        """
        done = Replayed()
        failures = 0
        while self._left():
            session = self._transport.session(self._group, [DEAD_LETTERS])
            try:
                self._work(session, done)
            except FencedError:
                failures += 1
                if failures == _ATTEMPTS:
                    raise
                time.sleep(min(2.0, 0.1 * 2**failures))
            finally:
                session.close()
        return done

    def _left(self) -> dict[TopicPartition, int]:
        """Partitions that are not sent back to their target yet, by this replay or by another one beside it."""
        return {
            where: target
            for where, target in self._targets.items()
            if (self._transport.committed(self._group, where) or 0) < target
        }

    def _work(self, session: Session, done: Replayed) -> None:
        left = self._left()
        while left:
            poll = session.poll(_BATCH, _POLL_S)
            session.resume(poll.assigned)
            if not poll.records:
                left = self._left()
                continue
            step = Replayed()
            offsets: dict[TopicPartition, int] = {}
            outputs: list[OutRecord] = []
            for where, records in poll.records.items():
                for record in records:
                    if record.offset < left.get(where, 0):
                        offsets[where] = record.offset + 1
                        outputs += self._returned(record, step)
            if not offsets:
                continue
            session.commit(offsets, outputs)
            done.sent += step.sent
            done.passed_over += step.passed_over
            done.incomplete += step.incomplete
            left = {where: target for where, target in left.items() if offsets.get(where, 0) < target}

    def _returned(self, record: Record, step: Replayed) -> Iterator[OutRecord]:
        letter = read_letter(record)
        if letter.reason != self._reason:
            return
        if not self._count(step, letter):
            return
        source = letter.source
        headers = (
            (FROM_HEADER, f"{source.topic}/{source.partition}@{source.offset}".encode()),
            (REASON_HEADER, letter.reason.encode()),
        )
        time_ms = letter.rejected_at if self._keep_time else None
        yield OutRecord(source.topic, letter.key, self._original(letter), source.partition, headers, time_ms)

    def _count(self, step: Replayed, letter: DeadLetter) -> bool:
        """Count a letter; whether it can go back."""
        if self._period.since is not None and letter.rejected_at < self._period.since:
            step.passed_over += 1
            return False
        if _is_cut(letter) and self._source(letter) is None:
            step.incomplete += 1
            return False
        step.sent += 1
        return True

    def _original(self, letter: DeadLetter) -> bytes | None:
        source = self._source(letter) if _is_cut(letter) else None
        return letter.original if source is None else source.value

    def _source(self, letter: DeadLetter) -> Record | None:
        """The record that the letter is about, if it is kept."""
        place = letter.source
        where = TopicPartition(place.topic, place.partition)
        return next(self._transport.read(where, place.offset, place.offset + 1), None)


def _is_cut(letter: DeadLetter) -> bool:
    """Whether the letter holds only the beginning of the original."""
    return letter.original is not None and len(letter.original) >= MAX_ORIGINAL_BYTES
