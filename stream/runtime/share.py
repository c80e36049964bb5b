"""A duty cycle: what keeps background work from taking more than its share of a thread's time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

LONGEST_REST_S = 60.0
"""However long a piece of work took: a member of a group that never polls loses its place."""


class Share:
    """Work that took s seconds is followed by s * (1 / share - 1) seconds in which it should not begin again.

    Parameters: the share, above 0 and at most 1 (no rest); `clock` gives seconds.
    """

    def __init__(self, share: float, clock: Callable[[], float] = time.perf_counter) -> None:
        self._rest = 1.0 / share - 1.0
        self._clock = clock
        self._until = float("-inf")

    def left(self) -> float:
        """Seconds of rest that are left; 0 where work may begin."""
        return max(0.0, self._until - self._clock())

    @contextmanager
    def working(self) -> Iterator[None]:
        """The work, whether it succeeds or not."""
        began = self._clock()
        try:
            yield
        finally:
            now = self._clock()
            self._until = now + min(LONGEST_REST_S, (now - began) * self._rest)
