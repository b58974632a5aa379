"""Avro: values are read with their writer's schema and, if one is pinned, resolved to our schema.

Python values of logical types are converted to JSON's types, and null fields are left out, as they would be in JSON.
Which parts of a value need that is determined once per schema, so that a schema of plain fields costs nothing. Two
things that a value of a few bytes could do to the reader are ruled out by examining the schema: items without bytes, of
which an array may contain any number, and recursive types, for which the compiled reader has no depth limit.
"""

import json
import math
import re
from base64 import b64encode
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from datetime import date, datetime, time
from decimal import Decimal
from io import BytesIO
from struct import pack
from typing import Any, Final
from uuid import UUID

from fastavro import parse_schema, schemaless_reader
from fastavro._read_py import schemaless_reader as careful_reader
from fastavro.read import LOGICAL_READERS

from connector.shaping.formats.schemas import Schema
from connector.shaping.refusing import UndecodableError

Convert = Callable[[Any], Any]

MAX_DEPTH: Final = 100
"""Levels of nested types in one schema."""

MAX_DECIMAL_BYTES: Final = 256
"""Limit for a decimal, which is 616 digits: Python needs time quadratic in the digits, minutes for a megabyte."""
MAX_SCALE: Final = 1_000
"""Limit for the digits after a decimal's point, which are all written, including zeros."""

_PLAIN: Final = frozenset({"null", "boolean", "int", "long", "string", "enum"})

_DEFAULTS: Final[Mapping[str, tuple[type, ...]]] = {
    "null": (type(None),),
    "boolean": (bool,),
    **dict.fromkeys(("int", "long"), (int,)),
    **dict.fromkeys(("float", "double"), (int, float)),
    **dict.fromkeys(("string", "bytes", "fixed", "enum"), (str,)),
    "array": (list,),
    **dict.fromkeys(("map", "record", "error"), (dict,)),
}
"""The JSON type of a default, by Avro type."""


def _bounded(read: Callable[..., Any]) -> Callable[..., Any]:
    """Return a reader of decimals that rejects long ones."""

    def read_decimal(data: bytes, written: Mapping[str, Any], wanted: Mapping[str, Any] | None = None) -> Any:
        if len(data) > MAX_DECIMAL_BYTES or (written.get("scale") or 0) > MAX_SCALE:
            text = f"a decimal has more than {MAX_DECIMAL_BYTES} bytes, or {MAX_SCALE:,} digits behind its point"
            raise UndecodableError("not_decodable", text)
        return read(data, written, wanted)

    return read_decimal


def _in_range(read: Callable[..., Any]) -> Callable[..., Any]:
    """Return a reader of times that leaves as numbers those that Python has not, as a database's end of time."""

    def read_time(data: int, written: Mapping[str, Any], wanted: Mapping[str, Any] | None = None) -> Any:
        try:
            return read(data, written, wanted)
        except (OverflowError, ValueError):
            return data

    return read_time


def _shortest(value: float, *_schemas: Any) -> float:
    """Return a 32-bit number with its shortest representation: 19.99 instead of 19.989999771118164."""
    if not math.isfinite(value):
        return value
    packed = pack("f", value)
    return next(short for digits in range(6, 10) if pack("f", short := float(f"{value:.{digits}g}")) == packed)


_FLOAT: Final = {"type": "float", "logicalType": "trackly-shortest"}
"""Only the reader knows whether a number had 32 bits, so that it shortens it, as if that was a logical type."""
_TYPED: Final = frozenset({"type", "items", "values"})
"""Keys of a schema whose value is a type."""

LOGICAL_READERS.update({kind: _bounded(LOGICAL_READERS[kind]) for kind in ("bytes-decimal", "fixed-decimal")})
LOGICAL_READERS.update(
    {kind: _in_range(read) for kind, read in LOGICAL_READERS.items() if re.search("date|time", kind)}
)
LOGICAL_READERS["float-trackly-shortest"] = _shortest


@dataclass(frozen=True, slots=True)
class Pinned:
    """Our schema that values are resolved to, parsed, and the conversion of the result."""

    parsed: Any
    convert: Convert | None
    logical: frozenset[tuple[str, str]]
    """Fields with a logical type inside, each with the name of its record."""


def pin(parsed: Any) -> Pinned:
    """Examine our parsed schema, once for all writers; raises ValueError if no value can be resolved to it."""
    try:
        parsed = deepcopy(parsed)  # its defaults are replaced
        look = _Look(_names(parsed), fills_in=True)
        convert = look.at(parsed)
        for field, default in look.defaults:
            field["default"] = default
        return Pinned(parsed, convert, frozenset(look.logical))
    except UndecodableError as error:
        raise ValueError(f"it {error}") from error
    except Exception as error:
        raise ValueError(f"a default fits no value: {type(error).__name__}: {error}") from error


def compile_avro(schema: Schema, pinned: Pinned | None = None) -> Callable[[bytes, int], Any]:
    """Return a function that reads a value from an offset on, and resolves it to the pinned schema, if any.

    Raises `UndecodableError` for a schema that cannot be used; the function itself may raise anything.
    """
    try:
        known: dict[str, Any] = {}
        for reference in schema.references.values():
            parse_schema(_written(reference.text), named_schemas=known)
        text = _written(schema.text)
        is_union = isinstance(text, list) and pinned is None
        if is_union:
            # The reader would parse a bare union again for each value. As the only field of a record it has the same
            # bytes.
            text = {"type": "record", "name": "_trackly_union", "fields": [{"name": "value", "type": text}]}
        parsed = _with_references(parse_schema(text, named_schemas=known), known)
    except Exception as error:
        told = f"the registry's schema is no valid Avro: {type(error).__name__}: {error}"
        raise UndecodableError("schema_unusable", told) from error
    look = _Look(known)
    written = look.at(parsed)
    read = careful_reader if look.is_recursive else schemaless_reader
    reader, convert = (None, written) if pinned is None else (pinned.parsed, pinned.convert)
    # Values have the logical types of their writer's schema, whatever the reader's.
    if pinned is not None and not look.logical <= pinned.logical:
        brought = convert or _as_it_is
        convert = lambda event: plain(brought(event))  # noqa: E731

    def read_from(value: bytes, start: int) -> Any:
        stream = BytesIO(value)
        stream.seek(start)
        try:
            event: Any = read(stream, parsed, reader)
        except EOFError:
            raise UndecodableError("not_decodable", "the value ends before all fields of its schema") from None
        if stream.tell() != len(value):
            raise UndecodableError("not_decodable", f"{len(value) - stream.tell()} bytes follow the value")
        return event["value"] if is_union and convert is None else event

    if convert is None:
        return read_from
    if is_union:
        return lambda value, start: convert(read_from(value, start)).get("value")  # null is left out
    return lambda value, start: convert(read_from(value, start))


def _written(text: str) -> Any:
    """Return a writer's schema with floats that are shortened, and without defaults.

    Registries contain schemas with invalid defaults, which older versions of Avro accepted.
    """

    def part(found: dict[str, Any]) -> dict[str, Any]:
        kept = {key: _typed(said) if key in _TYPED else said for key, said in found.items() if key != "default"}
        return {**kept, **_FLOAT} if found.get("type") == "float" and "name" not in found else kept

    return _typed(json.loads(text, object_hook=part))


def _typed(schema: Any) -> Any:
    """Return a type, or a union, with floats that are shortened."""
    if isinstance(schema, list):
        return [_typed(branch) for branch in schema]
    return _FLOAT if schema == "float" else schema


def _with_references(parsed: Any, known: Mapping[str, Any]) -> Any:
    """Return a schema that is a name, or a union of names, with the types behind the names.

    A record includes what it refers to, so that the reader finds it; a name alone does not.
    """
    if isinstance(parsed, list):
        return [_with_references(branch, known) for branch in parsed]
    if isinstance(parsed, str) and parsed in known:
        return {**known[parsed], "__fastavro_parsed": True, "__named_schemas": known}
    return parsed


def _names(parsed: Any) -> dict[str, Any]:
    """Return the named types of a parsed schema."""
    return dict(parsed.get("__named_schemas", {})) if isinstance(parsed, dict) else {}


def plain(value: Any) -> Any:
    """Return a value of any logical type as JSON has it.

    Decimals become text with all their digits, bytes base64, times RFC 3339 (`Z` for UTC, no offset for local ones),
    UUIDs text; numbers that JSON does not have become null. Null members are left out.
    """
    match value:
        case str() | bool() | int() | None:
            return value
        case float():
            return value if math.isfinite(value) else None
        case bytes():
            return b64encode(value).decode()
        case Decimal():
            return format(value, "f")
        case datetime():
            return value.isoformat().replace("+00:00", "Z")
        case date() | time():
            return value.isoformat()
        case UUID():
            return str(value)
        case dict():
            return {key: found for key, inner in value.items() if (found := plain(inner)) is not None}
        case list() | tuple():
            return [plain(inner) for inner in value]
        case _:
            raise UndecodableError("not_decodable", f"a value of the type {type(value).__name__} has no form in JSON")


def _is_optional(schema: Any) -> bool:
    return schema in ("null", {"type": "null"}) or (isinstance(schema, list) and "null" in schema)


def _of_type(kind: str) -> Convert | None:
    """Return the conversion of a type without a name of its own."""
    return None if kind in _PLAIN else plain


def _unless_null(convert: Convert) -> Convert:
    return lambda value: None if value is None else convert(value)


def _members(convert: Convert) -> Convert:
    """Return the conversion of the members of a map, without null ones."""
    return lambda members: {
        key: found for key, value in members.items() if value is not None and (found := convert(value)) is not None
    }


def _as_it_is(value: Any) -> Any:
    return value


class _Look:
    """One examination of a whole schema: whether it can be used, and what in its values must be converted.

    `fills_in` means that values are resolved to it, so that missing fields get their defaults.
    """

    def __init__(self, known: Mapping[str, Any], *, fills_in: bool = False) -> None:
        self._known = known
        self._fills_in = fills_in
        self._open: list[str] = []
        self._records: dict[str, Convert | None] = {}
        """The conversion of each record that was examined: shared types are examined once."""
        self._empty: dict[str, bool] = {}
        self.is_recursive = False
        self.logical: set[tuple[str, str]] = set()
        self.defaults: list[tuple[dict[str, Any], Any]] = []
        """Fields with a default, and the value that would have been read in its place."""
        self._field = ("", "")

    def at(self, schema: Any, depth: int = 0) -> Convert | None:
        """Return the conversion of values of a schema, None if they are JSON values already."""
        if depth > MAX_DEPTH:
            raise UndecodableError("schema_unusable", f"has types within types, more than {MAX_DEPTH} levels")
        if isinstance(schema, list):
            kinds = [branch for branch in schema if branch != "null"]
            if len(kinds) == 1:
                only = self.at(kinds[0], depth + 1)
                return only if only is None or only is plain else _unless_null(only)
            # In a union, the value's own type shows which branch it is of.
            branches = [self.at(branch, depth + 1) for branch in schema]
            return None if branches.count(None) == len(branches) else plain
        if isinstance(schema, str):
            named = self._known.get(schema)
            if named is not None and not isinstance(named, str):
                return self.at(named, depth + 1)
            return _of_type(schema)
        if "logicalType" in schema:
            if schema["type"] != "float":
                self.logical.add(self._field)
            return plain
        match schema["type"]:
            case "record" | "error":
                return self._record(schema, depth)
            case "array":
                if self._may_be_empty(schema["items"], depth + 1):
                    raise UndecodableError("schema_unusable", "has an array of items that may take no bytes at all")
                inner = self.at(schema["items"], depth + 1)
                return None if inner is None else lambda items: [inner(item) for item in items]
            case "map":
                member = self.at(schema["values"], depth + 1)
                return _members(member or _as_it_is) if member or _is_optional(schema["values"]) else None
            case str(kind):
                return self.at(kind, depth + 1) if kind in self._known else _of_type(kind)
            case nested:
                return self.at(nested, depth + 1)

    def _record(self, schema: Mapping[str, Any], depth: int) -> Convert | None:
        name = str(schema["name"])
        if name in self._open:
            self.is_recursive = True
            return plain
        if name in self._records:
            return self._records[name]
        self._open.append(name)
        around, fields = self._field, []
        for field in schema["fields"]:
            self._field = (name.rpartition(".")[2], field["name"])
            fields.append((field["name"], self.at(field["type"], depth + 1)))
        self._field = around
        self._open.pop()
        wanted = [(field, convert) for field, convert in fields if convert is not None]
        # A number that JSON does not have is null as well.
        optional = [
            field["name"]
            for field, (_, convert) in zip(schema["fields"], fields, strict=True)
            if convert is plain or _is_optional(field["type"])
        ]
        defaults = self._defaults(schema["fields"]) if self._fills_in else []

        def record(event: Any) -> Any:
            for field, default in defaults:
                if event[field] is default:
                    event[field] = deepcopy(default)
            for field, convert in wanted:
                event[field] = convert(event[field])
            for field in optional:
                if event[field] is None:
                    del event[field]
            return event

        self._records[name] = record if wanted or optional or defaults else None
        return self._records[name]

    def _defaults(self, fields: list[Any]) -> list[tuple[str, Any]]:
        """Note the value that would have been read for each default, and return those that must be copied.

        The reader inserts the same object every time.
        """
        found = [(field, self._as_read(field["type"], field["default"])) for field in fields if "default" in field]
        self.defaults += found
        return [(field["name"], read) for field, read in found if isinstance(read, dict | list)]

    def _as_read(self, schema: Any, raw: Any) -> Any:
        """Return a default as if it was read from a value: bytes, times and similar in Python's types."""
        if isinstance(schema, list):
            return self._as_read(next((branch for branch in schema if self._may_be(branch, raw)), "null"), raw)
        if isinstance(schema, str):
            schema = self._known.get(schema) or {"type": schema}
        kind = schema["type"]
        if isinstance(kind, dict | list) or kind in self._known:
            return self._as_read(kind, raw)
        match kind:
            case "record" | "error":
                return {
                    field["name"]: self._as_read(field["type"], raw.get(field["name"], field.get("default")))
                    for field in schema["fields"]
                }
            case "array":
                return [self._as_read(schema["items"], item) for item in raw]
            case "map":
                return {key: self._as_read(schema["values"], item) for key, item in raw.items()}
            case "bytes" | "fixed":
                raw = raw.encode("iso-8859-1")
            case _:
                pass
        logical = LOGICAL_READERS.get(f"{kind}-{schema.get('logicalType')}")
        return raw if logical is None else logical(raw, schema, schema)

    def _may_be(self, schema: Any, raw: Any) -> bool:
        """Return whether a default is of this branch: newer Avro versions allow any branch, and use the first match."""
        if isinstance(schema, str):
            schema = self._known.get(schema) or {"type": schema}
        kind = schema["type"]
        if isinstance(kind, dict) or kind in self._known:
            return self._may_be(kind, raw)
        return type(raw) in _DEFAULTS.get(kind, ())

    def _record_may_be_empty(self, schema: Mapping[str, Any], depth: int) -> bool:
        name = str(schema["name"])
        if name not in self._empty:
            self._empty[name] = False  # for recursive types
            self._empty[name] = all(self._may_be_empty(field["type"], depth + 1) for field in schema["fields"])
        return self._empty[name]

    def _may_be_empty(self, schema: Any, depth: int) -> bool:
        """Return whether a value may take no bytes; recursive types take some, as they could not end otherwise."""
        if depth > MAX_DEPTH:
            return False
        if isinstance(schema, str):
            named = self._known.get(schema)
            return schema == "null" or (isinstance(named, dict) and self._may_be_empty(named, depth + 1))
        if isinstance(schema, list):
            return False  # the number of the branch takes one
        match schema["type"]:
            case "record" | "error":
                return self._record_may_be_empty(schema, depth)
            case "fixed":
                return bool(schema["size"] == 0)
            case "array" | "map" | "enum":
                return False
            case nested:
                return self._may_be_empty(nested, depth + 1)
