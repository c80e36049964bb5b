"""SIGINT and SIGTERM as an event that every thread may wait for."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def stop_on_signals() -> Iterator[threading.Event]:
    """An event that SIGINT and SIGTERM set, so that a step is ended whole. For the main thread only.

    Python's own handler does not do: it runs when the main thread next executes bytecode, which it never does where it
    waits and the kernel let another thread take the signal (one that starts a thread at that moment takes it); and one
    that interrupts `Event.wait` would wait for the lock that its own thread holds. The interpreter's handler in C,
    in whichever thread it runs, writes the signal's number to the wake-up descriptor, and a thread reads it there.
    """
    stop = threading.Event()
    wake, waker = os.pipe()
    os.set_blocking(waker, False)

    def watch() -> None:
        while numbers := os.read(wake, 64):  # the numbers of all signals that Python handles
            if not set(SIGNALS).isdisjoint(numbers):
                stop.set()

    watcher = threading.Thread(target=watch, name="signals", daemon=True)
    watcher.start()
    descriptor = signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
    handlers = {one: signal.signal(one, _ignore) for one in SIGNALS}
    try:
        yield stop
    finally:
        for one, handler in handlers.items():
            signal.signal(one, handler)
        signal.set_wakeup_fd(descriptor)
        os.close(waker)
        watcher.join()
        os.close(wake)


def _ignore(_number: int, _frame: object) -> None:
    """What Python must have, so that the handler in C is there."""
