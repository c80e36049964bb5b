"""Rule segments through the processor: who enters and leaves when and why, over events, silence, restarts and edits."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.features.spec import parse_features
from stream.runtime import rewrite
from stream.segments import rule_book
from stream.segments.rule_slots import EPOCH, WORD_BITS, WORDS
from stream.segments.rules import MAX_RULES, RuleSegment
from stream.transport.base import OutRecord
from tests.segments.driven import DAY, FEATURES, HOUR, START, Driven, model_of, rule, told

ACTIVE = rule("active", "recency_days < 3")
BUYERS = rule("buyers", "purchases_7d >= 2")
VIPS = rule("vips", "spend_7d >= 100", "spend_7d < 50")


def test_an_event_moves_its_user_and_the_change_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stream.segments.tally.MEASURE_EVERY_S", 0.0)
    driven = Driven(ACTIVE, BUYERS)
    assert told(driven.buy("ann", START)) == [("ann", "+active", "behaviour")]
    (change,) = driven.buy("ann", START + HOUR)
    assert change.from_ is None
    assert change.to is not None
    assert (change.to.id, change.to.name) == ("rule:buyers", "Buyers")
    assert (change.sequence, change.cause, change.confidence, change.model_version) == (2, "behaviour", 1.0, 0)
    assert (change.occurred_at, change.detected_at) == (START + HOUR, START + HOUR)
    assert [(reason.feature, reason.value, reason.z, reason.segment_mean) for reason in change.why] == [
        ("purchases_7d", 2.0, None, None)
    ]
    assert change.source is not None
    assert (change.source.topic, change.source.offset, change.event_id) == ("events", 2, "e2")
    # The metrics hear of it: its cause, and when the event arrived.
    driven.recorder.changes.assert_called_with({"behaviour": 1}, [START + HOUR])
    assert ("rule:buyers", "Buyers", 1) in driven.recorder.population.call_args.args[2]
    driven.check()


def test_an_unknown_value_is_told_as_null() -> None:
    driven = Driven(rule("quiet", "recency_days < 3 and rating_mean is unknown"))
    (change,) = driven.browse("ann", START)
    assert [(reason.feature, reason.value) for reason in change.why] == [("recency_days", 0.0), ("rating_mean", None)]


def test_silence_moves_people_out_at_a_sweep() -> None:
    driven = Driven(ACTIVE, BUYERS)
    driven.buy("ann", START)
    driven.buy("ann", START)
    assert driven.sweep(START + 2 * DAY) == []
    (change,) = driven.sweep(START + 3 * DAY)
    assert told([change]) == [("ann", "-active", "inactivity")]
    assert (change.occurred_at, change.source, change.event_id) == (START + 3 * DAY, None, None)
    assert [(reason.feature, reason.value) for reason in change.why] == [("recency_days", 3.0)]
    assert told(driven.sweep(START + 8 * DAY)) == [("ann", "-buyers", "inactivity")]
    assert told(driven.browse("ann", START + 9 * DAY)) == [("ann", "+active", "behaviour")]
    driven.check()


def test_silence_moves_people_out_on_the_data_s_own_clock_too() -> None:
    driven = Driven(ACTIVE, wall=False)
    driven.browse("ann", START)
    found = driven.browse("bob", START + 10 * DAY)
    assert told(found) == [("ann", "-active", "inactivity"), ("bob", "+active", "behaviour")]
    assert found[0].occurred_at == START + 3 * DAY
    driven.check()


def test_who_is_between_two_thresholds_stays_where_they_are() -> None:
    driven = Driven(VIPS)
    assert driven.buy("ann", START, 60) == []
    assert told(driven.buy("ann", START + HOUR, 50)) == [("ann", "+vips", "behaviour")]
    assert driven.buy("ann", START + 2 * HOUR, -50) == []
    assert told(driven.buy("ann", START + 3 * HOUR, -20)) == [("ann", "-vips", "behaviour")]
    assert driven.buy("ann", START + 4 * HOUR, 20) == []
    driven.check()


def test_both_conditions_at_once_keep_people_out() -> None:
    driven = Driven(rule("odd", "spend_7d >= 100", "purchases_7d > 1"))
    assert driven.buy("ann", START, 50) == []
    assert driven.buy("ann", START, 50) == []
    assert driven.sweep(START + HOUR) == []
    assert told(driven.buy("bob", START + HOUR, 100)) == [("bob", "+odd", "behaviour")]


def test_what_is_left_comes_before_what_is_entered_and_each_by_id() -> None:
    few, some = rule("z-few", "pages_7d < 3"), rule("a-some", "pages_7d >= 3")
    driven = Driven(few, other := rule("b-some", "pages_7d >= 3"))
    driven.browse("ann", START)
    driven.restart(some, few, other)
    driven.sweep(START)
    found = driven.browse("ann", START, 2)
    assert told(found) == [
        ("ann", "-z-few", "behaviour"),
        ("ann", "+a-some", "behaviour"),
        ("ann", "+b-some", "behaviour"),
    ]
    assert [change.sequence for change in found] == [2, 3, 4]
    driven.check()


def test_rule_changes_and_learned_ones_are_one_sequence() -> None:
    driven = Driven(ACTIVE, BUYERS)
    driven.browse("ann", START)
    driven.publish(model_of(centre=20, distance=100))
    first = driven.sweep(START + HOUR)
    assert [(change.to and change.to.id, change.cause, change.sequence) for change in first] == [
        ("newcomer", "entered", 2)
    ]
    driven.buy("ann", START + 2 * HOUR)
    found = driven.feed(
        *[("ann", START + 3 * HOUR, "browse", {"item_id": "i"})] * 18,
        ("ann", START + 3 * HOUR, "purchase", {"item_id": "i", "amount": 5.0, "quantity": 1}),
    )
    assert [(change.to and change.to.id, change.sequence, change.model_version) for change in found] == [
        ("seg-2", 4, 1),
        ("rule:buyers", 5, 1),
    ]
    driven.check()


def test_what_time_did_is_found_at_the_switch_to_a_model_and_is_not_the_model_s_doing() -> None:
    driven = Driven(ACTIVE)
    driven.browse("ann", START)
    driven.sweep(START)
    driven.publish(model_of(centre=20, distance=100))
    driven.browse("bob", START + 1)
    driven.publish(model_of(centre=0.1, distance=100, version=2))
    found = driven.tick(START + 40 * DAY)
    assert {change.cause for change in found if change.model_version == 2 and change.to and change.from_} == {"model"}
    assert told(found) == [("ann", "-active", "inactivity"), ("bob", "-active", "inactivity")]
    driven.check()


def test_the_held_are_in_no_rule_segment_and_nothing_happens_to_them() -> None:
    driven = Driven(ACTIVE, rule("readers", "pages_7d >= 5"))
    driven.publish(model_of(centre=10, distance=50))
    driven.browse("bot", START, 8)
    assert driven.members()["bot"] == {"rule:active", "rule:readers"}
    entered = driven.browse("bot", START + HOUR, 100)
    assert entered[0].to is not None
    assert entered[0].to.id == "quarantine"
    assert told(entered) == [("bot", "-active", "anomaly"), ("bot", "-readers", "anomaly")]
    assert all(not change.why and change.source is None for change in entered[1:])
    driven.check()
    # Held: neither events nor silence nor an edit of the rules move them.
    assert driven.browse("bot", START + 2 * HOUR, 5) == []
    assert driven.sweep(START + 4 * DAY) == []
    driven.restart(ACTIVE, rule("readers", "pages_7d >= 4"), rule("all", "pages_7d >= 0"))
    assert driven.browse("bot", START + 4 * DAY, 1) == []
    assert driven.sweep(START + 4 * DAY + HOUR) == []
    released = driven.sweep(START + 8 * DAY + HOUR)
    assert released[0].from_ is not None
    assert released[0].from_.id == "quarantine"
    assert told(released) == [("bot", "+all", "anomaly")]
    assert [(reason.feature, reason.value) for reason in released[1].why] == [("pages_7d", 1.0)]
    assert told(driven.browse("bot", START + 9 * DAY, 5)) == [
        ("bot", "+active", "behaviour"),
        ("bot", "+readers", "behaviour"),
    ]
    driven.check()


def test_who_is_let_out_while_an_edit_is_under_way_enters_by_that(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rule_book, "SLICE_CHANGES", 1)
    driven = Driven()
    driven.publish(model_of(centre=10, distance=50))
    driven.feed(*[(f"u{n}", START, "browse", {"item_id": "i"}) for n in range(5)])
    driven.browse("bot", START, 8)
    driven.browse("bot", START, 100)
    driven.sweep(START + HOUR)
    driven.restart(rule("all", "pages_7d >= 0"))
    assert told(driven.tick(START + 8 * DAY)) == [("u0", "+all", "model"), ("bot", "+all", "anomaly")]
    driven.check()


def test_a_new_rule_takes_its_members_in_as_an_edit_not_as_behaviour() -> None:
    driven = Driven(ACTIVE)
    driven.buy("ann", START)
    driven.buy("ann", START)
    driven.browse("bob", START)
    driven.restart(ACTIVE, BUYERS)
    (change,) = driven.tick(START + HOUR)
    assert told([change]) == [("ann", "+buyers", "model")]
    assert (change.occurred_at, change.source) == (START + HOUR, None)
    driven.tick(START + HOUR)
    assert driven.population.rules.settled
    # From now on it is behaviour again.
    driven.buy("bob", START + HOUR)
    assert told(driven.buy("bob", START + HOUR)) == [("bob", "+buyers", "behaviour")]
    driven.check()


def test_a_rule_that_was_taken_out_lets_its_members_go() -> None:
    driven = Driven(ACTIVE, rule("buyers", "purchases_7d >= 1", name="Good customers"))
    driven.buy("ann", START)
    driven.browse("bob", START)
    driven.restart(ACTIVE)
    (change,) = driven.tick(START + HOUR)
    assert told([change]) == [("ann", "-buyers", "model")]
    assert change.from_ is not None
    assert (change.from_.name, change.why) == ("Good customers", ())
    driven.tick(START + HOUR)
    assert set(driven.population.rules.slots) == {"rule:active"}
    driven.check()


def test_all_rules_gone_and_back_again() -> None:
    driven = Driven(ACTIVE, BUYERS)
    driven.browse("ann", START)
    driven.restart()
    assert told(driven.sweep(START + HOUR)) == [("ann", "-active", "model")]
    assert driven.population.rules.slots == {}
    driven.restart(ACTIVE, BUYERS)
    assert told(driven.sweep(START + 2 * HOUR)) == [("ann", "+active", "model")]
    driven.check()


def test_an_edited_condition_moves_people_as_an_edit_and_others_keep_their_causes() -> None:
    driven = Driven(ACTIVE, rule("readers", "pages_7d >= 5"))
    driven.browse("ann", START, 3)
    driven.restart(ACTIVE, rule("readers", "pages_7d >= 2"))
    # The first look after the edit is one that time moves too.
    assert told(driven.sweep(START + 4 * DAY)) == [("ann", "-active", "inactivity"), ("ann", "+readers", "model")]
    driven.check()


def test_an_event_before_the_pass_reaches_its_user_still_tells_the_edit_apart() -> None:
    driven = Driven(ACTIVE, rule("readers", "pages_7d >= 5"))
    driven.browse("ann", START, 3)
    driven.sweep(START + 4 * DAY)
    driven.restart(ACTIVE, rule("readers", "pages_7d >= 2"))
    assert not driven.population.rules.settled
    found = driven.browse("ann", START + 5 * DAY)
    assert told(found) == [("ann", "+active", "behaviour"), ("ann", "+readers", "model")]
    assert [change.source is None for change in found] == [False, True]
    # Once looked at, the next change of the same rule is the user's own doing.
    assert told(driven.browse("bob", START + 5 * DAY, 2)) == [
        ("bob", "+active", "behaviour"),
        ("bob", "+readers", "behaviour"),
    ]
    driven.check()


@pytest.mark.parametrize(
    "same",
    [
        [BUYERS, ACTIVE],
        [rule("active", "(recency_days<3.0)"), BUYERS],
        [rule("active", "recency_days < 3", name="Lively"), BUYERS],
    ],
    ids=["order", "wording", "name"],
)
def test_order_wording_and_names_are_no_edits(same: list[RuleSegment]) -> None:
    driven = Driven(ACTIVE, BUYERS)
    driven.browse("ann", START)
    driven.buy("bob", START)
    driven.buy("bob", START)
    before = driven.members()
    driven.restart(*same)
    assert driven.population.rules.settled
    assert driven.members() == before
    assert {name for _, name in driven.population.rules.members()} == {one.name for one in same}
    assert driven.sweep(START + HOUR) == []
    assert told(driven.sweep(START + 4 * DAY)) == [("ann", "-active", "inactivity"), ("bob", "-active", "inactivity")]
    driven.check()


def test_a_feature_that_is_declared_otherwise_is_an_edit_of_its_rules() -> None:
    driven = Driven(ACTIVE, rule("buyers", "purchases_7d >= 1"))
    driven.buy("ann", START)
    driven.sweep(START)
    longer = [
        {**feature.model_dump(), "window": "14d", "tiles": 14}
        if feature.name == "purchases_7d"
        else feature.model_dump()
        for feature in FEATURES
    ]
    driven.restart(*driven.rules, features=parse_features(longer))
    # A longer window is another column, and begins empty.
    assert told(driven.sweep(START + 4 * DAY)) == [("ann", "-active", "inactivity"), ("ann", "-buyers", "model")]
    driven.check()


def test_a_bit_is_given_on_only_when_nobody_can_have_it_set() -> None:
    one = [rule(f"one-{n:03}", f"pages_7d >= {n % 3}") for n in range(MAX_RULES)]
    other = [rule(f"other-{n:03}", f"pages_7d >= {n % 3}") for n in range(MAX_RULES)]
    assert len(one) == WORDS * WORD_BITS
    driven = Driven(*one)
    driven.browse("ann", START, 1)
    expected = {f"{n:03}" for n in range(MAX_RULES) if n % 3 < 2}
    assert driven.members()["ann"] == {f"rule:one-{n}" for n in expected}
    driven.restart(*other)
    # No bit is free: the new rules wait until the old ones' members have left.
    found = driven.sweep(START + HOUR)
    assert {what[:5] for _, what, _ in told(found)[: len(expected)]} == {"-one-"}
    assert {what[:5] for _, what, _ in told(found)[len(expected) :]} == {"+othe"}
    assert driven.members()["ann"] == {f"rule:other-{n}" for n in expected}
    assert {cause for _, _, cause in told(found)} == {"model"}
    driven.check()


def test_after_an_edit_people_are_moved_a_slice_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rule_book, "SLICE_CHANGES", 7)
    driven = Driven()
    driven.feed(*[(f"u{n}", START, "browse", {"item_id": "i"}) for n in range(20)])
    driven.restart(ACTIVE)
    sizes = []
    while not driven.population.rules.settled:
        sizes.append(len(driven.tick(START + 1)))
    assert sizes == [7, 7, 6, 0]
    driven.check()


def test_a_sweep_leaves_those_who_are_overdue_to_the_pass_and_lets_nobody_else_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rule_book, "SLICE_CHANGES", 4)
    driven = Driven(ACTIVE)
    driven.feed(*[(f"u{n}", START, "browse", {"item_id": "i"}) for n in range(9)])
    driven.sweep(START)
    driven.restart(ACTIVE, rule("all", "pages_7d >= 0"))
    # Two users at a time now; the sweep that is due looks at all of them.
    found = driven.tick(START + 4 * DAY)
    assert driven.population.counters["sweeps"] == 2
    assert told(found) == [
        *[(f"u{n}", what, cause) for n in range(2) for what, cause in (("-active", "inactivity"), ("+all", "model"))]
    ]
    assert told(driven.browse("new", START + 4 * DAY)) == [
        ("new", "+active", "behaviour"),
        ("new", "+all", "behaviour"),
    ]
    assert len(driven.sweep(START + 4 * DAY + HOUR)) == 7 * 2
    driven.check()


def test_a_pass_that_was_broken_off_goes_on_where_it_stood(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rule_book, "SLICE_CHANGES", 7)
    driven = Driven()
    driven.feed(*[(f"u{n}", START, "browse", {"item_id": "i"}) for n in range(20)])
    driven.restart(ACTIVE)
    assert len(driven.tick(START + 1)) == 7
    driven.restart(ACTIVE)
    assert not driven.population.rules.settled
    assert [len(driven.tick(START + 1)) for _ in range(3)] == [7, 6, 0]
    assert driven.population.rules.settled
    driven.restart()
    assert len(driven.tick(START + 1)) == 7
    driven.restart()
    assert [len(driven.tick(START + 1)) for _ in range(3)] == [7, 6, 0]
    assert driven.population.rules.slots == {}
    driven.check()


@pytest.fixture
def only_touched(monkeypatch: pytest.MonkeyPatch) -> None:
    """A commit carries what was touched and next to nothing else, so that what was forgotten is missed."""
    monkeypatch.setattr(rewrite, "HELD_SHARE", 10**9)


@pytest.mark.usefixtures("only_touched")
def test_who_was_moved_by_a_sweep_alone_is_still_so_after_a_restart() -> None:
    driven = Driven(ACTIVE)
    driven.feed(*[(f"u{n}", START, "browse", {"item_id": "i"}) for n in range(20)])
    driven.sweep(START + 3 * DAY - HOUR)  # which observes them all, and so does not touch them again soon
    assert len(driven.sweep(START + 3 * DAY)) == 20
    driven.restart(ACTIVE)
    assert driven.sweep(START + 3 * DAY + HOUR) == []
    driven.check()


@pytest.mark.usefixtures("only_touched")
def test_who_was_looked_at_since_an_edit_is_not_overdue_after_a_restart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rule_book, "SLICE_CHANGES", 14)
    driven = Driven(ACTIVE)
    driven.feed(*[(f"u{n}", START, "browse", {"item_id": "i"}) for n in range(20)])
    edited = ACTIVE, rule("never", "pages_7d > 1000")
    driven.restart(*edited)
    driven.sweep(START)
    driven.restart(ACTIVE)
    driven.tick(START + 1)
    driven.restart(ACTIVE)
    epochs = driven.population.table.column(EPOCH)
    # Seven were looked at.
    assert (epochs < driven.population.rules.epoch).sum() == 13


def test_on_the_data_s_own_clock_an_edit_is_followed_before_the_next_event() -> None:
    driven = Driven(ACTIVE, wall=False)
    driven.browse("ann", START, 3)
    driven.restart(rule("readers", "pages_7d >= 2"), rule("all", "recency_days >= 0"))
    found = driven.browse("ann", START + HOUR)
    assert told(found) == [("ann", "-active", "model"), ("ann", "+all", "model"), ("ann", "+readers", "model")]
    assert {change.occurred_at for change in found} == {START}
    driven.check()


# -- against a user-by-user oracle ---------------------------------------------------------------------------------

USERS = ("ann", "bob", "cem", "dee")
RULES = (
    ACTIVE,
    BUYERS,
    VIPS,
    rule("raters", "rating_mean >= 4"),
    rule("strangers", "purchase_recency_days is unknown"),
)
"""With what decides membership of each, in Python: from values and whether the user is inside."""
ORACLE: dict[str, Any] = {
    "rule:active": lambda v, inside: v["recency_days"] < 3,
    "rule:buyers": lambda v, inside: v["purchases_7d"] >= 2,
    "rule:vips": lambda v, inside: v["spend_7d"] >= (50 if inside else 100),
    "rule:raters": lambda v, inside: v["rating_mean"] >= 4,  # false for NaN
    "rule:strangers": lambda v, inside: math.isnan(v["purchase_recency_days"]),
}

events = st.tuples(
    st.sampled_from(USERS),
    st.sampled_from(
        [
            ("browse", {"item_id": "i"}),
            ("purchase", {"item_id": "i", "amount": 60.0, "quantity": 1}),
            ("purchase", {"item_id": "i", "amount": -60.0, "quantity": 1}),
            ("review", {"item_id": "i", "rating": 5}),
            ("review", {"item_id": "i", "rating": 1}),
        ]
    ),
)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("events"), st.lists(events, min_size=1, max_size=5), st.integers(0, 3 * DAY)),
        st.tuples(st.just("sweep"), st.just([]), st.integers(HOUR, 9 * DAY)),
        st.tuples(st.just("edit"), st.permutations(RULES).map(lambda some: some[1:]), st.just(0)),
        st.tuples(st.just("restart"), st.just([]), st.just(0)),
    ),
    min_size=1,
    max_size=12,
)


def members_by_hand(driven: Driven, before: dict[str, set[str]], at: int) -> dict[str, set[str]]:
    table = driven.population.table
    found: dict[str, set[str]] = {}
    for user, row in zip(table.user_ids, table.features(None, at).tolist(), strict=True):
        values = dict(zip(driven.layout.names, row, strict=True))
        found[user] = {one.id for one in driven.rules if ORACLE[one.id](values, one.id in before.get(user, set()))}
    return found


@settings(max_examples=60, deadline=None)
@given(steps, st.booleans())
def test_after_every_look_everybody_is_where_their_rules_say(
    script: list[tuple[str, Any, int]], restarts: bool
) -> None:
    driven, now = Driven(*RULES), START
    for what, subject, wait in script:
        now += wait
        before = driven.members()
        if what == "events":
            touched = {user for user, _ in subject}
            driven.feed(*[(user, now, kind, rest) for user, (kind, rest) in subject])
            expected = members_by_hand(driven, before, driven.population.now())
            assert {user: driven.members()[user] for user in touched} == {user: expected[user] for user in touched}
        elif what == "sweep":
            driven.sweep(now)
            assert driven.members() == members_by_hand(driven, before, driven.population.now())
        elif what == "edit":
            driven.restart(*subject)
        else:
            driven.restart(*driven.rules)
        if restarts and what != "edit":
            driven.restart(*driven.rules)
    driven.sweep(now + HOUR)
    assert all(members <= {one.id for one in driven.rules} for members in driven.members().values())
    driven.check()


@settings(max_examples=25, deadline=None)
@given(steps, st.booleans())
def test_restarts_make_no_difference_to_what_is_written(script: list[tuple[str, Any, int]], wall: bool) -> None:
    # Only what was touched is written, so that what should have been is missed.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rewrite, "HELD_SHARE", 10**9)
        patch.setattr(rule_book, "SLICE_CHANGES", 5)
        assert run(script, wall, restarts=True) == run(script, wall, restarts=False)


def run(script: list[tuple[str, Any, int]], wall: bool, restarts: bool) -> list[OutRecord]:
    driven, now = Driven(*RULES, wall=wall), START
    for what, subject, wait in script:
        now += wait
        if what == "events":
            driven.feed(*[(user, now, kind, rest) for user, (kind, rest) in subject])
        elif what == "sweep" and wall:
            driven.sweep(now)
        elif what == "edit":
            driven.restart(*subject)
        if restarts and what != "edit":
            driven.restart(*driven.rules)
    driven.check()
    return driven.written
