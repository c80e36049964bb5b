# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
"""What an update of the user table does for each event, as numbers that stream.kernels.table walks."""

from cpython.mem cimport PyMem_Calloc, PyMem_Free

from stream.kernels.tiles cimport Time
from stream.kernels.xxh3 cimport u64

FIELDS = {
    "amount": AMOUNT, "quantity": QUANTITY, "discount": DISCOUNT, "dwell_ms": DWELL_MS, "rating": RATING,
    "unit_price": UNIT_PRICE, "list_amount": LIST_AMOUNT, "dwell_seconds": DWELL_SECONDS,
}
"""The fields that it can read: columns of a batch, and what is computed from them."""
ONE = -1
"""In place of a field: each event is a one."""
DTYPES = ("<f4", "u1", "<i8", "<u8", "<u4")
"""Of the table's arrays that it changes, in the order in which a plan wants them."""


cdef void* room(Py_ssize_t count, size_t size) except NULL:
    cdef void* made = PyMem_Calloc(max(count, 1), size)
    if made == NULL:
        raise MemoryError
    return made


cdef int column(Plan plan, int group, int start, int count=1) except -1:
    if start < 0 or count < 1 or start > plan.width[group] - count:
        raise ValueError(f"columns {start} to {start + count} lie outside of an array of {plan.width[group]}")
    return start


cdef Time length_of(Time size) except -1:
    if size < 1:
        raise ValueError(f"{size} ms is no length of time")
    return size


cdef int index_of(int index, of) except -1:
    if not 0 <= index < len(of):
        raise ValueError(f"{index} is no index into {len(of)}")
    return index


cdef Run linked(list links, wanted, of) except *:
    cdef Run run
    run.start = len(links)
    links += [at if of is None else index_of(at, of) for at in wanted]
    run.stop = len(links)
    return run


cdef class Plan:
    """A compiled layout as numbers. `exponents` is how many weights an event may need at most.

    Every start is a column of the array of its type. Parameters: `groups` (for each of DTYPES the index of its array
    among the table's, -1 for none, and its width); `times` (the columns of the latest and the first event, and in the
    counts that of events); `recent` (start and depth of the queue of ids); `half_lives` (milliseconds, first and last
    + 1 column of their sums); `sums` (start, index of the half-life, buckets); `tiles` (milliseconds); `rings` (start,
    index of the tile, tiles, whether of bytes); `words` of a bitmap; `bitmaps` (start, indices of sums, of rings);
    `measures` (codes of kinds, hashes of categories, field or ONE, whether only its presence counts, indices of sums,
    of rings, columns of latest times, indices of bitmaps). Raises ValueError where they do not fit together.
    """

    def __cinit__(self, groups, times, recent, half_lives, sums, tiles, rings, words, bitmaps, measures, kinds):
        if len(groups) != GROUPS:
            raise ValueError(f"{len(groups)} groups, wanted {GROUPS}")
        for i, (index, width) in enumerate(groups):
            self.group[i], self.width[i] = index, 0 if index < 0 else width
        self.last, self.first = column(self, TIMES, times[0]), column(self, TIMES, times[1])
        self.events = column(self, COUNTS, times[2])
        self.recent, self.depth = recent
        if self.depth:
            column(self, WORDS, self.recent, self.depth)
        self.words, self.kinds = words, kinds
        self.half_hour.size = HALF_HOUR_MS
        self.half_life_count, self.tile_count = len(half_lives), len(tiles)
        self.ring_count, self.bitmap_count = len(rings), len(bitmaps)
        self.half_lives = <HalfLife*>room(len(half_lives), sizeof(HalfLife))
        for i, (size, start, stop) in enumerate(half_lives):
            self.half_lives[i].span.size = length_of(size)
            self.half_lives[i].start = column(self, FLOATS, start, stop - start)
            self.half_lives[i].stop = stop
        self.sums = <Sum*>room(len(sums), sizeof(Sum))
        for i, (start, half_life, buckets) in enumerate(sums):
            self.sums[i] = Sum(column(self, FLOATS, start, buckets), index_of(half_life, half_lives), buckets)
        self.tiles = <Span*>room(len(tiles), sizeof(Span))
        for i, size in enumerate(tiles):
            self.tiles[i].size = length_of(size)
        self.rings = <Ring*>room(len(rings), sizeof(Ring))
        for i, (start, tile, count, narrow) in enumerate(rings):
            column(self, BYTES if narrow else FLOATS, start, count)
            self.rings[i] = Ring(start, index_of(tile, tiles), count, narrow)
        links = []
        self.bitmaps = <Bitmap*>room(len(bitmaps), sizeof(Bitmap))
        for i, (start, some_sums, some_rings) in enumerate(bitmaps):
            self.bitmaps[i].start = column(self, WORDS, start, words)
            self.bitmaps[i].sums = linked(links, some_sums, sums)
            self.bitmaps[i].rings = linked(links, some_rings, rings)
        self.measures = <Measure*>room(len(measures), sizeof(Measure))
        hashes = []
        for i, (_, categories, field, presence, some_sums, some_rings, latest, some_bitmaps) in enumerate(measures):
            if field != ONE and field not in FIELDS.values():
                raise ValueError(f"{field} is no field")
            self.measures[i].field, self.measures[i].presence = field, presence
            self.measures[i].categories.start = len(hashes)
            hashes += sorted(categories)
            self.measures[i].categories.stop = len(hashes)
            self.measures[i].sums = linked(links, some_sums, sums)
            self.measures[i].rings = linked(links, some_rings, rings)
            self.measures[i].latest = linked(links, [column(self, TIMES, at) for at in latest], None)
            self.measures[i].bitmaps = linked(links, some_bitmaps, bitmaps)
        self.categories = <u64*>room(len(hashes), sizeof(u64))
        for i, category in enumerate(hashes):
            self.categories[i] = category
        self.of_kind, self.most = <Run*>room(kinds, sizeof(Run)), <int*>room(kinds, sizeof(int))
        self.exponents = len(half_lives)
        for kind in range(kinds):
            of_kind = [i for i, measure in enumerate(measures) if kind in measure[0]]
            self.of_kind[kind] = linked(links, of_kind, measures)
            of_half_hours = sum(len(bitmaps[bitmap][1]) for i in of_kind for bitmap in measures[i][7])
            self.most[kind] = of_half_hours + sum(len(measures[i][4]) for i in of_kind)
            self.exponents = max(self.exponents, len(half_lives) + of_half_hours)
        self.links = <int*>room(len(links), sizeof(int))
        for i, link in enumerate(links):
            self.links[i] = link

    def __dealloc__(self):
        PyMem_Free(self.half_lives)
        PyMem_Free(self.sums)
        PyMem_Free(self.tiles)
        PyMem_Free(self.rings)
        PyMem_Free(self.bitmaps)
        PyMem_Free(self.measures)
        PyMem_Free(self.categories)
        PyMem_Free(self.of_kind)
        PyMem_Free(self.most)
        PyMem_Free(self.links)
