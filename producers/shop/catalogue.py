"""What the shop sells: categories, and in each the same number of items, ordered by price (lognormal)."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from producers.shop.draws import Floats, Ints

_MEDIAN_PRICES: Final = {
    "groceries": 6.0,
    "stationery": 8.0,
    "books": 14.0,
    "beauty": 18.0,
    "toys": 22.0,
    "music": 16.0,
    "pets": 20.0,
    "garden": 32.0,
    "kitchen": 35.0,
    "fashion": 38.0,
    "sports": 45.0,
    "home": 55.0,
    "shoes": 62.0,
    "tools": 48.0,
    "jewellery": 85.0,
    "electronics": 120.0,
}
CATEGORIES: Final = tuple(_MEDIAN_PRICES)
ITEMS_EACH: Final = 200
ITEMS: Final = len(CATEGORIES) * ITEMS_EACH
_SPREAD: Final = 0.6

_RANKS: Final = ndtri((np.arange(ITEMS_EACH) + 0.5) / ITEMS_EACH)
PRICES: Final[Floats] = np.round(np.outer(list(_MEDIAN_PRICES.values()), np.exp(_SPREAD * _RANKS)).ravel(), 2)
"""By item number."""


def pick(category: NDArray[Any], taste: Floats) -> Ints:
    """The item of a category at a place in its price range, given in standard deviations."""
    return category * ITEMS_EACH + np.minimum((ndtr(taste) * ITEMS_EACH).astype(np.int64), ITEMS_EACH - 1)


def category_of(item: NDArray[Any]) -> Ints:
    """Its number."""
    return item // ITEMS_EACH
