# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
"""One batch of events applied to the columns of the user table, in one pass: no object is made for an event.

It does what `stream.features.update` does with numpy, in the same order for each cell and with the same roundings, so
that the columns have the same bits whichever of them ran. Only the broken powers of two are left to numpy, whose exp2
is not that of the C library in the last bit. Every pointer is behind a check of the array's type and shape, and
nothing is changed before all checks are through. The interpreter's lock is kept: a batch takes less time than it may
take to get the lock back.
"""

from libc.limits cimport LLONG_MIN
from libc.stdlib cimport free, malloc
from libc.string cimport memmove

from stream.kernels.arrays cimport Held, hold, let_go
from stream.kernels.batch cimport Batch, number
from stream.kernels.plan cimport (
    BYTES, COUNTS, FLOATS, GROUPS, HALF_HOUR_MS, NUMBERS, TIMES, WORDS, Bitmap, HalfLife, Measure, Plan, Ring, Run, Sum,
)
from stream.kernels.tiles cimport FEWEST, WORD_BITS, Span, Time, age, scaled, shrink, slot, whole
from stream.kernels.xxh3 cimport u64

cdef enum:
    NOT_YET = -1

cdef struct Contribution:
    Py_ssize_t cell
    double value
    int weight

cdef struct Walk:
    # The table's arrays, by DTYPES.
    float* floats
    unsigned char* bytes
    Time* times
    u64* words
    unsigned int* counts
    Py_ssize_t row
    # By half-life, tile and bitmap: where the user at hand is.
    Time* faded
    Time* heads
    Time* seen
    # By half-life: the weight of the event at hand, once it was asked for.
    int* weight_of
    # Weights: the part of a half-life that numpy raises two to, and the whole ones to shift by.
    double* parts
    int* shifts
    int weights
    # Additions to decayed sums, which wait for their weights.
    Contribution* adds
    Py_ssize_t added


cdef inline bint among(const u64* sorted_, int count, u64 wanted) noexcept nogil:
    cdef int low = 0, high = count, middle
    while low < high:
        middle = (low + high) >> 1
        if sorted_[middle] < wanted:
            low = middle + 1
        else:
            high = middle
    return low < count and sorted_[low] == wanted


cdef Py_ssize_t accept(Plan plan, const Batch* batch, u64* words) noexcept nogil:
    """Tell duplicates from events to accept, of which there are as many as returned, and remember the ids of these."""
    cdef Py_ssize_t i, j, count = 0
    cdef u64 id
    cdef u64* queue
    cdef bint found
    for i in range(batch.count):
        batch.accepted[i] = batch.duplicate[i] = 0
        if batch.late[i]:
            batch.row[i] = -1
            continue
        if plan.depth:
            queue = words + batch.row[i] * plan.width[WORDS] + plan.recent
            # 0 is an empty place.
            id = batch.ids[i] if batch.ids[i] else 1
            found = False
            for j in range(plan.depth):
                found |= queue[j] == id
            if found:
                batch.duplicate[i] = 1
                batch.row[i] = -1
                continue
            memmove(queue, queue + 1, (plan.depth - 1) * sizeof(u64))
            queue[plan.depth - 1] = id
        batch.accepted[i] = 1
        batch.keys[count] = batch.row[i] << batch.bits | i
        count += 1
    return count


cdef inline void add_to_ring(Plan plan, Walk* walk, const Ring* ring, Time time, double value) noexcept nogil:
    """What lies before the ring's oldest tile counts no more."""
    cdef Time tile = whole(&plan.tiles[ring.tile], time)
    if tile <= walk.heads[ring.tile] - ring.tiles:
        return
    if ring.narrow:
        walk.bytes[walk.row * plan.width[BYTES] + ring.start + slot(tile, ring.tiles)] += 1
    else:
        walk.floats[walk.row * plan.width[FLOATS] + ring.start + slot(tile, ring.tiles)] += <float>value


cdef inline void add_to_sum(
    Plan plan, Walk* walk, const Sum* item, Time time, double value, u64 category, int* weight_of
) noexcept nogil:
    """Note what is to be added once the weights are known. `weight_of`: those of the event, made on demand."""
    cdef Span* span = &plan.half_lives[item.half_life].span
    cdef int weight = weight_of[item.half_life] if weight_of != NULL else NOT_YET
    cdef Contribution* add = &walk.adds[walk.added]
    add.cell = walk.row * plan.width[FLOATS] + item.start
    if item.buckets > 1:
        if not category:
            return
        add.cell += category % <u64>item.buckets
    if weight == NOT_YET:
        weight = walk.weights
        walk.shifts[weight] = <int>max(whole(span, time) - walk.faded[item.half_life], FEWEST)
        walk.parts[weight] = <double>(time - span.start) / <double>span.size
        walk.weights += 1
        if weight_of != NULL:
            weight_of[item.half_life] = weight
    add.value = value
    add.weight = weight
    walk.added += 1


cdef inline void add_half_hour(Plan plan, Walk* walk, int which, Time time, u64 category) noexcept nogil:
    """A half-hour that was not seen before counts once, at its beginning.

    Accepted events are no older than the allowed lateness, which the bitmap covers.
    """
    cdef Bitmap* bitmap = &plan.bitmaps[which]
    cdef u64* words = walk.words + walk.row * plan.width[WORDS] + bitmap.start
    cdef Time half_hour = whole(&plan.half_hour, time), back = walk.seen[which] - half_hour
    cdef u64* word
    cdef u64 bit
    cdef int at
    if back < 0:
        age(words, plan.words, -back)
        walk.seen[which] = half_hour
        back = 0
    if back < <Time>plan.words * WORD_BITS:
        word = words + plan.words - 1 - back // WORD_BITS
        bit = (<u64>1) << (back % WORD_BITS)
        if word[0] & bit:
            return
        word[0] |= bit
    time = half_hour * HALF_HOUR_MS
    for at in range(bitmap.sums.start, bitmap.sums.stop):
        add_to_sum(plan, walk, &plan.sums[plan.links[at]], time, 1.0, category, NULL)
    for at in range(bitmap.rings.start, bitmap.rings.stop):
        add_to_ring(plan, walk, &plan.rings[plan.links[at]], time, 1.0)


cdef inline void add(
    Plan plan, const Batch* batch, Walk* walk, const Measure* measure, Py_ssize_t event
) noexcept nogil:
    """What an event of its kinds adds to all that one measure feeds."""
    cdef double value = 1.0, read
    cdef Time time = batch.time[event]
    cdef u64 category = batch.category[event]
    cdef int at
    cdef Time* latest
    if measure.categories.stop > measure.categories.start and not among(
        plan.categories + measure.categories.start, measure.categories.stop - measure.categories.start, category
    ):
        return
    if measure.field >= 0:
        read = number(batch, measure.field, event)
        if read != read:
            return
        if not measure.presence:
            value = read
    for at in range(measure.sums.start, measure.sums.stop):
        add_to_sum(plan, walk, &plan.sums[plan.links[at]], time, value, category, walk.weight_of)
    for at in range(measure.rings.start, measure.rings.stop):
        add_to_ring(plan, walk, &plan.rings[plan.links[at]], time, value)
    for at in range(measure.latest.start, measure.latest.stop):
        latest = &walk.times[walk.row * plan.width[TIMES] + plan.links[at]]
        latest[0] = max(latest[0], time)
    for at in range(measure.bitmaps.start, measure.bitmaps.stop):
        add_half_hour(plan, walk, plan.links[at], time, category)


cdef inline void clear(Plan plan, Walk* walk, float* floats, Time before) noexcept nogil:
    """Clear the slots of all rings that the latest event passes."""
    cdef int which, at
    cdef Time tile, head
    cdef Ring* ring
    cdef Span span
    for which in range(plan.ring_count):
        ring = &plan.rings[which]
        head = walk.heads[ring.tile]
        # A copy: the place of the latest event is asked for again.
        span = plan.tiles[ring.tile]
        tile = max(whole(&span, before), head - ring.tiles)
        if tile == head:
            continue
        at = slot(tile, ring.tiles)
        while tile < head:
            tile += 1
            at = at + 1 if at + 1 < ring.tiles else 0
            if ring.narrow:
                walk.bytes[walk.row * plan.width[BYTES] + ring.start + at] = 0
            else:
                floats[ring.start + at] = 0


cdef void update(Plan plan, const Batch* batch, Walk* walk, const Time* events, Py_ssize_t count) noexcept nogil:
    """Bring what is stored to the user's new latest event, then add what the accepted events contribute."""
    cdef Py_ssize_t i, event
    cdef int which, measure
    cdef float* floats = walk.floats + walk.row * plan.width[FLOATS]
    cdef u64* words = walk.words + walk.row * plan.width[WORDS]
    cdef Time* times = walk.times + walk.row * plan.width[TIMES]
    cdef Time earliest = batch.time[events[0]], latest = earliest, before = times[plan.last], after, passed
    cdef Run run
    cdef HalfLife* half_life
    for i in range(1, count):
        earliest, latest = min(earliest, batch.time[events[i]]), max(latest, batch.time[events[i]])
    after = max(before, latest)
    times[plan.last] = after
    if times[plan.first] == LLONG_MIN or earliest < times[plan.first]:
        times[plan.first] = earliest
    walk.counts[walk.row * plan.width[COUNTS] + plan.events] += <unsigned int>count
    # Of a new user nothing is stored. The first event is where a bitmap begins that others are measured against.
    for which in range(plan.bitmap_count):
        walk.seen[which] = whole(&plan.half_hour, batch.time[events[0]] if before == LLONG_MIN else before)
    if before == LLONG_MIN:
        before = after
    for which in range(plan.half_life_count):
        half_life = &plan.half_lives[which]
        passed = whole(&half_life.span, before)
        walk.faded[which] = whole(&half_life.span, after)
        passed = walk.faded[which] - passed
        if passed:
            shrink(floats + half_life.start, half_life.stop - half_life.start, passed)
    for which in range(plan.tile_count):
        walk.heads[which] = whole(&plan.tiles[which], after)
    if after != before:
        clear(plan, walk, floats, before)
    for i in range(count):
        event = events[i]
        for which in range(plan.half_life_count):
            walk.weight_of[which] = NOT_YET
        run = plan.of_kind[batch.kind[event]]
        for measure in range(run.start, run.stop):
            add(plan, batch, walk, &plan.measures[plan.links[measure]], event)
    for which in range(plan.bitmap_count):
        passed = whole(&plan.half_hour, after) - walk.seen[which]
        if passed:
            age(words + plan.bitmaps[which].start, plan.words, passed)


cdef void* group(Plan plan, Held* held, list arrays, int which, const char* formats, Py_ssize_t size) except? NULL:
    """One of the table's arrays; NULL where the layout has none."""
    if not plan.width[which]:
        return NULL
    return hold(held, arrays[plan.group[which]], formats, size, 0, plan.width[which], True)


cdef int check(Plan plan, const Batch* batch, list arrays, Py_ssize_t* most) except -1:
    """Rows and kinds are in their ranges; `most` becomes how many contributions to sums there can be."""
    cdef Py_ssize_t i, users = min([len(arrays[plan.group[which]]) for which in range(GROUPS) if plan.width[which]])
    for i in range(batch.count):
        if not batch.late[i]:
            if not 0 <= batch.row[i] < users or not 0 <= batch.kind[i] < plan.kinds:
                raise ValueError(f"event {i} has row {batch.row[i]} of {users} and kind {batch.kind[i]}")
            most[0] += plan.most[batch.kind[i]]
    return 0


cdef void* scratch(Plan plan, Walk* walk, Py_ssize_t events, Py_ssize_t most) except NULL:
    """Memory to be freed for all that a walk notes."""
    cdef Py_ssize_t times = plan.half_life_count + plan.tile_count + plan.bitmap_count
    cdef Py_ssize_t ints = events * plan.exponents + plan.half_life_count
    cdef void* made = malloc(most * sizeof(Contribution) + times * sizeof(Time) + ints * sizeof(int) + 1)
    if made == NULL:
        raise MemoryError
    walk.adds = <Contribution*>made
    walk.faded = <Time*>(walk.adds + most)
    walk.heads = walk.faded + plan.half_life_count
    walk.seen = walk.heads + plan.tile_count
    walk.shifts = <int*>(walk.seen + plan.bitmap_count)
    walk.weight_of = walk.shifts + events * plan.exponents
    walk.weights = walk.added = 0
    return made


def apply(
    Plan plan, list arrays, tuple columns, row_of, too_late, accepted, duplicate, keys, rows, last_event, parts, exp2
):
    """Apply a batch of n events to the table's arrays; returns how many users it touched, m.

    `columns` of the batch: time, kind, hash of the id, hash of the category, amount, quantity, discount, dwell_ms,
    rating. `row_of` (n,) are the users' rows, of those that are not `too_late` (n,); those that are no accepted events
    become -1. Filled are `accepted` and `duplicate` (n,), and in the first m places `rows`, ascending, and
    `last_event`. `keys` (n,) and `parts` (n * exponents,) are scratch; `exp2` is numpy's. Raises ValueError for arrays
    of other types and shapes, rows and kinds out of range, before anything is changed.
    """
    cdef Held held
    cdef Batch batch
    cdef Walk walk
    cdef Py_ssize_t n = len(row_of), i = 0, count, start, most = 0, touched = 0
    cdef Time mask
    cdef Time* touched_rows
    cdef Time* last
    cdef const double* powers
    cdef Contribution* each
    cdef void* made = NULL
    if len(columns) != 4 + NUMBERS:
        raise ValueError(f"{len(columns)} columns of a batch, wanted {4 + NUMBERS}")
    held.count = 0
    try:
        batch.count = n
        batch.time = <const Time*>hold(&held, columns[0], b"lq", sizeof(Time), n, 0, False)
        batch.kind = <const signed char*>hold(&held, columns[1], b"b", sizeof(char), n, 0, False)
        batch.ids = <const u64*>hold(&held, columns[2], b"LQ", sizeof(u64), n, 0, False)
        batch.category = <const u64*>hold(&held, columns[3], b"LQ", sizeof(u64), n, 0, False)
        for i in range(NUMBERS):
            batch.numbers[i] = <const double*>hold(&held, columns[4 + i], b"d", sizeof(double), n, 0, False)
        batch.late = <const unsigned char*>hold(&held, too_late, b"?", sizeof(char), n, 0, False)
        batch.accepted = <unsigned char*>hold(&held, accepted, b"?", sizeof(char), n, 0, True)
        batch.duplicate = <unsigned char*>hold(&held, duplicate, b"?", sizeof(char), n, 0, True)
        batch.row = <Time*>hold(&held, row_of, b"lq", sizeof(Time), n, 0, True)
        batch.keys = <Time*>hold(&held, keys, b"lq", sizeof(Time), n, 0, True)
        touched_rows = <Time*>hold(&held, rows, b"lq", sizeof(Time), n, 0, True)
        last = <Time*>hold(&held, last_event, b"lq", sizeof(Time), n, 0, True)
        walk.parts = <double*>hold(&held, parts, b"d", sizeof(double), n * plan.exponents, 0, True)
        walk.floats = <float*>group(plan, &held, arrays, FLOATS, b"f", sizeof(float))
        walk.bytes = <unsigned char*>group(plan, &held, arrays, BYTES, b"B", sizeof(char))
        walk.times = <Time*>group(plan, &held, arrays, TIMES, b"lq", sizeof(Time))
        walk.words = <u64*>group(plan, &held, arrays, WORDS, b"LQ", sizeof(u64))
        walk.counts = <unsigned int*>group(plan, &held, arrays, COUNTS, b"I", sizeof(int))
        check(plan, &batch, arrays, &most)
        made = scratch(plan, &walk, n, most)
        batch.bits = 0
        while n > 1 << batch.bits:
            batch.bits += 1
        mask = ((<Time>1) << batch.bits) - 1
        count = accept(plan, &batch, walk.words)
        # By row, then by position in the batch.
        keys[:count].sort()
        i = 0
        while i < count:
            start = i
            walk.row = batch.keys[start] >> batch.bits
            while i < count and batch.keys[i] >> batch.bits == walk.row:
                batch.keys[i] &= mask
                i += 1
            update(plan, &batch, &walk, batch.keys + start, i - start)
            touched_rows[touched], last[touched] = walk.row, batch.keys[i - 1]
            touched += 1
        if walk.added:
            weights = exp2(parts[: walk.weights])
            powers = <const double*>hold(&held, weights, b"d", sizeof(double), walk.weights, 0, False)
            for i in range(walk.weights):
                walk.parts[i] = scaled(powers[i], walk.shifts[i])
            for i in range(walk.added):
                each = &walk.adds[i]
                walk.floats[each.cell] += <float>(each.value * walk.parts[each.weight])
    finally:
        free(made)
        let_go(&held)
    return touched


def clock(times, Time reached, Time lateness, too_late):
    """Which events (n,) are older than the latest time before them, less the lateness; returns the latest of all."""
    cdef Held held
    cdef Py_ssize_t i, n = len(times)
    cdef const Time* time
    cdef unsigned char* late
    held.count = 0
    try:
        time = <const Time*>hold(&held, times, b"lq", sizeof(Time), n, 0, False)
        late = <unsigned char*>hold(&held, too_late, b"?", sizeof(char), n, 0, True)
        for i in range(n):
            late[i] = time[i] < reached - lateness
            reached = max(reached, time[i])
    finally:
        let_go(&held)
    return reached
