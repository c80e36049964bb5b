"""A stream of hostile events: each is accounted for exactly once, none does harm, and memory stays flat.

FUZZ_EVENTS says how many (`make fuzz`: a million); FUZZ_KAFKA=1 sends them through a real Kafka.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from schemas.dead_letter import Reason
from stream.dead_letters import REASONS
from tests.fuzz.fuzz import in_directory, on_kafka, run
from tests.fuzz.hostile import Hostile

pytestmark = [pytest.mark.slow, pytest.mark.timeout(0)]

EVENTS = int(os.environ.get("FUZZ_EVENTS", "20000"))
SEED = int(os.environ.get("FUZZ_SEED", "1"))
MOST_MB = 60
"""Growth that is no leak: caches of the allocator and of SQLite."""
NOT_MADE: set[Reason] = {"unknown_currency"}
"""There is no base currency in these runs."""


def test_hostile_events(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    if os.environ.get("FUZZ_KAFKA") == "1":
        place = on_kafka(request.getfixturevalue("kafka_bootstrap"))
    else:
        place = in_directory(tmp_path / "data")
    with request.getfixturevalue("capsys").disabled():
        fuzzed = run(place, EVENTS, SEED)
    assert fuzzed.accepted + fuzzed.duplicates + sum(fuzzed.dead.values()) == EVENTS
    assert fuzzed.accepted > EVENTS // 4 and fuzzed.duplicates > EVENTS // 1_000
    assert set(fuzzed.dead) == set(REASONS) - NOT_MADE, "every way to be dead was met"
    assert fuzzed.observations > 500 and fuzzed.models >= 1
    assert fuzzed.grown < MOST_MB


def test_the_same_seed_gives_the_same_events() -> None:
    one, other = (list(Hostile(7, 10**12).records(2_000)) for _ in range(2))
    assert one == other
    assert len({record.value for record in one}) > 1_500
