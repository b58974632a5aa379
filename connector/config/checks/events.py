"""How events are made and used: the fields of the operation, the format, the mapping and the transform."""

import re
from collections.abc import Iterator
from typing import Any

from connector.config.formats import PACKAGE, FormatSettings, reader_schema
from connector.config.mapping import MappingSettings
from connector.config.model import E164
from connector.config.problems import Fault, KeyPath, dotted
from connector.config.settings import Settings
from connector.config.streams import StreamSettings
from connector.hooks import InvalidTransformError, load_transform
from connector.mapping.mapping import InvalidMappingError, compile_mapping


def faults(settings: Settings) -> Iterator[Fault]:
    """Yield what is wrong with how events are made and used. Imports the named functions."""
    for index, stream in enumerate(settings.streams):
        at: KeyPath = ("streams", index)
        yield from _operation(stream, at)
        yield from _shaping(stream, at)
    for path, chosen in settings.formats.items():
        yield from _format(settings, chosen, path)


def _operation(stream: StreamSettings, at: KeyPath) -> Iterator[Fault]:
    looked_at: tuple[KeyPath, ...] = ((*at, "operation"), (*at, "mode"))
    operation = stream.operation
    if operation == "history" and stream.mode == "single":
        yield Fault((*at, "mode"), "must be bulk: the platform has no single mode for history imports", looked_at)
    if stream.list_number_placement == "top_level" and (operation != "send" or stream.mode != "bulk"):
        yield Fault((*at, "list_number_placement"), "top_level is only for send in bulk mode", looked_at)
    has_list = _has_list(stream)
    if stream.list_number is not None and not has_list:
        kind = f" of {stream.history.kind}" if operation == "history" else ""
        yield Fault(
            (*at, "list_number"),
            f"has no effect: {operation}{kind} has no list",
            (*looked_at, (*at, "history", "kind")),
        )
    if stream.pace.is_on and operation != "send":
        yield Fault((*at, "pace"), f"has no effect with operation {operation}", looked_at)
    if operation == "revenue" and stream.mode == "single" and stream.revenue.imported:
        yield Fault(
            (*at, "revenue", "imported"), "is only for bulk mode: a single request has no such field", looked_at
        )
    for section in ("history", "revenue", "contacts"):
        if section in stream.model_fields_set and operation != section:
            yield Fault((*at, section), f"has no effect with operation {operation}", looked_at)


def _has_list(stream: StreamSettings) -> bool:
    return stream.operation in {"send", "contacts"} or (
        stream.operation == "history" and stream.history.kind == "sends"
    )


def _format(settings: Settings, chosen: FormatSettings, path: KeyPath) -> Iterator[Fault]:
    kind: tuple[KeyPath, ...] = ((*path, "type"), (*path, "data"))
    if chosen.missing_extra is not None:
        yield Fault(
            path, f"needs an extra of the package: pip install '{PACKAGE}[{chosen.missing_extra}]'", (path, *kind)
        )
    if chosen.needs_registry and settings.schema_registry is None:
        yield Fault(
            path, f"needs schema_registry, which knows the schemas of {chosen.framed}", (*kind, ("schema_registry",))
        )
    for name, needed in (
        ("data", "cloudevents"),
        ("reader_schema_file", "avro"),
        ("message", "protobuf"),
        ("validation", "json_schema"),
    ):
        fits = needed in (chosen.type, chosen.framed)
        if name in chosen.model_fields_set and not fits:
            yield Fault((*path, name), f"has no effect with format {chosen.type}; it is for {needed}", kind)
    file = chosen.reader_schema_file
    if file is not None and file.is_file() and chosen.framed == "avro" and chosen.missing_extra is None:
        try:
            reader_schema(file)
        except ValueError as error:
            yield Fault((*path, "reader_schema_file"), str(error))


def _shaping(stream: StreamSettings, at: KeyPath) -> Iterator[Fault]:
    yield from _mapping(stream, stream.mapping, (*at, "mapping"))
    yield from _transform(stream.transform, (*at, "transform"))
    for index, over in enumerate(stream.overrides):
        path: KeyPath = (*at, "overrides", index)
        inputs: tuple[KeyPath, ...] = ((*at, "topics"), (*at, "pattern"))
        if bool(over.topics) is (over.pattern is not None):
            yield Fault(path, "must name topics or a pattern" + (", not both" if over.topics else ""))
        if not over.model_fields_set - {"topics", "pattern"}:
            yield Fault(path, "changes nothing")
        for topic in over.topics:
            if not stream.reads(topic):
                yield Fault((*path, "topics"), f"names {topic}, which the stream does not read", inputs)
        if over.mapping is not None:
            fields = {name: spec for name, spec in over.mapping.fields.items() if spec is not None}
            yield from _mapping(stream, over.mapping.model_copy(update={"fields": fields}), (*path, "mapping"))
            yield from _two_lists(stream.mapping, over.mapping, at, (*path, "mapping"))
        yield from _transform(over.transform, (*path, "transform"))


def _mapping(stream: StreamSettings, mapping: MappingSettings | None, at: KeyPath) -> Iterator[Fault]:
    if mapping is None:
        return
    operation: tuple[KeyPath, ...] = ((*at[:2], "operation"),)
    if mapping.list_number is not None and not _has_list(stream):
        yield Fault((*at, "list_number"), f"has no effect: {stream.operation} has no list", operation)
    for below, number in _fixed_lists(mapping.list_number):
        if not (isinstance(number, str) and re.fullmatch(E164, number)):
            yield Fault((*at, "list_number", *below), "must be a list's number in E.164 form, such as +18005551234")
    if mapping.max_segments is not None and stream.operation != "send":
        yield Fault((*at, "max_segments"), f"has no effect with operation {stream.operation}", operation)
    try:
        compiled = compile_mapping(fields=mapping.fields, when=mapping.when, list_number=mapping.list_number)
    except InvalidMappingError as error:
        for flaw in error.flaws:
            yield Fault((*at, *flaw.path), flaw.message, offset=flaw.offset)
        return
    if all(chosen.type != "cloudevents" for chosen in stream.formats.values()):
        formats = tuple((*at[:2], *below) for below in stream.formats)
        for below in compiled.attributes:
            message = "looks at `attributes`, which only records with format cloudevents have: it would always be null"
            yield Fault((*at, *below), message, formats)


def _fixed_lists(spec: Any) -> Iterator[tuple[KeyPath, Any]]:
    """Yield the list numbers that a choice contains, each with its path; null is skipped."""
    match spec:
        case {"table": dict(table)}:
            if all(isinstance(number, str) for number in table.values()):  # otherwise the table itself is reported
                yield from ((("table", name), number) for name, number in table.items())
            if isinstance(spec.get("default"), str):
                yield ("default",), spec["default"]
        case {"from": _, "default": default} if default is not None:
            yield ("default",), default
        case {"const": constant} if constant is not None:
            yield ("const",), constant
        case bool() | int() | float():
            yield (), spec
        case _:
            pass


def _two_lists(base: MappingSettings | None, over: MappingSettings, at: KeyPath, path: KeyPath) -> Iterator[Fault]:
    """Refuse an override with which a list is chosen in two places, one of them the stream's own mapping."""
    chosen, field = over.list_number is not None, over.fields.get("list_number") is not None
    whole = over.over(base)
    if chosen is field or whole.list_number is None or "list_number" not in whole.fields:
        return  # both in the override is reported once, there
    here: KeyPath = ("list_number",) if chosen else ("fields", "list_number")
    there: KeyPath = ("fields", "list_number") if chosen else ("list_number",)
    other = (*at, "mapping", *there)
    yield Fault((*path, *here), f"stands beside {dotted(other)}; null removes that here", (other, (*path, *there)))


def _transform(name: str | None, at: KeyPath) -> Iterator[Fault]:
    if name is None:
        return
    try:
        load_transform(name)
    except InvalidTransformError as error:
        yield Fault(at, str(error))
