# cython: language_level=3, cdivision=True
"""Tiles of time and what passes with them: the arithmetic of stream.features.decay, windows and visits on one user."""

from libc.math cimport ldexp, ldexpf
from libc.string cimport memset

from stream.kernels.xxh3 cimport u64

ctypedef long long Time

cdef enum:
    WORD_BITS = 64
    # As stream.features.decay: what is further away has the weight of nothing.
    FEWEST = -1_048_576

cdef struct Span:
    # A length in milliseconds, and the last whole number of them that was asked for and where it begins: times that
    # follow one another mostly lie in the same one, and dividing is dear.
    Time size
    Time number
    Time start


cdef inline Time whole(Span* span, Time time) noexcept nogil:
    """How many whole spans lie before a time, rounded down; the span begins at `span.start`."""
    if <u64>time - <u64>span.start >= <u64>span.size:
        span.number = time // span.size - (time % span.size < 0)
        span.start = <Time>(<u64>span.number * <u64>span.size)
    return span.number


cdef inline int slot(Time number, int tiles) noexcept nogil:
    cdef Time rest = number % tiles
    return <int>(rest + tiles if rest < 0 else rest)


cdef inline double scaled(double weight, int shift) noexcept nogil:
    """weight * 2^shift for a weight of one to two: by its exponent where the result has its own, as ldexp else."""
    cdef u64 power
    if not shift:
        return weight
    if shift < -1000:
        return ldexp(weight, shift)
    power = <u64>(1023 + shift) << 52
    return weight * (<double*>&power)[0]


cdef inline void shrink(float* sums, Py_ssize_t count, Time halvings) noexcept nogil:
    """By whole powers of two: exactly, or for what falls below the normal numbers rounded once, as ldexp does."""
    cdef Py_ssize_t i
    cdef unsigned int power
    if halvings <= 126:
        power = <unsigned int>(127 - halvings) << 23
        for i in range(count):
            sums[i] *= (<float*>&power)[0]
    else:
        for i in range(count):
            sums[i] = ldexpf(sums[i], <int>max(-halvings, FEWEST))


cdef inline void age(u64* bitmap, int words, Time steps) noexcept nogil:
    """Make every bit so many half-hours older; what leaves the bitmap is forgotten. The newest word is the last."""
    cdef int i, far, left
    cdef u64 near
    if steps >= <Time>words * WORD_BITS:
        memset(bitmap, 0, words * sizeof(u64))
        return
    far, left = <int>(steps // WORD_BITS), <int>(steps % WORD_BITS)
    for i in range(words):
        near = bitmap[i + far] if i + far < words else 0
        if left:
            near <<= left
            if i + far + 1 < words:
                near |= bitmap[i + far + 1] >> (WORD_BITS - left)
        bitmap[i] = near
