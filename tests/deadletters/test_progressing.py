"""How far a redrive has come is stored in commit metadata, which has limited room."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connector.core.progress import MAX_METADATA, ForeignMetadataError, Progress, encode
from connector.core.ranges import RangeSet
from connector.deadletters.progressing import Place, place_at, read_place

SELECTION = "0123456789abcdef"


@given(st.lists(st.integers(1, 200), max_size=5), st.sets(st.integers(0, 199), max_size=30))
def test_what_is_left_is_looked_at_again_and_nothing_else_is(steps: list[int], left: set[int]) -> None:
    """Over any number of transactions, each read back by the next run."""
    place = Place()
    for at in sorted(steps):
        leave = RangeSet((offset, offset + 1) for offset in left if offset < at)
        place = read_place(*place_at(place, max(at, place.base), leave, SELECTION))
        base, settled = place.done

        assert {o for o in range(at) if o >= base and o not in settled} == {o for o in left if o < at}


def test_what_another_run_under_the_name_has_dealt_with_meanwhile_is_not_looked_at_again() -> None:
    """Both were looked at when all was open; the one that is confirmed last must not have it set aside once more."""
    first = read_place(*place_at(Place(), 10, RangeSet([(0, 1), (8, 9)]), SELECTION))

    second = read_place(*place_at(first, 10, RangeSet([(0, 1), (3, 5)]), SELECTION))

    assert (second.base, list(second.settled)) == (0, [(1, 10)])


def test_what_metadata_has_no_room_for_is_forgotten_from_the_oldest_on() -> None:
    left = random.Random(1).sample(range(150_000), 50_000)
    leave = RangeSet((at, at + 1) for at in left)

    offset, metadata = place_at(Place(), 150_000, leave, SELECTION)

    assert len(metadata) <= MAX_METADATA
    settled = read_place(offset, metadata).settled
    assert 0 < offset < 150_000
    assert settled.stop == 150_000
    assert settled.count == sum(1 for at in range(offset, 150_000) if at not in leave), "the youngest are remembered"


@pytest.mark.parametrize("metadata", ["", "x", encode(Progress(5)), f"x~{SELECTION}"])
def test_what_somebody_else_committed_is_not_taken_for_progress(metadata: str) -> None:
    with pytest.raises(ForeignMetadataError):
        read_place(5, metadata)
