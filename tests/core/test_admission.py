"""Admission to batches: what waits for its key or its list, and what becomes of it."""

from connector.core.admission import Admission
from connector.core.batching import Batch, Batcher, BatchLimits
from connector.core.chunks import Chunk
from connector.core.ordering import KeyQueues
from connector.core.pacing import Pace, Pacer
from connector.core.results import Finished
from connector.core.verdicts import QUEUED, Verdicts
from tests.core.making import A, chunk, positions

SLOW, OTHER = "+18005550001", "+18005550002"


def admission(*, by_key: bool = False, pace: Pace | None = None, max_records: int = 3) -> Admission:
    batcher = Batcher(BatchLimits(max_records, 10_000, 1.0, 0), "t")
    pacer = None if pace is None else Pacer(pace, max_lot=max_records)
    return Admission(batcher, key_queues=KeyQueues() if by_key else None, pacer=pacer)


def keyed(keys: str, *, start: int = 0, number: str = SLOW) -> Chunk:
    made = chunk(A, range(start, start + len(keys)))
    made.keys = [key.encode() for key in keys]
    made.lists = [number] * len(keys)
    return made


def done(batch: Batch) -> list[Finished]:
    return [Finished(batch.chunks, Verdicts(QUEUED), batch.id)]


def offsets(batches: list[Batch]) -> list[list[int]]:
    return [[offset for _, offset in positions(batch.chunks)] for batch in batches]


def test_without_either_setting_a_chunk_goes_straight_into_its_batch() -> None:
    way, piece = admission(), keyed("aaa")

    (closed,) = way.take([(None, piece)], now=0)

    assert [list(chunk.offsets) for chunk in closed.chunks] == [list(piece.offsets)]
    assert way.settled(done(closed), now=0) == []
    assert (way.held_bytes, way.next_deadline(may_start=True)) == (0, None)


def test_a_record_that_waited_for_its_key_does_not_wait_for_a_window_again() -> None:
    way = admission(by_key=True)
    assert way.take([(None, keyed("aa"))], now=0) == []
    (first,) = way.due(now=1, may_start=True)

    assert way.settled(done(first), now=0.5) == [], "not yet: it was read half a second ago"
    (second,) = way.due(now=1, may_start=True)
    way.take([(None, keyed("a", start=2))], now=1)
    (third,) = way.settled(done(second), now=7)

    assert offsets([first, second, third]) == [[0], [1], [2]]
    assert {batch.closed_by for batch in (second, third)} == {"window"}


def test_records_that_arrive_later_leave_with_the_record_that_waited() -> None:
    way = admission(by_key=True)
    way.take([(None, keyed("aa"))], now=0)
    (first,) = way.due(now=1, may_start=True)
    way.take([(None, keyed("b", start=2))], now=1.9)

    assert offsets(way.settled(done(first), now=2)) == [[2, 1]]


def test_a_record_that_waits_for_its_list_keeps_its_key() -> None:
    """Otherwise a later record with the key could overtake it on its way to another list."""
    way = admission(by_key=True, pace=Pace(None, {SLOW: 6}), max_records=1)
    (first,) = way.take([(None, keyed("a"))], now=0)
    way.take([(None, keyed("b", start=1))], now=0)
    way.take([(None, keyed("b", start=2, number=OTHER))], now=0)

    assert way.settled(done(first), now=0) == []
    (second,) = way.due(now=9, may_start=True)
    (third,) = way.settled(done(second), now=9)

    assert offsets([first, second, third]) == [[0], [1], [2]]


def test_a_pace_is_not_used_up_while_nothing_may_start() -> None:
    way = admission(pace=Pace(60))
    assert offsets(way.take([(None, keyed("abcdefghi"))], now=0)) == [[0, 1, 2]]

    assert way.due(now=600, may_start=False) == []
    assert way.next_deadline(may_start=False) is None, "nobody need look before something may start"
    assert way.next_deadline(may_start=True) == 2, "3 records at 1 a second, of which 1 s may be made up for"

    assert offsets(way.due(now=600, may_start=True)) == [[3, 4, 5]], "a lot, and not ten minutes' worth"
    assert way.held_bytes > 0
    way.keep(lambda _: False)
    assert way.held_bytes == 0


def test_everything_that_one_step_fills_is_returned() -> None:
    """Of lanes that one chunk is divided into, of keys freed together, of lists whose turn comes together."""
    way = admission(by_key=True, max_records=1)
    first = way.take([(None, keyed("ab")), (None, keyed("cd", start=2, number=OTHER))], now=0)
    assert offsets(first) == [[0], [1], [2], [3]]
    assert way.take([(None, keyed("ab", start=4)), (None, keyed("c", start=6, number=OTHER))], now=0) == []

    second = way.settled([item for batch in first for item in done(batch)], now=0)

    assert offsets(second) == [[4], [5], [6]]
    waits = admission(pace=Pace(60), max_records=1)
    for at, number in enumerate([SLOW, OTHER]):
        waits.take([(None, keyed("aa", start=2 * at, number=number))], now=0)
    assert sorted(offsets(waits.due(now=2, may_start=True))) == [[1], [3]]
    assert waits.lots == 2


def test_what_is_held_is_open_or_waits_for_its_key_or_for_its_list_and_is_dropped_wherever_it_is() -> None:
    way = admission(by_key=True, pace=Pace(60))
    assert way.key_queues is not None
    assert way.pacer is not None
    way.take([(None, keyed("aba")), (None, keyed("cde", start=3, number=OTHER))], now=0)
    way.take([(None, keyed("xy", start=6))], now=0)

    parts = [way.batcher.open_bytes, way.key_queues.waiting_bytes, way.pacer.waiting_bytes]
    assert min(parts) > 0
    assert way.held_bytes == sum(parts)

    way.keep(lambda _: False)
    assert [way.batcher.open_bytes, way.key_queues.waiting_bytes, way.pacer.waiting_bytes] == [0, 0, 0]


def test_only_so_many_batches_are_closed_by_their_window_as_may_start() -> None:
    """The others had better wait for more records, however they were opened."""
    way = admission(by_key=True)
    for at, lane in enumerate("xyz"):
        way.take([(lane, keyed(lane, start=at))], now=0)
    (first,) = way.due(now=1, may_start=True, at_most=1)
    way.take([("x", keyed("x", start=3))], now=1)

    second = way.settled(done(first), now=2, at_most=2)

    assert offsets([first]) == [[0]]
    assert sorted(offsets(second)) == [[1], [2]]


def test_it_is_asked_again_at_the_earliest_time_that_anything_waits_for() -> None:
    slow, fast = admission(pace=Pace(1)), admission(pace=Pace(600))

    slow.take([(None, keyed("ab"))], now=0)
    fast.take([(None, keyed("ab" * 20))], now=0)

    assert slow.next_deadline(may_start=True) == 1.0, "the window of the batch that is open"
    assert fast.pacer is not None
    next_at = fast.pacer.next_at()
    assert next_at is not None
    assert fast.next_deadline(may_start=True) == next_at < 1.0
