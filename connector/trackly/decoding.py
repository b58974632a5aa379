"""Events as columns: used as they are if the types of the columns show that they fit, otherwise decoded with types.

An optional field that is null counts as absent, as in events of any other format. Such fields are only looked for when
decoding fails, so that events without them cost nothing more.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final

import msgspec
from msgspec import UNSET, UnsetType

from connector.core.mapped import UNDECODABLE, mapped
from connector.core.utf8 import not_utf8
from connector.core.verdicts import SKIPPED, Verdict
from connector.shaping.json_values import json_from
from connector.shaping.refusing import UndecodableError, refused, undecodable
from connector.shaping.shaped import Shaped
from connector.trackly.endpoints import ContactData, CustomFields, Endpoint, Event, Text

decode_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
"""Splits an event into fields, which stay as raw bytes."""

_NULL: Final = msgspec.Raw(b"null")
_FILLER: Final = (
    b'{"to":"+10","body":"-","phone_number":"+10","message_id":"-","revenue":0,"attribution_type":"sale","id":"-",'
    b'"to_number":"+10","timestamp":"-","offer_id":"-"}'
)
"""The required fields of all endpoints."""

_TYPES: dict[Any, str] = {
    str: "text",
    Text: "text",
    str | UnsetType: "text",
    dict[str, Any] | UnsetType: "object",
}
"""Field types that Python types of a column cover completely, except for the length of a text."""

_MEMBERS: dict[Any, Collection[str] | None] = {
    ContactData | UnsetType: ContactData.__struct_fields__,
    CustomFields | UnsetType: None,
}
"""Field types whose members may be absent but not null: the names of these members, None for any."""

Column = Callable[[str], Sequence[Any]]
"""Returns a field of all events, by name."""


class EventDecoder:
    """Turns events of one endpoint into columns."""

    def __init__(self, endpoint: Endpoint, *, rejects_unknown: bool) -> None:
        self._texts, self._numbers = endpoint.texts, endpoint.numbers
        self._rejects_unknown = rejects_unknown
        event: type[Event] = endpoint.event
        if rejects_unknown:
            event = msgspec.defstruct(  # type: ignore[assignment] # a struct type that is created at run time
                event.__name__, [], bases=(event,), forbid_unknown_fields=True, gc=False
            )
        self.decode: Callable[[Any], Any] = msgspec.json.Decoder(event).decode
        self.filler = msgspec.json.decode(_FILLER, type=endpoint.event)
        """An event with the required fields only."""
        fields = msgspec.structs.fields(endpoint.event)
        self.required = tuple(f.encode_name for f in fields if f.required)
        """Names of the required fields."""
        self._optional = {f.encode_name: _MEMBERS.get(f.type, ()) for f in fields if not f.required}
        """For each optional field, by name: its own optional members, None for any."""
        self._types = {f.encode_name: _TYPES.get(f.type, "other") for f in fields}
        self._required_texts = {name for name in self.required if self._types[name] == "text"}
        self._needs_decode = len(self._required_texts) < len(self.required)

    def columns(self, shaped: Shaped, bad: dict[int, Verdict]) -> tuple[Column, Sequence[bytes | None], int | None]:
        """Return the fields of events by name, the events to be posted, and their minimum size in bytes, if known.

        Events that cannot be decoded have a verdict in `bad`, and a valid filler in the columns.
        """
        column = self._by_types(shaped)
        if column is not None:
            return column, shaped.events, None
        events, values = self._decode_all(shaped.events, bad)
        length, wrong_bytes = not_utf8(values, bad)
        for index, at in wrong_bytes.items():
            bad[index] = refused("not_utf8", f"byte {at} is not UTF-8")
        return lambda name: _FIELDS[name](events), values, length

    def _by_types(self, shaped: Shaped) -> Column | None:
        """Return the columns that the events were made of, None if only decoding shows whether they fit."""
        fields = shaped.fields
        if self._needs_decode or not fields.keys() >= self._required_texts:
            return None
        for name, column in fields.items():
            kinds = set(map(type, column))
            if name not in self._required_texts:
                kinds.discard(UnsetType)
            match self._types.get(name):
                case "text":
                    fits = kinds <= {str} and not (name in self._texts and "" in column)
                case "object":
                    fits = all(issubclass(kind, dict | msgspec.Struct) for kind in kinds)
                case "other":
                    fits = not kinds
                case _:
                    fits = not self._rejects_unknown
            if not fits:
                return None
        absent = [UNSET] * len(shaped.events)
        return lambda name: fields.get(name, absent)

    def _decode_all(
        self, values: Sequence[bytes | None], bad: dict[int, Verdict]
    ) -> tuple[list[Any], Sequence[bytes | None]]:
        """Return the decoded events, and their bytes without optional fields that are null."""
        without: dict[int, bytes] = {}

        def again(index: int, error: Exception) -> Any:
            value = values[index]
            rest = None if value is None else _without_nulls(value, self._optional)
            if rest is not None:
                try:
                    event = self.decode(rest)
                except UNDECODABLE as wrong:
                    error = wrong
                else:
                    without[index] = rest
                    return event
            bad[index] = self._diagnose(value, error)
            return self.filler

        events = mapped(self.decode, values, UNDECODABLE, again)
        if without:
            values = [without.get(index, value) for index, value in enumerate(values)]
        return events, values

    def _diagnose(self, value: bytes | None, error: Exception) -> Verdict:
        """Return the verdict of a value that the typed decoder rejected."""
        if value is None:
            return SKIPPED
        try:
            event = json_from(value)
        except UndecodableError as wrong:
            return undecodable(wrong)
        if not isinstance(event, dict):
            return refused("not_an_object", f"the value is a JSON {_json_kind(event)}, not an object")
        for name in self.required:
            if event.get(name) is None:
                return refused(f"missing_{name}", f"the event has no `{name}`")
            if event[name] == "" and name in self._texts:
                return refused(f"missing_{name}", f"`{name}` is empty")
            if name in self._numbers and isinstance(event[name], int | float) and event[name] < 0:
                return refused(f"invalid_{name}", f"`{name}` is below 0")
        if "unknown field" in str(error):
            return refused("unknown_field", str(error))
        return refused("wrong_type", str(error))


_FIELDS: dict[str, Callable[[list[Any]], list[Any]]] = {
    "to": lambda events: [event.to for event in events],
    "to_number": lambda events: [event.to_number for event in events],
    "phone_number": lambda events: [event.phone_number for event in events],
    "body": lambda events: [event.body for event in events],
    "list_number": lambda events: [event.list_number for event in events],
    "list_id": lambda events: [event.list_id for event in events],
    "use_journeys": lambda events: [event.use_journeys for event in events],
}
"""Written out because the interpreter caches attribute offsets: a third of the time of `attrgetter`."""


def _without_nulls(value: bytes, optional: Mapping[str, Collection[str] | None]) -> bytes | None:
    """Return an event without optional fields and members that are null, None if there are none.

    Other nulls stay, as do the bytes of all other members: undocumented fields and free-form values pass unchanged, and
    a null in a required field counts as missing. If a name occurs twice, the last one counts.
    """
    if b"null" not in value:
        return None
    try:
        value.decode()  # invalid UTF-8 is reported for the original bytes
        event = decode_fields(value)
        kept = {name: raw for name, raw in event.items() if raw != _NULL or name not in optional}
        found = len(kept) < len(event)
        for name, members in optional.items():
            if members == () or name not in kept or bytes(memoryview(kept[name])[:1]) != b"{":
                continue
            inside = decode_fields(kept[name])
            rest = {key: raw for key, raw in inside.items() if raw != _NULL or not (members is None or key in members)}
            if len(rest) < len(inside):
                kept[name] = msgspec.Raw(msgspec.json.encode(rest))
                found = True
    except UNDECODABLE:
        return None
    return msgspec.json.encode(kept) if found else None


def _json_kind(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    return {str: "string", int: "number", float: "number", list: "array"}.get(type(value), "value")
