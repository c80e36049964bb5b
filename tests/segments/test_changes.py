"""The records of a move, written as bytes: read back by a JSON parser and the schemas they say what was given."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from schemas.anomaly import Anomaly
from schemas.change import SegmentChange
from schemas.membership import SegmentMembership
from stream.segments.changes import (
    NULL,
    WHY_FEATURES,
    Moved,
    Moves,
    Outlying,
    Reasons,
    anomaly_records,
    change_id,
    change_records,
    numbers,
    reference,
    rule_records,
)
from stream.segments.look import positions
from stream.transport.records import RecordColumns

pytestmark = pytest.mark.usefixtures("either_kernels")

TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20).filter(str.strip)
NUMBERS = arrays.arrays(np.float64, st.integers(0, 30), elements=st.floats(allow_infinity=False))


@given(NUMBERS)
def test_numbers_are_what_they_were(values: np.ndarray[Any, Any]) -> None:
    read = [orjson.loads(text) for text in numbers(values)]
    assert read == [None if np.isnan(value) else value for value in values.tolist()]


@given(TEXT, TEXT, st.none() | TEXT, st.integers(1, 5), st.integers(0, 2**40))
def test_a_change_and_its_membership_say_what_happened(
    user: str, name: str, event: str | None, sequence: int, at: int
) -> None:
    to = orjson.dumps({"id": "seg-5", "name": name})
    moved = Moved(user, sequence, NULL, to, 1, at, at + 1, b"0.5", b"[]", NULL, orjson.dumps(event))
    change, membership = change_records(Moves.of([moved]), 7, "/resegment", 3)
    read = SegmentChange.model_validate_json(change.value or b"")
    assert (read.user_id, read.sequence, read.event_id) == (user, sequence, event)
    assert read.to is not None and read.to.name == name and read.from_ is None
    assert (read.occurred_at, read.detected_at, read.model_version) == (at, at + 1, 7)
    assert read.id == change_id(user, sequence) == dict(change.headers)["ce_id"].decode()
    held = SegmentMembership.model_validate_json(membership.value or b"")
    assert held.segment == read.to and (held.user_id, held.since) == (user, at)
    assert change.key == membership.key == user.encode()
    assert {change.partition, membership.partition} == {3}


def test_who_leaves_a_rule_segment_leaves_a_tombstone() -> None:
    rule = orjson.dumps({"id": "vip", "name": "VIP"})
    left = Moved("u", 2, rule, NULL, 1, 5, 6, b"1.0", b"[]", NULL, NULL)
    change, membership = rule_records(Moves.of([left]), ["vip"], 0, "/resegment", 0)
    assert membership.value is None and b"vip" in (membership.key or b"")
    assert SegmentChange.model_validate_json(change.value or b"").to is None


def test_many_moves_are_written_in_their_order_and_each_as_if_it_were_alone() -> None:
    moves = [
        Moved(f"ü{at}", at + 1, NULL, b'{"id":"seg-%d","name":"A"}' % at, at % 5, at, 9, b"0.5", b"[]", NULL, NULL)
        for at in range(50)
    ]
    alone = [record for move in moves for record in change_records(Moves.of([move]), 7, "/resegment", 3)]
    assert change_records(Moves.of(moves), 7, "/resegment", 3) == alone
    assert [record.key for record in alone] == [f"ü{at // 2}".encode() for at in range(100)]


def test_an_anomaly_says_what_was_measured() -> None:
    why = b'[{"feature":"visits","value":1.5,"segment_mean":null,"z":null}]'
    source = b'{"topic":"events","partition":3,"offset":5}'
    moved = [Moved(user, 2, NULL, NULL, 4, 5, 6, b"1.0", why, source, NULL) for user in ('u"1', "u2", "u3")]
    outlying = Outlying(["entered", "released"], [0.75, 0.25], 0.5, [12.0625, 1e-07], 9.0)
    records = anomaly_records(Moves.of(moved).some([0, 2]), outlying, 7, 3)
    found = [Anomaly.model_validate_json(record.value or b"") for record in records]
    assert [(each.user_id, each.kind, each.id) for each in found] == [
        ('u"1', "entered", change_id('u"1', 2)),
        ("u3", "released", change_id("u3", 2)),
    ]
    assert [(each.score, each.distance) for each in found] == [(0.75, 12.0625), (0.25, 1e-07)]
    assert {(each.score_threshold, each.distance_threshold, each.model_version) for each in found} == {(0.5, 9.0, 7)}
    assert all(each.source is not None and each.source.offset == 5 and each.why[0].value == 1.5 for each in found)
    assert [(record.key, record.partition, record.timestamp) for record in records] == [(b'u"1', 3, 6), (b"u3", 3, 6)]


def test_an_event_stands_where_it_was_read() -> None:
    values: list[bytes | None] = [b"{}"] * 4
    columns = RecordColumns('"e"', 2, np.arange(7, 11), np.arange(100, 104), [None] * 4, values)
    for records in (columns, list(columns)):
        where, times = positions(records, np.array([3, 0]))
        assert times == [103, 100]
        assert [orjson.loads(each) for each in where] == [
            {"topic": '"e"', "partition": 2, "offset": offset} for offset in (10, 7)
        ]


def test_a_segment_is_named_and_none_is_null() -> None:
    assert orjson.loads(reference(3, {3: 'Big "spenders"'})) == {"id": "seg-3", "name": 'Big "spenders"'}
    assert reference(0, {}) == NULL


FEATURES = ["visits", 'the "best"', "spend", "recency"]


def naive(
    x: list[float], z: list[float], old: list[float], new: list[float] | None, means: dict[str, float]
) -> list[dict[str, Any]]:
    """One user, one feature at a time."""
    part = [(a - b) ** 2 - (0.0 if new is None else (a - c) ** 2) for a, b, c in zip(z, old, new or old, strict=True)]
    best = sorted(range(len(part)), key=lambda j: -part[j])[:WHY_FEATURES]
    return [
        {
            "feature": FEATURES[j],
            "value": None if np.isnan(x[j]) else x[j],
            "segment_mean": means.get(FEATURES[j]),
            "z": pytest.approx(z[j] / 2, abs=6e-4),
        }
        for j in best
        if part[j] > 0
    ]


MATRIX = arrays.arrays(np.float64, (6, 4), elements=st.floats(-9, 9).map(lambda value: round(value, 3)))


@given(MATRIX, MATRIX, MATRIX, MATRIX, st.lists(st.sampled_from([-2, 1, 2]), min_size=6, max_size=6))
def test_reasons_are_those_of_each_user_alone(x: Any, z: Any, old: Any, new: Any, segments: list[int]) -> None:
    x[0, 0] = np.nan
    gone = np.array(segments) == -2
    means = {1: {"visits": 2.5, 'the "best"': 1e-9}, 2: {}}
    found = Reasons(FEATURES, means, np.full(4, 2.0)).of(x, z, old, np.where(gone[:, None], np.nan, new), segments)
    for i, text in enumerate(found):
        towards = None if gone[i] else new[i].tolist()
        assert orjson.loads(text) == naive(
            x[i].tolist(), z[i].tolist(), old[i].tolist(), towards, means.get(segments[i], {})
        )
