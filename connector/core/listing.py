"""Under which listing offsets are in flight: from the start of their batch until their results are written.

A listing has a serial number. It begins when the tick that starts a batch has committed, and shrinks as parts of the
batch are withdrawn; an answer does not end it, since the next owner would post the records again. Both parts of an item
whose results are written by two ticks keep a listing, each its own.
"""

from collections.abc import Iterable, Mapping

from connector.core.chunks import Chunk, Partition
from connector.core.partition import PartitionState
from connector.core.ranges import Range, runs


def ranges_of(chunks: Iterable[Chunk]) -> dict[Partition, list[Range]]:
    """Return the offsets of records by partition, as ranges in the order of the chunks."""
    ranges: dict[Partition, list[Range]] = {}
    for chunk in chunks:
        ranges.setdefault(chunk.partition, []).extend(runs(chunk.offsets))
    return ranges


def enlist(partitions: Mapping[Partition, PartitionState], serial: int, chunks: Iterable[Chunk]) -> None:
    """List records of these partitions under a new serial."""
    for partition, ranges in ranges_of(chunks).items():
        partitions[partition].active[serial] = ranges


def relist(
    partitions: Mapping[Partition, PartitionState], serial: int, before: Iterable[Chunk], after: Iterable[Chunk]
) -> set[Partition]:
    """Change a listing of the chunks `before` to one of those `after`; return the partitions that still had it."""
    listed, changed = ranges_of(after), set()
    for partition in {chunk.partition for chunk in before}:
        state = partitions.get(partition)
        if state is not None and serial in state.active:
            if partition in listed:
                state.active[serial] = listed[partition]
            else:
                del state.active[serial]
            changed.add(partition)
    return changed
