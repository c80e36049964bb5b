# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
"""Where the fields of each record of a v2 batch are (https://kafka.apache.org/documentation/#recordbatch)."""

cimport cython


cdef struct Cursor:
    const unsigned char* at
    const unsigned char* end
    bint bad


cdef inline long long varint(Cursor* cursor) noexcept nogil:
    """The zigzag number at the cursor, which moves behind it; `bad` where it has no end or more than 64 bits."""
    cdef unsigned long long number = 0
    cdef unsigned char byte
    cdef int shift = 0
    while cursor.at < cursor.end:
        byte = cursor.at[0]
        cursor.at += 1
        if shift == 63 and byte > 1:
            break
        number |= <unsigned long long>(byte & 0x7F) << shift
        if not byte & 0x80:
            return <long long>(number >> 1) ^ -<long long>(number & 1)
        shift += 7
    cursor.bad = True
    return 0


cdef inline void content(
    Cursor* cursor, const unsigned char* base, long long* start, long long* length
) noexcept nogil:
    """A nullable field: where it is, and its length, -1 for null."""
    cdef long long count = varint(cursor)
    start[0] = cursor.at - base
    if count < 0:
        length[0] = -1
    elif count > cursor.end - cursor.at:
        cursor.bad = True
    else:
        length[0] = count
        cursor.at += count


def read(const unsigned char[::1] data, Py_ssize_t count, long long[:, ::1] out):
    """Fill `out`, eight rows of at least `count` columns, with the fields of `count` records that fill `data`.

    Rows: timestamp delta, offset delta, key start, key length, value start, value length (starts are positions in
    `data`, a length of -1 is null), where the headers begin, where the record ends. Returns -1 where the bytes are not
    what the format says, 1 where any record has headers, else 0. The headers are not looked into.
    """
    if out.shape[0] != 8 or out.shape[1] < count:
        raise ValueError(f"out has {out.shape[0]} rows of {out.shape[1]}, wanted 8 of {count}")
    if count <= 0 or not data.shape[0]:
        return -1
    cdef const unsigned char* base = &data[0]
    cdef const unsigned char* stop
    cdef Cursor cursor
    cdef Py_ssize_t i
    cdef long long length
    cdef bint some = False
    with nogil:
        cursor.at, cursor.end, cursor.bad = base, base + data.shape[0], False
        for i in range(count):
            cursor.end = base + data.shape[0]
            length = varint(&cursor)
            # At least one byte of attributes, of which none are defined.
            if cursor.bad or length < 1 or length > cursor.end - cursor.at or cursor.at[0] & 0x80:
                break
            stop = cursor.end = cursor.at + length
            cursor.at += 1
            out[0, i] = varint(&cursor)
            out[1, i] = varint(&cursor)
            content(&cursor, base, &out[2, i], &out[3, i])
            content(&cursor, base, &out[4, i], &out[5, i])
            if cursor.bad or cursor.at == stop:
                break
            out[6, i] = cursor.at - base
            out[7, i] = stop - base
            if cursor.at[0]:
                some = True
                cursor.at = stop
            else:
                cursor.at += 1
                if cursor.at != stop:
                    break
        else:
            i = count
    if i < count or cursor.at != base + data.shape[0]:
        return -1
    return 1 if some else 0
