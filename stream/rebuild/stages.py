"""Writes a stage's state anew, computed from what is kept, at the offsets that its group has committed.

Invariant: nothing is published. What the committed input caused was published when it was committed; only the state is
made again, and the stage then goes on as if it had never been lost. Until the last record of a rebuilt state is
written, the changelog does not stand where the offsets do, so that no stage can start from half a state.

It joins the stage's group to prove that nobody else is at work, and is fenced as any member is.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from schemas import topics
from stream.config import Config
from stream.rebuild.campaigns import rebuild_caps, rebuild_outbox
from stream.rebuild.model import rebuild_modeller
from stream.rebuild.users import rebuild_users
from stream.runtime.changelog import Changelog
from stream.runtime.stage import StateDelta
from stream.transport.base import Session, TopicPartition, Transport, TransportError

JOIN_S: Final = 60.0
Offsets = Mapping[str, int]
"""By input topic, where the group stands."""
Builder = Callable[[Transport, Config, int, Offsets], Iterable[StateDelta]]


@dataclass(frozen=True, slots=True)
class _Rebuildable:
    """How one stage's state is made."""

    changelog: str
    build: Builder
    input: str | None = None
    """None: the configured event topics."""

    def inputs(self, config: Config) -> tuple[str, ...]:
        return config.topics.events if self.input is None else (self.input,)


STAGES: Final[Mapping[str, _Rebuildable]] = {
    "processor": _Rebuildable(topics.USER_STATE, rebuild_users),
    "modeller": _Rebuildable(topics.MODELLER_STATE, rebuild_modeller, topics.OBSERVATIONS),
    "campaigns": _Rebuildable(topics.CAMPAIGN_STATE, rebuild_caps, topics.SEGMENT_CHANGES),
    "delivery": _Rebuildable(topics.DELIVERY_STATE, rebuild_outbox, topics.CAMPAIGN_ACTIONS),
}


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """One partition: the offsets at which its state stands, and the bytes of it."""

    partition: int
    stands: dict[str, int]
    state_bytes: int


def rebuild(transport: Transport, config: Config, stage: str) -> Iterator[Rebuilt]:
    """Make the state of every partition of a stage anew; partitions that never committed are left out.

    Raises TransportError where others are at work, FencedError where somebody joins meanwhile, UnavailableError.
    """
    chosen = STAGES[stage]
    inputs = chosen.inputs(config)
    with _Alone(transport, config, stage, inputs) as session:
        for partition in range(transport.partitions(inputs[0])):
            offsets = _committed(transport, config, stage, inputs, partition)
            if not any(offsets.values()):
                continue
            stands = {topic: offset or 0 for topic, offset in offsets.items()}
            deltas = chosen.build(transport, config, partition, stands)
            changelog = Changelog(transport, stage, chosen.changelog)
            written = _write(transport, session, changelog, chosen.changelog, partition, stands, deltas)
            yield Rebuilt(partition, stands, written)


def adopt_offsets(transport: Transport, config: Config, stage: str) -> Iterator[Rebuilt]:
    """Commit, for every partition, the offsets at which its state stands: the way back where offsets were lost.

    Raises as `rebuild`, and StateLostError where the state is not whole.
    """
    chosen = STAGES[stage]
    inputs = chosen.inputs(config)
    with _Alone(transport, config, stage, inputs) as session:
        for partition in range(transport.partitions(inputs[0])):
            changelog = Changelog(transport, stage, chosen.changelog)
            size = sum(len(payload) for _, payload in changelog.restore(partition, {}))
            stands = {topic: offset or 0 for topic, offset in changelog.stands_at(partition).items() if topic in inputs}
            if any(stands.values()):
                session.commit({TopicPartition(topic, partition): offset for topic, offset in stands.items()}, [])
                yield Rebuilt(partition, stands, size)


def _write(
    transport: Transport,
    session: Session,
    changelog: Changelog,
    topic: str,
    partition: int,
    stands: Offsets,
    deltas: Iterable[StateDelta],
) -> int:
    where = TopicPartition(topic, partition)
    changelog.begin(partition)
    transport.trim(where, transport.end_offset(where))
    size = 0
    waiting: StateDelta | None = None
    # All but the last one say that they stand nowhere: a state that is broken off must not be taken for a whole one.
    for delta in deltas:
        if waiting is not None:
            size += _commit(session, changelog, where, waiting, {}, {})
        waiting = delta
    if waiting is not None:
        offsets = {TopicPartition(name, partition): offset for name, offset in stands.items()}
        size += _commit(session, changelog, where, waiting, stands, offsets)
    return size


def _commit(
    session: Session,
    changelog: Changelog,
    where: TopicPartition,
    delta: StateDelta,
    stands: Offsets,
    offsets: Mapping[TopicPartition, int],
) -> int:
    records = changelog.frame(where.partition, delta, stands)
    written = session.commit(offsets, records)
    changelog.written(where.partition, delta, written[where])
    return sum(len(record.value or b"") for record in records)


def _committed(
    transport: Transport, config: Config, stage: str, inputs: Sequence[str], partition: int
) -> dict[str, int | None]:
    group = f"{config.runner.group}-{stage}"
    return {topic: transport.committed(group, TopicPartition(topic, partition)) for topic in inputs}


class _Alone:
    """The only member of a stage's group, for the length of a `with` block. Nothing is read from it."""

    def __init__(self, transport: Transport, config: Config, stage: str, inputs: Sequence[str]) -> None:
        self._transport = transport
        self._group = f"{config.runner.group}-{stage}"
        self._stage = stage
        self._inputs = inputs

    def __enter__(self) -> Session:
        self._session = self._transport.session(self._group, self._inputs)
        try:
            self._join()
        except BaseException:
            self._session.close()
            raise
        return self._session

    def __exit__(self, *_: object) -> None:
        self._session.close()

    def _join(self) -> None:
        wanted = {
            TopicPartition(topic, partition)
            for topic in self._inputs
            for partition in range(self._transport.partitions(topic))
        }
        owned: set[TopicPartition] = set()
        deadline = time.monotonic() + JOIN_S
        while owned != wanted:
            poll = self._session.poll(1, 0.5)
            owned = (owned - poll.revoked) | poll.assigned
            if time.monotonic() > deadline:
                raise TransportError(
                    f"other members of {self._group} have partitions: stop every process with the role of the "
                    f"{self._stage} first"
                )
