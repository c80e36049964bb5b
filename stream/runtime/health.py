"""Health: is each stage's loop alive, and is it ready to do its work.

Invariant: a stage is *alive* while its loop came round within the limit, whatever it is doing (waiting for a broker is
alive: a restart would not help); it is *ready* when it says so and is alive. The process is alive when all its stages
are, and ready when it has stages and all of them are.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class StageHealth:
    """One stage at one moment. `reason` says why it is not ready (empty when it is); never personal data."""

    ready: bool
    reason: str
    alive: bool
    heartbeat_age: float
    """Seconds since the loop came round, or since the stage was registered."""


@dataclass(frozen=True, slots=True)
class HealthReport:
    """All stages at one moment."""

    stages: dict[str, StageHealth]

    @property
    def alive(self) -> bool:
        """No loop is stuck."""
        return all(stage.alive for stage in self.stages.values())

    @property
    def ready(self) -> bool:
        """There are stages, and all of them are at work."""
        return bool(self.stages) and all(stage.ready for stage in self.stages.values())


@dataclass(slots=True)
class _State:
    beat_at: float
    changed_at: float
    reason: str
    """Empty when ready."""


class Health:
    """What the stages say of themselves; safe for any number of threads.

    Parameters: `stuck_after` seconds without a heartbeat a loop counts as stuck; more than the longest time-out of a
    transport and the longest backoff. `clock` is monotonic, in seconds. A stage that was not registered is when it is
    first heard of.
    """

    def __init__(self, stuck_after: float = 90.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._stuck_after = stuck_after
        self._clock = clock
        self._lock = threading.Lock()
        self._stages: dict[str, _State] = {}

    def register(self, stage: str) -> None:
        """A stage will run here: not ready until it says so, and stuck if it never beats."""
        with self._lock:
            self._state(stage)

    def leave(self, stage: str) -> None:
        """The stage has stopped for good, as it was meant to."""
        with self._lock:
            self._stages.pop(stage, None)

    def beat(self, stage: str) -> None:
        """The loop came round."""
        with self._lock:
            self._state(stage).beat_at = self._clock()

    def ready(self, stage: str) -> None:
        """Restored, connected, polling. Cheap when it is ready already."""
        with self._lock:
            state = self._state(stage)
            waited = self._turn(state, "")
        if waited is not None:
            log.info("stage %s is ready", stage, extra={"stage": stage, "after_seconds": round(waited, 3)})

    def not_ready(self, stage: str, reason: str) -> None:
        """It cannot do its work now; `reason` is for the person who was woken."""
        with self._lock:
            state = self._state(stage)
            was_ready = not state.reason
            self._turn(state, reason or "no reason given")
        if was_ready:
            log.warning("stage %s is not ready: %s", stage, reason, extra={"stage": stage})

    def report(self) -> HealthReport:
        """How all stages are now."""
        with self._lock:
            now = self._clock()
            return HealthReport({name: self._judge(state, now) for name, state in sorted(self._stages.items())})

    def _state(self, stage: str) -> _State:
        state = self._stages.get(stage)
        if state is None:
            now = self._clock()
            state = self._stages[stage] = _State(now, now, "starting: nothing polled yet")
        return state

    def _turn(self, state: _State, reason: str) -> float | None:
        """Set the reason; seconds since readiness last turned, if it turned now."""
        turned = bool(state.reason) != bool(reason)
        state.reason = reason
        if not turned:
            return None
        now = self._clock()
        state.changed_at, before = now, state.changed_at
        return now - before

    def _judge(self, state: _State, now: float) -> StageHealth:
        age = now - state.beat_at
        alive = age <= self._stuck_after
        stuck = "" if alive else f"the loop has been stuck for {age:.0f} s (limit {self._stuck_after:g} s)"
        reason = "; ".join(filter(None, (stuck, state.reason)))
        return StageHealth(ready=not reason, reason=reason, alive=alive, heartbeat_age=age)
