"""Laws of what a tick commits for a partition: only what is true, and as much of it as there is room for."""

from collections.abc import Iterable

from hypothesis import assume, example, given
from hypothesis import strategies as st

from connector.core.chunks import Partition
from connector.core.fitting import NOTHING_PLANNED, PlannedCommit, plan_commit, plan_commits, plan_what_fits
from connector.core.metadata_room import ROOM_FOR_THE_OLDEST, ROOM_TO_SETTLE, ROOM_TO_START, MetadataRoom
from connector.core.progress import decode
from connector.core.ranges import Range, RangeSet
from tests.core.making import A, B
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


@given(st.text("sdawfnh.", max_size=60), st.integers(0, 61))
@example(text="..h", cut=1)
def test_above_a_cut_all_stays_as_it_is_committed_now(text: str, cut: int) -> None:
    """Holes that were settled for what lies above it are not, and what was withdrawn stays listed."""
    told, at = Told(text), BASE + cut
    for start, stop in told.of("h"):
        told.state.settled.add(start, stop)

    said = plan_commit(told.state, _below(told.finished, at), _below(told.starting, at), mark=MARK, cut=at)

    below = [(0, max(at, said.progress.base))]
    for now, before in (
        (said.progress.settled, told.state.committed.settled),
        (said.progress.in_flight, told.state.committed.in_flight),
    ):
        assert _without(now, below) == _without(before, below)
    assert (said.settle_cut, said.start_cut) == (at, at)


@given(TEXTS, ROOMS, st.booleans())
@example(text=".sf.aafaafaa", room=20, changed=False)
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


# ------------------------------------------------------------------ of all partitions of a tick


def told_of(text: str, partition: Partition) -> Told:
    told = Told(text)
    told.state.partition = partition
    return told


@given(TEXTS, TEXTS, ROOMS, st.sampled_from(["neither", "full", "full for retries"]), st.booleans())
@example(text=".n.n.n.n.n.n", other="", room=14, before="neither", changed=True)
@example(text=".n.n.n.n.n.n", other="", room=14, before="neither", changed=False)
def test_each_partition_commits_all_that_a_tick_has_for_it_or_what_fits(
    text: str, other: str, room: int, before: str, changed: bool
) -> None:
    """And where it is cut, it is noted as full: for records that start, then for retries, then for results."""
    both = {A: told_of(text, A), B: told_of(other, B)}
    there = MetadataRoom(lambda _: False)
    for _ in range(["neither", "full", "full for retries"].index(before)):
        there.note(A)
    shares = {partition: there.room_to_start(partition) for partition in both}
    was_full = set(there.full)

    fits, cuts = plan_commits(
        [told.state for told in both.values()],
        {partition: told.finished for partition, told in both.items() if told.finished},
        {partition: told.starting for partition, told in both.items() if told.starting},
        mark=MARK,
        room=there,
        characters=room,
        changed={A, B} if changed else (),
    )

    for partition, told in both.items():
        whole = plan_commit(told.state, told.finished, told.starting, mark=MARK)
        if whole.fits(room, shares[partition] if told.starting else ROOM_TO_SETTLE):
            assert (fits[partition], partition in cuts) == (whole, False)
            assert (partition in there.full) == (partition in was_full)
        else:
            assert cuts[partition] == says(told, room, changed=changed)
            assert fits.get(partition, NOTHING_PLANNED).metadata == cuts[partition].metadata
            assert partition in there.full
            assert (partition in there.full_for_retries) == (partition in was_full)
            assert (partition in there.stuck) == cuts[partition].stuck


@given(TEXTS, ROOMS)
def test_where_results_are_written_already_all_batches_start_or_none(text: str, room: int) -> None:
    """What is committed of the results cannot be changed any more."""
    told, there = Told(STARTING + text), MetadataRoom(lambda _: False)

    def planned() -> tuple[PlannedCommit | None, PlannedCommit | None]:
        fits, cuts = plan_commits(
            [told.state],
            {A: told.finished},
            {A: told.starting},
            mark=MARK,
            room=there,
            characters=room,
            changed={A},
            written={A},
        )
        return fits.get(A), cuts.get(A)

    whole = plan_commit(told.state, told.finished, told.starting, mark=MARK)
    if whole.fits(room, ROOM_TO_START):
        assert planned() == (whole, None)
        assert not there.full
    else:
        assert planned() == (None, NOTHING_PLANNED)
        assert (there.full, there.full_for_retries, there.stuck) == ({A}, set(), set())


def test_where_written_results_alone_have_filled_the_metadata_nothing_starts() -> None:
    """Although it would fit now: the room is for retries of what is listed already."""
    told, there = Told("n"), MetadataRoom(lambda _: False)
    there.note(A)
    there.note(A)

    fits, cuts = plan_commits(
        [told.state], {}, {A: told.starting}, mark=MARK, room=there, characters=4_000, changed=(), written={A}
    )

    assert (fits, cuts) == ({}, {A: NOTHING_PLANNED})


@given(TEXTS, st.integers(0, 120))
def test_holes_are_settled_with_a_tick_up_to_the_last_offset_that_it_lists(text: str, hole: int) -> None:
    """Further up they would only take metadata."""
    told = Told(text)
    told.state.holes.append((BASE + hole, BASE + hole + 1))
    listed = [*told.finished, *told.starting, *told.of(SETTLED), *told.state.committed.in_flight]
    assume(all(stop <= BASE + hole or start > BASE + hole for start, stop in [*listed, *told.of(ACTIVE, DOUBT)]))

    plan_commits(
        [told.state],
        {A: told.finished},
        {A: told.starting},
        mark=MARK,
        room=MetadataRoom(lambda _: False),
        characters=4_000,
        changed=(),
    )

    assert bool(told.state.holes) == (BASE + hole > max((stop for _, stop in listed), default=BASE))
