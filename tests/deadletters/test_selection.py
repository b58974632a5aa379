"""Filters select what they say, and bad ones are refused by name."""

import re
from typing import Any

import pytest

from connector.deadletters.selection import (
    NAMES,
    Criteria,
    InvalidFilterError,
    Seen,
    document_of,
    read_position,
    read_time,
)
from tests.deadletters.making import NOW_MS, SETTINGS, headers_of, letter
from tests.deadletters.test_letters import CONNECT

LETTER = letter(
    headers=[*headers_of("provider_error", status=503, offset=7), ("trackly.redrives", b"2")],
    value=b'{"to":"+15550000001","body":"Hello","contact_data":{"age":0}}',
    at=41,
)


def _named(value: object) -> str:
    """Return the same name in every process that shares the tests: the order of a set is not."""
    if isinstance(value, dict):
        return str({name: sorted(part) if isinstance(part, frozenset) else part for name, part in value.items()})
    return str(value)


@pytest.mark.parametrize(
    ("criteria", "selects"),
    [
        ({}, True),
        ({"reasons": frozenset({"provider_error", "x"})}, True),
        ({"reasons": frozenset({"x"})}, False),
        ({"codes": frozenset({"provider_error"})}, True),
        ({"statuses": frozenset({503})}, True),
        ({"statuses": frozenset({200})}, False),
        ({"source_topics": frozenset({"sms"})}, True),
        ({"source_topics": frozenset({"dead"})}, False),
        ({"list_numbers": frozenset({"+18005551234"})}, True),
        ({"list_numbers": frozenset({"+18005550000"})}, False),
        ({"keys": frozenset({"key"})}, True),
        ({"keys": frozenset({"k"})}, False),
        ({"since_ms": NOW_MS}, True),
        ({"since_ms": NOW_MS + 1}, False),
        ({"until_ms": NOW_MS}, False),
        ({"min_redrives": 2, "max_redrives": 2}, True),
        ({"min_redrives": 3}, False),
        ({"max_redrives": 1}, False),
        ({"positions": frozenset({(None, 0, 41)})}, True),
        ({"positions": frozenset({("dead", 0, 41)})}, True),
        ({"positions": frozenset({("sms", 0, 7)})}, True),
        ({"positions": frozenset({("sms", 0, 41)})}, False),
        ({"where": "value.body=='Hello'"}, True),
        ({"where": "value.contact_data.age"}, True),  # 0 is true in JMESPath
        ({"where": "headers.\"trackly.operation\"=='send' && status==`503`"}, True),
        ({"where": "value.nothing"}, False),
        ({"where": "length(status)"}, False),  # no length: such a record is not meant
        ({"reasons": frozenset({"provider_error"}), "statuses": frozenset({200})}, False),
    ],
    ids=_named,
)
def test_a_filter_selects(criteria: dict[str, Any], selects: bool) -> None:
    with Criteria(**criteria, settings=SETTINGS).judging(Seen()) as (matches, _):
        assert (matches is None or matches(LETTER)) is selects


def test_one_of_kafka_connect_is_found_by_the_class_of_its_exception_and_its_source() -> None:
    criteria = Criteria(reasons=frozenset({"DataException"}), source_topics=frozenset({"orders"}))

    with criteria.judging(Seen()) as (matches, _):
        assert matches is not None
        assert matches(letter(headers=CONNECT))


def test_a_key_that_is_no_text_is_looked_for_by_its_bytes() -> None:
    criteria = Criteria(keys=frozenset({b"\xff1".decode(errors="surrogateescape")}))

    with criteria.judging(Seen()) as (matches, _):
        assert matches is not None
        assert matches(letter(key=b"\xff1"))
        assert not matches(LETTER)


@pytest.mark.parametrize(
    "where",
    [
        "value.body > `5`",
        "contains(value.body, `5`)",
        "value.contact_data.age < value.to",
        "merge(value, `null`)",
        "keys(value)[::0]",
        "ceil(to_number('inf'))",
    ],
)
def test_a_dead_letter_that_an_expression_has_no_result_for_is_counted_and_not_meant(where: str) -> None:
    seen = Seen()

    with Criteria(where=where).judging(seen) as (matches, _):
        assert matches is not None
        assert not matches(LETTER)
    assert seen.where_failed.total() == 1
    assert "Hello" not in str(seen.where_failed)


@pytest.mark.parametrize("where", ["value.", "[", "nope(value)=="])
def test_what_is_no_jmespath_is_refused(where: str) -> None:
    with pytest.raises(InvalidFilterError, match="--where is not a JMESPath expression"):
        Criteria(where=where)


def test_a_function_that_jmespath_does_not_have_is_refused_before_anything_is_read() -> None:
    with pytest.raises(InvalidFilterError, match=r"--where calls len\(\), which JMESPath does not have"):
        Criteria(where="len(value.body) > `5`")


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("reasn=='provider_error'", "looks at `reasn`, which does not exist; did you mean reason?"),
        ("!(vlaue.body)", "looks at `vlaue`, which does not exist; did you mean value?"),
        (
            "body=='Hello'",
            "looks at `body`, which does not exist; a dead letter has value, headers, key, reason, code, ",
        ),
        ("length(@) > `1` && topic", "looks at `topic`, which does not exist"),
    ],
)
def test_a_name_that_no_dead_letter_has_at_its_top_is_refused_as_it_would_select_none_or_all(
    where: str, said: str
) -> None:
    with pytest.raises(InvalidFilterError, match=re.escape(f"--where {said}")):
        Criteria(where=where)


@pytest.mark.parametrize("where", ["@.reason", "@", "[reason, text][0]", "keys(@)", "*", "[value][?body]", "'x'"])
def test_an_expression_may_take_a_dead_letter_as_a_whole(where: str) -> None:
    with Criteria(where=where).judging(Seen()) as (matches, _):
        assert matches is not None


def test_an_expression_may_look_at_all_that_a_dead_letter_has() -> None:
    assert tuple(document_of(LETTER)) == NAMES


def test_an_expression_that_is_nested_too_deeply_is_refused() -> None:
    with pytest.raises(InvalidFilterError, match="--where is nested too deeply"):
        Criteria(where=f"{'!' * 5_000}value")


def test_times_are_given_as_such_or_as_how_long_ago() -> None:
    assert read_time("--since", "90m", now_ms=NOW_MS) == NOW_MS - 5_400_000
    assert read_time("--since", "2026-01-31T08:00:00Z", now_ms=0) == 1_769_846_400_000
    for bad in ("yesterday", "2026-01-31", "2026-01-31T08:00:00"):
        with pytest.raises(InvalidFilterError, match="--since"):
            read_time("--since", bad, now_ms=0)
    with pytest.raises(InvalidFilterError, match="--until must be later"):
        Criteria(since_ms=5, until_ms=5)


@pytest.mark.parametrize(("text", "position"), [("3:7", (None, 3, 7)), ("t:3:7", ("t", 3, 7)), ("t[3]:7", ("t", 3, 7))])
def test_a_position_is_a_partition_in_either_spelling_and_an_offset(
    text: str, position: tuple[str | None, int, int]
) -> None:
    assert read_position("--position", text) == position


@pytest.mark.parametrize("bad", ["", "7", "a:b:c", "t:0:-1", "t:0:1:2", "0:x", "[3]:7", "t[3]", ":0:1"])
def test_what_is_no_position_is_refused(bad: str) -> None:
    with pytest.raises(InvalidFilterError, match="--position should be"):
        read_position("--position", bad)
