"""JSON Schema: JSON in a frame, validated with the schema that the frame names.

A schema without `$schema` is read as draft-07, as Confluent's registry and its Java serializers do: in later drafts its
tuples would be invalid, and what accompanies a `$ref` would count.

The validator is compiled once per schema, resolves references only to what the registry returned with the schema, and
stops patterns that would run forever.
"""

import json
from collections.abc import Callable
from typing import Any, Final

import jsonschema_rs

from connector.shaping.formats.schemas import Schema
from connector.shaping.json_values import json_from
from connector.shaping.refusing import UndecodableError

_MASK: Final = "the value"
"""Replaces the value in messages: it may be somebody's number or text."""


def compile_json_schema(schema: Schema) -> Callable[[bytes, int], Any]:
    """Return a function that reads and validates a value from an offset on; raises `UndecodableError`."""

    def referred(uri: str) -> Any:
        # One name may be the end of another, such as `money.json` and `old/money.json`.
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
    """Return what is wrong with a value, and where in it, without the value itself."""
    for error in validator.iter_errors(event):
        where = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in error.instance_path)
        return f"at `value{where}`: {error.message}"
    return "the value is not valid"
