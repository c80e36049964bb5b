# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
"""Templates filled with columns: many texts of one shape, without an object for any part of them."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.string cimport memcpy

ctypedef unsigned long long u64

cdef enum:
    MOST_GAPS = 32
    DIGITS = 20  # of a number of 64 bits, with its sign


cdef inline char* digits(char* end, long long number) noexcept nogil:
    """Write a decimal number so that it ends before `end`. Returns where it begins."""
    cdef u64 left = <u64>number
    if number < 0:
        left = 0 - left
    while True:
        end -= 1
        end[0] = <char>(c"0" + left % 10)
        left //= 10
        if not left:
            break
    if number < 0:
        end -= 1
        end[0] = c"-"
    return end


cdef inline char* put(char* at, const char* source, Py_ssize_t length) noexcept nogil:
    memcpy(at, source, length)
    return at + length


def fill(tuple parts, tuple columns, Py_ssize_t count):
    """`count` texts: part, content, part, content and so on, and the last part.

    Parameters: `parts` are bytes, one more than columns; a column is a list of `count` contents, bytes or whole numbers.
    Raises ValueError where their numbers are others, TypeError for other contents, OverflowError for a number of more
    than 64 bits.
    """
    cdef Py_ssize_t gaps = len(columns), fixed = 0, i, g, size
    cdef char[MOST_GAPS][DIGITS] room
    cdef const char* sources[MOST_GAPS]
    cdef Py_ssize_t[MOST_GAPS] lengths
    cdef object content, text
    cdef char* at
    cdef list made = [None] * count
    if gaps > MOST_GAPS or len(parts) != gaps + 1:
        raise ValueError(f"{len(parts)} parts for {gaps} columns of {MOST_GAPS} at most")
    for part in parts:
        fixed += len(<bytes?>part)
    for column in columns:
        if len(<list?>column) != count:
            raise ValueError(f"a column of {len(column)} for {count} texts")
    for i in range(count):
        size = fixed
        for g in range(gaps):
            content = (<list>columns[g])[i]
            if isinstance(content, bytes):
                sources[g], lengths[g] = PyBytes_AS_STRING(content), PyBytes_GET_SIZE(content)
            elif isinstance(content, int):
                sources[g] = digits(&room[g][0] + DIGITS, content)
                lengths[g] = &room[g][0] + DIGITS - sources[g]
            else:
                raise TypeError(f"contents are bytes or numbers, not {type(content).__name__}")
            size += lengths[g]
        text = PyBytes_FromStringAndSize(NULL, size)
        at = PyBytes_AS_STRING(text)
        for g in range(gaps):
            at = put(at, PyBytes_AS_STRING(parts[g]), PyBytes_GET_SIZE(parts[g]))
            at = put(at, sources[g], lengths[g])
        put(at, PyBytes_AS_STRING(parts[gaps]), PyBytes_GET_SIZE(parts[gaps]))
        made[i] = text
    return made
