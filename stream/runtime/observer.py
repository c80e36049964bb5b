"""What a runner tells operations, passed on to the metrics and to the health report.

Invariant: what a stage tells through `uncommitted` is shown with the commit that made it true, and forgotten with the
failure that made it void. One observer a stage.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike

from stream.runtime.health import Health
from stream.runtime.metrics import Metrics, Uncommitted
from stream.runtime.observing import Failure
from stream.transport.base import TopicPartition


class StageObserver:
    """The Observer of one stage.

    Parameters: with `wall_clock` False (replays) arrival times are the data's own, and no latencies are shown.
    """

    def __init__(self, metrics: Metrics, health: Health, *, wall_clock: bool = True) -> None:
        self._metrics = metrics
        self._health = health
        self._wall_clock = wall_clock
        self.uncommitted = Uncommitted(metrics)
        """For the stage: what its batches caused."""

    def beat(self, stage: str) -> None:
        """The loop is alive."""
        self._health.beat(stage)

    def ready(self, stage: str) -> None:
        """Restored, connected, polling."""
        self._health.ready(stage)

    def not_ready(self, stage: str, reason: str) -> None:
        """Joining or restoring."""
        self._health.not_ready(stage, reason)

    def failed(self, stage: str, kind: Failure, reason: str) -> None:
        """The session is dead and everything uncommitted is void; the stage starts over."""
        self.uncommitted.discard()
        self._metrics.failed(stage, kind)
        self._metrics.lag(stage, {})
        self._health.not_ready(stage, reason)

    def batch(self, stage: str, records: int, seconds: float) -> None:
        """One call of the stage on a batch."""
        self.uncommitted.batch(stage, records, seconds)

    def begun(self, stage: str) -> None:
        """A commit has begun: what the stage tells from now on waits for the next one."""
        self.uncommitted.seal()

    def commit(self, stage: str, seconds: float, arrived_ms: ArrayLike, state_bytes: int = 0, ago: float = 0.0) -> None:
        """The commit succeeded, so many seconds ago: when its records arrived, and the size of its changelog's."""
        arrived = np.asarray(arrived_ms if self._wall_clock else (), np.float64) + 1000 * ago
        self._metrics.commit(stage, seconds, arrived)
        self._metrics.state_written(stage, state_bytes)
        self.uncommitted.publish(ago)

    def restored(self, stage: str, partition: int, seconds: float) -> None:
        """A partition's state was restored."""
        self._metrics.restored(stage, seconds)

    def rebalance(self, stage: str, assigned: int, revoked: int) -> None:
        """Partitions came or went."""
        self._metrics.rebalance(stage)

    def lag(self, stage: str, lag: Mapping[TopicPartition, int]) -> None:
        """Records behind the end."""
        self._metrics.lag(stage, lag)
