"""Rules as they are declared: what configuration accepts, what it says about the rest, and the shipped examples."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError

from stream.config import Config, ConfigError, load
from stream.features.spec import DEFAULT_FEATURES, parse_features
from stream.segments.rule_parser import check_features, parse
from stream.segments.rule_slots import RuleDefinition, RuleSlots, bits_of, has, put
from stream.segments.rules import MAX_RULES, RuleSegment, RuleSegments

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "deploy" / "rules.example.toml"
RULES: TypeAdapter[tuple[RuleSegment, ...]] = TypeAdapter(RuleSegments)


def declared(**changes: Any) -> dict[str, Any]:
    return {"id": "vip", "name": "VIPs", "when": "purchases_30d >= 3", **changes}


def test_an_id_is_written_with_its_prefix_or_without() -> None:
    assert RULES.validate_python([declared()]) == RULES.validate_python([declared(id="rule:vip")])
    assert RULES.validate_python([declared()])[0].id == "rule:vip"


def test_features_are_named_once_in_the_order_of_the_text() -> None:
    rule = RuleSegment(id="a", name="A", when="b > 1 and a > b", leave_when="c is unknown or a < 0")
    assert rule.features == ("b", "a", "c")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"id": "Very Important"}, "rule 'Very Important': id: 'Very Important' must be lower-case letters, digits"),
        ({"id": "rule:"}, "rule 'rule:': id: 'rule:' must be lower-case"),
        ({"name": ""}, "rule 'vip': name: String should have at least 1 character"),
        ({"name": " VIPs"}, "rule 'vip': name: a name is printable"),
        ({"enabled": True}, "rule 'vip': enabled: is not a setting of a rule"),
        ({"when": "purchases_30d >="}, "rule 'vip': when: column 17: it ends too early"),
        ({"leave_when": "spend > 3 x"}, "rule 'vip': leave_when: column 11: 'and' or 'or' is missing before 'x'"),
        ({"leave_when": "(purchases_30d>=3)"}, "rule 'vip': leave_when: is the same as when"),
    ],
)
def test_what_is_wrong_with_a_rule_is_told_with_its_name_and_key(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(message)):
        RULES.validate_python([declared(**changes)])


def test_a_rule_without_a_condition_is_none() -> None:
    with pytest.raises(ValidationError, match="rule 'vip': when: Field required"):
        RULES.validate_python([{"id": "vip", "name": "VIPs"}])


def test_ids_and_names_are_unique() -> None:
    with pytest.raises(ValidationError, match="rule 'rule:vip': id: is declared twice"):
        RULES.validate_python([declared(), declared(id="rule:vip", name="Others")])
    with pytest.raises(ValidationError, match="rule 'rule:b': name: another rule is called 'vips' too"):
        RULES.validate_python([declared(), declared(id="b", name="vips")])


def test_there_are_only_so_many() -> None:
    many = [declared(id=f"r{n}", name=f"R{n}") for n in range(MAX_RULES + 1)]
    assert len(RULES.validate_python(many[1:])) == MAX_RULES
    with pytest.raises(ValidationError, match=f"at most {MAX_RULES} items"):
        RULES.validate_python(many)


def test_a_configuration_error_names_file_rule_key_column_and_what_was_meant(tmp_path: Path) -> None:
    file = tmp_path / "shop.toml"
    file.write_text('[[rules]]\nid = "vip"\nname = "VIPs"\nwhen = "recency_days < 14 and purchase_30d >= 3"\n')
    with pytest.raises(ConfigError) as caught:
        load(file)
    assert str(caught.value) == (
        f"{file}: rules: rule 'rule:vip': when: column 23: there is no feature 'purchase_30d'; "
        "did you mean purchases_30d?\n"
        "    recency_days < 14 and purchase_30d >= 3\n"
        "                          ^"
    )


def test_rules_speak_of_the_features_that_are_declared(tmp_path: Path) -> None:
    file = tmp_path / "shop.toml"
    file.write_text(
        '[[features]]\nname = "visits_9d"\naggregate = "visits"\nwindow = "9d"\ntiles = 9\n'
        '[[rules]]\nid = "often"\nname = "Often here"\nwhen = "visits_9d > 4"\n'
    )
    (rule,) = load(file).rules
    assert rule.features == ("visits_9d",)


def test_wrong_features_are_told_alone(tmp_path: Path) -> None:
    file = tmp_path / "shop.toml"
    file.write_text('[[features]]\nname = "x"\n[[rules]]\nid = "a"\nname = "A"\nwhen = "x > 1"\n')
    with pytest.raises(ConfigError) as caught:
        load(file)
    assert "feature 'x'" in str(caught.value)
    assert "rule" not in str(caught.value).replace(str(file), "")


# -- the digest of a definition ------------------------------------------------------------------------------------


def test_a_definition_is_what_decides_and_nothing_else() -> None:
    rule = RuleSegment(id="a", name="A", when="purchases_30d >= 3", leave_when="purchases_30d < 1")
    same = RuleSegment(
        id="b",
        name="B",
        title="t",
        when="(purchases_30d >= 3.0)",
        leave_when="purchases_30d<1",
    )
    assert rule.definition(DEFAULT_FEATURES) == same.definition(DEFAULT_FEATURES[::-1])
    others = [
        RuleSegment(id="a", name="A", when="purchases_30d >= 3"),
        RuleSegment(id="a", name="A", when="purchases_30d >= 3", leave_when="purchases_30d < 2"),
        RuleSegment(id="a", name="A", when="purchases_30d >= 4", leave_when="purchases_30d < 1"),
    ]
    assert rule.definition(DEFAULT_FEATURES) not in {other.definition(DEFAULT_FEATURES) for other in others}


@pytest.mark.parametrize(
    ("changes", "edited"),
    [
        ({"title": "Orders", "unit": "orders", "learn": True, "log": False}, False),
        ({"window": "60d", "tiles": 30}, True),
        ({"kinds": ["purchase", "browse"]}, True),
        ({"tiles": 10}, True),
    ],
)
def test_a_feature_is_part_of_the_definition_as_it_is_computed(changes: dict[str, Any], edited: bool) -> None:
    rule = RuleSegment(id="a", name="A", when="purchases_30d >= 3")
    features = [feature.model_dump() for feature in DEFAULT_FEATURES]
    at = [feature["name"] for feature in features].index("purchases_30d")
    features[at] |= changes
    features[at - 1]["learn"] = not features[at - 1]["learn"]
    assert (rule.definition(parse_features(features)) != rule.definition(DEFAULT_FEATURES)) == edited


# -- slots ---------------------------------------------------------------------------------------------------------


def definitions(*names: str, digest: str = "d") -> list[RuleDefinition]:
    return [RuleDefinition(name, name.title(), digest) for name in names]


def test_bits_are_set_and_found_in_every_word() -> None:
    words = np.zeros((3, 2), np.uint64)
    for bit in (0, 5, 63, 64, 127):
        put(words, bit, np.array([True, False, bit > 60]))
    assert [list(bits_of(row)) for row in words] == [[0, 5, 63, 64, 127], [], [63, 64, 127]]
    assert has(words, 64).tolist() == [True, False, True]
    assert has(words, 5).tolist() == [True, False, False]
    assert not has(words, 6).any()


def test_a_rule_keeps_its_bit_and_a_free_one_is_used_again_after_it_was_settled() -> None:
    slots = RuleSlots()
    slots.adopt(definitions("c", "a", "b"))
    assert {slot.id: slot.bit for slot in slots.slots.values()} == {"a": 0, "b": 1, "c": 2}
    assert (slots.epoch, slots.settled) == (2, False)
    slots.settle()
    slots.adopt(definitions("d", "c", "a"))
    assert {slot.id: (slot.bit, slot.digest, slot.since) for slot in slots.slots.values()} == {
        "a": (0, "d", 2),
        "b": (1, None, 3),
        "c": (2, "d", 2),
        "d": (3, "d", 3),
    }
    slots.settle()
    slots.adopt(definitions("d", "c", "a", "e"))
    assert slots.slots["e"].bit == 1


def test_a_rule_that_comes_back_before_its_members_left_is_an_edit() -> None:
    slots = RuleSlots()
    slots.adopt(definitions("a"))
    slots.adopt([])
    slots.adopt(definitions("a"))
    assert (slots.slots["a"].bit, slots.slots["a"].digest, slots.slots["a"].since) == (0, "d", 4)


def test_nothing_new_begins_no_epoch_and_meta_comes_back() -> None:
    slots = RuleSlots()
    slots.adopt(definitions("a", "b"))
    slots.adopt(definitions("a", digest="other"))
    again = RuleSlots.from_meta(slots.to_meta())
    assert (again.slots, again.epoch, again.settled) == (slots.slots, slots.epoch, False)
    again.settle()
    epoch = again.epoch
    again.adopt(definitions("a", digest="other"))
    assert (again.epoch, again.settled) == (epoch, True)
    assert RuleSlots.from_meta(None).to_meta() == RuleSlots().to_meta()


# -- the examples --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def examples() -> dict[str, RuleSegment]:
    config = load(EXAMPLES)
    assert config.features == Config().features
    return {rule.id.removeprefix("rule:"): rule for rule in config.rules}


def columns(**values: float) -> dict[str, np.ndarray[Any, np.dtype[np.float64]]]:
    """One shopper; what is not said is 0, and what follows from it unknown."""
    known = {feature.name: 0.0 for feature in DEFAULT_FEATURES}
    known |= {
        "purchase_recency_days": np.nan,
        "average_order_value": np.nan,
        "return_rate": np.nan,
        "discount_level": np.nan,
    }
    return {name: np.array([value]) for name, value in (known | values).items()}


def segments(examples: dict[str, RuleSegment], **values: float) -> set[str]:
    nobody = np.array([False])
    return {name for name, rule in examples.items() if rule.members(columns(**values), nobody)[0]}


@pytest.mark.parametrize("spend", [0.0, 0.01, 74.99, 75.0, 299.99, 300.0, 1e6])
def test_everybody_who_has_bought_is_in_one_tier_of_value(examples: dict[str, RuleSegment], spend: float) -> None:
    tiers = segments(examples, spend_hl90d=spend, purchase_recency_days=3.0) & {
        "value-high",
        "value-medium",
        "value-low",
    }
    assert len(tiers) == 1
    assert not segments(examples, spend_hl90d=spend) & {"value-high", "value-medium", "value-low"}, "has never bought"


@pytest.mark.parametrize(
    ("shopper", "expected"),
    [
        ({"recency_days": 1.0, "purchase_recency_days": 5.0, "orders_hl90d": 4.0, "spend_hl90d": 400.0}, "champions"),
        ({"recency_days": 40.0, "purchase_recency_days": 45.0, "orders_hl90d": 2.5, "spend_hl90d": 80.0}, "at-risk"),
        ({"recency_days": 2.0, "carts_hl7d": 1.5, "purchase_recency_days": 20.0}, "cart-left"),
        ({"recency_days": 2.0, "carts_hl7d": 1.5}, "cart-left"),
        ({"recency_days": 1.0, "visits_30d": 6.0}, "window-shoppers"),
        ({"recency_days": 200.0, "purchase_recency_days": 200.0, "spend_hl90d": 20.0}, "lost"),
        ({"purchase_recency_days": 3.0, "tenure_days": 4.0, "purchases_30d": 1.0}, "new-customers"),
    ],
)
def test_the_examples_find_whom_they_are_for(
    examples: dict[str, RuleSegment], shopper: dict[str, float], expected: str
) -> None:
    assert expected in segments(examples, **shopper)
    assert expected not in segments(examples, recency_days=15.0, tenure_days=100.0)


# -- the page for marketers ----------------------------------------------------------------------------------------


def test_what_the_page_shows_is_what_is_understood(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "rules.md").read_text("utf-8")
    file = tmp_path / "shop.toml"
    file.write_text("\n".join(re.findall(r"```toml\n(.*?)```", page, re.DOTALL)))
    assert [rule.id for rule in load(file).rules] == ["rule:vip", "rule:big-spenders"]
    names = {feature.name for feature in DEFAULT_FEATURES}
    language = page[page.index("## The language") : page.index("**What is unknown")]
    shown = re.findall(r"^\| `([^`]+)` \|", language, re.MULTILINE)
    assert len(shown) == 9
    for text in shown:
        check_features(parse(text), text, names)


def test_the_error_on_the_page_is_the_one_that_is_given(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "rules.md").read_text("utf-8")
    shown = "\n".join(line[4:] for line in page.split("\n") if line.startswith("    "))
    file = tmp_path / "shop.toml"
    file.write_text('[[rules]]\nid = "vip"\nname = "VIPs"\nwhen = "purchase_30d >= 3 and recency_days < 14"\n')
    with pytest.raises(ConfigError) as caught:
        load(file)
    assert str(caught.value).replace(str(file), "shop.toml") == shown
