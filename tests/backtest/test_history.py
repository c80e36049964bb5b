"""Outcomes and RFM against a plain walk over the events; what comes later must not be known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from producers.source import SourceRow
from stream.backtest import history as history_module
from stream.backtest.history import History, scan
from stream.backtest.rfm import eight, quantile_cells, twenty_five
from stream.features.events import IngestSettings
from tests.backtest.support import DAY, START, Listed, row

HALF_HOUR = 1_800_000
EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["a", "b", "c"]),
        st.integers(0, 40),  # quarter hours since the start
        st.integers(0, 12),  # quarter hours of delay
        st.sampled_from([None, 5.0, 20.0, -8.0, 0.0]),
    ),
    min_size=1,
    max_size=40,
)
QUARTER = 900_000


def rows_of(events: list[tuple[str, int, int, float | None]]) -> list[SourceRow]:
    rows = []
    for i, (user, at, delay, amount) in enumerate(events):
        occurred = START + at * QUARTER
        kind = {"kind": "browse"} if amount is None else {"kind": "purchase", "amount": amount}
        rows.append(row(user, occurred, arrival=occurred + delay * QUARTER, event_id=f"e{i}", **kind))
    return sorted(rows, key=lambda r: r.timestamp)


def scanned(rows: list[SourceRow]) -> History:
    return scan(Listed(rows), IngestSettings())


@given(EVENTS, st.integers(0, 45), st.integers(1, 30))
def test_outcomes_and_rfm_are_those_of_a_plain_walk(
    events: list[tuple[str, int, int, float | None]], at: int, ahead: int
) -> None:
    history = scanned(rows_of(events))
    users = sorted(history.users)
    now, horizon = START + at * QUARTER, ahead * QUARTER
    outcome = history.outcome(history.numbers(users), now, horizon)
    rfm = history.rfm(history.numbers(users), now)
    for i, user in enumerate(users):
        own = [
            (START + t * QUARTER, START + (t + d) * QUARTER, a) for u, t, d, a in events if u == user and a is not None
        ]
        ahead_of = [a for t, arrival, a in own if arrival >= now and now <= t < now + horizon]
        known = [(t, a) for t, arrival, a in own if arrival < now]
        assert outcome.spend[i] == pytest.approx(max(0.0, sum(ahead_of)))
        assert outcome.bought[i] == any(a >= 0 for a in ahead_of)
        bought = [t for t, a in known if a >= 0]
        assert rfm.recency[i] == (max(bought) if bought else -np.inf)
        assert rfm.frequency[i] == len({t // HALF_HOUR for t in bought})
        if any(a for *_, a in events):
            assert rfm.monetary[i] == pytest.approx(sum(a for _, a in known))


def test_an_event_that_is_sent_twice_counts_once() -> None:
    once = row("a", START + DAY, kind="purchase", amount=10.0)
    again = once._replace(timestamp=once.timestamp + 5_000)
    history = scanned([row("b", START), once, again, row("a", START + 2 * DAY, kind="purchase", amount=3.0)])
    outcome = history.outcome(history.numbers(["a", "b"]), START + DAY, 5 * DAY)
    assert outcome.spend.tolist() == [13.0, 0.0]
    assert (history.rows, history.events, len(history.users)) == (4, 4, 2)
    # What had arrived is not next, and it was bought once.
    assert history.outcome(history.numbers(["a"]), START + DAY + 1, 5 * DAY).spend.tolist() == [3.0]
    assert history.rfm(history.numbers(["a"]), START + DAY + 1).frequency.tolist() == [1.0]


def test_broken_rows_are_no_history() -> None:
    history = scanned([SourceRow(None, b"{", START), row("a", START + 5), SourceRow(None, None, START + 9)])
    assert (history.rows, history.events, history.start, history.end) == (3, 1, START + 5, START + 6)
    with pytest.raises(ValueError, match="none of the 1 rows"):
        scanned([SourceRow(None, b"{", START)])


def test_the_sample_holds_all_events_of_some_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history_module, "SAMPLE_EVENTS", 100)
    monkeypatch.setattr(history_module, "CHUNK", 50)
    rows = [row(f"u{i % 40}", START + i * 1_000) for i in range(2_000)]
    history = scanned(rows)
    users = [user for part in history.sample for user in part.batch.user_ids]
    assert 0 < len(users) <= 200
    assert history.share < 1
    assert all(users.count(user) == 50 for user in set(users))
    arrivals = np.concatenate([part.arrival for part in history.sample])
    assert (np.diff(arrivals) > 0).all()


@given(st.lists(st.one_of(st.floats(0, 100), st.just(-np.inf)), min_size=1, max_size=60), st.integers(2, 5))
def test_quantile_cells_keep_equals_together(values: list[float], parts: int) -> None:
    array = np.array(values)
    cells = quantile_cells(array, parts)
    assert cells.min() >= 0 and cells.max() <= parts - 1
    ordered = sorted(values)
    for value, cell in zip(values, cells.tolist(), strict=True):
        # The q-th quantile, lower: the value at floor(q * (n - 1)).
        cuts = [ordered[(k * (len(values) - 1)) // parts] for k in range(1, parts)]
        assert cell == sum(cut < value for cut in cuts)


def test_rfm_cells_separate_the_best_from_the_rest() -> None:
    rows = [
        row(f"u{n}", START + i * DAY + n, kind="purchase", amount=float(n))
        for n in range(1, 31)
        for i in range(n % 7 + 1)
    ]
    history = scanned(sorted(rows, key=lambda r: r.timestamp))
    rfm = history.rfm(history.numbers(list(history.users)), START + 20 * DAY)
    cells = eight(rfm)
    assert 2 <= len(np.unique(cells)) <= 8 and cells.min() >= 0 and cells.max() <= 7
    best = (rfm.recency > np.median(rfm.recency)) & (rfm.frequency > np.median(rfm.frequency))
    assert set(cells[best].tolist()) <= {6, 7}
    assert twenty_five(rfm).max() <= 24
