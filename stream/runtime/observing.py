"""What a runner tells operations as it goes, and one who hears nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Protocol

from numpy.typing import ArrayLike

from stream.transport.base import TopicPartition

Failure = Literal["fenced", "unavailable", "error"]


class Observer(Protocol):
    """What the runner tells operations; every method must be cheap and must not raise."""

    def beat(self, stage: str) -> None:
        """The loop is alive."""

    def ready(self, stage: str) -> None:
        """Restored, connected, polling."""

    def not_ready(self, stage: str, reason: str) -> None:
        """Restoring, or the broker does not answer."""

    def batch(self, stage: str, records: int, seconds: float) -> None:
        """One call of the stage on a batch."""

    def begun(self, stage: str) -> None:
        """A commit has begun of what was told so far; what is told from now on is the next one's."""

    def commit(self, stage: str, seconds: float, arrived_ms: ArrayLike, state_bytes: int = 0, ago: float = 0.0) -> None:
        """The commit that had begun succeeded: how long it took, when its records arrived (none under the data's own
        clock), its changelog's size, and how many seconds ago that was."""

    def restored(self, stage: str, partition: int, seconds: float) -> None:
        """A partition's state was restored."""

    def rebalance(self, stage: str, assigned: int, revoked: int) -> None:
        """Partitions came or went."""

    def lag(self, stage: str, lag: Mapping[TopicPartition, int]) -> None:
        """Records behind the end."""

    def failed(self, stage: str, kind: Failure, reason: str) -> None:
        """The session is dead and what was not committed is void; the stage starts over."""


class SilentObserver:
    """An Observer that hears nothing; for tests and tools."""

    def beat(self, stage: str) -> None: ...  # noqa: D102
    def ready(self, stage: str) -> None: ...  # noqa: D102
    def not_ready(self, stage: str, reason: str) -> None: ...  # noqa: D102
    def batch(self, stage: str, records: int, seconds: float) -> None: ...  # noqa: D102
    def begun(self, stage: str) -> None: ...  # noqa: D102
    def commit(  # noqa: D102
        self, stage: str, seconds: float, arrived_ms: ArrayLike, state_bytes: int = 0, ago: float = 0.0
    ) -> None: ...
    def restored(self, stage: str, partition: int, seconds: float) -> None: ...  # noqa: D102
    def rebalance(self, stage: str, assigned: int, revoked: int) -> None: ...  # noqa: D102
    def lag(self, stage: str, lag: Mapping[TopicPartition, int]) -> None: ...  # noqa: D102
    def failed(self, stage: str, kind: Failure, reason: str) -> None: ...  # noqa: D102
