"""Hostile events: valid ones, odd ones that are valid all the same, and broken ones, seeded and without end.

Structure-aware: most begin as an event of the synthetic shop's kind and are then changed in a field, in the text of
the JSON, in its bytes, or in the record around it, up to three times. What each becomes is the decoder's to say; the
generator promises only that the users are few, so that memory has no reason to grow, and that times are about `now`.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any, Final

import orjson

from producers.shop.faults import KINDS
from schemas.events import EVENT_TYPES
from schemas.topics import EVENTS
from stream.transport.base import OutRecord

Event = dict[str, Any]

USERS: Final = 3_000
HUGE: Final = 20_000
TOO_LARGE: Final = 70_000
DAY_MS: Final = 86_400_000

ODD_TEXTS: Final = (
    "", " ", "\t", "\n", "0", "null", "None", "NaN", "-1", "true", "\u0000", "\x1f", "a\u0000b", "\u202eabc", "\ufeff",
    "\U0001f600", "é", "e\u0301", "ß" * 64, "x" * 128, "x" * 129, "x" * 257, "x" * 10_001, "../../etc/passwd", "'; --",
    "<script>", "{}", "[]", "%s%n", "\u2028", "İ", "\ud7ff", "u0000001 ", " u0000001", "U0000001",
)  # fmt: skip
ODD_NUMBERS: Final = (
    0, -0.0, -1, 1, 0.1, 1e-320, 5e-324, 1e9, -1e9, 1.0000001e9, -1.0000001e9, 1e15, 1e308, -1e308, 1e6, 1.000001e6, 5,
    5.000001, 0.999999, 2**31, 2**53, 2**53 + 1, 2**63 - 1, -(2**63), 2**64 - 1, 86_400_000, 86_400_001,
    253_402_300_799_999, 253_402_300_800_000,
)  # fmt: skip
ODD_LITERALS: Final = (
    b"NaN", b"Infinity", b"-Infinity", b"1e999", b"-1e999", b"1e400", b"01", b"+1", b"1.", b".5", b"0x10", b"1_000",
    b"18446744073709551616", b"9" * 400, b"1" + b"0" * 5_000, b"nul", b"True", b"'a'", b"undefined", b'"\\ud800"',
    b'"\\udc00\\ud800"', b'"\\u0000"', b'"\\x41"', b'"unterminated', b"[[[[[]]]]]", b"[" * 3_000, b'{"a":' * 3_000, b"",
)  # fmt: skip
ODD_TIMES: Final = (
    "2026-02-30T00:00:00Z", "2026-13-01T00:00:00Z", "2026-01-01T24:00:00Z", "2026-12-31T23:59:60Z",
    "0000-00-00T00:00:00Z", "9999-12-31T23:59:59.999999999Z", "1969-12-31T23:59:59Z", "1995-01-01T00:00:00Z",
    "2026-01-01T00:00:00", "2026-01-01",
    "2026-01-01t00:00:00z", "2026-01-01T00:00:00+24:00", "2026-01-01T00:00:00-23:59", "２０２６-01-01T00:00:00Z", "now",
    "1767225600", "2026-01-01T00:00:00.Z", "2026-01-01T00:00:00.1234567890Z",
)  # fmt: skip
STRANGERS: Final = ("__proto__", "constructor", "type ", "Type", "user-id", "\u0000", "", "a" * 1_000)


class Hostile:
    """An endless stream of records. The same seed gives the same ones."""

    def __init__(self, seed: int, now_ms: int) -> None:
        self._rng = random.Random(seed)
        self._now = now_ms
        self._number = 0
        self._recent: list[OutRecord] = []
        self._fields: list[Callable[[Event], None]] = [
            self._odd_text,
            self._odd_number,
            self._odd_time,
            self._odd_type,
            self._missing,
            self._null,
            self._nested,
            self._stranger,
            self._wrong_type,
        ]
        self._bytes: list[Callable[[bytes], bytes]] = [
            self._flip,
            self._cut,
            self._insert,
            self._twice,
            self._literal,
            self._repeated_key,
            self._white_space,
            self._not_utf8,
            self._marked,
        ]

    def records(self, count: int) -> Iterator[OutRecord]:
        """The next ones."""
        for _ in range(count):
            yield self._record()

    def _record(self) -> OutRecord:
        rng = self._rng
        self._number += 1
        dice = rng.random()
        if dice < 0.02 and self._recent:
            return rng.choice(self._recent)  # a producer that sends again
        event = self._event()
        key: bytes | None = event["user_id"].encode()
        if dice < 0.35:
            record = self._made(key, orjson.dumps(event))
            if rng.random() < 0.1:
                self._recent = [*self._recent[-63:], record]
            return record
        if dice < 0.45:
            key, value = rng.choice(KINDS).wreck(event, HUGE)
            return self._made(key, value)
        if dice < 0.75:
            for _ in range(rng.randint(1, 3)):
                rng.choice(self._fields)(event)
            own = event.get("user_id")
            key = own.encode(errors="replace") if isinstance(own, str) and rng.random() < 0.9 else key
            return self._made(key, _dumps(event))
        value = orjson.dumps(event)
        if dice < 0.752:
            return self._made(key, value[:-1] + b',"note":"' + b"x" * TOO_LARGE + b'"}')
        for _ in range(rng.randint(1, 3)):
            value = rng.choice(self._bytes)(value)
        return self._made(self._odd_key(key), value)

    def _made(self, key: bytes | None, value: bytes | None) -> OutRecord:
        headers = (("k", self._rng.randbytes(8)),) if self._rng.random() < 0.02 else ()
        return OutRecord(EVENTS, key, value, headers=headers)

    def _event(self) -> Event:
        rng = self._rng
        kind = rng.choice(EVENT_TYPES)
        event: Event = {
            "event_id": f"e{self._number}",
            "type": kind,
            "user_id": f"u{rng.randrange(USERS):07d}",
            # Some come late, a few too late: the stream's time is about now.
            "occurred_at": self._now - int(rng.expovariate(1 / (DAY_MS / 8))),
        }
        if rng.random() < 0.5:
            event["category"] = rng.choice(("shoes", "books", "toys"))
        match kind:
            case "purchase":
                event |= {
                    "amount": round(rng.expovariate(0.02) - 2, 2),
                    "quantity": rng.randint(1, 4),
                    "currency": "EUR",
                }
            case "review":
                event["rating"] = rng.randint(1, 5)
            case "browse":
                event["dwell_ms"] = round(rng.expovariate(1e-4))
        return event

    # -- fields -----------------------------------------------------------------------------------------------

    def _any(self, event: Event) -> str:
        return self._rng.choice(list(event)) if event else "event_id"

    def _odd_text(self, event: Event) -> None:
        event[self._any(event)] = self._rng.choice(ODD_TEXTS)

    def _odd_number(self, event: Event) -> None:
        numbers = [name for name, value in event.items() if isinstance(value, int | float)]
        event[self._rng.choice(numbers or ["amount"])] = self._rng.choice(ODD_NUMBERS)

    def _odd_time(self, event: Event) -> None:
        event["occurred_at"] = self._rng.choice(ODD_TIMES)

    def _odd_type(self, event: Event) -> None:
        event["type"] = self._rng.choice(("teleport", "PURCHASE", "", 7, None, [], {"a": 1}, *EVENT_TYPES))

    def _missing(self, event: Event) -> None:
        event.pop(self._any(event), None)

    def _null(self, event: Event) -> None:
        event[self._any(event)] = None

    def _nested(self, event: Event) -> None:
        deep: Any = self._rng.choice(ODD_NUMBERS)
        for _ in range(self._rng.randrange(40)):
            deep = [deep] if self._rng.random() < 0.5 else {"a": deep}
        event[self._any(event)] = deep

    def _stranger(self, event: Event) -> None:
        event[self._rng.choice(STRANGERS)] = self._rng.choice((*ODD_TEXTS, *ODD_NUMBERS))

    def _wrong_type(self, event: Event) -> None:
        name = self._any(event)
        event[name] = self._rng.choice((str(event.get(name)), [event.get(name)], True, False, {}, 1.5))

    # -- text and bytes ---------------------------------------------------------------------------------------

    def _at(self, value: bytes) -> int:
        return self._rng.randrange(len(value) + 1)

    def _flip(self, value: bytes) -> bytes:
        changed = bytearray(value)
        for _ in range(self._rng.randint(1, 4) if changed else 0):
            changed[self._rng.randrange(len(changed))] = self._rng.randrange(256)
        return bytes(changed)

    def _cut(self, value: bytes) -> bytes:
        return value[: self._at(value)]

    def _insert(self, value: bytes) -> bytes:
        at = self._at(value)
        return value[:at] + self._rng.randbytes(self._rng.randint(1, 9)) + value[at:]

    def _twice(self, value: bytes) -> bytes:
        return value + self._rng.choice((b"", b",", b"\n", b" ")) + value

    def _literal(self, value: bytes) -> bytes:
        """A value of the JSON replaced by something that JSON may not have."""
        start = value.find(b":", self._at(value)) + 1
        end = min((at for at in (value.find(b",", start), value.find(b"}", start)) if at > 0), default=len(value))
        return value[:start] + self._rng.choice(ODD_LITERALS) + value[end:]

    def _repeated_key(self, value: bytes) -> bytes:
        return value[:-1] + b',"amount":1e9,"occurred_at":1,"user_id":"u0000001"}'

    def _white_space(self, value: bytes) -> bytes:
        return b" \n\t\r" * self._rng.randrange(200) + value + b"\n" * self._rng.randrange(100)

    def _not_utf8(self, value: bytes) -> bytes:
        return value.replace(b"e", self._rng.choice((b"\xff", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80")), 1)

    def _marked(self, value: bytes) -> bytes:
        return self._rng.choice((b"\xef\xbb\xbf" + value, value.decode(errors="replace").encode("utf-16")))

    def _odd_key(self, key: bytes | None) -> bytes | None:
        dice = self._rng.random()
        if dice < 0.9:
            return key
        return self._rng.choice((None, b"", b"\x00", b"\xff\xfe", b"u0000002", b"k" * 5_000))


def _dumps(event: Event) -> bytes:
    try:
        return orjson.dumps(event)
    except (TypeError, orjson.JSONEncodeError):
        return orjson.dumps({name: repr(value)[:100] for name, value in event.items()})
