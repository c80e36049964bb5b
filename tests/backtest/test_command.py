"""`resegment backtest` as a person types it: reports written, errors in one line and no traceback."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import orjson
import pytest

from producers.shop import Shop, ShopSettings
from producers.source import SourceError
from stream.backtest.subject import open_subject, shop_settings
from stream.cli import main
from stream.transport.embedded import EmbeddedTransport

SPEC = "shop:users=90,days=9,seed=2"


@pytest.fixture(scope="module")
def events(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A shop's rows as a file, with its truth beside it."""
    folder = tmp_path_factory.mktemp("shop")
    shop = Shop(ShopSettings(users=90, days=9, seed=2))
    shop.write_truth(folder)
    (folder / "events.jsonl").write_bytes(
        b"\n".join(row.value.replace(b"\n", b" ") for row in shop.rows() if row.value)
    )
    return folder / "events.jsonl"


def test_reports_of_a_shop(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, html, kept = tmp_path / "r.json", tmp_path / "r.html", tmp_path / "kept"
    asked = [SPEC, "--format", "shop", "--checkpoints", "3", "--horizon", "2d"]
    assert main(["backtest", *asked, "--json", str(out), "--html", str(html), "--data-dir", str(kept)]) == 0
    found = orjson.loads(out.read_bytes())
    assert len(found["checkpoints"]) == 3 and found["settings"]["horizon"] == "2d"
    assert found["resegment"]["ari_truth"] is not None
    assert html.read_text().startswith("<!doctype html>")
    printed = capsys.readouterr()
    assert "Silhouette" in printed.out and "oracle" in printed.out and "Traceback" not in printed.err
    transport = EmbeddedTransport(kept, create=False)
    assert transport.partitions("segment-changes") == 1
    transport.close()
    # It begins anew, or not at all.
    assert main(["backtest", *asked, "--data-dir", str(kept)]) == 1
    assert "empty directory" in capsys.readouterr().err


def test_a_file_with_its_truth_beside_it(events: Path, tmp_path: Path) -> None:
    out = tmp_path / "r.json"
    assert (
        main(["backtest", str(events), "--format", "jsonl", "--every", "2d", "--horizon", "1d", "--json", str(out)])
        == 0
    )
    found = orjson.loads(out.read_bytes())
    assert found["oracle"]["ari_truth"] is not None
    times = [one["time_ms"] for one in found["checkpoints"]]
    assert len(times) >= 3 and {b - a for a, b in pairwise(times)} == {2 * 86_400_000}
    events.with_name("truth.jsonl").unlink()
    assert open_subject("jsonl", str(events)).truth is None


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["/nowhere.csv", "--format", "taobao"], "/nowhere.csv"),
        (["shop:users=x", "--format", "shop"], "users"),
        (["shop:wings=2", "--format", "shop"], "wings: is no setting of the shop"),
        (["shop:users", "--format", "shop"], "'users' is no setting"),
        (["shop:users=30,days=2", "--format", "shop", "--horizon", "9d"], "--horizon"),
        (["shop:users=5", "--format", "shop", "--json", "/nowhere/at/all.json"], "/nowhere/at/all.json"),
    ],
)
def test_errors_are_one_line(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["backtest", *arguments]) == 1
    err = capsys.readouterr().err
    assert said in err and err.count("\n") == 1 and err.startswith("resegment: ")


@pytest.mark.parametrize(
    "arguments", [["--every", "0d"], ["--every", "often"], ["--checkpoints", "0"], ["--format", "x"]]
)
def test_wrong_arguments_are_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["backtest", SPEC, "--format", "shop", *arguments])
    assert stopped.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_nothing_valid_is_said_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "events.jsonl").write_bytes(b"{}\n{}\n")
    assert main(["backtest", str(tmp_path / "events.jsonl"), "--format", "jsonl"]) == 1
    assert "none of the 2 rows is a valid event" in capsys.readouterr().err


def test_settings_of_a_shop() -> None:
    assert shop_settings("shop:users=7,scenario=drift") == ShopSettings(users=7, scenario="drift")
    assert shop_settings("users=7") == shop_settings("shop:users=7")
    assert shop_settings("shop:") == ShopSettings()
    with pytest.raises(SourceError, match="scenario"):
        shop_settings("shop:scenario=chaos")
