from __future__ import annotations

import fnmatch
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from schemas.change import SegmentChange, SegmentRef
from schemas.types import CAUSES
from stream.campaigns.rules import Campaign, Campaigns, When, selects
from tests.campaigns.support import campaign, change, ref

NAMES = ["Newcomers", "High-value loyal", "high-value bargain", "Drifting away", "Q", ""]
IDS = ["newcomer", "seg-1", "seg-2", "quarantine", "rule:vip"]
PATTERNS = [
    "*",
    "none",
    "newcomer",
    "seg-1",
    "Newcomers",
    "newcomers",
    "High*",
    "*value*",
    "?",
    "*away",
    "high-value ?oyal",
    "not newcomer",
    "not *value*",
    "not none",
    "seg-*",
    "not rule:*",
    "se*",
]

segments = st.none() | st.builds(
    SegmentRef, id=st.sampled_from(IDS), name=st.none() | st.sampled_from([n for n in NAMES if n])
)
selectors = st.sampled_from(PATTERNS) | st.lists(st.sampled_from(PATTERNS), min_size=1, max_size=3)
whens = st.one_of(
    st.fixed_dictionaries({"enter": selectors}),
    st.fixed_dictionaries({"exit": selectors}),
    st.fixed_dictionaries({"transition": st.fixed_dictionaries({"from": selectors, "to": selectors})}),
)
changes = st.builds(
    SegmentChange,
    id=st.just("c"),
    user_id=st.just("u"),
    sequence=st.just(1),
    from_=segments,
    to=segments,
    cause=st.sampled_from(CAUSES),
    occurred_at=st.just(1),
    detected_at=st.just(1),
    model_version=st.just(1),
    confidence=st.sampled_from([0.0, 0.4, 0.5, 1.0]),
)


@st.composite
def written(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Campaigns as they stand in a file."""
    optional = {
        "enabled": st.booleans(),
        "causes": st.lists(st.sampled_from(CAUSES), min_size=1),
        "min_confidence": st.sampled_from([0.0, 0.5, 1.0]),
    }
    found = draw(st.lists(st.fixed_dictionaries({"when": whens}, optional=optional), max_size=5))
    action = {"action": {"log": {"path": "x.jsonl"}}}
    return [{"name": f"c{number}", **fields, **action} for number, fields in enumerate(found)]


def naive_selects(selector: str | list[str], segment: SegmentRef | None) -> bool:
    if isinstance(selector, list):
        refused = any(one.startswith("not ") and naive_selects(one[4:], segment) for one in selector)
        if all(one.startswith("not ") for one in selector):
            return segment is not None and not refused
        return not refused and any(naive_selects(one, segment) for one in selector if not one.startswith("not "))
    if selector.startswith("not "):
        return naive_selects([selector], segment)
    if segment is None:
        return selector == "none"
    if selector == "*" or selector == segment.id:
        return True
    if selector[:4] == "seg-" or selector[:5] == "rule:":
        return fnmatch.fnmatchcase(segment.id, selector)
    return segment.name is not None and fnmatch.fnmatchcase(segment.name.lower(), selector.lower())


def naive_fires(fields: dict[str, Any], change: SegmentChange) -> bool:
    if not fields.get("enabled", True):
        return False
    if change.cause not in fields.get("causes", ["entered", "behaviour"]):
        return False
    if change.confidence < fields.get("min_confidence", 0):
        return False
    when = fields["when"]
    about_a_rule = "rule:" in f"{change.from_ and change.from_.id} {change.to and change.to.id}"

    def selects(selector: str | list[str], segment: SegmentRef | None) -> bool:
        if segment is None and about_a_rule:
            return False  # a rule segment is entered from nothing and left for nothing, which is not being in none
        return naive_selects(selector, segment)

    if "enter" in when:
        return selects(when["enter"], change.to)
    if "exit" in when:
        return selects(when["exit"], change.from_)
    sides = when["transition"]
    return selects(sides["from"], change.from_) and selects(sides["to"], change.to)


def test_leaving_a_rule_segment_is_not_entering_none() -> None:
    left = SegmentChange.model_validate(change().model_dump(by_alias=True) | {"to": None})
    left = left.model_copy(update={"from_": SegmentRef(id="rule:vip", name=None)})
    assert not Campaigns([campaign(when={"enter": "none"})]).match(left)


@given(written(), st.lists(changes, min_size=1, max_size=8))
def test_the_campaigns_that_fire_are_those_of_a_naive_reading(
    file: list[dict[str, Any]], seen: list[SegmentChange]
) -> None:
    campaigns = Campaigns(Campaign.model_validate(fields) for fields in file)
    for one in seen:
        expected = [fields["name"] for fields in file if naive_fires(fields, one)]
        assert [c.name for c in campaigns.match(one)] == expected
        assert [c.name for c in campaigns if c.fires_on(one)] == expected


def test_the_table_of_pairs_stays_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Campaigns, "_MAX_PAIRS", 4)
    campaigns = Campaigns([campaign(when={"enter": "s1*"})])
    hits = [number for number in range(40) if campaigns.match(change(entered=f"s{number}"))]
    assert hits == [1, *range(10, 20)]
    assert len(campaigns._by_pair) <= 4


def test_a_bracket_in_a_name_is_a_bracket() -> None:
    assert selects(("[VIP] *",), ref("[vip] gold"))
    assert not selects(("[VIP]*",), ref("v"))


def test_a_new_model_or_quarantine_fires_nothing_by_default() -> None:
    default = campaign()
    campaigns = Campaigns([default])
    assert [cause for cause in CAUSES if default.fires_on(change(cause=cause))] == ["entered", "behaviour"]
    assert [cause for cause in CAUSES if campaigns.match(change(cause=cause))] == ["entered", "behaviour"]


def test_defaults_protect_people() -> None:
    plain = Campaign.model_validate(
        {"name": "x", "when": {"enter": "*"}, "action": {"webhook": {"url": "https://example.com/"}}}
    )
    assert plain.cap is not None
    assert (plain.cap.at_most, plain.cap.per) == (1, 86_400_000)
    assert plain.enabled
    assert plain.min_confidence == 0
    sink = plain.action.webhook
    assert sink is not None
    assert (sink.timeout, sink.max_attempts, sink.secret_env) == (10_000, 15, None)


@pytest.mark.parametrize("off", ["none", False])
def test_a_cap_is_taken_off_in_so_many_words(off: object) -> None:
    assert campaign(cap=off).cap is None


@pytest.mark.parametrize(
    ("sink", "complaint"),
    [
        ({"url": "ftp://example.com"}, "no http or https URL"),
        ({"url": "https://me:pw@example.com"}, "holds no password"),
        ({"url": "https://example.com/#x"}, "'#'"),
        ({"url": "https://example.com", "secret_env": "whsec_abc"}, "never the secret itself"),
        ({"url": "https://example.com", "secret_env": "a b"}, "name of an environment variable"),
        ({"url": "https://example.com", "headers": {"Authorization": "Bearer abc"}}, "is a secret"),
        ({"url": "https://example.com", "headers": {"Webhook-Id": "abc"}}, "set by the sender"),
        ({"url": "https://example.com", "headers": {"Host": "abc"}}, "set by the sender"),
        ({"url": "https://example.com", "headers": {"X-A": "a\r\nX-B: b"}}, "control character"),
        ({"url": "https://example.com", "headers": {"X A": "a"}}, "no name of a header"),
        ({"url": "https://example.com", "timeout": "31s"}, "less than or equal to 30000"),
        ({"url": "https://example.com", "max_attempts": 0}, "greater than or equal to 1"),
    ],
)
def test_a_webhook_that_cannot_work_is_refused(sink: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValidationError, match=r"action\.webhook") as error:
        campaign(action={"webhook": sink})
    assert complaint in str(error.value)


@pytest.mark.parametrize(
    "parameters", [{"x": float("nan")}, {"x": "a" * 20_000}, {"x": object()}, {1: "x"}, {"x": [float("inf")]}]
)
def test_parameters_are_json_that_can_be_sent(parameters: dict[Any, Any]) -> None:
    with pytest.raises(ValidationError, match="parameters"):
        campaign(parameters=parameters)


def test_none_is_no_side_of_a_rule_segment() -> None:
    """A rule segment is entered from nothing: that is not somebody's first learned segment, nor the loss of one."""
    vip, learned = SegmentRef(id="rule:vip", name="VIP"), SegmentRef(id="seg-1", name="Loyal")
    first = When.model_validate({"transition": {"from": "none", "to": "*"}})
    assert first.matches(None, learned)
    assert not first.matches(None, vip)
    lost = When.model_validate({"enter": "none"})
    assert lost.matches(learned, None)
    assert not lost.matches(vip, None)
    assert When.model_validate({"enter": "rule:vip"}).matches(None, vip)
    assert When.model_validate({"exit": "rule:*"}).matches(vip, None)
