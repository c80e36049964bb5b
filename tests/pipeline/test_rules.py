"""Rule segments through a whole replay, and in what the commands say about it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from schemas import topics
from stream.cli import main
from stream.replay import Replay
from stream.report import segment_table
from stream.transport.base import TopicPartition
from tests.pipeline.support import configured, small_shop

RULES = [
    {"id": "buyers", "name": "Buyers", "when": "purchases_30d >= 1"},
    {"id": "nobody", "name": "Nobody [yet]", "when": "pages_1d > 1e6"},
]
TOML = "".join(f'[[rules]]\nid = "{r["id"]}"\nname = "{r["name"]}"\nwhen = "{r["when"]}"\n' for r in RULES)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """What the commands are told of a replay that is over."""
    directory = tmp_path_factory.mktemp("rules")
    config = directory / "shop.toml"
    config.write_text(TOML)
    with Replay(configured(directory / "data", rules=RULES), small_shop(users=80, days=3)) as replay:
        replay.run()
        table = segment_table(replay.deployment.processor)
    assert [str(cell) for cell in table.columns[0].cells][-2:] == ["rule:buyers", "rule:nobody"]
    return "--data-dir", str(directory / "data"), "--config", str(config)


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    assert main([*arguments, "--json"]) == 0
    return orjson.loads(capsys.readouterr().out)


def test_segments_counts_the_members_of_rules_apart(place: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    found = said(capsys, "segments", *place)
    buyers, nobody = found["rules"]
    assert buyers["id"] == "rule:buyers"
    assert buyers["users"] > 5
    assert nobody == {"id": "rule:nobody", "name": "Nobody [yet]", "users": 0, "when": "pages_1d > 1e6"}
    assert not any(name.startswith("rule:") for name in found["others"])
    assert main(["segments", *place]) == 0
    table = capsys.readouterr().out
    assert "Nobody [yet]" in table
    assert "purchases_30d >= 1" in table


def test_explain_names_the_rules_and_their_changes(place: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    config = configured(Path(place[1]), rules=RULES)
    transport = config.transport.open(create=False)
    changes = [
        orjson.loads(record.value or b"") for record in transport.read(TopicPartition(topics.SEGMENT_CHANGES, 0), 0)
    ]
    transport.close()
    change = next(one for one in changes if one["to"] and one["to"]["id"] == "rule:buyers")
    user = change["user_id"]
    found = said(capsys, "explain", user, *place)
    assert found["rules"] == [{"id": "rule:buyers", "name": "Buyers"}]
    assert change in found["history"]
    assert main(["explain", user, *place]) == 0
    text = capsys.readouterr().out
    assert "also in Buyers (rule:buyers)" in text
    assert "into Buyers (rule:buyers)" in text
