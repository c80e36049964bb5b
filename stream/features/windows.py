"""Tiled windows: a ring of n sums, one for each of the last n tiles of s milliseconds.

Tile k = floor(t / s) of an event lives in slot k mod n. A user's *head* is the tile of the latest event; the ring
holds the tiles (head - n, head], so an event at or before tile head - n contributes nothing, and that is exact: no
query at or after the latest event can ask for it. When the head moves, the slots that it passes are cleared.
A query at time T sums the tiles in (floor(T / s) - w, floor(T / s)] of a window of w <= n tiles.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from stream.features.batch import Floats, Ints, Mask


def slots(times: Ints, latest: Ints, tile: int, tiles: int) -> tuple[Mask, Ints]:
    """Which contributions the rings still hold, and the slot of each."""
    number = times // tile
    return number > latest // tile - tiles, number % tiles


def passed(before: Ints, after: Ints, tile: int, tiles: int) -> Mask:
    """(m, tiles): the slots to clear when the latest event moves from `before` to `after`."""
    head = before // tile
    steps = np.minimum(after // tile - head, tiles)
    behind = (np.arange(tiles) - (head + 1)[:, None]) % tiles
    cleared: Mask = behind < steps[:, None]
    return cleared


def window_sums(ring: npt.NDArray[Any], latest: Ints, at: Ints, tile: int, tiles: int) -> Floats:
    """Sums (m,) of the last `tiles` tiles at times `at` >= latest; `ring` is (m, n) with n >= tiles."""
    length = ring.shape[1]
    head = latest // tile
    # How many tiles of the ring, counted back from the head, the window still covers.
    covered = np.clip(tiles - (at // tile - head), 0, tiles).astype(np.int16)
    inside = np.take(_ages(length), head % length, axis=0) < covered[:, None]
    total: npt.NDArray[np.float32] = np.einsum(
        "ij,ij->i", inside.astype(np.float32), ring.astype(np.float32, copy=False)
    )
    # What is computed from it is computed in float64: a third is not 0.33333334.
    return total.astype(np.float64)


@lru_cache(maxsize=64)
def _ages(length: int) -> npt.NDArray[np.int16]:
    """(length, length): for a head in slot i, how many tiles back slot j is."""
    positions = np.arange(length)
    ages: npt.NDArray[np.int16] = ((positions[:, None] - positions) % length).astype(np.int16)
    return ages
