"""A journal of commits, written by the workers in the same transactions as what they commit.

Each record says which worker committed which part of which input, and under which model. From it the oracle knows
the batches, and so can compute every output anew; and a commit that happened twice, or one of a zombie, shows as a
part of the input that was committed twice. What the program does is not changed by it.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import orjson

from schemas.topics import TopicSpec
from stream.runtime.changelog import decode_frame
from stream.transport.base import OutRecord, Poll, Session, TopicPartition, Transport

JOURNAL = "fault-journal"
SPEC = TopicSpec(JOURNAL, "input", retention_ms=None)


@dataclass(frozen=True, slots=True)
class Entry:
    """One commit of one stage's partition: `first` is the first record that it worked on, by topic, if there was one;
    `stands` are its input offsets afterwards."""

    stage: str
    partition: int
    worker: str
    at: float
    first: dict[str, int]
    stands: dict[str, int | None]
    model_version: int


def journal(transport: Transport, worker: str) -> Transport:
    """Let every session of this transport write the journal; returns the transport."""
    join = transport.session

    def session(group: str, topics: Sequence[str]) -> Session:
        return _JournalSession(join(group, topics), worker)

    transport.session = session  # type: ignore[method-assign]
    return transport


def read_journal(transport: Transport, partitions: int) -> dict[tuple[str, int], list[Entry]]:
    """All entries by stage and partition, in the order of their commits."""
    found: dict[tuple[str, int], list[Entry]] = {}
    for partition in range(partitions):
        for record in transport.read(TopicPartition(JOURNAL, partition), 0):
            entry = Entry(**orjson.loads(record.value or b""))
            found.setdefault((entry.stage, entry.partition), []).append(entry)
    return found


class _JournalSession(Session):
    def __init__(self, inner: Session, worker: str) -> None:
        self._inner = inner
        self._worker = worker
        self._first: dict[TopicPartition, int] = {}

    def poll(self, max_records: int, timeout: float) -> Poll:
        poll = self._inner.poll(max_records, timeout)
        for where in poll.revoked:
            self._first.pop(where, None)
        for where, records in poll.records.items():
            self._first.setdefault(where, records[0].offset)
        return poll

    def resume(self, partitions: Iterable[TopicPartition]) -> None:
        self._inner.resume(partitions)

    def commit(self, offsets: Mapping[TopicPartition, int], outputs: Sequence[OutRecord]) -> dict[TopicPartition, int]:
        first = self._inner.commit(offsets, [*outputs, *self._entries(outputs)])
        for where in offsets:
            self._first.pop(where, None)
        return first

    def lag(self) -> dict[TopicPartition, int]:
        return self._inner.lag()

    def close(self) -> None:
        self._inner.close()

    def _entries(self, outputs: Sequence[OutRecord]) -> list[OutRecord]:
        entries = []
        for record in outputs:
            if not record.topic.endswith("-state") or record.partition is None:
                continue
            header = decode_frame(record.value, record.topic).header
            if header["part"] != header["parts"] - 1:
                continue
            entry = {
                "stage": header["stage"],
                "partition": record.partition,
                "worker": self._worker,
                "at": time.time(),
                "first": {
                    where.topic: offset for where, offset in self._first.items() if where.partition == record.partition
                },
                "stands": header["inputs"],
                "model_version": header["meta"].get("model_version", 0),
            }
            entries.append(OutRecord(JOURNAL, None, orjson.dumps(entry), record.partition))
        return entries
