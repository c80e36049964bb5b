"""Configuration: file, variables, command line, in that order; errors name the key and where it was set."""

from __future__ import annotations

from pathlib import Path

import pytest

from stream.config import ConfigError, load


def toml(directory: Path, text: str) -> Path:
    file = directory / "resegment.toml"
    file.write_text(text)
    return file


def test_a_variable_wins_over_the_file_and_the_command_line_over_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = toml(tmp_path, "[runner]\nbatch_records = 10\npoll_timeout = '1s'\n[decision]\nmargin = 0.3\n")
    assert load(file).runner.batch_records == 10
    monkeypatch.setenv("RESEGMENT_RUNNER__BATCH_RECORDS", "20")
    config = load(file)
    assert (config.runner.batch_records, config.runner.poll_timeout, config.decision.margin) == (20, 1_000, 0.3)
    assert load(file, {"runner.batch_records": 30}).runner.batch_records == 30
    monkeypatch.setenv("RESEGMENT_CONFIG", str(file))
    assert load().decision.margin == 0.3


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[runner]\nbatch_record = 10\n", "runner.batch_record: is not a setting"),
        ("[runner]\nbatch_records = 0\n", "runner.batch_records: Input should be greater than or equal to 1"),
        ("[processor]\nsweep_interval = 'soon'\n", "processor.sweep_interval: 'soon' is no duration"),
        ("[transport]\nkind = 'rabbit'\n", "transport.kind: Input should be 'embedded' or 'kafka'"),
        ("[runner\n", "is no valid TOML"),
        ("[[features]]\nname = 'x'\naggregate = 'sun'\n", "feature 'x': aggregate: must be one of"),
    ],
)
def test_errors_name_the_file_and_the_key(tmp_path: Path, text: str, says: str) -> None:
    file = toml(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        load(file)
    assert says in str(caught.value)
    assert str(file) in str(caught.value)


def test_errors_name_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESEGMENT_RUNNER__BATCH_RECORDS", "many")
    with pytest.raises(ConfigError, match=r"variable RESEGMENT_RUNNER__BATCH_RECORDS: runner.batch_records: .*integer"):
        load()


def test_a_misspelt_variable_is_not_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESEGMENT_RUNER__BATCH_RECORDS", "5")
    with pytest.raises(ConfigError, match="RESEGMENT_RUNER__BATCH_RECORDS sets nothing"):
        load()


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere.toml: cannot be read: No such file"):
        load(tmp_path / "nowhere.toml")


def test_secrets_are_starred_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESEGMENT_TRANSPORT__KAFKA__SASL_PLAIN_PASSWORD", "hunter2")
    assert "hunter2" not in str(load().model_dump(mode="json"))
