"""Single facts about the flow of records: one for each rule that the laws try in all orders, and past bugs."""

import random
import zlib
from collections import deque
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connector.core.batching import Batch
from connector.core.chunks import Chunk, Partition
from connector.core.flow import Flow, FlowLimits, Tick
from connector.core.intake import NOTHING
from connector.core.place import Place
from connector.core.progress import Progress, decode, encode
from connector.core.ranges import RangeSet
from connector.core.results import Finished
from connector.core.verdicts import QUEUED, SKIPPED, Verdict, Verdicts
from tests.core.making import A, B, C, batch, chunk, positions

ROOMY = FlowLimits(max_in_flight_records=64_000, max_tick_records=100_000, max_tick_bytes=64_000_000)
SMALL = replace(ROOMY, max_metadata=1_000)
"""As much smaller than Kafka's metadata as these tests are smaller than real streams."""

DEAD = Verdict("dead_letter", "invalid_phone")
DOUBT = Verdict("dead_letter", "in_doubt")


def flow(*partitions: Partition, limits: FlowLimits = ROOMY, progress: Progress | None = None) -> Flow:
    """Return a flow that owns these partitions, read under assignment 1."""
    made = Flow(limits)
    for partition in partitions:
        made.assign(partition, 1, progress or Progress(0))
    return made


def read(made: Flow, *chunks: Chunk) -> None:
    """Take in chunks that were just read, all new."""
    for piece in chunks:
        assert positions(made.intake(piece).fresh) == positions([piece])


def started(made: Flow, *, slots: int = 64, now: float = 0.0) -> list[tuple[int, Batch]]:
    """Commit a tick and return what may be posted."""
    tick = made.plan(now=now, slots=slots)
    assert tick is not None
    return made.committed(tick)


def settled(made: Flow, serial: int, verdicts: Verdicts = Verdicts(QUEUED)) -> Finished | None:  # noqa: B008 (frozen)
    """Finish an active batch."""
    chunks = made.active[serial].chunks
    return made.finish(serial, chunks, verdicts, attempts=1, sent_ms=5, answered_ms=6)


def said(tick: Tick | None, partition: Partition = A) -> Progress:
    """Return the progress that a tick commits."""
    assert tick is not None
    return decode(*tick.offsets[partition])


def drained(made: Flow, *, turns: int, now: float = 0.0) -> int:
    """Tick and have everything accepted until nothing is left; return the number of ticks."""
    for turn in range(turns):
        tick = made.plan(now=now + turn, slots=64)
        if tick is not None:
            made.committed(tick)
        for serial in list(made.active):
            settled(made, serial)
        if not (made.active or made.ready or made.waiting or made.finished):
            return turn
    raise AssertionError(f"not drained after {turns} ticks")


# ------------------------------------------------------------------ metadata is small


def test_the_oldest_batch_starts_however_many_stand_before_it() -> None:
    """Where the metadata has no room, what lets the committed offset advance must not wait behind other batches."""
    made = flow(A, limits=FlowLimits(1, 100, 10_000, max_metadata=16))
    first, second, third = chunk(A, [0]), chunk(A, [1]), chunk(A, [2])
    read(made, first, second, third)
    made.settle(Finished((second,), Verdicts(SKIPPED)))
    made.add_ready([batch(third), batch(first)])

    drained(made, turns=10)

    assert made.partitions[A].base == 3


def test_holes_that_were_read_ahead_take_no_room() -> None:
    """A compacted topic may have holes anywhere; those above everything that is listed need not be listed."""
    offsets = sorted(random.Random(7).sample(range(30_000), 10_000))
    made = flow(A, limits=SMALL)
    for at in range(0, len(offsets), 1_000):
        read(made, chunk(A, offsets[at : at + 1_000]))
        made.add_ready([batch(chunk(A, offsets[at : at + 1_000]))])
    made.mark(A)
    tick = made.plan(now=0, slots=0)
    assert tick is not None
    assert len(tick.offsets[A][1]) < 10
    made.committed(tick)

    drained(made, turns=100)

    assert made.partitions[A].base == offsets[-1] + 1


def test_failures_strewn_over_all_that_is_in_flight_do_not_block_the_partition() -> None:
    """Three in ten fail for now: listing them takes more than the metadata holds, so it is done bit by bit."""
    made = flow(A, limits=SMALL)
    for at in range(0, 16_000, 1_000):
        read(made, chunk(A, range(at, at + 1_000)))
        made.add_ready([batch(chunk(A, range(at, at + 1_000)))])
    while made.ready:
        started(made)
    for serial, posted in list(made.active.items()):
        again = [at for at, offset in enumerate(posted.chunks[0].offsets) if zlib.crc32(b"%d" % offset) % 10 < 3]
        failed, rest = posted.split(again)
        made.finish(serial, rest, Verdicts(QUEUED), attempts=1, sent_ms=5, answered_ms=6)
        made.again(batch(*failed), at=1.0)

    drained(made, turns=100, now=2.0)

    assert made.partitions[A].base == 16_000


def test_what_another_worker_settled_is_not_read_again_when_the_committed_offset_has_passed_it() -> None:
    """The offset passes settled records that were not read yet: they are forgotten as settled, not as done."""
    made = flow(A, progress=Progress(0, settled=RangeSet([(1, 20)]), in_flight=RangeSet([(0, 1)])))
    doubtful = made.intake(chunk(A, range(10))).doubtful
    made.settle(Finished(doubtful, Verdicts(DOUBT)))
    started(made)
    assert made.partitions[A].base == 20

    rest = made.intake(chunk(A, range(10, 25)))

    assert positions(rest.fresh) == [(A, offset) for offset in range(20, 25)]


def test_a_batch_is_posted_only_when_the_tick_that_lists_it_has_committed() -> None:
    made = flow(A)
    made.add_ready([batch(chunk(A, range(10)))])

    tick = made.plan(now=0, slots=1)

    assert not made.active
    assert list(said(tick).in_flight) == [(0, 10)]
    assert tick is not None
    made.aborted(tick)
    assert not made.active
    assert [posted.count for _, posted in started(made)] == [10]


def test_the_tick_after_one_that_was_aborted_says_writes_and_starts_the_same() -> None:
    made = flow(A, B)
    made.mark(B)
    read(made, chunk(A, range(4)))
    for offset in (0, 1):
        made.settle(Finished((chunk(A, [offset]),), Verdicts(SKIPPED)))
    made.add_ready([batch(chunk(A, [offset]), batch_id=f"t-{offset}") for offset in (2, 3)])
    tick = made.plan(now=0, slots=2)
    assert tick is not None

    made.aborted(tick)

    again = made.plan(now=0, slots=2)
    assert again is not None
    assert again.offsets.keys() == tick.offsets.keys() == {A, B}
    assert again.settle == tick.settle
    assert [posted.id for _, posted in again.start] == [posted.id for _, posted in tick.start] == ["t-2", "t-3"]


def test_an_aborted_tick_keeps_nothing_of_a_partition_that_was_released_during_it() -> None:
    made = flow(A, B)
    of_a, of_b = chunk(A, range(2)), chunk(B, range(2))
    read(made, of_a, of_b)
    made.settle(Finished((of_a,), Verdicts(SKIPPED)))
    made.settle(Finished((of_b,), Verdicts(SKIPPED)))
    tick = made.plan(now=0, slots=1)
    assert tick is not None
    made.release([A])

    made.aborted(tick)

    assert [positions(item.chunks) for item in made.finished] == [positions([of_b])]
    assert made.held_bytes == made.finished[0].bytes
    again = made.plan(now=0, slots=1)
    assert again is not None
    assert list(again.offsets) == [B]


def test_what_is_left_of_an_item_of_which_dead_letters_are_kept_back_counts_until_it_is_written() -> None:
    made = flow(A)
    read(made, chunk(A, range(4)))
    item = made.settle(Finished((chunk(A, range(4)),), Verdicts(QUEUED, {1: DEAD})))
    assert item is not None

    apart, rest = made.set_aside(item, DEAD.reason)

    assert apart is not None
    assert rest is not None
    assert (positions(apart.chunks), made.held_bytes) == ([(A, 1)], rest.bytes)
    started(made)
    assert made.held_bytes == 0


def test_what_is_kept_back_are_the_dead_letters_of_one_reason_and_they_are_off_the_list_with_the_next_tick() -> None:
    made = flow(A)
    piece = chunk(A, range(5))
    read(made, piece)
    made.add_ready([batch(piece)])
    [(serial, _)] = started(made)
    verdicts = Verdicts(QUEUED, {1: DEAD, 2: Verdict("dead_letter", "other"), 3: DEAD})
    item = settled(made, serial, verdicts)
    assert item is not None

    apart, rest = made.set_aside(item, DEAD.reason)

    assert apart is not None
    assert rest is not None
    assert (positions(apart.chunks), apart.serial, apart.unlisted) == ([(A, 1), (A, 3)], 0, True)
    assert positions(rest.chunks) == [(A, 0), (A, 2), (A, 4)]
    assert made.set_aside(rest, DEAD.reason) == (None, rest)
    tick = made.plan(now=0.0, slots=0)
    assert (said(tick).base, list(said(tick).settled), list(said(tick).in_flight)) == (1, [(2, 3), (4, 5)], [])


def test_where_all_of_an_item_is_kept_back_a_tick_takes_it_off_the_list() -> None:
    made = flow(A)
    piece = chunk(A, range(2))
    read(made, piece)
    made.add_ready([batch(piece)])
    [(serial, _)] = started(made)
    item = settled(made, serial, Verdicts(DEAD))
    assert item is not None
    made._dirty.clear()

    apart, rest = made.set_aside(item, DEAD.reason)

    assert (apart is not None, rest, made.wants_tick(now=0.0, slots=0)) == (True, None, True)
    assert not said(made.plan(now=0.0, slots=0)).in_flight


def test_a_tick_is_wanted_for_a_result_for_what_changed_and_for_what_may_start() -> None:
    made = flow(A)
    read(made, chunk(A, range(3)))
    wants = [made.wants_tick(now=0.0, slots=1)]
    made.mark(A)
    wants.append(made.wants_tick(now=0.0, slots=0))
    started(made)
    made.settle(Finished((chunk(A, [0]),), Verdicts(SKIPPED)))
    wants.append(made.wants_tick(now=0.0, slots=0))
    started(made)
    made.doubt([chunk(A, [1])])
    wants.append(made.wants_tick(now=0.0, slots=0))
    started(made)
    made.add_ready([batch(chunk(A, [2]))])
    wants += [made.wants_tick(now=0.0, slots=slots) for slots in (0, 1)]

    assert wants == [False, True, True, True, False, True]


def test_what_surely_failed_is_taken_off_the_list_by_the_next_tick() -> None:
    made = flow(A)
    made.add_ready([batch(chunk(A, range(10)))])
    [(serial, _)] = started(made)

    made.again(made.withdraw(serial), at=5.0)

    assert not said(made.plan(now=0, slots=1)).in_flight


def test_what_is_tried_again_takes_turns_with_what_is_ready() -> None:
    """A few bad records may have more retries than may start: nothing else would start any more."""
    made = flow(A)
    read(made, chunk(A, range(6)))
    for offset in range(3):
        made.again(batch(chunk(A, [offset])), at=0.0)
    made.add_ready([batch(chunk(A, [offset])) for offset in range(3, 6)])

    begun = [started(made, slots=slots) for slots in (1, 2, 1, 2)]

    assert [piece.chunks[0].offsets[0] for turn in begun for _, piece in turn] == [0, 3, 1, 4, 2, 5]


def suspect(offset: int) -> Batch:
    made = batch(chunk(A, [offset]))
    made.suspect = True
    return made


@given(st.integers(1, 9), st.integers(0, 6), st.integers(0, 6), st.integers(0, 6))
def test_suspects_are_no_more_than_half_of_what_is_under_way_and_one_at_least(
    limit: int, suspects: int, failed: int, ready: int
) -> None:
    made = flow(A)
    read(made, chunk(A, range(18)))
    for offset in range(suspects):
        made.again(suspect(offset), at=0.0)
    for offset in range(6, 6 + failed):
        made.again(batch(chunk(A, [offset])), at=0.0)
    made.add_ready([batch(chunk(A, [offset])) for offset in range(12, 12 + ready)])

    while made.wants_tick(now=1.0, slots=limit - len(made.active)):
        begun = started(made, slots=limit - len(made.active))
        under_way = sum(under_way.suspect for under_way in made.active.values())
        assert under_way <= max(limit // 2, 1)
        assert begun, "a tick is wanted only where it starts something"

    assert len(made.active) == min(limit, min(suspects, max(limit // 2, 1)) + failed + ready)


@pytest.mark.parametrize("is_suspect", [True, False])
@pytest.mark.parametrize("room", [1, 4])
def test_what_is_tried_again_takes_turns_with_what_is_ready_where_there_is_room_for_one_batch(
    room: int, is_suspect: bool
) -> None:
    """Each time the next one is taken as well, and finds no room: that was not its turn."""
    made = flow(A, B, limits=replace(ROOMY, max_in_flight_records=room))
    made.add_ready([batch(chunk(B, [offset]), batch_id="ready") for offset in range(20)])
    started(made)
    for offset in range(6):
        made.again(replace(batch(chunk(A, [offset]), batch_id="failed"), sent_ms=1, suspect=is_suspect), at=0.0)
    begun = []

    for turn in range(8):
        serial = min(made.active)
        if made.active[serial].id == "failed":
            made.again(made.withdraw(serial), at=turn)
        else:
            settled(made, serial)
        begun += [piece.id for _, piece in started(made, now=turn)]

    assert begun == ["ready", "failed"] * 4


def test_no_tick_names_a_partition_that_was_released() -> None:
    made = flow(A, B)
    made.add_ready([batch(chunk(A, range(5)), chunk(B, range(5)))])
    [(serial, _)] = started(made)
    made.release([A])

    settled(made, serial)

    tick = made.plan(now=0, slots=1)
    assert tick is not None
    assert list(tick.offsets) == [B]
    assert positions(tick.settle[0].chunks) == [(B, offset) for offset in range(5)]


def test_a_commit_of_a_released_partition_leaves_nothing_to_commit() -> None:
    made = flow(A, B)
    made.add_ready([batch(chunk(A, range(5)), chunk(B, range(5)))])
    tick = made.plan(now=0, slots=1)
    assert tick is not None
    made.release([A])

    [(_, posted)] = made.committed(tick)

    assert positions(posted.chunks) == [(B, offset) for offset in range(5)]
    assert made.plan(now=0, slots=1) is None


def test_a_partition_that_is_full_takes_no_slots_from_others() -> None:
    """The oldest batch waits for its next attempt, and what is scattered above it takes all the room."""
    made = flow(A, B, limits=replace(ROOMY, max_metadata=60))
    made.add_ready([batch(chunk(A, range(2)))])
    [(oldest, _)] = started(made)
    made.again(made.withdraw(oldest), at=1_000.0)
    made.add_ready([batch(chunk(A, range(at, at + 90, 3 + at % 4))) for at in range(3, 900, 97)])
    made.add_ready([batch(chunk(B, range(5)))])

    posted = []
    for at in range(3):
        tick = made.plan(now=at, slots=3)
        posted += [] if tick is None else made.committed(tick)

    assert positions(posted[-1][1].chunks) == [(B, offset) for offset in range(5)]


def full_partition() -> Flow:
    """Return a flow with A full: every third record had no answer and is to be posted again; others are new.

    Its first record waits for an attempt that is not due for long.
    """
    made = flow(A, B)
    read(made, *(chunk(A, [offset]) for offset in range(100)))
    made.add_ready([batch(chunk(A, range(at, at + 3)), family=at) for at in range(0, 36, 3)])
    for serial, posted in started(made):
        lost, rest = posted.split([0])
        made.doubt(lost)
        made.finish(serial, rest, Verdicts(QUEUED), attempts=1, sent_ms=5, answered_ms=6)
        again = posted.piece(lost, f"{posted.id}.0", envelope_bytes=0)
        again.sent_ms, again.suspect = 5, True
        made.again(again, at=1_000.0 if 0 in lost[0].offsets else 1.0)
    started(made)
    made.limits = replace(ROOMY, max_metadata=int(made.partitions[A].committed_length / 0.51))
    made.add_ready([batch(chunk(A, range(at, at + 3)), family=at) for at in range(40, 60, 4)])
    return made


def under_way(made: Flow) -> list[int]:
    return sorted(offset for posted in made.active.values() for _, offset in positions(posted.chunks))


def ticks(made: Flow, number: int, *, now: float = 0.0, slots: int = 64) -> None:
    for _ in range(number):
        tick = made.plan(now=now, slots=slots - len(made.active))
        if tick is not None:
            made.committed(tick)


def test_in_a_full_partition_what_was_posted_before_is_posted_again() -> None:
    """It is listed anyway, and only settling it makes room: otherwise one at a time, for half a minute each."""
    made = full_partition()

    ticks(made, 3, now=2.0)

    assert [offset for offset in under_way(made) if offset < 40] == list(range(3, 36, 3))


def test_of_what_is_new_in_a_full_partition_one_record_at_a_time_is_posted() -> None:
    """If nothing could pass there, records that are never answered would look like an outage."""
    made = full_partition()
    seen = []
    for _ in range(3):
        ticks(made, 3)
        [(serial, witness)] = made.active.items()
        seen.append((under_way(made), witness.family))
        settled(made, serial)

    assert [offsets for offsets, _ in seen] == [[40], [41], [42]]
    assert len({family for _, family in seen}) == 3, "each tells of itself"


def test_what_a_batch_has_of_others_continues_without_the_records_of_a_full_partition() -> None:
    made = full_partition()
    ticks(made, 3)
    made.add_ready([batch(chunk(A, range(70, 72)), chunk(B, range(3)))])

    ticks(made, 1)

    assert [positions(posted.chunks) for posted in made.active.values()][1:] == [[(B, offset) for offset in range(3)]]


def test_a_full_partition_takes_no_slots_from_others_though_results_of_it_are_committed() -> None:
    """As long as these make no room, there is none."""
    made = full_partition()
    ticks(made, 3)
    made.add_ready([batch(chunk(B, [0]))])
    made.settle(Finished((chunk(A, [37]),), Verdicts(SKIPPED)))
    ticks(made, 1, slots=1)  # the witness takes the only one

    ticks(made, 1, slots=2)

    assert [positions(posted.chunks) for posted in made.active.values()][1:] == [[(B, 0)]]


@pytest.mark.parametrize("slots", [1, 2, 8])
@pytest.mark.parametrize("crowded", [1, 4, 64])
def test_what_waits_in_a_full_partition_takes_no_turn_from_what_is_ready_in_others(crowded: int, slots: int) -> None:
    """Otherwise frequent retries on other partitions would take all turns."""
    made = flow(A, B, C, limits=replace(ROOMY, max_metadata=40))
    for offset in range(1, 400, 3):
        made.settle(Finished((chunk(A, [offset]),), Verdicts(SKIPPED)))
    ticks(made, 200, slots=0)
    made.add_ready([batch(chunk(A, [402 + 3 * number])) for number in range(crowded)])
    ticks(made, 3)
    assert made.metadata_room.full == {A}
    assert not made.active
    made.add_ready([batch(chunk(B, [0]))])
    for number in range(8 * slots):
        made.again(batch(chunk(C, [number])), at=0.0)

    seen: set[Partition] = set()
    for turn in range(4):
        for serial, posted in started(made, slots=slots, now=turn + 1.0):
            seen.add(posted.chunks[0].partition)
            made.again(made.withdraw(serial), at=turn + 1.0)

    assert B in seen


def test_what_has_changed_is_reported_although_there_is_no_room_for_what_would_start() -> None:
    """Otherwise what certainly failed would stay listed for as long as the partition is full."""
    scattered = Progress(0, settled=RangeSet([(offset, offset + 1) for offset in range(10, 50, 2)]))
    made = flow(A, limits=replace(ROOMY, max_metadata=len(encode(scattered)) * 5 // 3), progress=scattered)
    made.add_ready([batch(chunk(A, range(3, 9, 2)))])
    made.mark(A)

    tick = made.plan(now=0.0, slots=1)

    assert tick is not None
    assert (said(tick).settled, tick.start) == (scattered.settled, [])


def test_results_of_a_partition_without_room_keep_no_results_of_others_from_being_written() -> None:
    made = flow(A, B, limits=replace(ROOMY, max_metadata=16, max_tick_records=3))
    read(made, chunk(A, range(60)), chunk(B, [0]))
    for offset in range(59, 0, -2):
        made.settle(Finished((chunk(A, [offset]),), Verdicts(SKIPPED)))
    for _ in range(20):
        tick = made.plan(now=0.0, slots=0)
        if tick is not None:
            made.committed(tick)
    assert len(made.finished) > 3, "there is no room for them"
    made.settle(Finished((chunk(B, [0]),), Verdicts(SKIPPED)))

    for _ in range(2):
        tick = made.plan(now=0.0, slots=0)
        if tick is not None:
            made.committed(tick)

    assert made.partitions[B].base == 1


def test_results_that_there_was_no_room_for_are_written_together_once_there_is() -> None:
    """And not one by one with the committed offset, which would take a tick for each."""
    made = flow(A, limits=replace(ROOMY, max_metadata=40), progress=Progress(0, in_flight=RangeSet([(0, 200)])))
    made.intake(chunk(A, range(200)))
    first = sorted(random.Random(3).sample(range(1, 200), 100))
    for offset in first:
        made.settle(Finished((chunk(A, [offset]),), Verdicts(DOUBT)))
        tick = made.plan(now=0.0, slots=1)
        if tick is not None:
            made.committed(tick)
    assert len(made.finished) > 50, "there is no room for more"

    made.settle(Finished((chunk(A, sorted({*range(200)} - {*first})),), Verdicts(DOUBT)))

    assert drained(made, turns=100) <= 3
    assert made.partitions[A].base == 200


def test_a_tick_with_results_of_a_partition_takes_along_what_may_start_there() -> None:
    made = flow(A)
    read(made, chunk(A, range(6)))
    made.settle(Finished((chunk(A, range(3)),), Verdicts(SKIPPED)))
    tick = made.plan(now=0.0, slots=0)
    assert tick is not None
    made.add_ready([batch(chunk(A, range(3, 6)))])

    extended = made.extend(tick, now=0.0, slots=1)

    assert extended is not None
    assert (said(extended).base, list(said(extended).in_flight)) == (3, [(3, 6)])
    assert [piece.count for _, piece in made.committed(extended)] == [3]
    assert made.partitions[A].committed == said(extended)


def test_of_a_tick_that_is_aborted_when_a_partition_is_gone_only_what_is_left_weighs() -> None:
    made = flow(A, B)
    piece, other = chunk(A, range(3)), chunk(B, [0])
    read(made, piece, other)
    made.add_ready([batch(piece, other)])
    tick = made.plan(now=0.0, slots=1)
    assert tick is not None
    made.release([A])

    made.aborted(tick)

    [left] = made.ready
    assert (positions(left.chunks), made.held_bytes) == ([(B, 0)], left.bytes)


def test_a_tick_that_starts_something_is_not_extended() -> None:
    made, tick = about_to_start()
    made.add_ready([batch(chunk(A, [7]))])

    assert made.extend(tick, now=0.0, slots=1) is tick


def test_where_results_leave_no_room_for_what_would_start_with_them_it_stays_queued() -> None:
    """They are written already, so the batch waits for another tick; it must not be posted without being listed."""
    made = flow(A, limits=replace(ROOMY, max_metadata=60))
    for offset in range(1, 10, 2):
        made.settle(Finished((chunk(A, [offset]),), Verdicts(SKIPPED)))
    tick = made.plan(now=0.0, slots=0)
    assert tick is not None
    waiting = batch(chunk(A, range(20, 400, 2)))
    made.add_ready([waiting])

    extended = made.extend(tick, now=0.0, slots=1)

    assert extended is not None
    assert (extended.start, extended.offsets, list(made.ready)) == ([], tick.offsets, [waiting])
    assert made.committed(extended) == []
    assert made.held_bytes == waiting.bytes


@pytest.mark.parametrize("goes", ["nothing", "it is let go", "it begins anew", "another one goes"])
def test_a_tick_is_withdrawn_if_its_partition_is_released_before_batches_are_chosen(goes: str) -> None:
    """Its results are written by then and must not be committed: the partition's new owner writes its own."""
    made = flow(A, B)
    made.settle(Finished((chunk(A, [0]),), Verdicts(SKIPPED)))
    tick = made.plan(now=0.0, slots=0)
    assert tick is not None
    if goes != "nothing":
        made.release([B if goes == "another one goes" else A])
    if goes == "it begins anew":
        made.assign(A, 2, Progress(0))

    extended = made.extend(tick, now=0.0, slots=1)

    assert (extended is None) == goes.startswith("it ")


def test_what_is_ready_is_counted_without_the_batches_that_there_was_no_room_for() -> None:
    made = flow(A, B, limits=replace(ROOMY, max_metadata=16))
    made.settle(Finished((chunk(A, [1]),), Verdicts(SKIPPED)))
    made.add_ready([batch(chunk(A, [offset])) for offset in range(2, 6)])
    counts = [made.queue.startable]
    started(made, slots=0)
    for _ in range(3):
        assert made.plan(now=0, slots=1) is None
    counts.append(made.queue.startable)
    made.add_ready([batch(chunk(B, [0])), batch(chunk(A, [0]))])
    counts.append(made.queue.startable)

    drained(made, turns=20)

    assert [*counts, made.queue.startable] == [4, 0, 2, 0]


def test_an_item_that_is_cut_stays_listed_until_its_last_record_is_settled() -> None:
    """Un-listed but not settled, a record would be posted again after a crash."""
    made = flow(A, limits=replace(ROOMY, max_metadata=40))
    made.add_ready([batch(chunk(A, range(200)))])
    [(serial, posted)] = started(made)
    failed, rest = posted.split([at for at in range(200) if zlib.crc32(b"%d" % at) % 3 == 0])
    made.finish(serial, rest, Verdicts(QUEUED), attempts=1, sent_ms=5, answered_ms=6)
    made.again(batch(*failed), at=1_000.0)
    tick = made.plan(now=0, slots=4)
    assert tick is not None
    made.committed(tick)
    left = [offset for item in made.finished for _, offset in positions(item.chunks)]
    assert 0 < len(left) < rest[0].offsets[-1]

    made.limits = ROOMY  # with room for all that is true, and results that wait for a tick of their own
    made.finished, waiting = deque(), made.finished
    made.mark(A)
    listed = said(made.plan(now=0, slots=0)).in_flight

    assert waiting
    assert all(offset in listed for offset in left)


def test_records_in_doubt_that_the_topic_no_longer_has_are_counted_and_settled() -> None:
    made = flow(A, progress=Progress(0, in_flight=RangeSet([(0, 10)])))

    intake = made.intake(chunk(A, range(6, 12)))

    assert (intake.vanished, intake.passed_over) == (6, 6)
    assert positions(intake.doubtful) == [(A, offset) for offset in range(6, 10)]
    assert said(made.plan(now=0, slots=0)).base == 6


def test_what_can_not_be_read_behind_the_last_record_is_committed_once_all_is_settled() -> None:
    """Otherwise, once retention has removed it, it looks like records that nobody has read."""
    made = flow(A, progress=Progress(0, in_flight=RangeSet([(5, 7)])))
    read(made, chunk(A, range(3)))
    made.add_ready([batch(chunk(A, range(3)))])
    assert made.pass_over(A, 8) == (0, 0), "records wait before it"
    [(serial, _)] = started(made)
    settled(made, serial)
    started(made)

    assert made.pass_over(A, 8) == (2, 5)
    assert made.pass_over(A, 8) == (0, 0), "once"

    assert said(made.plan(now=0, slots=0)) == Progress(8, mark=3)
    assert positions(made.intake(chunk(A, [7, 8])).fresh) == [(A, 8)]


def test_what_lies_behind_records_that_were_settled_before_they_were_read_is_counted_without_them() -> None:
    made = flow(A, progress=Progress(0, settled=RangeSet([(1, 4)])))
    assert made.pass_over(A, 1) == (0, 1)
    assert said(made.plan(now=0, slots=0)).base == 4

    assert made.pass_over(A, 6) == (0, 2)


def test_a_partition_with_records_dropped_at_reading_passes_over_nothing() -> None:
    """The consumer is past them, but they are read again."""
    made = flow(A, B)
    made.hold(A)
    made.begin_revoke([B])

    assert [made.pass_over(partition, 8) for partition in (A, B)] == [(0, 0), (0, 0)]


def test_offsets_that_lie_between_those_that_were_read_are_counted_and_none_of_them_was_in_doubt() -> None:
    made = flow(A)

    intakes = [made.intake(chunk(A, offsets)) for offsets in ([0, 1], [5, 6, 9], [10])]

    assert [(intake.vanished, intake.passed_over) for intake in intakes] == [(0, 0), (0, 5), (0, 0)]


def test_records_of_a_released_partition_are_dropped() -> None:
    """One call to the consumer may bring records of a partition that was revoked during it."""
    made = flow(A, B)
    made.release([A])

    assert made.intake(chunk(A, range(3))) is NOTHING


def test_a_partition_is_drained_once_all_that_was_posted_or_answered_is_committed() -> None:
    """Before that, the next owner would treat its records as in doubt, or post them again."""
    made = flow(A, B)
    piece, other = chunk(A, range(3)), chunk(B, range(3))
    read(made, piece, other)
    drained_at = [made.is_drained([A])]
    made.add_ready([batch(piece), batch(other)])
    (serial, _), _ = started(made)
    drained_at.append(made.is_drained([A]))
    settled(made, serial)
    drained_at.append(made.is_drained([A]))
    tick = made.plan(now=0.0, slots=0)
    assert tick is not None
    made.committed(tick)
    drained_at.append(made.is_drained([A]))
    made.settle(Finished((chunk(A, [3]),), Verdicts(SKIPPED)))
    drained_at.append(made.is_drained([A]))
    started(made)
    made.mark(A)
    drained_at.append(made.is_drained([A]))

    assert drained_at == [True, False, False, True, False, False]
    assert not made.is_drained([B]), "its batch is under way"
    assert not made.is_drained([A, B])


def test_what_is_listed_and_whether_anything_is_left_is_told_of_partitions_that_are_assigned() -> None:
    made = flow(A, B)
    piece = chunk(A, range(3))
    seen = [(made.listed([A, B, C]), made.has_nothing_left(A))]
    read(made, piece)
    made.add_ready([batch(piece)])
    [(serial, _)] = started(made)
    seen.append((made.listed([A, B, C]), made.has_nothing_left(A)))
    settled(made, serial)
    started(made)
    seen.append((made.listed([A, B, C]), made.has_nothing_left(A)))
    read(made, chunk(A, [3]))
    seen.append((made.listed([A]), made.has_nothing_left(A)))
    made.begin_revoke([A])
    seen.append((made.listed([A]), made.has_nothing_left(A)))

    assert seen == [(0, True), (3, False), (0, True), (0, False), (0, True)]
    assert made.has_nothing_left(C)


def test_partitions_that_are_not_assigned_can_be_held_revoked_and_released() -> None:
    """As one that went during a rebalance before it had begun."""
    made = flow(A)

    made.hold(C)
    made.begin_revoke([C])
    assert made.is_drained([C])
    made.release([C])

    assert made.partitions.keys() == {A}
    assert not made.wants_tick(now=0.0, slots=1)


@pytest.mark.parametrize("goes", ["revoking", "held"])
def test_what_was_not_started_of_a_partition_that_goes_is_forgotten_at_once(goes: str) -> None:
    """Its memory is that of others by then, and it does not count as what waits."""
    made = flow(A, B)
    first, again, other = chunk(A, [0]), chunk(A, [1]), chunk(B, [0])
    read(made, first, again, other)
    made.add_ready([batch(first), batch(other)])
    made.again(batch(again), at=5.0)
    waited = made.waiting

    if goes == "held":
        made.hold(A)
    else:
        made.begin_revoke([A])

    assert (waited, made.waiting) == (1, 0)
    assert [one.chunks for one in made.ready] == [(other,)]
    assert made.held_bytes == batch(other).bytes


def test_of_a_partition_that_was_released_nothing_is_left_to_commit_to_write_or_to_weigh() -> None:
    made = flow(A, B)
    piece = chunk(A, [0])
    read(made, piece)
    made.settle(Finished((piece,), Verdicts(SKIPPED)))
    made.mark(A)

    made.release([A])

    assert (made.held_bytes, made.wants_tick(now=0.0, slots=1), made.plan(now=0.0, slots=1)) == (0, False, None)


def test_what_was_read_under_an_earlier_assignment_is_neither_taken_in_nor_started() -> None:
    """Whoever owned the partition in between may have posted it."""
    made = flow(A)
    early = chunk(A, [0, 1])
    made.release([A])
    made.assign(A, 2, Progress(0))

    assert made.intake(early) is NOTHING
    made.add_ready([batch(early)])
    assert (list(made.ready), made.held_bytes) == ([], 0)


def test_a_partition_that_returns_has_the_room_that_its_metadata_then_has() -> None:
    made = flow(A)
    for full in (made.metadata_room.full, made.metadata_room.full_for_retries, made.metadata_room.stuck):
        full.add(A)
    made.release([A])
    made.assign(A, 2, Progress(0))
    piece = chunk(A, [4], epoch=2)
    read(made, chunk(A, [0], epoch=2), piece)
    made.add_ready([batch(piece)])

    assert [positions(posted.chunks) for _, posted in started(made)] == [[(A, 4)]]


def test_a_commit_of_results_of_a_partition_that_was_released_meanwhile_changes_only_the_others() -> None:
    made = flow(A, B)
    both = batch(chunk(A, range(2)), chunk(B, range(2)))
    made.add_ready([both])
    [(serial, _)] = started(made)
    settled(made, serial)
    tick = made.plan(now=0.0, slots=0)
    assert tick is not None
    made.release([A])

    made.committed(tick)

    assert (made.partitions[B].base, made.partitions[B].active, made.held_bytes) == (2, {}, 0)


def test_a_tick_of_an_older_assignment_changes_nothing_of_the_next_one() -> None:
    """It began at what was committed before that tick, or the tick is part of what it began at."""
    made = flow(A)
    made.add_ready([batch(chunk(A, range(2)))])
    [(serial, _)] = started(made)
    settled(made, serial)
    tick = made.plan(now=0.0, slots=0)
    assert tick is not None
    made.assign(A, 2, Progress(0, in_flight=RangeSet([(0, 2)])))

    made.committed(tick)

    state = made.partitions[A]
    assert (state.base, state.settled, state.doubt) == (0, RangeSet(), RangeSet([(0, 2)]))
    assert state.committed.in_flight == RangeSet([(0, 2)])


def test_what_was_listed_as_its_partition_was_about_to_go_is_off_the_list_before_that_is_drained() -> None:
    """It will not be posted: the next owner would treat it as in doubt for nothing."""
    made, tick = about_to_start()
    made.begin_revoke([A])
    assert made.committed(tick) == []
    assert made.held_bytes == 0
    assert said(tick).in_flight.count == 3
    assert not made.is_drained([A])

    after = made.plan(now=0.0, slots=0)

    assert not said(after).in_flight
    assert after is not None
    made.committed(after)
    assert made.is_drained([A])


@given(st.sets(st.integers(0, 11)), st.lists(st.sampled_from(["ready", "waiting", "suspect"]), min_size=3, max_size=3))
def test_what_is_taken_out_are_the_chosen_records_and_all_others_start_in_their_turn(
    chosen: set[int], places: list[str]
) -> None:
    made = flow(A)
    for at, place in enumerate(places):
        piece = batch(chunk(A, range(4 * at, 4 * at + 4)), batch_id=place)
        piece.suspect = place == "suspect"
        if place == "ready":
            made.add_ready([piece])
        else:
            made.again(piece, at=at)
    held_bytes = made.held_bytes

    out = made.take_out(
        lambda piece: [index for index, (_, offset) in enumerate(positions(piece.chunks)) if offset in chosen]
    )

    taken = [offset for piece in out for _, offset in positions(piece.chunks)]
    begun = []
    while made.wants_tick(now=9.0, slots=64):
        begun += started(made, now=9.0)
    left = [offset for _, piece in begun for _, offset in positions(piece.chunks)]
    assert sorted(taken) == sorted(chosen)
    assert sorted(left) == [offset for offset in range(12) if offset not in chosen]
    assert [piece.count for _, piece in begun] == [len(positions(piece.chunks)) for _, piece in begun]
    assert (made.held_bytes < held_bytes) == bool(chosen)


# ------------------------------------------------------------------ how much starts, and how much is written


@given(st.integers(1, 12), st.lists(st.integers(1, 6), min_size=1, max_size=12), st.integers(1, 5))
def test_no_more_records_are_in_flight_than_may_be_and_one_batch_always_is(
    limit: int, counts: list[int], slots: int
) -> None:
    """That many are in doubt after a crash; and a batch that is larger than the limit must not stand still."""
    made = flow(A, limits=replace(ROOMY, max_in_flight_records=limit))
    read(made, chunk(A, range(sum(counts))))
    begin = 0
    for count in counts:
        made.add_ready([batch(chunk(A, range(begin, begin + count)))])
        begin += count

    while made.wants_tick(now=0.0, slots=slots):
        started(made, slots=slots)
        in_flight = made.partitions[A].in_flight().count
        assert in_flight <= limit or len(made.active) == 1
        for serial in list(made.active)[:1]:
            settled(made, serial)

    assert made.partitions[A].base == begin


@pytest.mark.parametrize(
    ("max_records", "max_bytes", "taken"),
    [(6, 1_000_000, 2), (5, 1_000_000, 1), (100, 0, 1), (2, 1_000_000, 1), (100, 1_000_000, 3)],
    ids=["just so many", "one less", "bytes", "less than the first has", "all"],
)
def test_a_tick_writes_no_more_than_it_may_of_either_and_one_item_always(
    max_records: int, max_bytes: int, taken: int
) -> None:
    made = flow(A, limits=replace(ROOMY, max_tick_records=max_records, max_tick_bytes=max_bytes))
    for at in range(3):
        made.settle(Finished((chunk(A, range(3 * at, 3 * at + 3)),), Verdicts(SKIPPED)))

    tick = made.plan(now=0.0, slots=0)

    assert tick is not None
    assert len(tick.settle) == taken
    assert said(tick).base == 3 * taken


def test_a_trial_is_a_single_record_and_the_rest_of_its_batch_starts_next() -> None:
    made = flow(A)
    read(made, chunk(A, range(4)))
    made.add_ready([batch(chunk(A, range(3))), batch(chunk(A, [3]))])
    begun = []

    for _ in range(4):
        tick = made.plan(now=0.0, slots=1, trial=True)
        assert tick is not None
        begun += made.committed(tick)
        assert made.held_bytes == sum(one.bytes for one in (*made.ready, *made.active.values()))

    assert [positions(piece.chunks) for _, piece in begun] == [[(A, offset)] for offset in range(4)]
    assert not made.ready


@pytest.mark.parametrize("goes", ["held", "revoking"])
def test_what_comes_from_checks_after_its_partition_was_stopped_does_not_start_and_is_not_counted(goes: str) -> None:
    """The reader checks records without the lock; meanwhile an answer may be lost, for instance."""
    made = flow(A, B)
    mine, other = chunk(A, range(3)), chunk(B, range(2))
    read(made, mine, other)
    if goes == "held":
        made.hold(A)
    else:
        made.begin_revoke([A])

    made.add_ready([batch(mine), batch(mine, other)])

    [(serial, posted)] = started(made)
    assert (positions(posted.chunks), posted.count, posted.size) == (positions([other]), 2, batch(other).size)
    settled(made, serial)
    started(made)
    assert made.held_bytes == 0


# ------------------------------------------------------------------ where the oldest record is


def test_the_record_that_the_committed_offset_waits_for_is_found_in_every_place() -> None:
    """Read, ready, posted, waiting to be posted again, answered: and each time its batch and attempts."""
    made = flow(A, B)
    other, first, second = chunk(B, [0]), chunk(A, [0, 2]), chunk(A, [3])
    found = [made.oldest(A)]
    read(made, other, first, second)
    found.append(made.oldest(A))
    made.add_ready([batch(other, batch_id="other"), batch(second, batch_id="later"), batch(first, batch_id="b")])
    found.append(made.oldest(A))
    (_, _), (_, _), (serial, posted) = started(made)
    found.append(made.oldest(A))
    posted.attempts = 1
    made.again(made.withdraw(serial), at=7.5)
    found.append(made.oldest(A))
    (again, _), *_ = started(made, now=8)
    found.append(made.oldest(A))
    settled(made, again)
    found.append(made.oldest(A))
    tick = made.plan(now=9, slots=0)
    found.append(made.oldest(A))
    assert tick is not None
    made.committed(tick)
    found.append(made.oldest(A))

    assert found == [
        Place("unread"),
        Place("elsewhere"),
        Place("ready", "b"),
        Place("posted", "b"),
        Place("waiting", "b", 1, 7.5),
        Place("posted", "b", 1),
        Place("answered", "b", 1),
        Place("elsewhere"),
        Place("posted", "later"),
    ]


def test_the_oldest_record_of_a_partition_with_full_metadata_is_reported_as_such() -> None:
    made = flow(A, limits=replace(ROOMY, max_metadata=16))
    read(made, *(chunk(A, [offset]) for offset in range(3)))
    made.settle(Finished((chunk(A, [1]),), Verdicts(SKIPPED)))
    made.add_ready([batch(chunk(A, [2]), batch_id="later"), batch(chunk(A, [0]), batch_id="b")])
    names = []
    for turn in range(10):
        names.append(made.oldest(A).name)
        tick = made.plan(now=turn, slots=1)
        if tick is not None:
            made.committed(tick)

    assert names[0] == "ready"
    assert "no_room" in names
    assert names[-1] == "posted"  # and all the same it starts


# ------------------------------------------------------------------ partitions that come back


def about_to_start() -> tuple[Flow, Tick]:
    """Return a flow with one batch, and the tick that lists it."""
    made = flow(A)
    piece = chunk(A, range(3))
    read(made, piece)
    made.add_ready([batch(piece)])
    tick = made.plan(now=0.0, slots=1)
    assert tick is not None
    return made, tick


def lost_as_it_was_withdrawn() -> tuple[Flow, Progress]:
    """Return a flow that lost a partition with a batch listed that was certainly not accepted, and its commit."""
    made, tick = about_to_start()
    committed = said(tick)
    [(serial, _)] = made.committed(tick)
    made.again(made.withdraw(serial), at=0.0)
    made.release([A])
    return made, committed


def test_what_was_certainly_not_accepted_is_not_in_doubt_when_the_partition_returns() -> None:
    made, committed = lost_as_it_was_withdrawn()
    assert committed.in_flight.count == 3

    state = made.assign(A, 2, committed)

    assert not state.doubt
    assert not said(made.plan(now=0.0, slots=0)).in_flight, "and the next tick says so"


def test_what_is_posted_during_a_release_is_in_doubt_when_the_partition_returns() -> None:
    made, tick = about_to_start()
    made.committed(tick)
    made.release([A])

    state = made.assign(A, 2, said(tick))

    assert state.doubt == said(tick).in_flight


def test_what_another_worker_listed_in_between_is_in_doubt_although_ours_is_known() -> None:
    """It has posted the same records under a listing of its own."""
    made, committed = lost_as_it_was_withdrawn()

    state = made.assign(A, 2, replace(committed, mark=committed.mark + 1))

    assert state.doubt == committed.in_flight


def test_what_was_listed_after_the_release_was_never_posted() -> None:
    made, tick = about_to_start()
    made.release([A])
    assert not made.committed(tick)

    state = made.assign(A, 2, said(tick))

    assert not state.doubt


def test_an_answer_is_not_of_a_record_that_another_worker_has_settled_since() -> None:
    """Nor is it of a record at the same offset in a recreated topic."""
    made, tick = about_to_start()
    [(serial, _)] = made.committed(tick)
    made.release([A])
    settled(made, serial)
    made.assign(A, 2, Progress(3))
    made.release([A])
    made.assign(A, 3, Progress(0, in_flight=RangeSet([(0, 3)])))

    intake = made.intake(chunk(A, range(3), epoch=3))

    assert (positions(intake.doubtful), intake.answered) == ([(A, 0), (A, 1), (A, 2)], ())


def test_a_partition_that_restarts_without_a_release_keeps_nothing() -> None:
    made = flow(A)
    piece = chunk(A, range(3))
    read(made, piece)
    made.add_ready([batch(piece)])

    made.assign(A, 2, Progress(0))

    assert (len(made.ready), made.held_bytes) == (0, 0)


def test_a_partition_that_is_held_starts_nothing_and_takes_nothing_in() -> None:
    made = flow(A, B)
    first, other = chunk(A, range(3)), chunk(B, range(2))
    read(made, first, other)
    made.add_ready([batch(first), batch(other, batch_id="t-2")])

    made.hold(A)

    assert positions(made.intake(chunk(A, range(3, 6))).fresh) == []
    assert [held.chunks for held in made.ready] == [(other,)]
    assert [started_batch.chunks for _, started_batch in started(made)] == [(other,)]


# ------------------------------------------------------------------ the age of what waits


def _appended(partition: Partition, start: int, stop: int, at_ms: int) -> Chunk:
    made = chunk(partition, range(start, stop))
    made.oldest_ms = at_ms
    return made


def test_the_oldest_record_is_that_of_the_partition_that_is_furthest_behind() -> None:
    made = flow(A, B)
    assert made.oldest_ms() is None
    first, second, other = _appended(A, 0, 3, 1_000), _appended(A, 3, 6, 2_000), _appended(B, 0, 2, 1_500)
    read(made, first, second, other)
    made.add_ready([batch(first), batch(second, batch_id="t-2"), batch(other, batch_id="t-3")])
    serials = [serial for serial, _ in started(made)]
    assert made.oldest_ms() == 1_000

    settled(made, serials[1])
    started(made)
    assert made.oldest_ms() == 1_000, "what is settled behind it does not make it younger"

    settled(made, serials[0])
    assert made.oldest_ms() == 1_000, "a result that is not committed is none"
    started(made)
    assert made.oldest_ms() == 1_500

    settled(made, serials[2])
    started(made)
    assert made.oldest_ms() is None


def test_a_partition_that_was_released_has_no_age() -> None:
    made = flow(A)
    read(made, _appended(A, 0, 3, 1_000))

    made.release([A])

    assert made.oldest_ms() is None


def test_records_without_a_time_have_no_age() -> None:
    made = flow(A)
    read(made, chunk(A, range(3)))

    assert made.oldest_ms() is None


# ------------------------------------------------------------------ how many records a request may hold


def limited(made: Flow, count: int, *, now: float = 0.0) -> None:
    """Lose a request of very many records, and have one of `count` answered after it."""
    made.size.answered(count, now=now)
    assert made.size.lost(10_000, began=now - 30, due=now, now=now)


def sizes(made: Flow) -> list[int]:
    return [posted.count for posted in made.active.values()]


def test_no_batch_holds_more_records_than_were_answered_but_one_that_tries_for_twice_as_many() -> None:
    made = flow(A)
    read(made, chunk(A, range(30)))
    made.add_ready([batch(chunk(A, range(18))), batch(chunk(A, range(18, 22))), batch(chunk(A, range(22, 30)))])
    limited(made, 4)

    started(made)

    assert sizes(made) == [8, 4, 4, 2, 4, 4, 4]
    assert under_way(made) == list(range(30))


def test_no_other_tries_for_more_while_one_is_under_way() -> None:
    made = flow(A)
    read(made, chunk(A, range(30)))
    limited(made, 4)
    for begin in (0, 10, 20):
        made.add_ready([batch(chunk(A, range(begin, begin + 10)))])
        started(made)

    assert sizes(made) == [8, 2, 4, 4, 2, 4, 4, 2]

    settled(made, next(iter(made.active)))
    read(made, chunk(A, range(30, 40)))
    made.add_ready([batch(chunk(A, range(30, 40)))])
    started(made)

    assert sizes(made)[-2:] == [8, 2], "it was answered, or is lost: there may be another"


def test_what_was_posted_before_does_not_try_for_more() -> None:
    """It may have a reason of its own for having no answer."""
    made = flow(A)
    read(made, chunk(A, range(10)))
    limited(made, 4)
    again = batch(chunk(A, range(10)))
    again.sent_ms = 5
    made.again(again, at=0.0)

    started(made)

    assert sizes(made) == [4, 4, 2]
    assert {posted.family for posted in made.active.values()} == {again.family}


def test_parts_of_an_unposted_batch_are_families_of_their_own() -> None:
    """A batch with one bad record must not make most others look as if they failed with it."""
    made = flow(A)
    read(made, chunk(A, range(12)))
    made.add_ready([batch(chunk(A, range(12)), family=7)])
    limited(made, 2)

    started(made)

    assert sizes(made) == [4, 2, 2, 2, 2]
    assert len({posted.family for posted in made.active.values()}) == 5


def test_what_the_platform_is_tried_with_is_one_record_whatever_was_answered() -> None:
    made = flow(A)
    read(made, chunk(A, range(12)))
    made.add_ready([batch(chunk(A, range(12)))])
    limited(made, 4)

    tick = made.plan(now=0.0, slots=1, trial=True)

    assert tick is not None
    assert [posted.count for _, posted in tick.start] == [1]


def test_what_is_tried_again_takes_turns_with_the_parts_of_what_is_ready() -> None:
    made = flow(A, B)
    read(made, chunk(A, range(40)), chunk(B, range(4)))
    made.add_ready([batch(chunk(A, range(40)))])
    for number in range(4):
        made.again(batch(chunk(B, [number])), at=0.0)
    limited(made, 4)

    begun = [posted.chunks[0].partition for _, posted in started(made, slots=8)]

    assert begun == [B, A] * 4
