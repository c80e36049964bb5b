"""What would move a user, held against what the live table and decision then do."""

from __future__ import annotations

import numpy as np
import pytest

from stream.replay import Replay
from stream.segments.assign import INACTIVITY, Assignment, DecisionSettings, assign
from stream.segments.population import Population
from stream.segments.prototypes import Model
from stream.segments.whatif import DAY_MS, HOUR_MS, MOST_EVENTS, WhatIf, what_if
from tests.pipeline.support import configured, small_shop

DECISION = DecisionSettings()


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> tuple[Population, Model, dict[str, WhatIf]]:
    config = configured(tmp_path_factory.mktemp("whatif") / "data")
    with Replay(config, small_shop()) as replay:
        replay.run()
        processor = replay.deployment.processor
        (population,) = processor.populations.values()
        assert processor.model is not None
        at = population.now()
        found = {
            user: answer
            for user in population.table.user_ids[:60]
            if (answer := what_if(user, population, processor.layout, processor.model, DECISION, at)) is not None
        }
        return population, processor.model, found


def sweep(population: Population, model: Model, user: str, at: int) -> Assignment:
    """What one look at `at` says of a user, by the live code."""
    row = population.table.lookup(user)
    assert row is not None
    rows = np.array([row])
    z = model.scale(population.table.features(rows, at)[:, model.columns(population.table.layout.names)])
    standing = population.standing(rows)
    no = np.zeros(1, bool)
    once = DecisionSettings(looks=1)
    return assign(model.segment_distances(z), model.segment_ids, standing, no, no, INACTIVITY, at, once)


def test_silence_moves_them_then_and_not_before(lived: tuple[Population, Model, dict[str, WhatIf]]) -> None:
    population, model, found = lived
    at = population.now()
    moved = {user: answer.silence for user, answer in found.items() if answer.silence is not None}
    assert len(moved) > 10
    for user, silence in moved.items():
        row = population.table.lookup(user)
        before = population.table.column("segment")[row]
        then = sweep(population, model, user, at + silence.after_ms).standing.segment[0]
        assert then == silence.segment != before
        hour_before = sweep(population, model, user, at + silence.after_ms - HOUR_MS).standing.segment[0]
        assert silence.after_ms <= HOUR_MS or hour_before == before
    for user, answer in found.items():
        if answer.silence is None:
            row = population.table.lookup(user)
            for days in (1, 10, 40, 90):
                assert (
                    sweep(population, model, user, at + days * DAY_MS).standing.segment[0]
                    == (population.table.column("segment")[row])
                )


def test_deeds_are_the_fewest_that_move(lived: tuple[Population, Model, dict[str, WhatIf]]) -> None:
    _, model, found = lived
    deeds = [deed for answer in found.values() for deed in answer.deeds]
    assert deeds
    for deed in deeds:
        assert 1 <= deed.count <= MOST_EVENTS
        assert deed.segment in model.segment_ids


def test_asking_changes_nothing(lived: tuple[Population, Model, dict[str, WhatIf]]) -> None:
    population, model, found = lived
    everybody = np.arange(len(population))
    before = population.table.pack(everybody)
    for user, answer in list(found.items())[:5]:
        again = what_if(user, population, population.table.layout, model, DECISION, population.now())
        assert again == answer
    assert population.table.pack(everybody) == before
