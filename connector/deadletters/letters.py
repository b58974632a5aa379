"""The content of a dead letter, whoever wrote it.

The connector's own have `trackly.*` headers; those of Kafka Connect and of brokers (KIP-1191) say less, and a record
that somebody copied may say nothing. So every property has a value for missing or foreign headers, and none raises.
Headers are arbitrary bytes: they are decoded with replacement.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import Final

from connector.core.chunks import Chunk, Headers, Partition
from connector.core.records import FAILURE_PREFIXES, iso, number_of, origin_of, redrives_of

Position = tuple[Partition, int]

LAST_MS: Final = 253_402_300_799_999
"""The last millisecond of the year 9999, the end of ISO 8601 times."""

CLOCKS_MS: Final = 60_000
"""Assumed difference between clocks: what one machine wrote later than another may have an earlier time."""

UNKNOWN = "unknown"
"""The reason of a record whose headers name none."""

IN_DOUBT = "in_doubt"


@dataclass(frozen=True, slots=True)
class Layout:
    """The positions of headers, determined once for records with the same names in the same order."""

    places: dict[str, int]
    """The last position of each name."""
    foreign: tuple[int, ...]
    """Positions of the headers that are not about a failure."""


@lru_cache(maxsize=1_000)
def _layout(names: tuple[str, ...]) -> Layout:
    places = {name: place for place, name in enumerate(names)}
    return Layout(places, tuple(i for i, name in enumerate(names) if not name.startswith(FAILURE_PREFIXES)))


def layout_of(headers: Headers) -> Layout:
    """Return the layout of headers. Measured: a dict of some thirty headers takes three times as long."""
    return _layout(tuple([name for name, _ in headers]))


class Facts:
    """The headers of a record by name; the last of a name counts."""

    __slots__ = ("headers", "layout")

    def __init__(self, headers: Headers) -> None:
        self.headers = headers
        self.layout = layout_of(headers)

    def get(self, name: str) -> bytes | None:
        """Return a header's value, None if it is missing or null."""
        place = self.layout.places.get(name)
        return None if place is None else self.headers[place][1]

    def __contains__(self, name: str) -> bool:
        return name in self.layout.places

    def foreign(self) -> Headers:
        """Return the headers that are not about a failure, in order."""
        headers = self.headers
        return [headers[place] for place in self.layout.foreign]


def text_of(facts: Facts, *names: str) -> str | None:
    """Return the first of these headers that is present and not empty, as text."""
    for name in names:
        value = facts.get(name)
        if value:
            return value.decode(errors="replace")
    return None


def reason_of(facts: Facts) -> str:
    """Return the reason; for a dead letter of Kafka Connect, the exception's class without package."""
    reason = facts.get("trackly.reason")
    if reason:
        return reason.decode(errors="replace")
    foreign = text_of(facts, "__connect.errors.exception.class.name")
    return foreign.rpartition(".")[2] or UNKNOWN if foreign else UNKNOWN


@dataclass(slots=True)
class Letter:
    """One dead letter."""

    partition: Partition
    offset: int
    timestamp_ms: int
    key: bytes | None = field(repr=False)
    value: bytes | None = field(repr=False)
    facts: Facts = field(repr=False)
    _origin: Position | None = field(default=None, init=False, repr=False, compare=False)

    @property
    def headers(self) -> Headers:
        """Its headers, in order."""
        return self.facts.headers

    @property
    def place(self) -> Position:
        """Its position, as parts."""
        return self.partition, self.offset

    @property
    def position(self) -> str:
        """Its position: `topic:partition:offset`."""
        return spelled(self.place)

    @property
    def reason(self) -> str:
        """Why it is a dead letter."""
        return reason_of(self.facts)

    @property
    def failed_ms(self) -> int:
        """When the record failed, in milliseconds since 1970; a copy, such as a parked one, may be written later."""
        told = time_of(text_of(self.facts, "trackly.failed_at"))
        return self.timestamp_ms if told is None else min(told, self.timestamp_ms)

    @property
    def stream(self) -> str | None:
        """The stream that wrote it, None for a foreign one."""
        return text_of(self.facts, "trackly.stream")

    @property
    def code(self) -> str | None:
        """The platform's own code."""
        return text_of(self.facts, "trackly.code")

    @property
    def text(self) -> str | None:
        """A description of the failure; may repeat parts of the record."""
        return text_of(self.facts, "trackly.text", "__connect.errors.exception.message", "__dlq.errors.message")

    @property
    def status(self) -> int | None:
        """The HTTP status of the last answer."""
        return number_of(self.facts.get("trackly.http_status"))

    @property
    def attempts(self) -> int | None:
        """Requests that contained it."""
        return number_of(self.facts.get("trackly.attempts"))

    @property
    def redrives(self) -> int:
        """How often it was sent again."""
        return redrives_of(self.facts)

    @property
    def source(self) -> Position | None:
        """Position of the record that failed, None if unknown."""
        facts = self.facts
        for prefix in ("__connect.errors.", "__dlq.errors."):
            topic, number = text_of(facts, f"{prefix}topic"), number_of(facts.get(f"{prefix}partition"))
            offset = number_of(facts.get(f"{prefix}offset"))
            if topic is not None and number is not None and offset is not None:
                return Partition(topic, number), offset
        return None

    @property
    def origin(self) -> Position:
        """Where the record first failed, which identifies it for good."""
        if self._origin is None:
            self._origin = origin_of(self.facts) or self.source or (self.partition, self.offset)
        return self._origin

    @property
    def may_be_taken(self) -> bool:
        """Whether the platform may have it: it is in doubt, or was once and was posted again."""
        return self.reason == IN_DOUBT or self.facts.get("trackly.resent") == b"true"

    @property
    def value_omitted(self) -> bool:
        """Whether it was too large for its topic and was written without its value."""
        return "trackly.value_omitted" in self.facts


def spelled(position: Position) -> str:
    """Return a position in the form that commands accept."""
    (topic, number), offset = position
    return f"{topic}:{number}:{offset}"


def told_time(ms: int) -> str | None:
    """Return a time in ISO 8601, None if it is out of range: producers may set any timestamp."""
    return iso(ms) if 0 <= ms <= LAST_MS else None


def time_of(text: str | None) -> int | None:
    """Return an ISO 8601 time with offset in milliseconds since 1970, None if it is invalid."""
    try:
        moment = datetime.fromisoformat(text or "")
    except ValueError:
        return None
    return None if moment.utcoffset() is None else int(moment.timestamp() * 1_000)


def read_again(letter: Letter, value: bytes | None, redrive_topic: str) -> Chunk:
    """Return a dead letter, with this value, as its stream reads it when it is sent again.

    That is from the redrive topic, where its headers make it be shaped as at its origin.
    """
    return Chunk(
        Partition(redrive_topic, letter.partition.number),
        0,
        [letter.offset],
        [value],
        keys=[letter.key],
        headers=[letter.headers],
        timestamps=[letter.timestamp_ms],
    )


def letters_of(chunk: Chunk) -> Iterator[Letter]:
    """Yield the records of a chunk, which must have timestamps."""
    assert chunk.timestamps is not None
    partition, count = chunk.partition, len(chunk)
    keys = chunk.keys if chunk.keys is not None else [None] * count
    rows = chunk.headers if chunk.headers is not None else [None] * count
    for offset, time, key, value, row in zip(chunk.offsets, chunk.timestamps, keys, chunk.values, rows, strict=True):
        yield Letter(partition, offset, time, key, value, Facts(row or []))
