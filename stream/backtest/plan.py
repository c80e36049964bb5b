"""When to look, and how far ahead: checkpoints in event time, and the horizon of what comes next.

Invariant: every checkpoint has its whole horizon within the data, and checkpoints ascend.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from stream.durations import format_duration

MINUTE_MS: Final = 60_000
HOUR_MS: Final = 60 * MINUTE_MS
DAY_MS: Final = 24 * HOUR_MS
CHECKPOINTS: Final = 12
MONTH_MS: Final = 30 * DAY_MS
SHARE: Final = (2, 9)
"""Of short data, the horizon is this part: the last 2 of 9 days."""
WARM_UP: Final = 4
"""The first checkpoint is a quarter into what is not the last horizon."""


class PlanError(Exception):
    """The data is too short for what was asked: one line that says so, with what to choose instead."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Epoch milliseconds throughout; durations in milliseconds."""

    start: int
    """First arrival."""
    end: int
    """One past the last arrival."""
    horizon: int
    times: tuple[int, ...]
    """Of the checkpoints."""


def make_plan(
    start: int, end: int, *, count: int | None = None, every: int | None = None, horizon: int | None = None
) -> Plan:
    """Place checkpoints between the first arrival `start` and the one past the last, `end`.

    By default 12 of them, evenly, the first a quarter into the data and the last one horizon before the end; `every`
    counts back from that last one instead. The horizon is 30 days, of shorter data two ninths. The horizon is
    rounded, and times are rounded down, to the day, the hour or the minute, as the span allows. Raises PlanError.
    """
    span = end - start
    ahead = _default_horizon(span) if horizon is None else horizon
    if ahead <= 0 or ahead >= span:
        raise PlanError(
            f"a horizon of {format_duration(ahead)} does not fit into data of {format_duration(span)}; "
            "choose a shorter one with --horizon"
        )
    last = end - ahead
    first = start + (last - start) // WARM_UP
    if every is not None:
        if every <= 0:
            raise PlanError("checkpoints must be some time apart; give --every a duration such as 7d")
        wanted = list(range(last, first - 1, -every))[::-1]
    else:
        count = CHECKPOINTS if count is None else count
        wanted = [last if count == 1 else first + (last - first) * i // (count - 1) for i in range(count)]
    unit = _unit(span)
    # Down, never up: the horizon of the last one must stay within the data.
    times = tuple(sorted({time // unit * unit for time in wanted if time // unit * unit > start}))
    if not times:
        raise PlanError(f"data of {format_duration(span)} has no room for a checkpoint before the last horizon")
    return Plan(start, end, ahead, times)


def _default_horizon(span: int) -> int:
    part, whole = SHARE
    ahead = min(MONTH_MS, span * part // whole)
    for unit in (DAY_MS, HOUR_MS, MINUTE_MS):
        if rounded := (ahead + unit // 2) // unit * unit:
            return rounded
    return ahead


def _unit(span: int) -> int:
    if span >= 60 * DAY_MS:
        return DAY_MS
    return HOUR_MS if span >= 2 * DAY_MS else MINUTE_MS if span >= HOUR_MS else 1
