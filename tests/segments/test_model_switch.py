"""A new model comes to a million people in slices: each is relabelled once, and what they do meanwhile is theirs."""

from __future__ import annotations

import pytest

from tests.segments.driven import START, Driven, model_of

HOUR = 3_600_000
USERS = 350
"""Three and a half slices."""


def crowd() -> Driven:
    """Everybody with five pages, in segment 1 of a first model whose segment 2 is around 20 pages."""
    driven = Driven()
    driven.publish(model_of(centre=20, distance=1e6))
    driven.feed(*[(f"u{n:04d}", START, "browse", {"item_id": "i"}) for n in range(USERS) for _ in range(5)])
    driven.sweep(START + HOUR)
    assert set(driven.population.table.column("segment").tolist()) == {1}
    return driven


def finish(driven: Driven, now: int) -> list[tuple[str, str]]:
    """Tick until the switch is over."""
    found: list[tuple[str, str]] = []
    for _ in range(20):
        found += [(change.user_id, change.cause) for change in driven.tick(now)]
        if driven.population.model_version == 2:
            return found
    raise AssertionError("the switch never ends")


def test_everybody_is_moved_once_and_slice_by_slice() -> None:
    driven = crowd()
    driven.publish(model_of(centre=6, distance=1e6, version=2))
    first = driven.tick(START + HOUR + 1)
    assert len(first) == 100, "one slice a tick, and no sweep before the switch is over"
    moved = [(change.user_id, change.cause) for change in first] + finish(driven, START + HOUR + 1)
    assert sorted(moved) == [(f"u{n:04d}", "model") for n in range(USERS)]
    driven.check()


@pytest.mark.parametrize("restart", [False, True])
def test_who_does_something_meanwhile_is_moved_by_the_model_first_and_by_that_then(restart: bool) -> None:
    driven = crowd()
    driven.publish(model_of(centre=6, distance=1e6, version=2))
    driven.tick(START + HOUR + 1)
    # Of the last slice: the model puts them into segment 2, and what they do then keeps them there.
    late = driven.browse("u0340", START + HOUR + 2)
    assert [(c.user_id, c.cause, c.to.id if c.to else None) for c in late if c.user_id == "u0340"] == [
        ("u0340", "model", "seg-2")
    ]
    if restart:
        driven.restart()
    rest = finish(driven, START + HOUR + 3)
    assert ("u0340", "model") not in rest, "nobody is switched twice"
    driven.check()


def test_who_comes_meanwhile_knows_the_new_model_only() -> None:
    driven = crowd()
    driven.publish(model_of(centre=6, distance=1e6, version=2))
    driven.tick(START + HOUR + 1)
    new = driven.browse("zoe", START + HOUR + 2, 6)
    assert [(c.cause, c.model_version) for c in new if c.user_id == "zoe"] == [("entered", 2)]
    assert "zoe" not in [user for user, _ in finish(driven, START + HOUR + 3)]
    driven.check()


def test_a_third_model_in_the_middle_of_the_second_one() -> None:
    driven = crowd()
    driven.publish(model_of(centre=6, distance=1e6, version=2))
    driven.tick(START + HOUR + 1)
    driven.publish(model_of(centre=20, distance=1e6, version=3))
    found = []
    for _ in range(20):
        found += [(change.user_id, change.cause, change.model_version) for change in driven.tick(START + HOUR + 2)]
    assert driven.population.model_version == 3
    assert sorted(found) == [(f"u{n:04d}", "model", 3) for n in range(100)], "those of the first slice go back"
    driven.check()


def test_under_the_datas_own_clock_it_is_one_instant() -> None:
    driven = Driven(wall=False)
    driven.publish(model_of(centre=20, distance=1e6))
    driven.feed(*[(f"u{n:04d}", START, "browse", {"item_id": "i"}) for n in range(USERS) for _ in range(5)])
    driven.publish(model_of(centre=6, distance=1e6, version=2))
    found = driven.browse("zoe", START + HOUR)
    assert sum(change.cause == "model" for change in found) == USERS
    driven.check()
