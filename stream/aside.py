"""Calls on a thread beside the caller's: what it need not wait for, or gives up waiting for after a deadline.

A call of the client can hang; `call(...).result(seconds)` raises TimeoutError then, and the thread is of no more use.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")


class Aside:
    """Makes calls in their order. The thread is a daemon: a call that hangs does not keep the process alive."""

    def __init__(self, name: str) -> None:
        self._calls: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]] | None] = queue.SimpleQueue()
        threading.Thread(target=self._work, name=name, daemon=True).start()

    def call(self, what: Callable[[], T]) -> Future[T]:
        """Make a call, and do not wait; what it returns or raises is in the future."""
        future: Future[T] = Future()
        self._calls.put((what, future))
        return future

    def close(self) -> None:
        """Let the thread end once it has made the calls that it was asked for."""
        self._calls.put(None)

    def _work(self) -> None:
        while (job := self._calls.get()) is not None:
            what, future = job
            try:
                future.set_result(what())
            except BaseException as error:
                future.set_exception(error)
