"""Every published schema is one, says what its fields mean, and has examples for both answers."""

from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest

from connector.config.schemas import read_schema, schema_names
from tests.schemas.conftest import EVENTS, EXAMPLES, PUBLISHED, SCHEMAS, counterexamples, examples, schema, validator


def _fields(node: dict[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    for name, field in node.get("properties", {}).items():
        yield f"{path}{name}", field
        yield from _fields(field, f"{path}{name}.")


def test_the_published_schemas_are_those_on_disk() -> None:
    assert schema_names() == sorted((*PUBLISHED, "settings.v1"))


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_schema_is_draft_2020_12_and_named_as_its_file(name: str) -> None:
    found = schema(name)
    kind, version = name.rsplit(".", 1)

    jsonschema.Draft202012Validator.check_schema(found)

    assert found["$schema"] == jsonschema.Draft202012Validator.META_SCHEMA["$id"]
    assert found["$id"] == f"urn:trackly-connector:{kind}:{version}"
    assert read_schema(kind) == found


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_field_says_what_it_means(name: str) -> None:
    found = schema(name)

    assert found["title"]
    assert found["description"]
    assert [path for path, field in _fields(found) if not field.get("description", "").strip()] == []


@pytest.mark.parametrize("name", PUBLISHED)
def test_examples_in_the_schema_and_beside_it_satisfy_it(name: str) -> None:
    inside, beside = schema(name)["examples"], examples(name)
    found = validator(name)

    for example in (*inside, *beside):
        found.validate(example)

    assert inside
    assert beside


@pytest.mark.parametrize("name", PUBLISHED)
def test_examples_show_every_field(name: str) -> None:
    shown = {field for example in examples(name) for field in example}

    assert set(schema(name)["properties"]) - shown == set()


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_schema_refuses_every_counterexample(name: str) -> None:
    wrong = [entry["event"] if name in EVENTS else entry for entry in counterexamples(name)]
    found = validator(name)

    assert wrong
    assert [document for document in wrong if found.is_valid(document)] == []


def test_no_example_is_without_a_schema() -> None:
    files = [*EXAMPLES.glob("*.ndjson"), *(EXAMPLES / "invalid").iterdir()]

    assert {path.name.rsplit(".", 1)[0] for path in files} == set(PUBLISHED)
    assert all((SCHEMAS / f"{path.name.rsplit('.', 1)[0]}.schema.json").is_file() for path in files)
