"""The arrival clock of a data set: the running maximum of its event times, which no absurd time can push.

A data set has no arrival times, so its rows are taken to arrive when the newest event so far happened. One event
stamped 2099 in a file of 2017 would then make everything after it too late. So a time moves the clock only when the
rows around it agree:

- **Most of what follows must survive it.** Moving to t makes events before t - `slack` too late. Of the next 16, 128
  and 1,024 rows, those that are not too late already vote; where most of them would become so, t is not believed.
  Three ranges, because the short one sees a small jump and the long one a run of bad rows.
- **A leap needs backing.** A step of more than a year must be backed by 64 rows (itself counted), or by as many as
  came before it, whichever is less: this is what judges the last rows of a file, which nothing follows.
- **The start is robust too.** The clock begins at the earliest time of the first 1,024 rows, without the few (at most
  one in twenty, or one) that lie further before the rest than 30 days and ten times the rest's own spread: a
  1970 in the first line does not make it start there.

A row that is not believed arrives at the clock's time; the decoder then finds its event too far in the future. Rows
without a time never vote. The answer depends on the rows alone, not on how they are cut into blocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

DAY_MS: Final = 86_400_000
LOOK_AHEAD: Final = 1_024
SCALES: Final = (16, 128, LOOK_AHEAD)
SLACK_MS: Final = 2 * DAY_MS
LEAP_MS: Final = 366 * DAY_MS
LEAP_BACKERS: Final = 64
START_GAP_MS: Final = 30 * DAY_MS
START_SPREADS: Final = 10
PREFIX_LIMIT: Final = 65_536
"""Rows without a time that lie further before the first known one arrive at 0."""

MAX_TIME_MS: Final = 253_402_300_799_999
"""The end of the year 9999: a time beyond it, or before 1970, is as good as none."""

Times = NDArray[np.int64]

_NONE: Final = np.iinfo(np.int64).min
_NEVER: Final = np.iinfo(np.int64).max


class ArrivalClock:
    """Turns event times (epoch ms, None where a row has none) into arrival times, in row order.

    Feed blocks of any size; each answer covers the rows that can be decided now, `LOOK_AHEAD` rows behind the
    feed. `finish` answers the rest.
    """

    def __init__(self) -> None:
        self._pending: Times = np.empty(0, np.int64)
        self._clock: int | None = None
        self._seen = 0

    def feed(self, times: Sequence[int | None]) -> Times:
        """Arrival times of the next rows that can be decided: possibly none, possibly more than were fed."""
        block = np.fromiter(
            (_NONE if time is None or not 0 <= time <= MAX_TIME_MS else time for time in times), np.int64, len(times)
        )
        self._pending = np.concatenate((self._pending, block))
        ready = len(self._pending) - LOOK_AHEAD
        if self._clock is None:
            # The start is judged by the rows after the first known time; wait for them, but hold no endless prefix.
            known = self._pending != _NONE
            if not known.any():
                return self._timeless(len(self._pending) - PREFIX_LIMIT)
            if int(np.argmax(known)) >= ready:
                return np.empty(0, np.int64)
        return self._decide(max(ready, 0))

    def finish(self) -> Times:
        """Arrival times of all rows that are still open: the feed has ended."""
        return self._decide(len(self._pending))

    def _timeless(self, count: int) -> Times:
        """0 for the first `count` pending rows: nothing near them has a time."""
        self._pending = self._pending[max(count, 0) :]
        return np.zeros(max(count, 0), np.int64)

    def _decide(self, count: int) -> Times:
        """The first `count` pending rows; every one of them has its look-ahead behind it, or the end."""
        times, decided = self._pending, self._pending[:count]
        known = decided != _NONE
        timeless = 0
        if self._clock is None:
            if not known.any():
                return self._timeless(count)
            first = int(np.argmax(known))
            window = times[first : first + LOOK_AHEAD]
            self._clock = _start(window[window != _NONE])
            timeless = max(0, first - PREFIX_LIMIT)
        believed = self._believed(times, decided, known, self._clock)
        arrivals = np.maximum.accumulate(np.where(believed, decided, self._clock))
        arrivals[:timeless] = 0
        if count:
            self._clock = int(arrivals[-1])
        self._seen = min(self._seen + int(known.sum()), LEAP_BACKERS)
        self._pending = times[count:]
        return arrivals

    def _believed(self, times: Times, decided: Times, known: NDArray[np.bool_], clock: int) -> NDArray[np.bool_]:
        """Which of the decided rows may move the clock."""
        count = len(decided)
        # Unanimity is cheap to see, and almost always there: no voter anywhere ahead is older than t - slack.
        voters = np.where(times >= clock - SLACK_MS, times, _NEVER)
        oldest_ahead = np.append(np.minimum.accumulate(voters[::-1])[::-1][1:], _NEVER)[:count]
        newer = known & (decided > clock)
        plain = newer & (oldest_ahead >= decided - SLACK_MS) & (decided - clock <= LEAP_MS)
        believed = plain
        behind = np.cumsum(known)
        done = 0
        for row in np.flatnonzero(newer & ~plain).tolist():
            clock = max(clock, int(np.max(decided[done:row], initial=_NONE, where=believed[done:row])))
            done = row
            if decided[row] > clock:
                believed[row] = _carries(
                    int(decided[row]), clock, times[row + 1 : row + 1 + LOOK_AHEAD], self._seen + int(behind[row]) - 1
                )
        return believed


def _carries(time: int, clock: int, ahead: Times, behind: int) -> bool:
    """Whether the rows ahead carry a move from `clock` to `time`; `behind` counts the known rows before."""
    votes = ahead >= clock - SLACK_MS
    against = votes & (ahead < time - SLACK_MS)
    if any(2 * int(against[:scale].sum()) > int(votes[:scale].sum()) for scale in SCALES):
        return False
    return time - clock <= LEAP_MS or 1 + int((ahead >= time - SLACK_MS).sum()) >= min(LEAP_BACKERS, behind)


def _start(window: Times) -> int:
    """The earliest time of the window, without outliers that lie far before all others."""
    ordered = np.sort(window)
    n = len(ordered)
    start = 0
    if n >= 3:
        for drop in range(1, max(1, n // 20) + 1):
            spread = ordered[drop + (9 * (n - 1 - drop)) // 10] - ordered[drop]
            if ordered[drop] - ordered[drop - 1] > max(START_GAP_MS, START_SPREADS * int(spread)):
                start = drop
    return int(ordered[start])
