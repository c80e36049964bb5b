"""Small replays, and what of their outcome must be the same however they came about."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from producers.shop import Shop, ShopSettings
from producers.source import Source
from schemas import topics
from stream.campaigns.file import parse_campaigns
from stream.commands.demo import CAMPAIGNS
from stream.config import Config, load
from stream.ledger import Ledger
from stream.replay import Replay
from stream.segments.population import Population
from stream.transport.base import TopicPartition, Transport

OUTPUTS = (
    topics.SEGMENT_CHANGES,
    topics.SEGMENT_MEMBERSHIP,
    topics.SEGMENT_MODEL,
    topics.ANOMALIES,
    topics.DEAD_LETTERS,
    topics.CAMPAIGN_ACTIONS,
)


def small_shop(seed: int = 3, users: int = 250, days: int = 14) -> Shop:
    """Some ten thousand events with everything in them, and a first model after a few days."""
    return Shop(ShopSettings(users=users, days=days, seed=seed, joining=0.2, broken=0.01, too_late=0.002))


def configured(directory: Path, **overrides: Any) -> Config:
    """Settings under which a small shop has several models."""
    return load(
        None,
        {
            "transport.data_dir": directory,
            "transport.embedded.synchronous": "normal",
            "runner.batch_records": 700,
            "modeller.warm_up.users": 100,
            "modeller.review.fewest": 200,
            **{key.replace("__", "."): value for key, value in overrides.items()},
        },
    )


def replay(
    directory: Path,
    source: Source,
    go_on: Callable[[int], bool] = lambda rows: True,
    partitions: int = 1,
    **overrides: Any,
) -> Ledger:
    """Run (or carry on) a replay; the ledger so far."""
    campaigns = parse_campaigns(CAMPAIGNS, "test")
    with Replay(configured(directory, **overrides), source, partitions=partitions, campaigns=campaigns) as running:
        running.run(go_on)
        return running.ledger()


def written(transport: Transport, names: tuple[str, ...] = OUTPUTS) -> list[tuple[Any, ...]]:
    """Every record of the output topics: what a replay must give bit for bit."""
    return [
        (topic, partition, record.offset, record.timestamp, record.key, record.value, tuple(record.headers))
        for topic in names
        for partition in range(transport.partitions(topic))
        for record in transport.read(TopicPartition(topic, partition), 0)
    ]


def features(populations: list[Population], at_ms: int) -> dict[str, NDArray[np.float64]]:
    """The feature vector of every user at one time."""
    return {
        user: vector
        for population in populations
        for user, vector in zip(population.table.user_ids, population.table.features(None, at_ms), strict=True)
    }


def assert_same_features(got: dict[str, NDArray[np.float64]], wanted: dict[str, NDArray[np.float64]]) -> None:
    """The same users with the same features, to the rounding of sums in another order."""
    assert got.keys() == wanted.keys()
    users = sorted(wanted)
    np.testing.assert_allclose(
        np.array([got[user] for user in users]), np.array([wanted[user] for user in users]), rtol=1e-5, atol=1e-5
    )
