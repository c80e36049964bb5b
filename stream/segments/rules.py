"""Declared segments: rules over the features, as marketers write them.

    [[rules]]
    id = "vip"
    name = "VIPs"
    when = "purchases_30d >= 3 and spend_30d > 250"
    leave_when = "spend_30d < 200"

A user is in one learned segment, and in every rule segment whose rule holds. Outside, the id is "rule:vip"; it is
what a rule is known by, so a rule can be renamed, moved in the file and edited, and its members stay its members.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Annotated, Any, Final, Self

import xxhash
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from stream.features.spec import AnyFeature
from stream.segments.rule_expression import BoolArray, Columns, Condition, features_of
from stream.segments.rule_parser import check_features, parse

PREFIX: Final = "rule:"
MAX_RULES: Final = 128
_SLUG = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")


class RuleSegment(BaseModel):
    """One declared segment. `when` and `leave_when` are written in the language of stream/segments/rule_parser.py.

    Without `leave_when` a user is in the segment exactly while `when` holds. With it a user enters where `when` holds
    and `leave_when` does not, and stays until `leave_when` holds: two thresholds instead of one, so that nobody goes to
    and fro at the border.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    name: str = Field(min_length=1, max_length=64, description="What people and campaigns call it")
    title: str = Field(default="", max_length=500, description="Whom it is for, in a sentence")
    when: str
    leave_when: str | None = None

    @field_validator("id")
    @classmethod
    def _slug(cls, identifier: str) -> str:
        slug = identifier.removeprefix(PREFIX)
        if not _SLUG.fullmatch(slug):
            raise ValueError(f"{identifier!r} must be lower-case letters, digits, '-' and '_', such as 'vip'")
        return PREFIX + slug

    @field_validator("name")
    @classmethod
    def _plain(cls, name: str) -> str:
        if not name.isprintable() or name != name.strip():
            raise ValueError("a name is printable and has no space at its ends")
        return name

    @field_validator("when", "leave_when")
    @classmethod
    def _readable(cls, text: str | None) -> str | None:
        if text is not None:
            parse(text)
        return text

    @model_validator(mode="after")
    def _two_thresholds(self) -> Self:
        if self.leaving is not None and str(self.leaving) == str(self.entering):
            raise ValueError("leave_when: is the same as when, so that nobody would ever be in it")
        return self

    @cached_property
    def entering(self) -> Condition:
        """What `when` states."""
        return parse(self.when)

    @cached_property
    def leaving(self) -> Condition | None:
        """What `leave_when` states."""
        return None if self.leave_when is None else parse(self.leave_when)

    @cached_property
    def features(self) -> tuple[str, ...]:
        """The names of the features that it speaks of, each once, as first mentioned."""
        parts = [self.entering] if self.leaving is None else [self.entering, self.leaving]
        return tuple(dict.fromkeys(feature.name for part in parts for feature in features_of(part)))

    def members(self, columns: Columns, inside: BoolArray) -> BoolArray:
        """(m,) who is in it now, of users with these values, `inside` telling who was in it before."""
        holds = self.entering.holds(columns)
        return holds if self.leaving is None else (holds | inside) & ~self.leaving.holds(columns)

    def definition(self, features: Iterable[AnyFeature]) -> str:
        """A digest of what decides membership: the conditions, and the features as they are declared.

        How it is written, called and explained is no part of it. 16 hexadecimal digits.
        """
        used = sorted(
            f.model_dump_json(exclude={"title", "unit", "learn", "log"}) for f in features if f.name in self.features
        )
        return xxhash.xxh3_64_hexdigest("\n".join([str(self.entering), str(self.leaving), *used]).encode())


def _name_the_rule(value: Any, handler: ValidatorFunctionWrapHandler) -> RuleSegment:
    try:
        rule: RuleSegment = handler(value)
    except ValidationError as error:
        name = value.get("id", value.get("name", "?")) if isinstance(value, dict) else "?"
        lines = "; ".join(_line(line) for line in error.errors(include_url=False, include_input=False))
        raise PydanticCustomError("rule", "rule {name}: {lines}", {"name": repr(name), "lines": lines}) from None
    return rule


def _line(error: Any) -> str:
    message = "is not a setting of a rule" if error["type"] == "extra_forbidden" else error["msg"]
    return ": ".join([*map(str, error["loc"]), message.removeprefix("Value error, ")])


def _unique(rules: tuple[RuleSegment, ...]) -> tuple[RuleSegment, ...]:
    ids: set[str] = set()
    names: set[str] = set()
    for rule in rules:
        if rule.id in ids:
            raise ValueError(f"rule {rule.id!r}: id: is declared twice")
        if rule.name.casefold() in names:
            raise ValueError(f"rule {rule.id!r}: name: another rule is called {rule.name!r} too")
        ids.add(rule.id)
        names.add(rule.name.casefold())
    return rules


RuleSegments = Annotated[
    tuple[Annotated[RuleSegment, WrapValidator(_name_the_rule)], ...],
    Field(max_length=MAX_RULES),
    AfterValidator(_unique),
]
"""A pydantic field type for the whole list: ids and names unique; errors name the rule, the key and the column."""


def check_rules(rules: Sequence[RuleSegment], features: Iterable[AnyFeature]) -> None:
    """Every rule must speak of declared features. Raises ValueError naming rule, key, column, and what may be meant."""
    declared = {feature.name for feature in features}
    for rule in rules:
        for key, text, condition in (("when", rule.when, rule.entering), ("leave_when", rule.leave_when, rule.leaving)):
            if text is not None and condition is not None:
                try:
                    check_features(condition, text, declared)
                except ValueError as error:
                    raise ValueError(f"rule {rule.id!r}: {key}: {error}") from None
