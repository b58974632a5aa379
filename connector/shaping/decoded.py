"""What decoding makes of a chunk, and what every format has to offer for it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from connector.core.chunks import Chunk
from connector.core.verdicts import Verdict


@dataclass(slots=True)
class Decoded:
    """The values of a chunk as Python has them, one for each record; None where a record has its verdict already."""

    values: list[Any]
    bad: dict[int, Verdict] = field(default_factory=dict)
    """By index: what could not be decoded (`dead_letter`), and tombstones (`skipped`)."""
    attributes: list[Mapping[str, Any] | None] | None = None
    """What travels around the value by the format's own rules, as the attributes of a CloudEvent; None where there is
    no such thing."""


class Decoder(Protocol):
    """One format: turns the values of a chunk into Python's, and never raises for what a record holds."""

    def decode(self, chunk: Chunk) -> Decoded:
        """Decode all records of a chunk; raises `FormatAwayError` when that can't be done now, for any record."""
        ...


class FormatAwayError(Exception):
    """What is needed to decode is away, such as the schema registry: to be tried again, no record is at fault.

    `reason` is the hold's reason code, bounded; the text says what happened and what to look at, without secrets.
    """

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason
