from __future__ import annotations

from typing import Any

import orjson
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from stream.campaigns import table as module
from stream.campaigns.table import StateTable
from stream.runtime.stage import StateDelta

KEYS = [f"k{number}" for number in range(60)]
steps = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.sampled_from(KEYS), st.integers(0, 2**53)),
        st.tuples(st.just("remove"), st.sampled_from(KEYS), st.just(0)),
        st.tuples(st.just("delta"), st.just(""), st.just(0)),
        st.tuples(st.just("restart"), st.just(""), st.just(0)),
    ),
    max_size=150,
)


def pairs(deltas: list[StateDelta]) -> list[tuple[dict[str, Any], bytes]]:
    return [(delta.meta, delta.payload) for delta in deltas]


def restored(deltas: list[StateDelta]) -> dict[str, Any]:
    table = StateTable()
    table.restore(pairs(deltas))
    return table.rows


@pytest.fixture(autouse=True)
def _short_cycles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MIN_CYCLE", 3)
    monkeypatch.setattr(module, "MIN_SLICE", 2)


@given(st.integers(0, 30), steps)
def test_what_is_kept_holds_the_whole_state(begin_with: int, todo: list[tuple[str, str, int]]) -> None:
    table, deltas = StateTable(), list[StateDelta]()
    todo = [*(("put", key, 0) for key in KEYS[:begin_with]), ("delta", "", 0), *todo]
    truth: dict[str, list[int]] = {}  # as of the last delta
    told: list[dict[str, list[int]]] = []
    for what, key, value in [*todo, ("delta", "", 0)]:
        if what == "put":
            table.put(key, [value])
        elif what == "remove":
            table.remove(key)
        elif what == "delta":
            deltas.append(table.delta({}))
            truth = dict(table.rows)
            told.append(truth)
        else:
            table = StateTable()
            table.restore(pairs(deltas[len(deltas) - deltas[-1].keeps :]))
            assert table.rows == truth
    for number, delta in enumerate(deltas):
        assert 1 <= delta.keeps <= number + 1
        assert restored(deltas[number + 1 - delta.keeps : number + 1]) == told[number]
    needed = [number + 1 - delta.keeps for number, delta in enumerate(deltas)]
    assert needed == sorted(needed), "what was let go is needed no more"


def test_what_has_expired_leaves_with_its_slice() -> None:
    table = StateTable()
    for key in KEYS:
        table.put(key, [int(key[1:])])
    deltas = [table.delta({}), *(table.delta({}, lambda key, row: row[0] % 2 == 0) for _ in range(40))]
    assert {row[0] % 2 for row in table.rows.values()} == {1}
    assert restored(deltas) == table.rows
    assert deltas[-1].keeps < len(deltas) - 1


def test_a_row_that_came_and_went_between_two_deltas_leaves_no_trace() -> None:
    table = StateTable()
    table.put("kept", [1])
    assert table.delta({}).payload != b""
    table.put("brief", [1])
    table.remove("brief")
    assert not table.changed
    table.remove("kept")
    table.put("kept", [2])
    table.remove("kept")
    assert table.changed
    deltas = [table.delta({})]
    assert restored(deltas) == {}
    assert orjson.loads(zstandard.ZstdDecompressor().decompress(deltas[0].payload)) == {"kept": None}


def test_meta_comes_back_and_an_unknown_version_is_refused() -> None:
    table = StateTable()
    delta = table.delta({"clock": 7})
    assert StateTable().restore(pairs([delta]))["clock"] == 7
    assert StateTable().restore([]) == {}
    with pytest.raises(ValueError, match="version 99"):
        StateTable().restore([({"v": 99}, b"")])
