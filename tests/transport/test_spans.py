"""Spans are a sequence like the list of what they hold."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from stream.transport.records import RecordColumns, join, taken
from stream.transport.spans import Spans, contents_at, joined, list_of, packed

CONTENTS = st.lists(st.none() | st.binary(max_size=5), max_size=12)


@given(CONTENTS)
def test_spans_hold_what_was_packed(contents: list[bytes | None]) -> None:
    spans = packed(contents)
    assert list_of(spans) == list(spans) == contents and len(spans) == len(contents)
    assert [spans[at] for at in range(len(spans))] == contents
    assert packed(spans) is spans and list_of(contents) is contents
    assert list_of(tuple(contents)) == contents


@given(CONTENTS, st.data())
def test_slices_and_choices_are_those_of_the_list(contents: list[bytes | None], data: Any) -> None:
    spans = packed(contents)
    part = data.draw(st.slices(len(contents))) if contents else slice(None)
    assert list(spans[part]) == contents[part]
    positions = np.array(data.draw(st.lists(st.integers(0, len(contents) - 1))) if contents else [], np.int64)
    chosen = [contents[at] for at in positions.tolist()]
    assert list(contents_at(spans, positions)) == list(contents_at(contents, positions)) == chosen


@given(st.lists(st.tuples(CONTENTS.filter(bool), st.booleans(), st.integers(0, 3)), min_size=1, max_size=5))
def test_parts_are_joined_in_order(parts: list[tuple[list[bytes | None], bool, int]]) -> None:
    """Keys and values of a part lie in one buffer; a part may be a piece of it, and some parts may be lists."""
    keys: list[Any] = []
    values: list[Any] = []
    wanted: list[bytes | None] = []
    for contents, as_list, cut in parts:
        whole = [content for pair in zip(contents, contents, strict=True) for content in pair]
        spans = packed(whole)
        mine = (spans[::2][cut:], spans[1::2][cut:]) if cut < len(contents) else (spans[::2], spans[1::2])
        keys.append(list(mine[0]) if as_list else mine[0])
        values.append(list(mine[1]) if as_list else mine[1])
        wanted += list(mine[0])
    found = joined(keys, values)
    assert [list(column) for column in found] == [wanted, wanted]
    if not any(as_list for _, as_list, _ in parts):
        assert all(isinstance(column, Spans) and column.data is found[0].data for column in found)  # type: ignore[attr-defined]


def test_a_piece_of_a_large_buffer_does_not_keep_it() -> None:
    spans = packed([b"x" * 1000] * 100)
    first, second = spans[:1], spans[50:51]
    (found,) = joined([first, second])
    assert isinstance(found, Spans) and len(found.data) == 2000


@given(CONTENTS.filter(bool), st.booleans(), st.data())
def test_records_are_taken_by_position(contents: list[bytes | None], spans: bool, data: Any) -> None:
    count = len(contents)
    column: Any = packed(contents) if spans else contents
    headers = data.draw(st.none() | st.just([(("n", b"v"),)] * count))
    whole = RecordColumns("t", 1, np.arange(count) + 7, np.arange(count) * 2, column, column, headers)
    positions = np.array(data.draw(st.lists(st.integers(0, count - 1), unique=True).map(sorted)), np.int64)
    wanted = [list(whole)[at] for at in positions.tolist()]
    assert list(taken(whole, positions)) == wanted == taken(list(whole), positions)
    assert list(join([whole, whole])) == list(whole) * 2
