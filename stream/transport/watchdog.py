"""Calls of the client that can hang, given up after a deadline: what a session asks as it joins, and its goodbye."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


class Watchdog:
    """Runs one call at a time on a thread of its own. After a call that was given up it is of no more use.

    The thread is a daemon, so that a call that never returns cannot keep the process alive.
    """

    def __init__(self, name: str) -> None:
        self._calls: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def run(self, call: Callable[[], T], timeout: float) -> T:
        """The call's result, or its error. Raises TimeoutError where it takes longer than `timeout` seconds."""
        job = _Call(call)
        self._calls.put(job)
        if not job.done.wait(timeout):
            raise TimeoutError
        if job.error is not None:
            raise job.error
        result: T = job.result
        return result

    def close(self) -> None:
        """Let the thread end, once it can."""
        self._calls.put(None)

    def _work(self) -> None:
        while (job := self._calls.get()) is not None:
            try:
                job.result = job.call()
            except BaseException as error:
                job.error = error
            job.done.set()


class _Call:
    __slots__ = ("call", "done", "error", "result")

    def __init__(self, call: Callable[[], Any]) -> None:
        self.call = call
        self.done = threading.Event()
        self.result: Any = None
        self.error: BaseException | None = None
