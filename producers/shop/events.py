"""The shop's events as columns: one numpy record an event, before it becomes JSON.

`a`, `b`, `c` mean: browse dwell_ms; purchase amount, quantity, discount (money, 0: none); review rating. `item` is -1
where there is none. `session` also numbers the order; a refund keeps the order's, and has no session of its own.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from producers.shop.draws import Floats, Ints, Keys, child
from schemas.events import EVENT_TYPES

DTYPE: Final = np.dtype(
    [
        ("arrival", np.int64),
        ("occurred", np.int64),
        ("key", np.uint64),
        ("session", np.uint64),
        ("a", np.float64),
        ("b", np.float64),
        ("c", np.float64),
        ("user", np.int32),
        ("item", np.int32),
        ("kind", np.int8),
        ("persona", np.int8),
        ("channel", np.int8),
        ("fate", np.int8),
        ("fault", np.int8),
        ("refund", np.int8),
    ],
    align=True,
)
Events = NDArray[np.void]

BROWSE, CLICK, PURCHASE, SEARCH, ADD_TO_CART, FAVOURITE, REVIEW, SHARE = (
    EVENT_TYPES.index(name)
    for name in ("browse", "click", "purchase", "search", "add_to_cart", "favourite", "review", "share")
)
CHANNELS: Final = ("web", "app", "email")
WEB, APP, EMAIL = range(3)

ON_TIME, LATE, TOO_LATE, DUPLICATE, BROKEN = range(5)
"""The values of `fate`. A duplicate repeats an event byte for byte; a broken record stands beside valid ones."""

NO_FAULT: Final = -1


def make(
    kind: int,
    *,
    key: Keys,
    user: Ints,
    persona: Ints,
    session: Keys,
    channel: Ints,
    occurred: Ints,
    item: Ints | int = -1,
    a: Floats | float = 0.0,
    b: Floats | float = 0.0,
    c: Floats | float = 0.0,
    refund: bool = False,
) -> Events:
    """Events of one kind, on time and whole; they have not arrived yet."""
    events = np.zeros(len(key), DTYPE)
    events["kind"], events["key"], events["session"] = kind, key, session
    events["user"], events["persona"], events["channel"] = user, persona, channel
    events["occurred"], events["item"], events["refund"] = occurred, item, refund
    events["a"], events["b"], events["c"] = a, b, c
    events["fault"] = NO_FAULT
    return events


def refunds(lines: Events, keys: Keys, later: Ints) -> Events:
    """A refund of each order line, so many milliseconds later; `keys` are those that the lines' own come from."""
    back = lines.copy()
    back["key"] = child(keys, len(EVENT_TYPES))
    back["occurred"] += later
    back["a"] = -lines["a"]
    back["c"] = 0.0
    back["refund"] = 1
    return back
