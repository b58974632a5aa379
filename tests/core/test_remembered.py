"""Results whose partition is released before they are written: remembered, and only for the same records."""

from collections.abc import Iterable
from dataclasses import replace

import pytest

from connector.core.batching import Batch
from connector.core.chunks import Chunk, Partition, weight
from connector.core.flow import Flow, FlowLimits, Tick
from connector.core.ordering import KeyQueues
from connector.core.partition import PartitionState
from connector.core.progress import Progress, decode
from connector.core.ranges import RangeSet
from connector.core.remembered import Remembered
from connector.core.results import Finished
from connector.core.verdicts import QUEUED, Verdict, Verdicts
from tests.core.making import A, B, Position, batch, chunk

REFUSED = Verdict("dead_letter", "invalid_phone")
DOUBT = Verdict("dead_letter", "in_doubt")
LATER = 2
"""The epoch under which what was posted in epoch 1 is read again."""


def remembering(*items: Finished, max_records: int = 100) -> Remembered:
    answers = Remembered(max_records)
    for partition in (A, B):
        answers.assigned(PartitionState(partition, 1, 0, 0, RangeSet(), RangeSet(), next_read=0, horizon=0))
    for item in items:
        answers.answered(item)
    return answers


def recalled(answers: Remembered, *chunks: Chunk) -> tuple[dict[Position, tuple[Verdict, str, int]], list[int]]:
    """Return what is known of each record (verdict, batch, index in the request), and the offsets left in doubt."""
    known: dict[Position, tuple[Verdict, str, int]] = {}
    left: list[int] = []
    for read in chunks:
        found, doubtful = answers.recall(read)
        for item in found:
            [own] = item.chunks
            assert own.epoch == read.epoch
            for at, offset in enumerate(own.offsets):
                assert own.values[at] == read.values[list(read.offsets).index(offset)]
                known[own.partition, offset] = (item.verdicts.of(at), item.batch_id, (own.indices or ())[at])
        left += doubtful.offsets if doubtful else ()
    return known, left


def again(partition: Partition, offsets: Iterable[int]) -> Chunk:
    return chunk(partition, offsets, epoch=LATER)


def posted(made: Flow, *chunks: Chunk) -> tuple[int, Batch]:
    """Read chunks and commit the tick that lists them."""
    for piece in chunks:
        made.intake(piece)
    [listed] = made.committed(listing(made, *chunks))
    return listed


def listing(made: Flow, *chunks: Chunk) -> Tick:
    """Return the tick that lists a batch of chunks that were read."""
    made.add_ready([batch(*chunks)])
    tick = made.plan(now=0, slots=1)
    assert tick is not None
    return tick


def owning(*partitions: Partition) -> Flow:
    made = Flow(FlowLimits(max_in_flight_records=100, max_tick_records=100, max_tick_bytes=10_000))
    for partition in partitions:
        made.assign(partition, 1, Progress(0))
    return made


# ------------------------------------------------------------------ what is remembered


def test_each_record_gets_its_own_verdict_and_the_place_that_it_had_in_its_request() -> None:
    verdicts = Verdicts(QUEUED, {1: REFUSED, 3: REFUSED})
    answers = remembering(Finished((chunk(A, [3, 5, 9]), chunk(B, [7, 8])), verdicts, "t-1"))

    known, left = recalled(answers, again(B, [6, 7, 8]), again(A, range(10)))

    assert known == {
        (A, 3): (QUEUED, "t-1", 0),
        (A, 5): (REFUSED, "t-1", 1),
        (A, 9): (QUEUED, "t-1", 2),
        (B, 7): (REFUSED, "t-1", 3),
        (B, 8): (QUEUED, "t-1", 4),
    }
    assert left == [6, 0, 1, 2, 4, 6, 7, 8]


def test_what_is_read_piece_by_piece_is_known_to_its_end() -> None:
    verdicts = Verdicts(QUEUED, {3: REFUSED})
    answers = remembering(Finished((chunk(A, range(4)),), verdicts, "t-1"))

    known, left = recalled(answers, again(A, [0]), again(A, [1, 2]), again(A, [3]))

    assert ([verdict for verdict, _, _ in known.values()], left) == ([QUEUED, QUEUED, QUEUED, REFUSED], [])


def test_of_two_answers_for_a_record_the_later_one_counts() -> None:
    first = Finished((chunk(A, [0, 1]),), Verdicts(REFUSED), "t-1")
    second = Finished((replace(chunk(A, [1]), resent=True),), Verdicts(QUEUED), "t-2")

    known, _ = recalled(remembering(first, second), again(A, [0, 1]))

    assert known == {(A, 0): (REFUSED, "t-1", 0), (A, 1): (QUEUED, "t-2", 0)}


def test_a_result_that_is_reported_again_says_whether_its_record_had_been_posted_before() -> None:
    """No header says what became of requests before the last one: whoever redrives the dead letter must ask."""
    first = Finished((chunk(A, [0]),), Verdicts(REFUSED), "t-1")
    second = Finished((replace(chunk(A, [1]), resent=True),), Verdicts(REFUSED), "t-2")

    items, _ = remembering(first, second).recall(again(A, [0, 1]))

    assert {(*piece.offsets, piece.resent) for item in items for piece in item.chunks} == {(0, False), (1, True)}


def test_that_an_answer_was_lost_is_no_answer() -> None:
    """What becomes of the record is then the operator's decision, who may have changed it."""
    lost = Finished((chunk(A, [0]),), Verdicts(DOUBT), "t-1")
    unposted = Finished((chunk(A, [1]),), Verdicts(REFUSED))

    assert recalled(remembering(lost, unposted), again(A, [0, 1])) == ({}, [0, 1])


def test_of_too_many_answers_the_oldest_are_forgotten() -> None:
    items = [Finished((chunk(A, [offset]),), Verdicts(QUEUED), "t-1") for offset in range(8)]

    _, left = recalled(remembering(*items, max_records=3), again(A, range(8)))

    assert left == [0, 1, 2, 3, 4]


def test_an_answer_is_dropped_once_all_of_it_was_used() -> None:
    """Until then it is, however the records are read."""
    answers = remembering(Finished((chunk(A, range(4)),), Verdicts(QUEUED), "t-1"))

    kept = [recalled(answers, again(A, offsets)) and len(answers._answers) for offsets in ([0, 1], [2], [3])]

    assert kept == [1, 1, 0]


def test_answers_for_one_partition_are_kept_while_others_are_assigned_and_read() -> None:
    answers = remembering(Finished((chunk(A, range(4)), chunk(B, range(4))), Verdicts(QUEUED), "t-1"))

    answers.assigned(PartitionState(A, LATER, 0, 0, RangeSet(), RangeSet([(0, 9)]), next_read=0, horizon=9))
    known, left = recalled(answers, again(A, range(9)), again(B, range(4)))

    assert (len(known), left) == (8, [4, 5, 6, 7, 8])


def test_answers_that_were_used_make_room_for_others() -> None:
    items = [Finished((chunk(A, [offset]),), Verdicts(QUEUED), "t-1") for offset in range(6)]
    answers = remembering(*items[:3], max_records=3)

    recalled(answers, again(A, range(3)))
    for item in items[3:]:
        answers.answered(item)

    assert recalled(answers, again(A, range(6)))[1] == [0, 1, 2]


def test_a_part_of_a_request_that_is_remembered_keeps_the_places_that_its_records_had_in_it() -> None:
    part = replace(chunk(A, [7, 8]), indices=[2, 5])

    known, _ = recalled(remembering(Finished((part,), Verdicts(QUEUED), "t-1")), again(A, [7, 8]))

    assert [place for _, _, place in known.values()] == [2, 5]


def test_an_answer_for_one_partition_leaves_the_same_offsets_of_others_in_doubt() -> None:
    answers = remembering(Finished((chunk(A, range(4)),), Verdicts(QUEUED), "t-1"))
    doubt = RangeSet([(0, 6)])

    assert answers.unknown(B, Progress(0, in_flight=doubt)) == doubt
    assert answers.unknown(A, Progress(0, in_flight=doubt)) == RangeSet([(4, 6)])


def test_results_that_are_reported_again_weigh_what_their_records_do() -> None:
    """Remembered ones keep no records, and the budget must include those that are read again."""
    answers = remembering(Finished((chunk(A, range(4)),), Verdicts(QUEUED), "t-1"))
    read = again(A, range(3))

    ((item,), _) = answers.recall(read)

    assert item.bytes == weight(read)
    assert item.serial == 0, "their listing ended with the assignment under which they were posted"


# ------------------------------------------------------------------ partitions come and go


def test_what_was_answered_is_not_in_doubt_when_its_partition_returns() -> None:
    made = owning(A)
    serial, sent = posted(made, chunk(A, range(3)))
    made.release([A])
    late = made.finish(serial, sent.chunks, Verdicts(QUEUED), attempts=1, sent_ms=5, answered_ms=6)
    made.assign(A, LATER, Progress(0, in_flight=RangeSet([(0, 4)])))

    assert late is None
    assert made.remembered.unknown(A, Progress(0, in_flight=RangeSet([(0, 4)]))) == RangeSet([(3, 4)])
    intake = made.intake(again(A, range(5)))
    assert [(item.count, item.sent_ms, item.answered_ms) for item in intake.answered] == [(3, 5, 6)]
    assert [list(part.offsets) for part in (*intake.doubtful, *intake.fresh)] == [[3], [4]]


def test_an_answer_counts_that_comes_when_its_partition_has_returned_and_its_records_are_not_read_yet() -> None:
    """If they are not listed any more, another worker has settled them."""
    made = owning(A)
    serial, sent = posted(made, chunk(A, range(3)))
    gone, gone_sent = posted(made, chunk(A, [3]))
    made.release([A])
    made.assign(A, LATER, Progress(0, in_flight=RangeSet([(0, 3)])))
    for late, one in ((serial, sent), (gone, gone_sent)):
        assert made.finish(late, one.chunks, Verdicts(QUEUED), attempts=1, sent_ms=5, answered_ms=6) is None

    intake = made.intake(again(A, range(4)))

    assert [list(part.offsets) for item in intake.answered for part in item.chunks] == [[0, 1, 2]]
    assert [list(part.offsets) for part in intake.fresh] == [[3]]
    assert intake.doubtful == ()


def test_what_is_not_settled_of_a_partition_is_counted_without_what_does_not_exist() -> None:
    """Until the partition is assigned elsewhere, that is what another owner has to read."""
    made = owning()
    made.assign(A, 1, Progress(10, settled=RangeSet([(12, 14)])))
    counts = [made.remembered.unsettled(A)]
    made.intake(chunk(A, [10, 11, 12, 13, 14, 20, 21]))
    counts.append(made.remembered.unsettled(A))
    serial, sent = posted(made, chunk(A, [30]))
    counts.append(made.remembered.unsettled(A))
    made.finish(serial, sent.chunks, Verdicts(QUEUED), attempts=1, sent_ms=5, answered_ms=6)
    tick = made.plan(now=0, slots=0)
    assert tick is not None
    made.committed(tick)
    made.release([A])
    counts.append(made.remembered.unsettled(A))

    assert counts == [0, 5, 6, 5]


def test_what_was_listed_and_never_posted_is_in_doubt_only_after_a_commit_of_another_worker() -> None:
    """Whether a tick commits may be known only after its partitions are gone, and then nothing of it is posted."""
    made = owning(A)
    made.intake(chunk(A, range(3)))
    tick = listing(made, chunk(A, range(3)))
    made.release([A])
    made.aborted(tick)
    committed = decode(*tick.offsets[A])
    assert committed.in_flight == RangeSet([(0, 3)])

    assert not made.remembered.unknown(A, committed)
    assert not made.assign(A, LATER, committed).doubt
    made.release([A])
    assert not made.assign(A, LATER + 1, committed).doubt, "nobody has posted it yet"
    made.release([A])
    others = replace(committed, mark=committed.mark + 1)
    assert made.remembered.unknown(A, others) == committed.in_flight
    assert made.assign(A, LATER + 2, others).doubt == committed.in_flight
    made.release([A])
    assert made.assign(A, LATER + 3, others).doubt == committed.in_flight, "whoever said that may have posted it"


@pytest.mark.parametrize("answered", ["before", "after"])
def test_what_was_certainly_not_accepted_is_in_doubt_only_after_a_commit_of_another_worker(answered: str) -> None:
    """It is committed as in flight, because no tick could say otherwise since."""
    made = owning(A, B)
    serial, _ = posted(made, chunk(A, range(3)), chunk(B, range(2)))
    committed = made.partitions[A].committed
    assert committed.in_flight == RangeSet([(0, 3)])

    if answered == "after":
        made.release([A])
    made.again(made.withdraw(serial), at=5)
    if answered == "before":
        made.release([A])

    assert made.remembered.unknown(A, replace(committed, mark=committed.mark + 1)) == committed.in_flight
    assert not made.remembered.unknown(A, committed)
    made.assign(A, LATER, committed)
    assert not made.is_drained([A]), "who comes next would doubt it"
    intake = made.intake(again(A, range(4)))
    assert ([list(part.offsets) for part in intake.fresh], intake.doubtful) == ([[0, 1, 2, 3]], ())


def test_what_the_storm_guard_set_aside_was_surely_not_taken() -> None:
    made = owning(A)
    serial, sent = posted(made, chunk(A, range(3)))
    item = made.finish(serial, sent.chunks, Verdicts(QUEUED, {1: REFUSED}), attempts=1, sent_ms=5, answered_ms=6)
    assert item is not None
    made.set_aside(item, REFUSED.reason)
    committed = made.partitions[A].committed
    made.release([A])
    made.assign(A, LATER, committed)

    intake = made.intake(again(A, range(3)))

    assert [list(part.offsets) for part in intake.fresh] == [[1]]
    assert [list(part.offsets) for item in intake.answered for part in item.chunks] == [[0, 2]]


def test_what_the_storm_guard_set_aside_is_no_answer_after_a_release() -> None:
    """It was taken off the list, so another worker may have posted it like any other record."""
    made = owning(A)
    serial, sent = posted(made, chunk(A, [0]))
    item = made.finish(serial, sent.chunks, Verdicts(REFUSED), attempts=1, sent_ms=5, answered_ms=6)
    assert item is not None
    apart, _ = made.set_aside(item, REFUSED.reason)
    assert apart is not None
    made.release([A])
    assert made.settle(apart) is None
    others = Progress(0, mark=9, in_flight=RangeSet([(0, 1)]))

    assert made.remembered.unknown(A, others) == RangeSet([(0, 1)])
    made.assign(A, LATER, others)
    assert list(made.intake(again(A, [0])).doubtful[0].offsets) == [0]


def test_what_was_recalled_and_set_aside_is_an_answer_again_after_a_release() -> None:
    """It stayed listed, so nobody may have posted it."""
    made, listed = owning(A), Progress(0, in_flight=RangeSet([(0, 1)]))
    serial, sent = posted(made, chunk(A, [0]))
    made.release([A])
    made.finish(serial, sent.chunks, Verdicts(REFUSED), attempts=1, sent_ms=5, answered_ms=6)
    made.assign(A, LATER, listed)
    [item] = made.intake(again(A, [0])).answered
    made.settle(item)
    apart, _ = made.set_aside(item, REFUSED.reason)
    assert apart is not None
    made.release([A])

    made.settle(apart)

    assert made.remembered.unknown(A, listed) == RangeSet()


def test_what_was_listed_and_not_posted_before_a_release_is_not_in_doubt() -> None:
    made = owning(A)
    made.intake(chunk(A, range(3)))
    tick = listing(made, chunk(A, range(3)))
    made.begin_revoke([A])
    assert made.committed(tick) == []
    committed = made.partitions[A].committed
    assert committed.in_flight == RangeSet([(0, 3)])
    made.release([A])

    assert not made.assign(A, LATER, committed).doubt


def test_that_the_first_of_two_requests_was_surely_not_taken_says_nothing_of_the_second() -> None:
    made = owning(A)
    first, _ = posted(made, chunk(A, [0]))
    committed = made.partitions[A].committed
    made.release([A])
    made.assign(A, LATER, committed)
    [read] = made.intake(again(A, [0])).doubtful
    made.committed(listing(made, replace(read, resent=True)))
    committed = made.partitions[A].committed
    made.release([A])
    made.again(made.withdraw(first), at=0)

    assert made.assign(A, LATER + 1, committed).doubt == RangeSet([(0, 1)])


def test_what_is_in_flight_or_in_doubt_stays_in_doubt_without_a_commit_since() -> None:
    made = owning(B)
    made.assign(A, 1, Progress(0, in_flight=RangeSet([(0, 2)])))
    made.intake(chunk(A, [0, 1]))
    posted(made, chunk(A, [2, 3]))
    committed = made.partitions[A].committed
    made.release([A])

    assert made.assign(A, LATER, committed).doubt == RangeSet([(0, 4)])


def test_what_is_listed_to_be_posted_again_though_it_may_have_been_taken_stays_in_doubt() -> None:
    made = owning(A)
    made.intake(chunk(A, range(2)))
    tick = listing(made, replace(chunk(A, [0]), resent=True), chunk(A, [1]))
    made.release([A])
    made.aborted(tick)

    assert made.assign(A, LATER, decode(*tick.offsets[A])).doubt == RangeSet([(0, 1)])


def test_what_may_have_been_taken_the_first_time_stays_in_doubt_when_the_second_time_it_surely_was_not() -> None:
    made = owning(A)
    serial, sent = posted(made, chunk(A, [0, 1]))
    made.doubt([sent.chunks[0]])
    withdrawn = made.withdraw(serial)
    withdrawn.chunks[0].resent = True
    committed = made.partitions[A].committed
    made.release([A])
    made.again(withdrawn, at=0)

    assert made.assign(A, LATER, committed).doubt == RangeSet([(0, 2)])


def test_records_of_a_topic_that_was_recreated_are_others() -> None:
    """They have the offsets of those that were answered, before the topic was deleted or after it was recreated."""
    made = owning(A)
    serial, sent = posted(made, chunk(A, [0]))
    late, late_sent = posted(made, chunk(A, [1]))
    made.release([A])
    made.finish(serial, sent.chunks, Verdicts(QUEUED), attempts=1, sent_ms=5, answered_ms=6)
    made.assign(A, LATER, Progress(0))
    made.release([A])
    made.finish(late, late_sent.chunks, Verdicts(QUEUED), attempts=1, sent_ms=5, answered_ms=6)

    made.assign(A, LATER + 1, Progress(0, in_flight=RangeSet([(0, 2)])))

    assert list(made.intake(chunk(A, [0, 1], epoch=LATER + 1)).doubtful[0].offsets) == [0, 1]


def test_answers_of_a_topic_that_was_recreated_say_nothing_of_what_is_in_doubt_in_the_next_one() -> None:
    """Neither one from before nor one that comes late; another worker has begun the next one and listed records."""
    made = owning(A)
    serial, sent = posted(made, chunk(A, [0]))
    late, late_sent = posted(made, chunk(A, [1]))
    listed = Progress(0, in_flight=RangeSet([(0, 2)]))
    made.release([A])
    made.finish(serial, sent.chunks, Verdicts(QUEUED), attempts=1, sent_ms=5, answered_ms=6)
    made.remembered.replaced(A, LATER)
    made.assign(A, LATER, listed)
    made.release([A])
    made.finish(late, late_sent.chunks, Verdicts(QUEUED), attempts=1, sent_ms=5, answered_ms=6)

    assert made.remembered.unknown(A, listed) == listed.in_flight


def test_answers_for_records_of_the_recreated_topic_itself_count() -> None:
    made = owning(A)
    made.release([A])
    made.remembered.replaced(A, LATER)
    made.assign(A, LATER, Progress(0))
    serial, sent = posted(made, again(A, [0]))
    listed = made.partitions[A].committed
    made.release([A])
    made.finish(serial, sent.chunks, Verdicts(QUEUED), attempts=1, sent_ms=5, answered_ms=6)

    assert not made.remembered.unknown(A, listed)


def test_what_was_left_of_a_partition_is_forgotten_when_it_returns() -> None:
    """Every later tick that names it would add to it, for as long as it stays."""
    made = owning(A)
    posted(made, chunk(A, [0]))
    made.release([A])

    made.assign(A, LATER, Progress(0))
    posted(made, chunk(A, [0], epoch=LATER))

    assert made.remembered._left == {}


@pytest.mark.parametrize("late", [False, True], ids=["before it returns", "after it has returned"])
def test_an_answer_says_nothing_of_the_records_that_took_the_places_of_discarded_ones(late: bool) -> None:
    """An unclean election threw away the end of what was posted and answered; what is there now was posted later."""
    made = owning(A)
    serial, sent = posted(made, chunk(A, [0, 1, 2]))
    made.release([A])
    if not late:
        made.finish(serial, sent.chunks, Verdicts(QUEUED), attempts=1, sent_ms=5, answered_ms=6)
    made.assign(A, LATER, Progress(0, in_flight=RangeSet([(0, 2)])))
    if late:
        made.finish(serial, sent.chunks, Verdicts(QUEUED), attempts=1, sent_ms=5, answered_ms=6)
    [known] = made.intake(chunk(A, [0], epoch=LATER)).answered
    made.settle(known)
    new = chunk(A, [2], epoch=LATER)
    posted(made, new)
    made.release([A])

    made.assign(A, LATER + 1, Progress(1, in_flight=RangeSet([(1, 3)])))

    found = made.intake(chunk(A, [1, 2], epoch=LATER + 1))
    assert [list(piece.offsets) for item in found.answered for piece in item.chunks] == [[1]]
    assert [list(piece.offsets) for piece in found.doubtful] == [[2]]


def test_a_late_answer_without_a_verdict_reaches_no_tick() -> None:
    """Its partition is another worker's, or assigned here again: whoever reads the record finds it listed."""
    made = owning(A)
    serial, sent = posted(made, chunk(A, [0]))
    made.release([A])
    made.withdraw(serial)

    assert made.settle(Finished(sent.chunks, Verdicts(DOUBT), sent.id)) is None
    assert made.plan(now=0, slots=1) is None
    assert made.held_bytes == 0


def test_results_of_the_partitions_that_stay_keep_their_place_in_the_request() -> None:
    made = owning(A, B)
    serial, sent = posted(made, chunk(A, range(2)), chunk(B, range(2)))
    made.release([A])

    kept = made.finish(serial, sent.chunks, Verdicts(QUEUED), attempts=1, sent_ms=5, answered_ms=6)

    assert kept is not None
    assert [(part.partition, list(part.indices or ())) for part in kept.chunks] == [(B, [2, 3])]


def test_what_is_known_from_before_frees_no_key_that_a_later_record_keeps_busy() -> None:
    key_queues = KeyQueues()
    line = [replace(again(A, [offset]), keys=[b"k"]) for offset in (0, 1, 2)]
    assert key_queues.admit([(None, line[1])], now=0.0)
    assert not key_queues.admit([(None, line[2])], now=0.0)
    answers = remembering(Finished((chunk(A, [0]),), Verdicts(QUEUED), "t-1"))

    assert key_queues.settled(answers.recall(line[0])[0]) == []
    assert len(key_queues.settled([Finished((line[1],), Verdicts(QUEUED), "t-2")])) == 1
