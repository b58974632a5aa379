"""What identifies a record in the ledger, and the text of a record that faults search."""

from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from connector.simulator.endpoints import CONTACTS, HISTORY_CLICKS, HISTORY_SENDS, SEND

Record = Mapping[str, object]
Extractor = Callable[[Record], str | None]

WHOLE: Final = "*"


IDENTITIES: Final[Mapping[str, str]] = {
    CONTACTS.name: "list_number+phone_number",
    HISTORY_SENDS.name: "id",
    HISTORY_CLICKS.name: "message_id",
}
"""What makes a record itself, by operation; messages have a setting for it, of all others the whole record counts."""


def extractor(definition: str) -> Extractor:
    """Compile the definition of an identity.

    It is a path into the record (`body`, `contact_data.custom_fields.event_id`), several joined by `+` (their values
    are joined by `|`), or `*` for the record's whole JSON with sorted names. A record that lacks a path has none.
    """
    if definition == WHOLE:
        return whole
    paths = [tuple(path.split(".")) for path in definition.split("+")]
    if len(paths) == 1 and len(paths[0]) == 1:
        name = paths[0][0]
        return lambda record: _as_text(record.get(name))

    def joined(record: Record) -> str | None:
        parts = [_as_text(_follow(record, path)) for path in paths]
        return None if None in parts else "|".join(part for part in parts if part is not None)

    return joined


def whole(record: Record) -> str:
    """Return the record as JSON with sorted names, which is equal for equal records."""
    return msgspec.json.encode(record, order="sorted").decode()


def searched_text(operation: str, record: Record) -> str:
    """Return what faults with a text search: the body of a message, all of any other record."""
    if operation == SEND.name:
        body = record.get("body")
        return body if isinstance(body, str) else ""
    return whole(record)


def _follow(record: Record, path: tuple[str, ...]) -> object:
    value: object = record
    for name in path:
        if not isinstance(value, Mapping):
            return None
        value = value.get(name)
    return value


def _as_text(value: object) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return msgspec.json.encode(value, order="sorted").decode()
