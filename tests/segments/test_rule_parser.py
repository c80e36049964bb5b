"""What is wrong with a rule, and where: problem and column for everything that people get wrong."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.segments.rule_parser import MAX_DEPTH, MAX_LENGTH, ExpressionError, check_features, parse

FAULTS = [
    # text, column, a part of the problem
    ("", 1, "write a condition"),
    ("   ", 4, "write a condition"),
    ("purchases_30d", 1, "is a number, not a condition; compare it"),
    ("a > 1 and b", 11, "is a number, not a condition"),
    ("not a", 5, "is a number, not a condition"),
    ("(a > 1) + 1 > 2", 1, "is a condition, not a number"),
    ("a + (b > 1) > 2", 5, "is a condition, not a number"),
    ("-(a > 1) > 2", 2, "is a condition, not a number"),
    ("a > 1 > b > 3 > 0", 15, "compares two numbers"),
    ("a > 3 < b", 7, "one direction only"),
    ("a = b = c", 7, "one direction only"),
    ("1 < 2", 3, "compares two numbers"),
    ("1 + 1 in (2)", 1, "asks about numbers alone"),
    ("2 is known", 1, "asks about numbers alone"),
    ("2 between 1 and 3", 1, "asks about numbers alone"),
    ("a between 5 and 3", 11, "nothing is between 5 and 3"),
    ("a between 1", 12, "'and' is missing between the two bounds"),
    ("a between 1 or 2", 13, "'and' is missing between the two bounds"),
    ("a in 1", 6, "'(' is missing after 'in'"),
    ("a in ()", 7, "a feature or a number is missing before ')'"),
    ("a in (b)", 7, "only numbers stand in a list"),
    ("a in (1, 2", 11, "')' is missing at the end of the list"),
    ("a in [1, 2]", 6, "write '('"),
    ("a is 5", 6, "after 'is' comes 'known' or 'unknown'"),
    ("a is null", 6, "after 'is' comes 'known' or 'unknown'"),
    ("a not > 1", 3, "'not' stands before a condition"),
    ("a > 1)", 6, "this ')' closes nothing"),
    ("b > 1 or (a > 1", 16, "')' is missing for the '(' in column 10"),
    ("a > 1 b > 1", 7, "'and' or 'or' is missing before 'b'"),
    ("a > 1,000", 6, "write 1000 for a thousand"),
    ("a > 0,5", 6, "0.5 for a half"),
    ("a > 1 and", 10, "it ends too early"),
    ("a >", 4, "it ends too early"),
    ("a + ", 5, "it ends too early"),
    ("and a > 1", 1, "is missing before 'and'"),
    ("a > 1 or or b > 1", 10, "is missing before 'or'"),
    ("a > * 3", 5, "is missing before '*'"),
    ("a > 1 in (1)", 7, "a condition cannot be compared"),
    ("a is known = 1", 12, "a condition cannot be compared"),
    ("a > 30d", 7, "units are the feature's own"),
    ("a > 1_000", 6, "units are the feature's own"),
    ("a > 1.2.3", 8, "units are the feature's own"),
    ("a > 1e999", 5, "is too large for a number"),
    ("a > 1e308 * 10", 5, "is too large for a number"),
    ("a / 0 > 1", 5, "divides by zero"),
    ("a / (2 - 2) > 1", 5, "divides by zero"),
    ("1 / 0 < a", 5, "divides by zero"),
    ("a => 3", 3, "write '>='"),
    ("a =< 3", 3, "write '<='"),
    ("a ≥ 3", 3, "write '>='"),
    ("a && b", 3, "write 'and'"),
    ("a || b", 3, "write 'or'"),
    ("!a", 1, "write 'not'"),
    ("a = 'vip'", 5, "there is no text"),
    ('a = "vip"', 5, "there is no text"),
    ("a > 20 %", 8, "follows a number at once"),
    ("a ^ 2 > 3", 3, "there are no powers"),
    ("a ** 2 > 3", 4, "is missing before '*'"),
    ("abs(a) > 3", 1, "there are no functions"),
    ("a > 3; b", 6, "';' has no meaning here"),
    ("a.b > 3", 2, "'.' has no meaning here"),
    ("a > ٣", 5, "has no meaning here"),
    ("__import__('os')", 12, "there is no text"),
    ("lambda: 1 > a", 7, "':' has no meaning here"),
    ("ä > 1", 1, "has no meaning here"),
]


@pytest.mark.parametrize(("text", "column", "problem"), FAULTS, ids=[fault[0] or "empty" for fault in FAULTS])
def test_a_fault_is_named_at_its_column(text: str, column: int, problem: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        parse(text)
    assert problem in caught.value.problem
    assert caught.value.column == column
    first, shown, caret = str(caught.value).split("\n")
    assert first == f"column {column}: {caught.value.problem}"
    assert (shown, caret) == (f"    {text}", "    " + " " * (column - 1) + "^")


def test_in_a_text_of_several_lines_the_line_is_shown_alone() -> None:
    with pytest.raises(ExpressionError) as caught:
        parse("a > 1\nand\tb >> 2\nand c > 3")
    assert str(caught.value) == (
        "line 2, column 8: a feature or a number is missing before '>'\n    and b >> 2\n           ^"
    )


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("purchase_30d", "there is no feature 'purchase_30d'; did you mean purchases_30d?"),
        ("Recency_Days", "there is no feature 'Recency_Days'; did you mean recency_days?"),
        ("xyzzy", "there is no feature 'xyzzy'; `resegment config show` lists the features"),
        ("unknown", "nothing equals what is unknown; write 'is unknown' or 'is known'"),
        ("NULL", "nothing equals what is unknown; write 'is unknown' or 'is known'"),
    ],
)
def test_a_name_that_is_no_feature_is_shown_with_what_was_meant(name: str, problem: str) -> None:
    text = f"recency_days < 14 and {name} > 3"
    with pytest.raises(ExpressionError) as caught:
        check_features(parse(text), text, ["purchases_30d", "recency_days", "spend_30d"])
    assert (caught.value.problem, caught.value.column) == (problem, 23)


def test_declared_features_pass() -> None:
    text = "recency_days < 14 and -spend_30d / 2 is known"
    check_features(parse(text), text, {"recency_days", "spend_30d"})


@pytest.mark.parametrize("opening", ["(", "not ", "-", "not (", "-("])
def test_nesting_is_bounded(opening: str) -> None:
    levels = MAX_DEPTH // len(opening.replace("not", "n").replace(" ", ""))
    nested = "a > 1" if "not" in opening or opening == "(" else "a"
    ending = ")" * opening.count("(")
    tail = "" if nested == "a > 1" else " > 1"
    parse(opening * levels + nested + ending * levels + tail)
    with pytest.raises(ExpressionError, match=f"more than {MAX_DEPTH} levels deep"):
        parse(opening * (levels + 1) + nested + ending * (levels + 1) + tail)


def test_length_is_bounded() -> None:
    parse("a > 1".ljust(MAX_LENGTH))
    with pytest.raises(ExpressionError, match=f"{MAX_LENGTH + 1} characters; at most {MAX_LENGTH} are read"):
        parse("a > 1".ljust(MAX_LENGTH + 1))


words = st.sampled_from(
    ["a", "and", "or", "not", "in", "is", "known", "between", "(", ")", ",", "<", ">=", "=", "-", "/", "1", "0"]
)


@given(
    st.one_of(st.lists(words, max_size=14).map(" ".join), st.text(string.printable, max_size=40), st.text(max_size=30))
)
def test_whatever_the_text_there_is_a_tree_or_an_error_that_points_into_it(text: str) -> None:
    try:
        parse(text)
    except ExpressionError as error:
        assert 0 <= error.at <= len(text)
