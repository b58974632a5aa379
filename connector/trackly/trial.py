"""Checks settings with the operations, which alone know what the platform requires of an event.

With `mapping.fields` an event has these fields and no others. If a required one is missing, or one with a constant
value is rejected, every record becomes a dead letter.
"""

from collections.abc import Iterable, Iterator
from typing import Any, Final

import msgspec

from connector.config.problems import Fault, KeyPath
from connector.config.settings import Settings
from connector.config.streams import StreamSettings
from connector.core.chunks import Chunk, Partition
from connector.mapping.mapping import InvalidMappingError, compile_mapping
from connector.shaping.json_values import JsonDecoder
from connector.shaping.shaper import Plan, shape_by
from connector.trackly.operations import LONGEST_LIST_NUMBER, Operation, operation_of

_LISTS: Final = frozenset({"list_number", "list_id"})
"""Fields by which an event may name its list."""

_RECORD: Final = Chunk(Partition("any", 0), 0, range(1), [b"{}"])


def refused(settings: Settings) -> Iterator[Fault]:
    """Yield the mappings with which no event can be valid for its operation."""
    for index, stream in enumerate(settings.streams):
        at: KeyPath = ("streams", index)
        own, *others = stream.variants()
        # If each topic has an override, or may have one, the stream's own mapping may be unused.
        if any(stream.variant_for(topic) == 0 for topic in stream.topics) or not others:
            yield from _faults(own, at, (*at, "mapping"), () if own.mapping is None else own.mapping.fields)
        for number, (over, other) in enumerate(zip(stream.overrides, others, strict=True)):
            if over.mapping is not None:
                yield from _faults(other, at, (*at, "overrides", number, "mapping"), over.mapping.fields)


def _faults(stream: StreamSettings, at: KeyPath, path: KeyPath, named: Iterable[str]) -> Iterator[Fault]:
    """Yield what is wrong with a mapping; `named` are the fields that are set at the path."""
    mapping = stream.mapping
    if mapping is None or not mapping.fields:
        return
    operation = operation_of(stream)
    looked_at = tuple((*at, name) for name in ("mapping", "operation", "history", "contacts", "list_number"))
    for name in operation.events.required:
        if name not in mapping.fields:
            text = f"does not set `{name}`, which each event of operation {stream.operation} must have"
            yield Fault((*path, "fields"), text, looked_at)
    names_list = stream.list_number or mapping.list_number is not None or not _LISTS.isdisjoint(mapping.fields)
    if operation.endpoint.takes_list and not names_list:
        text = "does not set `list_number`; set the stream's, or choose one with mapping.list_number"
        yield Fault((*path, "fields"), text, looked_at)
    for name in named:
        if name in mapping.fields and (why := _refusal(operation, name, mapping.fields[name], mapping.max_segments)):
            yield Fault((*path, "fields", name), f"is rejected for every record that has it: {why}", looked_at)


def _refusal(operation: Operation, name: str, spec: Any, max_segments: int | None) -> str | None:
    """Return why an event is rejected for a field that is constant, or that no event may have."""
    try:
        looks_at = compile_mapping(fields={name: spec}).roots
    except InvalidMappingError:
        return None  # reported elsewhere
    if looks_at and name in operation.endpoint.event.__struct_fields__:
        return None
    fields: dict[str, Any] = {
        required: {"const": value} for required, value in msgspec.to_builtins(operation.events.filler).items()
    }
    if operation.endpoint.takes_list:
        fields["list_number"] = {"const": LONGEST_LIST_NUMBER}
    fields[name] = {"const": "-"} if looks_at else spec
    made = compile_mapping(fields=fields)
    plan = Plan(JsonDecoder(), is_json=True, mapping=made, transform=None, max_segments=max_segments)
    shaped = shape_by(plan, _RECORD, "any")
    settled = operation.prepare(_RECORD, now_ms=0, shaped=shaped).settled
    return None if settled is None else settled[1].of(0).text
