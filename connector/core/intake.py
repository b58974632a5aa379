"""What becomes of records that were just read: which are new, which were in flight, and which are settled already.

A worker begins to read a partition at its committed offset, above which an earlier owner may have settled records, and
may have had others in flight. Those it settled are dropped, and those it had in flight are kept apart: they may have
been accepted. What lies between the records does not exist in the topic (compaction, transaction markers, aborted
records), and must not keep the committed offset from advancing.
"""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from connector.core.chunks import Chunk
from connector.core.partition import PartitionState
from connector.core.ranges import Range, runs
from connector.core.remembered import Remembered
from connector.core.results import Finished


@dataclass(frozen=True, slots=True)
class Intake:
    """The records of a chunk, sorted: those that are new, and those that an earlier worker had in flight."""

    fresh: tuple[Chunk, ...]
    doubtful: tuple[Chunk, ...]
    answered: tuple[Finished, ...] = ()
    """Results of records that this worker itself had in flight and knows the answers for; to be queued."""
    vanished: int = 0
    """How many offsets in doubt are no longer in the topic: settled without a result, as there is nothing to write."""
    passed_over: int = 0
    """How many offsets between the records do not exist in the topic."""


NOTHING = Intake((), ())


def take_in(chunk: Chunk, state: PartitionState, remembered: Remembered) -> Intake:
    """Sort the records of a chunk of this partition that was just read, and note how far it is read."""
    # Everything below the committed offset is settled, although `settled` forgets it once the offset has passed.
    state.next_read = max(state.next_read, state.base)
    if chunk.offsets[0] < state.next_read:
        chunk = chunk.slice(bisect_left(chunk.offsets, state.next_read), len(chunk))
        if not chunk.offsets:
            return NOTHING
    vanished, passed_over = _skip_holes(state, chunk.offsets)
    state.next_read = chunk.offsets[-1] + 1
    if chunk.oldest_ms > 0:
        state.note_read(chunk.oldest_ms)
    if chunk.offsets[0] >= state.horizon:
        return Intake((chunk,), (), vanished=vanished, passed_over=passed_over)
    fresh = [i for i, offset in enumerate(chunk.offsets) if offset not in state.settled and offset not in state.doubt]
    listed = [i for i, offset in enumerate(chunk.offsets) if offset in state.doubt]
    answered, doubtful = remembered.recall(chunk.pick(listed)) if listed else ((), None)
    return Intake(
        (chunk.pick(fresh),) if fresh else (),
        (doubtful,) if doubtful else (),
        answered,
        vanished,
        passed_over,
    )


def pass_over(state: PartitionState, offset: int) -> tuple[int, int]:
    """Note that no record lies before `offset` that was not read: transaction markers, aborted records.

    Returns how many of these offsets were in doubt, and how many there are; zeros while records before them are not
    settled. If they stayed uncommitted until the next record, they could be mistaken for records that retention removed
    before they were read.
    """
    if state.base < state.next_read or offset <= state.base:
        return 0, 0
    state.next_read = state.base
    counts = _skip_holes(state, (offset,))
    state.next_read = offset
    return counts


def _skip_holes(state: PartitionState, offsets: Sequence[int]) -> tuple[int, int]:
    """Note offsets that do not exist in the topic; return how many were in doubt, and how many there are."""
    holes: list[Range] = []
    if offsets[0] > state.next_read:
        holes.append((state.next_read, offsets[0]))
    if offsets[-1] - offsets[0] + 1 != len(offsets):
        holes += [(left[1], right[0]) for left, right in pairwise(runs(offsets))]
    if not holes:
        return 0, 0
    doubted = state.doubt.count
    for start, stop in holes:
        state.doubt.discard(start, stop)
    state.holes.extend(holes)
    return doubted - state.doubt.count, sum(stop - start for start, stop in holes)
