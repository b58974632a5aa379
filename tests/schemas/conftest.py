"""The published formats, their examples, and which endpoint takes which event."""

import json
from pathlib import Path
from typing import Any, Final

import jsonschema

from connector.trackly.endpoints import ENDPOINTS
from connector.trackly.operations import Operation, Rules

SCHEMAS: Final = Path(__file__).resolve().parents[2] / "schemas"
EXAMPLES: Final = SCHEMAS / "examples"

EVENTS: Final = {
    "event.send.v1": "send",
    "event.contacts.v1": "contacts",
    "event.revenue.v1": "revenue",
    "event.history-sends.v1": "history.sends",
    "event.history-clicks.v1": "history.clicks",
    "event.history-revenue.v1": "history.revenue",
}
RESULTS: Final = ("outcome.v1", "dead-letter-headers.v1")
PUBLISHED: Final = (*EVENTS, *RESULTS)

LIST_NUMBER: Final = "+18005551234"


def schema(name: str) -> dict[str, Any]:
    """Return a published schema."""
    found: dict[str, Any] = json.loads((SCHEMAS / f"{name}.schema.json").read_text())
    return found


def validator(name: str) -> jsonschema.Draft202012Validator:
    """Return a validator of a published schema."""
    return jsonschema.Draft202012Validator(schema(name))


def examples(name: str) -> list[Any]:
    """Return the examples that stand beside the schemas: one JSON document a line."""
    return _documents(EXAMPLES / f"{name}.ndjson")


def counterexamples(name: str) -> list[Any]:
    """Return the documents that the schema must refuse; those of events come with the reason of their dead letter."""
    if name in EVENTS:
        wrong: list[Any] = json.loads((EXAMPLES / "invalid" / f"{name}.json").read_text())
        return wrong
    return _documents(EXAMPLES / "invalid" / f"{name}.ndjson")


def operation(name: str) -> Operation:
    """Return the operation of a stream that reads these events and has a list of its own where one is needed."""
    endpoint = ENDPOINTS[EVENTS[name]]
    rules = Rules(list_number=LIST_NUMBER if endpoint.takes_list else None, journeys=EVENTS[name] != "contacts")
    return Operation(EVENTS[name], rules)


def _documents(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text().splitlines()]
