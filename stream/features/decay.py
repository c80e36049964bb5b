"""Decayed sums that are exact under any batch split and order-free to rounding.

A sum S of half-life h is stored as of the beginning of the *tile* of length h that the user's latest event is
in: S = sum of x_i * 2^((t_i - k h) / h) with k = floor(latest / h). When the latest event moves to a later
tile, the stored sum is multiplied by a whole power of two, which floating point does exactly; so scaling earlier or
later, once or in steps, gives the same bits. (A reference at the latest event itself would round at every step.)
Stored values are at most twice the sum's size, and what underflows is below 2^-126 of one event.

Forward decay: Cormode, Shkapenyuk, Srivastava, Xu, "Forward Decay", ICDE 2009.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from stream.features.batch import Floats, Ints

FORGOTTEN = 2.0**-64
"""A denominator that has decayed below this is unknown again: 64 half-lives after a single event."""

_FEWEST = -(2**20)
_EXPONENTS = np.int32


def weights(times: Ints, latest: Ints, half_life: int) -> Floats:
    """What a contribution at `times` weighs in a stored sum whose user's latest event is at `latest` >= times."""
    tile, rest = np.divmod(times, half_life)
    shift = np.maximum(tile - latest // half_life, _FEWEST).astype(_EXPONENTS)
    scaled: Floats = np.ldexp(np.exp2(rest / half_life), shift)
    return scaled


def tiles_passed(before: Ints, after: Ints, half_life: int) -> npt.NDArray[np.int32]:
    """By how many powers of two stored sums shrink when the latest event moves from `before` to `after`."""
    passed: npt.NDArray[np.int32] = np.minimum(after // half_life - before // half_life, -_FEWEST).astype(_EXPONENTS)
    return passed


def fade(latest: Ints, at: Ints, half_life: int) -> Floats:
    """The factor from a stored sum to its value at time `at` >= latest."""
    faded: Floats = np.exp2((latest // half_life * half_life - at) / half_life)
    return faded
