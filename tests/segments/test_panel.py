"""The panel against a dict and a list."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from stream.segments.panel import Panel

steps = st.lists(st.tuples(st.sampled_from("ppppr"), st.integers(0, 9), st.integers(0, 30)), max_size=60)


def put(panel: Panel, user: int, at: int, weight: float, features: NDArray[np.float64]) -> None:
    """What the caller derives from the features must stay beside them."""
    panel.put(user, at, weight, features, 2 * features, float(features[0]))
    assert np.array_equal(panel.scaled, 2 * panel.features)
    assert np.array_equal(panel.distance, panel.features[:, 0])


@given(steps, st.integers(1, 6))
def test_it_holds_the_latest_of_each_and_forgets_the_longest_unseen(
    history: list[tuple[str, int, int]], capacity: int
) -> None:
    panel = Panel(capacity, 1)
    plain: dict[int, tuple[int, float]] = {}
    for serial, (kind, user, at) in enumerate(history):
        if kind == "r":
            panel.remove(user)
            assert np.array_equal(panel.scaled, 2 * panel.features)
            plain.pop(user, None)
            continue
        if user not in plain and len(plain) == capacity:
            oldest = min(t for t, _ in plain.values())
            gone = next(int(u) for u, t in zip(panel.user_hash, panel.at_ms, strict=True) if t == oldest)
            del plain[gone]
        if user not in plain or at >= plain[user][0]:
            plain[user] = (at, float(serial))
        put(panel, user, at, 1.0 + user, np.array([float(serial)]))
        held = {
            int(u): (int(t), float(x))
            for u, t, x in zip(panel.user_hash, panel.at_ms, panel.features[:, 0], strict=True)
        }
        assert held == plain
        assert panel.weight.tolist() == [1.0 + u for u in panel.user_hash.tolist()]


def test_it_comes_back_row_by_row() -> None:
    rng = np.random.default_rng(0)
    panel = Panel(50, 3)
    for user in range(80):
        put(panel, user, int(rng.integers(0, 1000)), 2.0, rng.normal(size=3))
    panel.remove(79)
    state = {name: array.copy() for name, array in panel.state().items()}
    again = Panel(50, 3)
    again.restore(state, np.arange(3))
    for name, array in panel.state().items():
        assert array.tobytes() == again.state()[name].tobytes(), name
    for user in (3, 200, 201):
        row = rng.normal(size=3)
        panel.put(user, 5_000, 1.0, row, row, 0.0)
        again.put(user, 5_000, 1.0, row, row, 0.0)
    assert panel.user_hash.tolist() == again.user_hash.tolist()


def test_features_are_restored_by_column_and_a_smaller_panel_keeps_the_recent() -> None:
    panel = Panel(4, 2)
    for user, at in ((1, 10), (2, 40), (3, 20), (4, 30)):
        put(panel, user, at, 1.0, np.array([user, -user], np.float64))
    smaller = Panel(2, 3)
    smaller.restore({name: array.copy() for name, array in panel.state().items()}, np.array([1, -1, 0]))
    assert smaller.user_hash.tolist() == [2, 4]
    assert np.array_equal(smaller.features, np.array([[-2, np.nan, 2], [-4, np.nan, 4]]), equal_nan=True)
