"""The gate lets pass what arrives before it, in order, all of it and nothing twice."""

from __future__ import annotations

from itertools import islice

from hypothesis import given
from hypothesis import strategies as st

from stream.backtest.gate import Gate
from tests.backtest.support import Listed, row


@given(st.lists(st.integers(0, 40), max_size=30).map(sorted), st.lists(st.integers(0, 45), max_size=8).map(sorted))
def test_rows_pass_up_to_the_gate(arrivals: list[int], stops: list[int]) -> None:
    rows = [row(f"u{i}", at) for i, at in enumerate(arrivals)]
    gate = Gate(Listed(rows))
    feed = gate.rows()
    passed = list(feed)
    assert passed == []
    for stop in [*stops, 100]:
        gate.until = stop
        # A feed takes chunks; one that ends exactly at the gate is asked again.
        while chunk := list(islice(feed, 3)):
            passed += chunk
        assert passed == [r for r in rows if r.timestamp < stop]
        waiting = [r.timestamp for r in rows if r.timestamp >= stop]
        assert gate.next_arrival == (waiting[0] if waiting else None)
    assert gate.total == len(rows) and gate.fingerprint == "listed"


def test_rows_from_a_number_on() -> None:
    rows = [row("u", at) for at in range(10)]
    gate = Gate(Listed(rows))
    gate.until = 8
    assert list(gate.rows(5)) == rows[5:8]
