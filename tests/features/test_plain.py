"""The short way of reading events against the long one: what it takes, the other takes, with the same values."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from producers.shop import Shop, ShopSettings
from schemas.events import EVENT_TYPES, EVENTS
from stream.features.batch import KIND_CODES
from stream.features.plain import codes_of, made, read

COMMON: dict[str, Any] = {"event_id": "e1", "user_id": "u1", "occurred_at": 1_700_000_000_000}
FULL: dict[str, dict[str, Any]] = {
    "browse": {"dwell_ms": 12.5},
    "purchase": {"amount": -9.5, "currency": "EUR", "quantity": 2, "order_id": "o", "discount": 0},
    "search": {"query": 'größe "42" \\ \n'},
    "review": {"rating": 4, "text": "fine"},
}
LABELS: dict[str, Any] = {"session_id": "s", "channel": None, "item_id": "i", "category": "shoes"}
TIMES = [0, 253_402_300_799_999, "2023-11-14T22:13:20Z", "2023-11-14t22:13:20.123456789+01:00"]


def long_way(value: bytes) -> dict[str, Any] | None:
    """What orjson and pydantic make of it."""
    try:
        (event,) = EVENTS.validate_python([orjson.loads(value)])
    except (orjson.JSONDecodeError, ValidationError):
        return None
    return {name: field for name, field in event.items() if field is not None}


def fields(event: Any) -> dict[str, Any]:
    """The same of what msgspec made of it."""
    named = {"type": event.__struct_config__.tag, **msgspec.structs.asdict(event)}
    return {name: field for name, field in named.items() if field is not None}


EVENTS_OF_ALL_TYPES = [
    orjson.dumps({**COMMON, "occurred_at": time, "type": kind, **more, **FULL.get(kind, {})})
    for kind in EVENT_TYPES
    for time in TIMES
    for more in ({}, LABELS)
]


def test_every_type_with_all_its_fields_is_plain() -> None:
    events = read(EVENTS_OF_ALL_TYPES)
    assert [fields(event) for event in events] == [long_way(value) for value in EVENTS_OF_ALL_TYPES]
    kinds = [orjson.loads(value)["type"] for value in EVENTS_OF_ALL_TYPES]
    assert list(codes_of(events)) == [KIND_CODES[kind] for kind in kinds]


def test_what_our_own_shop_sends_is_plain() -> None:
    values = [row.value for row in Shop(ShopSettings(users=50, days=3, broken=0)).rows() if row.value is not None]
    assert len(values) > 100
    assert None not in read(values)


PIECES = [
    *(
        b'"',
        b"\\",
        b"\\u",
        b"\\ud800",
        b"\\udc00",
        b"{",
        b"}",
        b"[",
        b"]",
        b",",
        b":",
        b" ",
        b"\n",
        b"\r",
        b"\x0b",
        b"/",
    ),
    *(b"-", b"+", b".", b"e", b"0", b"01", b"1.0", b"-0", b"-0.0", b"1e5", b"1E+5", b"1e400", b"1.", b".5", b"0.1"),
    *(b"99999999999999999999", b"1700000000000.0", b"18446744073709551616", b"9223372036854775808", b"1000000000"),
    *(b"1000000000.0000001", b"86400000.0000001", b"253402300800000", b"-1", b'"2023-11-14T22:13:20Z\\n"'),
    *(b"null", b"true", b"NaN", b"Infinity", b'""', b'"\\u0000"', b'"EUR\\n"', b'"type"', b'"user_id"', b'"browse"'),
    *(
        b"\x00",
        b"\x1f",
        b"\x7f",
        b"\xff",
        b"\xc3",
        b"\xed\xa0\x80",
        b"\xf0\x9f\x98\x80",
        b"\xe2\x80\xa8",
        b"\xef\xbb\xbf",
    ),
]


def mutated(value: bytes, rng: random.Random) -> bytes:
    """A few bytes put in, taken out, or replaced."""
    changed = bytearray(value)
    for _ in range(rng.choice((1, 1, 2, 3))):
        at = rng.randrange(len(changed) + 1)
        piece = rng.choice(PIECES)
        match rng.randrange(4):
            case 0:
                changed[at : at + 1] = bytes([rng.randrange(256)])
            case 1:
                changed[at:at] = piece
            case 2:
                del changed[at : at + rng.choice((1, 2, 5))]
            case _:
                changed[at : at + rng.choice((1, 2, 4, 8))] = piece
    return bytes(changed)


@settings(max_examples=200)
@given(st.integers(0, 2**32))
def test_whatever_the_bytes_the_short_way_takes_nothing_that_the_long_way_does_not(seed: int) -> None:
    rng = random.Random(seed)
    values = [mutated(rng.choice(EVENTS_OF_ALL_TYPES), rng) for _ in range(30)]
    for value, event in zip(values, read(values), strict=True):
        if event is not None:
            assert fields(event) == long_way(value), value


@pytest.mark.parametrize(
    "odd",
    [
        b'{"event_id":"e","user_id":"u","occurred_at":1,"type":"click","unread":"\\ud800"}',
        b'{"event_id":"e","user_id":"u","occurred_at":1,"type":"click","amount":1}',
        b'{"event_id":"e","user_id":"u","occurred_at":1.0,"type":"click"}',
        b'{"event_id":"e","user_id":"u","occurred_at":true,"type":"click"}',
        b'{"event_id":"e","user_id":"u","occurred_at":"2023-11-14T22:13:20Z\\n","type":"click"}',
        b'{"event_id":"e","user_id":"u","occurred_at":"2023-11-14T22:13:20Z\\n2023-11-14T22:13:20Z","type":"click"}',
        b'{"event_id":"e","user_id":"u","occurred_at":1,"type":"purchase","amount":1,"currency":"EUR\\n"}',
        b"[" * 100_000,
        b"",
    ],
)
@pytest.mark.parametrize("time", TIMES)
def test_an_odd_one_among_plain_ones_costs_them_nothing(odd: bytes, time: int | str) -> None:
    plain = orjson.dumps({**COMMON, "occurred_at": time, "type": "click"})
    events = read([plain, odd, plain, odd, odd, plain])
    assert [event is None for event in events] == [False, True, False, True, True, False]


def test_where_all_are_odd_it_soon_gives_up() -> None:
    assert read([b"{}"] * 1_000) == [None] * 1_000


def test_an_event_that_went_the_long_way_is_the_same_thing() -> None:
    for value, event in zip(EVENTS_OF_ALL_TYPES, read(EVENTS_OF_ALL_TYPES), strict=True):
        (validated,) = EVENTS.validate_python([orjson.loads(value)])
        assert made(validated) == event
