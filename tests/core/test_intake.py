"""Laws of what becomes of records that were just read, whatever an earlier owner has settled or had in flight."""

from hypothesis import example, given
from hypothesis import strategies as st

from connector.core.chunks import Chunk
from connector.core.intake import NOTHING, pass_over, take_in
from connector.core.partition import PartitionState
from connector.core.progress import Progress
from connector.core.ranges import RangeSet, runs
from connector.core.remembered import Remembered
from tests.core.making import A, B, chunk, positions, rising, weighted

BASE = 10
KINDS = weighted("sd..", max_size=30)
"""The state of each offset from the committed one on: settled, in flight, or unread."""


def inherited(kinds: str, *, base: int = BASE) -> PartitionState:
    """Return a partition at a progress that another worker committed."""
    settled, in_flight = (
        RangeSet(runs([base + at for at, own in enumerate(kinds) if own == kind])) for kind in ("s", "d")
    )
    return PartitionState.at(A, 1, Progress(base, 0, 0, settled, in_flight), in_flight.copy())


def offsets_of(pieces: tuple[Chunk, ...]) -> list[int]:
    return [offset for _, offset in positions(pieces)]


@given(KINDS, st.lists(rising(max_size=20, top=50), min_size=1, max_size=4))
@example(kinds="", reads=[[0], [0]])
@example(kinds="ds.", reads=[[9, 10, 11, 12]])
@example(kinds="sd", reads=[[11], [13]])
def test_each_record_is_sorted_once_by_what_the_progress_says_of_it(kinds: str, reads: list[list[int]]) -> None:
    """And what does not exist between the records is noted as a hole, and is no longer in doubt."""
    state, remembered = inherited(kinds), Remembered(100)
    settled, doubted = state.settled.copy(), state.doubt.copy()
    read_to, holes = BASE, RangeSet()

    for offsets in reads:
        new = [offset for offset in offsets if offset >= read_to]
        intake = take_in(chunk(A, offsets), state, remembered)

        assert offsets_of(intake.fresh) == [each for each in new if each not in settled and each not in doubted]
        assert offsets_of(intake.doubtful) == [each for each in new if each in doubted]
        assert intake.answered == ()
        missing = [each for each in range(read_to, new[-1]) if each not in new] if new else []
        assert intake.passed_over == len(missing)
        assert intake.vanished == len([each for each in missing if each in doubted])
        holes.update(runs(missing))
        read_to = new[-1] + 1 if new else read_to
        assert state.next_read == read_to
        assert new or intake is NOTHING

    assert RangeSet(state.holes) == holes
    assert all(start < stop for start, stop in state.holes)
    assert not any(offset in state.doubt for start, stop in holes for offset in range(start, stop))
    assert all((offset in state.doubt) == (offset in doubted and offset not in holes) for offset in range(60))


def test_records_below_the_committed_offset_are_settled_although_they_were_not_read() -> None:
    """The offset may pass records that an earlier owner settled before they are read here."""
    state = inherited("dss.")
    state.base = BASE + 3

    intake = take_in(chunk(A, range(BASE, BASE + 5)), state, Remembered(100))

    assert offsets_of(intake.fresh) == [BASE + 3, BASE + 4]
    assert (intake.doubtful, intake.vanished, intake.passed_over) == ((), 0, 0)


def test_a_chunk_with_nothing_inherited_is_passed_on_as_it_is() -> None:
    """That is every chunk but the first ones of an assignment: looking at each record would cost too much."""
    state, pieces = inherited("sd"), [chunk(A, range(BASE + at, BASE + at + 3)) for at in (2, 5)]

    for piece in pieces:
        assert take_in(piece, state, Remembered(100)).fresh[0] is piece


def test_the_times_of_chunks_are_kept_if_they_have_any() -> None:
    state = inherited("")
    for at, oldest_ms in enumerate((0, 1)):
        piece = chunk(A, [BASE + at])
        piece.oldest_ms = oldest_ms
        take_in(piece, state, Remembered(100))

    assert [*state.reads] == [(BASE + 2, 1)]


@given(KINDS, st.integers(0, 45), st.integers(-2, 3))
@example(kinds="d", offset=BASE + 1, unsettled=0)
@example(kinds="ss", offset=BASE + 3, unsettled=-2)
@example(kinds="ss", offset=BASE + 2, unsettled=-1)
def test_offsets_behind_the_last_record_are_passed_over_once_all_before_them_is_settled(
    kinds: str, offset: int, unsettled: int
) -> None:
    """Those that were settled before they were read count as read: the committed offset has passed them."""
    state = inherited(kinds)
    state.base = state.settled.advance(state.base)
    state.next_read = state.base + unsettled
    base, doubted = state.base, state.doubt.copy()

    counts = pass_over(state, offset)

    if unsettled > 0 or offset <= base:
        assert (counts, state.next_read, [*state.holes]) == ((0, 0), base + unsettled, [])
        assert state.doubt == doubted
    else:
        assert counts == (sum(each in doubted for each in range(base, offset)), offset - base)
        assert (state.next_read, [*state.holes]) == (offset, [(base, offset)])
        assert pass_over(state, offset + 1) == (0, 0), "until these are settled"


def test_partitions_do_not_share_what_was_inherited() -> None:
    first, other = inherited("d"), PartitionState.at(B, 1, Progress(0), RangeSet())
    take_in(chunk(B, [3]), other, Remembered(100))

    assert (first.next_read, [*first.holes], first.doubt.count) == (BASE, [], 1)
