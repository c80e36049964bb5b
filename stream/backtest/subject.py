"""What a backtest is about: a data set, or a synthetic shop, and the truth where it is known.

`shop` takes no file but settings: `shop:users=2000,days=45,seed=3,scenario=drift`. A `jsonl` file has the truth if
the shop's `truth.jsonl` lies beside it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final, NamedTuple

from pydantic import ValidationError

from producers.readers import FORMATS as FILE_FORMATS
from producers.readers import open_source
from producers.shop import Shop, ShopSettings, Truth
from producers.source import Source, SourceError

SHOP: Final = "shop"
FORMATS: Final = (*FILE_FORMATS, SHOP)
TRUTH_FILE: Final = "truth.jsonl"


class Subject(NamedTuple):
    """A source, and who people really are if anybody knows."""

    source: Source
    truth: Truth | None


def open_subject(format: str, what: str) -> Subject:
    """`what` is a path, or for `shop` its settings. Raises SourceError in one line."""
    if format == SHOP:
        shop = Shop(shop_settings(what))
        return Subject(shop, shop.truth)
    path = Path(what)
    beside = path.parent / TRUTH_FILE
    truth = Truth.load(beside) if format == "jsonl" and beside.exists() else None
    return Subject(open_source(format, path), truth)


def shop_settings(text: str) -> ShopSettings:
    """Of "shop:users=2000,days=45"; the prefix may be left out. Raises SourceError in one line."""
    values: dict[str, str] = {}
    for part in text.removeprefix("shop").removeprefix(":").split(","):
        key, equals, value = part.partition("=")
        if part and not equals:
            raise SourceError(f"{text!r}: {part!r} is no setting; write shop:users=2000,days=45,seed=3,scenario=drift")
        if part:
            values[key.strip()] = value.strip()
    try:
        return ShopSettings.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in first["loc"])
        known = ", ".join(ShopSettings.model_fields)
        wrong = f"is no setting of the shop; those are {known}" if first["type"] == "extra_forbidden" else first["msg"]
        raise SourceError(f"{text!r}: {key}: {wrong}") from None
