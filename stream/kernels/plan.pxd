"""The parts of a plan: what is stored where, and which events feed it."""

from stream.kernels.tiles cimport Span
from stream.kernels.xxh3 cimport u64

cdef enum:
    FLOATS, BYTES, TIMES, WORDS, COUNTS, GROUPS

cdef enum:
    AMOUNT, QUANTITY, DISCOUNT, DWELL_MS, RATING, NUMBERS, UNIT_PRICE, LIST_AMOUNT, DWELL_SECONDS

cdef enum:
    HALF_HOUR_MS = 1_800_000

cdef struct HalfLife:
    Span span
    int start
    int stop

cdef struct Sum:
    int start
    int half_life
    int buckets

cdef struct Ring:
    int start
    int tile
    int tiles
    bint narrow

cdef struct Run:
    # Which of `links` name the parts of something.
    int start
    int stop

cdef struct Bitmap:
    int start
    Run sums
    Run rings

cdef struct Measure:
    int field
    bint presence
    Run categories
    Run sums
    Run rings
    Run latest
    Run bitmaps


cdef class Plan:
    cdef readonly int exponents
    cdef int group[GROUPS]
    cdef int width[GROUPS]
    cdef int last, first, events, recent, depth, words, kinds
    cdef int half_life_count, tile_count, ring_count, bitmap_count
    cdef HalfLife* half_lives
    cdef Sum* sums
    cdef Span* tiles
    cdef Ring* rings
    cdef Bitmap* bitmaps
    cdef Measure* measures
    cdef u64* categories
    cdef int* links
    cdef Run* of_kind
    cdef int* most
    cdef Span half_hour
