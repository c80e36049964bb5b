"""The synthetic shop as a source: the same bytes always, from any row; counts, schema and faults as declared."""

from __future__ import annotations

import hashlib
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from producers.shop import Shop, ShopSettings, Truth, faults, simulation
from producers.shop.delivery import LATE_MS, TOO_LATE_MS
from producers.shop.events import BROKEN, DUPLICATE, LATE, ON_TIME, TOO_LATE
from producers.shop.settings import DAY_MS
from producers.source import SourceError, SourceRow
from schemas.events import EVENT, EVENT_TYPES
from stream.features.events import IngestSettings, decode
from stream.transport.base import Headers

SMALL = ShopSettings(users=60, days=6, seed=5, broken=0.05, duplicates=0.05, too_late=0.01)


def small(**changes: Any) -> Shop:
    return Shop(SMALL.model_copy(update=changes))


@pytest.fixture(scope="module")
def rows() -> list[SourceRow]:
    return list(Shop(SMALL).rows())


def originals(shop: Shop) -> list[tuple[Any, ...]]:
    """Every event once, as columns, without its arrival."""
    found = np.concatenate([events[events["fate"] < DUPLICATE] for events in shop.slices()])
    return sorted(found[[name for name in found.dtype.names or () if name not in ("arrival", "fate")]].tolist())


def test_the_same_settings_give_the_same_bytes_and_another_seed_does_not(rows: list[SourceRow]) -> None:
    assert list(Shop(SMALL).rows()) == rows
    other = small(seed=6)
    assert list(other.rows()) != rows
    assert other.fingerprint != Shop(SMALL).fingerprint == Shop(SMALL.model_copy()).fingerprint


def test_these_are_the_rows_of_this_version() -> None:
    """Fails when the shop gives other rows than before: raise `simulation.VERSION`, then note the new digest here."""
    digest = hashlib.sha256()
    for key, value, timestamp in islice(Shop(ShopSettings(users=300, days=3)).rows(), 4_000):
        digest.update(b"%b|%b|%d\n" % (key or b"", value or b"", timestamp))
    assert (simulation.VERSION, digest.hexdigest()[:16]) == (2, "ccb7144b760690d1")


@settings(max_examples=12, deadline=None)
@given(share=st.floats(0, 1.1), near=st.integers(-2, 2))
def test_any_row_can_be_resumed(rows: list[SourceRow], share: float, near: int) -> None:
    start = max(0, int(share * len(rows)) + near)
    assert list(Shop(SMALL).rows(start)) == rows[start:]


def test_slices_do_not_show(rows: list[SourceRow], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulation, "SLICE_SESSIONS", 3)
    monkeypatch.setattr(simulation, "JSON_ROWS", 7)
    assert list(Shop(SMALL).rows()) == rows


def test_rows_arrive_in_order_and_after_they_happened(rows: list[SourceRow]) -> None:
    times = [row.timestamp for row in rows]
    assert times == sorted(times)
    events = np.concatenate(list(Shop(SMALL).slices()))
    assert (events["arrival"] > events["occurred"]).all()
    assert events["occurred"].min() >= SMALL.start_ms


def test_more_users_change_nothing_for_the_others() -> None:
    users = SMALL.users
    more = [event for event in originals(small(users=3 * users)) if event[6] < users]
    assert more == originals(Shop(SMALL))


@pytest.mark.parametrize("scenario", ["static", "drift"])
def test_more_days_only_continue(scenario: str) -> None:
    short, long = small(scenario=scenario, too_late=0), small(scenario=scenario, too_late=0, days=9)
    before = [row for row in short.rows() if row.timestamp < SMALL.end_ms]
    assert list(islice(long.rows(), len(before))) == before
    assert len(before) > 1_000


def test_faults_do_not_change_what_happens() -> None:
    clean = small(broken=0, duplicates=0, late=0, too_late=0)
    assert originals(clean) == originals(Shop(SMALL))
    summary = clean.summary
    assert summary.rows == summary.events
    assert (summary.duplicates, summary.late, summary.too_late, sum(summary.broken.values())) == (0, 0, 0, 0)


def test_the_summary_equals_a_count_of_the_bytes(rows: list[SourceRow]) -> None:
    summary = Shop(SMALL).summary
    broken = 0
    seen: Counter[str] = Counter()
    types: Counter[str] = Counter()
    for row in rows:
        try:
            event = EVENT.validate_json(row.value or b"")
        except ValidationError:
            broken += 1
            continue
        if not 1e9 < event["occurred_at"] < 4e12 or row.key != event["user_id"].encode():  # type: ignore[operator]
            broken += 1
            continue
        seen[event["event_id"]] += 1
        types[event["type"]] += seen[event["event_id"]] == 1
    assert summary.rows == len(rows)
    assert summary.events == len(seen)
    assert summary.duplicates == sum(seen.values()) - len(seen)
    assert sum(summary.broken.values()) == broken
    assert summary.by_type == {name: types[name] for name in EVENT_TYPES}
    assert sum(summary.by_persona.values()) == summary.events


def test_valid_events_are_events_and_their_key_is_their_user(rows: list[SourceRow]) -> None:
    fates = np.concatenate([events["fate"] for events in Shop(SMALL).slices()])
    kinds = set()
    for row, fate in zip(rows, fates.tolist(), strict=True):
        if fate != BROKEN:
            event = EVENT.validate_json(row.value or b"")
            assert row.key == event["user_id"].encode()
            kinds.add(event["type"])
    assert kinds == set(EVENT_TYPES)


def test_a_duplicate_is_the_same_bytes_soon_after(rows: list[SourceRow]) -> None:
    fates = np.concatenate([events["fate"] for events in Shop(SMALL).slices()]).tolist()
    first = {row.value: row for row, fate in zip(rows, fates, strict=True) if fate < DUPLICATE}
    again = [row for row, fate in zip(rows, fates, strict=True) if fate == DUPLICATE]
    assert len(again) > 40
    for row in again:
        assert row.key == first[row.value].key
        assert 0 < row.timestamp - first[row.value].timestamp <= 600_000


def test_what_is_sent_again_or_broken_keeps_apart_from_the_rest() -> None:
    events = np.concatenate(list(small(users=300, too_late=0.05).slices()))
    by_fate = {fate: events[events["fate"] == fate] for fate in range(BROKEN + 1)}
    keys = {fate: set(found["key"].tolist()) for fate, found in by_fate.items()}
    assert not keys[DUPLICATE] & keys[TOO_LATE]  # one of the two would count as a duplicate that never was accepted
    assert not keys[BROKEN] & (keys[ON_TIME] | keys[LATE] | keys[TOO_LATE])
    assert keys[DUPLICATE] <= keys[ON_TIME] | keys[LATE]
    first = dict(zip(events["key"].tolist()[::-1], events["arrival"].tolist()[::-1], strict=True))
    after = np.array([row["arrival"] - first[row["key"]] for row in by_fate[DUPLICATE]])
    assert 500 <= after.min() <= after.max() <= 600_000
    assert np.median(after) == pytest.approx(8_000, rel=0.2)


def test_ties_have_an_order_of_their_own() -> None:
    events = np.concatenate(list(Shop(SMALL).slices()))
    events["arrival"] //= 3_600_000
    ordered = simulation._by_arrival(events)
    shuffled = simulation._by_arrival(np.random.default_rng(1).permutation(events))
    assert ordered.tolist() == shuffled.tolist()


def test_rates_of_faults_are_as_declared() -> None:
    summary = Shop(ShopSettings(users=400, days=20, seed=3)).summary
    events = summary.events
    for found, rate in (
        (summary.duplicates, 0.01),
        (summary.late, 0.02),
        (sum(summary.broken.values()), 0.002),
    ):
        assert found == pytest.approx(events * rate, abs=5 * np.sqrt(events * rate))
    assert set(summary.broken) == {kind.name for kind in faults.KINDS}
    # None in the last four days, so a little below the rate.
    assert 0.4 * 0.0005 < summary.too_late / events < 1.2 * 0.0005


def test_late_events_come_as_late_as_declared() -> None:
    shop = Shop(ShopSettings(users=300, days=12, seed=3, late=0.1, too_late=0.02))
    events = np.concatenate(list(shop.slices()))
    delay = events["arrival"] - events["occurred"]
    assert delay[events["fate"] == 0].max() <= 30_000
    late, too_late = delay[events["fate"] == 1], delay[events["fate"] == 2]
    assert LATE_MS[0] <= late.min() <= late.max() <= LATE_MS[1] + 30_000
    assert TOO_LATE_MS[0] <= too_late.min() <= too_late.max() <= TOO_LATE_MS[1] + 30_000
    # Every one of them is behind the newest event by more than two days when it arrives.
    newest = np.maximum.accumulate(events["occurred"])
    assert (newest - events["occurred"])[events["fate"] == 2].min() > 2.4 * DAY_MS
    assert (newest - events["occurred"])[events["fate"] == 1].max() < DAY_MS


class Received(NamedTuple):
    """A record as a transport would hand it on."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Headers = ()


EVENT_JSON = (
    b'{"event_id":"1","type":"browse","user_id":"u1","occurred_at":1767571287325,"session_id":"s",'
    b'"dwell_ms":391,"item_id":"i2344","category":"home","channel":"app"}'
)


@pytest.mark.parametrize("kind", range(len(faults.KINDS)), ids=[kind.name for kind in faults.KINDS])
def test_every_kind_of_broken_record_is_broken(kind: int) -> None:
    EVENT.validate_json(EVENT_JSON)
    key, value = faults.broken_record(kind, EVENT_JSON, 20_000)
    record = Received("events", 0, 0, 1_767_571_287_825, key, value)
    accepted, (rejected,) = decode([record], None, IngestSettings())
    assert len(accepted) == 0
    assert rejected.reason in faults.KINDS[kind].reasons


def test_the_decoder_accepts_all_but_what_was_broken(rows: list[SourceRow]) -> None:
    events = np.concatenate(list(Shop(SMALL).slices()))
    received = [Received("events", 0, at, row.timestamp, row.key, row.value) for at, row in enumerate(rows)]
    accepted, rejected = decode(received, None, IngestSettings())
    assert [one.index for one in rejected] == np.flatnonzero(events["fate"] == BROKEN).tolist()
    assert len(accepted) + len(rejected) == len(rows)
    for one in rejected:
        assert one.reason in faults.KINDS[events["fault"][one.index]].reasons


def test_the_truth_can_be_written_and_read(tmp_path: Path) -> None:
    shop = Shop(SMALL)
    shop.write_truth(tmp_path / "truth")
    assert Truth.load(tmp_path / "truth" / "truth.jsonl").intervals == shop.truth.intervals
    summary = orjson.loads((tmp_path / "truth" / "summary.json").read_bytes())
    assert summary["summary"]["rows"] == shop.total
    assert ShopSettings.model_validate(summary["settings"]) == SMALL
    with pytest.raises(SourceError, match="no such file"):
        Truth.load(tmp_path / "nowhere")
    with pytest.raises(SourceError, match="not a truth file"):
        Truth.load(tmp_path / "truth" / "summary.json")


@pytest.mark.parametrize(
    ("name", "value"),
    [("users", 0), ("days", 0), ("seed", -1), ("late", 0.9), ("scenario", "chaos"), ("start", "2026-01-05T00:00:00")],
)
def test_settings_that_make_no_sense_are_refused(name: str, value: object) -> None:
    with pytest.raises(ValidationError, match=name):
        ShopSettings.model_validate({name: value})


def test_one_user_and_one_day_are_enough() -> None:
    for seed in range(5):
        rows = list(Shop(ShopSettings(users=1, days=1, seed=seed)).rows())
        assert [row.timestamp for row in rows] == sorted(row.timestamp for row in rows)
