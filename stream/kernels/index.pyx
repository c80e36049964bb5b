# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
"""From user id to row, by open addressing: ids are looked up where they lie, and no object is made for one that is known.

A slot holds the hash and the row of an id; the ids themselves are the strings of a list, which a hit is compared with.
The hash is XXH3 with a secret of this process, so that nobody outside can choose ids that meet in one slot.
"""

import os

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.list cimport PyList_GET_ITEM, PyList_GET_SIZE
from cpython.mem cimport PyMem_RawCalloc, PyMem_RawFree
from cpython.ref cimport PyObject
from libc.string cimport memcmp, memcpy

from stream.kernels.xxh3 cimport LONGEST, SECRET_BYTES, fold, u64, xxh3_64_with

cdef extern from "Python.h":
    bint PyUnicode_IS_COMPACT_ASCII(object text)
    void* PyUnicode_1BYTE_DATA(object text)
    Py_ssize_t PyUnicode_GET_LENGTH(object text)

cdef extern from *:
    """
    #define resegment_prefetch(address) __builtin_prefetch(address)
    """
    void prefetch "resegment_prefetch"(const void* address) noexcept nogil

ctypedef const unsigned char* Bytes

cdef enum:
    FIRST_CAPACITY = 1024
    AHEAD = 16
    MOST_ROWS = 0x7FFFFFFF

cdef unsigned char SECRET_OF_PROCESS[SECRET_BYTES]
_secret = os.urandom(SECRET_BYTES)
memcpy(SECRET_OF_PROCESS, <Bytes>PyBytes_AS_STRING(_secret), SECRET_BYTES)
del _secret


cdef u64 digest(Bytes data, Py_ssize_t length) noexcept nogil:
    """Never 0, which marks a free slot."""
    cdef u64 found
    if length <= LONGEST:
        found = xxh3_64_with(data, length, SECRET_OF_PROCESS)
    else:
        found = <u64>length
        while length > 0:
            found = fold(
                found ^ xxh3_64_with(data, min(length, <Py_ssize_t>LONGEST), SECRET_OF_PROCESS), 0x9E3779B185EBCA87ULL
            )
            data += LONGEST
            length -= LONGEST
    return found if found else 1


cdef struct Slot:
    u64 hash
    u64 row


cdef class Index:
    """The rows of the ids in `ids`, a list of distinct strings, which it appends new ones to; 16 bytes a slot.

    Nobody else may change the list. Raises OverflowError beyond 2^31 - 1 ids, ValueError where an id comes twice.
    """

    cdef Slot* slots
    cdef Py_ssize_t mask
    cdef Py_ssize_t used
    cdef list ids

    def __cinit__(self):
        self.slots = NULL

    def __init__(self, list ids):
        if self.slots != NULL:
            raise ValueError("an index is made once")
        self.ids = ids
        self.used = 0
        cdef Py_ssize_t capacity = FIRST_CAPACITY, row
        while 2 * capacity < 3 * len(ids):
            capacity *= 2
        self._allocate(capacity)
        for row in range(len(ids)):
            if self._put(ids[row], row) != row:
                raise ValueError(f"the id of row {row} comes twice")

    def __dealloc__(self):
        PyMem_RawFree(self.slots)

    def __len__(self):
        return self.used

    @property
    def nbytes(self):
        """Bytes of the slots."""
        return (self.mask + 1) * sizeof(Slot)

    def get(self, str user_id):
        """The row; -1 where the id is unknown."""
        cdef bytes encoded
        if PyUnicode_IS_COMPACT_ASCII(user_id):
            return self._find(<Bytes>PyUnicode_1BYTE_DATA(user_id), PyUnicode_GET_LENGTH(user_id), user_id)
        encoded = user_id.encode("utf-8", "surrogatepass")
        return self._find(<Bytes>PyBytes_AS_STRING(encoded), PyBytes_GET_SIZE(encoded), user_id)

    def add(self, str user_id):
        """The row; who is unknown gets the next one."""
        cdef Py_ssize_t row = self._put(user_id, len(self.ids))
        if row == len(self.ids):
            self.ids.append(user_id)
        return row

    def find(self, const unsigned char[::1] data, const long long[:] starts, const long long[:] lengths,
             long long[::1] rows):
        """Put into `rows` (n,) the row of each ASCII id at `starts`, of `lengths`, in `data`; -1 for who is unknown.

        Raises ValueError where one lies outside of the data.
        """
        cdef Py_ssize_t n = starts.shape[0], i, k, count
        cdef long long size = data.shape[0]
        cdef u64[AHEAD] hashes
        cdef Bytes base = &data[0] if size else NULL
        cdef Slot* slot
        if lengths.shape[0] != n or rows.shape[0] < n:
            raise ValueError("the columns are not of one length")
        for i in range(n):
            if starts[i] < 0 or lengths[i] < 0 or starts[i] > size - lengths[i]:
                raise ValueError(f"id {i} lies outside of the bytes")
        # In groups, so that the memory of the next ones is on its way while one is compared.
        for i in range(0, n, AHEAD):
            count = min(<Py_ssize_t>AHEAD, n - i)
            for k in range(count):
                hashes[k] = digest(base + starts[i + k], lengths[i + k])
                prefetch(&self.slots[hashes[k] & self.mask])
            for k in range(count):
                slot = &self.slots[hashes[k] & self.mask]
                if slot.hash == hashes[k] and <Py_ssize_t>slot.row < PyList_GET_SIZE(self.ids):
                    prefetch(PyList_GET_ITEM(self.ids, <Py_ssize_t>slot.row))
            for k in range(count):
                rows[i + k] = self._known(hashes[k], base + starts[i + k], lengths[i + k])

    cdef _allocate(self, Py_ssize_t capacity):
        cdef Slot* made = <Slot*>PyMem_RawCalloc(capacity, sizeof(Slot))
        if made == NULL:
            raise MemoryError(f"{capacity} slots of the index of users")
        cdef Slot* old = self.slots
        cdef Py_ssize_t before = self.mask + 1 if old != NULL else 0, i
        self.slots, self.mask = made, capacity - 1
        for i in range(before):
            if old[i].hash:
                self._free_slot(old[i].hash)[0] = old[i]
        PyMem_RawFree(old)

    cdef inline Slot* _free_slot(self, u64 hash) noexcept nogil:
        cdef Py_ssize_t at = hash & self.mask
        while self.slots[at].hash:
            at = (at + 1) & self.mask
        return &self.slots[at]

    cdef inline Py_ssize_t _known(self, u64 hash, Bytes data, Py_ssize_t length):
        """The row of an ASCII id; -1."""
        cdef Py_ssize_t at = hash & self.mask
        cdef object held
        while self.slots[at].hash:
            if self.slots[at].hash == hash and <Py_ssize_t>self.slots[at].row < PyList_GET_SIZE(self.ids):
                held = <object>PyList_GET_ITEM(self.ids, <Py_ssize_t>self.slots[at].row)
                if (
                    PyUnicode_IS_COMPACT_ASCII(held)
                    and PyUnicode_GET_LENGTH(held) == length
                    and memcmp(PyUnicode_1BYTE_DATA(held), data, length) == 0
                ):
                    return <Py_ssize_t>self.slots[at].row
            at = (at + 1) & self.mask
        return -1

    cdef Py_ssize_t _find(self, Bytes data, Py_ssize_t length, str user_id):
        """The row of any id; -1."""
        cdef u64 hash = digest(data, length)
        cdef Py_ssize_t at = hash & self.mask
        while self.slots[at].hash:
            if (
                self.slots[at].hash == hash
                and <Py_ssize_t>self.slots[at].row < PyList_GET_SIZE(self.ids)
                and <str>PyList_GET_ITEM(self.ids, <Py_ssize_t>self.slots[at].row) == user_id
            ):
                return <Py_ssize_t>self.slots[at].row
            at = (at + 1) & self.mask
        return -1

    cdef Py_ssize_t _put(self, str user_id, Py_ssize_t row) except -1:
        """The row of an id, `row` for one that is new."""
        cdef bytes encoded
        cdef Bytes data
        cdef Py_ssize_t length, found
        cdef Slot* slot
        if PyUnicode_IS_COMPACT_ASCII(user_id):
            data, length = <Bytes>PyUnicode_1BYTE_DATA(user_id), PyUnicode_GET_LENGTH(user_id)
        else:
            encoded = user_id.encode("utf-8", "surrogatepass")
            data, length = <Bytes>PyBytes_AS_STRING(encoded), PyBytes_GET_SIZE(encoded)
        found = self._find(data, length, user_id)
        if found >= 0:
            return found
        if row > MOST_ROWS:
            raise OverflowError(f"{row} users in one partition")
        if 3 * (self.used + 1) > 2 * (self.mask + 1):
            self._allocate(2 * (self.mask + 1))
        slot = self._free_slot(digest(data, length))
        slot.hash, slot.row = digest(data, length), row
        self.used += 1
        return row
