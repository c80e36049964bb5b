"""`resegment suggest-k`, on topics and on a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from stream.backtest.subject import open_subject
from stream.cli import main
from stream.config import load
from stream.replay import Replay

SHOP = "shop:users=300,days=20,seed=3"


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RESEGMENT_CONFIG", raising=False)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("suggest") / "data"
    config = load(None, {"transport.kind": "embedded", "transport.data_dir": place})
    with Replay(config, open_subject("shop", SHOP).source) as replay:
        assert replay.run()
    return place


def asked(directory: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    assert main(["suggest-k", "--data-dir", str(directory), "--to", "4", "--json"]) == 0
    found: dict[str, Any] = orjson.loads(capsys.readouterr().out)
    return found


def test_it_proposes_from_the_modellers_panel(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path.name: path.stat().st_size for path in directory.iterdir()}
    found = asked(directory, capsys)
    assert found["origin"] == "the modeller's panel"
    assert 2 <= found["k"] <= 4
    assert found == asked(directory, capsys)
    assert {path.name: path.stat().st_size for path in directory.iterdir()} == before
    assert main(["suggest-k", "--data-dir", str(directory), "--to", "3"]) == 0
    told = capsys.readouterr().out
    assert "Suggested: " in told
    assert "Nothing was changed" in told
    assert "[modeller.learner]" in told


def test_without_a_modeller_it_takes_the_users(
    directory: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("schemas.topics.MODELLER_STATE", "no-such-topic")
    found = asked(directory, capsys)
    assert found["origin"] == "all users"
    assert 100 < found["rows"] <= 300


def test_it_proposes_from_a_data_set(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["suggest-k", SHOP, "--format", "shop", "--to", "5", "--json"]) == 0
    found = orjson.loads(capsys.readouterr().out)
    assert 2 <= found["k"] <= 5
    assert found["certainty"] in ("high", "fair", "low")
    assert [score["k"] for score in found["scores"]] == [2, 3, 4, 5]
    assert SHOP in found["origin"]
    assert found["rows"] > 100


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--from", "6", "--to", "3"], "--from 6 --to 3: say from at least 2 up to at most 50, smaller first"),
        (["--from", "1"], "--from 1 --to 12"),
        (["x.csv"], "a FILE needs --format"),
        (["--format", "shop"], "and --format a FILE"),
        ([SHOP, "--format", "shop", "--data-dir", "here"], "not both"),
        (["nowhere.jsonl", "--format", "jsonl"], "nowhere.jsonl"),
    ],
)
def test_what_cannot_be_meant_is_refused(words: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["suggest-k", *words]) == 1
    assert told in capsys.readouterr().err
