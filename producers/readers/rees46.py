"""REES46 multi-category shop: views, carts and purchases, sorted by time; prices in US dollars.

A purchase is one piece at its price, which may be 0. The category is its code ("electronics.smartphone") where the
shop gave one, else its number. `remove_from_cart` is no event that we know: the decoder refuses it by its name.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from producers.readers.base import CsvSource, Event, number, utc_ms

_TYPES: Final = {"view": "browse", "cart": "add_to_cart"}


class Rees46(CsvSource):
    """One event a row."""

    format = "rees46"
    columns = {  # noqa: RUF012
        name: (name,)
        for name in (
            "event_time",
            "event_type",
            "product_id",
            "category_id",
            "category_code",
            "brand",
            "price",
            "user_id",
            "user_session",
        )
    }

    def time(self, parts: Sequence[str]) -> int | None:
        """Of "2019-10-01 00:00:00 UTC"."""
        return utc_ms(parts[0].removesuffix(" UTC"))

    def event(self, fields: Sequence[str]) -> Event:
        """See the module."""
        stamp, kind, product, category, code, _brand, price, user, session = fields
        time = self.time(fields)
        event: Event = {"type": _TYPES.get(kind, kind), "occurred_at": stamp if time is None else time}
        if user:
            event["user_id"] = user
        if session:
            event["session_id"] = session
        if product:
            event["item_id"] = product
        if code or category:
            event["category"] = code or category
        if kind == "purchase":
            if price:
                event["amount"] = number(price)
            event["currency"] = "USD"
            event["quantity"] = 1
        return event
