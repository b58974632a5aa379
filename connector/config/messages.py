"""pydantic's errors in our words: what the setting must be and where it is, but never its value."""

import difflib
import re
from collections.abc import Iterator
from typing import Any, Final

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from connector.config.catalogue import catalogue, model_in
from connector.config.kafka import PROPERTY_GROUPS, SERVERS
from connector.config.mapping import FUNCTION
from connector.config.model import E164, TOPIC_NAME
from connector.config.problems import Fault, KeyPath, number
from connector.config.settings import Settings
from connector.config.streams import STREAM_NAME

UNKNOWN: Final = "is not a setting"

PATTERNS: Final = {
    E164: "must be a phone number in E.164 form, such as +18005551234",
    TOPIC_NAME: "must be a topic name: 1 to 249 letters, digits, dots, underscores and hyphens",
    FUNCTION: "must be package.module:function",
    STREAM_NAME: "must be 1 to 100 lower-case letters, digits, dots, underscores and hyphens, a letter or digit first",
    SERVERS: "must be host:port, several separated by commas",
}
KINDS: Final = {
    "missing": "is required",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "int_parsing": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "string_type": "must be text",
    "is_instance_of": "must be text",  # files
    "list_type": "must be a list",
    "tuple_type": "must be a list",
    "dict_type": "must be a group of settings",
    "model_type": "must be a group of settings",
}
_WITH_UNIT: Final = re.compile(r"[-+]?[0-9][0-9.,_]*(?:,[0-9]|\s?[a-z%]+).*", re.IGNORECASE | re.DOTALL)
_LOOKS_RIGHT: Final = re.compile(r"[-+]?[0-9][0-9_]*(?:\.[0-9]*)?|true|false", re.IGNORECASE)


def faults_of(
    error: ValidationError,
    data: Any,
    *,
    referenced: frozenset[KeyPath] = frozenset(),
    model: type[BaseModel] = Settings,
) -> Iterator[Fault]:
    """Yield one fault per place that the model rejected; `referenced` are the texts that come from a reference."""
    seen: set[KeyPath] = set()
    for details in error.errors(include_url=False, include_input=False):
        path = _place(details, data)
        if path in seen:  # each member of a union reports an error; the first is enough
            continue
        seen.add(path)
        if details["type"] == "extra_forbidden":
            yield _unknown(path, model)
        else:
            yield Fault(path, _message(details, path, _at(data, path), model, by_reference=path in referenced))


def _place(details: ErrorDetails, data: Any) -> KeyPath:
    """Return the path of an error in the file, without the names of union members that pydantic adds."""
    path: KeyPath = ()
    for key in details["loc"]:
        exists = key in data if isinstance(data, dict) else isinstance(data, list) and isinstance(key, int)
        if not exists and not (details["type"] == "missing" and isinstance(data, dict)):
            break
        path = (*path, key)
        data = _at(data, (key,))
    return path


def _at(data: Any, path: KeyPath) -> Any:
    for key in path:
        try:
            data = data[key]
        except (KeyError, IndexError, TypeError):
            return None
    return data


def _message(details: ErrorDetails, path: KeyPath, value: Any, model: type[BaseModel], *, by_reference: bool) -> str:
    if len(path) == 3 and path[1] in PROPERTY_GROUPS:
        return "must be text, a number, true or false"
    kind = details["type"]
    if kind not in KINDS:
        return _rule(kind, details.get("ctx", {}))
    message = KINDS[kind]
    if kind == "missing":
        return message
    if value is None and _is_required(path, model):
        return f"is empty, but required ({message})"
    if value is None:
        return f"is empty: leave it out, or say what it is ({message})"
    return message + _way_out(kind, path, value, model, by_reference=by_reference)


def _way_out(kind: str, path: KeyPath, value: Any, model: type[BaseModel], *, by_reference: bool) -> str:
    """Return the advice for a value of a wrong type: what to write instead."""
    match kind, value:
        case "int_type" | "float_type" | "bool_type", str():
            if by_reference:
                return "; a reference brings text and cannot stand here"
            if _LOOKS_RIGHT.fullmatch(value):
                return ", without quotes"
            return ": digits alone, without a unit or commas" if _WITH_UNIT.fullmatch(value) else ""
        case "string_type" | "is_instance_of", list():
            return ", not a list"
        case "string_type" | "is_instance_of", dict():
            return ", not a group of settings"
        case "string_type" | "is_instance_of", _:
            return ": put it in quotes"
        case "list_type", dict():
            return ": put a hyphen before each entry"
        case "list_type", _:
            return ": put it in brackets"
        case "model_type", _:
            return f": {', '.join([*_names_at(path, model)[:3], '...'])}"
        case _:
            return ""


def _rule(kind: str, facts: dict[str, Any]) -> str:
    """Return the rule that a value of the right type breaks."""
    match kind:
        case "value_error":
            return str(facts["error"])
        case "literal_error":
            return f"must be {facts['expected']}"
        case "greater_than":
            return f"must be above {number(facts['gt'])}"
        case "greater_than_equal":
            return f"must be at least {number(facts['ge'])}"
        case "less_than_equal":
            return f"must be at most {number(facts['le'])}"
        case "string_pattern_mismatch":
            return PATTERNS.get(facts["pattern"], f"must match {facts['pattern']}")
        case "string_too_short" | "too_short" if facts["min_length"] == 1:
            return "must not be empty"
        case "too_long":
            return f"must have at most {facts['max_length']} items"
        case "string_too_long":
            return f"must have at most {facts['max_length']} characters"
        case _:
            return f"is not valid ({kind})"


def _unknown(path: KeyPath, model: type[BaseModel]) -> Fault:
    """Return the fault for an unknown setting, with where one of the same or a similar name exists."""
    name = str(path[-1])
    siblings = _names_at(path[:-1], model)
    if near := difflib.get_close_matches(name, siblings, n=1):
        # Rules must not use the default of a setting that was obviously meant to be set.
        return Fault(path, f"{UNKNOWN}; did you mean {near[0]}?", looked_at=((*path[:-1], near[0]),))
    group, dot, inner = name.partition(".")
    if dot and group in siblings:
        return Fault(path, f"{UNKNOWN}; write `{group}:`, and `{inner}:` below it")
    known = catalogue() if model is Settings else ()
    if elsewhere := [entry.path for entry in known if entry.path.rpartition(".")[2] == name]:
        return Fault(path, f"{UNKNOWN} here; it belongs to {' or '.join(elsewhere)}")
    return Fault(path, f"{UNKNOWN}; known here: {', '.join(siblings)}")


def _is_required(path: KeyPath, model: type[BaseModel]) -> bool:
    """Return whether a path names a setting, rather than an entry of a list or a map, that must not be left out."""
    at: type[BaseModel] | None = model
    for key in path[:-1]:
        if at is not None and isinstance(key, str):
            at = model_in(at.model_fields[key].annotation)
    return at is not None and (field := at.model_fields.get(str(path[-1]))) is not None and field.is_required()


def _names_at(path: KeyPath, model: type[BaseModel]) -> list[str]:
    for key in path:
        if isinstance(key, str):
            inner = model_in(model.model_fields[key].annotation)
            assert inner is not None, "pydantic refuses extra keys in models only"
            model = inner
    return list(model.model_fields)
