"""A stage turns batches into outputs and state. It never touches a transport, so it is tested without one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from stream.transport.base import OutRecord, Record


@dataclass(slots=True)
class StateDelta:
    """What changed in the state of one partition.

    `meta` is small and written whole every time (JSON values: counters, clocks, cursors). `payload` holds the
    changed rows in the stage's own packing; `Stage.restore` takes both back.
    """

    payload: bytes
    meta: dict[str, Any] = field(default_factory=dict)
    keeps: int = 0
    """So many of the partition's last deltas, this one among them, hold the whole state: those before them may go.
    With 1 it does so alone; 0 lets nothing go."""


@dataclass(slots=True)
class Output:
    """What one call of a stage caused; the runner commits it with the offsets, atomically.

    With `commit` False the runner may go on without committing: the stage keeps what it learned in memory and
    would learn it again from the same records after a crash.
    """

    records: list[OutRecord] = field(default_factory=list)
    state: dict[int, StateDelta] = field(default_factory=dict)
    commit: bool = True


class Stage(ABC):
    """One step of the pipeline.

    Calls come from one thread, in this order for a partition: `restoring`, then any number of `process` and `tick`,
    then `drop`. After any failure the runner drops everything and restores from what was committed, so a stage
    needs no undo.
    """

    name: str
    """Also the consumer group's suffix."""
    inputs: tuple[str, ...]
    """Consumed with committed offsets; co-partitioned."""
    tables: tuple[str, ...] = ()
    """One-partition compacted topics that every instance reads whole, and follows."""
    changelog: str | None = None
    """The topic that carries this stage's state, co-partitioned with the inputs."""

    def restore(self, partition: int, deltas: Iterable[tuple[dict[str, Any], bytes]]) -> None:
        """All steps of `restoring` at once."""
        for _ in self.restoring(partition, deltas):
            pass

    @abstractmethod
    def restoring(self, partition: int, deltas: Iterable[tuple[dict[str, Any], bytes]]) -> Generator[None, None, None]:
        """A partition is ours: start with an empty state and apply (meta, payload) in order, last write wins.

        A generator, so that other partitions are served meanwhile: it takes at most one delta between two yields.
        It may be closed at any of them, when the partition is lost again; nothing may show of it before the end.
        """

    @abstractmethod
    def drop(self, partition: int) -> None:
        """A partition is no longer ours: forget it."""

    def update_table(self, topic: str, records: Sequence[Record]) -> None:  # noqa: B027
        """New records of a topic in `tables`, in order; called before `process` and `tick`."""

    @abstractmethod
    def process(self, batch: Mapping[int, Sequence[Record]], now_ms: int | None) -> Output:
        """Records by partition (each list sorted by topic, then offset). `now_ms` is the wall clock, or None
        where the clock is the data's own: then a record's timestamp is the time at which it arrived."""

    def tick(self, now_ms: int | None) -> Output | None:
        """Called between batches and at least every second, also when nothing arrives. None: nothing to do."""
        return None
