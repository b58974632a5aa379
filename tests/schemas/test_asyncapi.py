"""The AsyncAPI document names what is published, and every reference in it leads somewhere."""

from collections.abc import Iterator
from functools import reduce
from pathlib import PurePosixPath
from typing import Any, get_args

import pytest
import yaml

from connector.config.streams import Operation
from tests.schemas.conftest import PUBLISHED, SCHEMAS


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((SCHEMAS / "asyncapi.yaml").read_text())
    return found


def _references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        for key, value in node.items():
            if key == "$ref":
                yield value
            else:
                yield from _references(value)
    elif isinstance(node, list):
        for item in node:
            yield from _references(item)


def _follow(document: dict[str, Any], reference: str) -> Any:
    return reduce(lambda node, part: node[part], reference.removeprefix("#/").split("/"), document)


def test_references_inside_lead_somewhere(document: dict[str, Any]) -> None:
    inside = [reference for reference in _references(document) if reference.startswith("#/")]

    assert inside
    for reference in inside:
        assert _follow(document, reference)


def test_it_refers_to_every_published_schema_and_to_no_other_file(document: dict[str, Any]) -> None:
    outside = {reference for reference in _references(document) if not reference.startswith("#/")}

    assert outside == {f"./{name}.schema.json" for name in PUBLISHED}
    assert all((SCHEMAS / PurePosixPath(reference)).is_file() for reference in outside)


def test_every_message_of_the_components_is_in_a_channel_and_in_no_other_form(document: dict[str, Any]) -> None:
    used = {
        message["$ref"].rpartition("/")[2]
        for channel in document["channels"].values()
        for message in channel["messages"].values()
    }

    assert used == set(document["components"]["messages"])


def test_the_connector_receives_events_of_every_operation_and_sends_results(document: dict[str, Any]) -> None:
    directions: dict[str, set[str]] = {"receive": set(), "send": set()}
    for operation in document["operations"].values():
        directions[operation["action"]].add(operation["channel"]["$ref"].rpartition("/")[2])

    assert directions["receive"] == {"redrive", *("sends" if name == "send" else name for name in get_args(Operation))}
    assert directions["send"] == {"outcomes", "deadLetters", "redrive", "parking"}


def test_every_parameter_of_an_address_is_described(document: dict[str, Any]) -> None:
    for channel in document["channels"].values():
        named = {part.partition("}")[0] for part in channel["address"].split("{")[1:]}

        assert named == set(channel["parameters"])
