"""Named places where a test may kill or stop this process. For tests only; unset, a place costs one empty call a batch.

    RESEGMENT_CRASH_POINT=after_produce      killed (SIGKILL) when it gets there
    RESEGMENT_CRASH_POINT=in_commit:7        ... for the seventh time
    RESEGMENT_CRASH_POINT=after_offsets:3:stop   stopped (SIGSTOP) instead, and left to whoever sends SIGCONT

`in_commit` strikes from another thread within some milliseconds, so that it falls into the commit itself.
"""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Callable
from typing import Final

VARIABLE: Final = "RESEGMENT_CRASH_POINT"

POINTS: Final = (
    "after_poll",  # records are polled, nothing is done with them
    "in_apply",  # the user table is changed, nothing is decided or written
    "in_sweep",  # some users of a sweep are decided
    "at_model_switch",  # some users are relabelled under a new model
    "at_publish",  # the modeller made a version that is not written yet
    "after_produce",  # outputs and state are written, but not committed
    "after_offsets",  # offsets too
    "in_commit",  # the commit is under way
    "after_commit",  # it is done, but nobody here knows
    "in_restore",  # some of the state is read back
)
_IN_COMMIT_S: Final = 0.004


def _pass(point: str) -> None:
    """Nothing is armed."""


reach: Callable[[str], None] = _pass
"""Tell that the process is at a point; call it as `crash.reach`, for `arm` replaces it."""


def arm(text: str | None) -> None:
    """Take what the variable says; None disarms. Raises ValueError where that is no crash point."""
    global reach
    if text is None:
        reach = _pass
        return
    name, _, rest = text.partition(":")
    count, _, action = rest.partition(":")
    if name not in POINTS or not (count or "1").isdecimal() or action not in ("", "kill", "stop"):
        raise ValueError(f"{VARIABLE}={text!r}: write NAME[:N[:stop]], NAME one of {', '.join(POINTS)}")
    reach = _Armed(name, int(count or 1), signal.SIGSTOP if action == "stop" else signal.SIGKILL)


class _Armed:
    def __init__(self, name: str, count: int, number: signal.Signals) -> None:
        self._name = name
        self._left = count
        self._signal = number
        self._lock = threading.Lock()

    def __call__(self, point: str) -> None:
        if point != self._name:
            return
        with self._lock:  # stages run in threads
            self._left -= 1
            if self._left != 0:
                return
        if point == "in_commit":
            threading.Thread(target=self._strike_soon, daemon=True).start()
        else:
            os.kill(os.getpid(), self._signal)

    def _strike_soon(self) -> None:
        time.sleep(random.uniform(0, _IN_COMMIT_S))
        os.kill(os.getpid(), self._signal)


arm(os.environ.get(VARIABLE))
