"""What a rule says, as a tree that answers for m users at once.

Semantics. Everything is a number or a condition, never both. A feature can be unknown (NaN: no review yet, no order to
divide by), and so is arithmetic with it, a division by 0, and what is too large for a number. **A comparison with
an unknown value is false**, whichever way round it is written: `x > 5`, `x <= 5`, `x != 5`, `x not in (5, 6)` and
`x not between 5 and 6` are all false for a user whose x is unknown. Only `is known` and `is unknown` ask for it.
Conditions are true or false, so `not (x > 5)` is true there.

Invariant: the answer for a user follows from that user's values alone, whatever else is in the batch. Trees are
immutable.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
Columns = Mapping[str, FloatArray]
"""Features by name, (m,) each, NaN where unknown."""


class Node(ABC):
    """A part of an expression. `str()` of it is canonical: parts that mean the same by grammar print the same."""

    __slots__ = ()

    @abstractmethod
    def parts(self) -> tuple[Node, ...]:
        """What it is made of, from left to right."""


class Value(Node):
    """A number for each user."""

    __slots__ = ()

    @abstractmethod
    def of(self, columns: Columns) -> FloatArray:
        """(m,), or () where it is the same for everybody; NaN where unknown."""


class Condition(Node):
    """True or false for each user."""

    __slots__ = ()

    @abstractmethod
    def holds(self, columns: Columns) -> BoolArray:
        """(m,)"""


@dataclass(frozen=True, slots=True)
class Number(Value):
    """A constant."""

    value: float

    def parts(self) -> tuple[Node, ...]:
        """None."""
        return ()

    def of(self, columns: Columns) -> FloatArray:
        """The same for everybody."""
        return np.asarray(self.value)

    def __str__(self) -> str:
        return repr(self.value)


@dataclass(frozen=True, slots=True)
class Feature(Value):
    """A declared feature, named at offset `at` of the text."""

    name: str
    at: int = field(default=0, compare=False)

    def parts(self) -> tuple[Node, ...]:
        """None."""
        return ()

    def of(self, columns: Columns) -> FloatArray:
        """Its column."""
        return columns[self.name]

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class Arithmetic(Value):
    """A chain of one rank: + and -, or * and /, from left to right; the first operand's sign stands first."""

    operands: tuple[tuple[str, Value], ...]

    _STEPS: ClassVar[dict[str, Callable[[Any, Any], Any]]] = {
        "+": np.add,
        "-": np.subtract,
        "*": np.multiply,
        "/": np.divide,
    }

    def parts(self) -> tuple[Node, ...]:
        """The operands."""
        return tuple(operand for _, operand in self.operands)

    def of(self, columns: Columns) -> FloatArray:
        """The result, NaN where it is not finite: within a chain what is infinite stays so, or becomes NaN."""
        (sign, first), *others = self.operands
        result: Any = -first.of(columns) if sign == "-" else first.of(columns)
        with np.errstate(all="ignore"):
            for step, operand in others:
                result = self._STEPS[step](result, operand.of(columns))
        known: FloatArray = np.where(np.isfinite(result), result, np.nan)
        return known

    def __str__(self) -> str:
        (sign, first), *others = self.operands
        return "(" + ("-" if sign == "-" else "") + str(first) + "".join(f" {s} {o}" for s, o in others) + ")"


@dataclass(frozen=True, slots=True)
class Comparison(Condition):
    """Two values, compared. NaN makes every one of the six false; numpy alone would call it unequal."""

    left: Value
    relation: str
    right: Value

    _RELATIONS: ClassVar[dict[str, Callable[[Any, Any], Any]]] = {
        "<": np.less,
        "<=": np.less_equal,
        ">": np.greater,
        ">=": np.greater_equal,
        "=": np.equal,
        "!=": lambda left, right: (left < right) | (left > right),
    }

    def parts(self) -> tuple[Node, ...]:
        """Both sides."""
        return self.left, self.right

    def holds(self, columns: Columns) -> BoolArray:
        """Where both are known and the relation holds."""
        result: BoolArray = self._RELATIONS[self.relation](self.left.of(columns), self.right.of(columns))
        return result

    def __str__(self) -> str:
        return f"({self.left} {self.relation} {self.right})"


@dataclass(frozen=True, slots=True)
class Between(Condition):
    """From `low` to `high`, both included; or, where `outside`, not so."""

    value: Value
    low: Value
    high: Value
    outside: bool = False

    def parts(self) -> tuple[Node, ...]:
        """The value and its bounds."""
        return self.value, self.low, self.high

    def holds(self, columns: Columns) -> BoolArray:
        """Where all three are known and it is so."""
        value, low, high = self.value.of(columns), self.low.of(columns), self.high.of(columns)
        inside: BoolArray = (value >= low) & (value <= high)
        return ~(inside | np.isnan(value) | np.isnan(low) | np.isnan(high)) if self.outside else inside

    def __str__(self) -> str:
        return f"({self.value}{' not' if self.outside else ''} between {self.low} and {self.high})"


@dataclass(frozen=True, slots=True)
class OneOf(Condition):
    """Equal to one of some numbers; or, where `outside`, to none."""

    value: Value
    numbers: tuple[float, ...]
    outside: bool = False

    def parts(self) -> tuple[Node, ...]:
        """The value."""
        return (self.value,)

    def holds(self, columns: Columns) -> BoolArray:
        """Where the value is known and it is so."""
        value = self.value.of(columns)
        inside: BoolArray = np.isin(value, self.numbers)
        return ~(inside | np.isnan(value)) if self.outside else inside

    def __str__(self) -> str:
        numbers = ", ".join(map(repr, sorted(set(self.numbers))))
        return f"({self.value}{' not' if self.outside else ''} in ({numbers}))"


@dataclass(frozen=True, slots=True)
class Known(Condition):
    """Whether there is a value at all."""

    value: Value
    known: bool

    def parts(self) -> tuple[Node, ...]:
        """The value."""
        return (self.value,)

    def holds(self, columns: Columns) -> BoolArray:
        """Where it is known, or unknown, as asked."""
        unknown: BoolArray = np.isnan(self.value.of(columns))
        return ~unknown if self.known else unknown

    def __str__(self) -> str:
        return f"({self.value} is {'known' if self.known else 'unknown'})"


@dataclass(frozen=True, slots=True)
class Not(Condition):
    """The opposite."""

    condition: Condition

    def parts(self) -> tuple[Node, ...]:
        """The condition."""
        return (self.condition,)

    def holds(self, columns: Columns) -> BoolArray:
        """Where it does not hold."""
        return ~self.condition.holds(columns)

    def __str__(self) -> str:
        return f"(not {self.condition})"


@dataclass(frozen=True, slots=True)
class Junction(Condition):
    """All of some conditions (`and`), or any of them (`or`)."""

    word: str
    conditions: tuple[Condition, ...]

    def parts(self) -> tuple[Node, ...]:
        """The conditions."""
        return self.conditions

    def holds(self, columns: Columns) -> BoolArray:
        """Where all, or any, hold."""
        join = np.logical_and if self.word == "and" else np.logical_or
        result = self.conditions[0].holds(columns)
        for condition in self.conditions[1:]:
            result = join(result, condition.holds(columns))
        return result

    def __str__(self) -> str:
        return "(" + f" {self.word} ".join(map(str, self.conditions)) + ")"


def features_of(node: Node) -> Iterator[Feature]:
    """Every mention of a feature, from left to right."""
    if isinstance(node, Feature):
        yield node
    for part in node.parts():
        yield from features_of(part)
