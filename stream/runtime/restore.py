"""One partition's restore, in steps that fit between the polls of the partitions that are live.

The changelog is read on a thread of its own, because a read may wait: for a broker, or for a transaction that the last
owner left open. What it brought is applied on the runner's thread, a delta at a time. Nothing of the partition shows
in the stage or in the changelog's cursors before the last step, so that a restore may be given up at any moment.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from stream.runtime.changelog import Changelog, Cursor
from stream.runtime.stage import Stage

Delta = tuple[dict[str, Any], bytes]
Inputs = dict[str, int | None]

AHEAD = 8
"""Deltas read ahead of those applied; each is about as large as what one batch changed."""
_DONE = object()
_NOTICE_S = 0.1
"""So soon a reader whose queue is full notices that it is not wanted any more."""


@dataclass(frozen=True, slots=True)
class _End:
    inputs: Inputs
    cursor: Cursor | None


class Restore:
    """Restores `partition` of `stage`.

    Parameters: `offsets` asks for the group's committed offsets by topic; called on the reader's thread. Errors of
    the transport and of the changelog are raised by `advance`.
    """

    def __init__(
        self, stage: Stage, changelog: Changelog | None, partition: int, offsets: Callable[[], Inputs]
    ) -> None:
        self.partition = partition
        self.started = time.perf_counter()
        self.inputs: Inputs = {}
        """Committed offsets, once it is done."""
        self._changelog = changelog
        self._offsets = offsets
        self._read: queue.Queue[Delta | BaseException | _End] = queue.Queue(AHEAD)
        self._cursor: Cursor | None = None
        self._ended = self._cancelled = False
        self._steps = stage.restoring(partition, self._deltas())
        threading.Thread(target=self._read_all, name=f"restore-{stage.name}-{partition}", daemon=True).start()

    def ready(self) -> bool:
        """Whether `advance` has something to do."""
        return self._ended or not self._read.empty()

    def advance(self, until: float | None) -> bool:
        """Apply what has been read, up to a moment of the monotonic clock, or with None all; True when it is done."""
        while until is None or (self.ready() and time.monotonic() < until):
            if next(self._steps, _DONE) is _DONE:
                self._adopt()
                return True
        return False

    def cancel(self) -> None:
        """Forget it: the partition is not ours any more."""
        self._cancelled = True
        self._steps.close()

    def _adopt(self) -> None:
        if self._changelog is not None:
            assert self._cursor is not None
            self._changelog.adopt(self.partition, self._cursor)

    def _deltas(self) -> Iterator[Delta]:
        """What the reader brings, on the runner's thread."""
        while True:
            item = self._read.get()
            if isinstance(item, BaseException):
                raise item
            if isinstance(item, _End):
                self.inputs, self._cursor, self._ended = item.inputs, item.cursor, True
                return
            yield item

    def _read_all(self) -> None:
        try:
            inputs = self._offsets()
            cursor = self._read_changelog(self._changelog, inputs) if self._changelog is not None else None
            self._hand_over(_End(inputs, cursor))
        except BaseException as error:
            self._hand_over(error)

    def _read_changelog(self, changelog: Changelog, inputs: Inputs) -> Cursor | None:
        reading = changelog.read(self.partition, inputs)
        while True:
            try:
                delta = next(reading)
            except StopIteration as end:
                cursor: Cursor = end.value
                return cursor
            if not self._hand_over(delta):
                # Here, because SQLite wants its connections closed by the thread that opened them.
                reading.close()
                return None

    def _hand_over(self, item: Delta | BaseException | _End) -> bool:
        """False where nobody wants it any more."""
        while not self._cancelled:
            try:
                self._read.put(item, timeout=_NOTICE_S)
                return True
            except queue.Full:
                continue
        return False
