# cython: language_level=3, boundscheck=False, wraparound=False
"""XXH3 with 64 bits, no seed, for up to 128 bytes (https://github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md)."""

from libc.string cimport memcpy

cdef extern from *:
    """
    typedef unsigned __int128 resegment_u128;
    static const unsigned char resegment_secret[128] = {
        0xb8, 0xfe, 0x6c, 0x39, 0x23, 0xa4, 0x4b, 0xbe, 0x7c, 0x01, 0x81, 0x2c, 0xf7, 0x21, 0xad, 0x1c,
        0xde, 0xd4, 0x6d, 0xe9, 0x83, 0x90, 0x97, 0xdb, 0x72, 0x40, 0xa4, 0xa4, 0xb7, 0xb3, 0x67, 0x1f,
        0xcb, 0x79, 0xe6, 0x4e, 0xcc, 0xc0, 0xe5, 0x78, 0x82, 0x5a, 0xd0, 0x7d, 0xcc, 0xff, 0x72, 0x21,
        0xb8, 0x08, 0x46, 0x74, 0xf7, 0x43, 0x24, 0x8e, 0xe0, 0x35, 0x90, 0xe6, 0x81, 0x3a, 0x26, 0x4c,
        0x3c, 0x28, 0x52, 0xbb, 0x91, 0xc3, 0x00, 0xcb, 0x88, 0xd0, 0x65, 0x8b, 0x1b, 0x53, 0x2e, 0xa3,
        0x71, 0x64, 0x48, 0x97, 0xa2, 0x0d, 0xf9, 0x4e, 0x38, 0x19, 0xef, 0x46, 0xa9, 0xde, 0xac, 0xd8,
        0xa8, 0xfa, 0x76, 0x3f, 0xe3, 0x9c, 0x34, 0x3f, 0xf9, 0xdc, 0xbb, 0xc7, 0xc7, 0x0b, 0x4f, 0x1d,
        0x8a, 0x51, 0xe0, 0x4b, 0xcd, 0xb4, 0x59, 0x31, 0xc8, 0x9f, 0x7e, 0xc9, 0xd9, 0x78, 0x73, 0x64,
    };
    """
    ctypedef unsigned long long u128 "resegment_u128"
    const unsigned char* SECRET "resegment_secret"

ctypedef unsigned long long u64
ctypedef unsigned int u32

cdef enum:
    LONGEST = 128
    SECRET_BYTES = 128


cdef inline u64 read64(const unsigned char* at) noexcept nogil:
    cdef u64 value
    memcpy(&value, at, 8)
    return value


cdef inline u32 read32(const unsigned char* at) noexcept nogil:
    cdef u32 value
    memcpy(&value, at, 4)
    return value


cdef inline u64 swap64(u64 x) noexcept nogil:
    x = ((x & 0x00FF00FF00FF00FFULL) << 8) | ((x >> 8) & 0x00FF00FF00FF00FFULL)
    x = ((x & 0x0000FFFF0000FFFFULL) << 16) | ((x >> 16) & 0x0000FFFF0000FFFFULL)
    return (x << 32) | (x >> 32)


cdef inline u64 fold(u64 a, u64 b) noexcept nogil:
    """The two halves of the product of 128 bits, one over the other."""
    cdef u128 product = <u128>a * b
    return <u64>product ^ <u64>(product >> 64)


cdef inline u64 avalanche(u64 x) noexcept nogil:
    x = (x ^ (x >> 37)) * 0x165667919E3779F9ULL
    return x ^ (x >> 32)


cdef inline u64 avalanche64(u64 x) noexcept nogil:
    """XXH64's own."""
    x = (x ^ (x >> 33)) * 0xC2B2AE3D27D4EB4FULL
    x = (x ^ (x >> 29)) * 0x165667B19E3779F9ULL
    return x ^ (x >> 32)


cdef inline u64 mix16(const unsigned char* data, const unsigned char* secret) noexcept nogil:
    return fold(read64(data) ^ read64(secret), read64(data + 8) ^ read64(secret + 8))


cdef inline u64 xxh3_64_with(const unsigned char* data, Py_ssize_t length, const unsigned char* secret) noexcept nogil:
    """With a secret of SECRET_BYTES; `length` is at most LONGEST."""
    cdef u64 a, b, key, total
    cdef Py_ssize_t i
    if length == 0:
        return avalanche64(read64(secret + 56) ^ read64(secret + 64))
    if length <= 3:
        key = <u64>(
            (<u32>data[0] << 16) | (<u32>data[length >> 1] << 24) | <u32>data[length - 1] | (<u32>length << 8)
        )
        return avalanche64(key ^ <u64>(read32(secret) ^ read32(secret + 4)))
    if length <= 8:
        key = read64(secret + 8) ^ read64(secret + 16)
        a = read32(data)
        b = read32(data + length - 4)
        key ^= b + (a << 32)
        key ^= ((key << 49) | (key >> 15)) ^ ((key << 24) | (key >> 40))
        key *= 0x9FB21C651E98DF25ULL
        key ^= (key >> 35) + <u64>length
        key *= 0x9FB21C651E98DF25ULL
        return key ^ (key >> 28)
    if length <= 16:
        a = read64(data) ^ (read64(secret + 24) ^ read64(secret + 32))
        b = read64(data + length - 8) ^ (read64(secret + 40) ^ read64(secret + 48))
        return avalanche(<u64>length + swap64(a) + b + fold(a, b))
    total = <u64>length * 0x9E3779B185EBCA87ULL
    # Pairs of 16 bytes from both ends towards the middle.
    i = (length - 1) // 32
    while i >= 0:
        total += mix16(data + 16 * i, secret + 32 * i)
        total += mix16(data + length - 16 * (i + 1), secret + 32 * i + 16)
        i -= 1
    return avalanche(total)


cdef inline u64 xxh3_64(const unsigned char* data, Py_ssize_t length) noexcept nogil:
    """`length` is at most LONGEST."""
    return xxh3_64_with(data, length, SECRET)
