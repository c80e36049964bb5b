"""A batch of valid events as numpy columns: what decoding yields and the user table takes.

Kinds are the event types plus `refund`: a purchase with a negative amount is stored as its own kind, so that
no kernel has to look at the sign again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from schemas.events import EVENT_TYPES
from stream.features.texts import chosen

Kind = Literal["browse", "click", "purchase", "search", "add_to_cart", "favourite", "review", "share", "refund"]
KINDS: tuple[Kind, ...] = (*EVENT_TYPES, "refund")
KIND_CODES: dict[str, int] = {kind: code for code, kind in enumerate(KINDS)}
PURCHASE = KIND_CODES["purchase"]
REFUND = KIND_CODES["refund"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]
Mask = npt.NDArray[np.bool_]


@dataclass(slots=True)
class EventBatch:
    """n valid events in the order of their records.

    Numbers that an event does not carry are NaN; a category hash of 0 means that it names none.
    """

    position: npt.NDArray[np.int32]
    """Index of each event's record in the list that was decoded."""
    user_ids: Sequence[str]
    event_ids: Sequence[str]
    kind: npt.NDArray[np.int8]
    """Index into KINDS."""
    time: Ints
    """Event time, epoch milliseconds (UTC)."""
    id_hash: Hashes
    """xxh3 of the event id."""
    amount: Floats
    """In the base currency where there is one; negative for refunds."""
    quantity: Floats
    discount: Floats
    dwell_ms: Floats
    rating: Floats
    category: Hashes
    """xxh3 of the category."""

    def __len__(self) -> int:
        return len(self.user_ids)

    def take(self, events: npt.NDArray[np.intp]) -> EventBatch:
        """A batch of these events only, in this order."""
        return EventBatch(
            position=self.position[events],
            user_ids=chosen(self.user_ids, events),
            event_ids=chosen(self.event_ids, events),
            kind=self.kind[events],
            time=self.time[events],
            id_hash=self.id_hash[events],
            amount=self.amount[events],
            quantity=self.quantity[events],
            discount=self.discount[events],
            dwell_ms=self.dwell_ms[events],
            rating=self.rating[events],
            category=self.category[events],
        )

    def merged(self, other: EventBatch) -> EventBatch:
        """With the events of another batch of the same records, in the order of their records."""
        order = np.argsort(np.concatenate([self.position, other.position]))
        both = EventBatch(
            user_ids=[*self.user_ids, *other.user_ids],
            event_ids=[*self.event_ids, *other.event_ids],
            **{name: np.concatenate([getattr(self, name), getattr(other, name)]) for name in _ARRAYS},
        )
        return both.take(order)


_ARRAYS = tuple(name for name in EventBatch.__dataclass_fields__ if name not in ("user_ids", "event_ids"))


@dataclass(frozen=True, slots=True)
class EventField:
    """A number that features can aggregate: which kinds carry it, and how to compute it."""

    kinds: tuple[Kind, ...]
    always: bool
    """Never missing in an event of these kinds."""
    signed: bool
    """Negative for refunds."""
    unit: str
    read: Callable[[EventBatch], Floats]


_LEAST_QUANTITY = 1e-6
"""What a price is divided by at least, so that it stays finite."""


def _unit_price(batch: EventBatch) -> Floats:
    return batch.amount / np.where(np.isnan(batch.quantity), 1.0, np.maximum(batch.quantity, _LEAST_QUANTITY))


def _list_amount(batch: EventBatch) -> Floats:
    return batch.amount + np.where(np.isnan(batch.discount), 0.0, batch.discount)


_SALES: tuple[Kind, ...] = ("purchase", "refund")

FIELDS: dict[str, EventField] = {
    "amount": EventField(_SALES, True, True, "money", lambda batch: batch.amount),
    "quantity": EventField(_SALES, False, False, "items", lambda batch: batch.quantity),
    "discount": EventField(_SALES, False, False, "money", lambda batch: batch.discount),
    "unit_price": EventField(_SALES, True, True, "money", _unit_price),
    "list_amount": EventField(_SALES, True, True, "money", _list_amount),
    "dwell_ms": EventField(("browse",), False, False, "ms", lambda batch: batch.dwell_ms),
    "dwell_seconds": EventField(("browse",), False, False, "s", lambda batch: batch.dwell_ms / 1000.0),
    "rating": EventField(("review",), True, False, "stars", lambda batch: batch.rating),
}
"""`unit_price` is the amount for one item (a missing quantity is one), `list_amount` the amount before discount."""
