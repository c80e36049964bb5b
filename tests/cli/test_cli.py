"""The command line as a person meets it: help, one-line errors, exit codes, and looking at a finished replay."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path

import pytest

from schemas import topics
from stream.cli import COMMANDS, main
from tests.pipeline.support import replay, small_shop


def run(*arguments: str | Path, code: int = 0) -> tuple[str, str]:
    """Run the command in a process of its own; its standard output and error."""
    command = [sys.executable, "-W", "error::RuntimeWarning", "-m", "stream.cli", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout, done.stderr


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("cli") / "data"
    replay(directory, small_shop())
    return directory


@pytest.mark.parametrize("command", COMMANDS)
def test_help_reads_well(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([command, "--help"])
    assert caught.value.code == 0
    shown = capsys.readouterr().out
    assert f"usage: resegment {command}" in shown
    assert len(shown) > 150


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "the following arguments are required: COMMAND"),
        (["relay"], "invalid choice: 'relay'"),
        (["replay", "x.csv", "--format", "taobo", "--data-dir", "d"], "invalid choice: 'taobo'"),
        (["replay", "--format", "taobao"], "the following arguments are required"),
        (["run", "--roles", "king"], "'king' is no role; there are processor, modeller, campaigns"),
        (["demo", "--users", "0"], "'0' is no whole number of at least 1"),
        (["segments", "--data-dir", "a", "--bootstrap", "b:1"], "not allowed with argument"),
        (["segments", "--bootstrap", "nonsense"], "'nonsense' is no broker address"),
    ],
)
def test_a_wrong_argument_gets_one_line_and_exit_code_2(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code: object = main(arguments)
    except SystemExit as stopped:
        code = stopped.code
    assert code == 2
    told = capsys.readouterr().err
    assert says in told
    assert told.count("\n") == 1


def test_what_cannot_be_done_is_one_line_and_exit_code_1(tmp_path: Path) -> None:
    _, told = run("replay", "--format", "taobao", tmp_path / "no.csv", "--data-dir", tmp_path / "d", code=1)
    assert told.count("\n") == 1
    assert "no.csv" in told
    _, told = run("segments", "--data-dir", tmp_path / "none", code=1)
    assert told.count("\n") == 1
    assert str(tmp_path / "none") in told
    assert not (tmp_path / "none").exists(), "looking makes nothing"


def test_a_replay_from_the_command_line(tmp_path: Path) -> None:
    rows = [
        f"u{i % 40},i{i % 7},c{i % 3},{('pv', 'cart', 'fav', 'buy')[i % 4]},{1511539200 + 60 * i}" for i in range(500)
    ]
    file = tmp_path / "taobao.csv.gz"
    file.write_bytes(gzip.compress("\n".join(["user_id,item_id,category_id,behavior,unix_ts", *rows]).encode()))
    arguments = ("replay", "--format", "taobao", file, "--data-dir", tmp_path / "d", "--summary-json", tmp_path / "s")
    shown, _ = run(*arguments)
    assert "500 events read: 500 accepted" in shown
    first = json.loads((tmp_path / "s").read_text())
    assert list(first) == [
        "events_read",
        "events_accepted",
        "events_duplicate",
        "events_dead_lettered",
        "users",
        "segments",
        "changes",
        "changes_by_cause",
        "anomalies",
        "campaign_actions",
        "seconds",
    ]
    assert (first["events_read"], first["users"]) == (500, 40)
    run(*arguments)
    again = json.loads((tmp_path / "s").read_text())
    assert {**again, "seconds": 0} == {**first, "seconds": 0}


def test_segments_tail_and_explain_tell_the_same_story(played: Path) -> None:
    told = json.loads(run("segments", "--data-dir", played, "--json")[0])
    assert sum(one["users"] for one in told["segments"]) + sum(told["others"].values()) == 211
    lines = run("tail", topics.SEGMENT_CHANGES, "-n", "3", "--data-dir", played, "--json")[0].splitlines()
    changes = [json.loads(line)["value"] for line in lines]
    assert len(changes) == 3
    assert changes == sorted(changes, key=lambda one: one["detected_at"])
    last = changes[-1]
    found = json.loads(run("explain", last["user_id"], "--data-dir", played, "--json")[0])
    assert found["segment"] == last["to"]
    assert found["since"] == last["occurred_at"]
    assert found["history"][-1] == last
    assert len(found["history"]) == found["changes"] == last["sequence"]
    values = {feature["name"]: feature["value"] for feature in found["features"]}
    assert values["recency_days"] >= 0
    human = run("explain", last["user_id"], "--data-dir", played)[0]
    assert last["to"]["id"] in human
    assert "Days since last seen" in human
    _, told_error = run("explain", "nobody", "--data-dir", played, code=1)
    assert "no event of user 'nobody'" in told_error


def test_tail_follows_the_last_records_of_every_partition(played: Path) -> None:
    everything = run("tail", topics.DEAD_LETTERS, "-n", "100000", "--data-dir", played)[0].splitlines()
    assert run("tail", topics.DEAD_LETTERS, "-n", "5", "--data-dir", played)[0].splitlines() == everything[-5:]
    assert run("tail", topics.USER_STATE, "-n", "1", "--data-dir", played)[0].count("payload_bytes") == 1
    _, told = run("tail", "segment-change", "--data-dir", played, code=1)
    assert "there is no topic 'segment-change'" in told


def test_topics_are_created_and_checked(tmp_path: Path) -> None:
    where = ("--data-dir", tmp_path / "d")
    assert "created " in run("topics", "create", "--partitions", "3", *where)[0]
    assert "nothing to create" in run("topics", "create", *where)[0]
    assert "every topic is as it must be" in run("topics", "check", *where)[0]


def test_the_demo_ends_and_says_what_the_segments_are(tmp_path: Path) -> None:
    where = tmp_path / "demo"
    shown, _ = run("demo", "--users", "150", "--days", "12", "--seconds", "0", "--data-dir", where, "--port", "0")
    assert "learned segments" in shown
    assert "who they are" in shown
    assert "campaigns fired: " in shown
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").touch()
    _, told = run("demo", "--data-dir", tmp_path / "mine", code=1)
    assert "holds something else than a demo" in told
