"""Expressions mean what JMESPath means, whichever way they are evaluated; what cannot be compiled says where."""

import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jmespath
import pytest
from hypothesis import given
from hypothesis import strategies as st

from connector.mapping.expressions import (
    EvaluationError,
    InvalidSourceError,
    compile_expression,
    evaluator,
    is_true,
    parse,
)

CASES = Path(__file__).resolve().parents[1] / "data" / "jmespath"
FAILS: Any = object()


def cases() -> Iterator[Any]:
    for file in sorted(CASES.glob("*.json")):
        for suite in json.loads(file.read_text()):
            for number, case in enumerate(suite["cases"]):
                if "bench" not in case:
                    expected = FAILS if "error" in case else case["result"]
                    name = f"{file.stem}-{number}-{case['expression'][:30]}"
                    yield pytest.param(suite["given"], case["expression"], expected, id=name)


def result(expression: str, given_value: Any) -> Any:
    try:
        return evaluator(parse(expression))(given_value)
    except (InvalidSourceError, EvaluationError):
        return FAILS


@pytest.mark.parametrize(("value", "expression", "expected"), list(cases()))
def test_the_compliance_cases_pass(value: Any, expression: str, expected: Any) -> None:
    found = result(expression, value)

    assert found is FAILS if expected is FAILS else found == expected


NAMES = st.sampled_from(["a", "b", "c"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2) | st.sampled_from(["", "a", "x"]) | st.just(0.0),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=12,
)
LITERALS = (st.booleans() | st.none() | st.integers(-2, 2)).map(lambda v: f"`{json.dumps(v)}`") | st.sampled_from(
    ["'a'", "'x'", "''", "`[]`", "`{}`"]
)
EXPRESSIONS = st.recursive(
    st.lists(NAMES, min_size=1, max_size=3).map(".".join)
    | LITERALS
    | st.tuples(NAMES, st.integers(-3, 2)).map(lambda p: f"{p[0]}[{p[1]}].a"),
    lambda inner: (
        st.tuples(inner, st.sampled_from(["==", "!=", "<", ">=", "&&", "||", "|"]), inner).map(
            lambda p: f"({p[0]} {p[1]} {p[2]})"
        )
        | inner.map(lambda e: f"!({e})")
    ),
    max_leaves=6,
)


@given(EXPRESSIONS, st.dictionaries(NAMES, JSON, max_size=3))
def test_what_is_compiled_means_what_the_library_means(expression: str, value: Any) -> None:
    try:
        expected = jmespath.search(expression, value)
    except (ValueError, TypeError):
        expected = FAILS
    found = result(expression, value)

    assert (type(found), found) == (type(expected), expected)


@pytest.mark.parametrize("comparison", ["value.a == {}", "value.a != {}", "{} == value.a", "{} != value.a"])
@pytest.mark.parametrize(
    "literal", ["`1`", "`0`", "`true`", "`false`", "`null`", "'1'", "'true'", "''", "`[]`", "`{}`"]
)
def test_values_that_python_takes_for_each_other_are_compared_as_jmespath_does(comparison: str, literal: str) -> None:
    text = comparison.format(literal)
    compiled = compile_expression(text)

    values: list[Any] = [1, 0, True, False, None, 1.0, 0.0, -0.0, "1", "true", "", [], {}, [1], [True]]
    for value in values:
        scope = {"value": {"a": value}}
        assert compiled.evaluate(scope) is jmespath.search(text, scope), value


@given(JSON)
def test_truth_is_the_librarys(value: Any) -> None:
    assert is_true(value) is (jmespath.search("!(@)", value) is False)


@pytest.mark.parametrize(
    ("text", "said", "offset"),
    [
        ("", "must not be empty", None),
        ("value.", "ends too early", 6),
        ("value..a", "does not belong here", 6),
        ("value.a ==", "ends too early", 10),
        ("phone", "a record has value, key, headers, topic, timestamp, attributes; in its value: value.phone", 0),
        ("value.a == true", "in backticks it is no field: `true`", 11),
        ('value.a == "yes"', "text stands in '...', and in double quotes the name of a field", 12),
        ("value.a = 'x'", "equal is written ==", 8),
        ("value.a > 5", "a number stands in backticks", 10),
        ("value.a and value.b", "and, or, not are written &&, ||, !", 8),
        ("not value.a", "and, or, not are written &&, ||, !", 4),
        ("value.phone-number", 'a name with a hyphen stands in double quotes, as in value."e-mail"', 11),
        ("value.a + value.b", "texts are put together by join('', [...])", 8),
        ('value["a"]', "fields stand behind dots, as in value.name", 6),
        ("$.a", "fields stand behind dots, as in value.name", 0),
        ("vlaue.a", "did you mean value?", 0),
        ("value.a && hedaers.b", "did you mean headers?", 11),
        ("contains(value.a)", "gives contains() 1 arguments; it takes 2", 0),
        ("key || length(value.a, value.b)", "gives length() 2 arguments; it takes 1", 7),
        ("merge()", "gives merge() 0 arguments; it takes at least 1", 0),
        ("value[" + "1" * 5_000 + "]", "is not a JMESPath expression: Exceeds the limit", None),
        ("value.x || lenght(value.a)", "did you mean length()?", 11),
        ("+18005551234", "is not a JMESPath expression", 0),
        ("(" * 4_000 + "value" + ")" * 4_000, "nested too deeply", None),
        ("||".join(["value.a"] * 900), "nested too deeply", None),
        ("value." + "a" * 10_001, "more than 10,000 characters", None),
        ("value['a", "is not a JMESPath expression", 6),
    ],
)
def test_what_cannot_be_compiled_says_why_and_where(text: str, said: str, offset: int | None) -> None:
    with pytest.raises(InvalidSourceError) as caught:
        compile_expression(text)

    assert said in str(caught.value)
    assert caught.value.offset == offset


@pytest.mark.parametrize(
    ("text", "roots"),
    [
        ("value.a.b", {"value"}),
        ("value.topic", {"value"}),
        ("value.a == headers.b", {"value", "headers"}),
        ("value.list[?a == topic].b", {"value"}),
        ("join(',', [key, value.a])", {"key", "value"}),
        ("{a: topic, b: value.x}", {"topic", "value"}),
        ("`1`", set()),
        ("@.value", {"value", "key", "headers", "topic", "timestamp", "attributes"}),
        ("value | key", {"value"}),
    ],
)
def test_an_expression_knows_what_it_looks_at(text: str, roots: set[str]) -> None:
    assert compile_expression(text).roots == roots


def test_a_function_of_any_number_of_arguments_takes_them() -> None:
    found = compile_expression("not_null(value.a, value.b, value.c)").evaluate({"value": {"c": 1}})

    assert found == 1


def test_text_in_backticks_is_refused_whatever_is_done_with_warnings() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(InvalidSourceError, match="write text as") as caught:
            compile_expression("value.a == `yes`")

    assert caught.value.offset == 11


def test_an_expression_without_a_result_says_so_and_quotes_nothing_of_the_record() -> None:
    expression = compile_expression("starts_with(value.phone, 'x')")

    with pytest.raises(EvaluationError) as caught:
        expression.evaluate({"value": {"phone": 15551234567}})

    assert str(caught.value) == "starts_with() takes string, not number"


@pytest.mark.parametrize("text", ["value.a > `5`", "value.all[?p > `5`]", "contains(value.a, `5`)"])
def test_text_that_is_compared_with_a_number_is_reported_as_such_in_any_expression(text: str) -> None:
    """As where a price is written in quotes."""
    with pytest.raises(EvaluationError, match=r"compares text with a number.*to_number\(\)"):
        compile_expression(text).evaluate({"value": {"a": "9.50", "all": [{"p": "9.50"}]}})


@pytest.mark.parametrize(
    "text",
    ["value.a == value.b", "value.a != value.b", "value.a == value.b && value.a", "not_null(value.a == value.b)"],
)
def test_values_that_are_too_deep_to_be_compared_have_no_result(text: str) -> None:
    """An exception that nobody expects would end the stream, at each start again."""
    left, right = (_nested(100_000) for _ in range(2))  # Python 3.13 compares some ten thousand levels

    with pytest.raises(EvaluationError, match="nested too deeply"):
        compile_expression(text).evaluate({"value": {"a": left, "b": right}})


def _nested(levels: int) -> list[Any]:
    found: list[Any] = []
    for _ in range(levels):
        found = [found]
    return found
