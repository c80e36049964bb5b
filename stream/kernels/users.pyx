# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
"""Chosen rows of the user table as bytes: their ids, and their columns one after the other."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.list cimport PyList_GET_ITEM, PyList_GET_SIZE
from cpython.ref cimport PyObject
from libc.string cimport memcpy

ctypedef const unsigned char* Bytes
ctypedef unsigned char* Room

cdef extern from "Python.h":
    bint PyUnicode_CheckExact(PyObject*)
    bint PyUnicode_IS_COMPACT_ASCII(PyObject*)
    Py_ssize_t PyUnicode_GET_LENGTH(PyObject*)
    void* PyUnicode_DATA(PyObject*)

cdef enum:
    LONGEST = 0xFFFF


def ids(list user_ids, const long long[::1] rows):
    """The ids of n rows: their lengths (n uint16 in the machine's order), and themselves, joined.

    None where an id is not ASCII, no str, or longer than 65,535. Raises ValueError for a row that is not there.
    """
    cdef Py_ssize_t n = rows.shape[0], known = PyList_GET_SIZE(user_ids), i, length, size = 0
    cdef PyObject* text
    cdef bytes lengths, joined
    cdef Room at
    cdef unsigned short short_length
    lengths = PyBytes_FromStringAndSize(NULL, 2 * n)
    at = <Room>PyBytes_AS_STRING(lengths)
    for i in range(n):
        if rows[i] < 0 or rows[i] >= known:
            raise ValueError(f"there is no row {rows[i]} of {known}")
        text = <PyObject*>PyList_GET_ITEM(user_ids, rows[i])
        if not PyUnicode_CheckExact(text) or not PyUnicode_IS_COMPACT_ASCII(text):
            return None
        length = PyUnicode_GET_LENGTH(text)
        if length > LONGEST:
            return None
        short_length = <unsigned short>length
        memcpy(at + 2 * i, &short_length, 2)
        size += length
    joined = PyBytes_FromStringAndSize(NULL, size)
    at = <Room>PyBytes_AS_STRING(joined)
    for i in range(n):
        text = <PyObject*>PyList_GET_ITEM(user_ids, rows[i])
        length = PyUnicode_GET_LENGTH(text)
        memcpy(at, PyUnicode_DATA(text), length)
        at += length
    return lengths, joined


def columns(const unsigned char[:, ::1] array, const long long[::1] rows, Py_ssize_t size, unsigned char[::1] out):
    """Fill `out` with n `rows` of `array` (users, width * size bytes), column after column, of `size` bytes a value.

    Raises ValueError for a row that is not there, a size other than 1, 2, 4 and 8, and an `out` of another length.
    """
    cdef Py_ssize_t n = rows.shape[0], users = array.shape[0], i
    if size not in (1, 2, 4, 8) or array.shape[1] % size:
        raise ValueError(f"rows of {array.shape[1]} bytes do not hold values of {size}")
    if out.shape[0] != n * array.shape[1]:
        raise ValueError(f"out has {out.shape[0]} bytes, wanted {n} rows of {array.shape[1]}")
    for i in range(n):
        if rows[i] < 0 or rows[i] >= users:
            raise ValueError(f"there is no row {rows[i]} of {users}")
    if not out.shape[0]:
        return
    cdef Py_ssize_t width = array.shape[1] // size
    with nogil:
        if size == 1:
            turn(&array[0, 0], width, &rows[0], n, &out[0], 1)
        elif size == 2:
            turn(&array[0, 0], width, &rows[0], n, &out[0], 2)
        elif size == 4:
            turn(&array[0, 0], width, &rows[0], n, &out[0], 4)
        else:
            turn(&array[0, 0], width, &rows[0], n, &out[0], 8)


cdef inline void turn(
    Bytes array, Py_ssize_t width, const long long* rows, Py_ssize_t n, Room out, const Py_ssize_t size
) noexcept nogil:
    """The rows turned; called with each size by itself, so that the compiler copies words."""
    cdef Py_ssize_t start, stop, column, i
    cdef Room at
    # So many at a time: what they hold stays in the first-level cache while it is read column by column.
    for start in range(0, n, 32):
        stop = min(start + 32, n)
        for column in range(width):
            at = out + (column * n + start) * size
            for i in range(start, stop):
                memcpy(at, array + (rows[i] * width + column) * size, size)
                at += size
