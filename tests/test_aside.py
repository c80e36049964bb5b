"""Calls on a thread beside the runner: in order, and with their errors."""

from __future__ import annotations

import threading
import time
from functools import partial

import pytest

from stream.aside import Aside


def test_calls_are_made_in_order_on_one_other_thread() -> None:
    aside = Aside("beside")
    made: list[tuple[int, str]] = []

    def note(n: int) -> int:
        made.append((n, threading.current_thread().name))
        return n

    futures = [aside.call(partial(note, n)) for n in range(50)]
    assert [future.result(5) for future in futures] == list(range(50))
    assert made == [(n, "beside") for n in range(50)]
    aside.close()


def test_an_error_is_in_its_future_and_the_next_call_is_made() -> None:
    aside = Aside("beside")

    def fails() -> None:
        raise OSError("away")

    failed, after = aside.call(fails), aside.call(lambda: "made")
    with pytest.raises(OSError, match="away"):
        failed.result(5)
    assert after.result(5) == "made"
    aside.close()


def test_it_ends_when_it_has_made_what_it_was_asked_for() -> None:
    aside = Aside("to end")
    slow = aside.call(partial(time.sleep, 0.05))
    aside.close()
    slow.result(5)
    deadline = time.monotonic() + 5
    while any(thread.name == "to end" for thread in threading.enumerate()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
