"""The compiled layout as the kernel of the user table walks it: numbers only, made once for a table.

Invariant: the kernel leaves the bits that `stream.features.update` leaves, so that whoever takes a partition over,
with the kernels or without, goes on from the same state. tests/features/test_plan.py holds the two against each other.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import xxhash

from stream import kernels
from stream.features.batch import KIND_CODES, EventBatch, Ints, Mask
from stream.features.layout import EVENTS, FIRST, LAST, RECENT_IDS, Layout, Measure, Place, Source

_HAS = "has:"


def planned(layout: Layout) -> kernels.plan.Plan:
    """The plan of a layout. Raises ValueError where a field is not known to the kernel."""
    places = layout.places
    groups = [layout.group_of(dtype) for dtype in kernels.plan.DTYPES]
    half_lives = list(dict.fromkeys(item.half_life for item in layout.decayed))
    tiles = list(dict.fromkeys(ring.tile for ring in layout.rings))
    bitmaps = [item.bitmap for item in layout.half_hours]
    recent = places.get(RECENT_IDS, Place(0, 0, 0))
    measures = dict.fromkeys(
        [
            *(item.source for item in layout.decayed if isinstance(item.source, Measure)),
            *(item.source for item in layout.rings if isinstance(item.source, Measure)),
            *(item.measure for item in layout.latest),
            *(item.measure for item in layout.half_hours),
        ]
    )
    return kernels.plan.Plan(
        groups=[(-1, 0) if group is None else (group, layout.groups[group].width) for group in groups],
        times=(places[LAST].start, places[FIRST].start, places[EVENTS].start),
        recent=(recent.start, recent.stop - recent.start),
        half_lives=[(half_life, *_range(layout, half_life)) for half_life in half_lives],
        sums=[(places[item.column].start, half_lives.index(item.half_life), item.buckets) for item in layout.decayed],
        tiles=tiles,
        rings=[
            (
                places[ring.column].start,
                tiles.index(ring.tile),
                ring.tiles,
                layout.groups[places[ring.column].group].dtype.itemsize == 1,
            )
            for ring in layout.rings
        ],
        words=max((places[bitmap].stop - places[bitmap].start for bitmap in bitmaps), default=0),
        bitmaps=[(places[item.bitmap].start, *_fed(layout, item)) for item in layout.half_hours],
        measures=[
            (
                [KIND_CODES[kind] for kind in measure.kinds or KIND_CODES],
                [xxhash.xxh3_64_intdigest(category.encode()) for category in measure.categories],
                *_value(measure),
                *_fed(layout, measure),
                [places[item.column].start for item in layout.latest if item.measure == measure],
                [at for at, item in enumerate(layout.half_hours) if item.measure == measure],
            )
            for measure in measures
        ],
        kinds=len(KIND_CODES),
    )


def walk(
    plan: kernels.plan.Plan, arrays: list[npt.NDArray[Any]], batch: EventBatch, row_of: Ints, too_late: Mask
) -> tuple[Mask, Mask, Ints, Ints]:
    """Apply a batch to the arrays; returns accepted, duplicate, rows and last events as `Applied` has them.

    `row_of` holds the rows of the users of events that are not too late; it becomes that of the accepted ones.
    """
    count = len(batch)
    accepted, duplicate = np.empty(count, bool), np.empty(count, bool)
    keys, rows, last_event = np.empty(count, np.int64), np.empty(count, np.int64), np.empty(count, np.int64)
    parts = np.empty(count * plan.exponents)
    columns = (
        batch.time,
        batch.kind,
        batch.id_hash,
        batch.category,
        batch.amount,
        batch.quantity,
        batch.discount,
        batch.dwell_ms,
        batch.rating,
    )
    touched = kernels.table.apply(
        plan, arrays, columns, row_of, too_late, accepted, duplicate, keys, rows, last_event, parts, np.exp2
    )
    return accepted, duplicate, rows[:touched], last_event[:touched]


def _range(layout: Layout, half_life: int) -> tuple[int, int]:
    """The columns of all sums of one half-life, which lie side by side."""
    places = [layout.places[item.column] for item in layout.decayed if item.half_life == half_life]
    return min(place.start for place in places), max(place.stop for place in places)


def _fed(layout: Layout, source: Source) -> tuple[list[int], list[int]]:
    """The decayed sums and the rings that a source feeds."""
    return (
        [at for at, item in enumerate(layout.decayed) if item.source == source],
        [at for at, ring in enumerate(layout.rings) if ring.source == source],
    )


def _value(measure: Measure) -> tuple[int, bool]:
    """The field whose value, or only whose presence, a measure counts. Raises ValueError for one that is not known."""
    if measure.value == "one":
        return kernels.plan.ONE, False
    name = measure.value.removeprefix(_HAS)
    if name not in kernels.plan.FIELDS:
        raise ValueError(f"the field {name} is not known to the kernel")
    return kernels.plan.FIELDS[name], measure.value.startswith(_HAS)
