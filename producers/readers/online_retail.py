"""UCI Online Retail (I and II): invoice lines of a British wholesaler, sorted by time; prices in pounds.

Every line is a purchase of quantity times price. A negative quantity, or an invoice number that begins with C, is a
refund: a negative amount with a positive quantity. Prices of 0 pass. A line without CustomerID has no user_id and is
refused by the decoder. The data has no categories, so none are given; times are taken as UTC.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache

from producers.readers.base import CsvSource, Event, number, rounded, utc_ms


class OnlineRetail(CsvSource):
    """One event a line; the order is the invoice, the item is the stock code."""

    format = "online_retail"
    columns = {  # noqa: RUF012
        "invoice": ("InvoiceNo", "Invoice"),
        "item": ("StockCode",),
        "quantity": ("Quantity",),
        "date": ("InvoiceDate",),
        "price": ("UnitPrice", "Price"),
        "customer": ("CustomerID", "Customer ID"),
    }

    def time(self, parts: Sequence[str]) -> int | None:
        """Of "2010-12-01 08:26:00", or "12/1/2010 8:26" as the first publication wrote it."""
        return _time(parts[3])

    def event(self, fields: Sequence[str]) -> Event:
        """See the module."""
        invoice, item, pieces, stamp, price, customer = fields
        time = _time(stamp)
        quantity, unit = number(pieces), number(price)
        event: Event = {"type": "purchase", "occurred_at": stamp if time is None else time}
        if user := customer.removesuffix(".0"):
            event["user_id"] = user
        if item:
            event["item_id"] = item
        if invoice:
            event["order_id"] = invoice
        event["currency"] = "GBP"
        if isinstance(quantity, float) and isinstance(unit, float):
            amount = rounded(quantity * unit)
            event["amount"] = rounded(-abs(amount)) if invoice.startswith("C") else amount
            event["quantity"] = abs(quantity)
        else:
            event["amount"] = unit
            event["quantity"] = quantity
        return event


@lru_cache(maxsize=1 << 16)
def _time(text: str) -> int | None:
    if "/" not in text:
        return utc_ms(text)
    try:
        return int(datetime.strptime(text, "%m/%d/%Y %H:%M").replace(tzinfo=UTC).timestamp()) * 1000
    except ValueError:
        return None
