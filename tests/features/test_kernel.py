"""The compiled kernel against the ways it replaces: the same batches and the same rejections, whatever the bytes."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import fields
from typing import Annotated, Any, Literal

import numpy as np
import orjson
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field

from benchmarks.workload import events
from producers.shop import Shop, ShopSettings
from schemas.events import EVENT_TYPES, Label
from stream import kernels
from stream.features import kernel
from stream.features.batch import EventBatch
from stream.features.events import CurrencySettings, IngestSettings, Rejected, decode
from stream.transport.records import RecordColumns
from stream.transport.spans import Spans, packed
from tests.features.guarded import Guarded
from tests.features.test_plain import COMMON, EVENTS_OF_ALL_TYPES, mutated

if not kernels.built():
    pytest.skip("the kernels are not compiled here", allow_module_level=True)

NOW = 1_700_000_000_000
SETTINGS = [
    IngestSettings(key="any"),
    IngestSettings(),
    IngestSettings(key="any", currency=CurrencySettings(base="EUR", rates={"USD": 0.5})),
    IngestSettings(key="any", max_event_bytes=256),
]


def columns(values: Sequence[bytes | None], keys: Sequence[bytes | None], spans: bool = True) -> RecordColumns:
    """Records that lie in one buffer, with bytes around them that must not count, or as lists."""
    offsets = np.arange(len(values))
    times = NOW + 60_000 * (offsets % 12)
    if not spans:
        return RecordColumns("events", 0, offsets, times, list(keys), list(values))
    both = packed([b'"0}', *keys, b'{"', *values, b'9"'])
    count = len(keys)
    key_spans, value_spans = both[1 : 1 + count], both[2 + count : -1]
    return RecordColumns("events", 0, offsets, times, key_spans, value_spans)


def both_ways(records: RecordColumns, now: int | None, how: IngestSettings) -> list[tuple[EventBatch, list[Rejected]]]:
    found = []
    for on in (True, False):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(kernels, "_on", on)
            found.append(decode(records, now, how))
    return found


def assert_same(ways: list[tuple[EventBatch, list[Rejected]]]) -> None:
    (batch, rejected), (wanted, refused) = ways
    assert rejected == refused
    for field in fields(EventBatch):
        mine, theirs = getattr(batch, field.name), getattr(wanted, field.name)
        if field.name in ("user_ids", "event_ids"):
            assert list(mine) == list(theirs)
        else:
            assert mine.dtype == theirs.dtype
            assert mine.tobytes() == theirs.tobytes(), field.name  # NaN and minus zero too


def taken(*values: bytes) -> list[bool]:
    """Which of them the kernel takes."""
    _, left = kernel.read(packed(values), None, 1 << 20, 0, 1 << 60, {}, None)
    return [at not in left.tolist() for at in range(len(values))]


@given(st.binary(max_size=128))
def test_hashes_are_those_of_the_library(data: bytes) -> None:
    assert kernels.events.xxh3(data) == xxhash.xxh3_64_intdigest(data)


def test_hashes_of_every_length() -> None:
    rng = random.Random(1)
    for length in range(129):
        data = rng.randbytes(length)
        assert kernels.events.xxh3(data) == xxhash.xxh3_64_intdigest(data)
    with pytest.raises(ValueError, match="129"):
        kernels.events.xxh3(bytes(129))


def test_events_of_every_type_with_all_their_fields_are_taken() -> None:
    """All but those with an escape in a text."""
    wanted = [b"\\" not in value for value in EVENTS_OF_ALL_TYPES]
    assert taken(*EVENTS_OF_ALL_TYPES) == wanted
    assert sum(wanted) > 50


def test_what_our_own_shop_and_the_benchmarks_send_is_taken() -> None:
    shop = [row.value for row in Shop(ShopSettings(users=50, days=3, broken=0)).rows() if row.value is not None]
    made = [record.value for record in events(500, 50, NOW) if record.value is not None]
    assert len(shop) > 100
    assert all(taken(*shop)) and all(taken(*made))


@settings(max_examples=300)
@given(st.integers(0, 2**32), st.sampled_from(SETTINGS), st.booleans(), st.booleans())
def test_whatever_the_bytes_the_outcome_is_the_same(
    seed: int, how: IngestSettings, own_clock: bool, spans: bool
) -> None:
    rng = random.Random(seed)
    values: list[bytes | None] = []
    for _ in range(30):
        value = rng.choice(EVENTS_OF_ALL_TYPES)
        match rng.randrange(8):
            case 0:
                values.append(rng.choice((None, b"", value[: rng.randrange(len(value))])))
            case 1 | 2 | 3:
                values.append(value)
            case _:
                values.append(mutated(value, rng))
    keys = [rng.choice((b"u1", b"u1", b"u1", b"u", b"u12", b"", None)) for _ in values]
    assert_same(both_ways(columns(values, keys, spans), None if own_clock else NOW, how))


@pytest.mark.parametrize("value", EVENTS_OF_ALL_TYPES[::5])
def test_every_byte_in_every_place(value: bytes) -> None:
    rng = random.Random(value)
    for at in range(len(value)):
        changed = [value[:at] + bytes([byte]) + value[at + 1 :] for byte in rng.sample(range(256), 12)]
        cut = [value[:at], value[:at] + value[at + 1 :]]
        records = columns([*changed, *cut], [b"u1"] * 14)
        assert_same(both_ways(records, NOW, SETTINGS[0]))


def purchase(amount: str) -> bytes:
    return orjson.dumps({**COMMON, "type": "purchase"})[:-1] + f',"amount":{amount}}}'.encode()


SIGNS, DIGITS = st.sampled_from(["", "-"]), st.text("0123456789", max_size=18)


@settings(max_examples=500)
@given(
    st.lists(
        st.builds(lambda *parts: "".join(parts), SIGNS, DIGITS, st.sampled_from(["", "."]), DIGITS)
        | st.floats(-1e9, 1e9).map(repr)
        | st.floats(-1e9, 1e9).map(lambda x: f"{x:.2f}"),
        min_size=1,
        max_size=20,
    )
)
def test_numbers_are_the_nearest_floats(texts: list[str]) -> None:
    values = [purchase(text) for text in texts]
    assert_same(both_ways(columns(values, [b"u1"] * len(values)), NOW, SETTINGS[0]))


def test_prices_are_taken() -> None:
    texts = ["0", "12", "12.5", "-9.99", "999999999.999999", "0.000001", "123456789012345e0", "-0", "-0.0", "1e3"]
    assert taken(*map(purchase, texts)) == [True] * 6 + [False] * 4


WHEN = st.builds(
    lambda date, clock, fraction, zone: f"{date}{clock}{fraction}{zone}",
    st.builds(lambda y, m, d: f"{y:04}-{m:02}-{d:02}", st.integers(0, 9999), st.integers(0, 13), st.integers(0, 32)),
    st.builds(
        lambda t, h, m, s: f"{t}{h:02}:{m:02}:{s:02}",
        st.sampled_from("Tt "),
        st.integers(0, 24),
        st.integers(0, 60),
        st.integers(0, 60),
    ),
    st.just("") | st.text("0123456789", max_size=10).map(lambda digits: f".{digits}"),
    st.sampled_from(["Z", "z", "", "+00:00", "-23:59", "+24:00", "+05:30", "+0530", "Z "]),
)


@settings(max_examples=500)
@given(st.lists(WHEN, min_size=1, max_size=20))
def test_times_in_words_are_the_same_instants(texts: list[str]) -> None:
    values = [orjson.dumps({**COMMON, "occurred_at": text, "type": "click"}) for text in texts]
    records = columns(values, [b"u1"] * len(values))
    # As if it were the year 10000, so that no time lies ahead; nothing is too old.
    ancient = IngestSettings.model_construct(**{**SETTINGS[0].__dict__, "earliest": SETTINGS[0].earliest})
    assert_same(both_ways(records, 253_402_300_800_000, ancient))


def test_instants_of_the_whole_calendar() -> None:
    """Days around every turn of a month, leap years and centuries among them."""
    days = [f"{y:04}-{m:02}-{d:02}" for y in (0, 1, 1900, 1970, 2000, 2023, 2024, 9999) for m in range(1, 13)
            for d in (1, 28, 29, 30, 31)]  # fmt: skip
    values = [orjson.dumps({**COMMON, "occurred_at": f"{day}T23:59:59.999+01:00", "type": "click"}) for day in days]
    batch, left = kernel.read(packed(values), None, 1 << 20, -(1 << 60), 1 << 60, {}, None)
    real = {}
    for at, day in enumerate(days):
        try:
            real[at] = int(np.datetime64(f"{day}T22:59:59.999", "ms").astype(np.int64))
        except ValueError:
            continue
    assert dict(zip(batch.position.tolist(), batch.time.tolist(), strict=True)) == real
    assert len(left) == len(days) - len(real)


@pytest.mark.parametrize(
    "text",
    ["größe", "日本", "😀", "\u2028", "\x7f", "a" * 128],
)
def test_labels_of_any_script_are_taken(text: str) -> None:
    value = orjson.dumps({**COMMON, "type": "search", "category": text, "query": text * 3, "event_id": text})
    assert taken(value) == [len(text.encode()) <= 128]
    assert_same(both_ways(columns([value], [b"u1"]), NOW, SETTINGS[0]))


@pytest.mark.parametrize(
    "data", [b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe2\x82", b"\x80", b"\xf8\x88\x80\x80\x80"]
)
def test_what_is_no_utf8_is_not_taken(data: bytes) -> None:
    value = orjson.dumps({**COMMON, "type": "search", "query": "?"}).replace(b"?", data)
    assert taken(value, value.replace(data, b"?")) == [False, True]


def test_space_between_tokens_and_any_order_of_fields() -> None:
    spaced = b' {"type"\t: "click",\r\n"user_id" :"u1", "occurred_at":1 ,"event_id":"e","item_id": null } \n'
    assert taken(spaced) == [True]
    shuffled = [
        orjson.dumps(dict(random.Random(seed).sample(sorted({**COMMON, "type": "click"}.items()), 4)))
        for seed in range(20)
    ]
    assert all(taken(*shuffled))
    assert_same(both_ways(columns([spaced, *shuffled], [b"u1"] * 21), NOW, SETTINGS[0]))


@pytest.mark.parametrize("first", ["1", "2.5", "null"])
@pytest.mark.parametrize("second", ["3", "null"])
def test_a_field_that_comes_twice_counts_as_it_came_last(first: str, second: str) -> None:
    plain = orjson.dumps({**COMMON, "type": "purchase", "amount": 9})[:-1]
    value = plain + f',"quantity":{first},"quantity":{second}}}'.encode()
    assert taken(value) == [False]
    assert_same(both_ways(columns([value], [b"u1"]), NOW, SETTINGS[0]))


def test_spans_beyond_the_bytes_are_never_read() -> None:
    value = orjson.dumps({**COMMON, "type": "click"})
    starts = np.array([0, -1, 1, len(value), 2**62, 0, 0, 0])
    lengths = np.array([len(value), 5, len(value), 1, 5, 2**62, -1, 0])
    keys = Spans(b"u1", np.array([0, 0, 0, 0, 0, 0, 0, 0]), np.full(8, 2))
    batch, left = kernel.read(Spans(value, starts, lengths), keys, 1 << 62, 0, 1 << 60, {}, None)
    assert batch.position.tolist() == [0] and left.tolist() == [1, 2, 3, 4, 5, 6, 7]
    for start, length in ((1, 2), (-1, 2), (2**62, 2), (0, 1), (0, 3), (0, -1)):
        wrong = Spans(b"u1", np.array([start]), np.array([length]))
        batch, left = kernel.read(Spans(value, starts[:1], lengths[:1]), wrong, 1 << 62, 0, 1 << 60, {}, None)
        assert not len(batch) and left.tolist() == [0]


def test_no_byte_behind_the_end_is_ever_read() -> None:
    """Every beginning of every event, and damaged ones, against a page that may not be read."""
    guarded, rng = Guarded(4096), random.Random(1)
    reader = kernel._reader()
    flat = [np.empty(1, kind) for kind in (np.int32, np.int8, np.int64)]
    wide = [np.empty((5, 1)), np.empty((2, 1), np.uint64), np.empty((4, 1), np.int64), np.empty(1, np.int32)]
    zero = np.zeros(1, np.int64)
    read = 0
    for value in EVENTS_OF_ALL_TYPES:
        beginnings = [value[:cut] for cut in range(1, len(value) + 1)]
        for data in beginnings + [mutated(value, rng) for _ in range(50)]:
            if data:
                length = np.array([len(data)])
                read += reader.read(guarded.put(data), zero, length, None, None, None, 4096, *flat, *wide)
    assert read > len(EVENTS_OF_ALL_TYPES) // 2


def test_nothing_and_no_bytes() -> None:
    empty = Spans(b"", np.empty(0, np.int64), np.empty(0, np.int64))
    batch, left = kernel.read(empty, empty, 1 << 20, 0, 1 << 60, {}, None)
    assert not len(batch) and not len(left)
    batch, left = kernel.read(packed([None, b""]), packed([None, b""]), 1 << 20, 0, 1 << 60, {}, None)
    assert not len(batch) and left.tolist() == [0, 1]


def test_outputs_without_room_are_refused() -> None:
    values = packed([orjson.dumps({**COMMON, "type": "click"})] * 2)
    reader = kernel._reader()
    room = [np.empty(1, kind) for kind in (np.int32, np.int8, np.int64)]
    wide = [np.empty((5, 1)), np.empty((2, 1), np.uint64), np.empty((4, 1), np.int64), np.empty(1, np.int32)]
    with pytest.raises(ValueError, match="room for 1 events of 2"):
        reader.read(values.data, values.starts, values.lengths, None, None, None, 1 << 20, *room, *wide)


def test_fields_are_known_by_their_whole_name() -> None:
    """Of any length up to the longest; wherever in the event they stand, so that its end may be near."""
    names = ["type", *("n" * length for length in (1, 7, 8, 9, 15, 16, 23, 24, 30, 31, 32))]
    fields: list[Any] = [(name, "label", ["click"], [], False, 0, 99, False, 0) for name in names[1:]]
    tag = ("type", "tag", ["click"], ["click"], False, 1, 9, False, 0)
    reader = kernels.events.Reader(["click"], [tag, *fields])
    values, good = [], []
    for name in [*names[1:], "n" * 2, "n" * 14, "n" * 33, "m" * 8, "n" * 7 + "m", "n" * 15 + "m", "m" + "n" * 15, ""]:
        for event in ({name: "v"}, {name: "v" * 40}, {"type": "click", name: ""}, {name: "v", "type": "click"}):
            for _ in range(2):  # the second time the field is expected where it is
                values.append(orjson.dumps({"type": "click"} | event if "type" not in event else event))
                good.append(name in names)
    spans, count = packed(values), len(values)
    outputs: list[Any] = [np.empty(count, kind) for kind in (np.int32, np.int8, np.int64)]
    outputs += [np.empty((0, count)), np.empty((2, count), np.uint64), np.empty((4, count), np.int64)]
    outputs.append(np.empty(count, np.int32))
    taken = reader.read(spans.data, spans.starts, spans.lengths, None, None, None, 1 << 20, *outputs)
    assert outputs[0][:taken].tolist() == np.flatnonzero(good).tolist()
    with pytest.raises(ValueError, match="too long"):
        kernels.events.Reader(["click"], [("n" * 33, *tag[1:])])


@pytest.mark.parametrize(
    "annotation",
    [
        Annotated[str, Field(max_length=5)],
        Annotated[float, Field(multiple_of=2)],
        Annotated[int, Field(ge=0, le=1)],
        Literal["a"],
        float,
    ],
)
def test_a_schema_that_the_kernel_does_not_know_is_an_error(annotation: Any) -> None:
    """Whoever adds a field with a new kind of rule is told, and not served events that were not checked."""
    with pytest.raises((TypeError, KeyError, ValueError)):
        kernel._field("amount", {"purchase": annotation})


def test_fields_have_the_limits_of_the_schema() -> None:
    assert kernel._field("channel", dict.fromkeys(EVENT_TYPES, Label | None))[:7] == (
        "channel",
        "label",
        list(EVENT_TYPES),
        list(EVENT_TYPES),
        True,
        1,
        256,
    )
