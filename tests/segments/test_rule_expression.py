"""Expressions over a batch against Python's own evaluation, user by user, of the same text.

The oracle shares no code with the parser: the text is generated together with its Python spelling (`=` is `==`,
`between` is a call), and Python's grammar and floats decide what it means; unknown values are the test's `Quantity`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from stream.segments.rule_expression import features_of
from stream.segments.rule_parser import ExpressionError, parse

NAMES = ("spend_30d", "visits", "between", "known")
"""Two of them are words of the language, which have their meaning in their places only."""


@dataclass(frozen=True, slots=True)
class Quantity:
    """A number that may be unknown (None), by the definitions in docs/rules.md."""

    value: float | None

    def _with(self, other: Quantity | float, operation: str) -> Quantity:
        right = other.value if isinstance(other, Quantity) else other
        if self.value is None or right is None or (operation == "/" and right == 0):
            return Quantity(None)
        results = {"+": self.value + right, "-": self.value - right, "*": self.value * right}
        result = self.value / right if operation == "/" else results[operation]
        return Quantity(result if math.isfinite(result) else None)

    def __add__(self, other: Quantity | float) -> Quantity:
        return self._with(other, "+")

    def __radd__(self, other: float) -> Quantity:
        return Quantity(other)._with(self, "+")

    def __sub__(self, other: Quantity | float) -> Quantity:
        return self._with(other, "-")

    def __rsub__(self, other: float) -> Quantity:
        return Quantity(other)._with(self, "-")

    def __mul__(self, other: Quantity | float) -> Quantity:
        return self._with(other, "*")

    def __rmul__(self, other: float) -> Quantity:
        return Quantity(other)._with(self, "*")

    def __truediv__(self, other: Quantity | float) -> Quantity:
        return self._with(other, "/")

    def __rtruediv__(self, other: float) -> Quantity:
        return Quantity(other)._with(self, "/")

    def __neg__(self) -> Quantity:
        return Quantity(None if self.value is None else -self.value)

    def _both(self, other: object) -> tuple[float, float] | None:
        right = other.value if isinstance(other, Quantity) else other
        if self.value is None or right is None:
            return None
        assert isinstance(right, int | float)
        return self.value, right

    def __lt__(self, other: object) -> bool:
        return (pair := self._both(other)) is not None and pair[0] < pair[1]

    def __le__(self, other: object) -> bool:
        return (pair := self._both(other)) is not None and pair[0] <= pair[1]

    def __gt__(self, other: object) -> bool:
        return (pair := self._both(other)) is not None and pair[0] > pair[1]

    def __ge__(self, other: object) -> bool:
        return (pair := self._both(other)) is not None and pair[0] >= pair[1]

    def __eq__(self, other: object) -> bool:
        return (pair := self._both(other)) is not None and pair[0] == pair[1]

    def __ne__(self, other: object) -> bool:
        return (pair := self._both(other)) is not None and pair[0] != pair[1]

    __hash__ = None  # type: ignore[assignment]


def is_between(value: Quantity, low: Quantity | float, high: Quantity | float, outside: bool) -> bool:
    bounds = [bound.value if isinstance(bound, Quantity) else bound for bound in (low, high)]
    if value.value is None or bounds[0] is None or bounds[1] is None:
        return False
    return (bounds[0] <= value.value <= bounds[1]) != outside


def is_one_of(value: Quantity, numbers: list[float], outside: bool) -> bool:
    return value.value is not None and (value.value in numbers) != outside


def is_unknown(value: Quantity) -> bool:
    return value.value is None


ORACLE = {"is_between": is_between, "is_one_of": is_one_of, "is_unknown": is_unknown}

Pair = tuple[str, str]
"""The text of a rule, or a part of it, and its Python spelling."""

numbers = st.sampled_from(["0", "1", "2", "3.5", ".25", "7.", "1e3", "1E-2", "40"]).map(lambda text: (text, text))
percents = st.integers(0, 300).map(lambda n: (f"{n}%", f"({n}/100)"))
features = st.sampled_from(NAMES).map(lambda name: (name, name))


def chains(part: st.SearchStrategy[Pair], steps: str, first: st.SearchStrategy[Pair]) -> st.SearchStrategy[Pair]:
    """A chain without parentheses: precedence is what is tested."""

    def join(head: Pair, tail: list[tuple[str, Pair]]) -> Pair:
        return tuple(  # type: ignore[return-value]
            "".join([head[side], *(f" {step} {operand[side]}" for step, operand in tail)]) for side in (0, 1)
        )

    return st.builds(join, first, st.lists(st.tuples(st.sampled_from(steps), part), max_size=2))


def both(pair: Pair, template: str) -> Pair:
    return template.format(pair[0]), template.format(pair[1])


def values(inner: st.SearchStrategy[Pair]) -> st.SearchStrategy[Pair]:
    """Arithmetic that speaks of a feature first, so that no comparison is one of numbers alone."""
    operand = st.one_of(numbers, percents, inner, inner.map(lambda pair: both(pair, "({})")))
    head = st.one_of(inner, inner.map(lambda pair: both(pair, "({})")), inner.map(lambda pair: both(pair, "-{}")))
    return chains(chains(operand, "*/", operand), "+-", chains(operand, "*/", head))


value = st.recursive(features, values, max_leaves=4)
operand = st.one_of(numbers, percents, value)
RELATIONS = {"<": "<", "<=": "<=", ">": ">", ">=": ">=", "=": "==", "==": "==", "!=": "!=", "<>": "!="}


def compared(left: Pair, relation: str, right: Pair) -> Pair:
    return f"{left[0]} {relation} {right[0]}", f"{left[1]} {RELATIONS[relation]} {right[1]}"


def chained(left: Pair, middle: Pair, right: Pair, relations: tuple[str, str]) -> Pair:
    a, b = relations
    return f"{left[0]} {a} {middle[0]} {b} {right[0]}", f"{left[1]} {a} {middle[1]} {b} {right[1]}"


def between(one: Pair, low: Pair, high: Pair, outside: bool) -> Pair:
    word = "NOT between" if outside else "between"
    return f"{one[0]} {word} {low[0]} and {high[0]}", f"is_between({one[1]}, {low[1]}, {high[1]}, {outside})"


def one_of(one: Pair, listed: list[Pair], outside: bool) -> Pair:
    word = "not in" if outside else "in"
    ours, theirs = (", ".join(pair[side] for pair in listed) for side in (0, 1))
    return f"{one[0]} {word} ({ours})", f"is_one_of({one[1]}, [{theirs}], {outside})"


def known(one: Pair, words: str) -> Pair:
    negated = words in ("is known", "is NOT unknown")
    return f"{one[0]} {words}", f"{'not ' if negated else ''}is_unknown({one[1]})"


directions = st.sampled_from([("<", "<="), ("<=", "<="), (">", ">="), (">=", ">")])
tests = st.one_of(
    st.builds(compared, value, st.sampled_from(sorted(RELATIONS)), operand),
    st.builds(compared, operand, st.sampled_from(sorted(RELATIONS)), value),
    st.builds(chained, operand, value, operand, directions),
    st.builds(between, value, operand, operand, st.booleans()),
    st.builds(one_of, value, st.lists(st.one_of(numbers, percents), min_size=1, max_size=3), st.booleans()),
    st.builds(known, value, st.sampled_from(["is known", "is unknown", "is not known", "is NOT unknown"])),
)


def conditions(inner: st.SearchStrategy[Pair]) -> st.SearchStrategy[Pair]:
    # Without parentheses: `a or b and not c` must be read as Python reads it.
    def joined(parts: list[Pair], words: list[str]) -> Pair:
        ours, theirs = parts[0]
        for word, (text, python) in zip(words, parts[1:], strict=False):
            ours, theirs = f"{ours} {word} {text}", f"{theirs} {word.lower()} {python}"
        return ours, theirs

    return st.one_of(
        st.builds(
            joined,
            st.lists(inner, min_size=2, max_size=4),
            st.lists(st.sampled_from(["and", "or", "AND", "Or"]), min_size=3, max_size=3),
        ),
        inner.map(lambda pair: both(pair, "not {}")),
        inner.map(lambda pair: both(pair, "( {} )")),
    )


condition = st.recursive(tests, conditions, max_leaves=4)
amounts = st.one_of(
    st.none(),
    st.sampled_from([0.0, -0.0, 1.0, 2.0, 3.0, 3.5, 40.0, -7.25, 1e308, -1e308, 5e-324]),
    st.floats(-1e6, 1e6),
)
users = st.lists(st.tuples(*[amounts] * len(NAMES)), min_size=1, max_size=6)
NEEDLESS = ("divides by zero", "nothing is between", "always the same")
"""What numbers alone can come to, and is refused: the generator writes some of it."""


def columns_of(people: list[tuple[float | None, ...]]) -> dict[str, np.ndarray[tuple[int], np.dtype[np.float64]]]:
    table = np.array([[np.nan if one is None else one for one in person] for person in people])
    return {name: table[:, at] for at, name in enumerate(NAMES)}


@settings(max_examples=200, deadline=None)
@given(condition, users)
def test_a_batch_is_answered_as_python_would_answer_for_each_user(
    pair: Pair, people: list[tuple[float | None, ...]]
) -> None:
    text, python = pair
    try:
        parsed = parse(text)
    except ExpressionError as error:
        assume(not any(words in error.problem for words in NEEDLESS))
        raise
    holds = parsed.holds(columns_of(people))
    assert holds.dtype == bool
    assert holds.shape == (len(people),)
    code = compile(python, "rule", "eval")
    for person, answer in zip(people, holds.tolist(), strict=True):
        names = dict(zip(NAMES, map(Quantity, person), strict=True))
        assert answer == eval(code, ORACLE | names), (text, person)


@settings(max_examples=100, deadline=None)
@given(condition, users)
def test_what_is_printed_is_read_again_as_the_same(pair: Pair, people: list[tuple[float | None, ...]]) -> None:
    try:
        parsed = parse(pair[0])
    except ExpressionError:
        return
    again = parse(str(parsed))
    assert str(again) == str(parsed)
    columns = columns_of(people)
    assert again.holds(columns).tolist() == parsed.holds(columns).tolist()


@pytest.mark.parametrize(
    ("text", "a", "b", "answer"),
    [
        ("a between 1 and 2", 1, 0, True),
        ("a between 1 and 2", 2, 0, True),
        ("a between 1 and 2", 2.5, 0, False),
        ("a not between 1 and 2", 2, 0, False),
        ("a not between 1 and 2", 2.5, 0, True),
        ("a not between 1 and b", 9, None, False),
        ("a not between b and 1", 9, None, False),
        ("a between 1 and b", 1, None, False),
        ("a > 1 and a not between b and b + 1 and b > 2", 2, 3, True),
        ("1 + 2 * a = 7", 3, 0, True),
        ("2 * a + 1 = 7", 3, 0, True),
        ("a - 1 - 1 = 1", 3, 0, True),
        ("a / 2 / 2 = 1", 4, 0, True),
        ("a / 2 * 2 = 4", 4, 0, True),
        ("a - 1 + 1 = 4", 4, 0, True),
        ("2 * -a = -6", 3, 0, True),
        ("-a + 3 = 0", 3, 0, True),
        ("- -a = 3", 3, 0, True),
        ("a = 1 or a = 2 and b = 9", 1, 0, True),
        ("(a = 1 or a = 2) and b = 9", 1, 0, False),
        ("not a = 1 or b = 0", 1, 0, True),
        ("not (a = 1 or b = 0)", 1, 0, False),
        ("not a = 1 and b = 0", 2, 1, False),
        ("3 <= a < 10", 3, 0, True),
        ("3 <= a < 10", 10, 0, False),
        ("10 > a >= 3", 10, 0, False),
        ("a / b > 0", 1, 0, False),
        ("a / b is unknown", 1, 0, True),
        ("a * a * 0 = 0", 1e200, 0, False),
    ],
)
def test_examples_with_one_answer(text: str, a: float, b: float | None, answer: bool) -> None:
    columns = {"a": np.array([float(a)]), "b": np.array([np.nan if b is None else float(b)])}
    assert parse(text).holds(columns).tolist() == [answer]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("a>=3 AND b<14", "a >= 3.0 and\n  b < 14"),
        ("a == 3", "(a) = 3"),
        ("a <> 3", "a != 3"),
        ("((a > 1))", "a > 1"),
        ("(a > 1 and b > 2) and a < 5", "a > 1 and b > 2 and a < 5"),
        ("a is not unknown", "a is known"),
        ("a in (3, 1, 3)", "a in (1, 3)"),
        ("a > 20%", "a > 0.2"),
        ("a > 2 * 3", "a > 6"),
        ("1 < a <= 5", "1 < a and a <= 5"),
    ],
)
def test_the_same_meaning_prints_the_same(one: str, other: str) -> None:
    assert str(parse(one)) == str(parse(other))


@pytest.mark.parametrize("one", ["a > 1", "a >= 1", "a < 1", "b > 1", "a > 1.5", "not a > 1", "a > 1 or b > 1"])
def test_another_meaning_prints_another_text(one: str) -> None:
    others = ["a > 2", "a != 1", "a = 1", "b >= 1", "a > 1 and b > 1", "a is known", "a in (1)", "a between 1 and 1"]
    assert str(parse(one)) not in {str(parse(other)) for other in others}


@pytest.mark.parametrize(
    "text",
    ["a > 5", "a <= 5", "a = 5", "a != 5", "a in (5)", "a not in (5)", "a between 1 and 5", "a not between 1 and 5"],
)
def test_a_comparison_with_an_unknown_value_is_false(text: str) -> None:
    nobody_knows = {"a": np.array([np.nan])}
    assert parse(text).holds(nobody_knows).tolist() == [False]
    assert parse(f"not ({text})").holds(nobody_knows).tolist() == [True]


def test_features_are_found_where_they_stand() -> None:
    found = [
        (feature.name, feature.at) for feature in features_of(parse("3 < a + b * -c and (not b in (1) or d is known)"))
    ]
    assert found == [("a", 4), ("b", 8), ("c", 13), ("b", 24), ("d", 36)]


def test_a_long_rule_needs_no_deep_stack() -> None:
    text = " + ".join(["a"] * 440) + " > 1 and " + " and ".join(["a > 1"] * 20)
    assert parse(text).holds({"a": np.array([2.0, 0.0])}).tolist() == [True, False]
