"""The changelog: a stage's state as a topic, one record for each partition and commit.

A record frames one StateDelta: `RSC3`, the header's length, a JSON header, the payload. A delta carries what changed,
and of the rest what is due to be written again (for the users: `stream/runtime/rewrite.py`); `keeps` says how many of
the last deltas hold the whole state. A restore reads from there (`restore_from`) to the end, last write wins, and what
is older may be deleted. `RSC2`, of former releases, is read too: it does not say so, and everything is kept.

Invariant: records below `restore_from` of the newest record are never needed, records from it on are never trimmed.
"""

from __future__ import annotations

import logging
import struct
import zlib
from collections import deque
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import orjson

from stream.runtime import crash
from stream.runtime.stage import StateDelta
from stream.transport.base import OutRecord, TopicPartition, Transport, TransportError

_MAGIC = b"RSC3"
_READ = (b"RSC2", _MAGIC)
_PREFIX = struct.Struct("<4sI")
PART_BYTES = 900_000
"""Below the broker's default limit for a record (1 MiB), header included."""
TRIM_SHARE = 0.25
"""The topic is trimmed when so much of what is needed could go: it takes round trips."""
TRIM_BYTES = 4_000_000
"""And not for less than this."""

log = logging.getLogger(__name__)


class StateLostError(TransportError):
    """The changelog does not hold what the committed offsets need. Starting from nothing would be silent loss."""


class _Mark(NamedTuple):
    """One delta in the topic."""

    offset: int
    size: int


@dataclass(slots=True)
class Cursor:
    """Where one partition's changelog stands: the deltas that a restore needs, and the input offsets of the newest."""

    marks: deque[_Mark] = field(default_factory=deque)
    inputs: Mapping[str, int | None] = field(default_factory=dict)
    needed: int = 0
    """Bytes of these deltas."""
    needless: int = 0
    """Bytes of those before them that are not trimmed."""
    framed: int = 0
    """Bytes of the delta that is about to be written."""

    def restore_from(self) -> int | None:
        """The offset of the first delta that is needed; None before there is any."""
        return self.marks[0].offset if self.marks else None

    def advance(self, keeps: int) -> None:
        """A delta comes next: forget what is not needed beside it. `add` it when its offset is known."""
        while keeps and len(self.marks) >= keeps:
            size = self.marks.popleft().size
            self.needed -= size
            self.needless += size

    def add(self, offset: int, size: int) -> None:
        """The delta of the last `advance`."""
        self.marks.append(_Mark(offset, size))
        self.needed += size


@dataclass(frozen=True, slots=True)
class Frame:
    """One decoded changelog record."""

    header: dict[str, Any]
    payload: bytes


def decode_frame(value: bytes | None, where: str) -> Frame:
    """Read one record back; raises StateLostError, naming `where`, for anything that is not whole."""
    if value is None or len(value) < _PREFIX.size:
        raise StateLostError(f"{where}: no changelog record; was the topic compacted or written by something else?")
    magic, length = _PREFIX.unpack_from(value)
    if magic not in _READ:
        raise StateLostError(f"{where}: not a changelog record (magic {magic!r})")
    header: dict[str, Any] = orjson.loads(value[_PREFIX.size : _PREFIX.size + length])
    payload = value[_PREFIX.size + length :]
    if zlib.crc32(payload) != header["crc"]:
        raise StateLostError(f"{where}: the changelog record is damaged (checksum)")
    return Frame(header, payload)


class Changelog:
    """Frames, restores and trims the state of one stage.

    Parameters: the transport, the stage's name (a changelog of another stage is refused) and its topic.
    """

    def __init__(self, transport: Transport, stage: str, topic: str) -> None:
        self._transport = transport
        self._stage = stage
        self._topic = topic
        self._cursors: dict[int, Cursor] = {}

    def restore(self, partition: int, inputs: Mapping[str, int | None]) -> Iterator[tuple[dict[str, Any], bytes]]:
        """Yield (meta, payload) of every delta that is needed, in order; then the partition's changelog may go on.

        `inputs` are the group's committed offsets by topic: where they say that work was done and the changelog
        knows nothing of it, or stands elsewhere, StateLostError says so.
        """
        self.adopt(partition, (yield from self.read(partition, inputs)))

    def adopt(self, partition: int, cursor: Cursor) -> None:
        """Go on from where `read` got to."""
        self._cursors[partition] = cursor

    def read(
        self, partition: int, inputs: Mapping[str, int | None]
    ) -> Generator[tuple[dict[str, Any], bytes], None, Cursor]:
        """As `restore`, on any thread: nothing is changed, the cursor is returned for `adopt`."""
        where = TopicPartition(self._topic, partition)
        start = self._transport.start_offset(where)
        cursor = Cursor()
        last: dict[str, Any] | None = None
        parts: list[bytes] = []
        first_of_parts = size = 0
        for record in self._transport.read(where, start):
            place = f"{self._topic}/{partition}@{record.offset}"
            frame = decode_frame(record.value, place)
            header = frame.header
            if header["stage"] != self._stage:
                raise StateLostError(f"{place}: state of stage {header['stage']!r}, expected {self._stage!r}")
            if header["part"] == 0:
                parts, size = [], 0
                first_of_parts = record.offset
            elif header["part"] != len(parts):
                if not parts and last is None:
                    continue  # the tail of a delta whose head was trimmed: older than restore_from
                raise StateLostError(f"{place}: part {header['part']} of a delta without the parts before it")
            parts.append(frame.payload)
            size += len(record.value or b"")
            if len(parts) < header["parts"]:
                continue
            last = header
            cursor.advance(header.get("keeps", 0))
            cursor.add(first_of_parts, size)
            cursor.inputs = header["inputs"]
            yield header["meta"], b"".join(parts)
            crash.reach("in_restore")
            parts = []
        self._check(where, start, first_of_parts, last, inputs)
        return cursor

    def stands_at(self, partition: int) -> Mapping[str, int | None]:
        """By topic, the input offsets at which the restored state stands; empty where there is none."""
        return self._cursors[partition].inputs

    def _check(
        self,
        where: TopicPartition,
        start: int,
        newest: int,
        last: dict[str, Any] | None,
        inputs: Mapping[str, int | None],
    ) -> None:
        done = {topic: offset for topic, offset in inputs.items() if offset}
        name = f"{where.topic}/{where.partition}"
        remedy = "; rebuild the state from the events (docs/reliability.md, 'A lost changelog')"
        if last is None:
            if done:
                raise StateLostError(f"{name} is empty, but the group has committed {done}{remedy}")
            return
        needed = newest if last["restore_from"] is None else last["restore_from"]
        if start > needed:
            raise StateLostError(f"{name} begins at offset {start}, but its newest record needs {needed}{remedy}")
        stands = {topic: last["inputs"].get(topic) for topic in inputs}
        # Also where nothing is committed: offsets expire, and from the beginning everything would count twice.
        elsewhere = {topic: at for topic, at in stands.items() if (at or 0) != (inputs[topic] or 0)}
        # Before the first record came something may have been committed, along with the input's start as it then was.
        for topic in [topic for topic, at in elsewhere.items() if at is None]:
            if (inputs[topic] or 0) <= self._transport.start_offset(TopicPartition(topic, where.partition)):
                del elsewhere[topic]
        if elsewhere:
            pairs = ", ".join(f"{topic}: state at {at}, committed {inputs[topic]}" for topic, at in elsewhere.items())
            raise StateLostError(f"{name} does not stand where the group's offsets do ({pairs}){remedy}")

    def begin(self, partition: int) -> None:
        """Start over behind all that is in the topic: the next delta begins a cycle, and nothing before it counts."""
        self._cursors[partition] = Cursor()

    def frame(self, partition: int, delta: StateDelta, inputs: Mapping[str, int | None]) -> list[OutRecord]:
        """The records (one, or several below the size limit) that carry a delta. Commit them, then call `written`."""
        cursor = self._cursors[partition]
        cursor.advance(delta.keeps)
        cursor.inputs = inputs
        payload = delta.payload
        chunks = [payload[i : i + PART_BYTES] for i in range(0, len(payload), PART_BYTES)] or [b""]
        records = []
        for number, chunk in enumerate(chunks):
            header = orjson.dumps(
                {
                    "stage": self._stage,
                    "part": number,
                    "parts": len(chunks),
                    "crc": zlib.crc32(chunk),
                    # Null: this delta is all that is needed, and its own offset is not known yet.
                    "restore_from": cursor.restore_from(),
                    "keeps": delta.keeps,
                    "inputs": dict(inputs),
                    "meta": delta.meta if number == len(chunks) - 1 else {},
                },
                option=orjson.OPT_SERIALIZE_NUMPY,
            )
            value = _PREFIX.pack(_MAGIC, len(header)) + header + chunk
            records.append(OutRecord(self._topic, None, value, partition))
        cursor.framed = sum(len(record.value or b"") for record in records)
        return records

    def written(self, partition: int, delta: StateDelta, offset: int) -> int | None:
        """A delta was committed at `offset`; returns the offset to trim the topic to, when it is time."""
        cursor = self._cursors[partition]
        cursor.add(offset, cursor.framed)
        if cursor.needless < max(TRIM_BYTES, TRIM_SHARE * cursor.needed):
            return None
        cursor.needless = 0
        return cursor.restore_from()

    def trim(self, partition: int, before: int) -> None:
        """Delete what no restore needs. A failure costs space only, so it is logged; a later trim does its work."""
        try:
            self._transport.trim(TopicPartition(self._topic, partition), before)
        except TransportError as error:
            log.warning("could not trim %s/%d: %s", self._topic, partition, error)

    def forget(self, partition: int) -> None:
        """The partition is somebody else's now."""
        self._cursors.pop(partition, None)
