from __future__ import annotations

from pathlib import Path

import pytest

from stream.campaigns.file import CampaignError, load_campaigns, parse_campaigns
from tests.campaigns.support import change, ref

EXAMPLE = Path(__file__).parents[2] / "deploy" / "campaigns.yml"
GOOD = """\
campaigns:
  - name: welcome
    when: {enter: newcomer}
    action:
      log: {path: a.jsonl}
"""


def complaints(text: str | bytes) -> list[str]:
    with pytest.raises(CampaignError) as error:
        parse_campaigns(text.encode() if isinstance(text, str) else text, "c.yml")
    assert str(error.value) == "\n".join(error.value.problems)
    return list(error.value.problems)


def test_the_example_is_valid_and_does_what_its_comments_say() -> None:
    campaigns = load_campaigns(EXAMPLE)
    newcomer = ref("Newcomers", "newcomer")

    def fired(**fields: object) -> list[str]:
        return [c.name for c in campaigns.match(change().model_copy(update=fields))]

    assert fired(to=newcomer, cause="entered") == ["welcome"]
    for cause in ("behaviour", "inactivity"):
        assert fired(from_=newcomer, to=ref("Bargain hunters"), cause=cause) == ["first-impression"]
    assert fired(from_=ref("Fans"), to=ref("Lapsing visitors"), cause="inactivity") == ["win-back"]
    assert fired(from_=ref("Fans"), to=ref("Lapsing visitors"), cause="inactivity", confidence=0.1) == []
    assert fired(from_=ref("Fans"), to=ref("Frequent big spenders, here now"), cause="behaviour") == ["thank-you"]
    for cause in ("model", "anomaly"):
        assert fired(from_=ref("Fans"), to=ref("Big spenders"), cause=cause) == []
    assert fired(from_=newcomer, to=ref("Quarantine", "quarantine"), cause="anomaly") == []


def test_a_good_file_is_read_in_order() -> None:
    two = GOOD + GOOD.removeprefix("campaigns:\n").replace("welcome", "again")
    campaigns = parse_campaigns(two.encode(), "c.yml")
    assert [c.name for c in campaigns] == ["welcome", "again"]
    assert len(campaigns) == 2
    assert campaigns.get("again") is list(campaigns)[1]
    assert campaigns.get("third") is None
    assert list(parse_campaigns(b"campaigns: []", "c.yml")) == []


def test_anchors_and_merges_are_understood() -> None:
    text = """\
campaigns:
  - &base
    name: one
    when: {enter: a}
    action: {log: {path: x}}
  - <<: *base
    name: two
    caps: 1
"""
    assert complaints(text) == ["c.yml:8: campaign 'two': caps: unknown key; did you mean 'cap'?"]
    assert [c.name for c in parse_campaigns(text.replace("    caps: 1\n", "").encode(), "c")] == ["one", "two"]


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("enter:", "entr:", "c.yml:3: campaign 'welcome': when.entr: unknown key; did you mean 'enter'?"),
        (
            "    when:",
            "    cuases: 1\n    when:",
            "c.yml:3: campaign 'welcome': cuases: unknown key; did you mean 'causes'?",
        ),
        ("log:", "lgo:", "c.yml:5: campaign 'welcome': action.lgo: unknown key; did you mean 'log'?"),
        ("campaigns:", "campaign:", "c.yml:1: campaign: unknown key; did you mean 'campaigns'?"),
        ("{path: a.jsonl}", "{}", "c.yml:5: campaign 'welcome': action.log.path: this key is required"),
        ("name: welcome", "name: 12", "c.yml:2: campaign number 1: name: write text here, in quotes; YAML reads"),
        ("newcomer", "no", "c.yml:3: campaign 'welcome': when.enter: write a text or a list of texts here; YAML reads"),
        ("newcomer", "[a, 7]", "c.yml:3: campaign 'welcome': when.enter[1]: write text here, in quotes"),
        ("newcomer}", "a, exit: b}", "c.yml:3: campaign 'welcome': when: write exactly one of enter, exit, transition"),
        (
            "log: {path: a.jsonl}",
            "log: x.jsonl",
            "c.yml:5: campaign 'welcome': action.log: write keys and values here (path)",
        ),
        (
            "log: {path: a.jsonl}",
            "log: {path: dir/}",
            "c.yml:5: campaign 'welcome': action.log.path: 'dir/' is no name",
        ),
        ("    when", "    causes: [behavior]\n    when", "did you mean 'behaviour'?"),
        (
            "    when",
            "    causes: []\n    when",
            "c.yml:3: campaign 'welcome': causes: Value should have at least 1 item",
        ),
        (
            "    when",
            "    cap: {per: 3 days}\n    when",
            "c.yml:3: campaign 'welcome': cap.per: '3 days' is no duration",
        ),
        ("    when", "    min_confidence: 2\n    when", "c.yml:3: campaign 'welcome': min_confidence: "),
        (
            "    when",
            "    parameters: {x: 2024-01-01}\n    when",
            "c.yml:3: campaign 'welcome': parameters.x: write text here",
        ),
        ("    when", "    parameters: {on: 1}\n    when", "c.yml:3: key 'on' is no text to YAML; write it in quotes"),
        ("    when", "    ? [a]\n    : b\n    when", "c.yml:3: a list, or keys and values, cannot be a key"),
        ("    when", "    name: x\n    when", "c.yml:3: key 'name' stands here again, it stood on line 2"),
        ("  - name", "    name", "c.yml:1: campaigns: write a list here, each entry begins with '- '"),
        ("{enter: newcomer}", "{enter: newcomer", "not valid YAML: expected ',' or '}'"),
        ("    when", "\twhen", "c.yml:3:1: not valid YAML: found character '\\t'"),
        ("newcomer", "*unknown", "c.yml:3:19: not valid YAML: found undefined alias"),
        ("newcomer", "!!python/name:os.system x", "c.yml:3:19: not valid YAML: could not determine a constructor"),
        ("newcomer", "\x07", "c.yml:3: not valid YAML: a character that no text has"),
        (GOOD, "[" * 5_000, "c.yml: not valid YAML: nested too deeply"),
        (GOOD, "", "c.yml: the file is empty"),
        (GOOD, "- 1", "c.yml:1: write keys and values here (campaigns)"),
    ],
)
def test_one_mistake_gives_one_line_that_says_where(old: str, new: str, expected: str) -> None:
    assert old in GOOD
    (line,) = complaints(GOOD.replace(old, new, 1))
    assert expected in line
    assert line.startswith("c.yml")
    assert "\n" not in line


def test_every_mistake_is_told_in_the_order_of_the_file() -> None:
    text = GOOD.replace("welcome", "' welcome'").replace("newcomer", "[]") + "    enabled: perhaps\n"
    found = complaints(text)
    assert [line.split(":")[1] for line in found] == ["2", "3", "6"]


def test_names_are_unique_whatever_their_case() -> None:
    text = GOOD + GOOD.removeprefix("campaigns:\n").replace("welcome", "WELCOME")
    assert complaints(text) == [
        "c.yml:6: campaign 'WELCOME': name: already taken by the campaign on line 2",
    ]


def test_what_is_no_text_is_named(tmp_path: Path) -> None:
    assert complaints(b"campaigns:\n  - \xff") == ["c.yml:2: not UTF-8 text"]
    with pytest.raises(CampaignError, match="cannot be read: No such file"):
        load_campaigns(tmp_path / "none.yml")
    with pytest.raises(CampaignError, match="cannot be read: Is a directory"):
        load_campaigns(tmp_path)


def test_a_byte_order_mark_does_no_harm() -> None:
    assert len(parse_campaigns(b"\xef\xbb\xbf" + GOOD.encode(), "c.yml")) == 1
