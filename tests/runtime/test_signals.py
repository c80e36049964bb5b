"""SIGINT and SIGTERM as an event."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from stream.runtime.signals import SIGNALS, stop_on_signals

WAIT_S = 20


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_that_another_thread_takes(number: signal.Signals) -> None:
    """Which thread takes a signal is the kernel's affair; the main thread may be waiting, and is woken."""
    done = threading.Event()

    def take() -> None:
        time.sleep(0.1)  # the main thread sleeps by now
        signal.pthread_kill(threading.get_ident(), number)
        done.wait(WAIT_S)

    with stop_on_signals() as stop:
        thread = threading.Thread(target=take)
        thread.start()
        assert stop.wait(WAIT_S)
        done.set()
        thread.join()


def test_a_signal_while_threads_are_started() -> None:
    """What hung one stop in a thousand: whoever starts a thread takes signals that were meant for the main thread."""
    for _ in range(30):
        with stop_on_signals() as stop:
            ended = threading.Event()

            def start_threads(ended: threading.Event = ended) -> None:
                while not ended.is_set():
                    threading.Thread(target=int).start()

            thread = threading.Thread(target=start_threads)
            thread.start()
            threading.Timer(0.01, os.kill, (os.getpid(), signal.SIGTERM)).start()
            assert stop.wait(WAIT_S)
            ended.set()
            thread.join()


def test_a_signal_in_the_middle_of_a_wait() -> None:
    """No handler of ours waits for the event's lock in the thread that holds it."""
    for _ in range(100):
        with stop_on_signals() as stop:
            threading.Timer(0.001, os.kill, (os.getpid(), signal.SIGTERM)).start()
            for _ in range(1_000_000):
                if stop.wait(1e-6):
                    break
            assert stop.is_set()


def test_other_signals_do_not_stop() -> None:
    seen: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda number, _: seen.append(number))
    try:
        with stop_on_signals() as stop:
            os.kill(os.getpid(), signal.SIGUSR1)
            assert not stop.wait(0.2)
            assert seen == [signal.SIGUSR1]
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_everything_is_put_back() -> None:
    before, threads = [signal.getsignal(one) for one in SIGNALS], threading.active_count()
    handles = len(list(Path("/dev/fd").iterdir()))
    with stop_on_signals():
        assert [signal.getsignal(one) for one in SIGNALS] != before
    assert [signal.getsignal(one) for one in SIGNALS] == before
    assert signal.set_wakeup_fd(-1) == -1
    assert threading.active_count() == threads
    assert len(list(Path("/dev/fd").iterdir())) == handles
