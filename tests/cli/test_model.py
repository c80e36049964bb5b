"""`resegment model` and `segments --history` on a finished replay."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from stream.cli import main
from stream.replay import Replay
from tests.pipeline.support import configured, replay, small_shop


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("model") / "data"
    replay(directory, small_shop())
    return directory


def ask(capsys: pytest.CaptureFixture[str], *arguments: str | Path, code: int = 0) -> Any:
    assert main([*map(str, arguments), "--json"]) == code
    shown = capsys.readouterr().out
    return json.loads(shown) if shown else None


def test_versions_are_listed_and_told_apart(played: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = ask(capsys, "model", "list", "--data-dir", played)
    assert [row["version"] for row in rows] == list(range(1, len(rows) + 1))
    assert len(rows) >= 2
    assert rows[0]["promoted_by"] == "first"
    assert [row["version"] for row in rows if row["state"] == "in use"] == [len(rows)]
    told = ask(capsys, "model", "diff", "1", str(len(rows)), "--data-dir", played)
    assert {row["segment"] for row in told} >= {f"seg-{n}" for n in range(1, 3)}
    assert main(["model", "diff", "1", "999", "--data-dir", str(played)]) == 1
    assert "version 999 is not kept; there is 1 to" in capsys.readouterr().err


def test_history_tells_every_birth_and_no_id_twice(played: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = ask(capsys, "segments", "--history", "--data-dir", played)
    born = [line["segment"] for line in lines if line["kind"] in ("born", "split")]
    assert len(born) == len(set(born))
    died = {line["segment"]: line["version"] for line in lines if line["kind"] == "died"}
    for line in lines:
        assert line["version"] <= died.get(line["segment"], 10**9), "nothing happens to the dead"


def test_a_pin_holds_until_it_is_taken_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory = tmp_path / "data"
    replay(directory, small_shop(), lambda rows: rows < 12_000)
    newest = len(ask(capsys, "model", "list", "--data-dir", directory))
    assert ask(capsys, "model", "rollback", "--data-dir", directory) == {"pinned": newest - 1}
    with Replay(configured(directory), small_shop()) as running:
        running.run()
        processor = running.deployment.processor
        assert processor.model is not None
        assert processor.model.version == newest - 1
        assert all(population.model_version == newest - 1 for population in processor.populations.values())
        assert running.deployment.stages["modeller"].model.version > newest  # type: ignore[attr-defined]
    assert ask(capsys, "model", "unpin", "--data-dir", directory) == {"unpinned": newest - 1}
    assert main(["model", "unpin", "--data-dir", str(directory)]) == 1
    assert "no version is pinned" in capsys.readouterr().err
