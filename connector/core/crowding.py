"""Partitions whose metadata is full, and what may go on there all the same.

A committed offset says what is settled and in flight above it, in so many characters. Where those are used up, what
holds the committed offset goes on in any case, as its end makes room; all else there waits, in three steps: first what
was never posted, then what was posted before, then results.
"""

from collections.abc import Callable, Iterable

from connector.core.chunks import Chunk, Partition
from connector.core.partition import ROOM_TO_START, ROOM_TO_TRY_AGAIN


class Crowding:
    """Which partitions have no room, and for what; `is_oldest` tells if a chunk begins with the committed offset."""

    def __init__(self, is_oldest: Callable[[Chunk], bool]) -> None:
        self._is_oldest = is_oldest
        self.full: set[Partition] = set()
        """No room for more records that were never posted, until a commit is shorter."""
        self.crammed: set[Partition] = set()
        """Of those: none for what was posted before either, until the next commit."""
        self.stuck: set[Partition] = set()
        """Of those: none for results either, until the next commit."""

    def note(self, partition: Partition, *, stuck: bool = False) -> None:
        """Take note that there was no room for all that a tick had for a partition; `stuck`, not for a result."""
        (self.crammed if partition in self.full else self.full).add(partition)
        if stuck:
            self.stuck.add(partition)

    def committed(self, partition: Partition, *, shorter: bool) -> None:
        """Take note of a commit: what had no room may try again."""
        if shorter:
            self.full.discard(partition)
        self.crammed.discard(partition)
        self.stuck.discard(partition)

    def forget(self, partition: Partition) -> None:
        """Forget a partition that was let go."""
        self.committed(partition, shorter=True)

    def room_to_start(self, partition: Partition) -> float:
        """Return the share of the metadata that a tick may fill in which records of the partition start."""
        return ROOM_TO_TRY_AGAIN if partition in self.full else ROOM_TO_START

    def keeps(self, chunks: Iterable[Chunk], crowded: set[Partition]) -> bool:
        """Tell whether records must wait together, as some are of `crowded` partitions and none is the oldest."""
        if not crowded:
            return False
        waits = False
        for chunk in chunks:
            waits = waits or chunk.partition in crowded
            if self._is_oldest(chunk):
                return False
        return waits

    def keeps_part(self, chunks: Iterable[Chunk], crowded: set[Partition]) -> bool:
        """Tell whether those of `crowded` partitions must wait, as none of them is the oldest; others may go."""
        return bool(crowded) and self.keeps([chunk for chunk in chunks if chunk.partition in crowded], crowded)
