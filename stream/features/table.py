"""The user table of one partition: an index from user id to row number, and numpy columns.

Invariant: the table is a function of the accepted events alone. Any permutation of events within the allowed
lateness and any split into batches give the same counts and times exactly and the same sums to rounding; the same
order in other batches gives the same bits.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from stream import kernels
from stream.features.batch import EventBatch, Floats, Ints, Mask
from stream.features.evaluate import evaluate
from stream.features.index import index_of
from stream.features.layout import NEVER, Layout
from stream.features.plan import planned, walk
from stream.features.state import pack_rows, unpack_rows
from stream.features.texts import chosen
from stream.features.update import Update

_FIRST_CAPACITY = 1024
_SLICE = 8192
"""Users evaluated at once: the scratch arrays stay in the processor's cache."""
_BEFORE_ALL_TIME = -(2**62)


@dataclass(slots=True)
class Applied:
    """What became of the n events of a batch; m is the number of users that it touched."""

    accepted: Mask
    """(n,) Neither duplicate nor too late."""
    duplicate: Mask
    """(n,) Repeats one of the user's last accepted events."""
    too_late: Mask
    """(n,) Older than the stream time before it, less the allowed lateness."""
    rows: Ints
    """(m,) The rows of users with an accepted event, ascending."""
    row_of: Ints
    """(n,) The row of each accepted event; -1 for the others."""
    last_event: Ints
    """(m,) For each of `rows` the index of its last accepted event in batch order."""
    created: int
    """How many users are new."""


class UserTable:
    """The rolling state of the users of one partition. Parameter: the layout."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.user_ids: list[str] = []
        """By row."""
        self.stream_time: int = NEVER
        """The latest event time that was not too late, duplicates included; NEVER before the first event."""
        self._index = index_of(self.user_ids)
        self._arrays: list[npt.NDArray[Any]] = []
        self._blank = [_blank_row(layout, group) for group in range(len(layout.groups))]
        self._plan: kernels.plan.Plan | None = None
        self._reserve(_FIRST_CAPACITY)

    def __len__(self) -> int:
        return len(self.user_ids)

    def apply(self, batch: EventBatch) -> Applied:
        """Take a batch of events, in order."""
        if kernels.on():
            return self._apply_compiled(batch)
        too_late = self._advance_clock(batch.time)
        on_time = np.flatnonzero(~too_late)
        users_before = len(self)
        candidates = self._rows_of(batch.user_ids, too_late)[on_time]
        update = Update(self.layout, self._arrays, batch, on_time, candidates)
        update.run()
        accepted = np.zeros(len(batch), bool)
        accepted[update.events] = True
        row_of = np.full(len(batch), -1, np.int64)
        row_of[update.events] = update.event_rows
        return Applied(
            accepted=accepted,
            duplicate=~accepted & ~too_late,
            too_late=too_late,
            rows=update.rows,
            row_of=row_of,
            last_event=update.last_event,
            created=len(self) - users_before,
        )

    def _apply_compiled(self, batch: EventBatch) -> Applied:
        """`apply`, with the same outcome."""
        if self._plan is None:
            self._plan = planned(self.layout)
        too_late = np.empty(len(batch), bool)
        start = max(self.stream_time, _BEFORE_ALL_TIME)
        reached = kernels.table.clock(batch.time, start, self.layout.lateness_ms, too_late)
        if len(batch):
            self.stream_time = reached
        users_before = len(self)
        row_of = self._rows_of(batch.user_ids, too_late)
        accepted, duplicate, rows, last_event = walk(self._plan, self._arrays, batch, row_of, too_late)
        return Applied(accepted, duplicate, too_late, rows, row_of, last_event, created=len(self) - users_before)

    def features(self, rows: Ints | None, at_ms: int, wanted: Sequence[int] | None = None) -> Floats:
        """Feature vectors (m, F) of `rows`, or of everybody, at `at_ms`; NaN means unknown, infinity never occurs.

        With `wanted` (indices of features) only those are computed, and the others are NaN.
        """
        count = len(self) if rows is None else len(rows)
        result = np.empty((0 if count <= _SLICE else count, len(self.layout.features)))
        for start in range(0, count, _SLICE):
            stop = min(start + _SLICE, count)
            some = slice(start, stop) if rows is None else _range(rows[start:stop])
            part = evaluate(self.layout, [_chosen(array, some) for array in self._arrays], at_ms, wanted)
            if count <= _SLICE:
                return part
            result[start:stop] = part
        return result

    def column(self, name: str) -> npt.NDArray[Any]:
        """The live values of an extra column, or of a built-in one, (users,) or (users, width).

        The view is good until the table next grows: ask again after `apply` and `unpack`. Raises KeyError.
        """
        place = self.layout.places.get(f"extra {name}") or self.layout.places[name]
        view = self._arrays[place.group][: len(self), place.start : place.stop]
        return view[:, 0] if place.stop - place.start == 1 else view

    def lookup(self, user_id: str) -> int | None:
        """The row of a user; None where there was no accepted event."""
        return self._index.get(user_id)

    def ensure(self, user_ids: Sequence[str]) -> Ints:
        """The rows of these users; who is unknown gets one without any event."""
        return self._rows_of(user_ids)

    def pack(self, rows: Ints) -> bytes:
        """These users' ids and columns, compressed and self-describing; `rows` must not repeat."""
        return pack_rows(self.layout, self.stream_time, self.user_ids, self._arrays, rows)

    def unpack(self, payload: bytes) -> Ints:
        """Take packed users in, over what is known of them; returns their rows. Raises StateError.

        State of another layout is migrated column by column: what is missing gets its default, what is not
        needed any more is left out.
        """
        packed = unpack_rows(self.layout, payload)
        rows = self._rows_of(packed.user_ids)
        for array, block in zip(self._arrays, packed.blocks, strict=True):
            # A block is packed column after column: turned first, it is scattered in half the time.
            array[rows] = np.ascontiguousarray(block)
        self.stream_time = max(self.stream_time, packed.stream_time)
        return rows

    def reorder(self, order: Ints) -> None:
        """Put the users into another order: row i becomes what row `order[i]` is now."""
        for group, array in enumerate(self._arrays):  # one after the other: never all of them twice
            self._arrays[group] = array[order]
        self.user_ids = [self.user_ids[row] for row in order.tolist()]
        self._index = index_of(self.user_ids)

    @property
    def nbytes(self) -> int:
        """Bytes in use: columns of the users there are, ids and their index (ids from a sample of 1,000)."""
        users = len(self)
        sample = self.user_ids[:: max(1, users // 1000)]
        an_id = sum(map(sys.getsizeof, sample)) / max(1, len(sample))
        index = self._index.nbytes + sys.getsizeof(self.user_ids)
        return users * self.layout.bytes_per_user + index + round(users * an_id)

    def _advance_clock(self, times: Ints) -> Mask:
        """Which events are too late. The late ones never move the running maximum, so it may include them."""
        start = max(self.stream_time, _BEFORE_ALL_TIME)
        reached = np.maximum.accumulate(np.concatenate([[start], times]))
        if len(times):
            self.stream_time = int(reached[-1])
        too_late: Mask = times < reached[:-1] - self.layout.lateness_ms
        return too_late

    def _rows_of(self, user_ids: Sequence[str], left_out: Mask | None = None) -> Ints:
        """Rows by id, -1 for those left out; users who are new get one, in the order in which they come."""
        if left_out is not None and left_out.any():
            rows = np.full(len(user_ids), -1, np.int64)
            asked = np.flatnonzero(~left_out)
            rows[asked] = self._rows_of(chosen(user_ids, asked))
            return rows
        rows = self._index.rows(user_ids)
        unknown = np.flatnonzero(rows < 0)
        if len(unknown):
            known_before = len(self)
            for event in unknown.tolist():
                rows[event] = self._index.add(user_ids[event])
            self._make_room(known_before)
        return rows

    def _make_room(self, known_before: int) -> None:
        """Blank rows for the users who are new."""
        self._reserve(len(self))
        for array, blank in zip(self._arrays, self._blank, strict=True):
            array[known_before : len(self)] = blank

    def _reserve(self, users: int) -> None:
        """Room for `users`; doubled, so that growing costs a constant for each user. Fresh pages cost nothing."""
        capacity = len(self._arrays[0]) if self._arrays else 0
        if users <= capacity:
            return
        wanted = max(users, 2 * capacity)
        if not self._arrays:
            self._arrays = [np.zeros((wanted, group.width), group.dtype) for group in self.layout.groups]
            return
        # One after the other: never all of them twice.
        for number, old in enumerate(self._arrays):
            grown = np.zeros((wanted, old.shape[1]), old.dtype)
            grown[:capacity] = old
            self._arrays[number] = grown


def joint_features(tables: Sequence[tuple[UserTable, Ints, int]], wanted: Sequence[int] | None = None) -> Floats:
    """`UserTable.features` of rows of several tables of one layout, each at its own time, one after the other.

    The same bits; a fraction of the calls, where there are few rows in each.
    """
    if len(tables) == 1:
        ((table, rows, at_ms),) = tables
        return table.features(rows, at_ms, wanted)
    if sum(len(rows) for _, rows, _ in tables) > _SLICE:
        return np.concatenate([table.features(rows, at_ms, wanted) for table, rows, at_ms in tables])
    layout = tables[0][0].layout
    arrays = [
        np.concatenate([_chosen(table._arrays[group], rows) for table, rows, _ in tables])
        for group in range(len(layout.groups))
    ]
    times = np.repeat([at_ms for _, _, at_ms in tables], [len(rows) for _, rows, _ in tables])
    return evaluate(layout, arrays, times, wanted)


def _range(rows: Ints) -> Ints | slice:
    """Rows one after the other as a slice, which copies nothing."""
    first, count = int(rows[0]), len(rows)
    if int(rows[-1]) - first == count - 1 and (rows[1:] - rows[:-1] == 1).all():
        return slice(first, first + count)
    return rows


def _chosen(array: npt.NDArray[Any], rows: Ints | slice) -> npt.NDArray[Any]:
    """These rows, to be read: a slice is the table itself, and reading must change nothing."""
    if not isinstance(rows, slice):
        return array.take(rows, axis=0)  # whole rows are copied: twice as fast as indexing
    view = array[rows]
    view.flags.writeable = False
    return view


def _blank_row(layout: Layout, group: int) -> npt.NDArray[Any]:
    parts = [np.full(column.width, column.default, column.dtype) for column in layout.groups[group].columns]
    return np.concatenate(parts)
