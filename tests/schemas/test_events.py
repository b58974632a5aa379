"""Schemas and code take the same events: field by field, and example by example, down to the platform's answer."""

import json
import types
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import httpx
import msgspec
import pytest
from msgspec import UNSET, UnsetType

from connector.core.chunks import Chunk, Partition
from connector.core.verdicts import Verdict
from connector.simulator import SimulatorThread
from connector.trackly.endpoints import ENDPOINTS
from connector.trackly.operations import Operation
from tests.kit.local import NO_TLS
from tests.schemas.conftest import EVENTS, LIST_NUMBER, counterexamples, examples, operation, schema

Shape = Any

_PLAIN = {str: "string", bool: "boolean", int: "integer", float: "number"}


def _shape_of_type(kind: Any) -> Shape:
    """Return the JSON that a type takes: a set of type names, the words of an enumeration, or fields by name."""
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return {
            field.encode_name: (field.required, _shape_of_type(field.type)) for field in msgspec.structs.fields(kind)
        }
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _shape_of_type(arguments[0])
    if origin in {types.UnionType, Union}:
        variants = [_shape_of_type(argument) for argument in arguments if argument is not UnsetType]
        if len(variants) == 1:
            return variants[0]
        merged = frozenset().union(*variants)
        return merged - {"integer"} if "number" in merged else merged  # every integer is a number
    if origin is Literal:
        return tuple(sorted(arguments))
    if origin is dict:
        return ("object of", None if arguments[1] is Any else _shape_of_type(arguments[1]))
    return frozenset({_PLAIN[kind]})


def _shape_of_schema(node: Any) -> Shape:
    """Return the same of a JSON Schema, of which null is no type: it is as if there was nothing."""
    if "enum" in node:
        return tuple(sorted(node["enum"]))
    if "properties" in node:
        required = set(node.get("required", ()))
        return {name: (name in required, _shape_of_schema(field)) for name, field in node["properties"].items()}
    kinds = _kinds(node) - {"null"}
    if kinds == {"object"}:
        values = node.get("additionalProperties")
        return ("object of", None if values is None else _shape_of_schema(values))
    return kinds


def _kinds(node: Any) -> frozenset[str]:
    return frozenset([node["type"]] if isinstance(node["type"], str) else node["type"])


def _nullable(node: Any, path: str = "") -> Iterator[tuple[str, bool]]:
    """Yield each field of a schema with whether it may be null."""
    for name, field in node.get("properties", {}).items():
        yield f"{path}{name}", "null" in _kinds(field) if "type" in field else False
        yield from _nullable(field, f"{path}{name}.")


def _prepare(found: Operation, events: list[Any]) -> tuple[Chunk | None, list[Verdict]]:
    """Return the records that may be posted, and the verdicts of the others."""
    values: list[bytes | None] = [json.dumps(event, ensure_ascii=False).encode() for event in events]
    chunk = Chunk(Partition("events", 0), 1, range(len(values)), values)
    prepared = found.prepare(chunk, now_ms=0)
    good = prepared.lanes[0][1] if prepared.lanes else None
    if prepared.settled is None:
        return good, []
    bad, verdicts = prepared.settled
    return good, [verdicts.of(index) for index in range(len(bad))]


def test_every_endpoint_has_a_schema() -> None:
    assert set(EVENTS.values()) == set(ENDPOINTS)


@pytest.mark.parametrize("name", EVENTS)
def test_schema_and_code_have_the_same_fields_of_the_same_types(name: str) -> None:
    event = ENDPOINTS[EVENTS[name]].event

    assert _shape_of_schema(schema(name)) == _shape_of_type(event)


@pytest.mark.parametrize("name", EVENTS)
def test_what_may_be_absent_may_be_null_and_nothing_else(name: str) -> None:
    found = schema(name)
    fields = msgspec.structs.fields(ENDPOINTS[EVENTS[name]].event)

    assert [field.name for field in fields if not field.required and field.default is not UNSET] == []
    assert {path for path, nullable in _nullable(found) if not nullable} == set(found["required"])


@pytest.mark.parametrize("name", EVENTS)
def test_the_connector_posts_every_example_without_what_is_null_in_it(name: str) -> None:
    events = examples(name)
    good, _ = _prepare(operation(name), events)

    assert good is not None
    assert good.wire is not None
    assert any("null" in json.dumps(event) for event in events)
    assert [record for record in good.wire if b"null" in record] == []


@pytest.mark.parametrize("name", EVENTS)
def test_required_strings_that_may_not_be_empty_are_alike(name: str) -> None:
    endpoint = ENDPOINTS[EVENTS[name]]
    properties = schema(name)["properties"]

    not_empty = {field for field, node in properties.items() if node.get("minLength") == 1 and node["type"] == "string"}
    at_least_0 = {field for field, node in properties.items() if node.get("minimum") == 0}

    assert not_empty == set(endpoint.texts)
    assert at_least_0 == set(endpoint.numbers)
    assert {field for field, node in properties.items() if "pattern" in node} - {"list_number"} == set(endpoint.phones)
    assert ("list_number" in properties) == endpoint.takes_list


@pytest.mark.parametrize("name", EVENTS)
def test_the_connector_would_post_every_example(name: str) -> None:
    good, verdicts = _prepare(operation(name), examples(name))

    assert verdicts == []
    assert good is not None
    assert len(good) == len(examples(name))


@pytest.mark.parametrize("name", EVENTS)
def test_the_connector_dead_letters_every_counterexample_for_the_reason_that_stands_beside_it(name: str) -> None:
    wrong = counterexamples(name)

    good, verdicts = _prepare(operation(name), [entry["event"] for entry in wrong])

    assert good is None
    assert [verdict.reason for verdict in verdicts] == [entry["reason"] for entry in wrong]


@pytest.mark.parametrize("name", EVENTS)
def test_the_platform_takes_every_example(name: str, simulator: SimulatorThread) -> None:
    found = operation(name)
    good, _ = _prepare(found, examples(name))
    assert good is not None
    assert good.wire is not None
    body = b'{"%s":[%s]}' % (found.endpoint.array.encode(), b",".join(good.wire))

    answer = httpx.post(
        f"{simulator.url}/{found.path}",
        content=body,
        headers={"Content-Type": "application/json", "X-Api-Key": "trk_0123456789abcdef0123456789abcdef"},
        trust_env=False,
        verify=NO_TLS,
    ).json()

    assert answer["errors"] == []
    assert answer[found.endpoint.accepted_count] == len(examples(name))


def test_an_event_without_a_list_gets_that_of_its_stream() -> None:
    good, _ = _prepare(operation("event.send.v1"), [{"to": "+14155550101", "body": "Hi"}])

    assert good is not None
    assert good.wire is not None
    assert json.loads(good.wire[0]) == {"list_number": LIST_NUMBER, "to": "+14155550101", "body": "Hi"}
