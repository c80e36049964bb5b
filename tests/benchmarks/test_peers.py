"""The peers do the work that their README says, and the same features can be had from our own table."""

from pathlib import Path

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.peers import core
from benchmarks.peers.check import differences, expected, sums
from benchmarks.peers.declared import FEATURES, toml
from benchmarks.peers.river_pipeline import Pipeline
from benchmarks.workload import events
from stream.config import load
from stream.features.events import decode
from stream.features.table import UserTable
from stream.transport.base import OutRecord
from tests.runtime.memory import Stored

NOW = 1_770_000_000_000


@pytest.fixture(scope="module")
def sample() -> list[OutRecord]:
    return list(events(3_000, 150, NOW))


def parsed(records: list[OutRecord]) -> list[dict[str, object]]:
    return [orjson.loads(record.value or b"") for record in records]


@given(st.lists(st.tuples(st.integers(0, 10**9), st.sampled_from(["click", "browse", "purchase"])), min_size=1))
def test_sums_in_any_order(shape: list[tuple[int, str]]) -> None:
    seen = [{"occurred_at": at, "type": kind, "amount": 3.5, "dwell_ms": 700} for at, kind in shape]
    state: core.State | None = None
    for event in seen:
        state = core.update(state, event)
    assert state is not None
    np.testing.assert_allclose(state[core.SUMS :], sums(seen), rtol=1e-9, atol=1e-12)


def test_the_file_declares_the_same(tmp_path: Path) -> None:
    file = tmp_path / "core.toml"
    file.write_text(toml())
    assert load(file).features == load(None, {"features": FEATURES}).features


def test_our_table_has_the_same_features(sample: list[OutRecord]) -> None:
    config = load(None, {"features": FEATURES})
    table = UserTable(config.layout())
    records = [Stored("events", 0, i, r.timestamp or 0, r.key, r.value, ()) for i, r in enumerate(sample)]
    batch, rejected = decode(records, NOW, config.ingest)
    assert not rejected
    table.apply(batch)
    by_user: dict[str, list[dict[str, object]]] = {}
    for event in parsed(sample):
        by_user.setdefault(str(event["user_id"]), []).append(event)
    for user, seen in by_user.items():
        row = table.lookup(user)
        assert row is not None
        # A user is never looked at before the latest event: at time 0 it is the latest event that counts.
        ours = table.features(np.array([row]), 0)[0]
        np.testing.assert_allclose(ours, sums(seen), rtol=1e-5, err_msg=user)


def test_the_river_pipeline_keeps_the_same_features(sample: list[OutRecord]) -> None:
    pipeline = Pipeline("kmeans")
    seen = parsed(sample)
    changes = [change for event in seen if (change := pipeline.process(event)) is not None]
    assert changes
    for user, state in pipeline.users.items():
        own = [event for event in seen if event["user_id"] == user]
        np.testing.assert_allclose(state[core.SUMS :], sums(own), rtol=1e-9)


def test_the_check_sees_what_is_wrong(sample: list[OutRecord]) -> None:
    model = core.Model([1.0] * 15, [1.0] * 15, [[float(i)] * 15 for i in range(6)])
    wanted = list(expected(parsed(sample), model))
    users: dict[str, core.State] = {}
    made = []
    for event in parsed(sample):
        user = str(event["user_id"])
        users[user] = core.update(users.get(user), event)
        if change := core.decide(users[user], model.distances(users[user][core.SUMS :]), event):
            made.append(change)
    values = [orjson.dumps(change) for change in made]
    assert len(made) > 150
    assert differences(values, wanted) == []
    assert len(differences(values[1:], wanted)) == 1
    assert len(differences([*values, orjson.dumps(made[0] | {"event_id": "another"})], wanted)) == 1
    off = orjson.dumps(made[0] | {"distance": made[0]["distance"] * (1 + 1e-6)})
    assert len(differences([off, *values[1:]], wanted)) == 1
