"""Laws of what is known of a partition: what is in flight, which holes are settled, and how old its records are."""

import random
from bisect import bisect_right

from hypothesis import given
from hypothesis import strategies as st

from connector.core.partition import MAX_READS
from connector.core.ranges import RangeSet
from tests.core.telling import ACTIVE, BASE, DOUBT, FINISHED, SETTLED, WITHDRAWN, Told

TEXTS = st.text("sdawfn.", max_size=120)


@given(TEXTS)
def test_what_is_listed_and_not_in_flight_is_not_accepted(text: str) -> None:
    told = Told(text)

    assert list(told.state.not_accepted()) == told.of(WITHDRAWN)
    assert list(told.state.in_flight()) == told.of(DOUBT, ACTIVE, FINISHED)


@given(st.text("sh.", max_size=30), st.integers(0, 31))
def test_holes_are_settled_up_to_an_offset_and_through_holes_that_continue_it(text: str, top: int) -> None:
    """Above that they would only take metadata."""
    told = Told(text)
    holes = told.of("h")
    told.state.holes.extend(holes)

    told.state.reach(BASE + top)

    reached = max([BASE + top, BASE, *(stop for _, stop in told.of(SETTLED))])
    for start, stop in holes:
        if start <= reached:
            reached = max(reached, stop)
    taken = [hole for hole in holes if hole[0] <= reached]
    after = RangeSet([*told.of(SETTLED), *taken])
    base = after.advance(BASE)
    assert (told.state.base, told.state.settled, [*told.state.holes]) == (base, after, holes[len(taken) :])


def test_reads_of_which_many_are_kept_together_make_no_record_younger_and_hardly_one_older() -> None:
    """By no more than what lies within a small share of all offsets."""
    told, dice = Told(""), random.Random(7)
    begins = [told.state.next_read]
    for at in range(5 * MAX_READS):
        told.state.next_read += dice.choice([1, 1, 5, 40, 5_000])
        begins.append(told.state.next_read)
        told.state.note_read(at)
        assert len(told.state.reads) < MAX_READS

    stops, times = zip(*told.state.reads, strict=True)
    share = 4 * (begins[-1] - BASE) // MAX_READS
    assert stops[-1] == begins[-1]
    for at, begin in enumerate(begins[:-1]):
        oldest = times[bisect_right(stops, begin)]
        assert oldest <= at
        assert oldest == at or begin - begins[oldest + 1] <= share
