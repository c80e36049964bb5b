# cython: language_level=3, cdivision=True
"""The words of JSON: white space, plain texts, numbers, and times. Every read is behind a comparison with the end."""

from stream.kernels.xxh3 cimport read64, u64

cdef extern from *:
    """
    #define resegment_first_byte(mask) (__builtin_ctzll(mask) >> 3)
    static const double resegment_powers[16] = {
        1.0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15
    };
    """
    int first_byte "resegment_first_byte"(u64 mask) noexcept nogil
    const double* POWERS "resegment_powers"

ctypedef const unsigned char* Bytes

cdef enum:
    # A whole number of so many digits is exact in a float, and so is the power of ten that divides it: the quotient is
    # the nearest float, which is what every JSON parser gives (W. Clinger, "How to Read Floating Point Numbers
    # Accurately", 1990).
    DIGITS = 15

cdef struct Number:
    bint whole
    double value
    long long integer


cdef inline Bytes space(Bytes at, Bytes end) noexcept nogil:
    """Behind white space."""
    while at < end and at[0] <= c" " and (at[0] == c" " or at[0] == c"\n" or at[0] == c"\r" or at[0] == c"\t"):
        at += 1
    return at


cdef inline int sequence(Bytes at, Bytes end) noexcept nogil:
    """The length of the UTF-8 sequence of more than one byte that begins here; 0 for what is none (RFC 3629)."""
    cdef unsigned char first = at[0], low = 0x80, high = 0xBF
    cdef int length, i
    if first < 0xC2 or first > 0xF4:
        return 0
    length = 2 if first < 0xE0 else 3 if first < 0xF0 else 4
    if end - at < length:
        return 0
    if first == 0xE0:
        low = 0xA0
    elif first == 0xED:
        high = 0x9F
    elif first == 0xF0:
        low = 0x90
    elif first == 0xF4:
        high = 0x8F
    if at[1] < low or at[1] > high:
        return 0
    for i in range(2, length):
        if at[i] & 0xC0 != 0x80:
            return 0
    return length


cdef inline Bytes closing(Bytes at, Bytes end) noexcept nogil:
    """The quote that closes a text of valid UTF-8 without escapes and control characters; NULL where it is no such."""
    cdef u64 word, mask
    cdef int length
    while True:
        while end - at >= 8:
            word = read64(at)
            # The highest bit of a byte: a quote, a backslash, below a space, or no ASCII. A borrow reaches only bytes
            # behind the first that is found.
            mask = (
                ((word ^ 0x2222222222222222ULL) - 0x0101010101010101ULL)
                | ((word ^ 0x5C5C5C5C5C5C5C5CULL) - 0x0101010101010101ULL)
                | (word - 0x2020202020202020ULL)
                | word
            ) & 0x8080808080808080ULL
            if mask:
                at += first_byte(mask)
                break
            at += 8
        if at >= end:
            return NULL
        if at[0] == c'"':
            return at
        if at[0] < 0x20 or at[0] == c"\\":
            return NULL
        if at[0] < 0x80:
            at += 1
            continue
        length = sequence(at, end)
        if not length:
            return NULL
        at += length


cdef inline Bytes number(Bytes at, Bytes end, Number* found) noexcept nogil:
    """Behind a JSON number of few digits and without exponent; NULL where it is no such, or minus zero."""
    cdef bint negative = False
    cdef unsigned long long digits = 0
    cdef Bytes start
    cdef int before, behind = 0
    if at < end and at[0] == c"-":
        negative = True
        at += 1
    start = at
    while at < end and c"0" <= at[0] <= c"9" and at - start <= DIGITS:
        digits = digits * 10 + (at[0] - c"0")
        at += 1
    before = at - start
    if before == 0 or (before > 1 and start[0] == c"0"):
        return NULL
    found.whole = True
    if at < end and at[0] == c".":
        found.whole = False
        at += 1
        while at < end and c"0" <= at[0] <= c"9" and behind <= DIGITS:
            digits = digits * 10 + (at[0] - c"0")
            at += 1
            behind += 1
        if not behind:
            return NULL
    if before + behind > DIGITS or (at < end and (at[0] == c"e" or at[0] == c"E")) or (negative and not digits):
        return NULL
    found.integer = -<long long>digits if negative else <long long>digits
    found.value = <double>found.integer / POWERS[behind]
    return at


cdef inline int pair(Bytes at) noexcept nogil:
    """Two digits; -1 where they are none."""
    if not (c"0" <= at[0] <= c"9" and c"0" <= at[1] <= c"9"):
        return -1
    return (at[0] - c"0") * 10 + (at[1] - c"0")


cdef inline bint instant(Bytes at, Py_ssize_t length, long long* time) noexcept nogil:
    """A time in words (RFC 3339 with an offset) in milliseconds since the epoch; False where it is none."""
    cdef int century, year, month, day, hour, minute, second, fraction = 0, digits = 0, east_hour, east_minute, days
    cdef long long minutes
    cdef Bytes end = at + length
    if length < 20:
        return False
    century, year, month, day = pair(at), pair(at + 2), pair(at + 5), pair(at + 8)
    hour, minute, second = pair(at + 11), pair(at + 14), pair(at + 17)
    if century < 0 or year < 0 or month < 1 or day < 1 or hour < 0 or minute < 0 or second < 0:
        return False
    if at[4] != c"-" or at[7] != c"-" or at[13] != c":" or at[16] != c":":
        return False
    if at[10] != c"T" and at[10] != c"t" and at[10] != c" ":
        return False
    year += century * 100
    if month > 12 or hour > 23 or minute > 59 or second > 59:
        return False
    days = 30 if month == 4 or month == 6 or month == 9 or month == 11 else 31
    if month == 2:
        days = 29 if year % 4 == 0 and (year % 100 != 0 or year % 400 == 0) else 28
    if day > days:
        return False
    at += 19
    if at[0] == c".":
        at += 1
        while at < end and c"0" <= at[0] <= c"9":
            if digits < 3:
                fraction = fraction * 10 + (at[0] - c"0")
            digits += 1
            at += 1
        if digits < 1 or digits > 9:
            return False
        if digits < 3:
            fraction *= 10 if digits == 2 else 100
    if month <= 2:
        year -= 1
    # Days by eras of 400 years from March (H. Hinnant, "chrono-Compatible Low-Level Date Algorithms").
    minutes = (year if year >= 0 else year - 399) // 400
    days = year - <int>minutes * 400
    minutes = minutes * 146_097 + days * 365 + days // 4 - days // 100 - 719_468
    minutes = ((minutes + (153 * ((month + 9) % 12) + 2) // 5 + day - 1) * 24 + hour) * 60 + minute
    if end - at == 1 and (at[0] == c"Z" or at[0] == c"z"):
        pass
    elif end - at == 6 and (at[0] == c"+" or at[0] == c"-") and at[3] == c":":
        east_hour, east_minute = pair(at + 1), pair(at + 4)
        if east_hour < 0 or east_hour > 23 or east_minute < 0 or east_minute > 59:
            return False
        minutes += (1 if at[0] == c"-" else -1) * (east_hour * 60 + east_minute)
    else:
        return False
    time[0] = minutes * 60_000 + second * 1000 + fraction
    return True
