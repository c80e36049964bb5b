"""RFC 3339 times to UTC milliseconds, a whole list at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from stream.features.batch import Ints, Mask

_LONGEST = 40
_MONTH_DAYS = np.array([0, 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31])
_MINUTE_MS = 60_000


def parse_rfc3339(texts: Sequence[str]) -> tuple[Ints, Mask]:
    """Epoch milliseconds (UTC), and which of them are real times; the others are 0.

    The texts must match `schemas.events.Rfc3339`, which settles where the digits are. Digits after the
    millisecond are cut off. Days that do not exist, hours over 23, seconds over 59 (leap seconds have no
    epoch time of their own) and offsets over 23:59 are no real times.
    """
    raw = np.array(texts, f"S{_LONGEST}").view(np.uint8).reshape(len(texts), _LONGEST)
    # A row a position, so that each step below runs over contiguous memory.
    characters = np.ascontiguousarray(raw.T)
    digits = characters.astype(np.int64) - ord("0")

    def number(start: int, count: int) -> Ints:
        value: Ints = digits[start]
        for position in range(start + 1, start + count):
            value = value * 10 + digits[position]
        return value

    year, month, day = number(0, 4), number(5, 2), number(8, 2)
    hour, minute, second = number(11, 2), number(14, 2), number(17, 2)
    offset, real_offset = _offsets(characters)
    leap = (year % 4 == 0) & ((year % 100 != 0) | (year % 400 == 0))
    real = (month >= 1) & (month <= 12) & (day >= 1) & (hour <= 23) & (minute <= 59) & (second <= 59) & real_offset
    real &= day <= _MONTH_DAYS[np.where(real, month, 0)] + (leap & (month == 2))
    minutes = (_days(year, month, day) * 24 + hour) * 60 + minute - offset
    times = minutes * _MINUTE_MS + second * 1000 + _milliseconds(characters, digits)
    return np.where(real, times, 0), real


def _milliseconds(characters: npt.NDArray[np.uint8], digits: Ints) -> Ints:
    inside = characters[19] == ord(".")
    value = np.zeros(characters.shape[1], np.int64)
    for position, worth in ((20, 100), (21, 10), (22, 1)):
        inside = inside & (digits[position] >= 0) & (digits[position] <= 9)
        value += np.where(inside, digits[position] * worth, 0)
    return value


def _offsets(characters: npt.NDArray[np.uint8]) -> tuple[Ints, Any]:
    """Minutes east of UTC, and whether they are in range."""
    length = np.count_nonzero(characters, axis=0)
    everyone = np.arange(len(length))
    zulu = (characters[length - 1, everyone] | 0x20) == ord("z")
    if zulu.all():
        return np.zeros(len(length), np.int64), True
    tail = characters[length - np.arange(6, 0, -1)[:, None], everyone].astype(np.int64)
    hours = (tail[1] - 48) * 10 + tail[2] - 48
    minutes = (tail[4] - 48) * 10 + tail[5] - 48
    east = np.where(tail[0] == ord("-"), -1, 1) * (hours * 60 + minutes)
    return np.where(zulu, 0, east), zulu | ((hours <= 23) & (minutes <= 59))


def _days(year: Ints, month: Ints, day: Ints) -> Ints:
    """Days since 1970-01-01 in the proleptic Gregorian calendar, by eras of 400 years from March
    (H. Hinnant, "chrono-Compatible Low-Level Date Algorithms")."""
    year = year - (month <= 2)
    era = year // 400
    year_of_era = year - era * 400
    day_of_year = (153 * ((month + 9) % 12) + 2) // 5 + day - 1
    day_of_era = year_of_era * 365 + year_of_era // 4 - year_of_era // 100 + day_of_year
    days: Ints = era * 146_097 + day_of_era - 719_468
    return days
