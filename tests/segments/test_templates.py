"""Templates: the oracle is Python's own formatting of bytes, whichever way they are filled."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream import kernels
from stream.segments.templates import Template

pytestmark = pytest.mark.usefixtures("either_kernels")

TEXT = st.binary(max_size=20).map(lambda text: text.replace(b"%", b"")) | st.integers(0, 5_000).map(lambda n: b"x" * n)
NUMBERS = st.integers(-(2**63), 2**63 - 1) | st.sampled_from([0, 9, 10, -1, -(2**63), 2**63 - 1])
ROWS = st.lists(st.tuples(TEXT, NUMBERS, NUMBERS, TEXT), max_size=20)


@given(TEXT, TEXT, TEXT, ROWS)
def test_a_template_is_filled_row_by_row(before: bytes, between: bytes, behind: bytes, rows: list[Any]) -> None:
    text = before + b"%b" + between + b"%d%d" + behind + b"%b"
    columns = [[row[gap] for row in rows] for gap in range(4)]
    assert Template(text).fill(*columns) == [text % row for row in rows]


def test_a_text_in_utf8_and_the_gaps_at_both_ends_stay_what_they_are() -> None:
    assert Template("%b größer %d".encode()).fill(["日".encode(), b""], [1, -20]) == [
        "日 größer 1".encode(),
        " größer -20".encode(),
    ]


@pytest.mark.parametrize("columns", [([b"a"], []), ([], [1]), ([b"a", b"b"], [1])])
def test_columns_of_other_lengths_are_refused(columns: Any) -> None:
    with pytest.raises(ValueError, match=r"zip|column"):
        Template(b"%b%d").fill(*columns)


@pytest.mark.parametrize("content", [None, "text", 0.5, [b"a"]])
def test_other_contents_are_refused(content: Any) -> None:
    with pytest.raises(TypeError):
        Template(b"%b").fill([b"a", content])


@pytest.mark.skipif(not kernels.built(), reason="the kernels are not compiled here")
def test_the_kernel_refuses_what_does_not_fit() -> None:
    fill: Any = kernels.templates.fill
    for parts, columns in [((b"", b""), ([b"a"], [b"b"])), ((b"",), ([b"a"],)), ((b"",) * 34, ([b"a"],) * 33)]:
        with pytest.raises(ValueError, match="parts for"):
            fill(parts, columns, 1)
    wrong: Any = [((b"", ""), ([b"a"],)), ((b"", b""), ((b"a",),)), ((b"", None), ([b"a"],))]
    for parts, columns in wrong:
        with pytest.raises(TypeError):
            fill(parts, columns, 1)
    with pytest.raises(OverflowError):
        fill((b"", b""), ([2**63],), 1)
    assert fill((b"a",), (), 2) == [b"a", b"a"]
