"""Partitions whose commit metadata is full, and what may still proceed on them.

The metadata of a committed offset, which lists what is settled and in flight above it, has limited room. When that is
used up, the records that the committed offset waits for always proceed, since settling them makes room. Everything else
on the partition waits, in three steps: first records that were never posted, then those that were, then results.
"""

from collections.abc import Callable, Iterable
from typing import Final

from connector.core.chunks import Chunk, Partition

ROOM_TO_START: Final = 0.5
ROOM_TO_TRY_AGAIN: Final = 0.65
ROOM_TO_SETTLE: Final = 0.75
ROOM_FOR_THE_OLDEST: Final = 0.96
"""Shares of the metadata that a tick may fill. Records that start leave room for results, which split ranges. Records
that were posted before may fill more than those that were not: they lie between ranges that are listed anyway, and
settling them makes room. Results leave room for starting the oldest records, several at a time: with those the
committed offset advances, and all the rest gets shorter. The last few characters are for starting a single oldest
record, so that there is always a way on."""


class MetadataRoom:
    """Which partitions have no room, and for what; `is_oldest` tells whether a chunk starts at the committed offset."""

    def __init__(self, is_oldest: Callable[[Chunk], bool]) -> None:
        self._is_oldest = is_oldest
        self.full: set[Partition] = set()
        """No room for records that were never posted, until a commit is shorter."""
        self.full_for_retries: set[Partition] = set()
        """Those of `full` with no room for records that were posted before either, until the next commit."""
        self.stuck: set[Partition] = set()
        """Those of `full` with no room for results either, until the next commit."""

    def note(self, partition: Partition, *, stuck: bool = False) -> None:
        """Note that the metadata had no room for all that a tick had for a partition; if `stuck`, not for a result."""
        (self.full_for_retries if partition in self.full else self.full).add(partition)
        if stuck:
            self.stuck.add(partition)

    def committed(self, partition: Partition, *, shorter: bool) -> None:
        """Note a commit: what had no room may try again."""
        if shorter:
            self.full.discard(partition)
        self.full_for_retries.discard(partition)
        self.stuck.discard(partition)

    def forget(self, partition: Partition) -> None:
        """Forget a partition that was released."""
        self.committed(partition, shorter=True)

    def room_to_start(self, partition: Partition) -> float:
        """Return the share of the metadata that a tick may fill when it starts records of the partition."""
        return ROOM_TO_TRY_AGAIN if partition in self.full else ROOM_TO_START

    def must_wait(self, chunks: Iterable[Chunk], full: set[Partition]) -> bool:
        """Return whether records must wait together: some are of `full` partitions, and none is the oldest there."""
        if not full:
            return False
        waits = False
        for chunk in chunks:
            waits = waits or chunk.partition in full
            if self._is_oldest(chunk):
                return False
        return waits

    def part_must_wait(self, chunks: Iterable[Chunk], full: set[Partition]) -> bool:
        """Return whether the records of `full` partitions must wait, as none is the oldest; the others may go."""
        return bool(full) and self.must_wait([chunk for chunk in chunks if chunk.partition in full], full)

    def first_to_start(self, chunks: Iterable[Chunk]) -> int:
        """Return the index from which a part of these records may start: that of an oldest one, 0 if none needs it."""
        at = 0
        for chunk in chunks if self.full else ():
            if chunk.partition in self.full and self._is_oldest(chunk):
                return at
            at += len(chunk)
        return 0
