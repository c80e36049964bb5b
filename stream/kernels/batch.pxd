# cython: language_level=3
"""A batch of events as columns, and the numbers that its events carry."""

from stream.kernels.plan cimport AMOUNT, DISCOUNT, DWELL_MS, LIST_AMOUNT, NUMBERS, QUANTITY, UNIT_PRICE
from stream.kernels.tiles cimport Time
from stream.kernels.xxh3 cimport u64

cdef struct Batch:
    Py_ssize_t count
    const Time* time
    const signed char* kind
    const u64* ids
    const u64* category
    const double* numbers[NUMBERS]
    # What becomes of the events.
    const unsigned char* late
    unsigned char* accepted
    unsigned char* duplicate
    Time* row
    # Of the accepted ones, row and position in one number.
    Time* keys
    int bits


cdef inline double number(const Batch* batch, int field, Py_ssize_t event) noexcept nogil:
    """As `stream.features.batch.FIELDS`; NaN for what an event does not carry."""
    cdef double other
    if field < NUMBERS:
        return batch.numbers[field][event]
    if field == UNIT_PRICE:
        other = batch.numbers[QUANTITY][event]
        return batch.numbers[AMOUNT][event] / (1.0 if other != other else other if other > 1e-6 else 1e-6)
    if field == LIST_AMOUNT:
        other = batch.numbers[DISCOUNT][event]
        return batch.numbers[AMOUNT][event] + (0.0 if other != other else other)
    return batch.numbers[DWELL_MS][event] / 1000.0
