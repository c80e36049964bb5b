"""Every kind of broken record that a pipeline meets, each made from a valid event, with the reasons that fit it.

`KINDS` is ordered and only ever grows at its end. A fault takes a valid event as a dict and gives key and value of a
record that the decoder must refuse.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import orjson

from schemas.dead_letter import Reason
from schemas.events import MAX_QUANTITY

Event = dict[str, Any]
Wreck = tuple[bytes | None, bytes | None]

NESTING: Final = 5_000
YEAR_2099_MS: Final = 4_070_908_800_000


@dataclass(frozen=True, slots=True)
class Fault:
    """One way to be broken. `reasons` are those under which a decoder may file it."""

    name: str
    wreck: Callable[[Event, int], Wreck]
    reasons: frozenset[Reason]


def broken_record(kind: int, value: bytes, huge: int) -> Wreck:
    """Key and value of a broken record of the kind with this number, made from a valid event's JSON."""
    return KINDS[kind].wreck(orjson.loads(value), huge)


def _with(event: Event, **fields: Any) -> Wreck:
    return event["user_id"].encode(), orjson.dumps({**event, **fields})


def _without(event: Event, *names: str) -> Wreck:
    return event["user_id"].encode(), orjson.dumps({k: v for k, v in event.items() if k not in names})


def _raw(event: Event, name: str, literal: bytes) -> Wreck:
    """With a number that JSON does not have, or that no float can hold."""
    mark = b'"@"'
    return event["user_id"].encode(), orjson.dumps({**event, name: "@"}).replace(mark, literal)


def _purchase(event: Event, **fields: Any) -> Event:
    kept = {k: v for k, v in event.items() if k in ("event_id", "user_id", "occurred_at", "item_id")}
    return {**kept, "type": "purchase", "amount": 12.5, "currency": "EUR", "quantity": 1, **fields}


def _cut(event: Event, _: int) -> Wreck:
    value = orjson.dumps(event)
    return event["user_id"].encode(), value[: len(value) * 2 // 3]


def _not_utf8(event: Event, _: int) -> Wreck:
    value = orjson.dumps({**event, "channel": "@"})
    return event["user_id"].encode(), value.replace(b'"@"', b'"caf\xe9"')


def _nested(event: Event, _: int) -> Wreck:
    value = orjson.dumps({**event, "extra": "@"})
    return event["user_id"].encode(), value.replace(b'"@"', b"[" * NESTING + b"]" * NESTING)


KINDS: Final = (
    Fault("broken_json", _cut, frozenset({"not_json"})),
    Fault("not_utf8", _not_utf8, frozenset({"not_utf8", "not_json"})),
    Fault("not_an_object", lambda e, _: (e["user_id"].encode(), orjson.dumps([e])), frozenset({"not_an_object"})),
    Fault("empty_value", lambda e, _: (e["user_id"].encode(), b""), frozenset({"empty"})),
    Fault("null_value", lambda e, _: (e["user_id"].encode(), None), frozenset({"empty"})),
    Fault("empty_key_and_no_value", lambda _e, _: (b"", None), frozenset({"empty"})),
    Fault("no_user", lambda e, _: (None, _without(e, "user_id")[1]), frozenset({"missing_field", "no_user"})),
    Fault("empty_user", lambda e, _: (b"", _with(e, user_id="")[1]), frozenset({"invalid_field", "no_user"})),
    Fault("user_too_long", lambda e, _: _with(e, user_id="u" * 129), frozenset({"invalid_field"})),
    Fault("user_a_number", lambda e, _: _with(e, user_id=17), frozenset({"invalid_field"})),
    Fault("no_event_id", lambda e, _: _without(e, "event_id"), frozenset({"missing_field"})),
    Fault("no_time", lambda e, _: _without(e, "occurred_at"), frozenset({"missing_field"})),
    Fault("time_in_words", lambda e, _: _with(e, occurred_at="yesterday"), frozenset({"invalid_field"})),
    Fault("time_1970", lambda e, _: _with(e, occurred_at=1_000), frozenset({"too_old", "too_late"})),
    Fault("time_2099", lambda e, _: _with(e, occurred_at=YEAR_2099_MS), frozenset({"too_far_in_future"})),
    Fault("no_type", lambda e, _: _without(e, "type"), frozenset({"missing_field", "unknown_type"})),
    Fault("unknown_type", lambda e, _: _with(e, type="teleport"), frozenset({"unknown_type"})),
    Fault("no_amount", lambda e, _: _without(_purchase(e), "amount"), frozenset({"missing_field"})),
    Fault("amount_in_words", lambda e, _: _with(_purchase(e, amount="twelve")), frozenset({"invalid_field"})),
    Fault("amount_nan", lambda e, _: _raw(_purchase(e), "amount", b"NaN"), frozenset({"not_finite", "not_json"})),
    Fault(
        "amount_infinite", lambda e, _: _raw(_purchase(e), "amount", b"Infinity"), frozenset({"not_finite", "not_json"})
    ),
    Fault(
        "amount_overflow",
        lambda e, _: _raw(_purchase(e), "amount", b"1e999"),
        frozenset({"not_finite", "invalid_field", "not_json"}),
    ),
    Fault("quantity_negative", lambda e, _: _with(_purchase(e, quantity=-2)), frozenset({"invalid_field"})),
    Fault(
        "quantity_absurd", lambda e, _: _with(_purchase(e, quantity=10 * MAX_QUANTITY)), frozenset({"invalid_field"})
    ),
    Fault("dwell_negative", lambda e, _: _with(e, type="browse", dwell_ms=-1.0), frozenset({"invalid_field"})),
    Fault("rating_of_seven", lambda e, _: _with(e, type="review", rating=7), frozenset({"invalid_field"})),
    Fault(
        "currency_unreal",
        lambda e, _: _with(_purchase(e, currency="euros")),
        frozenset({"invalid_field", "unknown_currency"}),
    ),
    Fault(
        "huge_string",
        lambda e, huge: _with(e, type="search", query="x" * huge),
        frozenset({"invalid_field", "too_large"}),
    ),
    Fault("nested_bomb", _nested, frozenset({"not_json", "invalid_field"})),
    # These two are whole events: they are broken where the key must be the user, as it must by default.
    Fault("empty_key", lambda e, _: (b"", orjson.dumps(e)), frozenset({"no_key"})),
    Fault("key_of_another", lambda e, _: (b"somebody-else", orjson.dumps(e)), frozenset({"key_mismatch"})),
)
