"""A small shop from end to end: pictures equal the ledger, nothing leaks from the future, and everything repeats."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import orjson
import pytest

from producers.shop import Shop, ShopSettings, Truth
from producers.source import Source, SourceRow
from schemas.topics import SEGMENT_CHANGES
from stream.backtest.backtest import METHODS, Backtest, BacktestInterruptedError, Progress, Result
from stream.backtest.changes import ChangeReader, Changes
from stream.backtest.document import document
from stream.backtest.gate import Gate
from stream.backtest.history import scan
from stream.backtest.page import page
from stream.backtest.plan import Plan
from stream.backtest.snapshot import Snapshot, take
from stream.backtest.track import MEASURES
from stream.config import Config, load
from stream.replay import Replay
from stream.segments.assign import segment_name
from stream.transport.base import TopicPartition
from tests.backtest.support import DAY, Listed

DAYS = 12
SHOP = Shop(ShopSettings(users=140, days=DAYS, seed=5, crawlers=0.02, card_testers=0.02))


def config(directory: Path) -> Config:
    return load(
        None,
        {
            "transport.kind": "embedded",
            "transport.data_dir": directory,
            "transport.embedded.synchronous": "normal",
            "runner.batch_records": 500,
            "modeller.warm_up.fewest": 40,
            "modeller.warm_up.users": 60,
            "modeller.learner.segments": 4,
            "modeller.review.fewest": 100,
        },
    )


@dataclass
class Watched(Backtest):
    """Keeps what is taken at each checkpoint."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)

    @property
    def snapshots(self) -> list[Snapshot]:
        return self._snapshots

    @property
    def changes(self) -> list[Changes]:
        return self._changes


@dataclass
class Run:
    result: Result
    snapshots: Sequence[Snapshot] = field(default_factory=list)
    changes: Sequence[Changes] = field(default_factory=list)


def backtest(directory: Path, source: Source, plan: Plan, truth: Truth | None) -> Run:
    settings = config(directory)
    run = Watched(settings, source, scan(source, settings.ingest), plan, truth)
    return Run(run.run(), run.snapshots, run.changes)


def plan_of(start: int, days: Sequence[float], horizon: int) -> Plan:
    return Plan(start, start + DAYS * DAY, horizon, tuple(start + int(day * DAY) for day in days))


PLAN = plan_of(SHOP.settings.start_ms, [4, 5.5, 7, 9], 2 * DAY)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return backtest(tmp_path_factory.mktemp("backtest") / "data", SHOP, PLAN, SHOP.truth)


@pytest.fixture(scope="module")
def found(run: Run) -> dict[str, Any]:
    shown: dict[str, Any] = orjson.loads(
        orjson.dumps(document(run.result, {"file": "shop", "format": "shop", "fingerprint": "f"}, 4))
    )
    return shown


def test_the_document_has_every_method_with_every_measure(found: dict[str, Any]) -> None:
    for place in (found, found["overall"], *found["checkpoints"]):
        for method in METHODS:
            assert set(place[method]) == set(MEASURES)
    assert METHODS == ("resegment", "oracle", "rfm8", "rfm25", "naive")
    assert [one["time_ms"] for one in found["checkpoints"]] == list(PLAN.times)
    assert found["resegment"] == found["overall"]["resegment"]
    for method in METHODS:  # a shop with prices and a truth can say everything
        assert all(value is not None for value in found[method].values())
        assert -1 <= found[method]["silhouette"] <= 1
        for measure in ("eta2_next_spend", "eta2_next_purchase"):
            assert 0 <= found[method][measure] <= 1
    for one in found["checkpoints"]:
        assert sum(segment["users"] for segment in one["segments"]) == one["users"]
        assert sum(segment["share"] for segment in one["segments"]) == pytest.approx(1)
    causes = found["resegment"]["churn"]["by_cause"]
    assert sum(causes.values()) == found["details"]["ledger"]["changes"]


def test_a_snapshot_is_what_the_ledger_says(run: Run) -> None:
    standing: dict[int, int] = {}
    for snapshot, changes in zip(run.snapshots, run.changes, strict=True):
        for user, before, after in zip(
            changes.user.tolist(), changes.before.tolist(), changes.after.tolist(), strict=True
        ):
            assert standing.get(user, 0) == before
            standing[user] = after
        assert (changes.at < snapshot.at_ms).all()
        assert snapshot.standing.tolist() == [standing.get(user, 0) for user in range(len(snapshot.standing))]
        assert (snapshot.segment == snapshot.standing[snapshot.rows]).all()
    assert sum(len(changes) for changes in run.changes) == run.result.ledger.changes
    assert len({s for snapshot in run.snapshots for s in snapshot.segment.tolist() if s > 0}) >= 3


class Until(Source):
    """Only what arrives before a time."""

    def __init__(self, source: Source, until: int) -> None:
        self._kept = [row for row in source.rows() if row.timestamp < until]

    total = None
    fingerprint = "until"

    def rows(self, start: int = 0) -> Any:
        yield from self._kept[start:]


def altered(row: SourceRow, after: int) -> SourceRow:
    """From `after` on everybody buys like mad."""
    if row.timestamp < after or row.value is None or not row.value.startswith(b"{"):
        return row
    event = {"event_id": f"x{hash(row.value)}", "user_id": "u0000003", "occurred_at": row.timestamp, "type": "purchase"}
    return row._replace(value=orjson.dumps({**event, "amount": 500.0}), key=b"u0000003")


def test_the_future_is_in_no_features_and_in_no_segment(run: Run, tmp_path: Path) -> None:
    last = PLAN.times[-1]
    other = Listed([altered(row, last) for row in SHOP.rows()])
    rerun = backtest(tmp_path / "data", other, PLAN, SHOP.truth)
    for one, two in zip(run.snapshots, rerun.snapshots, strict=True):
        assert one.user_ids == two.user_ids
        np.testing.assert_array_equal(one.features, two.features)
        np.testing.assert_array_equal(one.segment, two.segment)
    ours, theirs = run.result.checkpoints[-1].scores, rerun.result.checkpoints[-1].scores
    for method in METHODS:
        assert ours[method].silhouette == theirs[method].silhouette
        assert ours[method].ari_truth == theirs[method].ari_truth
    # ... but it is what they are judged by.
    assert ours["resegment"].eta2_next_purchase != theirs["resegment"].eta2_next_purchase


def test_a_snapshots_features_are_those_of_a_replay_that_ends_there(run: Run, tmp_path: Path) -> None:
    at = PLAN.times[1]
    settings = config(tmp_path / "data")
    gate = Gate(Until(SHOP, at))
    gate.until = at
    with Replay(settings, gate) as replay:
        assert replay.run()
        snapshot = take(replay.deployment.processor, at, settings.decision)
    assert snapshot.user_ids == run.snapshots[1].user_ids
    np.testing.assert_allclose(snapshot.features, run.snapshots[1].features, rtol=1e-5)


def test_the_same_again_is_the_same(run: Run, tmp_path: Path) -> None:
    again = backtest(tmp_path / "data", SHOP, PLAN, SHOP.truth)
    for one, two in zip(run.result.checkpoints, again.result.checkpoints, strict=True):
        assert one == two
    assert run.result.overall == again.result.overall
    assert run.result.verdict is not None and again.result.verdict is not None
    assert run.result.verdict.following == again.result.verdict.following


def test_newcomers_are_judged_by_nobody(run: Run) -> None:
    for snapshot in run.snapshots:
        assert len(snapshot.rows) <= len(snapshot.standing)
        assert (np.diff(snapshot.rows) > 0).all()
    assert run.snapshots[0].features.shape[1] == sum(feature.learn for feature in Config().features)


def test_the_ledger_is_read_whole(run: Run, tmp_path: Path) -> None:
    """Every record of the topic, by its own words."""
    settings = config(tmp_path / "data")
    with Replay(settings, Until(SHOP, PLAN.times[0])) as replay:
        replay.run()
        table = replay.deployment.processor.populations[0].table
        reader = ChangeReader(replay.transport, table.lookup)
        changes = reader.read()
        where = TopicPartition(SEGMENT_CHANGES, 0)
        records = [orjson.loads(record.value or b"") for record in replay.transport.read(where, 0)]
    assert len(records) == len(changes) > 50
    for i, record in enumerate(records):
        assert table.user_ids[int(changes.user[i])] == record["user_id"]
        assert segment_name(int(changes.after[i])) == (record["to"] and record["to"]["id"])
        assert segment_name(int(changes.before[i])) == (record["from"] and record["from"]["id"])
        assert changes.confidence[i] == record["confidence"]


def test_it_can_be_broken_off(tmp_path: Path) -> None:
    settings = config(tmp_path / "data")
    heard: list[Progress] = []

    def tell(far: Progress) -> bool:
        heard.append(far)
        return len(heard) < 3

    with pytest.raises(BacktestInterruptedError):
        Backtest(settings, SHOP, scan(SHOP, settings.ingest), PLAN).run(tell)
    assert len(heard) == 3
    assert [far.rows for far in heard] == sorted(far.rows for far in heard)


class Balance(HTMLParser):
    """Whether every element that is opened is closed, in order."""

    VOID = frozenset({"meta", "br", "path", "line", "rect", "circle"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        if tag not in {"meta", "br"}:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_the_page_is_sound_and_complete(run: Run, found: dict[str, Any]) -> None:
    nasty = '<script>alert("x")</script> & co'
    shown = page(run.result, {**found, "source": {**found["source"], "file": nasty}}, {"recency_days": nasty})
    reader = Balance()
    reader.feed(shown)
    assert reader.open == []
    assert "<script" not in shown and "http" not in shown.replace("http://www.w3.org/2000/svg", "")
    pictures = shown.split("<svg")[1:]
    assert len(pictures) >= 10
    for picture in pictures:
        ElementTree.fromstring("<svg" + picture.split("</svg>")[0] + "</svg>")
    for name in {profile.name for profile in run.result.checkpoints[-1].profiles}:
        assert name.split("&")[0][:20] in " ".join(reader.texts)
    for heading in ("How the methods compare", "Where people went", "Why they moved", "Against the truth"):
        assert heading in shown
