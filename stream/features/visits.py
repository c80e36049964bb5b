"""Distinct half-hours: a bitmap of the recent ones a user, so that each counts once.

Bit j of a bitmap stands for the half-hour j before the one of the user's latest event; the newest word is the last.
It covers the allowed lateness, so every event that is accepted can be checked, in whatever order events come.
"""

from __future__ import annotations

import numpy as np

from stream.features.batch import Hashes, Ints, Mask
from stream.features.layout import HALF_HOUR_MS, WORD_BITS


def new_half_hours(bitmaps: Hashes, groups: Ints, times: Ints, before: Ints) -> tuple[Ints, Ints]:
    """The (user, half-hour) pairs of a batch that were not seen before, in the order of their first event.

    `bitmaps` (m, words) belongs to the users of the batch, `groups` is each event's index into it, `before` (m,)
    the users' latest event before the batch. Returns (indices into the users, half-hours since 1970).
    """
    half_hours = times // HALF_HOUR_MS
    fresh = ~_test(bitmaps, groups, before[groups] // HALF_HOUR_MS - half_hours)
    pairs, first = np.unique(groups[fresh] << 32 | half_hours[fresh], return_index=True)
    # The order of first events, not of time: float sums then do not depend on where a batch was cut.
    pairs = pairs[np.argsort(first)]
    return pairs >> 32, pairs & 0xFFFF_FFFF


def remember(bitmaps: Hashes, users: Ints, half_hours: Ints, before: Ints, after: Ints) -> Hashes:
    """The bitmaps (m, words) after the latest event moved from `before` to `after` and new half-hours were seen."""
    head = after // HALF_HOUR_MS
    steps = head - before // HALF_HOUR_MS
    moved = bitmaps.copy()
    (ahead,) = steps.nonzero()
    if len(ahead):
        moved[ahead] = _shift(bitmaps[ahead], steps[ahead])
    words = bitmaps.shape[1]
    ages = head[users] - half_hours
    inside = ages < words * WORD_BITS
    users, ages = users[inside], ages[inside]
    bits = np.uint64(1) << (ages % WORD_BITS).astype(np.uint64)
    np.bitwise_or.at(moved.reshape(-1), users * words + (words - 1 - ages // WORD_BITS), bits)
    return moved


def _test(bitmaps: Hashes, users: Ints, ages: Ints) -> Mask:
    words = bitmaps.shape[1]
    inside = (ages >= 0) & (ages < words * WORD_BITS)
    held = np.where(inside, ages, 0)
    word = bitmaps[users, words - 1 - held // WORD_BITS]
    set_: Mask = inside & ((word >> (held % WORD_BITS).astype(np.uint64)) & np.uint64(1)).astype(bool)
    return set_


def _shift(bitmaps: Hashes, steps: Ints) -> Hashes:
    """Make every bit `steps` half-hours older; what leaves the bitmap is forgotten."""
    words = bitmaps.shape[1]
    whole, rest = np.divmod(np.minimum(steps, words * WORD_BITS), WORD_BITS)
    padded = np.concatenate([bitmaps, np.zeros((len(bitmaps), words + 1), np.uint64)], axis=1)
    # Flat: for a few rows take_along_axis costs more than all else here.
    cells = (np.arange(len(bitmaps)) * padded.shape[1] + whole)[:, None] + np.arange(words)
    near = padded.take(cells)
    far = padded.take(cells + 1)
    left = rest.astype(np.uint64)[:, None]
    # Two shifts: by 64 at once would be undefined.
    shifted: Hashes = near << left | far >> (np.uint64(WORD_BITS - 1) - left) >> np.uint64(1)
    return shifted
