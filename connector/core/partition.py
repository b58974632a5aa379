"""What a worker knows of a partition that it owns: what is settled, in flight or in doubt, and how far it is read."""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from connector.core.chunks import Partition
from connector.core.progress import Progress, encode
from connector.core.ranges import Range, RangeSet

MAX_READS: Final = 1_000
"""Reads whose times are kept separately: behind a record that waits for days there are millions."""


@dataclass(slots=True, eq=False)
class PartitionState:
    """What this worker knows of a partition that it owns."""

    partition: Partition
    epoch: int
    base: int
    birth: int
    settled: RangeSet
    doubt: RangeSet
    """Posted by some worker, fate unknown, not yet settled: listed as in flight until they are."""
    next_read: int
    horizon: int
    """The progress read at assignment says nothing about offsets from here on."""
    active: dict[int, list[Range]] = field(default_factory=dict)
    revoking: bool = False
    held: bool = False
    committed: Progress = field(default_factory=lambda: Progress(0))
    """The committed progress. It may list more as in flight than really is, and omit holes, but it never lists less."""
    committed_length: int = 0
    """Length of its metadata in characters."""
    holes: deque[Range] = field(default_factory=deque)
    """Offsets that do not exist in the topic, above everything that has to be listed, so that reading ahead takes no
    metadata."""
    reads: deque[tuple[int, int]] = field(default_factory=deque)
    """For each chunk that was read and is not completely settled (or for several together, if there are many): the
    offset after it, and when its oldest record was appended, in milliseconds since 1970."""

    @classmethod
    def at(cls, partition: Partition, epoch: int, progress: Progress, doubt: RangeSet) -> "PartitionState":
        """Return the state of a partition that starts at the progress that its last owner committed."""
        return cls(
            partition,
            epoch,
            progress.base,
            progress.birth,
            progress.settled.copy(),
            doubt,
            next_read=progress.base,
            horizon=max(progress.settled.stop, progress.in_flight.stop),
            committed=progress,
            committed_length=len(encode(progress)),
        )

    def note_read(self, oldest_ms: int) -> None:
        """Note the time of a chunk that was just read."""
        self.reads.append((self.next_read, oldest_ms))
        if len(self.reads) >= MAX_READS:
            self.reads = _thinned(self.reads)

    def in_flight(self) -> RangeSet:
        """Return all offsets that a crash now would leave in doubt."""
        ranges = self.doubt.copy()
        for listed in self.active.values():
            ranges.update(listed)
        return ranges

    def not_accepted(self) -> RangeSet:
        """Return what the committed progress lists as in flight and is not: withdrawn, or never posted."""
        ranges = self.committed.in_flight.copy()
        for start, stop in self.in_flight():
            ranges.discard(start, stop)
        return ranges

    def reach(self, top: int) -> None:
        """Settle the holes that begin at `top` or below: they lie between ranges that have to be listed anyway."""
        top = max(top, self.base, self.settled.stop)
        while self.holes and self.holes[0][0] <= top:
            start, stop = self.holes.popleft()
            self.settled.add(start, stop)
            top = max(top, stop)
        self.base = self.settled.advance(self.base)

    def adopt(self, settled: Iterable[Range], progress: Progress, length: int) -> bool:
        """Note a commit: what it settled, its progress and the length of that; return whether it has become shorter."""
        for start, stop in settled:
            self.settled.add(start, stop)
            self.doubt.discard(start, stop)
        self.base = self.settled.advance(self.base)
        while self.reads and self.reads[0][0] <= self.base:
            self.reads.popleft()
        is_shorter = length < self.committed_length
        self.committed, self.committed_length = progress, length
        return is_shorter


def _thinned(reads: deque[tuple[int, int]]) -> deque[tuple[int, int]]:
    """Merge neighbouring reads that lie within a small share of all offsets."""
    thinned: deque[tuple[int, int]] = deque()
    begin = previous = reads[0][0]
    together = 4 * (reads[-1][0] - begin) // len(reads)
    for stop, oldest_ms in reads:
        if len(thinned) > 1 and stop - begin <= together:  # it is not known where the first one begins
            thinned[-1] = stop, thinned[-1][1]
        else:
            begin = previous
            thinned.append((stop, oldest_ms))
        previous = stop
    return thinned
