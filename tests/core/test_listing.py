"""What is listed as in flight, and under which serial, as batches start and end."""

from hypothesis import given
from hypothesis import strategies as st

from connector.core.chunks import Chunk, Partition
from connector.core.listing import enlist, ranges_of, relist
from connector.core.partition import PartitionState
from connector.core.progress import Progress
from connector.core.ranges import Range, RangeSet
from tests.core.making import A, B, C, chunk, positions, rising

PIECES = st.lists(st.tuples(st.sampled_from([A, B]), rising(max_size=6)), max_size=4).map(
    lambda drawn: [chunk(where, [300 * at + offset for offset in offsets]) for at, (where, offsets) in enumerate(drawn)]
)


def owned(*partitions: Partition) -> dict[Partition, PartitionState]:
    return {partition: PartitionState.at(partition, 1, Progress(0), RangeSet()) for partition in partitions}


def listings(states: dict[Partition, PartitionState]) -> dict[Partition, dict[int, list[Range]]]:
    return {partition: state.active for partition, state in states.items() if state.active}


@given(PIECES)
def test_ranges_hold_all_offsets_of_each_partition_and_no_others(pieces: list[Chunk]) -> None:
    found = {(where, offset) for where, ranges in ranges_of(pieces).items() for r in ranges for offset in range(*r)}

    assert found == set(positions(pieces))
    assert all(ranges_of(pieces).values())


@given(PIECES, st.data())
def test_a_listing_shrinks_to_what_is_left_and_others_stay(pieces: list[Chunk], data: st.DataObject) -> None:
    left = [piece for piece in pieces if data.draw(st.booleans())]
    states = owned(A, B, C)
    enlist(states, 7, [chunk(A, [9_000]), chunk(C, [9_000])])
    enlist(states, 8, pieces)

    changed = relist(states, 8, pieces, left)

    assert changed == {piece.partition for piece in pieces}
    rest = {partition: {8: ranges} for partition, ranges in ranges_of(left).items()}
    for partition in (A, C):
        rest[partition] = {7: [(9_000, 9_001)], **rest.get(partition, {})}
    assert listings(states) == rest


def test_nothing_is_listed_for_partitions_that_are_gone_or_have_been_assigned_again() -> None:
    states = owned(A, B)
    enlist(states, 1, [chunk(A, [1, 2]), chunk(B, [1, 2])])
    del states[A]
    states |= owned(B)

    assert relist(states, 1, [chunk(A, [1, 2]), chunk(B, [1, 2])], [chunk(A, [1]), chunk(B, [1])]) == set()
    assert listings(states) == {}
