"""Taobao user behaviour: user_id, item_id, category_id, behavior, unix_ts (seconds); with or without a header.

The data has no prices. A purchase must have an amount, so it is 0 here: purchases count, spend stays 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from producers.readers.base import CsvSource, Event, whole

_TYPES: Final = {"pv": "browse", "cart": "add_to_cart", "fav": "favourite", "buy": "purchase"}


class Taobao(CsvSource):
    """One event a row; an unknown behaviour goes to the decoder as it came."""

    format = "taobao"
    headerless = True
    columns = {  # noqa: RUF012
        "user_id": ("user_id",),
        "item_id": ("item_id",),
        "category_id": ("category_id",),
        "behavior": ("behavior", "behavior_type"),
        "unix_ts": ("unix_ts", "timestamp"),
    }

    def time(self, parts: Sequence[str]) -> int | None:
        """Of the last column."""
        seconds = whole(parts[4])
        return None if seconds is None else seconds * 1000

    def event(self, fields: Sequence[str]) -> Event:
        """See the module."""
        user, item, category, behaviour, stamp = fields
        time = self.time(fields)
        event: Event = {"type": _TYPES.get(behaviour, behaviour), "occurred_at": stamp if time is None else time}
        if user:
            event["user_id"] = user
        if item:
            event["item_id"] = item
        if category:
            event["category"] = category
        if behaviour == "buy":
            event["amount"] = 0.0
            event["quantity"] = 1
        return event
