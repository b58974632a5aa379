"""Filters of templates: what each returns, at the limits too, and that no value makes one fail in another way."""

import math
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as tries
from hypothesis import strategies as st
from jinja2 import Undefined

from connector.mapping.expressions import EvaluationError
from connector.mapping.filters import FILTERS, FilterError, default, join, replace, rounded, truncate
from connector.mapping.limits import MAX_CHARACTERS, STEPS
from connector.mapping.templates import compile_template


@pytest.mark.parametrize(
    ("value", "plain", "boolean"),
    [
        (None, "x", "x"),
        (Undefined(), "x", "x"),
        ("", "", "x"),
        (0, 0, "x"),
        (False, False, "x"),
        ("a", "a", "a"),
        (1, 1, 1),
    ],
)
def test_a_default_is_for_null_and_with_true_for_what_is_empty_as_well(value: Any, plain: Any, boolean: Any) -> None:
    assert (default(value, "x"), default(value, "x", boolean=True)) == (plain, boolean)
    assert default(None) == ""


@given(st.text(max_size=20), st.text(min_size=1, max_size=2), st.text(max_size=3))
def test_replace_is_that_of_texts(text: str, old: str, new: str) -> None:
    assert replace(text, old, new) == text.replace(old, new)


@given(st.lists(st.text(max_size=3) | st.integers(), max_size=5), st.text(max_size=2))
def test_join_is_that_of_texts_and_numbers(items: list[Any], between: str) -> None:
    assert join(items, between) == between.join(map(str, items))
    assert join(tuple(items)) == "".join(map(str, items))


def test_what_replace_and_join_make_has_a_maximum_size() -> None:
    half = MAX_CHARACTERS // 2
    assert len(replace("a" * half, "a", "bb")) == MAX_CHARACTERS
    assert len(join(["a" * (half - 1), "b" * half], "-")) == MAX_CHARACTERS
    assert len(join([1] * STEPS)) == STEPS
    with pytest.raises(FilterError, match="replace gives more than 20,000 characters"):
        replace("a" * half + "c", "a", "bb")
    with pytest.raises(FilterError, match="join gives more than 20,000 characters"):
        join(["a" * half, "b" * half], "-")
    with pytest.raises(FilterError, match="join gives more than 20,000 characters"):
        join([""] * (STEPS + 1))


@given(st.text(max_size=30), st.integers(0, 40), st.text(max_size=3))
def test_truncate_returns_the_beginning_and_no_more_than_it_was_told(text: str, length: int, end: str) -> None:
    if length < len(end):
        with pytest.raises(FilterError, match="not below that of its end"):
            truncate(text, length, end)
        return
    found = truncate(text, length, end)

    assert len(found) <= length
    assert found == text if len(text) <= length else found.endswith(end)
    assert text.startswith(found.removesuffix(end)) or found == text


@pytest.mark.parametrize(
    ("value", "digits", "expected"), [(2.5, 0, 2), (3.5, 0, 4), (2.345, 2, 2.35), (7, 3, 7), (1e300, 10, 1e300)]
)
def test_round_rounds_as_python_does_and_to_an_integer_without_digits(value: Any, digits: int, expected: Any) -> None:
    found = rounded(value, digits)

    assert (found, type(found)) == (expected, type(expected))


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{{ 1 | currency(value.none) }}", "currency needs a code such as USD"),
        ("{{ 1 | currency('usd') }}", "currency does not know the code"),
        ("{{ true | currency('USD') }}", "currency takes a number, not a bool"),
        ("{{ value.none | number }}", "number takes a number, not null"),
        ("{{ ('1' * 1) | number }}", "takes numbers"),
        ("{{ '1e21' | number }}", "of a size that people write"),
        ("{{ '1e-21' | number }}", "of a size that people write"),
        ("{{ 'nan' | number }}", "of a size that people write"),
        ("{{ value.digits | number }}", "number takes a number, not a str"),
        ("{{ '12,50' | number }}", "number takes a number, and this text is none"),
        ("{{ 1 | round(-1) }}", "round takes 0 to 10 digits"),
        ("{{ 1 | round(11) }}", "round takes 0 to 10 digits"),
        ("{{ 1 | round(true) }}", "round takes 0 to 10 digits"),
        ("{{ true | round }}", "round takes a number, not a bool"),
        ("{{ '1' | round }}", "round takes a number, not a str"),
        ("{{ 'a' | truncate(true, '') }}", "truncate takes a number of characters"),
        ("{{ 'a' | truncate('5') }}", "truncate takes a number of characters"),
        ("{{ 'a' | truncate_segments('1') }}", "from 1 to 255"),
        ("{{ 1 | round('1') }}", "round takes 0 to 10 digits"),
        ("{{ '2026-1-31T' | date }}", "date takes ISO 8601 text"),
        ("{{ 'a' | truncate(2) }}", "truncate takes a number of characters"),
        ("{{ 'a' | truncate_segments(256) }}", "from 1 to 255"),
        ("{{ 'a' | truncate_segments(true) }}", "from 1 to 255"),
        ("{{ 'a' | join }}", "join takes a list"),
        ("{{ [value.none] | join }}", "join takes text, not null"),
        ("{{ true | date }}", "not a bool"),
        ("{{ value.none | time }}", "not null"),
        ("{{ 0 | date('UTC', '') }}", "a style is short, medium, long, full or a pattern"),
        ("{{ 0 | date('UTC', value.digits) }}", "a style is short, medium, long, full or a pattern"),
        ("{{ 0 | date('UTC', 7) }}", "a style is short, medium, long, full or a pattern"),
        ("{{ 0 | datetime('../etc') }}", "no such zone"),
        ("{{ 0 | datetime(7) }}", "no such zone"),
        ("{{ 0 | date('UTC', 'short', 'xx_YY') }}", "no such locale"),
    ],
)
def test_a_filter_that_cannot_do_what_it_is_asked_says_what_it_takes(template: str, said: str) -> None:
    with pytest.raises(EvaluationError) as caught:
        compile_template(template).evaluate({"value": {"none": None, "digits": "1" * 101}})

    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{{ '9e20' | number('de') }}", "900.000.000.000.000.000.000"),
        ("{{ '0.10' | currency('USD') }} {{ value.hundred | number }}", "$0.10 1"),
        ("{{ 99999999999 | date }} {{ 100000000000 | date }}", "Nov 16, 5138 Mar 3, 1973"),
        ("{{ -1 | datetime('UTC', 'yyyy-MM-dd HH:mm:ss') }}", "1969-12-31 23:59:59"),
        ("{{ '2026-01-31T23:30:00-05:00' | date('UTC', 'short') }}", "2/1/26"),
        ("{{ '2026-01-31T23:30:00' | date('Asia/Tokyo', 'short') }}", "2/1/26"),
        ("{{ '20260131' | date('UTC', 'long') }}", "January 31, 2026"),
        ("{{ 'a' | truncate_segments(255) }} {{ 'abcd' | truncate(3) }} {{ 'ab d' | truncate(4) }}", "a ... ab d"),
        ("{{ 5.50 | number | lower }} {{ 1.5 | round | upper }}", "5.5 2"),
    ],
)
def test_what_a_filter_returns(template: str, text: str) -> None:
    value = {"hundred": "0" * 99 + "1"}

    assert compile_template(template).evaluate({"value": value}) == text


def test_a_moment_of_a_transform_and_a_decimal_are_taken_as_they_are() -> None:
    value = {"at": datetime(2026, 1, 31, 8, tzinfo=UTC), "price": Decimal("12.50")}
    template = "{{ value.at | time('Asia/Tokyo', 'HH:mm') }} {{ value.price | currency('EUR', 'de_DE') }}"

    assert compile_template(template).evaluate({"value": value}) == "17:00 12,50 €"


ANYTHING: Any = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(
        ["nan", "1e400", "2026-01-31", "9999-12-31T23:59:59-12:00", "24:00", "UTC", "America", "de", "USD", 10**400]
    )
    | st.lists(st.integers(), max_size=2)
    | st.dictionaries(st.text(max_size=1), st.integers(), max_size=1)
)
USES = {
    name: compile_template(f"{{{{ value.a | {name}{arguments} }}}}")
    for name in (*FILTERS, "abs", "first", "float", "int", "last", "length")
    for arguments in ("(value.b, value.c)" if name == "replace" else "(value.b)" if name == "currency" else "",)
}
ARGUED = {
    name: compile_template(f"{{{{ value.a | {name}(value.b, value.c) }}}}")
    for name in ("currency", "date", "datetime", "default", "time", "truncate", "truncate_segments")
}


@tries(deadline=None)
@given(st.sampled_from([*USES.values(), *ARGUED.values()]), ANYTHING, ANYTHING, ANYTHING)
def test_a_filter_gives_a_text_or_says_why_not_for_any_value(template: Any, a: Any, b: Any, c: Any) -> None:
    """An exception that nobody expects would end the stream, at each start again."""
    try:
        text = template.evaluate({"value": {"a": a, "b": b, "c": c}})
    except EvaluationError:
        return

    assert isinstance(text, str)
    assert text not in {"nan", "inf", "-inf", "None"} or text in {a, b, c}
    assert not isinstance(a, float) or math.isfinite(a) or "default" in template.text or text in {"true", "false"}
