"""What a dead letter says, whoever wrote it.

The connector's own carry `trackly.*`; those of Kafka Connect and of brokers (KIP-1191) tell less, and a record that
somebody copied may tell nothing. So every question has an answer for headers that are missing or foreign, and none
raises. Headers are bytes from anywhere: they are read as text with replacement.
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
"""The last time of the year 9999, beyond which there is no way to write one."""

UNKNOWN = "unknown"
"""The reason of a record whose headers name none."""

IN_DOUBT = "in_doubt"


@dataclass(frozen=True, slots=True)
class Layout:
    """Which header stands where, in records that have the same names in the same order: found out once for all."""

    places: dict[str, int]
    """The last place of each name."""
    foreign: tuple[int, ...]
    """Places of the headers that do not tell of a failure."""


@lru_cache(maxsize=1_000)
def _layout(names: tuple[str, ...]) -> Layout:
    places = {name: place for place, name in enumerate(names)}
    return Layout(places, tuple(i for i, name in enumerate(names) if not name.startswith(FAILURE_PREFIXES)))


def layout_of(headers: Headers) -> Layout:
    """Return the layout of headers. Measured: a dict of some thirty headers takes three times as long."""
    return _layout(tuple([name for name, _ in headers]))


class Facts:
    """The headers of a record by name, the last of a name winning."""

    __slots__ = ("headers", "layout")

    def __init__(self, headers: Headers) -> None:
        self.headers = headers
        self.layout = layout_of(headers)

    def get(self, name: str) -> bytes | None:
        """Return a header, None when it is not there or null."""
        place = self.layout.places.get(name)
        return None if place is None else self.headers[place][1]

    def __contains__(self, name: str) -> bool:
        return name in self.layout.places

    def foreign(self) -> Headers:
        """Return the headers that do not tell of a failure, in their order."""
        headers = self.headers
        return [headers[place] for place in self.layout.foreign]


def text_of(facts: Facts, *names: str) -> str | None:
    """Return the first of some headers that is there and not empty, as text."""
    for name in names:
        value = facts.get(name)
        if value:
            return value.decode(errors="replace")
    return None


def reason_of(facts: Facts) -> str:
    """Return the reason; of a dead letter of Kafka Connect, the class of its exception without the package."""
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
        """Its headers, in their order."""
        return self.facts.headers

    @property
    def position(self) -> str:
        """Where it lies: `topic:partition:offset`."""
        return spelled((self.partition, self.offset))

    @property
    def reason(self) -> str:
        """Why it is one."""
        return reason_of(self.facts)

    @property
    def failed_ms(self) -> int:
        """When the record failed, in milliseconds since 1970: a copy, as of what is parked, may be written later."""
        told = time_of(text_of(self.facts, "trackly.failed_at"))
        return self.timestamp_ms if told is None else min(told, self.timestamp_ms)

    @property
    def stream(self) -> str | None:
        """Which stream wrote it, None for one that is foreign."""
        return text_of(self.facts, "trackly.stream")

    @property
    def code(self) -> str | None:
        """The platform's own code."""
        return text_of(self.facts, "trackly.code")

    @property
    def text(self) -> str | None:
        """What was said about it, in words; may repeat some of the record."""
        return text_of(self.facts, "trackly.text", "__connect.errors.exception.message", "__dlq.errors.message")

    @property
    def status(self) -> int | None:
        """The HTTP status of the last answer."""
        return number_of(self.facts.get("trackly.http_status"))

    @property
    def attempts(self) -> int | None:
        """Requests that held it."""
        return number_of(self.facts.get("trackly.attempts"))

    @property
    def redrives(self) -> int:
        """How often it was sent again."""
        return redrives_of(self.facts)

    @property
    def source(self) -> Position | None:
        """Where the record was read that failed, None where nothing tells."""
        facts = self.facts
        for prefix in ("__connect.errors.", "__dlq.errors."):
            topic, number = text_of(facts, f"{prefix}topic"), number_of(facts.get(f"{prefix}partition"))
            offset = number_of(facts.get(f"{prefix}offset"))
            if topic is not None and number is not None and offset is not None:
                return Partition(topic, number), offset
        return None

    @property
    def origin(self) -> Position:
        """Where the record first failed: what tells it from all others, for good."""
        if self._origin is None:
            self._origin = origin_of(self.facts) or self.source or (self.partition, self.offset)
        return self._origin

    @property
    def may_be_taken(self) -> bool:
        """The platform may have it: it is in doubt, or was once and was posted again."""
        return self.reason == IN_DOUBT or self.facts.get("trackly.resent") == b"true"

    @property
    def value_omitted(self) -> bool:
        """It was too large for its topic and stands there without its value."""
        return "trackly.value_omitted" in self.facts


def spelled(position: Position) -> str:
    """Return a position as commands take it."""
    (topic, number), offset = position
    return f"{topic}:{number}:{offset}"


def told_time(ms: int) -> str | None:
    """Return a time as ISO 8601 has it, None for what is none: whoever produces may stamp a record with anything."""
    return iso(ms) if 0 <= ms <= LAST_MS else None


def time_of(text: str | None) -> int | None:
    """Return an ISO 8601 time with an offset in milliseconds since 1970, None for what is none."""
    try:
        moment = datetime.fromisoformat(text or "")
    except ValueError:
        return None
    return None if moment.utcoffset() is None else int(moment.timestamp() * 1_000)


def read_again(letter: Letter, value: bytes | None, redrive_topic: str) -> Chunk:
    """Return a dead letter, with this value, as its stream reads it when it is sent again.

    That is from its redrive topic, where it is shaped by its headers as at its origin.
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
    """Yield the records of a chunk, which has its timestamps."""
    assert chunk.timestamps is not None
    partition, count = chunk.partition, len(chunk)
    keys = chunk.keys if chunk.keys is not None else [None] * count
    rows = chunk.headers if chunk.headers is not None else [None] * count
    for offset, time, key, value, row in zip(chunk.offsets, chunk.timestamps, keys, chunk.values, rows, strict=True):
        yield Letter(partition, offset, time, key, value, Facts(row or []))
