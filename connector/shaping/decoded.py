"""The result of decoding a chunk, and the interface of formats."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from connector.core.chunks import Chunk
from connector.core.verdicts import Verdict


@dataclass(slots=True)
class Decoded:
    """The decoded values of a chunk, one per record; None where a record already has its verdict."""

    values: list[Any]
    bad: dict[int, Verdict] = field(default_factory=dict)
    """By index: what could not be decoded (`dead_letter`), and tombstones (`skipped`)."""
    attributes: list[Mapping[str, Any] | None] | None = None
    """What accompanies the value in the format, such as the attributes of a CloudEvent; None if the format has no such
    thing."""


class Decoder(Protocol):
    """One format: decodes the values of a chunk, and never raises, whatever a record contains."""

    def decode(self, chunk: Chunk) -> Decoded:
        """Decode all records of a chunk; raises `FormatAwayError` if that is impossible now, whatever the record."""
        ...


class FormatAwayError(Exception):
    """Something needed for decoding is unavailable, such as the schema registry: retry later, no record is at fault.

    `reason` is the reason code of the hold, from a bounded list; the text says what happened, without secrets.
    """

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason
