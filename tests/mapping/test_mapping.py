"""A mapping makes, column by column, what JMESPath and Jinja make of each record alone."""

import json
from typing import Any, Final

import jmespath
import msgspec
import pytest
from hypothesis import given
from hypothesis import settings as tries
from hypothesis import strategies as st
from jmespath.exceptions import JMESPathError

from connector.core.chunks import Chunk, Headers, Partition
from connector.mapping.columns import Columns
from connector.mapping.expressions import EvaluationError
from connector.mapping.mapping import Flaw, InvalidMappingError, compile_mapping
from connector.mapping.templates import compile_template

FAILS: Final[Any] = object()


def columns(
    *values: Any, headers: list[Headers | None] | None = None, keys: list[bytes | None] | None = None
) -> Columns:
    raw = [json.dumps(value).encode() for value in values]
    chunk = Chunk(Partition("orders", 0), 1, range(len(raw)), raw, keys=keys, headers=headers)
    return Columns(chunk, list(values), topic="orders")


def mapped(fields: dict[str, Any], *values: Any) -> list[Any]:
    """Return the events of values as JSON reads them; FAILS where there is none."""
    failures: dict[int, str] = {}
    events, _ = compile_mapping(fields=fields).events(columns(*values), failures)
    return [
        FAILS if index in failures else msgspec.json.decode(msgspec.json.encode(event))
        for index, event in enumerate(events)
    ]


ODD = st.sampled_from(
    [
        0.0,
        -0.0,
        1.0,
        5e-324,
        1e308,
        2**53 + 1,
        2**63,
        2**64,
        -(2**63) - 1,
        10**30,
        "",
        "0",
        "1",
        "true",
        "null",
        "é",
        "😀",
    ]
)
NAMES = st.sampled_from(["a", "b", "f0", "é", "", "a b"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2) | ODD,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=8,
)


def quoted(name: str) -> str:
    return json.dumps(name, ensure_ascii=False)


PATHS = st.lists(NAMES, max_size=3).map(lambda names: ".".join(["value", *map(quoted, names)]))
LITERALS = JSON.map(lambda value: f"`{json.dumps(value)}`") | st.sampled_from(["''", "'1'", "'true'"])
EXPRESSIONS = st.recursive(
    PATHS | PATHS | LITERALS | PATHS.map(lambda path: f"{path}[0]") | PATHS.map(lambda path: f"{path}[-1].a"),
    lambda inner: (
        st.tuples(inner, st.sampled_from(["==", "!=", "<", ">=", "&&", "||"]), inner).map(
            lambda parts: f"({' '.join(parts)})"
        )
        | st.tuples(st.sampled_from(["!({})", "not_null({})", "to_number({})", "({}).b"]), inner).map(
            lambda parts: parts[0].format(parts[1])
        )
    ),
    max_leaves=4,
)


@given(st.lists(EXPRESSIONS, min_size=1, max_size=3), st.lists(JSON, min_size=1, max_size=4))
def test_each_field_is_what_jmespath_finds_in_the_record_and_null_is_left_out(
    texts: list[str], values: list[Any]
) -> None:
    def expected(value: Any) -> Any:
        try:
            found = {text: jmespath.search(text, {"value": value}) for text in texts}
        except (JMESPathError, TypeError, ValueError, ArithmeticError):
            return FAILS
        there = {text: result for text, result in found.items() if result is not None}
        return msgspec.json.decode(msgspec.json.encode({"metadata": there} if there else {}))

    found = mapped({"metadata": {text: text for text in texts}}, *values)

    # As text, since Python takes 1 for true and for 1.0.
    assert list(map(repr, found)) == [repr(expected(value)) for value in values]


PRINTED = st.sampled_from(
    [
        "{{ value.a }}",
        "{{ value.b.a }}",
        "{{ value.a | default('x') }}",
        "{{ value.b.a | default }}",
        "{{ value.a | default(1.50) }}",
        "{{ value.b | default(0) | default('y') }}",
        "{{ value.f0.a.b | default(value.a) }}",
        "{{ key }}",
        "{{ headers.h }}",
        "{{ topic }}",
        "100% {} \n",
        "{# nothing #}",
    ]
)


@tries(deadline=None)
@given(st.lists(PRINTED, max_size=4).map("".join), st.lists(JSON, min_size=1, max_size=4))
def test_fields_that_are_printed_column_by_column_are_printed_as_jinja_does(text: str, values: list[Any]) -> None:
    keys = [b"k", None, b"\xff", b""][: len(values)]
    headers: list[Headers | None] = [[("h", b"1")], None, [("h", None)], [("h", b"1"), ("h", b"2")]]
    records = columns(*values, keys=keys, headers=headers[: len(values)])
    # What sets a variable is left to Jinja.
    template = compile_template("{% set x = 1 %}" + text)
    scopes = records.scopes(frozenset({"value", "key", "headers", "topic"}))

    def rendered(scope: Any) -> Any:
        try:
            return template.evaluate(scope)
        except EvaluationError as error:
            return str(error)

    failures: dict[int, str] = {}
    events, _ = compile_mapping(fields={"body": {"template": text}}).events(records, failures)
    found = [
        failures[index].removeprefix("mapping.fields.body: ")
        if index in failures
        else msgspec.json.decode(msgspec.json.encode(event))["body"]
        for index, event in enumerate(events)
    ]

    assert template.pieces == ()
    assert found == list(map(rendered, scopes))


def test_an_object_without_members_is_left_out_and_one_with_some_is_not() -> None:
    fields = {"a": {"x": "value.x", "y": {"z": "value.z"}}, "b": {"c": {"const": 1}}}

    assert mapped(fields, {"x": 1}, {"z": 2}, {}) == [
        {"a": {"x": 1}, "b": {"c": 1}},
        {"a": {"y": {"z": 2}}, "b": {"c": 1}},
        {"b": {"c": 1}},
    ]
    assert mapped({"a": {"x": "value.x"}}, {}, {"x": None}, {"x": False}, {"x": 0}) == [
        {},
        {},
        {"a": {"x": False}},
        {"a": {"x": 0}},
    ]


@pytest.mark.parametrize(
    ("found", "key"),
    [(7, "7"), ("7", "7"), (True, "true"), (False, "false"), (1.5, "1.5"), (10**30, str(10**30))],
)
def test_a_table_has_text_for_any_plain_value(found: Any, key: str) -> None:
    chosen = {"table": {key: "+18005550001", "None": "+18005550003"}, "by": "value.by", "default": "+18005550002"}
    mapping = compile_mapping(fields={}, list_number=chosen)
    events, _ = mapping.events(columns({"by": found}, {"by": None}, {"by": [7]}, {"by": {}}, {}), {})

    assert [event["list_number"] for event in events] == ["+18005550001", *["+18005550002"] * 4]


def test_an_event_for_which_no_list_is_chosen_is_the_value_itself() -> None:
    values = [{"a": 1}, {"by": "us"}, ["x"], 7]
    failures: dict[int, str] = {}
    events, fields = compile_mapping(fields={}, list_number="value.by").events(columns(*values), failures)

    assert (events, fields, failures) == ([{"a": 1}, {"by": "us", "list_number": "us"}, ["x"], 7], {}, {})
    assert events[0] is values[0]


def test_a_list_may_be_a_field_among_others() -> None:
    assert mapped({"list_number": "value.a", "to": "key"}, {"a": "+1"}) == [{"list_number": "+1"}]


@pytest.mark.parametrize(
    "text", ["{{ value.a }}{{ value.b | default('') }}", "{{ value.a ~ (value.b | default('')) }}"]
)
def test_a_text_has_a_maximum_length(text: str) -> None:
    longest = "a" * 20_000
    fields = {"body": {"template": text}}

    assert mapped(fields, {"a": longest}, {"a": longest, "b": "b"}, {"a": "a"}) == [
        {"body": longest},
        FAILS,
        {"body": "a"},
    ]


def test_a_condition_that_is_evaluated_record_by_record_passes_the_same_records() -> None:
    values = [{"a": a} for a in (None, False, True, "", "x", 0, 1, [], [0], {}, {"b": None})]
    passing = [2, 4, 5, 6, 8, 10]

    for when in ("value.a", "value.a || value.a", "value.a && value.a"):
        assert compile_mapping(fields={}, when=when).passing(columns(*values), {}) == passing
        assert compile_mapping(fields={}, when=when).passing(columns(*[values[2]] * 2), {}) is None


@pytest.mark.parametrize(
    "when",
    [
        "!value.a && value.b",
        "value.b && !value.a",
        "value.a == 'x' && value.b",
        "value.a == 'x' && value.b == 'y'",
        "value.a == 'x' || value.b",
        "value.a != 'x'",
        "'x' == value.a",
        "value.a == value.b",
        "value.a == `1` && value.b",
        "value.a && value.b && topic == 'orders'",
        "value.a && topic == 'carts'",
        "value.a[0]",
    ],
)
def test_a_condition_passes_what_jmespath_says(when: str) -> None:
    """Some are counted in whole columns, others are evaluated record by record."""
    some: tuple[Any, ...] = (None, False, True, "", "x", "y", 0, 1, [], ["x"])
    values = [{"a": a, "b": b} for a in some for b in some] + [{}, {"a": "x"}]
    wanted = [
        index
        for index, value in enumerate(values)
        if jmespath.search(f"!(!({when}))", {"value": value, "topic": "orders"})
    ]

    assert compile_mapping(fields={}, when=when).passing(columns(*values), {}) == wanted


def test_a_default_stands_for_null_alone() -> None:
    fields = {"a": {"from": "value.a", "default": 5}, "b": {"from": "value.b || value.c"}}

    assert mapped(fields, {"a": None, "b": 1}, {}, {"a": 0, "c": 2}, {"a": False, "b": ""}) == [
        {"a": 5, "b": 1},
        {"a": 5},
        {"a": 0, "b": 2},
        {"a": False},
    ]


def test_a_value_is_a_constant_whatever_it_looks_like() -> None:
    fields: dict[str, Any] = {"a": 5, "b": True, "c": 1.5, "d": {"const": "value.a"}, "e": {"const": {"x": None}}}

    assert mapped(fields, {"a": 1}) == [{"a": 5, "b": True, "c": 1.5, "d": "value.a", "e": {"x": None}}]


def test_a_group_of_fields_may_have_names_that_mean_something() -> None:
    fields = {"a": {"fields": {"template": "value.x", "const": {"const": 1}, "from": {"fields": {"default": "key"}}}}}

    assert mapped(fields, {"x": 2}) == [{"a": {"template": 2, "const": 1}}]


@pytest.mark.parametrize(
    ("spec", "path", "said"),
    [
        ({}, ("a",), "must be an expression, a number"),
        (None, ("a",), "must be an expression, a number"),
        (["value.a"], ("a",), "must be an expression, a number"),
        ({"fields": {}}, ("a", "fields"), "must be a group of fields"),
        ({"fields": "value.a"}, ("a", "fields"), "must be a group of fields"),
        ({"from": 5}, ("a", "from"), "must be an expression"),
        ({"template": 5}, ("a", "template"), "must be text"),
        ({"default": 5}, ("a",), "has only a default; add an expression as from:"),
        ({"form": "value.a", "default": 5}, ("a",), "did you mean from?"),
        ({"const": 1, "b": "value.b"}, ("a",), "fields with such names go under fields:"),
        ("Hi {{ value.a }}", ("a",), "text with {{ }} in it is written {template: ...}"),
        ("hello there", ("a",), "text that stands for itself is written {const: ...}"),
        ({"b": {"c": "value."}}, ("a", "b", "c"), "ends too early"),
    ],
)
def test_a_field_that_cannot_be_compiled_is_named_with_the_way_out(spec: Any, path: tuple[str, ...], said: str) -> None:
    with pytest.raises(InvalidMappingError) as caught:
        compile_mapping(fields={"a": spec, "good": "value.a"}, when="value.", list_number={"table": {}, "by": "value"})

    where = [flaw.path for flaw in caught.value.flaws]
    assert where == [("when",), ("list_number", "table"), ("fields", *path)]
    [flaw] = [flaw for flaw in caught.value.flaws if flaw.path[0] == "fields"]
    assert said in flaw.message
    assert f"{'.'.join(map(str, flaw.path))}: {flaw.message}" in str(caught.value)


@pytest.mark.parametrize(
    ("chosen", "flaw"),
    [
        (
            {"table": {"a": 5}, "by": "value"},
            Flaw(("list_number", "table"), 'must map the results of `by` to lists, such as {US: "+18005551234"}'),
        ),
        (
            {"table": {"a": "+1"}, "by": "value", "default": 5},
            Flaw(("list_number", "default"), "must be text: put it in quotes"),
        ),
        ({"table": {"a": "+1"}}, Flaw(("list_number", "by"), "must be an expression")),
        (
            {"table": {"a": "+1"}, "by": "value", "defualt": "+1"},
            Flaw(("list_number", "defualt"), "is not a setting; known here: table, by, default"),
        ),
    ],
)
def test_a_table_of_lists_that_cannot_be_compiled_is_named(chosen: Any, flaw: Flaw) -> None:
    with pytest.raises(InvalidMappingError) as caught:
        compile_mapping(fields={}, list_number=chosen)

    assert caught.value.flaws == (flaw,)


@pytest.mark.parametrize(
    ("settings", "roots", "looked_at"),
    [
        (
            {"fields": {"a": "value.x.y", "b": {"template": "{{ key }}"}}},
            {"value", "key"},
            {("value", "x", "y"), ("key",)},
        ),
        ({"fields": {"a": {"const": 1}}}, set(), set()),
        (
            {"fields": {"a": "value.x"}, "when": "headers.h == '1'"},
            {"value", "headers"},
            {("value", "x"), ("headers", "h")},
        ),
        ({"fields": {"a": "value.x"}, "when": "!topic"}, {"value", "topic"}, None),
        ({"fields": {"a": "value.x || key"}}, {"value", "key"}, None),
        ({"fields": {"a": {"template": "{{ value.x | upper }}"}}}, {"value"}, None),
        ({"fields": {}, "list_number": "headers.list"}, {"headers"}, None),
        ({"fields": {"a": "key"}, "list_number": "value.list"}, {"key", "value"}, {("key",), ("value", "list")}),
        ({"fields": {}, "when": "timestamp"}, {"timestamp"}, {("timestamp",)}),
    ],
)
def test_a_mapping_knows_what_it_uses(settings: Any, roots: Any, looked_at: Any) -> None:
    """By that it is decided what of a record is decoded, and whether timestamps are read."""
    mapping = compile_mapping(**settings)

    assert (mapping.roots, mapping.fields) == (roots, looked_at)


def test_each_field_that_uses_attributes_is_known() -> None:
    fields: dict[str, Any] = {
        "a": {"from": "attributes.id", "default": 1},
        "b": {"template": "{{ attributes.x }}"},
        "c": "@.value",
    }
    mapping = compile_mapping(
        fields=fields, when="attributes", list_number={"table": {"a": "+1"}, "by": "attributes.y"}
    )

    assert mapping.attributes == (
        ("when",),
        ("list_number", "by"),
        ("fields", "a", "from"),
        ("fields", "b", "template"),
    )
    assert mapping.sources == {
        "list_number": "table by attributes.y",
        "a": "attributes.id, else 1",
        "b": "template {{ attributes.x }}",
        "c": "@.value",
    }
