"""Plain events to columns by the compiled kernel, straight from the bytes that a poll brought.

Invariant: what `read` takes is what the other ways (`stream.features.plain`, then orjson and pydantic) take as well,
with the same values, and valid in every respect: its key, time, user and currency were looked at. So it rejects
nothing: an event that it does not take may be as good, and goes the other way. The kernel's fields are made from
`schemas.events`, so that there is one place that says what an event is. tests/features/test_kernel.py holds the ways
against each other.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NotRequired, get_args, get_origin, get_type_hints

import numpy as np
import numpy.typing as npt
from pydantic.fields import FieldInfo
from pydantic.types import StringConstraints

from schemas import events as schema
from schemas.events import EVENT_TYPES
from stream import kernels
from stream.features.batch import PURCHASE, REFUND, EventBatch, Floats, Ints
from stream.features.texts import Texts
from stream.transport.spans import Spans

NUMBERS = ("amount", "quantity", "discount", "dwell_ms", "rating")
"""The fields that become columns of numbers, in the kernel's order."""
_TEXTS = {"user_id": "user", "event_id": "event_id", "category": "hashed"}
_LETTERS = 3
"""Of a currency."""

Positions = npt.NDArray[np.int32]


def read(
    values: Spans,
    keys: Spans | None,
    limit: int,
    earliest: int,
    latest: int | Ints,
    rates: Mapping[str, float] | None,
    base: str | None,
) -> tuple[EventBatch, Ints]:
    """The events that it takes, and the positions of the values that must go another way, both in order.

    Parameters: `keys` where a key must be the user id; the most bytes of a value; the earliest and latest time (epoch
    milliseconds; the latest may be one for each value); with a `base` currency what a unit of each other one is worth.
    """
    count = len(values)
    positions, times = np.empty(count, np.int32), np.empty(count, np.int64)
    tags, currencies = np.empty(count, np.int8), np.empty(count, np.int32)
    numbers, hashes, spans = (
        np.empty((len(NUMBERS), count)),
        np.empty((2, count), np.uint64),
        np.empty((4, count), np.int64),
    )
    where = (None, None, None) if keys is None else (keys.data, keys.starts, keys.lengths)
    outputs = (positions, tags, times, numbers, hashes, spans, currencies)
    taken = _reader().read(values.data, values.starts, values.lengths, *where, limit, *outputs)
    positions, tags, times, currencies = positions[:taken], tags[:taken], times[:taken], currencies[:taken]
    numbers, hashes, spans = numbers[:, :taken], hashes[:, :taken], spans[:, :taken]
    good = (times >= earliest) & (times <= (latest if isinstance(latest, int) else latest[positions]))
    if base is not None:
        factors = _factors(currencies, {**(rates or {}), base: 1.0}, base)
        good &= (tags != PURCHASE) | ~np.isnan(factors)
        numbers[:1] *= factors
        numbers[2:3] *= factors
    if not good.all():
        positions, tags, times = positions[good], tags[good], times[good]
        numbers, hashes, spans = numbers[:, good], hashes[:, good], spans[:, good]
    tags[(tags == PURCHASE) & (numbers[0] < 0)] = REFUND
    data = values.data
    batch = EventBatch(
        position=positions,
        user_ids=kernels.events.texts(data, spans[0], spans[1]),
        event_ids=Texts(Spans(data, spans[2], spans[3])),
        kind=tags,
        time=times,
        id_hash=hashes[0],
        category=hashes[1],
        **dict(zip(NUMBERS, numbers, strict=True)),
    )
    left = np.ones(count, bool)
    left[positions] = False
    return batch, left.nonzero()[0]


def _factors(currencies: Positions, rates: Mapping[str, float], base: str) -> Floats:
    """What an amount of each event is multiplied by; NaN where its currency has no rate."""
    known, which = np.unique(currencies, return_inverse=True)
    names = [int(code).to_bytes(_LETTERS, "big").decode() if code else base for code in known.tolist()]
    factors: Floats = np.array([rates.get(name, np.nan) for name in names], np.float64)[which]
    return factors


# The kernel's fields, from the types of the schema


@lru_cache(maxsize=1)
def _reader() -> Any:
    events = {_tag(event): event for event in get_args(get_args(schema.Event)[0])}
    hints = {tag: get_type_hints(event, include_extras=True) for tag, event in events.items()}
    tags = list(EVENT_TYPES)
    # The order in which fields are likely to come: those of all events first.
    names = dict.fromkeys(name for tag in tags for name in hints[tag])
    fields = [_field(name, {tag: hints[tag][name] for tag in tags if name in hints[tag]}) for name in names]
    return kernels.events.Reader(tags, fields)


def _tag(event: Any) -> str:
    (tag,) = get_args(get_type_hints(event, include_extras=True)["type"])
    return str(tag)


def _field(name: str, annotations: Mapping[str, Any]) -> tuple[Any, ...]:
    """One field as the kernel wants it. Raises TypeError where the schema says what the kernel does not know."""
    having = list(annotations)
    needing = [tag for tag, annotation in annotations.items() if get_origin(annotation) is not NotRequired]
    if name == "type":
        return name, "tag", having, needing, False, 1, max(map(len, having)), False, 0
    (annotation,) = set(map(_bare, annotations.values()))
    optional = any(argument is type(None) for argument in get_args(annotation))
    if optional:
        (annotation,) = (argument for argument in get_args(annotation) if argument is not type(None))
    if annotation == schema.OccurredAt:
        (whole,) = (rule for rule in get_args(get_args(get_args(annotation)[0])[0])[1:] if isinstance(rule, FieldInfo))
        low, high, _ = _range(whole)
        return name, "time", having, needing, optional, low, high, False, 0
    kind, *rules = get_args(annotation)
    if kind is float and name in NUMBERS and len(rules) == 1:
        low, high, above = _range(rules[0])
        return name, "number", having, needing, optional, low, high, above, NUMBERS.index(name)
    if kind is str and len(rules) == 1 and isinstance(rules[0], StringConstraints):
        given = {rule: value for rule, value in vars(rules[0]).items() if value is not None}
        if given == {"pattern": "^[A-Z]{3}$"}:
            return name, "currency", having, needing, optional, _LETTERS, _LETTERS, False, 0
        least, most = given.pop("min_length", 0), given.pop("max_length", None)
        if not given and most is not None:
            return name, _TEXTS.get(name, "label"), having, needing, optional, least, most, False, 0
    raise TypeError(f"the field {name} of {annotation} is not known to the kernel")


def _bare(annotation: Any) -> Any:
    return get_args(annotation)[0] if get_origin(annotation) is NotRequired else annotation


def _range(rule: FieldInfo) -> tuple[float, float, bool]:
    """Least and most of a number, and whether it must be above the least."""
    limits: dict[str, float] = {}
    for each in rule.metadata:
        own = {name: getattr(each, name) for name in ("gt", "ge", "le") if hasattr(each, name)}
        if not own and type(each).__name__ not in ("Strict", "AllowInfNan"):
            raise TypeError(f"{each} is not known to the kernel")
        limits |= own
    above = "gt" in limits
    return limits["gt" if above else "ge"], limits["le"], above
