"""When people come: the hours of the day, by persona and by how late a person lives.

For each persona F is the distribution of visits over one day (piecewise linear over 24 hours, UTC); a person's own is
F to the power of `evening`. Times of day are fractions in [0, 1].
"""

from __future__ import annotations

from typing import Final

import numpy as np

from producers.shop.draws import Floats, Ints
from producers.shop.personas import PERSONAS

_EDGES: Final = np.arange(25) / 24
_CUMULATIVE: Final = np.array(
    [np.concatenate(([0.0], np.cumsum(persona.hours) / sum(persona.hours))) for persona in PERSONAS]
)
_WEEKDAYS: Final = np.array([np.array(persona.weekday) / np.mean(persona.weekday) for persona in PERSONAS])


def reached(persona: Ints, evening: Floats, time_of_day: Floats) -> Floats:
    """The share of the day's visits that lies before a time of day."""
    hour = np.minimum((time_of_day * 24).astype(np.int64), 23)
    low, high = _CUMULATIVE[persona, hour], _CUMULATIVE[persona, hour + 1]
    share: Floats = (low + (high - low) * (time_of_day * 24 - hour)) ** evening
    return share


def moment(persona: Ints, evening: Floats, share: Floats) -> Floats:
    """The time of day before which a share of the visits lies: the inverse of `reached`."""
    base = share ** (1 / evening)
    times = np.empty(len(persona))
    for number in np.unique(persona).tolist():
        at = persona == number
        times[at] = np.interp(base[at], _CUMULATIVE[number], _EDGES)
    return times


def weekday_factor(persona: Ints, day_ms: int) -> Floats:
    """Factor of a day's visits; the day is given by the time at which it begins."""
    factor: Floats = _WEEKDAYS[persona, (day_ms // 86_400_000 + 3) % 7]  # 1970-01-01 was a Thursday
    return factor
