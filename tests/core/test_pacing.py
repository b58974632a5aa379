"""The pace of lists: none is faster, none blocks another, and what waits comes out in order and only once."""

import itertools
from collections import defaultdict
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connector.core.batching import RECORD_BYTES
from connector.core.chunks import Chunk, Partition, weight
from connector.core.pacing import BURST_SECS, MAX_SEEN, Lot, Pace, Pacer
from tests.core.making import A, B, chunk

FAST, SLOW, FREE = "+18005550001", "+18005550002", "+18005550003"
PACE: Final = Pace(600, {FAST: 6_000, FREE: 1e8})
"""10 a second for lists without a pace of their own, 100 for the fast one."""


def of_lists(*numbers: str, start: int = 0, partition: Partition = A) -> Chunk:
    """Return a chunk with a record for each number."""
    made = chunk(partition, range(start, start + len(numbers)))
    made.lists = list(numbers)
    return made


def offsets(*lots: Lot | Chunk | None) -> list[int]:
    chunks = [lot.chunk if isinstance(lot, Lot) else lot for lot in lots if lot is not None]
    return [offset for piece in chunks for offset in piece.offsets]


def test_a_list_within_its_pace_shares_its_chunk_with_all_others() -> None:
    pacer = Pacer(PACE, max_lot=50)
    piece = of_lists(*[FAST, SLOW, FREE] * 10)

    assert pacer.admit(None, piece, now=0) is piece


def test_a_thousand_lists_within_their_pace_leave_chunks_whole() -> None:
    pacer = Pacer(Pace(17_000), max_lot=1_000)
    numbers = [f"+1800555{number:04d}" for number in range(1_000)]

    for step in range(10):
        piece = of_lists(*numbers, *numbers)
        assert pacer.admit(None, piece, now=step / 100) is piece, "200 a second of each: below its 283"


def test_a_list_that_is_overrun_continues_with_what_is_not_too_old() -> None:
    """If expired records used up the pace, those behind them would expire before their turn as well, forever."""
    now = 0.0
    pacer = Pacer(Pace(600), max_lot=50, expired_before=lambda: int((now - 60) * 1_000))
    fresh = old = 0
    for second in range(600):  # twice the pace, for ten minutes
        now = float(second)
        piece = of_lists(*[SLOW] * 20, start=20 * second)
        piece.timestamps = [int(now * 1_000)] * 20
        gone = [pacer.admit(None, piece, now=now), *(lot.chunk for lot in pacer.release(now=now))]
        stamps = [stamp for chunk in gone if chunk is not None for stamp in chunk.timestamps or ()]
        fresh += sum(stamp >= (now - 60) * 1_000 for stamp in stamps)
        old += sum(stamp < (now - 60) * 1_000 for stamp in stamps)

    assert fresh == pytest.approx(6_000, abs=60)
    assert fresh + old + pacer.waiting_records == 12_000
    assert pacer.waiting_records <= 20 * 61


def test_a_record_that_never_expires_does_not_make_those_behind_it_use_the_pace() -> None:
    """Its producer's clock may be ahead."""
    now, ahead = 0.0, 3_600_000
    pacer = Pacer(Pace(600), max_lot=50, expired_before=lambda: int((now - 60) * 1_000))
    fresh = 0
    for second in range(600):  # twice the pace, for ten minutes
        now = float(second)
        piece = of_lists(*[SLOW] * 20, start=20 * second)
        piece.timestamps = [int(now * 1_000) + ahead, *[int(now * 1_000)] * 19]
        gone = [pacer.admit(None, piece, now=now), *(lot.chunk for lot in pacer.release(now=now))]
        stamps = [stamp for chunk in gone if chunk is not None for stamp in chunk.timestamps or ()]
        fresh += sum(stamp >= (now - 60) * 1_000 for stamp in stamps)

    assert fresh == pytest.approx(6_000, abs=60)


def test_only_what_is_above_the_pace_of_its_list_waits() -> None:
    pacer = Pacer(PACE, max_lot=50)
    first = pacer.admit(None, of_lists(*[SLOW] * 60), now=0)
    assert offsets(first) == list(range(50)), "the first lot always goes"

    second = pacer.admit(None, of_lists(FAST, SLOW, FREE, SLOW, start=60), now=0)

    assert offsets(second) == [60, 62]
    assert pacer.waiting_records == 12
    assert pacer.next_at() == pytest.approx(50 / 10 - BURST_SECS)
    assert pacer.release(now=3.9) == []
    assert offsets(*pacer.release(now=4.0)) == [*range(50, 60), 61, 63]
    assert (pacer.waiting_records, pacer.waiting_bytes, pacer.next_at()) == (0, 0, None)


def test_a_list_of_its_own_lane_is_paced_by_its_lane() -> None:
    pacer = Pacer(PACE, max_lot=50)

    assert offsets(pacer.admit(SLOW, chunk(A, range(60)), now=0)) == list(range(50))

    (lot,) = pacer.release(now=5)
    assert (lot.lane, offsets(lot), lot.since) == (SLOW, list(range(50, 60)), 0)


def test_a_list_without_a_pace_is_never_held() -> None:
    pacer = Pacer(Pace(None, {SLOW: 60}), max_lot=50)

    assert len(pacer.admit(FREE, chunk(A, range(10_000)), now=0) or ()) == 10_000
    assert pacer.backlogs(now=0) == []


def test_a_worker_has_the_share_of_its_partitions() -> None:
    pacer = Pacer(PACE, max_lot=50)

    pacer.set_share(2, 8)
    assert pacer.rate(FAST) == pytest.approx(25)
    pacer.set_share(0, 8)
    pacer.set_share(3, 0)

    assert pacer.rate(FAST) == pytest.approx(25), "without partitions there is nothing to share"
    pacer.set_share(9, 8)
    assert pacer.rate(FAST) == pytest.approx(100), "those that were added are not known yet"


def test_a_slow_list_continues_in_small_steps() -> None:
    pacer = Pacer(Pace(60), max_lot=1_000)
    pacer.admit(SLOW, chunk(A, range(20)), now=0)

    sizes = [len(offsets(*pacer.release(now=float(second)))) for second in range(1, 16)]

    assert (sum(sizes), max(sizes)) == (15, 5), "5 seconds' worth, not 1,000 every 17 minutes"


def test_time_in_which_nothing_could_start_does_not_end_in_a_flood() -> None:
    pacer = Pacer(PACE, max_lot=50)
    pacer.admit(SLOW, chunk(A, range(1_000)), now=0)

    assert len(offsets(*pacer.release(now=600.0))) <= 10 * BURST_SECS + 50


def test_the_backlog_counts_a_record_once_that_was_read_since_the_unread_ones_were_counted() -> None:
    pacer = Pacer(PACE, max_lot=50)
    pacer.unread = 1_000

    pacer.admit(None, of_lists(*[SLOW] * 1_000), now=0)

    (backlog,) = pacer.backlogs(now=0)
    assert backlog.secs == pytest.approx(100, abs=5)


def test_the_backlog_counts_what_is_unread_as_what_was_read_of_late() -> None:
    pacer = Pacer(PACE, max_lot=200)
    pacer.admit(None, of_lists(*[SLOW, FAST, FAST, FAST] * 25), now=0)
    assert pacer.backlogs(now=0) == []
    pacer.admit(None, of_lists(*[SLOW] * 100, start=100), now=0)

    pacer.unread = 200_000
    slowest, other = pacer.backlogs(now=0)

    assert (slowest.number, slowest.waiting, other.number) == (SLOW, 100, FAST)
    assert slowest.secs == pytest.approx(1.5 + (100 + 125_000) / 10)
    assert (slowest.outlives_platform, other.outlives_platform) == (True, False)


@pytest.mark.parametrize(("waiting", "dropped"), [(18_000, False), (18_020, True)])
def test_what_the_platform_would_drop_waits_for_more_than_half_an_hour(waiting: int, dropped: bool) -> None:
    """It drops, in silence, what waits 30 minutes on a list."""
    pacer = Pacer(PACE, max_lot=10)
    pacer.admit(SLOW, chunk(A, range(10 + waiting)), now=0)

    (backlog,) = pacer.backlogs(now=BURST_SECS)

    assert backlog.secs == pytest.approx(waiting / 10)
    assert backlog.outlives_platform is dropped


def test_what_was_read_long_ago_counts_for_less_and_shares_stay_shares() -> None:
    pacer = Pacer(Pace(6e7), max_lot=MAX_SEEN)
    few, many = chunk(A, range(MAX_SEEN // 16)), chunk(A, range(3 * MAX_SEEN // 16))
    for _ in range(5):
        pacer.admit(SLOW, few, now=100)
        pacer.admit(FAST, many, now=100)

    pacer.unread = 4_000_000_000

    longest, other = pacer.backlogs(now=100)
    assert (longest.number, other.number) == (FAST, SLOW)
    assert longest.secs == pytest.approx(3_000, rel=0.2)
    assert other.secs == pytest.approx(1_000, rel=0.2)


def test_where_all_was_read_and_nothing_waits_there_is_no_backlog_however_slow_the_list() -> None:
    pacer = Pacer(Pace(6), max_lot=10)
    pacer.admit(SLOW, chunk(A, [0]), now=0)

    assert pacer.backlogs(now=0) == []


def test_what_waits_is_counted_with_all_that_it_keeps_in_memory() -> None:
    pacer, piece = Pacer(PACE, max_lot=10), chunk(A, range(30))
    pacer.admit(SLOW, piece, now=0)

    assert pacer.waiting_bytes == weight(piece.slice(10, 30)) + 20 * RECORD_BYTES
    pacer.release(now=0)
    assert pacer.waiting_bytes == weight(piece.slice(20, 30)) + 10 * RECORD_BYTES


def test_lists_that_come_no_more_are_forgotten() -> None:
    pacer = Pacer(Pace(1e8), max_lot=1_000)
    for number in range(1_000):
        pacer.admit(f"+1800555{number:04d}", chunk(A, [0]), now=0)

    many = chunk(A, range(MAX_SEEN // 10))
    for _ in range(40):
        pacer.admit(FAST, many, now=0)

    assert set(pacer._lists) == {FAST}


def test_a_slow_list_keeps_its_pace_while_others_bring_very_much() -> None:
    """What it owes is not forgotten with how often it came: it may go on every ten seconds, and comes every three."""
    pacer, many = Pacer(Pace(None, {"slow": 6.0}), max_lot=1_000), of_lists(*["other"] * (MAX_SEEN // 4))
    gone = 0

    for second in range(30):
        if second % 3 == 0:
            gone += len(offsets(pacer.admit(None, of_lists("slow"), now=float(second))))
        gone += len(offsets(*pacer.release(now=float(second))))
        for _ in range(6):
            pacer.admit(None, many, now=float(second))

    assert gone <= 6 / 60 * (30 + BURST_SECS) + 1


def test_waiting_records_are_dropped_with_their_partition() -> None:
    pacer = Pacer(PACE, max_lot=10)
    for partition in (A, B):
        pacer.admit(None, of_lists(*[SLOW] * 30, partition=partition), now=0)
    assert pacer.waits_until(lambda piece: piece.partition == A) is not None

    pacer.keep(lambda piece: piece.partition == B)

    assert pacer.waits_until(lambda piece: piece.partition == A) is None
    assert pacer.waiting_records == 30
    pacer.keep(lambda _: True)
    assert pacer.waiting_records == 30
    pacer.keep(lambda _: False)
    assert (pacer.waiting_records, pacer.waiting_bytes, pacer.next_at()) == (0, 0, None)


@given(
    st.lists(st.tuples(st.lists(st.sampled_from([FAST, SLOW, FREE]), max_size=30), st.sampled_from([0.0, 0.3, 4.0]))),
    st.booleans(),
)
def test_no_list_is_ever_faster_than_its_pace_and_nothing_is_lost(
    steps: list[tuple[list[str], float]], top_level: bool
) -> None:
    """In any time: pace x (time + burst) and a lot, at most."""
    pacer = Pacer(PACE, max_lot=8)
    now, end = 0.0, 0
    went: defaultdict[str, list[tuple[float, int]]] = defaultdict(list)
    list_of: dict[int, str] = {}

    def note(piece: Chunk | None) -> None:
        assert piece is None or len(piece), "no batch is begun for nothing"
        for offset in offsets(piece):
            went[list_of[offset]].append((now, offset))

    def release() -> None:
        for lot in pacer.release(now=now):
            note(lot.chunk)

    for numbers, secs in steps:
        list_of.update(enumerate(numbers, end))
        if numbers:
            whole = of_lists(*numbers, start=end)
            end += len(numbers)
            for number in dict.fromkeys(numbers) if top_level else [None]:
                part = whole.pick([i for i, there in enumerate(numbers) if number in (None, there)])
                note(pacer.admit(number, part, now=now))
        now += secs
        release()
    for _ in range(10 + end):
        now += 1.0
        release()

    assert sorted(offset for there in went.values() for _, offset in there) == list(range(end))
    assert (pacer.waiting_records, pacer.waiting_bytes) == (0, 0)
    for number, there in went.items():
        assert [offset for _, offset in there] == sorted(offset for _, offset in there), "in their order"
        rate = pacer.rate(number)
        assert rate is not None
        for start, stop in itertools.combinations_with_replacement(range(len(there)), 2):
            span = there[stop][0] - there[start][0]
            assert stop - start + 1 <= rate * (span + BURST_SECS) + pacer.lot(rate) + 1e-6
