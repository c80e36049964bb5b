"""Both indices of users against a dict: the same rows, whatever the ids are."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream import kernels
from stream.features.index import index_of
from stream.features.texts import Texts
from stream.transport.spans import packed
from tests.features.guarded import Guarded

pytestmark = pytest.mark.usefixtures("either_kernels")

# JSON cannot say a surrogate alone; the state of users could hold one.
ID = (
    st.text("ab", max_size=3)
    | st.text(max_size=4)
    | st.integers(0, 60).map(lambda n: f"user-{n:08d}")
    | st.just("\ud800")
)
LONG = st.builds(
    lambda text, n: text * n, st.sampled_from(["a", "ab", "ü"]), st.sampled_from([127, 128, 129, 257, 1000])
)


@given(st.lists(ID | LONG), st.lists(ID | LONG), st.lists(ID | LONG))
def test_rows_are_those_of_a_dict(first: list[str], then: list[str], asked: list[str]) -> None:
    ids = list(dict.fromkeys(first))
    rows = {user_id: row for row, user_id in enumerate(ids)}
    index = index_of(ids)
    for user_id in then:
        wanted = rows.setdefault(user_id, len(rows))
        assert index.add(user_id) == wanted
    assert ids == list(rows)
    both = [*then, *asked, *first]
    assert index.rows(both).tolist() == [rows.get(user_id, -1) for user_id in both]
    assert [index.get(user_id) for user_id in both] == [rows.get(user_id) for user_id in both]


@given(st.lists(ID.filter(str.isascii)), st.lists(ID.filter(str.isascii)))
def test_ids_are_looked_up_where_they_lie(first: list[str], asked: list[str]) -> None:
    ids = list(dict.fromkeys([*first, "ü"]))
    rows = {user_id: row for row, user_id in enumerate(ids)}
    where = Texts(packed([b"user-0", *(user_id.encode() for user_id in asked), b"user-1"])[1:-1])
    assert index_of(ids).rows(where).tolist() == [rows.get(user_id, -1) for user_id in asked]


def test_many_ids_and_room_for_more() -> None:
    rng = random.Random(1)
    ids: list[str] = []
    index = index_of(ids)
    made = [f"user-{number:08d}" for number in range(50_000)]
    rng.shuffle(made)
    assert [index.add(user_id) for user_id in made] == list(range(50_000))
    asked = [rng.choice(made) if rng.randrange(3) else f"{rng.randrange(100_000)}" for _ in range(5_000)]
    rows = {user_id: row for row, user_id in enumerate(made)}
    wanted = [rows.get(user_id, -1) for user_id in asked]
    assert index.rows(asked).tolist() == wanted
    assert index.rows(Texts(packed([user_id.encode() for user_id in asked]))).tolist() == wanted
    assert index_of(made).rows(asked).tolist() == wanted
    assert 50_000 * 8 < index.nbytes < 50_000 * 100


@pytest.mark.skipif(not kernels.built(), reason="the kernels are not compiled here")
def test_misuse_is_refused_and_no_byte_behind_the_end_is_read() -> None:
    with pytest.raises(ValueError, match="row 1 comes twice"):
        kernels.index.Index(["a", "a"])
    ids = [f"{'x' * length}" for length in range(1, 200)]
    index = kernels.index.Index(ids)
    with pytest.raises(ValueError, match="once"):
        index.__init__(ids)  # type: ignore[misc]
    rows = np.empty(1, np.int64)
    guarded = Guarded(4096)
    for length in range(1, 200):
        index.find(guarded.put(b"x" * length), np.zeros(1, np.int64), np.array([length]), rows)
        assert rows[0] == length - 1
    for start, length in ((0, 4), (-1, 1), (2**62, 1), (0, -1), (4, 0)):
        with pytest.raises(ValueError, match="outside"):
            index.find(b"xxx", np.array([start]), np.array([length]), rows)
    with pytest.raises(ValueError, match="one length"):
        index.find(b"xxx", np.zeros(2, np.int64), np.ones(2, np.int64), rows)
    del ids[50:]  # nobody may; then ids are unknown, and nothing worse
    assert index.get("x" * 60) == -1 and index.get("x" * 10) == 9
