"""Settings tried out on the operations, which alone know what the platform asks of an event.

With `mapping.fields` an event has these fields and no other: one that lacks what each event must have makes a dead
letter of every record.
"""

from collections.abc import Iterator
from typing import Final

from connector.config.problems import Fault, KeyPath
from connector.config.settings import Settings
from connector.config.streams import StreamSettings
from connector.trackly.operations import operation_of

_LISTS: Final = frozenset({"list_number", "list_id"})
"""Fields by which an event may name its list."""


def refused(settings: Settings) -> Iterator[Fault]:
    """Yield the mappings by which no event can be what its operation asks for."""
    for index, stream in enumerate(settings.streams):
        at: KeyPath = ("streams", index)
        own, *others = stream.variants()
        # Where each topic has an override, or may have one, nothing need come of the stream's own mapping.
        if any(stream.variant_for(topic) == 0 for topic in stream.topics) or not others:
            yield from _faults(own, at, (*at, "mapping"))
        for number, (over, other) in enumerate(zip(stream.overrides, others, strict=True)):
            if over.mapping is not None:
                yield from _faults(other, at, (*at, "overrides", number, "mapping"))


def _faults(stream: StreamSettings, at: KeyPath, path: KeyPath) -> Iterator[Fault]:
    mapping = stream.mapping
    if mapping is None or not mapping.fields:
        return
    operation = operation_of(stream)
    looked_at: tuple[KeyPath, ...] = ((*at, "mapping"), (*at, "operation"), (*at, "history"), (*at, "list_number"))
    for name in operation.required:
        if name not in mapping.fields:
            text = f"makes no `{name}`, which each event of operation {stream.operation} must have"
            yield Fault((*path, "fields"), text, looked_at)
    names_list = stream.list_number or mapping.list_number is not None or not _LISTS.isdisjoint(mapping.fields)
    if operation.endpoint.takes_list and not names_list:
        text = "makes no `list_number`; set the stream's, or have mapping.list_number choose one"
        yield Fault((*path, "fields"), text, looked_at)
