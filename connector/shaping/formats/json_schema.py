"""JSON Schema: JSON in a frame, checked against the schema that the frame names.

A schema that names no draft by `$schema` is read as draft-07, as Confluent's registry and its serializers for Java read
it: by a later one its tuples would be no schema, and what stands beside a `$ref` would count.

The validator is compiled once for each schema, never looks anywhere for what a schema refers to but in what the
registry gave with it, and gives up on patterns that would run for ever.
"""

import json
from collections.abc import Callable
from typing import Any, Final

import jsonschema_rs

from connector.shaping.formats.schemas import Schema
from connector.shaping.json_values import json_from
from connector.shaping.refusing import UndecodableError

_MASK: Final = "the value"
"""Stands for what was found, in messages: it may be anybody's number or text."""


def compile_json_schema(schema: Schema) -> Callable[[bytes, int], Any]:
    """Return what reads a value from a byte on, and checks it; raises `UndecodableError` for an unusable schema."""

    def referred(uri: str) -> Any:
        # One name may be the end of another, as `money.json` of `old/money.json`.
        fitting = [name for name in schema.references if f"/{uri}".endswith(f"/{name}")]
        if not fitting:
            raise ValueError("the registry gave nothing of that name with the schema")
        return json.loads(schema.references[max(fitting, key=len)].text)

    try:
        document = json.loads(schema.text)
        names_draft = isinstance(document, dict) and "$schema" in document
        make = jsonschema_rs.validator_for if names_draft else jsonschema_rs.Draft7Validator
        validator = make(
            document, retriever=referred, mask=_MASK, pattern_options=jsonschema_rs.FancyRegexOptions(10_000)
        )
    except Exception as error:
        text = f"the registry's schema is no valid JSON Schema: {getattr(error, 'message', error)}"
        raise UndecodableError("schema_unusable", text) from error

    def read_from(value: bytes, start: int) -> Any:
        event = json_from(value[start:])
        if not validator.is_valid(event):
            raise UndecodableError("schema_violated", _why(validator, event))
        return event

    return read_from


def _why(validator: Any, event: Any) -> str:
    """Return what is wrong with a value, and where in it, without the value."""
    for error in validator.iter_errors(event):
        where = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in error.instance_path)
        return f"at `value{where}`: {error.message}"
    return "the value is not valid"
