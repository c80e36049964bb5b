"""Decoding: every record is an event or a reason, once, and no record costs its neighbours anything."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np
import orjson
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from schemas.dead_letter import Reason
from schemas.events import EVENT_TYPES, EVENTS
from stream.features import events as events_module
from stream.features.batch import KINDS, EventBatch
from stream.features.events import CurrencySettings, IngestSettings, Rejected, decode
from stream.transport.base import Headers

pytestmark = pytest.mark.usefixtures("either_kernels")

NOW = 1_700_000_000_000
DAY = 86_400_000
DEFAULTS = IngestSettings(key="any")


@dataclass(frozen=True)
class ARecord:
    value: bytes | None
    timestamp: int = NOW
    topic: str = "events"
    partition: int = 0
    offset: int = 0
    key: bytes | None = None
    headers: Headers = ()


def event(**changes: Any) -> dict[str, Any]:
    whole = {"event_id": "e1", "user_id": "u1", "occurred_at": NOW, "type": "browse", **changes}
    return {name: value for name, value in whole.items() if value is not ...}


def dump(**changes: Any) -> bytes:
    return orjson.dumps(event(**changes))


def decode_values(*values: bytes | None, **settings: Any) -> tuple[EventBatch, list[Rejected]]:
    return decode([ARecord(value) for value in values], NOW, IngestSettings(**{"key": "any", **settings}))


def rejection(value: bytes | None, **settings: Any) -> tuple[Reason, str | None]:
    batch, rejected = decode_values(dump(), value, dump(event_id="e2"), **settings)
    assert list(batch.event_ids) == ["e1", "e2"] and batch.position.tolist() == [0, 2]
    (one,) = rejected
    assert one.index == 1 and one.detail
    return one.reason, one.field


BOMB = b"[" * 1000 + b"]" * 1000


def with_raw(name: str, raw: bytes) -> bytes:
    return dump(**{name: ...})[:-1] + b',"' + name.encode() + b'":' + raw + b"}"


@pytest.mark.parametrize(
    ("value", "reason", "field"),
    [
        (None, "empty", None),
        (b"", "empty", None),
        (b" ", "not_json", None),
        (b"{", "not_json", None),
        (b"{'a': 1}", "not_json", None),
        (dump() + dump(), "not_json", None),
        (dump() + b"," + dump(), "not_json", None),
        (b"\xef\xbb\xbf" + dump(), "not_json", None),
        (b"[" * 60_000, "not_json", None),
        (b'{"a":' * 1_100 + b"1" + b"}" * 1_100, "not_json", None),
        (dump(user_id="u").replace(b'"u"', b'"\\ud800"'), "not_json", None),
        (dump(user_id="u").replace(b'"u"', b'"\xff"'), "not_utf8", None),
        (dump(user_id="u").replace(b'"u"', b'"\xed\xa0\x80"'), "not_utf8", None),
        (orjson.dumps(event()).decode().encode("utf-16"), "not_utf8", None),
        (dump(text="x" * 70_000), "too_large", None),
        (b" " * 1_000_000, "too_large", None),
        (b"null", "not_an_object", None),
        (b"[]", "not_an_object", None),
        (b'"event"', "not_an_object", None),
        (b"12", "not_an_object", None),
        (b"[" + dump() + b"]", "not_an_object", None),
        (b"{}", "missing_field", "type"),
        (dump(type=None), "missing_field", "type"),
        (dump(type="Browse"), "unknown_type", "type"),
        (dump(type="refund"), "unknown_type", "type"),
        (dump(type=1), "unknown_type", "type"),
        (dump(type=["browse"]), "unknown_type", "type"),
        (with_raw("type", BOMB), "unknown_type", "type"),
        (dump(user_id=...), "no_user", "user_id"),
        (dump(user_id=None), "no_user", "user_id"),
        (dump(user_id=""), "no_user", "user_id"),
        (dump(user_id=" \u00a0\t"), "no_user", "user_id"),
        (dump(user_id=5), "invalid_field", "user_id"),
        (dump(user_id="x" * 129), "invalid_field", "user_id"),
        (dump(user_id="a\x00b"), "invalid_field", "user_id"),
        (dump(user_id="a\nb"), "invalid_field", "user_id"),
        (dump(user_id="a\x85b"), "invalid_field", "user_id"),
        (with_raw("user_id", BOMB), "invalid_field", "user_id"),
        (dump(event_id=...), "missing_field", "event_id"),
        (dump(event_id=None), "missing_field", "event_id"),
        (dump(event_id=""), "invalid_field", "event_id"),
        (dump(event_id="x" * 60_000), "invalid_field", "event_id"),
        (dump(occurred_at=...), "missing_field", "occurred_at"),
        (dump(occurred_at="yesterday"), "invalid_field", "occurred_at"),
        (dump(occurred_at="2023-11-14T22:13:20"), "invalid_field", "occurred_at"),
        (dump(occurred_at="2023-02-30T00:00:00Z"), "invalid_field", "occurred_at"),
        (dump(occurred_at="2016-12-31T23:59:60Z"), "invalid_field", "occurred_at"),
        (dump(occurred_at="2023-11-14T22:13:20+24:00"), "invalid_field", "occurred_at"),
        (dump(occurred_at=float(NOW)), "invalid_field", "occurred_at"),
        (dump(occurred_at=True), "invalid_field", "occurred_at"),
        (dump(occurred_at=str(NOW)), "invalid_field", "occurred_at"),
        (dump(occurred_at=-1), "invalid_field", "occurred_at"),
        (with_raw("occurred_at", b"9" * 40), "invalid_field", "occurred_at"),
        (with_raw("occurred_at", b"9" * 400), "not_finite", None),
        (dump(occurred_at=0), "too_old", "occurred_at"),
        (dump(occurred_at=NOW // 1000), "too_old", "occurred_at"),
        (dump(occurred_at="1970-01-01T00:00:00Z"), "too_old", "occurred_at"),
        (dump(occurred_at="1994-12-31T23:59:59.999Z"), "too_old", "occurred_at"),
        (dump(occurred_at="2099-01-01T00:00:00Z"), "too_far_in_future", "occurred_at"),
        (dump(occurred_at=253_402_300_799_999), "too_far_in_future", "occurred_at"),
        (dump(occurred_at=NOW + 300_001), "too_far_in_future", "occurred_at"),
        (dump(type="purchase"), "missing_field", "amount"),
        (dump(type="purchase", amount=None), "missing_field", "amount"),
        (dump(type="purchase", amount="12"), "invalid_field", "amount"),
        (dump(type="purchase", amount=True), "invalid_field", "amount"),
        (dump(type="purchase", amount=1.1e9), "invalid_field", "amount"),
        (dump(type="purchase", amount=[1]), "invalid_field", "amount"),
        (dump(type="purchase", amount=1, quantity=0), "invalid_field", "quantity"),
        (dump(type="purchase", amount=1, quantity=-1), "invalid_field", "quantity"),
        (dump(type="purchase", amount=1, discount=-1), "invalid_field", "discount"),
        (dump(type="purchase", amount=1, currency="euro"), "invalid_field", "currency"),
        (dump(type="review"), "missing_field", "rating"),
        (dump(type="review", rating=0), "invalid_field", "rating"),
        (dump(type="review", rating=5.5), "invalid_field", "rating"),
        (dump(dwell_ms=-1), "invalid_field", "dwell_ms"),
        (dump(dwell_ms=DAY + 1), "invalid_field", "dwell_ms"),
        (with_raw("dwell_ms", b"NaN"), "not_finite", None),
        (with_raw("dwell_ms", b"Infinity"), "not_finite", None),
        (with_raw("dwell_ms", b"-Infinity"), "not_finite", None),
        (with_raw("dwell_ms", b"1e999"), "not_finite", None),
        (with_raw("category", b"NaN"), "not_finite", None),
        (dump(category=7), "invalid_field", "category"),
        (dump(item_id="x" * 257), "invalid_field", "item_id"),
        (dump(type="search", query="x" * 10_001), "invalid_field", "query"),
    ],
)
def test_bad_input_has_a_reason_and_a_field(value: bytes | None, reason: Reason, field: str | None) -> None:
    assert rejection(value) == (reason, field)


@pytest.mark.parametrize(
    "value",
    [
        dump(unknown={"deep": [1, 2, {"er": None}]}),
        with_raw("unknown", BOMB),
        dump(session_id=None, channel=None, item_id=None, category=None, dwell_ms=None),
        dump(user_id="\U0001f469\u200d\U0001f680 é"),
        dump(user_id=" leading and inner spaces"),
        dump(occurred_at=NOW + 300_000),
        dump(occurred_at="2023-11-14T23:13:20.9999+01:00"),
        dump(occurred_at="1995-01-01T00:00:00Z"),
        dump(type="purchase", amount=0),
        dump(type="purchase", amount=-1e9, quantity=1e6, discount=1e9),
        dump(event_id="another", type="review", rating=5, text=""),
    ],
)
def test_odd_but_valid_input_is_accepted(value: bytes) -> None:
    batch, rejected = decode_values(value)
    assert len(batch) == 1 and not rejected


def test_the_columns_of_a_batch() -> None:
    batch, rejected = decode_values(
        dump(dwell_ms=1500, category="shoes", occurred_at="2023-11-14T23:13:20.5+01:00"),
        b"broken",
        dump(event_id="e2", user_id="u2", type="purchase", amount=19.5, quantity=2, discount=0.5),
        dump(event_id="e3", type="purchase", amount=-7, occurred_at=NOW - 5),
        dump(event_id="e4", type="review", rating=4, category="hats"),
    )
    assert [one.index for one in rejected] == [1]
    assert batch.position.tolist() == [0, 2, 3, 4] and batch.position.dtype == np.int32
    assert batch.user_ids == ["u1", "u2", "u1", "u1"]
    assert list(batch.event_ids) == ["e1", "e2", "e3", "e4"]
    assert [KINDS[code] for code in batch.kind] == ["browse", "purchase", "refund", "review"]
    assert batch.time.tolist() == [NOW + 500, NOW, NOW - 5, NOW]
    assert batch.id_hash.tolist() == [xxhash.xxh3_64_intdigest(name.encode()) for name in batch.event_ids]
    shoes, hats = (xxhash.xxh3_64_intdigest(name) for name in (b"shoes", b"hats"))
    assert batch.category.tolist() == [shoes, 0, 0, hats]
    nan = math.nan
    np.testing.assert_array_equal(batch.dwell_ms, [1500, nan, nan, nan])
    np.testing.assert_array_equal(batch.amount, [nan, 19.5, -7, nan])
    np.testing.assert_array_equal(batch.quantity, [nan, 2, nan, nan])
    np.testing.assert_array_equal(batch.discount, [nan, 0.5, nan, nan])
    np.testing.assert_array_equal(batch.rating, [nan, nan, nan, 4])


def test_what_costs_nothing_is_a_purchase_and_no_refund() -> None:
    batch, _ = decode_values(*(dump(type="purchase", amount=amount) for amount in (0, 0.0, -0.0, -0.01)))
    assert [KINDS[code] for code in batch.kind] == ["purchase", "purchase", "purchase", "refund"]


def test_no_records() -> None:
    batch, rejected = decode_values()
    assert len(batch) == 0 and rejected == []


def test_all_times_as_numbers_all_as_texts_and_mixed_agree() -> None:
    numbers = [dump(occurred_at=NOW + at) for at in range(10)]
    texts = [dump(occurred_at=f"2023-11-14T22:13:20.{at:03}Z") for at in range(10)]
    mixed = numbers[:5] + texts[5:]
    for values in (numbers, texts, mixed):
        assert decode_values(*values)[0].time.tolist() == [NOW + at for at in range(10)]


def test_where_the_clock_is_the_datas_own_each_record_has_its_now() -> None:
    records = [
        ARecord(dump(occurred_at=NOW + DAY), timestamp=NOW + DAY),
        ARecord(b"broken", timestamp=NOW),
        ARecord(dump(occurred_at=NOW + DAY), timestamp=NOW),
    ]
    batch, rejected = decode(records, None, DEFAULTS)
    assert batch.position.tolist() == [0]
    assert [(one.index, one.reason) for one in rejected] == [(1, "not_json"), (2, "too_far_in_future")]


def test_a_key_that_comes_twice_counts_as_it_came_last() -> None:
    batch, _ = decode_values(dump(user_id="first")[:-1] + b',"user_id":"last"}')
    assert batch.user_ids == ["last"]


def test_limits_are_settings() -> None:
    big = dump(text="x" * 500)
    assert rejection(big, max_event_bytes=300) == ("too_large", None)
    assert rejection(dump(occurred_at="2020-01-01T00:00:00Z"), earliest="2021-06-01")[0] == "too_old"
    assert rejection(dump(occurred_at=NOW + 2), allowed_skew="1ms")[0] == "too_far_in_future"
    with pytest.raises(ValidationError, match="earliest"):
        IngestSettings(earliest=date(1970, 1, 1))
    # A commit whose records a broker refuses for their time would be tried for ever.
    with pytest.raises(ValueError, match="allowed_skew"):
        IngestSettings(allowed_skew="31m")
    with pytest.raises(ValidationError, match="max_event_byte"):
        IngestSettings.model_validate({"max_event_byte": 1})


def purchase(**changes: Any) -> bytes:
    return dump(**{"type": "purchase", "amount": 10.0, "discount": 1.0, **changes})


def test_without_a_base_currency_amounts_are_as_they_are() -> None:
    batch, _ = decode_values(purchase(currency="USD"), purchase())
    assert batch.amount.tolist() == [10.0, 10.0]


def test_amounts_come_in_the_base_currency() -> None:
    currency = {"base": "EUR", "rates": {"USD": 0.5, "EUR": 1.0}}
    values = [purchase(currency="USD"), purchase(currency="EUR"), purchase(), dump(), purchase(currency="GBP")]
    batch, rejected = decode_values(*values, currency=currency)
    np.testing.assert_array_equal(batch.amount, [5.0, 10.0, 10.0, math.nan])
    np.testing.assert_array_equal(batch.discount, [0.5, 1.0, 1.0, math.nan])
    assert [(one.index, one.reason, one.field) for one in rejected] == [(4, "unknown_currency", "currency")]


@pytest.mark.parametrize(
    "currency",
    [{"rates": {"USD": 1.0}}, {"base": "euro"}, {"base": "EUR", "rates": {"EUR": 2.0}}, {"rates": {"USD": 0}}],
)
def test_currency_settings_that_cannot_be(currency: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        CurrencySettings.model_validate(currency)


def test_no_detail_holds_what_the_event_says() -> None:
    secret = "Jane.Doe@example.org"
    values = [
        dump(**{name: [secret]}) for name in ("event_id", "user_id", "occurred_at", "type", "category", "dwell_ms")
    ]
    values += [dump(type=secret), dump(occurred_at=secret), dump(user_id=secret * 20), dump(user_id=f"{secret}\n")]
    values += [purchase(currency=secret), f'{{"{secret}'.encode(), secret.encode(), f'{{"a": NaN, "{secret}'.encode()]
    _, rejected = decode_values(*values)
    assert len(rejected) == len(values)
    assert not [one for one in rejected if "Jane" in f"{one.detail}{one.field}"]


@pytest.mark.parametrize("bad", [purchase(amount="x"), dump(type="x"), b"{", None, dump(user_id="\n")])
@pytest.mark.parametrize("every", [1, 2, 100])
def test_a_bad_event_makes_the_validator_look_twice_at_most(
    bad: bytes | None, every: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked = 0

    class Counting:
        def validate_python(self, some: list[Any]) -> Any:
            nonlocal looked
            looked += len(some)
            return EVENTS.validate_python(some)

    monkeypatch.setattr(events_module, "EVENTS", Counting())
    values = [bad if at % every == 0 else dump() for at in range(2000)]
    batch, rejected = decode_values(*values)
    assert len(rejected) == 2000 // every and len(batch) + len(rejected) == 2000
    assert looked <= 4000


scalars = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=20)
json_values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner)
)
FIELDS = [
    "event_id",
    "user_id",
    "occurred_at",
    "type",
    "category",
    "amount",
    "quantity",
    "discount",
    "currency",
    "rating",
]


def as_json(value: Any) -> bytes:
    """JSON, and what Python's own writer makes of what is not: NaN, Infinity, numbers of any size."""

    return json.dumps(value, ensure_ascii=False).encode(errors="surrogatepass")


@st.composite
def almost_events(draw: st.DrawFn) -> bytes:
    """A valid event with a few fields replaced, dropped or cut."""
    whole = event(type=draw(st.sampled_from(EVENT_TYPES)), amount=3.5, rating=4)
    for name in draw(st.lists(st.sampled_from([*FIELDS, "dwell_ms", "text"]), max_size=2)):
        whole[name] = draw(json_values)
    value = as_json(whole)
    return value[: draw(st.integers(0, len(value)))] if draw(st.integers(0, 4)) == 0 else value


garbage = st.one_of(st.none(), st.binary(max_size=60), json_values.map(as_json), almost_events(), almost_events())


@given(st.lists(garbage, max_size=30), st.booleans())
@settings(max_examples=300, deadline=None)
def test_whatever_the_bytes_every_record_is_counted_once(values: list[bytes | None], own_clock: bool) -> None:
    records = [ARecord(value) for value in values]
    batch, rejected = decode(records, None if own_clock else NOW, DEFAULTS)
    indices = [one.index for one in rejected]
    assert sorted(batch.position.tolist() + indices) == list(range(len(values)))
    assert indices == sorted(indices) and batch.position.tolist() == sorted(batch.position.tolist())
    lengths = {len(getattr(batch, name)) for name in batch.__slots__}
    assert lengths == {len(batch)}
    assert ((batch.time >= DEFAULTS.earliest_ms) & (batch.time <= NOW + DEFAULTS.allowed_skew)).all()
    for name in ("amount", "quantity", "discount", "dwell_ms", "rating"):
        assert not np.isinf(getattr(batch, name)).any()
    assert all(user_id.strip() and len(user_id) <= 128 for user_id in batch.user_ids)


@given(st.lists(garbage, max_size=20))
@settings(max_examples=100, deadline=None)
def test_neighbours_do_not_matter(values: list[bytes | None]) -> None:
    """Together, records fare as each of them does alone."""
    together, rejected = decode_values(*values)
    fates = {one.index: (one.reason, one.field, one.detail) for one in rejected}
    for index, value in enumerate(values):
        alone, no = decode_values(value)
        assert [(one.reason, one.field, one.detail) for one in no] == ([fates[index]] if index in fates else [])
        if len(alone):
            at = together.position.tolist().index(index)
            for name in set(EventBatch.__slots__) - {"position"}:
                np.testing.assert_array_equal(getattr(alone, name)[0], getattr(together, name)[at])


def test_the_key_must_be_the_user_id_unless_told_otherwise() -> None:
    records = [
        ARecord(dump(), key=b"u1"),
        ARecord(dump(event_id="e2"), key=None),
        ARecord(dump(event_id="e3"), key=b""),
        ARecord(dump(event_id="e4"), key=b"session-7"),
        ARecord(dump(event_id="e5", user_id="zo\u00eb"), key="zo\u00eb".encode()),
    ]
    batch, rejected = decode(records, NOW, IngestSettings())
    assert list(batch.event_ids) == ["e1", "e5"]
    assert [(one.index, one.reason, one.field) for one in rejected] == [
        (1, "no_key", "key"),
        (2, "no_key", "key"),
        (3, "key_mismatch", "key"),
    ]
    assert len(decode(records, NOW, IngestSettings(key="any"))[0]) == 5
