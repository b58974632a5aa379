"""Laws of sets of offsets as ranges, compared with plain sets."""

from itertools import pairwise

from hypothesis import example, given
from hypothesis import strategies as st

from connector.core.ranges import Range, RangeSet, runs
from tests.core.making import rising

ranges = st.tuples(st.integers(0, 60), st.integers(0, 60))
edits = st.lists(st.tuples(st.booleans(), ranges), max_size=25)


def apply(steps: list[tuple[bool, Range]]) -> tuple[RangeSet, set[int]]:
    """Add and discard the same on both sides."""
    ours, plain = RangeSet(), set[int]()
    for adds, (start, stop) in steps:
        if adds:
            ours.add(start, stop)
            plain |= set(range(start, stop))
        else:
            ours.discard(start, stop)
            plain -= set(range(start, stop))
    return ours, plain


def members(ours: RangeSet) -> set[int]:
    return {offset for start, stop in ours for offset in range(start, stop)}


@given(edits)
def test_a_range_set_is_a_set(steps: list[tuple[bool, Range]]) -> None:
    ours, plain = apply(steps)
    twin = RangeSet()
    twin.update(ours)

    assert members(ours) == members(twin) == plain
    assert ours.count == len(plain)
    assert ours.stop == max(plain, default=-1) + 1
    assert all((offset in ours) == (offset in plain) for offset in range(-1, 62))


@given(edits)
@example([(True, (2, 4)), (True, (0, 2))])
@example([(True, (0, 2)), (True, (2, 4))])
def test_ranges_are_sorted_and_do_not_touch(steps: list[tuple[bool, Range]]) -> None:
    ours = list(apply(steps)[0])

    assert all(start < stop for start, stop in ours)
    assert all(left[1] < right[0] for left, right in pairwise(ours))


@given(edits, st.integers(0, 62))
@example([(True, (0, 5))], 3)
def test_advancing_drops_what_is_below_and_what_continues(steps: list[tuple[bool, Range]], base: int) -> None:
    ours, plain = apply(steps)
    expected = base
    while expected in plain:
        expected += 1

    assert ours.advance(base) == expected
    assert members(ours) == {offset for offset in plain if offset >= expected}


@given(edits, ranges)
def test_a_copy_has_a_life_of_its_own(steps: list[tuple[bool, Range]], more: Range) -> None:
    ours, plain = apply(steps)

    twin = ours.copy()
    twin.add(*more)
    twin.discard(0, 5)

    assert members(ours) == plain


@given(edits)
def test_sets_are_equal_when_their_offsets_are(steps: list[tuple[bool, Range]]) -> None:
    ours, plain = apply(steps)

    assert ours == RangeSet([(offset, offset + 1) for offset in sorted(plain)])
    assert ours != RangeSet([*ours, (100, 101)])
    assert ours != plain
    assert len(ours) == len(list(ours))
    assert repr(ours) == f"RangeSet({list(ours)})"


@given(rising())
def test_runs_hold_the_offsets_and_are_as_few_as_can_be(offsets: list[int]) -> None:
    found = runs(offsets)

    assert [offset for start, stop in found for offset in range(start, stop)] == offsets
    assert found == list(RangeSet([(offset, offset + 1) for offset in offsets]))


def test_no_offsets_have_no_runs() -> None:
    assert runs([]) == []
