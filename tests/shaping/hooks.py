"""Functions that streams of these tests name."""

import json
import os
import sys
from pathlib import Path
from typing import Any

from connector.hooks import SKIP, Failed, Records


def text(records: Records) -> list[Any]:
    """Text everybody but a few."""
    return [_text(value) for value in records.values]


def _text(value: dict[str, Any]) -> Any:
    match value["name"]:
        case "test":
            return SKIP
        case "nobody":
            return Failed("nobody is texted")
        case None:
            return Failed("raised TypeError")
        case name:
            return {"to": value["phone"], "body": f"Hi {name}"}


def fails(records: Records) -> list[Any]:
    """Raise."""
    raise RuntimeError(records.values[0]["phone"])


def fails_below(records: Records) -> list[Any]:
    """Raise, one call further down."""
    return fails(records)


def leaves(_records: Records) -> list[Any]:
    """End, as a script does."""
    sys.exit(0)


def asks_json(records: Records) -> list[Any]:
    """Have a library raise."""
    return [json.loads(value["phone"]) for value in records.values]


def too_few(records: Records) -> list[Any]:
    """Forget all but one."""
    return list(records.values[:1])


def nothing(_records: Records) -> None:
    """Return nothing."""


def odd(_records: Records) -> list[Any]:
    """Return what is no JSON, and what is no event."""
    return [{"a": object()}, ["a"]]


def asks(records: Records) -> list[Any]:
    """Need a file that an environment variable names, as a function may need a service that is away."""
    Path(os.environ["TEST_HOOK_FILE"]).read_text()
    return text(records)
