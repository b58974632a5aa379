"""Records as columns: how consumed records travel, from the consumer to their outcome.

A record never becomes an object of its own. A `Chunk` holds the columns of records of one partition, in rising
offset order; a step that needs fewer of them takes a slice or picks indices. That is what keeps the cost of a
record at a few C calls.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

Headers = list[tuple[str, bytes | None]]


class Partition(NamedTuple):
    """A partition of a topic: a position is this and an offset, always all three."""

    topic: str
    number: int

    def __str__(self) -> str:
        return f"{self.topic}[{self.number}]"


@dataclass(slots=True, eq=False)
class Chunk:
    """Columns of records of one partition; every column that is there has the length of `offsets`.

    `epoch` is the assignment that the records were read under: a chunk of an older one is dropped wherever it is met.
    `wire` holds what goes into the request for each record; it is the `values` list itself when events are spliced.
    """

    partition: Partition
    epoch: int
    offsets: Sequence[int]
    values: list[bytes | None] = field(repr=False)
    keys: list[bytes | None] | None = field(default=None, repr=False)
    headers: list[Headers | None] | None = field(default=None, repr=False)
    timestamps: list[int] | None = field(default=None, repr=False)
    """Milliseconds since 1970 of each record; only kept where something asks for the age of a record."""
    lists: list[str] | None = field(default=None, repr=False)
    """The list of each record; only kept where the pace of lists needs it and a batch may hold several."""
    wire: list[bytes] | None = field(default=None, repr=False)
    joined: bytes | None = field(default=None, repr=False)
    """`wire` with commas in between, from when the records join a batch until they are posted. It is made early, while
    they are in the processor's cache: measured, that takes 9 ns for each, and the event loop 60 ns less."""
    key_bytes: int = -1
    """Bytes of all keys, counted when they are not given. A part has those of the whole: no key of it is longer."""
    oldest_ms: int = 0
    own_list: bool = False
    """Every record goes to the list that the settings name, none to one that its event names."""
    shaped: bool = False
    """What is posted was made of the values, and may be much smaller; both are kept, and counted."""
    resent: bool = False
    """The records were in doubt and are posted again because the operator chose so."""
    indices: Sequence[int] | None = field(default=None, repr=False)
    """Where each record stood in its request, once it was part of one and others of it went another way."""

    def __post_init__(self) -> None:
        if self.key_bytes < 0:
            self.key_bytes = 0 if self.keys is None else _length(self.keys)

    def __len__(self) -> int:
        return len(self.offsets)

    def key(self, index: int) -> bytes | None:
        """Return the key of a record."""
        return None if self.keys is None else self.keys[index]

    def header_list(self, index: int) -> Headers:
        """Return the headers of a record, empty when it had none."""
        return [] if self.headers is None else self.headers[index] or []

    def join(self) -> bytes:
        """Return `joined`, made now if it was not there."""
        if self.joined is None:
            assert self.wire is not None
            self.joined = b",".join(self.wire)
        return self.joined

    def slice(self, start: int, stop: int) -> "Chunk":
        """Return the records from `start` to before `stop`, as columns of their own."""
        if start == 0 and stop >= len(self.offsets):
            return self
        values = self.values[start:stop]
        wire = None if self.wire is None else values if self.wire is self.values else self.wire[start:stop]
        return Chunk(
            partition=self.partition,
            epoch=self.epoch,
            offsets=self.offsets[start:stop],
            values=values,
            keys=None if self.keys is None else self.keys[start:stop],
            headers=None if self.headers is None else self.headers[start:stop],
            timestamps=None if self.timestamps is None else self.timestamps[start:stop],
            lists=None if self.lists is None else self.lists[start:stop],
            wire=wire,  # type: ignore[arg-type] # a spliced column holds no null: tombstones never get this far
            key_bytes=self.key_bytes,
            oldest_ms=self.oldest_ms,
            own_list=self.own_list,
            shaped=self.shaped,
            resent=self.resent,
            indices=None if self.indices is None else self.indices[start:stop],
        )

    def pick(self, indices: Sequence[int]) -> "Chunk":
        """Return the records at `indices`, which rise, as columns of their own."""
        if len(indices) == len(self.offsets):
            return self
        values = [self.values[i] for i in indices]
        wire = None if self.wire is None else values if self.wire is self.values else [self.wire[i] for i in indices]
        return Chunk(
            partition=self.partition,
            epoch=self.epoch,
            offsets=[self.offsets[i] for i in indices],
            values=values,
            keys=None if self.keys is None else [self.keys[i] for i in indices],
            headers=None if self.headers is None else [self.headers[i] for i in indices],
            timestamps=None if self.timestamps is None else [self.timestamps[i] for i in indices],
            lists=None if self.lists is None else [self.lists[i] for i in indices],
            wire=wire,  # type: ignore[arg-type] # as in slice
            key_bytes=self.key_bytes,
            oldest_ms=self.oldest_ms,
            own_list=self.own_list,
            shaped=self.shaped,
            resent=self.resent,
            indices=None if self.indices is None else [self.indices[i] for i in indices],
        )


SMALL_BYTES = 1_000


def is_worth_joining(values: list[bytes]) -> bool:
    """Tell, by the first, whether values are so small that one call for all, joined, is cheaper than one for each.

    Where they are larger the copy costs more than the calls, and it does not stay in the cache for the next step.
    """
    return not values or len(values[0]) <= SMALL_BYTES


def _length(keys: list[bytes | None]) -> int:
    try:
        return len(b"".join(keys))  # type: ignore[arg-type] # where none is null this is twice as fast
    except TypeError:
        return len(b"".join(filter(None, keys)))


def source_bytes(chunk: Chunk) -> int:
    """Return the bytes of the values that what goes into requests was made of."""
    return sum(map(len, filter(None, chunk.values))) if chunk.shaped else 0


def weight(chunk: Chunk) -> int:
    """Return the bytes that a chunk keeps in memory, near enough for a budget."""
    if chunk.wire is not None:
        values = sum(map(len, chunk.wire)) + source_bytes(chunk)
    else:
        values = sum([len(v) for v in chunk.values if v is not None])
    keys = 0 if chunk.keys is None else sum([len(k) for k in chunk.keys if k is not None])
    # An empty bytes object takes 33 bytes and its place in a list 8; keys and mapped values the same again.
    overhead = 41 * len(chunk.offsets) * (2 if chunk.keys is None else 3)
    return values + keys + overhead
