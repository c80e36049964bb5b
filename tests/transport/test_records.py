"""Records as columns are a sequence like any other."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from stream.transport.records import (
    ReadRecord,
    RecordColumns,
    join,
    keys_of,
    timestamps_of,
    values_of,
)

RECORDS = st.lists(
    st.builds(
        ReadRecord,
        st.just("t"),
        st.just(3),
        st.integers(0, 2**62),
        st.integers(0, 2**62),
        st.none() | st.binary(max_size=3),
        st.none() | st.binary(max_size=3),
        st.just(()) | st.just((("h", b"1"),)),
    ),
    max_size=8,
)


def columns(records: list[ReadRecord]) -> RecordColumns:
    return RecordColumns(
        "t",
        3,
        np.array([record.offset for record in records], np.int64),
        np.array([record.timestamp for record in records], np.int64),
        [record.key for record in records],
        [record.value for record in records],
        [record.headers for record in records] if any(record.headers for record in records) else None,
    )


@given(RECORDS, st.slices(8))
def test_columns_are_their_records(records: list[ReadRecord], some: slice) -> None:
    made = columns(records)
    assert list(made) == records
    assert list(made[some]) == records[some]
    assert [made[at] for at in range(-len(records), len(records))] == records + records
    assert type(made[0].offset) is int if records else not made


@given(RECORDS)
def test_each_column_is_that_of_the_records_one_by_one(records: list[ReadRecord]) -> None:
    made = columns(records)
    assert values_of(made) == values_of(records)
    assert keys_of(made) == keys_of(records)
    assert timestamps_of(made).tolist() == timestamps_of(records).tolist()


@given(st.lists(RECORDS, min_size=1, max_size=4))
def test_parts_joined_are_their_records_in_order(parts: list[list[ReadRecord]]) -> None:
    assert list(join([columns(part) for part in parts])) == [record for part in parts for record in part]


def test_another_name_of_the_topic_changes_nothing_else() -> None:
    records = [ReadRecord("t", 3, 1, 2, b"k", b"v", ())]
    assert list(columns(records).under("u")) == [records[0]._replace(topic="u")]
