"""Records as columns: how consumed records travel, from the consumer to their outcome.

A record never becomes an object of its own. A `Chunk` holds the columns of records of one partition, in ascending
offset order; a step that needs fewer of them takes a slice or picks indices. This keeps the cost of a record at a few C
calls.
"""

import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any, Final, NamedTuple

from connector.core.packing import PackedKeys, PackedValues, packed, unpacked

Headers = list[tuple[str, bytes | None]]

_TEXT_FORM: Final = re.compile(r"([^:\[\] ]+)(?::([0-9]{1,9})| ?\[([0-9]{1,9})\])")


class Partition(NamedTuple):
    """A partition of a topic. A position is always a partition and an offset."""

    topic: str
    number: int

    def __str__(self) -> str:
        """Return `topic:number`, the form that our commands and Kafka's own tools accept."""
        return f"{self.topic}:{self.number}"

    @classmethod
    def read(cls, text: str) -> "Partition":
        """Parse `topic:number`, or kcat's `topic [number]`; raises `ValueError`."""
        found = _TEXT_FORM.fullmatch(text)
        if found is None:
            raise ValueError("should be TOPIC:NUMBER")
        return cls(found[1], int(found[2] or found[3]))


@dataclass(slots=True, eq=False)
class Chunk:
    """Columns of records of one partition; every column that is not None has the length of `offsets`.

    `epoch` numbers the assignment under which the records were read: a chunk of an older one is dropped wherever it
    turns up. `wire` holds what goes into the request for each record; if events are posted as they are, it is the
    `values` column itself.
    """

    partition: Partition
    epoch: int
    offsets: Sequence[int]
    values: Sequence[bytes | None] = field(repr=False)
    keys: Sequence[bytes | None] | None = field(default=None, repr=False)
    headers: list[Headers | None] | None = field(default=None, repr=False)
    timestamps: list[int] | None = field(default=None, repr=False)
    """Milliseconds since 1970; only present if something needs the age of a record."""
    lists: list[str] | None = field(default=None, repr=False)
    """List number of each record; only present with a pace and a batch that may hold several lists."""
    wire: Sequence[bytes] | None = field(default=None, repr=False)
    key_bytes: int = -1
    """Bytes of all keys; computed if not given. A slice keeps the value of the whole chunk, as an upper bound for one
    key."""
    header_bytes: int = -1
    """Approximate memory of one record's headers, in bytes, for the buffer budget; computed if not given. A slice keeps
    it."""
    oldest_ms: int = 0
    own_list: bool = False
    """Every record goes to the list of the settings, whether or not its event names that list."""
    resent: bool = False
    """The records were in doubt and are posted again because the operator chose so."""
    indices: Sequence[int] | None = field(default=None, repr=False)
    """Index of each record in its request, once the records of that request were split up."""

    def __post_init__(self) -> None:
        if self.key_bytes < 0:
            self.key_bytes = 0 if self.keys is None else _length(self.keys)
        if self.header_bytes < 0:
            self.header_bytes = 0 if self.headers is None else _each(self.headers)

    def __len__(self) -> int:
        return len(self.offsets)

    def key(self, index: int) -> bytes | None:
        """Return the key of a record."""
        return None if self.keys is None else self.keys[index]

    def header_list(self, index: int) -> Headers:
        """Return the headers of a record, empty when it had none."""
        return [] if self.headers is None else self.headers[index] or []

    def older_than(self, limit_ms: int | None) -> list[int]:
        """Return the indices of records with a timestamp before `limit_ms`; none if that is None."""
        if limit_ms is None or self.timestamps is None or min(self.timestamps) >= limit_ms:
            return []
        return [index for index, timestamp in enumerate(self.timestamps) if is_older(timestamp, limit_ms)]

    @property
    def wire_bytes(self) -> int:
        """Bytes of the records in a request, including a comma after each."""
        wire = self.wire
        if not wire:
            return 0
        return len(wire.joined) + 1 if isinstance(wire, PackedValues) else sum(map(len, wire)) + len(wire)

    def join(self) -> bytes:
        """Return the records as they go into a request, separated by commas."""
        assert self.wire is not None
        return self.wire.joined if isinstance(self.wire, PackedValues) else b",".join(self.wire)

    def pack(self) -> "Chunk":
        """Return the chunk with packed columns. Done early, while they are in the CPU cache."""
        assert self.wire is not None
        if len(self) < PACKED_RECORDS:
            return self
        wire = packed(self.wire, PackedValues)
        values = wire if self.wire is self.values else packed(self.values, PackedValues)
        keys = None if self.keys is None else packed(self.keys, PackedKeys)
        return replace(self, wire=wire, values=values, keys=keys)

    def slice(self, start: int, stop: int) -> "Chunk":
        """Return the records from index `start` up to, but not including, `stop`."""
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
            wire=wire,  # type: ignore[arg-type] # if shared with `values`, it holds no null: tombstones never get here
            key_bytes=self.key_bytes,
            header_bytes=self.header_bytes,
            oldest_ms=self.oldest_ms,
            own_list=self.own_list,
            resent=self.resent,
            indices=None if self.indices is None else self.indices[start:stop],
        )

    def pick(self, indices: Sequence[int]) -> "Chunk":
        """Return the records at `indices` (ascending)."""
        if len(indices) == len(self.offsets):
            return self
        values = _picked(self.values, indices)
        wire = None if self.wire is None else values if self.wire is self.values else _picked(self.wire, indices)
        return Chunk(
            partition=self.partition,
            epoch=self.epoch,
            offsets=[self.offsets[i] for i in indices],
            values=values,
            keys=None if self.keys is None else _picked(self.keys, indices),
            headers=None if self.headers is None else [self.headers[i] for i in indices],
            timestamps=None if self.timestamps is None else [self.timestamps[i] for i in indices],
            lists=None if self.lists is None else [self.lists[i] for i in indices],
            wire=wire,
            key_bytes=self.key_bytes,
            header_bytes=self.header_bytes,
            oldest_ms=self.oldest_ms,
            own_list=self.own_list,
            resent=self.resent,
            indices=None if self.indices is None else [self.indices[i] for i in indices],
        )


def is_older(timestamp: int, limit_ms: int) -> bool:
    """Return whether a timestamp is before `limit_ms`; a missing one (-1) never is."""
    return 0 <= timestamp < limit_ms


def split(chunks: Iterable[Chunk], indices: Sequence[int]) -> tuple[tuple[Chunk, ...], tuple[Chunk, ...]]:
    """Return the records at `indices` (ascending) of a request, and all others; each keeps its index in the request."""
    chosen, others = [], []
    start = low = 0
    for chunk in chunks:
        stop = start + len(chunk)
        high = low
        while high < len(indices) and indices[high] < stop:
            high += 1
        whole = chunk if chunk.indices is not None else replace(chunk, indices=range(start, stop))
        if high > low:
            picked = [i - start for i in indices[low:high]]
            chosen.append(whole.pick(picked))
            if len(picked) < len(chunk):
                inside = set(picked)
                others.append(whole.pick([i for i in range(len(chunk)) if i not in inside]))
        else:
            others.append(whole)
        start, low = stop, high
    return tuple(chosen), tuple(others)


def below(chunks: Iterable[Chunk], cuts: Mapping[Partition, int | None]) -> list[int]:
    """Return the indices of the records below the cut of their partition, an offset; with None, or no cut, of all."""
    inside: list[int] = []
    start = 0
    for chunk in chunks:
        cut = cuts.get(chunk.partition)
        inside += range(start, start + (len(chunk) if cut is None else bisect_left(chunk.offsets, cut)))
        start += len(chunk)
    return inside


def locate(chunks: Iterable[Chunk], index: int) -> tuple[Chunk, int]:
    """Return the chunk that holds the record at `index` of all of them, and the record's index in that chunk."""
    for chunk in chunks:
        if index < len(chunk):
            return chunk, index
        index -= len(chunk)
    raise IndexError(index)


def in_order(chunks: Iterable[Chunk]) -> Iterator[Chunk]:
    """Yield chunks of one partition, cut and sorted so that offsets ascend from each piece to the next."""
    left = sorted(chunks, key=_first)
    while left:
        piece, *left = left
        stop = bisect_left(piece.offsets, _first(left[0])) if left else len(piece)
        yield piece.slice(0, stop)
        if stop < len(piece):
            left = sorted([piece.slice(stop, len(piece)), *left], key=_first)


def _first(chunk: Chunk) -> int:
    return chunk.offsets[0]


def _picked(column: Sequence[Any], indices: Sequence[int]) -> list[Any]:
    column = unpacked(column)
    return [column[i] for i in indices]


def _length(keys: Sequence[bytes | None]) -> int:
    try:
        return len(b"".join(keys))  # type: ignore[arg-type] # twice as fast where no key is null
    except TypeError:
        return len(b"".join(filter(None, keys)))


PACKED_RECORDS = 20
"""Chunks of fewer records are not packed: it would cost more than it saves."""

OBJECT_BYTES = 41
"""An empty bytes object takes 33 bytes, and its slot in a list 8."""


HEADER_BYTES = 160
"""Memory of a header besides its characters: 49 bytes for a name of its own, 33 for the value, 56 for their tuple, 8
for its slot; the rest is its share of the record's list."""

SAMPLED = 50
"""Records of a chunk whose headers are measured: measuring all of them would cost too much."""


def _each(headers: Sequence[Headers | None]) -> int:
    """Return the bytes of memory that a record's headers take, averaged over a sample."""
    sample = headers[:: len(headers) // SAMPLED + 1]
    found = list(chain.from_iterable(filter(None, sample)))
    characters = sum(map(len, filter(None, chain.from_iterable(found))))
    return (characters + HEADER_BYTES * len(found)) // max(len(sample), 1)


KEY_BYTES = 50
"""Size of a usual key, which is already included in the fixed cost of a record."""


def source_bytes(chunk: Chunk) -> int:
    """Return the bytes of memory kept besides the request's bytes.

    These are headers, values (if the request's bytes were made from them) and the part of keys beyond the usual size:
    keys of change data capture are JSON objects.
    """
    return _beside(chunk) + large_key_bytes(chunk)


def large_key_bytes(chunk: Chunk) -> int:
    """Return the bytes of memory of the keys beyond their usual size."""
    return 0 if chunk.keys is None else max(_memory(chunk.keys) - KEY_BYTES * len(chunk), 0)


def _beside(chunk: Chunk) -> int:
    made = 0 if chunk.wire is None or chunk.wire is chunk.values else _memory(chunk.values)
    return made + chunk.header_bytes * len(chunk)


def weight(chunk: Chunk) -> int:
    """Return the approximate memory of a chunk in bytes, for the buffer budget."""
    wire = chunk.values if chunk.wire is None else chunk.wire
    keys = 0 if chunk.keys is None else _memory(chunk.keys)
    return _memory(wire) + _beside(chunk) + keys + OBJECT_BYTES * len(chunk)  # for the other columns


def _memory(column: Sequence[bytes | None]) -> int:
    if isinstance(column, PackedValues | PackedKeys):
        return len(column.joined) + 4 * len(column)
    return sum(map(len, filter(None, column))) + OBJECT_BYTES * len(column)
