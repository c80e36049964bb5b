"""Random numbers by position: every draw is a pure function of (seed, whose, when, which), vectorised.

A stream of random numbers has an order; a million users that must not disturb each other would need a million
streams. Here a 64-bit key names a place in the simulation (a user, a user's day, a session, a page), `child` goes one
level down, and a draw hashes the key with a small number that says what is drawn. So adding users, days or faults
changes nothing else, and any part can be computed again alone, for all users at once.

The hash is the finaliser of SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

Keys = NDArray[np.uint64]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_GOLDEN: Final = np.uint64(0x9E3779B97F4A7C15)
_STEP: Final = np.uint64(0xD1B54A32D192ED03)
_M1: Final = np.uint64(0xBF58476D1CE4E5B9)
_M2: Final = np.uint64(0x94D049BB133111EB)
_POISSON_TAIL: Final = 1e-12


def root(seed: int, n: int) -> Keys:
    """The keys of places 0 to n - 1 under a seed."""
    start = _mix(np.array([seed % 2**64], np.uint64))
    return child(np.broadcast_to(start, (n,)), np.arange(n))


def child(keys: Keys, index: NDArray[Any] | int) -> Keys:
    """The key of the index-th place below each key."""
    # An array even of one index: numpy lets arrays wrap around, and warns of scalars that do.
    return _mix(keys + (np.atleast_1d(index).astype(np.uint64) + np.uint64(1)) * _GOLDEN)


def uniform(keys: Keys, what: int) -> Floats:
    """In the open interval (0, 1), with 53 random bits."""
    bits = _mix(keys ^ (_STEP * np.array([what + 1], np.uint64)))
    bits >>= np.uint64(11)
    return (bits.astype(np.float64) + 0.5) * 2.0**-53


def normal(keys: Keys, what: int) -> Floats:
    """Standard normal."""
    drawn: Floats = ndtri(uniform(keys, what))
    return drawn


def exponential(keys: Keys, what: int) -> Floats:
    """With mean 1."""
    return -np.log(uniform(keys, what))


def poisson(means: Floats, keys: Keys, what: int) -> Ints:
    """Poisson counts by inversion, for means up to some dozens."""
    u = uniform(keys, what)
    counts = np.zeros(len(means), np.int64)
    term = np.exp(-means)
    total = term.copy()
    open_ = np.flatnonzero((u > total) & (means > 0))
    k = 0
    while len(open_):
        k += 1
        term[open_] *= means[open_] / k
        total[open_] += term[open_]
        counts[open_] = k
        # Rounding can keep the sum of all terms just below u: stop once the terms have vanished.
        more = (u[open_] > total[open_]) & ((term[open_] > _POISSON_TAIL) | (k < means[open_]))
        open_ = open_[more]
    return counts


def choice(cumulative: Floats, u: Floats) -> Ints:
    """Which of the classes each u falls into; `cumulative` is one row for all, or a row for each u."""
    chosen: Ints = np.minimum((u[:, None] >= cumulative).sum(axis=1), cumulative.shape[-1] - 1)
    return chosen


def _mix(x: Keys) -> Keys:
    x = x + _GOLDEN
    x ^= x >> np.uint64(30)
    x *= _M1
    x ^= x >> np.uint64(27)
    x *= _M2
    x ^= x >> np.uint64(31)
    return x
