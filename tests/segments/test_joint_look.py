"""Users of several partitions are looked at together: what comes of it is what comes of one partition at a time."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import topics
from stream.anomalies.quarantine import QuarantineSettings
from stream.features.layout import compile_layout
from stream.features.table import UserTable, joint_features
from stream.runtime.stage import Output
from stream.segments.assign import DecisionSettings
from stream.segments.population import COLUMNS
from stream.segments.processor import Processor, ProcessorSettings
from tests.segments.driven import FEATURES, HOUR, START, Sent, model_of, rule

pytestmark = pytest.mark.usefixtures("either_kernels")

PARTITIONS = 3
LAYOUT = compile_layout(FEATURES, COLUMNS)


def stage() -> Processor:
    made = Processor(
        LAYOUT,
        rules=(rule("active", "pages_7d > 3"),),
        settings=ProcessorSettings(),
        decision=DecisionSettings(looks=1, confirm=0, dwell=0, newcomer_events=2),
        quarantine=QuarantineSettings(enter_looks=1, release_looks=1),
    )
    for partition in range(PARTITIONS):
        made.restore(partition, ())
    model = Sent(topics.SEGMENT_MODEL, 0, 0, START, b"1", model_of(6.0, 10.0).to_bytes())
    made.update_table(topics.SEGMENT_MODEL, [model])
    return made


def records(rng: np.random.Generator, count: int, start: int, at: int) -> dict[int, list[Sent]]:
    found: dict[int, list[Sent]] = {}
    for number in range(count):
        user = int(rng.zipf(1.3)) % 12
        kind = "browse" if rng.random() < 0.8 else "purchase"
        event = {
            "type": kind,
            "event_id": f"e{start + number}",
            "occurred_at": at,
            "user_id": f"u{user}",
            "item_id": "i",
        }
        event |= {"amount": 10.0, "currency": "EUR", "quantity": 1} if kind == "purchase" else {}
        value = orjson.dumps(event) if rng.random() < 0.95 else b"not json"
        where = user % PARTITIONS
        found.setdefault(where, []).append(Sent(topics.EVENTS, where, start + number, at, f"u{user}".encode(), value))
    return found


def by_user(outputs: list[Output]) -> Mapping[tuple[str, bytes | None], list[bytes | None]]:
    """Records of one topic and key in their order; those without a key as they come."""
    found: dict[tuple[str, bytes | None], list[bytes | None]] = {}
    for output in outputs:
        for record in output.records:
            found.setdefault((record.topic, record.key), []).append(record.value)
    for (_, key), values in found.items():
        if key is None:
            values.sort(key=lambda value: value or b"")
    return found


@pytest.mark.parametrize("seed", range(5))
def test_partitions_together_are_partitions_one_by_one(seed: int) -> None:
    rng = np.random.default_rng(seed)
    together, apart = stage(), stage()
    seen: set[str] = set()
    for step in range(25):
        at = START + step * HOUR
        batch = records(rng, int(rng.integers(1, 40)), step * 100, at)
        joint = together.process(batch, at + 5)
        single = [apart.process({partition: own}, at + 5) for partition, own in batch.items()]
        assert by_user([joint]) == by_user(single)
        seen |= {record.topic for record in joint.records}
        for partition in batch:
            (one,) = (output.state[partition] for output in single if partition in output.state)
            assert (joint.state[partition].payload, joint.state[partition].meta) == (one.payload, one.meta)
    assert {topics.SEGMENT_CHANGES, topics.SEGMENT_MEMBERSHIP, topics.OBSERVATIONS, topics.DEAD_LETTERS} <= seen
    assert topics.ANOMALIES in seen or seed, "somebody is held in the first run"


@given(st.lists(st.lists(st.integers(0, 19), min_size=1, max_size=6), min_size=1, max_size=4), st.integers(0, 2**31))
def test_joint_features_are_those_of_each_table_to_the_bit(rows: list[list[int]], seed: int) -> None:
    rng = np.random.default_rng(seed)
    tables = []
    for own in rows:
        table = UserTable(LAYOUT)
        table.unpack(_filled(rng))
        tables.append((table, np.array(own, np.intp), START + int(rng.integers(0, 10 * HOUR))))
    together = joint_features(tables, [0, 2, 3])
    apart = np.concatenate([table.features(own, at, [0, 2, 3]) for table, own, at in tables])
    assert together.tobytes() == apart.tobytes()


def _filled(rng: np.random.Generator) -> bytes:
    """The packed rows of twenty users who did something."""
    made = stage()
    events = [
        Sent(
            topics.EVENTS,
            0,
            number,
            START,
            f"u{number % 20}".encode(),
            orjson.dumps(
                {
                    "type": "browse",
                    "event_id": f"e{number}",
                    "occurred_at": START - int(rng.integers(0, HOUR)),
                    "user_id": f"u{number % 20}",
                    "item_id": "i",
                }
            ),
        )
        for number in range(40)
    ]
    made.process({0: events}, START)
    return made.populations[0].table.pack(np.arange(20))
