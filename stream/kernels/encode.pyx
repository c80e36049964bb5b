# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
"""Records to the bytes of a v2 batch (https://kafka.apache.org/documentation/#recordbatch), in one pass over them.

A record is a tuple (topic, key, value, partition, headers, timestamp), as `stream.transport.base.OutRecord` is one.
Contents are bytes or None, headers pairs of a text and bytes. What is read from a record stays referred to by it, and no
Python code runs between the measuring of a record and its writing.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.mem cimport PyMem_Free, PyMem_Realloc
from cpython.unicode cimport PyUnicode_AsUTF8AndSize
from libc.string cimport memcpy

ctypedef unsigned long long u64

cdef enum:
    FIRST_ROOM = 65_536

cdef struct Buffer:
    char* data
    Py_ssize_t size
    Py_ssize_t room


cdef inline char* varint(char* at, long long number) noexcept nogil:
    """Write a number: zigzag, seven bits a byte, the low ones first. Returns what is behind it."""
    cdef u64 left = (<u64>number << 1) ^ <u64>(number >> 63)
    while left > 0x7F:
        at[0] = <char>(left & 0x7F | 0x80)
        at += 1
        left >>= 7
    at[0] = <char>left
    return at + 1


cdef inline Py_ssize_t varint_size(long long number) noexcept nogil:
    cdef u64 left = (<u64>number << 1) ^ <u64>(number >> 63)
    cdef Py_ssize_t size = 1
    while left > 0x7F:
        size += 1
        left >>= 7
    return size


cdef inline Py_ssize_t length_of(content) except -2:
    """The bytes of a content, -1 for None."""
    if content is None:
        return -1
    if not isinstance(content, bytes):
        raise TypeError(f"contents are bytes or None, not {type(content).__name__}")
    return PyBytes_GET_SIZE(content)


cdef inline Py_ssize_t sized(Py_ssize_t length) noexcept nogil:
    """The size of a nullable content of so many bytes, with its length."""
    return 1 if length < 0 else varint_size(length) + length


cdef inline char* written(char* at, content, Py_ssize_t length) noexcept:
    """Write a nullable content and its length. Returns what is behind it."""
    at = varint(at, length)
    if length > 0:
        memcpy(at, PyBytes_AS_STRING(content), length)
        at += length
    return at


cdef tuple fields_of(record):
    """A record's fields, of the number that there must be."""
    if not isinstance(record, tuple) or len(<tuple>record) != 6:
        raise TypeError(f"a record is a tuple of six, not {type(record).__name__}")
    return <tuple>record


cdef tuple pairs_of(headers):
    """Headers as a tuple of pairs (text, bytes), checked."""
    cdef tuple pairs = headers if type(headers) is tuple else tuple(headers)
    cdef object pair
    for pair in pairs:
        if type(pair) is not tuple or len(<tuple>pair) != 2:
            return pairs_of(tuple([(name, content) for name, content in pairs]))
        if not isinstance((<tuple>pair)[0], str) or not isinstance((<tuple>pair)[1], bytes):
            raise TypeError("a header is a text and bytes")
    return pairs


cdef Py_ssize_t headers_size(tuple pairs, Py_ssize_t overhead) except -1:
    """The bytes of names and contents, and `overhead` for each header; with an overhead of -1 their own lengths."""
    cdef Py_ssize_t size = 0, name_length
    cdef tuple pair
    for pair in pairs:
        PyUnicode_AsUTF8AndSize(pair[0], &name_length)
        if overhead < 0:
            size += sized(name_length) + sized(PyBytes_GET_SIZE(pair[1]))
        else:
            size += name_length + PyBytes_GET_SIZE(pair[1]) + overhead
    return size


cdef char* write_headers(char* at, tuple pairs) except NULL:
    cdef Py_ssize_t name_length
    cdef const char* name
    cdef tuple pair
    at = varint(at, len(pairs))
    for pair in pairs:
        name = PyUnicode_AsUTF8AndSize(pair[0], &name_length)
        at = varint(at, name_length)
        memcpy(at, name, name_length)
        at = written(at + name_length, pair[1], PyBytes_GET_SIZE(pair[1]))
    return at


cdef int make_room(Buffer* buffer, Py_ssize_t more) except -1:
    cdef Py_ssize_t room = buffer.room
    cdef void* data
    if buffer.size + more <= room:
        return 0
    while room < buffer.size + more:
        room = max(2 * room, FIRST_ROOM)
    data = PyMem_Realloc(buffer.data, room)
    if data == NULL:
        raise MemoryError
    buffer.data, buffer.room = <char*>data, room
    return 0


def encode(records, Py_ssize_t start, Py_ssize_t room, long long now):
    """As many records from `start` on as `room` bytes hold, and at least one: (bytes, count, first time, latest time).

    Times are epoch milliseconds; a record without one has `now`. Raises TypeError where a record is of other types,
    OverflowError for a time of more than 64 bits.
    """
    cdef Buffer buffer
    cdef Py_ssize_t total = len(records), number = 0, key_length, value_length, body, size
    cdef long long first = 0, latest = 0, at, delta
    cdef tuple fields, pairs
    cdef char* place
    if not 0 <= start < total:
        raise IndexError(f"there are {total} records, and none at {start}")
    buffer.data, buffer.size, buffer.room = NULL, 0, 0
    try:
        while start + number < total:
            fields = fields_of(records[start + number])
            at = now
            if fields[5] is not None:
                if not isinstance(fields[5], int):
                    raise TypeError(f"a time is an int, not {type(fields[5]).__name__}")
                at = fields[5]
            if not number:
                first = latest = at
            delta = <long long>(<u64>at - <u64>first)
            key_length, value_length = length_of(fields[1]), length_of(fields[2])
            pairs = pairs_of(fields[4])
            body = 1 + varint_size(delta) + varint_size(number) + sized(key_length) + sized(value_length)
            body += varint_size(len(pairs)) + headers_size(pairs, -1)
            size = varint_size(body) + body
            if number and buffer.size + size > room:
                break
            make_room(&buffer, size)
            place = varint(buffer.data + buffer.size, body)
            place[0] = 0  # the attributes, of which none are defined
            place = varint(varint(place + 1, delta), number)
            place = written(written(place, fields[1], key_length), fields[2], value_length)
            write_headers(place, pairs)
            buffer.size += size
            number += 1
            latest = max(latest, at)
        return PyBytes_FromStringAndSize(buffer.data, buffer.size), number, first, latest
    finally:
        PyMem_Free(buffer.data)


def measure(records, Py_ssize_t overhead):
    """What decides whether a topic takes records: (how many have no key, how many neither key nor value, most bytes).

    The bytes of a record are those of its key, its value, and its headers with `overhead` for each.
    """
    cdef Py_ssize_t keyless = 0, silent = 0, most = 0, size
    cdef tuple fields
    for record in records:
        fields = fields_of(record)
        if fields[1] is None:
            keyless += 1
            silent += fields[2] is None
        size = max(length_of(fields[1]), 0) + max(length_of(fields[2]), 0)
        if fields[4]:
            size += headers_size(pairs_of(fields[4]), overhead)
        most = max(most, size)
    return keyless, silent, most
