"""A few threads that make blocking calls for a loop that must not block.

Daemons, unlike those of concurrent.futures: a receiver that never answers must not hold up the end of the process.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")


class CallPool(Generic[T, R]):
    """Runs calls on at most `size` threads, started when first needed. Calls must not raise.

    A ticket goes in with each call and comes back with its result, in the order in which the calls ended.
    """

    def __init__(self, size: int, name: str) -> None:
        self._size = size
        self._name = name
        self._calls: queue.SimpleQueue[tuple[T, Callable[[], R]] | None] = queue.SimpleQueue()
        self._results: queue.SimpleQueue[tuple[T, R]] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self.under_way = 0
        """Submitted, and not yet taken from `finished`."""

    @property
    def free(self) -> int:
        """How many calls may be submitted without one having to wait for a thread."""
        return self._size - self.under_way

    def submit(self, ticket: T, call: Callable[[], R]) -> None:
        """Have a thread make the call."""
        self.under_way += 1
        if len(self._threads) < min(self._size, self.under_way):
            thread = threading.Thread(target=self._work, name=f"{self._name}-{len(self._threads)}", daemon=True)
            self._threads.append(thread)
            thread.start()
        self._calls.put((ticket, call))

    def finished(self, timeout: float) -> list[tuple[T, R]]:
        """Everything that has ended; waits at most `timeout` seconds for the first, where calls are under way."""
        done: list[tuple[T, R]] = []
        try:
            if self.under_way:
                done.append(self._results.get(timeout=timeout) if timeout > 0 else self._results.get_nowait())
            while len(done) < self.under_way:
                done.append(self._results.get_nowait())
        except queue.Empty:
            pass
        self.under_way -= len(done)
        return done

    def close(self) -> None:
        """Let the threads end once they are idle; does not wait for them."""
        for _ in self._threads:
            self._calls.put(None)
        self._threads.clear()

    def _work(self) -> None:
        while (item := self._calls.get()) is not None:
            ticket, call = item
            self._results.put((ticket, call()))
