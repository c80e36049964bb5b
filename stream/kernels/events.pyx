# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
"""JSON of plain events to columns, in one pass over the bytes: no object is made for any of them.

It knows the fields that it is told (`Reader`), and takes an event only where nothing about it is odd: no unknown or
repeated field, no escape in a text, no exponent in a number, ids of printable ASCII. What it does not take is left to
those who can say what is wrong with it. Every read is behind a comparison with the end of the bytes.
"""

from libc.string cimport memcmp, memcpy, memset

from stream.kernels.words cimport Bytes, Number, closing, instant, number, space
from stream.kernels.xxh3 cimport LONGEST, read64, u64, xxh3_64

cdef enum:
    MOST_FIELDS = 32
    MOST_TYPES = 32
    NAME_BYTES = 32
    NAME_WORDS = 4

cdef enum Kind:
    TAG, USER, EVENT_ID, TIME, LABEL, HASHED, CURRENCY, NUMBER

KINDS = {
    "tag": TAG, "user": USER, "event_id": EVENT_ID, "time": TIME, "label": LABEL, "hashed": HASHED,
    "currency": CURRENCY, "number": NUMBER,
}
"""What a field may be. Texts are all but times and numbers; of a hashed one its xxh3 is kept."""

cdef struct Field:
    unsigned char name[NAME_BYTES]
    int name_length
    # The name and the quote behind it as words, and which of their bits count.
    u64 words[NAME_WORDS]
    u64 masks[NAME_WORDS]
    int word_count
    int kind
    bint nullable
    bint above
    int slot
    unsigned int types
    long long least
    long long most
    double low
    double high

cdef struct Event:
    int tag
    long long time
    Bytes user
    Py_ssize_t user_length
    Bytes id
    Py_ssize_t id_length
    u64 hashed
    int currency


cdef class Reader:
    """Reads events of types that are told apart by one field.

    Parameters: `tags` (the types), `fields`: for each a tuple (name, kind of KINDS, the tags that have it, the tags that
    must have it, whether null stands for absent, least, most, whether least is excluded, slot). Least and most are bytes
    of a text, or the range of a number; a number goes to the row `slot` of the numbers, all others have slot 0.
    """

    cdef Field fields[MOST_FIELDS]
    cdef int field_count
    cdef unsigned char tags[MOST_TYPES][NAME_BYTES]
    cdef int tag_lengths[MOST_TYPES]
    cdef int tag_count
    cdef unsigned int required[MOST_TYPES]
    cdef int slots

    def __init__(self, tags, fields):
        if len(fields) > MOST_FIELDS or len(tags) > MOST_TYPES:
            raise ValueError(f"{len(fields)} fields of {len(tags)} types are too many")
        memset(self.required, 0, sizeof(self.required))
        self.tag_count = len(tags)
        for i, tag in enumerate(tags):
            self._name(tag, self.tags[i], &self.tag_lengths[i])
        self.field_count = len(fields)
        self.slots = 0
        for i, (name, kind, having, needing, nullable, least, most, above, slot) in enumerate(fields):
            self._name(name, self.fields[i].name, &self.fields[i].name_length)
            self._words(name, &self.fields[i])
            self.fields[i].kind = KINDS[kind]
            self.fields[i].nullable = nullable
            self.fields[i].above = above
            self.fields[i].slot = slot
            self.fields[i].types = 0
            self.fields[i].least = self.fields[i].most = 0
            self.fields[i].low, self.fields[i].high = least, most
            if kind != "number":
                self.fields[i].least, self.fields[i].most = least, most
            else:
                self.slots = max(self.slots, slot + 1)
            for tag in having:
                self.fields[i].types |= 1u << <int>tags.index(tag)
            for tag in needing:
                self.required[<int>tags.index(tag)] |= 1u << <int>i

    cdef _name(self, str name, unsigned char* out, int* length):
        encoded = name.encode()
        if not 0 < len(encoded) <= NAME_BYTES:
            raise ValueError(f"{name!r} is too long")
        memcpy(out, <Bytes>encoded, len(encoded))
        length[0] = len(encoded)

    cdef _words(self, str name, Field* field):
        """What `_is` compares; no words for a name that is too long for it, or could stand in JSON in another way."""
        quoted = name.encode() + b'"'
        field.word_count = 0
        if len(quoted) > NAME_BYTES or not (name.isascii() and name.isidentifier()):
            return
        field.word_count = (len(quoted) + 7) // 8
        for i in range(field.word_count):
            part = quoted[8 * i : 8 * i + 8]
            field.words[i] = int.from_bytes(part, "little")
            field.masks[i] = int.from_bytes(b"\xff" * len(part), "little")

    def read(
        self,
        const unsigned char[::1] data,
        const long long[:] starts,
        const long long[:] lengths,
        key_data,
        const long long[:] key_starts,
        const long long[:] key_lengths,
        long long limit,
        int[::1] positions,
        signed char[::1] tags,
        long long[::1] times,
        double[:, ::1] numbers,
        u64[:, ::1] hashes,
        long long[:, ::1] spans,
        int[::1] currencies,
    ):
        """Read the values at `starts`, of `lengths`, in `data`; returns how many of them were taken, t.

        The first t columns are filled: where each is among the values, the index of its tag, its time (epoch
        milliseconds), its numbers (slots, n) and NaN where it has none, the xxh3 of its id and of the hashed text (2, n;
        0 where there is none), user start and length, id start and length (4, n; positions in `data`), its currency
        (three letters as a number, 0 for none). With `key_data` (bytes, or None) an event is taken only where its key
        is its user. Values longer than `limit` are not taken.
        """
        cdef Py_ssize_t n = starts.shape[0], i, j = 0, k
        cdef long long size = data.shape[0], key_size = 0
        cdef const unsigned char[::1] keys
        cdef Bytes base = NULL, key_base = NULL
        cdef Event event
        cdef bint keyed = key_data is not None
        cdef double nan = float("nan")
        cdef int guess[MOST_FIELDS]
        for i in range(MOST_FIELDS):
            guess[i] = i if i < self.field_count else 0
        if lengths.shape[0] != n or (keyed and (key_starts.shape[0] != n or key_lengths.shape[0] != n)):
            raise ValueError("the columns are not of one length")
        room = min(positions.shape[0], tags.shape[0], times.shape[0], currencies.shape[0], numbers.shape[1],
                   hashes.shape[1], spans.shape[1])
        if room < n or numbers.shape[0] < self.slots or hashes.shape[0] != 2 or spans.shape[0] != 4:
            raise ValueError(f"there is room for {room} events of {n}")
        if not size or not n:
            return 0
        base = &data[0]
        if keyed:
            keys = key_data
            key_size = keys.shape[0]
            key_base = &keys[0] if key_size else NULL
        with nogil:
            for i in range(n):
                if lengths[i] <= 0 or lengths[i] > limit or starts[i] < 0 or starts[i] > size - lengths[i]:
                    continue
                for k in range(self.slots):
                    numbers[k, j] = nan
                if not self._event(
                    base + starts[i], base + starts[i] + lengths[i], &event, &numbers[0, j], numbers.shape[1], guess
                ):
                    continue
                if keyed and (
                    key_lengths[i] != event.user_length
                    or key_starts[i] < 0
                    or key_starts[i] > key_size - key_lengths[i]
                    or memcmp(key_base + key_starts[i], event.user, event.user_length) != 0
                ):
                    continue
                positions[j] = <int>i
                tags[j] = <signed char>event.tag
                times[j] = event.time
                hashes[0, j] = xxh3_64(event.id, event.id_length)
                hashes[1, j] = event.hashed
                spans[0, j], spans[1, j] = event.user - base, event.user_length
                spans[2, j], spans[3, j] = event.id - base, event.id_length
                currencies[j] = event.currency
                j += 1
        return j

    cdef inline int _field(self, Bytes name, Py_ssize_t length) noexcept nogil:
        """The number of the field of that name; -1 where there is none."""
        cdef int i
        for i in range(self.field_count):
            if self.fields[i].name_length == length and memcmp(self.fields[i].name, name, length) == 0:
                return i
        return -1

    cdef inline bint _is(self, int which, Bytes name) noexcept nogil:
        """Whether the field of that number is named here; NAME_BYTES can be read."""
        cdef Field* field = &self.fields[which]
        cdef u64 odd = 0
        cdef int i
        for i in range(field.word_count):
            odd |= (read64(name + 8 * i) ^ field.words[i]) & field.masks[i]
        return field.word_count and not odd

    cdef inline int _tag(self, Bytes name, Py_ssize_t length) noexcept nogil:
        cdef int i
        for i in range(self.tag_count):
            if self.tag_lengths[i] == length and memcmp(self.tags[i], name, length) == 0:
                return i
        return -1

    cdef bint _event(
        self, Bytes at, Bytes end, Event* event, double* numbers, Py_ssize_t stride, int* guess
    ) noexcept nogil:
        """One event; False where it is not plain. `guess` holds which field came at each place the last time."""
        cdef unsigned int seen = 0, allowed = 0xFFFFFFFFu, bit
        cdef int place = 0, which
        cdef Field* field
        cdef Bytes start
        event.tag = -1
        event.time = 0
        event.user = event.id = at
        event.user_length = event.id_length = 0
        event.hashed = 0
        event.currency = 0
        at = space(at, end)
        if at >= end or at[0] != c"{":
            return False
        at = space(at + 1, end)
        while True:
            if at >= end or at[0] != c'"' or place >= MOST_FIELDS:
                return False
            start = at + 1
            which = guess[place]
            if end - start >= NAME_BYTES and self._is(which, start):
                at = start + self.fields[which].name_length
            else:
                at = closing(start, end)
                if at == NULL:
                    return False
                which = self._field(start, at - start)
                if which < 0:
                    return False
                guess[place] = which
            place += 1
            bit = 1u << which
            if seen & bit:
                return False
            seen |= bit
            field = &self.fields[which]
            allowed &= field.types
            at = space(at + 1, end)
            if at >= end or at[0] != c":":
                return False
            at = space(at + 1, end)
            if field.nullable and end - at >= 4 and memcmp(at, "null", 4) == 0:
                at += 4
            else:
                at = self._value(field, at, end, event, numbers, stride)
                if at == NULL:
                    return False
            at = space(at, end)
            if at >= end:
                return False
            if at[0] == c"}":
                break
            if at[0] != c",":
                return False
            at = space(at + 1, end)
        if space(at + 1, end) != end or event.tag < 0 or not (allowed >> event.tag) & 1:
            return False
        return seen & self.required[event.tag] == self.required[event.tag]

    cdef inline Bytes _value(
        self, Field* field, Bytes at, Bytes end, Event* event, double* numbers, Py_ssize_t stride
    ) noexcept nogil:
        """Behind the value of a field; NULL where it is not plain."""
        cdef Number found
        cdef Bytes start, stop
        cdef Py_ssize_t length, i
        if field.kind == NUMBER or (field.kind == TIME and at < end and at[0] != c'"'):
            at = number(at, end, &found)
            if at == NULL:
                return NULL
            if field.kind == TIME:
                if not found.whole or found.integer < field.least or found.integer > field.most:
                    return NULL
                event.time = found.integer
                return at
            if found.value < field.low or found.value > field.high or (field.above and found.value == field.low):
                return NULL
            numbers[field.slot * stride] = found.value
            return at
        if at >= end or at[0] != c'"':
            return NULL
        start = at + 1
        stop = closing(start, end)
        if stop == NULL:
            return NULL
        length = stop - start
        if field.kind == TIME:
            return stop + 1 if instant(start, length, &event.time) else NULL
        # In bytes: no text has more characters than bytes, and one of as many bytes has at least one.
        if length < field.least or length > field.most:
            return NULL
        if field.kind == TAG:
            event.tag = self._tag(start, length)
        elif field.kind == USER:
            for i in range(length):
                if start[i] <= 0x20 or start[i] >= 0x7F:
                    return NULL
            event.user, event.user_length = start, length
        elif field.kind == EVENT_ID:
            if length > LONGEST:
                return NULL
            event.id, event.id_length = start, length
        elif field.kind == HASHED:
            if length > LONGEST:
                return NULL
            event.hashed = xxh3_64(start, length)
        elif field.kind == CURRENCY:
            for i in range(3):
                if start[i] < c"A" or start[i] > c"Z":
                    return NULL
            event.currency = start[0] << 16 | start[1] << 8 | start[2]
        return stop + 1


def xxh3(bytes data):
    """XXH3 of up to 128 bytes, as a number."""
    if len(data) > LONGEST:
        raise ValueError(f"{len(data)} bytes are too many")
    return xxh3_64(<Bytes>data, len(data))
