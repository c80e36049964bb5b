"""Replays: every row accounted for, the same ledger bit for bit, and a kill makes no difference."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from numpy.typing import NDArray

from producers.shop import Shop, ShopSettings
from schemas import topics
from schemas.change import SegmentChange
from schemas.dead_letter import DeadLetter
from schemas.membership import SegmentMembership
from stream.ledger import Ledger
from stream.replay import Replay
from stream.transport.base import TransportError
from stream.transport.embedded import EmbeddedTransport
from tests.pipeline.support import assert_same_features, configured, features, replay, small_shop, written

Written = list[tuple[Any, ...]]
Whole = tuple[Ledger, Written, Path]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """One replay without a break."""
    directory = tmp_path_factory.mktemp("whole") / "data"
    ledger = replay(directory, small_shop())
    transport = EmbeddedTransport(directory, create=False)
    found = written(transport)
    transport.close()
    return ledger, found, directory


def outcome(directory: Path) -> Written:
    transport = EmbeddedTransport(directory, create=False)
    try:
        return written(transport)
    finally:
        transport.close()


def totals(ledger: Ledger) -> dict[str, object]:
    return {name: value for name, value in ledger.as_json().items() if name != "seconds"}


def test_every_row_is_accounted_for(whole: Whole) -> None:
    ledger, found, _ = whole
    summary = small_shop().summary
    assert ledger.events_read == summary.rows
    assert ledger.events_read == ledger.events_accepted + ledger.events_duplicate + ledger.events_dead_lettered
    letters = [DeadLetter.model_validate_json(value) for topic, *_, value, _ in found if topic == topics.DEAD_LETTERS]
    assert len(letters) == ledger.events_dead_lettered
    assert len({(one.source.partition, one.source.offset) for one in letters}) == len(letters), "each lands once"
    late = sum(one.reason == "too_late" for one in letters)
    assert len(letters) - late >= sum(summary.broken.values()) * 0.95
    assert late > 0


def test_changes_are_whole(whole: Whole) -> None:
    """Sequences without gaps, each change begins where the last one ended, memberships equal the last change."""
    ledger, found, _ = whole
    changes = [SegmentChange.model_validate_json(row[5]) for row in found if row[0] == topics.SEGMENT_CHANGES]
    members = [SegmentMembership.model_validate_json(row[5]) for row in found if row[0] == topics.SEGMENT_MEMBERSHIP]
    assert len(changes) == ledger.changes > 300
    assert Counter(one.cause for one in changes) == {k: v for k, v in ledger.changes_by_cause.items() if v}
    assert {"entered", "behaviour"} <= {one.cause for one in changes}
    assert len({one.id for one in changes}) == len(changes)
    last: dict[str, SegmentChange] = {}
    for change in changes:
        before = last.get(change.user_id)
        assert change.sequence == (before.sequence + 1 if before else 1)
        assert (change.from_ and change.from_.id) == (before.to.id if before and before.to else None)
        assert change.from_ != change.to
        last[change.user_id] = change
    assert {one.user_id: (one.segment, one.sequence) for one in members} == {
        user: (change.to, change.sequence) for user, change in last.items()
    }
    assert len(last) == ledger.users


def test_models_follow_each_other_and_actions_are_counted(whole: Whole) -> None:
    ledger, found, _ = whole
    versions = [orjson.loads(row[5])["version"] for row in found if row[0] == topics.SEGMENT_MODEL]
    assert versions == list(range(1, len(versions) + 1))
    assert len(versions) >= 2
    assert ledger.segments >= 2
    assert ledger.campaign_actions == sum(row[0] == topics.CAMPAIGN_ACTIONS for row in found) > 0


def test_the_same_again_bit_for_bit(whole: Whole, tmp_path: Path) -> None:
    ledger, found, _ = whole
    assert totals(replay(tmp_path / "data", small_shop())) == totals(ledger)
    assert outcome(tmp_path / "data") == found


def test_run_again_when_finished_it_does_nothing_twice(
    whole: Whole,
) -> None:
    ledger, found, directory = whole
    assert totals(replay(directory, small_shop())) == totals(ledger)
    assert outcome(directory) == found


def interruptions(seed: int) -> Callable[[int], bool]:
    rng = random.Random(seed)
    return lambda rows: rng.random() > 0.3


@pytest.mark.parametrize("seed", [1, 2])
def test_interrupted_between_steps(whole: Whole, tmp_path: Path, seed: int) -> None:
    ledger, found, _ = whole
    for attempt in range(100):
        part = replay(tmp_path / "data", small_shop(), interruptions(seed * 100 + attempt))
        if part.events_read == ledger.events_read:
            break
    assert totals(replay(tmp_path / "data", small_shop())) == totals(ledger)
    assert outcome(tmp_path / "data") == found


@pytest.mark.slow
def test_killed_at_any_moment(whole: Whole, tmp_path: Path) -> None:
    """kill -9 at random times, a dozen of them: the ledger is the same bit for bit."""
    ledger, found, _ = whole
    code = (
        "import sys; from pathlib import Path; from tests.pipeline.support import replay, small_shop;"
        "replay(Path(sys.argv[1]), small_shop())"
    )
    rng = random.Random(7)
    for _ in range(12):
        process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "data")])
        time.sleep(rng.uniform(0.8, 2.5))
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert totals(replay(tmp_path / "data", small_shop())) == totals(ledger)
    assert outcome(tmp_path / "data") == found


def test_partitions_and_batches_make_no_difference_to_features(tmp_path: Path) -> None:
    """Without events beyond the allowed lateness (a partition's own stream time tells those) nothing may differ."""
    settings = ShopSettings(users=250, days=14, seed=3, joining=0.2, broken=0.01, too_late=0)

    def run(name: str, partitions: int, batch: int) -> tuple[Ledger, dict[str, NDArray[np.float64]]]:
        config = configured(tmp_path / name, runner__batch_records=batch)
        with Replay(config, Shop(settings), partitions=partitions) as running:
            running.run()
            populations = list(running.deployment.processor.populations.values())
            return running.ledger(), features(populations, settings.end_ms)

    ledger, one = run("one", 1, 5_000)
    other, four = run("four", 4, 1_333)
    assert (ledger.events_accepted, ledger.events_duplicate) == (other.events_accepted, other.events_duplicate)
    assert_same_features(four, one)


def test_a_directory_takes_one_source_only(tmp_path: Path) -> None:
    replay(tmp_path / "data", small_shop(), lambda rows: False)
    with pytest.raises(TransportError, match="holds the replay of another source"):
        replay(tmp_path / "data", small_shop(seed=4))
    with pytest.raises(TransportError, match="--partitions 1"):
        replay(tmp_path / "data", small_shop(), partitions=2)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("three years of work")
    with pytest.raises(TransportError, match="something else than a replay"):
        replay(tmp_path / "mine", small_shop())
