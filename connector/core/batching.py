"""Which records share a request: cut by count and exact bytes, closed by a window.

A batch closes when the next record would exceed a limit (`count`, `bytes`), when its first record has waited for the
window and the batch could start (`window`), or because everything must go out now (`drain`). The first record of a
batch always fits: one that is too large for a request of its own was rejected before it got here.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate, pairwise
from typing import Literal

from connector.core.chunks import Chunk, Partition, below, source_bytes, split
from connector.core.sizing import ByteLimit

ClosedBy = Literal["count", "bytes", "window", "drain"]

RECORD_BYTES = 120
BATCH_BYTES = 250
CHUNK_BYTES = 450
"""Memory of a record, a batch and each of its chunks besides the bytes of the records; for batches of one record this
is most of it."""


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """Limits of a request: records, bytes of the whole body, and how long its first record may wait."""

    max_records: int
    max_bytes: int
    window_secs: float
    envelope_bytes: int
    """Bytes of a body without records."""


@dataclass(slots=True, eq=False)
class Batch:
    """Records that go into one request together, and the history of their attempts.

    A record's index in the request is its position in the concatenation of `chunks`.
    """

    id: str
    lane: str | None
    chunks: tuple[Chunk, ...] = field(repr=False)
    count: int
    size: int
    closed_by: ClosedBy
    attempts: int = 0
    """Requests that were answered or lost; one that was not sent does not count. Halves of a batch that failed start at
    0 again, other parts keep the count."""
    failures: int = 0
    """Attempts that say something about the batch's own records: not those that failed while everything did, or were
    told to wait. A single record is given up after `retry.max_attempts` of them."""
    first_failed_at: float | None = None
    last_failed_at: float | None = None
    sent_ms: int = 0
    """When it, or the batch that it was cut from, was last posted, in milliseconds since 1970; 0 if never."""
    blocked_at: float | None = None
    """When a gateway or firewall in front of the platform last rejected it."""
    family: int = 0
    """The same for all batches that were cut from one another: they count as one suspect, not several."""
    suspect: bool = False
    """It, or the batch that it was cut from, failed repeatedly while others passed, or was overtaken by them."""
    trace: str | None = None
    """With tracing: the context of the span of its last request, in the format of the header `traceparent`."""
    bytes: int = -1
    """Memory for the buffer budget: records, what they were made from, and objects; computed if not given."""

    def __post_init__(self) -> None:
        if self.bytes < 0:
            sources = sum([source_bytes(chunk) for chunk in self.chunks])
            objects = RECORD_BYTES * self.count + CHUNK_BYTES * len(self.chunks) + BATCH_BYTES
            self.bytes = self.size + sources + objects

    @property
    def was_posted(self) -> bool:
        """Return whether any of its records were posted before, by this worker or an earlier one."""
        return self.sent_ms > 0 or any(chunk.resent for chunk in self.chunks)

    def split(self, indices: Sequence[int]) -> tuple[tuple[Chunk, ...], tuple[Chunk, ...]]:
        """Return the chunks of the records at `indices` (ascending), and those of all others."""
        return split(self.chunks, indices)

    def older_than(self, limit_ms: int | None) -> list[int]:
        """Return the indices of records with a timestamp before `limit_ms`; none if that is None."""
        firsts = accumulate(map(len, self.chunks), initial=0)
        olds = [chunk.older_than(limit_ms) for chunk in self.chunks]
        return [first + index for first, old in zip(firsts, olds, strict=False) for index in old]

    def piece(self, chunks: Iterable[Chunk], batch_id: str, *, envelope_bytes: int) -> "Batch":
        """Return a batch of its own with some of the records, which keeps the history of their attempts."""
        own = tuple(chunk if chunk.indices is None else replace(chunk, indices=None) for chunk in chunks)
        count, size = sum(map(len, own)), wire_size(own, envelope_bytes)
        return replace(self, id=batch_id, chunks=own, count=count, size=size, bytes=-1)

    def only(self, wanted: Callable[[Chunk], bool]) -> "Batch | None":
        """Return the batch with the chunks for which `wanted` is true: itself if it is for all, None if for none."""
        chunks = [chunk for chunk in self.chunks if wanted(chunk)]
        if len(chunks) == len(self.chunks):
            return self
        return self.piece(chunks, self.id, envelope_bytes=self._envelope_bytes) if chunks else None

    def divide(self, indices: Sequence[int], batch_ids: tuple[str, str]) -> tuple["Batch", "Batch"]:
        """Return the records at `indices` (ascending), and all others, as two batches; neither may be empty."""
        envelope_bytes = self._envelope_bytes
        chosen, others = (
            self.piece(chunks, batch_id, envelope_bytes=envelope_bytes)
            for chunks, batch_id in zip(self.split(indices), batch_ids, strict=True)
        )
        return chosen, others

    def cut(self, cuts: Mapping[Partition, int | None]) -> tuple["Batch | None", "Batch | None"]:
        """Return the records below the cut of their partition, and all others, as `below` has it; None for none."""
        inside = below(self.chunks, cuts)
        if not inside or len(inside) == self.count:
            return (self, None) if inside else (None, self)
        return self.divide(inside, (f"{self.id}.0", f"{self.id}.1"))

    @property
    def _envelope_bytes(self) -> int:
        return self.size - wire_size(self.chunks, 0)

    def parts(self, number: int) -> list[tuple[Chunk, ...]]:
        """Return the chunks of up to `number` parts of the records, none empty; sizes differ by at most one record."""
        number = min(number, self.count)
        parts = []
        for low, high in pairwise([self.count * part // number for part in range(number + 1)]):
            chunks, first = [], 0
            for chunk in self.chunks:
                start, stop = max(low - first, 0), min(high - first, len(chunk))
                if start < stop:
                    chunks.append(chunk.slice(start, stop))
                first += len(chunk)
            parts.append(tuple(chunks))
        return parts


def wire_size(chunks: Iterable[Chunk], envelope_bytes: int) -> int:
    """Return the exact size in bytes of a request body with these records, including commas and envelope."""
    return max(sum([chunk.wire_bytes for chunk in chunks]) - 1, 0) + envelope_bytes


@dataclass(slots=True)
class _Open:
    """A batch that still takes records; `size` counts a comma after each record, `kept` all bytes in memory."""

    deadline: float
    chunks: list[Chunk] = field(default_factory=list)
    count: int = 0
    size: int = 0
    kept: int = 0


class Batcher:
    """Collects prepared chunks into batches, one open batch per lane (a list number at top level, or None)."""

    def __init__(self, limits: BatchLimits, id_prefix: str) -> None:
        self.limits = limits
        self.byte_limit = ByteLimit(limits.max_bytes)
        self.open_bytes = 0
        self._open: dict[str | None, _Open] = {}
        self._prefix = id_prefix
        self._serial = 0

    @property
    def open_records(self) -> int:
        """How many records are in open batches."""
        return sum(held.count for held in self._open.values())

    def next_id(self) -> tuple[str, int]:
        """Return a new batch id and its serial number."""
        self._serial += 1
        return f"{self._prefix}-{self._serial:x}", self._serial

    def add(self, lane: str | None, chunk: Chunk, *, now: float) -> list[Batch]:
        """Add prepared records of a lane, whose wait began at `now`, and return the batches that this closed."""
        assert chunk.wire is not None
        limits = self.limits
        room_bytes = self.byte_limit.limit - limits.envelope_bytes + 1  # the last record has no comma
        closed: list[Batch] = []
        held = self._open.get(lane)
        totals: list[int] | None = None
        start = 0
        while start < len(chunk):
            if held is None:
                held = self._open[lane] = _Open(now + limits.window_secs)
            elif now + limits.window_secs < held.deadline:  # it has already waited, for its key or its list
                held.deadline = now + limits.window_secs
            stop = min(start + limits.max_records - held.count, len(chunk))
            if totals is not None:
                stop = min(stop, _fitting(totals, start, room_bytes - held.size, alone=held.count == 0))
            if stop > start:
                part = chunk.slice(start, stop).pack()
                taken = part.wire_bytes
                if totals is None and held.size + taken > room_bytes:
                    totals = [0, *accumulate([len(record) + 1 for record in chunk.wire])]
                    continue  # cut by bytes instead
                held.chunks.append(part)
                held.count += stop - start
                held.size += taken
                kept = taken + source_bytes(part)
                held.kept += kept
                self.open_bytes += kept
                start = stop
            if start < len(chunk) or held.count >= limits.max_records:
                closed.append(self._close(lane, "count" if held.count >= limits.max_records else "bytes"))
                held = None
        return closed

    def due(self, *, now: float, at_most: int | None = None) -> list[Batch]:
        """Close the batches whose window has passed, those that have waited longest first.

        If only `at_most` batches can start, the others stay open: they had better wait for more records than for a
        slot.
        """
        if not self._open:
            return []
        due = [(held.deadline, lane) for lane, held in self._open.items() if held.deadline <= now]
        if at_most is not None and at_most < len(due):
            due.sort(key=lambda waiting: waiting[0])
            due = due[:at_most]
        return [self._close(lane, "window") for _, lane in due]

    def drain(self) -> list[Batch]:
        """Close every open batch."""
        return [self._close(lane, "drain") for lane in list(self._open)]

    def keep(self, wanted: Callable[[Chunk], bool]) -> None:
        """Drop the chunks for which `wanted` is false from the open batches."""
        for lane, held in list(self._open.items()):
            held.chunks = [chunk for chunk in held.chunks if wanted(chunk)]
            held.count = sum(map(len, held.chunks))
            held.size = sum([chunk.wire_bytes for chunk in held.chunks])
            self.open_bytes -= held.kept
            held.kept = held.size + sum(map(source_bytes, held.chunks))
            self.open_bytes += held.kept
            if not held.chunks:
                del self._open[lane]

    def next_deadline(self) -> float | None:
        """Return when the next window passes, or None when no batch is open."""
        return min((held.deadline for held in self._open.values()), default=None)

    def _close(self, lane: str | None, closed_by: ClosedBy) -> Batch:
        held = self._open.pop(lane)
        self.open_bytes -= held.kept
        batch_id, serial = self.next_id()
        size = held.size - 1 + self.limits.envelope_bytes
        return Batch(batch_id, lane, tuple(held.chunks), held.count, size, closed_by, family=serial)


def _fitting(totals: list[int], start: int, room: int, *, alone: bool) -> int:
    """Return the end index of the records from `start` on that fit into `room` bytes; at least one record if `alone`.

    `totals` are running sums of record sizes including a comma each, starting with 0.
    """
    stop = bisect_right(totals, totals[start] + room) - 1
    return start + 1 if alone and stop <= start else stop
