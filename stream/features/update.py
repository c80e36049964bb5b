"""Applies one batch to the columns of the user table, with a fixed number of numpy calls.

The events are grouped by user once; every kernel then works on the n accepted events or on the m users that
they touch. First what is stored is brought to each user's new latest event (sums shrink, passed tiles are
cleared), then the contributions of all events are added in the order of events.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import xxhash

from stream.features import decay, dedupe, visits, windows
from stream.features.batch import FIELDS, KINDS, EventBatch, Floats, Hashes, Ints, Mask
from stream.features.layout import (
    EVENTS,
    FIRST,
    HALF_HOUR_MS,
    LAST,
    NEVER,
    RECENT_IDS,
    HalfHours,
    Layout,
    Measure,
    Source,
)

_Filter = tuple[tuple[str, ...], tuple[str, ...]]
"""Kinds and categories."""


@dataclass(slots=True)
class _Contributions:
    """What a source adds: values at times, each for the user with index `users` of the batch."""

    users: Ints
    times: Ints
    values: Floats | None
    """None where each is a one."""
    events: Ints | None
    """Indices into the accepted events; None where half-hours contribute."""
    first_cells: dict[int, Ints] = field(default_factory=dict)
    """By group of arrays, the flat position of each user's first cell."""


class Update:
    """One batch against the arrays of a table.

    `events` (indices into the batch, ascending) are on time, `rows` are their users' rows. After `run`, `events`,
    `event_rows`, `rows` and `last_event` speak of the accepted ones.
    """

    def __init__(
        self, layout: Layout, arrays: list[npt.NDArray[Any]], batch: EventBatch, events: Ints, rows: Ints
    ) -> None:
        self._layout = layout
        self._arrays = arrays
        self._batch = batch
        self._sources: dict[Source, _Contributions] = {}
        self._filtered: dict[_Filter, Ints] = {}
        self._present: dict[tuple[_Filter, str], tuple[Ints, Floats]] = {}
        self._event_weights: dict[int, Floats] = {}
        self._group(events, rows)

    def run(self) -> None:
        """Change the arrays."""
        self._drop_duplicates()
        if not len(self.events):
            return
        self._time = self._batch.time[self.events]
        self._kind = self._batch.kind[self.events]
        self._before, self._after = self._move_times()
        self._shrink_sums()
        self._clear_tiles()
        self._add()
        self._set_latest()

    def _group(self, events: Ints, rows: Ints) -> None:
        """Sort by row, then by position in the batch; one sort of packed keys is faster than a stable argsort."""
        count = len(events)
        self.events, self.event_rows = events, rows
        bits = max(count - 1, 0).bit_length()
        keys = np.sort(rows << bits | np.arange(count))
        self._order = keys & ((1 << bits) - 1)
        ordered = keys >> bits
        first = np.ones(count, bool)
        first[1:] = ordered[1:] != ordered[:-1]
        self._starts = np.flatnonzero(first)
        self._counts = np.diff(self._starts, append=count)
        self.rows = ordered[self._starts]
        self._users = np.empty(count, np.int64)
        self._users[self._order] = np.cumsum(first) - 1
        self.last_event = events[self._order[self._starts + self._counts - 1]]

    def _column(self, name: str) -> npt.NDArray[Any]:
        place = self._layout.places[name]
        return self._arrays[place.group][:, place.start : place.stop]

    def _drop_duplicates(self) -> None:
        if not self._layout.dedupe_depth or not len(self.events):
            return
        queues = self._column(RECENT_IDS)
        hashes = dedupe.queue_hashes(self._batch.id_hash[self.events])
        duplicate = dedupe.find_duplicates(queues, self.event_rows, self._users, len(self.rows), hashes)
        if duplicate.any():
            kept = ~duplicate
            hashes = hashes[kept]
            self._group(self.events[kept], self.event_rows[kept])
        if len(self.events):
            queues[self.rows] = dedupe.push(queues[self.rows], self._starts, self._counts, hashes[self._order])

    def _per_user(self, ufunc: np.ufunc, values: Ints) -> Ints:
        reduced: Ints = ufunc.reduceat(values[self._order], self._starts)
        return reduced

    def _move_times(self) -> tuple[Ints, Ints]:
        """Each user's latest event before and after the batch; a new user's before is the after."""
        latest = self._column(LAST)
        first = self._column(FIRST)
        before = latest[self.rows, 0]
        after = np.maximum(before, self._per_user(np.maximum, self._time))
        since = first[self.rows, 0]
        earliest = self._per_user(np.minimum, self._time)
        latest[self.rows, 0] = after
        first[self.rows, 0] = np.where(since == NEVER, earliest, np.minimum(since, earliest))
        self._column(EVENTS)[self.rows, 0] += self._counts.astype(np.uint32)
        return np.where(before == NEVER, after, before), after

    def _shrink_sums(self) -> None:
        """Whole powers of two, in place, for the users whose latest event entered another tile of a half-life."""
        decayed = self._layout.decayed
        for half_life in dict.fromkeys(item.half_life for item in decayed):
            passed = decay.tiles_passed(self._before, self._after, half_life)
            moved = np.flatnonzero(passed)
            if not len(moved):
                continue
            places = [self._layout.places[item.column] for item in decayed if item.half_life == half_life]
            # The sums of one half-life lie side by side.
            start, stop = min(place.start for place in places), max(place.stop for place in places)
            sums = self._arrays[places[0].group][:, start:stop]
            rows = self.rows[moved]
            sums[rows] = np.ldexp(sums[rows], -passed[moved, None])

    def _clear_tiles(self) -> None:
        cleared: dict[tuple[int, int], tuple[Ints, Mask]] = {}
        for ring in self._layout.rings:
            shape = (ring.tile, ring.tiles)
            if shape not in cleared:
                moved = np.flatnonzero(self._after // ring.tile > self._before // ring.tile)
                cleared[shape] = moved, windows.passed(self._before[moved], self._after[moved], *shape)
            moved, passed = cleared[shape]
            if len(moved):
                tiles = self._column(ring.column)
                rows = self.rows[moved]
                tiles[rows] = np.where(passed, 0, tiles[rows]).astype(tiles.dtype)

    def _add(self) -> None:
        """One unbuffered add for each array: contributions to a cell are added one by one, in the order of events."""
        cells: dict[int, list[tuple[Ints, Floats]]] = {}
        for item in self._layout.decayed:
            adds = self._contributions(item.source)
            weights = self._weights(adds, item.half_life)
            values = weights if adds.values is None else adds.values * weights
            place = self._layout.places[item.column]
            cell = self._first_cells(adds, place.group) + place.start
            if item.buckets > 1:
                category = self._batch.category[self.events[adds.events]]
                named = category != 0
                cell = cell[named] + (category[named] % np.uint64(item.buckets)).astype(np.int64)
                values = values[named]
            cells.setdefault(place.group, []).append((cell, values))
        for ring in self._layout.rings:
            adds = self._contributions(ring.source)
            held, slot = windows.slots(adds.times, self._after[adds.users], ring.tile, ring.tiles)
            place = self._layout.places[ring.column]
            cell = (self._first_cells(adds, place.group) + (place.start + slot))[held]
            values = np.ones(len(cell)) if adds.values is None else adds.values[held]
            cells.setdefault(place.group, []).append((cell, values))
        for group, parts in cells.items():
            array = self._arrays[group]
            values = np.concatenate([part[1] for part in parts]).astype(array.dtype)
            np.add.at(array.reshape(-1), np.concatenate([part[0] for part in parts]), values)

    def _first_cells(self, adds: _Contributions, group: int) -> Ints:
        """Positions in the flattened array of a group."""
        if group not in adds.first_cells:
            adds.first_cells[group] = self.rows[adds.users] * self._arrays[group].shape[1]
        return adds.first_cells[group]

    def _contributions(self, source: Source) -> _Contributions:
        if source not in self._sources:
            made = self._measure(source) if isinstance(source, Measure) else self._half_hours(source)
            self._sources[source] = made
        return self._sources[source]

    def _measure(self, measure: Measure) -> _Contributions:
        chosen, values = self._chosen(measure), None
        if measure.value != "one":
            name = measure.value.removeprefix("has:")
            chosen, present = self._with_field(measure, chosen, name)
            values = present if measure.value == name else None
        return _Contributions(self._users[chosen], self._time[chosen], values, chosen)

    def _with_field(self, measure: Measure, chosen: Ints, name: str) -> tuple[Ints, Floats]:
        """Those of the events that carry the field, and its values."""
        key = ((measure.kinds, measure.categories), name)
        if key not in self._present:
            values = FIELDS[name].read(self._batch)[self.events[chosen]]
            present = ~np.isnan(values)
            self._present[key] = chosen[present], values[present]
        return self._present[key]

    def _half_hours(self, source: HalfHours) -> _Contributions:
        chosen = self._chosen(source.measure)
        bitmaps = self._column(source.bitmap)
        stored = bitmaps[self.rows]
        users, half_hours = visits.new_half_hours(stored, self._users[chosen], self._time[chosen], self._before)
        bitmaps[self.rows] = visits.remember(stored, users, half_hours, self._before, self._after)
        return _Contributions(users, half_hours * HALF_HOUR_MS, None, None)

    def _weights(self, adds: _Contributions, half_life: int) -> Floats:
        if adds.events is None:
            return decay.weights(adds.times, self._after[adds.users], half_life)
        if half_life not in self._event_weights:
            latest = self._after[self._users]
            self._event_weights[half_life] = decay.weights(self._time, latest, half_life)
        return self._event_weights[half_life][adds.events]

    def _chosen(self, measure: Measure) -> Ints:
        """Which accepted events a measure's filter lets through, in batch order."""
        wanted = (measure.kinds, measure.categories)
        if wanted not in self._filtered:
            mask = np.ones(len(self.events), bool)
            if measure.kinds:
                mask &= _is_kind(measure.kinds)[self._kind]
            if measure.categories:
                mask &= np.isin(self._batch.category[self.events], _category_hashes(measure.categories))
            (self._filtered[wanted],) = mask.nonzero()
        return self._filtered[wanted]

    def _set_latest(self) -> None:
        for item in self._layout.latest:
            times = np.full(len(self.events), NEVER)
            chosen = self._chosen(item.measure)
            times[chosen] = self._time[chosen]
            column = self._column(item.column)
            column[self.rows, 0] = np.maximum(column[self.rows, 0], self._per_user(np.maximum, times))


@lru_cache
def _is_kind(kinds: tuple[str, ...]) -> Mask:
    return np.array([kind in kinds for kind in KINDS])


@lru_cache
def _category_hashes(categories: tuple[str, ...]) -> Hashes:
    return np.array([xxhash.xxh3_64_intdigest(category.encode()) for category in categories], np.uint64)
