"""What one contestant cost: CPU seconds of the process itself, all threads, and wall seconds; one JSON line at the end.

Standard library only: the Quix peer runs in an environment of its own.
"""

from __future__ import annotations

import json
import resource
import time


def cpu() -> float:
    """CPU seconds of this process so far, all threads."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


class Stopwatch:
    """Made when the first records are there, so that start-up is left out; marked once when `warm` events are done.

    It tells three laps: `all` of the events, the first ones (`cold`: new users, compilers, caches), the rest (`warm`).
    """

    def __init__(self, warm: int) -> None:
        self._warm = warm
        self._start = self._lap = (0, time.perf_counter(), cpu())
        self.seen = 0

    def count(self, events: int) -> int:
        """So many more events are done; returns how many there are by now."""
        before, self.seen = self.seen, self.seen + events
        if before < self._warm <= self.seen:
            self._lap = self._now()
        return self.seen

    def report(self) -> None:
        """Print what it cost."""
        end = self._now()
        print(
            json.dumps(
                {
                    "all": _difference(self._start, end),
                    "cold": _difference(self._start, self._lap),
                    "warm": _difference(self._lap, end),
                }
            ),
            flush=True,
        )

    def _now(self) -> tuple[int, float, float]:
        return self.seen, time.perf_counter(), cpu()


def _difference(start: tuple[int, float, float], end: tuple[int, float, float]) -> dict[str, float]:
    events, wall, seconds = (b - a for a, b in zip(start, end, strict=True))
    return {"events": events, "wall": wall, "cpu": seconds}
