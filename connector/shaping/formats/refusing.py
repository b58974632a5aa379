"""Verdicts of values that cannot be decoded, and the one list of their reasons."""

from collections.abc import Mapping
from typing import Final

from connector.core.verdicts import Verdict

MAX_TEXT: Final = 500
"""Characters of a text about a record: it travels in the dead letter's headers, which must fit any topic."""

REASONS: Final[Mapping[str, str]] = {
    "content_type_unknown": "data of a CloudEvent has a content type that the stream's `format` does not decode",
    "not_a_cloudevent": "no CloudEvent of version 1.0: a required attribute is missing, or one has no valid form",
    "not_decodable": "the bytes do not fit the schema, or the format, that they are said to be in",
    "not_framed": "the value does not begin with the id of a schema, and no header has one",
    "schema_not_found": "the schema registry does not know the id",
    "schema_unusable": (
        "the schema is of another format, too large, not valid, or refers to what the registry does not have"
    ),
    "schema_violated": "the value is not what its JSON Schema asks for",
    "unexpected_message": "a Protobuf message other than `format.message`",
}
"""Reasons of dead letters that the formats give, and what each means."""


class UndecodableError(Exception):
    """A value cannot be decoded; `reason` is one of `REASONS`, or one that JSON has."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


def refused(reason: str, text: str) -> Verdict:
    """Return the verdict of a value that cannot be decoded; the text may repeat some of it, so it is cut."""
    return Verdict("dead_letter", reason, None, text[:MAX_TEXT])


def undecodable(error: Exception) -> Verdict:
    """Return the verdict that an exception comes to, whoever raised it: decoders meet bytes from anywhere."""
    if isinstance(error, UndecodableError):
        return refused(error.reason, str(error))
    name = type(error).__name__
    return refused("not_decodable", f"{name}: {error}".rstrip(": ") if str(error) else name)
