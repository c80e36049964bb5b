"""The oracle itself: content with what a deployment without faults has published, and not to be deceived."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from schemas import topics
from stream.assembly import Deployment
from stream.config import Config
from stream.features.state import pack_rows
from stream.runtime.changelog import Changelog
from stream.runtime.stage import StateDelta
from stream.segments.population import Population
from stream.transport.base import TopicPartition
from tests.faults import oracle
from tests.faults.campaigns import CAMPAIGNS
from tests.faults.deployed import Deployed, embedded_place
from tests.faults.fleet import Fleet
from tests.faults.journal import JOURNAL, journal
from tests.runtime.memory import MemoryTransport, Stored
from tests.verify.test_verify import copied, log_of, lose, rewrite

pytestmark = [pytest.mark.faults, pytest.mark.timeout(0)]


@pytest.fixture(scope="module")
def finished(fleet: Fleet, tmp_path_factory: pytest.TempPathFactory) -> tuple[Config, Path]:
    """Some thousand events through all stages in this process, with a journal."""
    directory = tmp_path_factory.mktemp("oracle") / "data"
    deployed = Deployed(fleet, embedded_place(directory), 1, 31, directory)
    deployed.feed(6_000)
    transport = journal(deployed.transport, "only")
    deployment = Deployment(deployed.config, transport, 1, wall_clock=False, campaigns=CAMPAIGNS)
    for runner in deployment.runners:
        runner.step(0.0)
        while runner.behind():
            runner.step(0.0)
        runner.abandon()
    # A second time: the modeller's versions came after the first batches.
    deployed.feed(3_000)
    for runner in deployment.runners:
        runner.step(0.0)
        while runner.behind():
            runner.step(0.0)
        runner.abandon()
    deployed.close()
    return deployed.config, directory


@pytest.fixture
def memory(finished: tuple[Config, Path]) -> MemoryTransport:
    _, directory = finished
    return copied(directory, JOURNAL)


def test_it_is_content_without_faults(finished: tuple[Config, Path], memory: MemoryTransport) -> None:
    checked = oracle.check(memory, finished[0], 1)
    assert checked.events == 9_000
    assert min(checked.changes, checked.models, checked.actions, checked.users) > 1


def twice(memory: MemoryTransport) -> None:
    """As if a zombie had got the same commit through."""
    log = log_of(memory, JOURNAL)
    log.append(log[-1]._replace(offset=len(log)))


def state_off_by_a_bit(memory: MemoryTransport, config: Config) -> None:
    """The newest state, a single feature of a single user changed by its last bit."""
    where = TopicPartition(topics.USER_STATE, 0)
    population = Population(0, config.layout())
    changelog = Changelog(memory, "processor", topics.USER_STATE)
    offset = memory.offsets["resegment-processor", TopicPartition(topics.EVENTS, 0)]
    deltas = list(changelog.restore(0, {topics.EVENTS: offset}))
    population.restore(deltas)
    arrays = population.table._arrays
    group = next(at for at, group in enumerate(config.layout().groups) if group.dtype == np.float32)
    arrays[group].view("u4")[0, 0] ^= 1
    table = population.table
    payload = pack_rows(config.layout(), table.stream_time, table.user_ids, arrays, np.arange(1))
    (frame,) = changelog.frame(0, StateDelta(payload, deltas[-1][0]), {topics.EVENTS: offset})
    log = memory.logs[where]
    log.append(Stored(*where, len(log), 0, None, frame.value))


DAMAGE: dict[str, tuple[str, Callable[[MemoryTransport], None]]] = {
    "an input worked on twice": ("commit by only", twice),
    "a reason made up": ("segment-changes", lambda m: rewrite(m, topics.SEGMENT_CHANGES, 20, why=[])),
    "a detail of a dead letter": ("events-dead-letter", lambda m: rewrite(m, topics.DEAD_LETTERS, 3, detail="?")),
    "an observation lost": ("observations", lambda m: lose(m, topics.OBSERVATIONS, -1)),
    "a model with other centres": ("models", lambda m: rewrite(m, topics.SEGMENT_MODEL, -1, observations=1)),
    "an action to elsewhere": ("campaign-actions", lambda m: rewrite(m, topics.CAMPAIGN_ACTIONS, 5, target="/tmp/x")),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_it_is_not_deceived(finished: tuple[Config, Path], memory: MemoryTransport, name: str) -> None:
    told, damage = DAMAGE[name]
    damage(memory)
    with pytest.raises(AssertionError, match=told):
        oracle.check(memory, finished[0], 1)


def test_it_sees_a_single_bit(finished: tuple[Config, Path], memory: MemoryTransport) -> None:
    state_off_by_a_bit(memory, finished[0])
    with pytest.raises(AssertionError, match="column"):
        oracle.check(memory, finished[0], 1)
