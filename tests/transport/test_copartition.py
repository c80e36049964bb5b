"""Who gets which partition: complete, even, and with no more moves than that takes."""

from __future__ import annotations

from itertools import combinations

from hypothesis import given, settings
from hypothesis import strategies as st

from stream.transport.copartition import assign, unequal_partitions

MEMBERS = ("a", "b", "c", "d", "e")


@settings(max_examples=300)
@given(st.integers(1, 7), st.integers(1, 5), st.data())
def test_even_complete_and_with_the_fewest_moves(partitions: int, count: int, data: st.DataObject) -> None:
    members = list(MEMBERS[:count])
    before = {number: data.draw(st.sampled_from([*MEMBERS, None])) for number in range(partitions)}
    after = assign(partitions, members, before)
    assert sorted(after) == list(range(partitions))
    shares = [sum(owner == member for owner in after.values()) for member in members]
    assert sum(shares) == partitions
    assert max(shares) - min(shares) <= 1
    kept = sum(after[number] == before[number] for number in range(partitions))
    assert kept == most_that_can_stay(partitions, members, before)
    assert assign(partitions, members, before) == after
    assert assign(partitions, members, after) == after


def most_that_can_stay(partitions: int, members: list[str], before: dict[int, str | None]) -> int:
    """By trying every choice of members that get one more."""
    share, extra = divmod(partitions, len(members))
    held = {member: sum(owner == member for owner in before.values()) for member in members}
    return max(
        sum(min(held[member], share + (member in chosen)) for member in members)
        for chosen in combinations(members, extra)
    )


def test_nobody_there() -> None:
    assert assign(2, [], {0: "gone"}) == {0: None, 1: None}


def test_unequal_counts_name_the_fix() -> None:
    assert unequal_partitions({"events": 4, "clicks": 4}) is None
    problem = unequal_partitions({"events": 4, "clicks": 2, "views": 3})
    assert problem is not None
    assert "clicks has 2, events has 4, views has 3" in problem
    assert "give clicks and views 4 partitions" in problem
