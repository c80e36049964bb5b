"""Plain events read in one pass: JSON to validated objects, for the many that have nothing odd about them.

orjson and pydantic-core take 1.8 us an event, and say of a bad one what is wrong with it; msgspec takes 0.6, and says
yes or no. So it is asked first, and whatever it does not take goes the long way (`stream.features.events`).

Invariant: what `read` takes, the long way takes too, with the same values. The types are made from those of
`schemas.events`, so that there is one place that says what an event is; a field that they do not know, whose content
msgspec would pass over unread, is never plain. tests/features/test_plain.py holds both ways against each other.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import reduce
from operator import or_
from types import NoneType, UnionType
from typing import Annotated, Any, Final, NotRequired, Union, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta
from pydantic.fields import FieldInfo
from pydantic.types import StringConstraints

from schemas import events as schema
from stream.features.batch import KIND_CODES

_LATEST_MS = 253_402_300_799_999
_MOST_ODD = 32
"""After so many in one call the rest is taken for odd as well: asking in vain costs more than it saves."""
_NOT_PLAIN = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


def read(values: Sequence[bytes]) -> list[Any]:
    """For each value its event, an object of the type's fields; None for those that must go the long way."""
    events: list[Any] = []
    remaining = map(_decode, values)
    odd = 0
    while len(events) < len(values):
        try:
            events.extend(remaining)  # what came before an error stays
        except _NOT_PLAIN:
            events.append(None)
            odd += 1
            if odd > _MOST_ODD:
                events += [None] * (len(values) - len(events))
    if odd:
        _check_times(events, [at for at, event in enumerate(events) if event is not None])
    else:
        _check_times(events, range(len(events)))
    return events


def made(event: Mapping[str, Any]) -> Any:
    """An event that went the long way, as the same kind of object."""
    fields = {name: value for name, value in event.items() if name != "type"}
    return _TYPES[event["type"]](**fields)


def codes_of(events: Sequence[Any]) -> Iterator[int]:
    """Of each its code in KIND_CODES."""
    return map(_CODES.__getitem__, map(type, events))


def _check_times(events: list[Any], present: Sequence[int]) -> None:
    """Put None for those whose time is none: msgspec takes any number, and any text."""
    times = [events[at].occurred_at for at in present]
    kinds = set(map(type, times))
    if not times or (kinds == {int} and min(times) >= 0 and max(times) <= _LATEST_MS):
        return
    if kinds == {str}:
        joined = "\n".join(times)
        if joined.count("\n") == len(times) - 1 and _ALL_TEXTS.fullmatch(joined):
            return
    for at, time in zip(present, times, strict=True):
        number = type(time) is int and 0 <= time <= _LATEST_MS
        if not number and not (type(time) is str and _TEXT.fullmatch(time)):
            events[at] = None


# The types, from those of the schema


def _type_of(annotation: Any) -> Any:
    """What msgspec knows under this annotation of pydantic. Raises TypeError for one that has no equal there."""
    origin = get_origin(annotation)
    if origin is NotRequired:
        return _type_of(get_args(annotation)[0])
    if origin in (Union, UnionType):
        return reduce(or_, [NoneType if each is NoneType else _type_of(each) for each in get_args(annotation)])
    if origin is not Annotated:
        raise TypeError(f"{annotation} is not known")
    kind, *rules = get_args(annotation)
    limits: dict[str, Any] = {}
    for rule in rules:
        limits |= _limits(rule)
    if kind not in (str, float) or not limits:
        raise TypeError(f"{annotation} is not known")
    return Annotated[kind, Meta(**limits)]


def _limits(rule: Any) -> dict[str, Any]:
    if isinstance(rule, StringConstraints):
        given = {name: value for name, value in vars(rule).items() if value is not None}
        if unknown := set(given) - {"min_length", "max_length", "pattern"}:
            raise TypeError(f"{sorted(unknown)} are not known")
        if "pattern" in given:
            # Python's $ also matches before a line feed at the end.
            given["pattern"] = re.sub(r"\$$", r"\\Z", given["pattern"])
        return given
    if isinstance(rule, FieldInfo):
        limits: dict[str, Any] = {}
        for each in rule.metadata:
            own = {name: getattr(each, name) for name in ("gt", "ge", "lt", "le") if hasattr(each, name)}
            # Strict is what msgspec is, and JSON has no NaN.
            if not own and type(each).__name__ not in ("Strict", "AllowInfNan"):
                raise TypeError(f"{each} is not known")
            limits |= own
        return limits
    raise TypeError(f"{rule} is not known")


def _made_type(event: Any) -> Any:
    """The struct of one type of event."""
    fields: list[Any] = []
    hints = get_type_hints(event, include_extras=True)
    (tag,) = get_args(hints.pop("type"))
    for name, annotation in hints.items():
        # A time is checked afterwards, all of them at once. A union with float keeps 1.0 from becoming 1.
        kind = int | float | str if annotation == schema.OccurredAt else _type_of(annotation)
        fields.append((name, kind, None) if get_origin(annotation) is NotRequired else (name, kind))
    return msgspec.defstruct(
        event.__name__, fields, tag_field="type", tag=tag, forbid_unknown_fields=True, gc=False, kw_only=True
    )


def _text_pattern() -> str:
    """Of a time in words, to be matched whole."""
    (rule,) = get_args(schema.Rfc3339)[1:]
    pattern: str = rule.pattern
    return pattern.removeprefix("^").removesuffix("$")


_TYPES: Final[dict[str, Any]] = {
    each.__struct_config__.tag: each for each in map(_made_type, get_args(get_args(schema.Event)[0]))
}
_CODES: Final = {each: KIND_CODES[tag] for tag, each in _TYPES.items()}
_decode: Final = msgspec.json.Decoder(reduce(or_, _TYPES.values())).decode
_TEXT: Final = re.compile(_text_pattern())
_ALL_TEXTS: Final = re.compile(rf"{_text_pattern()}(?:\n{_text_pattern()})*")
