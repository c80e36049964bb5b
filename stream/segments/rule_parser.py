"""Reads the text of a rule, such as `purchases_30d >= 3 and recency_days < 14`.

    or          and ("or" and)*
    and         not ("and" not)*
    not         "not" not | test
    test        sum (relation sum)+ | sum ["not"] "between" sum "and" sum | sum ["not"] "in" "(" sum ("," sum)* ")"
                | sum "is" ["not"] ("known" | "unknown") | "(" or ")"
    sum         product (("+" | "-") product)*
    product     sign (("*" | "/") sign)*
    sign        "-" sign | number ["%"] | feature | "(" sum ")"
    relation    < <= > >= = != (also == and <>)

Words are taken in any case. Relations chain as on paper, in one direction: `3 <= orders < 10`.

Why a parser of our own, and not Python's `ast` or a library. This is the marketer's language, and Python's is another
one: `between`, `AND`, a single `=` and `20%` are syntax errors there, its messages speak of Python and change from
release to release, and all else in it would have to be refused node by node, for every future version. numexpr and
pandas.eval hand the text to `eval`; CEL and simpleeval answer for one user at a time and know no unknown numbers.
What is needed is the grammar above: text in, tree out, nothing is executed, and each error knows its column.

Invariant: `parse` returns a tree or raises ExpressionError; length and nesting are bounded, so that no text exhausts
the stack.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Collection, Iterator
from typing import Final, NamedTuple

from stream.segments.rule_expression import (
    Arithmetic,
    Between,
    Comparison,
    Condition,
    Feature,
    Junction,
    Known,
    Node,
    Not,
    Number,
    OneOf,
    Value,
    features_of,
)

MAX_LENGTH: Final = 2_000
MAX_DEPTH: Final = 32

_TOKEN = re.compile(
    r"(?P<space>\s+)"
    r"|(?P<number>(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?%?)"
    r"|(?P<word>[A-Za-z_][A-Za-z0-9_]*)"
    r"|(?P<symbol><=|>=|==|!=|<>|=>|=<|[-+*/()<>=,])"
)
_RELATIONS = {"<": "<", "<=": "<=", ">": ">", ">=": ">=", "=": "=", "==": "=", "!=": "!=", "<>": "!="}
_RISING, _FALLING = ("<", "<="), (">", ">=")
_RESERVED = frozenset({"and", "or", "not", "in", "is"})
"""No feature can have these names: they are Python's own keywords too."""
_STRANGE = {
    "&": "write 'and'",
    "|": "write 'or'",
    "!": "write 'not', or '!=' for unequal",
    "≥": "write '>='",
    "≤": "write '<='",
    "≠": "write '!='",
    "−": "write the '-' of the keyboard",
    "–": "write the '-' of the keyboard",
    "×": "write '*'",
    "÷": "write '/'",
    "[": "write '('",
    "]": "write ')'",
    '"': "features are numbers; there is no text to compare with",
    "'": "features are numbers; there is no text to compare with",
    "%": "a percent sign follows a number at once, as in 20%",
    "^": "there are no powers",
}


class ExpressionError(ValueError):
    """What is wrong with an expression, at offset `at` of the text; the message shows the place."""

    def __init__(self, problem: str, text: str, at: int) -> None:
        self.problem = problem
        self.at = at
        before = text[:at]
        line = before.count("\n")
        self.column = at - (before.rfind("\n") + 1) + 1
        shown = (text.split("\n")[line] if text else "").replace("\t", " ")
        where = f"column {self.column}" if "\n" not in text else f"line {line + 1}, column {self.column}"
        super().__init__(f"{where}: {problem}\n    {shown}\n    {' ' * (self.column - 1)}^")


def parse(text: str) -> Condition:
    """The condition that `text` states. Raises ExpressionError."""
    if len(text) > MAX_LENGTH:
        raise ExpressionError(f"{len(text)} characters; at most {MAX_LENGTH} are read", text[:80], 0)
    return _Parser(text).whole()


def check_features(condition: Condition, text: str, declared: Collection[str]) -> None:
    """Every name must be a declared feature. Raises ExpressionError, with what may have been meant."""
    for feature in features_of(condition):
        if feature.name in declared:
            continue
        if feature.name.lower() in ("unknown", "null", "none", "nan"):
            raise ExpressionError("nothing equals what is unknown; write 'is unknown' or 'is known'", text, feature.at)
        meant, names = feature.name.lower(), sorted(declared)
        # One that is nearly the same is what was meant; else whatever is like it.
        near = difflib.get_close_matches(meant, names, 1, 0.85) or difflib.get_close_matches(meant, names, 3, 0.6)
        hint = f"did you mean {' or '.join(near)}?" if near else "`resegment config show` lists the features"
        raise ExpressionError(f"there is no feature {feature.name!r}; {hint}", text, feature.at)


class _Token(NamedTuple):
    kind: str
    text: str
    at: int

    @property
    def word(self) -> str:
        return self.text.lower() if self.kind == "word" else self.text


_Rank = Callable[[], Node]
"""Reads one rank of the grammar."""


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = [*self._tokenise(), _Token("end", "", len(text))]
        self._next = 0
        self._depth = 0

    def whole(self) -> Condition:
        """All of the text."""
        if self._peek.kind == "end":
            raise self._error("write a condition, such as purchases_30d >= 3", self._peek.at)
        condition = self._condition(self._or)
        token = self._peek
        if token.kind == "end":
            return condition
        if token.text == ")":
            raise self._error("this ')' closes nothing", token.at)
        if token.text == ",":
            raise self._error("',' stands in lists only; write 1000 for a thousand and 0.5 for a half", token.at)
        if token.word in _RELATIONS or token.word in ("between", "in", "is"):
            raise self._error("a condition cannot be compared; join conditions with 'and' or 'or'", token.at)
        raise self._error(f"'and' or 'or' is missing before {token.text!r}", token.at)

    # -- tokens -----------------------------------------------------------------------------------------------

    def _tokenise(self) -> Iterator[_Token]:
        at = 0
        while at < len(self._text):
            match = _TOKEN.match(self._text, at)
            if match is None:
                strange = self._text[at]
                raise self._error(_STRANGE.get(strange, f"{strange!r} has no meaning here"), at)
            kind, found = str(match.lastgroup), match.group()
            if kind == "number" and re.match(r"[\w.]", self._text[match.end() : match.end() + 1]):
                raise self._error(
                    "a number ends here: units are the feature's own, such as 30 for 30 days", match.end()
                )
            if found in ("=>", "=<"):
                raise self._error(f"write '{found[::-1]}'", at)
            if kind != "space":
                yield _Token(kind, found, at)
            at = match.end()

    @property
    def _peek(self) -> _Token:
        return self._tokens[self._next]

    def _take(self, *words: str) -> _Token | None:
        """The next token if it is one of these."""
        token = self._peek
        if token.kind == "number" or token.word not in words:
            return None
        self._next += 1
        return token

    def _expect(self, symbol: str, where: str) -> None:
        if self._take(symbol) is None:
            raise self._error(f"{symbol!r} is missing {where}", self._peek.at)

    def _error(self, problem: str, at: int) -> ExpressionError:
        return ExpressionError(problem, self._text, at)

    def _deeper(self, at: int) -> None:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise self._error(f"more than {MAX_DEPTH} levels deep", at)

    # -- conditions -------------------------------------------------------------------------------------------

    def _or(self) -> Node:
        return self._junction("or", self._and)

    def _and(self) -> Node:
        return self._junction("and", self._not)

    def _junction(self, word: str, part: _Rank) -> Node:
        at = self._peek.at
        first = part()
        if self._peek.word != word:
            return first
        conditions = [self._as_condition(first, at)]
        while self._take(word):
            conditions.append(self._condition(part))
        # (a and b) and c is a and b and c.
        flat = [c.conditions if isinstance(c, Junction) and c.word == word else (c,) for c in conditions]
        return Junction(word, tuple(one for group in flat for one in group))

    def _not(self) -> Node:
        if (token := self._take("not")) is None:
            return self._test()
        self._deeper(token.at)
        condition = self._condition(self._not)
        self._depth -= 1
        return Not(condition)

    def _test(self) -> Node:
        at = self._peek.at
        left = self._sum()
        token = self._peek
        if token.word in _RELATIONS:
            return self._comparison(self._as_value(left, at))
        outside = token.word == "not"
        if outside and self._tokens[self._next + 1].word not in ("between", "in"):
            raise self._error("'not' stands before a condition, or in 'not between' and 'not in'", token.at)
        if outside:
            self._next += 1
        if self._take("between"):
            return self._between(self._as_value(left, at), at, outside)
        if self._take("in"):
            return self._one_of(self._as_value(left, at), at, outside)
        if self._take("is"):
            return self._known(self._as_value(left, at), at)
        return left

    def _comparison(self, left: Value) -> Condition:
        found: list[Condition] = []
        chain: tuple[str, ...] = ()
        while (token := self._peek).word in _RELATIONS:
            self._next += 1
            relation = _RELATIONS[token.word]
            if found and relation not in chain:
                raise self._error("relations chain in one direction only, as in 3 <= orders < 10; use 'and'", token.at)
            chain = next((way for way in (_RISING, _FALLING) if relation in way), ())
            right = self._value(self._sum)
            if isinstance(left, Number) and isinstance(right, Number):
                raise self._error("compares two numbers, so it is always the same; name a feature", token.at)
            found.append(Comparison(left, relation, right))
            left = right
        return found[0] if len(found) == 1 else Junction("and", tuple(found))

    def _between(self, value: Value, at: int, outside: bool) -> Condition:
        start = self._peek.at
        low = self._value(self._sum)
        self._expect("and", "between the two bounds")
        high = self._value(self._sum)
        if isinstance(low, Number) and isinstance(high, Number) and low.value > high.value:
            raise self._error(
                f"nothing is between {low.value:g} and {high.value:g}; the smaller bound comes first", start
            )
        self._feature_in(value, low, high, at=at)
        return Between(value, low, high, outside)

    def _one_of(self, value: Value, at: int, outside: bool) -> Condition:
        self._expect("(", "after 'in'; write a list, such as in (1, 2, 3)")
        numbers: list[float] = []
        while True:
            start = self._peek.at
            number = self._value(self._sum)
            if not isinstance(number, Number):
                raise self._error("only numbers stand in a list", start)
            numbers.append(number.value)
            if self._take(",") is None:
                break
        self._expect(")", "at the end of the list")
        self._feature_in(value, at=at)
        return OneOf(value, tuple(numbers), outside)

    def _known(self, value: Value, at: int) -> Condition:
        negated = self._take("not") is not None
        token = self._take("known", "unknown")
        if token is None:
            raise self._error("after 'is' comes 'known' or 'unknown'; numbers are compared with =", self._peek.at)
        self._feature_in(value, at=at)
        return Known(value, (token.word == "known") != negated)

    def _feature_in(self, *values: Value, at: int) -> None:
        if all(isinstance(value, Number) for value in values):
            raise self._error("asks about numbers alone, so it is always the same; name a feature", at)

    # -- numbers ----------------------------------------------------------------------------------------------

    def _sum(self) -> Node:
        return self._chain("+-", self._product)

    def _product(self) -> Node:
        return self._chain("*/", self._sign)

    def _chain(self, steps: str, part: _Rank) -> Node:
        at = self._peek.at
        first = part()
        if self._peek.text not in (*steps,):
            return first
        operands = [("+", self._as_value(first, at))]
        while (token := self._take(*steps)) is not None:
            start = self._peek.at
            operand = self._value(part)
            if token.text == "/" and operand == Number(0.0):
                raise self._error("divides by zero", start)
            operands.append((token.text, operand))
        return self._folded(Arithmetic(tuple(operands)), at)

    def _sign(self) -> Node:
        if (token := self._take("-")) is None:
            return self._primary()
        self._deeper(token.at)
        operand = self._value(self._sign)
        self._depth -= 1
        return self._folded(Arithmetic((("-", operand),)), token.at)

    def _folded(self, value: Arithmetic, at: int) -> Value:
        if not all(isinstance(operand, Number) for _, operand in value.operands):
            return value
        result = float(value.of({}))
        if not math.isfinite(result):
            raise self._error("is too large for a number", at)
        return Number(result)

    def _primary(self) -> Node:
        token = self._peek
        if token.kind == "number":
            self._next += 1
            return self._number(token)
        if token.kind == "word" and token.word not in _RESERVED:
            self._next += 1
            if self._peek.text == "(":
                raise self._error("there are no functions", token.at)
            return Feature(token.text, token.at)
        if self._take("("):
            self._deeper(token.at)
            inner = self._or()
            self._expect(")", f"for the '(' in column {token.at + 1}")
            self._depth -= 1
            return inner
        if token.kind == "end":
            raise self._error("it ends too early: a feature or a number is missing", token.at)
        raise self._error(f"a feature or a number is missing before {token.text!r}", token.at)

    def _number(self, token: _Token) -> Value:
        value = float(token.text.rstrip("%")) / (100 if token.text.endswith("%") else 1)
        if not math.isfinite(value):
            raise self._error("is too large for a number", token.at)
        return Number(value)

    # -- numbers are no conditions ----------------------------------------------------------------------------

    def _condition(self, part: _Rank) -> Condition:
        at = self._peek.at
        return self._as_condition(part(), at)

    def _value(self, part: _Rank) -> Value:
        at = self._peek.at
        return self._as_value(part(), at)

    def _as_condition(self, node: Node, at: int) -> Condition:
        if isinstance(node, Condition):
            return node
        raise self._error("is a number, not a condition; compare it, as in purchases_30d > 0", at)

    def _as_value(self, node: Node, at: int) -> Value:
        if isinstance(node, Value):
            return node
        raise self._error("is a condition, not a number; join conditions with 'and' or 'or'", at)
