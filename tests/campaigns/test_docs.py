"""What docs/campaigns.md shows is tried out."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest

from schemas.campaign import CampaignAction
from stream.campaigns.file import CampaignError, parse_campaigns
from stream.campaigns.rules import WebhookSink
from stream.campaigns.settings import DeliverySettings
from stream.campaigns.webhook import decode_secrets, sign
from stream.durations import format_duration

PAGE = (Path(__file__).parents[2] / "docs" / "campaigns.md").read_text("utf-8")


def block(language: str) -> str:
    found = re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    assert len(found) == 1
    return str(found[0])


def test_the_campaign_is_valid_and_its_mistake_is_reported_as_shown() -> None:
    text = block("yaml")
    (campaign,) = parse_campaigns(text.encode(), "campaigns.yml")
    assert campaign.action.webhook is not None
    wrong = text.replace('      transition: {from: "*loyal*", to: "*lapsing*"}', "      entr: x")
    assert wrong != text
    with pytest.raises(CampaignError) as error:
        parse_campaigns(wrong.encode(), "campaigns.yml")
    assert error.value.problems[-1] in PAGE


def test_the_selectors_are_valid() -> None:
    cells = re.findall(r"^\| `((?:enter|exit|transition): [^`]*)`", PAGE, re.MULTILINE)
    assert len(cells) >= 7
    for cell in cells:
        file = f"campaigns:\n- name: x\n  action: {{log: {{path: x}}}}\n  when:\n    {cell}\n"
        assert len(parse_campaigns(file.encode(), "c")) == 1


def test_the_receivers_check_agrees_with_our_signature() -> None:
    space: dict[str, Any] = {}
    exec(block("python"), space)
    secret, old = "whsec_" + "A" * 43 + "=", "whsec_" + "B" * 43 + "="
    now, body = int(time.time()), b'{"x":1}'
    headers = {"webhook-id": "act_1", "webhook-timestamp": str(now)}
    headers["webhook-signature"] = sign(decode_secrets(f"{secret} {old}"), "act_1", now, body)
    assert space["verify"](secret, headers, body)
    assert space["verify"](old, headers, body)
    assert not space["verify"]("whsec_" + "C" * 43 + "=", headers, body)
    assert not space["verify"](secret, headers, b'{"x":2}')
    assert not space["verify"](secret, {**headers, "webhook-timestamp": str(now - 301)}, body)


def test_the_message_is_an_action() -> None:
    message = json.loads(block("json"))
    assert set(message) == {"type", "timestamp", "data"}
    action = CampaignAction.model_validate(message["data"])
    assert json.loads(action.model_dump_json()) == message["data"]


def test_the_settings_and_their_defaults_are_the_real_ones() -> None:
    shown: dict[str, str] = {}
    table = PAGE.split("## Settings")[1]
    for keys, defaults in re.findall(r"^\| (`[^|]*`) \| ([^|]*) \|", table, re.MULTILINE):
        shown.update(zip(re.findall(r"`([^`]*)`", keys), defaults.split(", "), strict=True))
    actual = {}
    for name, value in DeliverySettings().model_dump().items():
        raw = getattr(DeliverySettings(), name)
        actual[name] = (
            format_duration(raw)
            if isinstance(value, str) and isinstance(raw, int)
            else f"{raw:g}"
            if isinstance(raw, float)
            else str(raw).lower()
        )
    assert shown == actual
    sink = WebhookSink(url="https://example.com")
    assert f"{sink.timeout // 1000} s by default" in PAGE
    assert f"`max_attempts` ({sink.max_attempts})" in PAGE
