"""The changelog: a stage's state as a topic, one record for each partition and commit.

A record frames one StateDelta: `RSC1`, the header's length, a JSON header, the payload. The header says at which
input offsets the state stands, and two offsets of the changelog itself: where the running cycle began, and
where the last whole one did (`restore_from`). Since the deltas of one cycle hold the whole state, a restore
reads from there to the end, last write wins, and everything older may be deleted.

Invariant: records below `restore_from` of the newest record are never needed, records from it on are never trimmed.
"""

from __future__ import annotations

import logging
import struct
import zlib
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from stream.runtime import crash
from stream.runtime.stage import StateDelta
from stream.transport.base import OutRecord, TopicPartition, Transport, TransportError

_MAGIC = b"RSC1"
_PREFIX = struct.Struct("<4sI")
PART_BYTES = 900_000
"""Below the broker's default limit for a record (1 MiB), header included."""

log = logging.getLogger(__name__)


class StateLostError(TransportError):
    """The changelog does not hold what the committed offsets need. Starting from nothing would be silent loss."""


@dataclass(slots=True)
class Cursor:
    """Where the cycles of one partition's changelog stand, and the input offsets of its newest record."""

    restore_from: int
    cycle_start: int | None = None
    inputs: Mapping[str, int | None] = field(default_factory=dict)


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
    if magic != _MAGIC:
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
        cursor = Cursor(restore_from=self._transport.end_offset(where))
        last: dict[str, Any] | None = None
        parts: list[bytes] = []
        first_of_parts = 0
        for record in self._transport.read(where, start):
            place = f"{self._topic}/{partition}@{record.offset}"
            frame = decode_frame(record.value, place)
            header = frame.header
            if header["stage"] != self._stage:
                raise StateLostError(f"{place}: state of stage {header['stage']!r}, expected {self._stage!r}")
            if header["part"] == 0:
                parts = []
                first_of_parts = record.offset
            elif header["part"] != len(parts):
                if not parts and last is None:
                    continue  # the tail of a delta whose head was trimmed: older than restore_from
                raise StateLostError(f"{place}: part {header['part']} of a delta without the parts before it")
            parts.append(frame.payload)
            if len(parts) < header["parts"]:
                continue
            last = header
            cursor = self._advance(header, first_of_parts)
            yield header["meta"], b"".join(parts)
            crash.reach("in_restore")
            parts = []
        self._check(where, start, cursor, last, inputs)
        return cursor

    def stands_at(self, partition: int) -> Mapping[str, int | None]:
        """By topic, the input offsets at which the restored state stands; empty where there is none."""
        return self._cursors[partition].inputs

    @staticmethod
    def _advance(header: dict[str, Any], offset: int) -> Cursor:
        if not header["starts_cycle"]:
            return Cursor(header["restore_from"], header["cycle_start"], header["inputs"])
        whole = header["cycle_start"]
        return Cursor(header["restore_from"] if whole is None else whole, offset, header["inputs"])

    def _check(
        self,
        where: TopicPartition,
        start: int,
        cursor: Cursor,
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
        if start > cursor.restore_from:
            raise StateLostError(
                f"{name} begins at offset {start}, but its newest record needs {cursor.restore_from}{remedy}"
            )
        stands = {topic: last["inputs"].get(topic) for topic in inputs}
        # Also where nothing is committed: offsets expire, and from the beginning everything would count twice.
        elsewhere = {topic: at for topic, at in stands.items() if (at or 0) != (inputs[topic] or 0)}
        if elsewhere:
            pairs = ", ".join(f"{topic}: state at {at}, committed {inputs[topic]}" for topic, at in elsewhere.items())
            raise StateLostError(f"{name} does not stand where the group's offsets do ({pairs}){remedy}")

    def begin(self, partition: int) -> None:
        """Start over behind all that is in the topic: the next delta begins a cycle, and nothing before it counts."""
        end = self._transport.end_offset(TopicPartition(self._topic, partition))
        self._cursors[partition] = Cursor(restore_from=end)

    def frame(self, partition: int, delta: StateDelta, inputs: Mapping[str, int | None]) -> list[OutRecord]:
        """The records (one, or several below the size limit) that carry a delta."""
        cursor = self._cursors[partition]
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
                    "restore_from": cursor.restore_from,
                    "cycle_start": cursor.cycle_start,
                    "starts_cycle": delta.starts_cycle,
                    "inputs": dict(inputs),
                    "meta": delta.meta if number == len(chunks) - 1 else {},
                },
                option=orjson.OPT_SERIALIZE_NUMPY,
            )
            value = _PREFIX.pack(_MAGIC, len(header)) + header + chunk
            records.append(OutRecord(self._topic, None, value, partition))
        return records

    def written(self, partition: int, delta: StateDelta, offset: int) -> int | None:
        """A delta was committed at `offset`; returns the offset below which the topic may be trimmed, if it moved."""
        cursor = self._cursors[partition]
        if not delta.starts_cycle:
            return None
        before = cursor.restore_from
        if cursor.cycle_start is not None:
            cursor.restore_from = cursor.cycle_start
        cursor.cycle_start = offset
        return cursor.restore_from if cursor.restore_from > before else None

    def trim(self, partition: int, before: int) -> None:
        """Delete what no restore needs. A failure costs space only, so it is logged and tried at the next cycle."""
        try:
            self._transport.trim(TopicPartition(self._topic, partition), before)
        except TransportError as error:
            log.warning("could not trim %s/%d: %s", self._topic, partition, error)

    def forget(self, partition: int) -> None:
        """The partition is somebody else's now."""
        self._cursors.pop(partition, None)
