"""Laws of what a tick commits for a partition: only what is true, and as much of it as there is room for."""

from collections.abc import Iterable

from hypothesis import assume, example, given
from hypothesis import strategies as st

from connector.core.fitting import PlannedCommit, plan_commit, plan_what_fits
from connector.core.metadata_room import ROOM_FOR_THE_OLDEST, ROOM_TO_SETTLE
from connector.core.progress import Range, RangeSet, decode
from tests.core.telling import (
    ACTIVE,
    BASE,
    DOUBT,
    FINISHED,
    MARK,
    SETTLED,
    STARTING,
    WITHDRAWN,
    Told,
)


def says(told: Told, room: int, *, changed: bool) -> PlannedCommit:
    return plan_what_fits(told.state, told.finished, told.starting, mark=MARK, characters=room, changed=changed)


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

    said = says(told, room, changed=changed)

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
    sizes = [len(plan_commit(told.state, _below(told.finished, cut), [], mark=MARK, cut=cut).metadata) for cut in cuts]
    fit = [size <= int(room * ROOM_TO_SETTLE) for size in sizes]

    said = says(told, room, changed=changed)

    if said.settle_cut == 0:
        assert not fit[0]
        assert told.finished[0][0] > BASE, "what continues the committed offset makes metadata shorter"
        assert said.stuck
    else:
        assert said.start_cut == 0
        assert not said.stuck
        if said.settle_cut is None:  # then what lies above the last one is listed anew too, and may be shorter
            assert len(plan_commit(told.state, told.finished, [], mark=MARK).metadata) <= int(room * ROOM_TO_SETTLE)
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

    said = says(told, room, changed=False)

    if said.settle_cut == 0:
        assert said.start_cut is not None
        assert said.stuck is bool(told.finished)
        cuts = [BASE + 1, *(stop for _, stop in told.starting)]
        sizes = [
            len(plan_commit(told.state, [], _below(told.starting, cut), mark=MARK, cut=cut).metadata) for cut in cuts
        ]
        fit = [size <= int(room * ROOM_FOR_THE_OLDEST) for size in sizes]
        at = cuts.index(said.start_cut)
        assert fit[at] or at == 0
        assert not any(fit[at + 1 : at + 2]) or cuts[at] == cuts[at + 1], "more of it would fit"


@given(TEXTS, ROOMS)
def test_where_no_result_fits_nothing_starts_but_at_the_committed_offset(text: str, room: int) -> None:
    told = Told("." + text.replace(FINISHED, "."))

    assert not says(told, room, changed=False).metadata


@given(TEXTS, ROOMS)
def test_if_nothing_else_fits_what_was_certainly_not_accepted_is_planned(text: str, room: int) -> None:
    told = Told(text.replace(FINISHED, ACTIVE).replace(STARTING, "."))

    said = says(told, room, changed=True)

    assert (said.settle_cut, said.start_cut, said.stuck) == (0, 0, False)
    now = plan_commit(told.state, [], [], mark=MARK)
    assert not _without(now.progress.in_flight, told.of(DOUBT, ACTIVE))
    assert said.metadata == (now.metadata if len(now.metadata) <= int(room * ROOM_TO_SETTLE) else "")
    assert not says(told, room, changed=False).metadata
