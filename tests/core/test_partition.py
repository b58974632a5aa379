"""Laws of what a tick commits for a partition: only what is true, and as much of it as there is room for."""

import random
from bisect import bisect_right
from collections.abc import Iterable

from hypothesis import assume, example, given
from hypothesis import strategies as st

from connector.core.partition import MAX_READS, ROOM_FOR_THE_OLDEST, ROOM_TO_SETTLE, PartitionState, PlannedCommit
from connector.core.progress import Progress, Range, RangeSet, decode, runs
from tests.core.making import A

BASE, MARK = 1_000, 7
SETTLED, DOUBT, ACTIVE, WITHDRAWN, FINISHED, STARTING = "sdawfn"
"""Settled and committed; in doubt; posted; listed, but certainly not accepted; answered; about to start. A dot
waits."""


class Told:
    """A partition, and the part of a tick about it: the state of each offset from the committed one on."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.finished, self.starting = self.of(FINISHED), self.of(STARTING)
        settled, doubt = RangeSet(self.of(SETTLED)), RangeSet(self.of(DOUBT))
        self.state = PartitionState(A, 1, BASE, 0, settled, doubt, BASE + len(text), BASE + len(text))
        self.state.active = {1: self.of(ACTIVE, FINISHED)}
        listed = RangeSet(self.of(DOUBT, ACTIVE, FINISHED, WITHDRAWN))
        self.state.committed = Progress(BASE, 0, MARK - 1, settled.copy(), listed)

    def of(self, *kinds: str) -> list[Range]:
        return runs([BASE + at for at, kind in enumerate(self.text) if kind in kinds])

    def says(self, room: int, *, changed: bool) -> PlannedCommit:
        return self.state.plan_what_fits(self.finished, self.starting, mark=MARK, room=room, changed=changed)


def _below(ranges: list[Range], cut: int | None) -> list[Range]:
    return [(start, stop if cut is None else min(stop, cut)) for start, stop in ranges if cut is None or start < cut]


def _without(ranges: Iterable[Range], others: Iterable[Range]) -> RangeSet:
    left = RangeSet(ranges)
    for start, stop in others:
        left.discard(start, stop)
    return left


TEXTS = st.lists(st.sampled_from("sdawfn.") | st.sampled_from("fn."), max_size=120).map("".join)
ROOMS = st.integers(8, 140)


@given(TEXTS, ROOMS, st.booleans())
@example(text="nfn", room=15, changed=False)
def test_planned_progress_is_true_and_never_less_than_the_committed(text: str, room: int, changed: bool) -> None:
    """A result above the cut stays listed as in flight, and what would start there is not listed."""
    told = Told(text)

    said = told.says(room, changed=changed)

    assume(said.metadata)
    settled = RangeSet([*told.of(SETTLED), *_below(told.finished, said.settle_cut)])
    base = settled.advance(BASE)
    in_doubt = _without(
        [*told.of(DOUBT, ACTIVE, FINISHED), *_below(told.starting, said.start_cut)], [*settled, (0, base)]
    )
    found = decode(said.progress.base, said.metadata)
    assert found == said.progress
    assert (found.base, found.mark, found.settled) == (base, MARK, settled)
    assert not _without(in_doubt, found.in_flight), "a crash would have this posted again"
    assert not _without(found.in_flight, [*in_doubt, *told.of(WITHDRAWN)]), "a crash would put this in doubt"


@given(TEXTS, ROOMS, st.booleans())
@example(text="dsdswsdsdsdsdfws", room=62, changed=False)
def test_as_many_results_as_fit_are_planned_oldest_first_and_nothing_starts(
    text: str, room: int, changed: bool
) -> None:
    told = Told(text)
    assume(told.finished)
    cuts = [stop for _, stop in told.finished]
    sizes = [len(told.state.plan(_below(told.finished, cut), [], mark=MARK, cut=cut).metadata) for cut in cuts]
    fit = [size <= int(room * ROOM_TO_SETTLE) for size in sizes]

    said = told.says(room, changed=changed)

    if said.settle_cut == 0:
        assert not fit[0]
        assert told.finished[0][0] > BASE, "what continues the committed offset makes metadata shorter"
        assert said.stuck
    else:
        assert said.start_cut == 0
        assert not said.stuck
        if said.settle_cut is None:  # then what lies above the last one is listed anew too, and may be shorter
            assert len(told.state.plan(told.finished, [], mark=MARK).metadata) <= int(room * ROOM_TO_SETTLE)
        else:
            at = cuts.index(said.settle_cut)
            assert fit[at] or at == 0
            assert not any(fit[at + 1 : at + 2]), "one more would fit"


@given(st.integers(1, 9), TEXTS, ROOMS, st.booleans())
def test_where_no_result_fits_the_oldest_batch_starts_or_as_much_of_it_as_fits(
    first: int, text: str, room: int, answered: bool
) -> None:
    """When that is settled, the committed offset advances: otherwise there would be no end."""
    told = Told(STARTING * first + (text if answered else text.replace(FINISHED, ".")))

    said = told.says(room, changed=False)

    if said.settle_cut == 0:
        assert said.start_cut is not None
        assert said.stuck is bool(told.finished)
        cuts = [BASE + 1, *(stop for _, stop in told.starting)]
        sizes = [len(told.state.plan([], _below(told.starting, cut), mark=MARK, cut=cut).metadata) for cut in cuts]
        fit = [size <= int(room * ROOM_FOR_THE_OLDEST) for size in sizes]
        at = cuts.index(said.start_cut)
        assert fit[at] or at == 0
        assert not any(fit[at + 1 : at + 2]) or cuts[at] == cuts[at + 1], "more of it would fit"


@given(TEXTS, ROOMS)
def test_where_no_result_fits_nothing_starts_but_at_the_committed_offset(text: str, room: int) -> None:
    told = Told("." + text.replace(FINISHED, "."))

    assert not told.says(room, changed=False).metadata


@given(TEXTS, ROOMS)
def test_if_nothing_else_fits_what_was_certainly_not_accepted_is_planned(text: str, room: int) -> None:
    told = Told(text.replace(FINISHED, ACTIVE).replace(STARTING, "."))

    said = told.says(room, changed=True)

    assert (said.settle_cut, said.start_cut, said.stuck) == (0, 0, False)
    now = told.state.plan([], [], mark=MARK)
    assert not _without(now.progress.in_flight, told.of(DOUBT, ACTIVE))
    assert said.metadata == (now.metadata if len(now.metadata) <= int(room * ROOM_TO_SETTLE) else "")
    assert not told.says(room, changed=False).metadata


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
