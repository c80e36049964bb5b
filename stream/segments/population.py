"""The users of one partition: their table, where they stand, the partition's clock and its counters.

Invariant: everything here is a function of the committed deltas. `touch` names each row that a batch changed;
`delta` packs those rows, and what must be written again so that old deltas may go (`stream/runtime/rewrite.py`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, Final

import numpy as np
import xxhash
from numpy.typing import NDArray

from stream.features.layout import Extra, Layout
from stream.features.table import UserTable
from stream.runtime.rewrite import Rewrite, distinct
from stream.runtime.stage import StateDelta
from stream.segments.assign import NONE, QUARANTINE, Standing
from stream.segments.rule_slots import COLUMNS as RULE_COLUMNS
from stream.segments.rule_slots import EPOCH, RuleSlots, read_words

Rows = NDArray[np.intp]

COLUMNS: Final = (
    Extra("segment", "<i4"),
    Extra("candidate", "<i4"),
    Extra("looks", "<i1"),
    Extra("candidate_cause", "<i1"),
    Extra("candidate_at", "<i8"),
    Extra("streak", "<i1"),
    Extra("sequence", "<i4"),
    Extra("since", "<i8"),
    Extra("observed", "<i8"),
    Extra("user_hash", "<u8"),
    Extra("row", "<i4"),
    Extra("switched", "<i4"),
    *RULE_COLUMNS,
)
"""What the processor keeps of a user beside the features. `switched` is the version under which a user was looked at
ahead of the slice of a model switch that would have come to them."""

REBUILT: Final = "rebuilt"
"""A counter: with it the others count what was kept when the state was rebuilt, and not all there ever was."""


class Population:
    """One partition's users. `clock` is the largest time seen (arrival or wall), `swept_at` the last sweep's."""

    def __init__(self, partition: int, layout: Layout) -> None:
        self.partition = partition
        self.table = UserTable(layout)
        self.clock = 0
        self.swept_at = 0
        self.model_version = 0
        """Under which everybody was looked at."""
        self.switching = (0, 0)
        """The version that everybody is being brought under, and the first row that has not come to its slice."""
        self.counters: Counter[str] = Counter()
        self.arrived: list[int] = []
        """When the events arrived that caused changes, until the metrics are told."""
        self.rules = RuleSlots()
        self._touched: list[Rows] = []
        self._sizes: Counter[int] = Counter()
        self._rewrite = Rewrite()

    def __len__(self) -> int:
        return len(self.table)

    def standing(self, rows: Rows) -> Standing:
        """Where these users stand: copies, in the order of `rows`."""
        return self._everybody().take(rows)

    def settle(self, rows: Rows, standing: Standing) -> None:
        """Write back where these users stand."""
        self._everybody().put(rows, standing)

    def _everybody(self) -> Standing:
        """Views of the table's own columns."""
        column = self.table.column
        return Standing(
            column("segment"),
            column("candidate"),
            column("looks"),
            column("candidate_cause"),
            column("candidate_at"),
            column("since"),
        )

    def held(self, rows: Rows) -> NDArray[np.bool_]:
        """Who of them is in quarantine."""
        quarantined: NDArray[np.bool_] = self.table.column("segment")[rows] == QUARANTINE
        return quarantined

    def know(self, rows: Rows) -> None:
        """Give new users their hash and note their row: sampling and order must not differ between processes."""
        hashes, numbers = self.table.column("user_hash"), self.table.column("row")
        fresh = rows[hashes[rows] == 0]
        self.table.column(EPOCH)[fresh] = self.rules.epoch  # they know no rules but the present ones
        for row in fresh.tolist():
            numbers[row] = row
            hashes[row] = xxhash.xxh3_64_intdigest(self.table.user_ids[row].encode()) or 1

    def unswitched(self, rows: Rows) -> Rows:
        """Who of them the running switch has not come to yet."""
        version, reached = self.switching
        waiting: Rows = rows[(rows >= reached) & (self.table.column("switched")[rows] != version)]
        return waiting

    def touch(self, rows: Rows) -> None:
        """These rows changed and belong into the next delta."""
        if len(rows):
            self._touched.append(rows)

    def now(self) -> int:
        """The time at which features are evaluated: never before an event that counts."""
        return max(self.clock, self.table.stream_time)

    def moved(self, old: int, new: int) -> None:
        """One user changed segment."""
        self._sizes[old] -= 1
        self._sizes[new] += 1

    def sizes(self) -> dict[int, int]:
        """Users by segment number; 0 holds those without one."""
        placed = {segment: count for segment, count in self._sizes.items() if segment != NONE and count > 0}
        return {NONE: len(self) - sum(placed.values()), **placed}

    def delta(self) -> StateDelta:
        """The rows touched since the last call, and those that are due to be written again, packed."""
        touched = distinct(self._touched)
        self._touched.clear()
        rows, keeps = self._rewrite.next(touched, len(self.table))
        return StateDelta(self.table.pack(rows), self.meta(), keeps=keeps)

    def meta(self) -> dict[str, Any]:
        """All but the users, as JSON values."""
        return {
            "clock": self.clock,
            "swept_at": self.swept_at,
            "stream_time": self.table.stream_time,
            "model_version": self.model_version,
            "switching": self.switching,
            "counters": dict(self.counters),
            "rules": self.rules.to_meta(),
        }

    def restore(self, deltas: Iterable[tuple[dict[str, Any], bytes]]) -> None:
        """Apply committed deltas in order."""
        for _ in self.restoring(deltas):
            pass

    def restoring(self, deltas: Iterable[tuple[dict[str, Any], bytes]]) -> Iterator[None]:
        """As `restore`, with a pause after each delta."""
        newest: dict[str, Any] | None = None
        for meta, payload in deltas:
            self._rewrite.restore(self.table.unpack(payload))
            newest = meta
            yield
        if newest is None:
            return
        # Users stand in the rows in which they stood: the order of outputs, and so of all that is learned from
        # them, must not depend on whether there was a restart.
        order = np.argsort(self.table.column("row"), kind="stable")
        self.table.reorder(order)
        self._rewrite.reorder(order)
        self.clock = newest["clock"]
        self.swept_at = newest["swept_at"]
        self.table.stream_time = newest["stream_time"]
        self.model_version = newest["model_version"]
        self.switching = tuple(newest.get("switching", (0, 0)))
        self.counters = Counter(newest["counters"])
        self.rules = RuleSlots.from_meta(newest.get("rules"))
        self.rules.count(read_words(self.table, slice(None)))
        segments, counts = np.unique(self.table.column("segment")[: len(self)], return_counts=True)
        self._sizes = Counter(dict(zip(segments.tolist(), counts.tolist(), strict=True)))
