"""`events`: the clickstream, discriminated by `type`. The single source of what an event is.

The types are TypedDicts, not model objects: validation of a batch then costs a third (docs/decisions/).
A refund is a `purchase` with a negative amount: it lowers what a user has spent and counts as activity, but it
is not a purchase (frequency, recency of purchase, average order value and conversion do not see it).
"""

from __future__ import annotations

from typing import Annotated, Literal, NotRequired

from pydantic import ConfigDict, Field, StringConstraints, TypeAdapter, with_config
from typing_extensions import TypedDict

from schemas.types import UserId

EventType = Literal["browse", "click", "purchase", "search", "add_to_cart", "favourite", "review", "share"]
EVENT_TYPES: tuple[EventType, ...] = (
    "browse",
    "click",
    "purchase",
    "search",
    "add_to_cart",
    "favourite",
    "review",
    "share",
)

MAX_MONEY = 1e9
MAX_QUANTITY = 1e6
DAY_MS = 86_400_000

Label = Annotated[str, StringConstraints(min_length=1, max_length=256)]
Text = Annotated[str, StringConstraints(max_length=10_000)]
Rfc3339 = Annotated[
    str,
    StringConstraints(
        max_length=40,
        # Digits are spelt out: \d would let other scripts' digits in.
        pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}"
        r"(\.[0-9]{1,9})?([Zz]|[+-][0-9]{2}:[0-9]{2})$",
    ),
]
OccurredAt = Annotated[
    Annotated[int, Field(strict=True, ge=0, le=253_402_300_799_999)] | Rfc3339,
    Field(description="RFC 3339 with an offset, or epoch milliseconds; held as UTC milliseconds"),
]
# Numbers are strict: "12.50" and true are no amounts, in JSON Schema as here.
Money = Annotated[float, Field(strict=True, ge=-MAX_MONEY, le=MAX_MONEY, allow_inf_nan=False)]
PositiveMoney = Annotated[float, Field(strict=True, ge=0, le=MAX_MONEY, allow_inf_nan=False)]
Currency = Annotated[str, StringConstraints(pattern=r"^[A-Z]{3}$")]

PASS_UNKNOWN = ConfigDict(extra="ignore")


@with_config(PASS_UNKNOWN)
class _Common(TypedDict):
    event_id: Label
    user_id: UserId
    occurred_at: OccurredAt
    session_id: NotRequired[Label | None]
    channel: NotRequired[Label | None]
    item_id: NotRequired[Label | None]
    category: NotRequired[Label | None]


class Browse(_Common):
    """A page or an item was looked at."""

    type: Literal["browse"]
    dwell_ms: NotRequired[Annotated[float, Field(strict=True, ge=0, le=DAY_MS, allow_inf_nan=False)] | None]


class Click(_Common):
    """Something was clicked: a banner, a mail, an item in a list."""

    type: Literal["click"]


class Purchase(_Common):
    """An order line was paid, or, with a negative amount, refunded."""

    type: Literal["purchase"]
    amount: Money
    currency: NotRequired[Currency | None]
    quantity: NotRequired[Annotated[float, Field(strict=True, gt=0, le=MAX_QUANTITY, allow_inf_nan=False)] | None]
    order_id: NotRequired[Label | None]
    discount: NotRequired[PositiveMoney | None]


class Search(_Common):
    """Something was searched for."""

    type: Literal["search"]
    query: NotRequired[Text | None]


class AddToCart(_Common):
    """An item was put into the cart."""

    type: Literal["add_to_cart"]


class Favourite(_Common):
    """An item was marked as a favourite."""

    type: Literal["favourite"]


class Review(_Common):
    """An item was rated, 1 to 5."""

    type: Literal["review"]
    rating: Annotated[float, Field(strict=True, ge=1, le=5, allow_inf_nan=False)]
    text: NotRequired[Text | None]


class Share(_Common):
    """An item was shared."""

    type: Literal["share"]


Event = Annotated[
    Browse | Click | Purchase | Search | AddToCart | Favourite | Review | Share, Field(discriminator="type")
]

EVENT: TypeAdapter[Event] = TypeAdapter(Event)
EVENTS: TypeAdapter[list[Event]] = TypeAdapter(list[Event])
