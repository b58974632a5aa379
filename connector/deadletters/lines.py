"""Dead letters as lines of JSON: exported and imported byte for byte.

Bytes that are UTF-8 become text, all others `{"base64": ...}`. Null stays null. Headers keep their order and repeated
names.
"""

import json
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from dataclasses import dataclass, field
from typing import Any

from connector.core.chunks import Headers
from connector.deadletters.letters import Letter

FORMAT = "trackly-dead-letter/1"

FIELDS = frozenset({"format", "topic", "partition", "offset", "timestamp_ms", "key", "value", "headers"})


class InvalidLineError(ValueError):
    """A line is not one that an export writes."""


@dataclass(frozen=True, slots=True)
class Line:
    """The record in a line; its topic is only checked, as it is imported into another one."""

    partition: int
    timestamp_ms: int
    key: bytes | None = field(repr=False)
    value: bytes | None = field(repr=False)
    headers: Headers = field(repr=False)


def line_of(letter: Letter) -> str:
    """Return a dead letter as one line, without line end."""
    return json.dumps(
        {
            "format": FORMAT,
            "topic": letter.partition.topic,
            "partition": letter.partition.number,
            "offset": letter.offset,
            "timestamp_ms": letter.timestamp_ms,
            "key": _told(letter.key),
            "value": _told(letter.value),
            "headers": [[name, _told(value)] for name, value in letter.headers],
        },
        ensure_ascii=False,
    )


def read_line(text: str) -> Line:
    """Return the record in a line; raises `InvalidLineError`."""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidLineError(f"is not JSON: {error}") from None
    if not isinstance(data, dict) or data.get("format") != FORMAT or set(data) != FIELDS:
        raise InvalidLineError(f"is not a record of format {FORMAT}")
    topic, partition, timestamp, rows = (data[name] for name in ("topic", "partition", "timestamp_ms", "headers"))
    if not isinstance(topic, str) or not _is_count(partition) or not _is_count(timestamp) or not isinstance(rows, list):
        raise InvalidLineError("has an invalid topic, partition, timestamp or headers")
    if not all(isinstance(row, list) and len(row) == 2 and isinstance(row[0], str) for row in rows):
        raise InvalidLineError("has a header that is not a pair of name and value")
    for name, _ in rows:
        bytes_of(name)  # librdkafka's client would crash on an unpaired surrogate
    headers = [(name, bytes_of(value)) for name, value in rows]
    return Line(partition, timestamp, bytes_of(data["key"]), bytes_of(data["value"]), headers)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 63


def _told(value: bytes | None) -> str | dict[str, str] | None:
    if value is None:
        return None
    try:
        return value.decode()
    except UnicodeDecodeError:
        return {"base64": b64encode(value).decode()}


def bytes_of(value: Any) -> bytes | None:
    """Return a key, value or header of a line as bytes; raises `InvalidLineError`."""
    match value:
        case None:
            return None
        case str():
            try:
                return value.encode()
            except UnicodeEncodeError:
                raise InvalidLineError("has an incomplete character") from None
        case {"base64": str(text)} if len(value) == 1:
            try:
                return b64decode(text, validate=True)
            except (Base64Error, ValueError):
                raise InvalidLineError("has invalid base64") from None
        case _:
            raise InvalidLineError("has a key, value or header that is neither text, base64 nor null")
