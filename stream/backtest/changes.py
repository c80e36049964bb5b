"""The ledger of changes as columns, read on from checkpoint to checkpoint.

Of learned and built-in segments, of which a user is in one at a time; changes of rule segments are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import orjson
from numpy.typing import NDArray

from schemas.topics import SEGMENT_CHANGES
from schemas.types import CAUSES
from stream.segments.assign import NEWCOMER, NONE, QUARANTINE, segment_name
from stream.segments.prototypes import segment_number
from stream.segments.rules import PREFIX
from stream.transport.base import TopicPartition, Transport

IntArray = NDArray[np.int64]

_BUILT_IN: Final = {segment_name(number): number for number in (NONE, NEWCOMER, QUARANTINE)}


@dataclass(frozen=True, slots=True)
class Changes:
    """n changes in the order in which they were published."""

    user: IntArray
    """Row of the user."""
    at: IntArray
    """When it was detected, epoch milliseconds."""
    before: IntArray
    """Segment number; 0, -1 and -2 as in stream.segments.assign."""
    after: IntArray
    cause: IntArray
    """Index into CAUSES."""
    confidence: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.user)

    def __getitem__(self, rows: NDArray[np.bool_] | slice) -> Changes:
        return Changes(
            self.user[rows], self.at[rows], self.before[rows], self.after[rows], self.cause[rows], self.confidence[rows]
        )

    @property
    def between_segments(self) -> NDArray[np.bool_]:
        """(n,) From a learned segment to a learned one: what a person would call a flip, or a move."""
        return (self.before > NONE) & (self.after > NONE)

    def by_cause(self) -> dict[str, int]:
        """How many of each."""
        counts = np.bincount(self.cause, minlength=len(CAUSES)).tolist()
        return dict(zip(CAUSES, counts, strict=True))


def between(times: Sequence[int], rows: Sequence[NDArray[np.intp]], labels: Sequence[IntArray]) -> Changes:
    """What labels given at checkpoints amount to as a ledger: a user's first label, and every other one after it.

    Parameters, one entry a checkpoint: its time, the users' rows (m,), and their labels (m,), which are above 0.
    """
    last = np.zeros(max(int(one.max(initial=-1)) for one in rows) + 1, np.int64)
    parts = []
    for at, users, new in zip(times, rows, labels, strict=True):
        moved = last[users] != new
        user, before, after = users[moved].astype(np.int64), last[users][moved], new[moved]
        n = len(user)
        parts.append(Changes(user, np.full(n, at), before, after, np.zeros(n, np.int64), np.ones(n)))
        last[users] = new
    return concatenate(parts)


def concatenate(parts: Sequence[Changes]) -> Changes:
    """One after the other; at least one."""
    return Changes(
        user=np.concatenate([part.user for part in parts]),
        at=np.concatenate([part.at for part in parts]),
        before=np.concatenate([part.before for part in parts]),
        after=np.concatenate([part.after for part in parts]),
        cause=np.concatenate([part.cause for part in parts]),
        confidence=np.concatenate([part.confidence for part in parts]),
    )


class ChangeReader:
    """Follows the topic of a one-partition transport. `row_of` gives a user's row in the table."""

    def __init__(self, transport: Transport, row_of: Callable[[str], int | None]) -> None:
        self._transport = transport
        self._row_of = row_of
        self._where = TopicPartition(SEGMENT_CHANGES, 0)
        self._offset = 0

    def read(self) -> Changes:
        """What was published since the last call."""
        end = self._transport.end_offset(self._where)
        found: list[tuple[int, int, int, int, int]] = []
        confidence: list[float] = []
        if end > self._offset:
            for record in self._transport.read(self._where, self._offset, end):
                change = orjson.loads(record.value or b"")
                if any(side is not None and side["id"].startswith(PREFIX) for side in (change["from"], change["to"])):
                    continue
                row = self._row_of(change["user_id"])
                assert row is not None
                found.append(
                    (
                        row,
                        change["detected_at"],
                        _number(change["from"]),
                        _number(change["to"]),
                        CAUSES.index(change["cause"]),
                    )
                )
                confidence.append(change["confidence"])
        self._offset = end
        user, at, before, after, cause = np.array(found, np.int64).reshape(-1, 5).T
        return Changes(user, at, before, after, cause, np.array(confidence, np.float64))


def _number(reference: dict[str, str] | None) -> int:
    identifier = None if reference is None else reference["id"]
    built_in = _BUILT_IN.get(identifier)
    if built_in is not None:
        return built_in
    assert identifier is not None
    return segment_number(identifier)
