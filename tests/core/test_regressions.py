"""Mistakes of other connectors that the core alone could make as well: each has a test named after it.

Those that need a platform or a broker are in `tests/e2e/test_regressions.py`; headers that pile up in `test_records`.
"""

from connector.core.batching import Batch, Batcher, BatchLimits
from connector.core.chunks import Partition
from connector.core.flow import Flow
from connector.core.progress import Progress, decode
from connector.core.retrying import Others, RetryPolicy, next_step
from connector.core.verdicts import (
    QUEUED,
    Action,
    RecordError,
    Reply,
    Verdict,
    VerdictPolicy,
    Verdicts,
    classify,
    judge,
)
from tests.core.making import A, B, batch, chunk, positions
from tests.core.test_flow import flow, read, said, settled, started

REFUSED = Verdict("dead_letter", "invalid_phone")
POLICY = VerdictPolicy(5, frozenset({"provider_error"}), frozenset({"list_not_found"}), frozenset({504}))


def heir(*told: tuple[Partition, tuple[int, str]]) -> Flow:
    """Return the flow of a worker that takes over partitions at what is committed."""
    made = Flow(flow().limits)
    for partition, (offset, metadata) in told:
        made.assign(partition, 2, decode(offset, metadata))
    return made


def errors_at(*failures: tuple[int, str]) -> tuple[RecordError, ...]:
    """Return what a bulk reply lists."""
    return tuple(RecordError(index, code, "") for index, code in failures)


def test_no_offset_is_committed_past_a_batch_that_is_still_in_flight() -> None:
    """Faust takes the lowest run that is done for the new offset: what was in flight below it is lost in a restart."""
    made = flow(A)
    slow, quick = chunk(A, range(5)), chunk(A, range(5, 8))
    read(made, slow, quick)
    made.add_ready([batch(slow), batch(quick)])
    (_, _), (second, _) = started(made)
    settled(made, second)

    tick = made.plan(now=0.0, slots=64)

    assert tick is not None
    progress = said(tick)
    assert (progress.base, list(progress.settled), list(progress.in_flight)) == (0, [(5, 8)], [(0, 5)])
    after = heir((A, tick.offsets[A]))
    again = after.intake(chunk(A, range(8), epoch=2))
    assert positions(again.doubtful) == positions([slow])
    assert positions(again.fresh) == []


def test_a_batch_that_failed_is_not_acknowledged() -> None:
    """Faust acknowledges what it took also when the handler raised; Lenses goes on past a batch that it gave up."""
    made = flow(A)
    failing, next_one = chunk(A, range(3)), chunk(A, range(3, 6))
    read(made, failing, next_one)
    made.add_ready([batch(failing), batch(next_one)])
    (first, _), (second, _) = started(made)
    made.again(made.withdraw(first), at=100.0)
    settled(made, second)

    tick = made.plan(now=0.0, slots=64)

    assert tick is not None
    assert tick.offsets[A][0] == 0
    after = heir((A, tick.offsets[A]))
    assert positions(after.intake(chunk(A, range(6), epoch=2)).fresh) == positions([failing])


def test_a_batch_that_mixes_partitions_settles_each_of_them() -> None:
    """Steveo commits the partition of the last record alone, as no test of its batches had more than one."""
    made = flow(A, B)
    of_a, of_b = chunk(A, range(4)), chunk(B, range(7, 9))
    made.partitions[B].base = made.partitions[B].next_read = 7
    read(made, of_a, of_b)
    made.add_ready([batch(of_a, of_b)])
    ((serial, _),) = started(made)
    settled(made, serial)

    tick = made.plan(now=0.0, slots=64)

    assert tick is not None
    assert {partition: offset for partition, (offset, _) in tick.offsets.items()} == {A: 4, B: 9}


def test_a_batch_of_several_partitions_loses_nothing_when_one_is_released() -> None:
    """The same failure at a rebalance: what stays is settled, what went is left to its new owner, in doubt."""
    made = flow(A, B)
    of_a, of_b = chunk(A, range(4)), chunk(B, range(2))
    read(made, of_a, of_b)
    made.add_ready([batch(of_a, of_b)])
    listing = made.plan(now=0.0, slots=64)
    assert listing is not None
    ((serial, posted),) = made.committed(listing)
    made.release([A])

    item = made.finish(serial, posted.chunks, Verdicts(QUEUED, {4: REFUSED}), attempts=1, sent_ms=1, answered_ms=2)

    assert item is not None
    assert (positions(item.chunks), [item.verdicts.of(at) for at in range(2)]) == (positions([of_b]), [REFUSED, QUEUED])
    tick = made.plan(now=0.0, slots=64)
    assert tick is not None
    assert {partition: offset for partition, (offset, _) in tick.offsets.items()} == {B: 2}
    assert positions(heir((A, listing.offsets[A])).intake(chunk(A, range(4), epoch=2)).doubtful) == positions([of_a])


def test_two_topics_with_equal_partition_and_offset_are_two_records() -> None:
    """A BigQuery sink keys its buffer by partition and offset: records of two topics overwrite each other."""
    here, there = Partition("orders", 0), Partition("alerts", 0)
    made = flow(here, there)
    one, other = chunk(here, range(3)), chunk(there, range(3))
    read(made, one, other)
    made.add_ready([batch(one), batch(other)])
    (first, _), (second, _) = started(made)
    settled(made, first)

    tick = made.plan(now=0.0, slots=64)

    assert tick is not None
    assert tick.offsets[here][0] == 3
    assert there not in tick.offsets
    made.committed(tick)
    item = settled(made, second)
    assert item is not None
    assert positions(item.chunks) == positions([other])


def test_mixed_lists_at_the_limit_are_sent_once() -> None:
    """Clescot's grouping applies an index of one list to all of them: at the limit a record is in two requests."""
    batcher = Batcher(BatchLimits(3, 1_000, 1.0, 2), "b")
    mixed = chunk(offsets=range(6))

    closed = batcher.add("x", mixed.pick([0, 2, 4]), now=0.0)
    closed += batcher.add("y", mixed.pick([1, 3, 5]), now=0.0)
    closed += batcher.add("x", chunk(offsets=[6]), now=0.0)

    assert [(made.lane, made.closed_by, positions(made.chunks)) for made in closed + batcher.drain()] == [
        ("x", "count", [(A, 0), (A, 2), (A, 4)]),
        ("y", "count", [(A, 1), (A, 3), (A, 5)]),
        ("x", "drain", [(A, 6)]),
    ]


def test_a_record_above_every_limit_ends_the_grouping() -> None:
    """Clescot splits a record that is larger than the limit without end."""
    batcher = Batcher(BatchLimits(10, 100, 1.0, 2), "b")

    closed = batcher.add(None, chunk(offsets=range(3), sizes=[20, 5_000, 20]), now=0.0) + batcher.drain()

    assert [positions(made.chunks) for made in closed] == [[(A, 0)], [(A, 1)], [(A, 2)]]


def test_one_bad_record_among_many_that_are_well_is_the_only_dead_letter() -> None:
    """An Azure binder sends the whole batch to the dead letters when one record cannot be read."""
    said_so = Reply("answered", status=200, errors=errors_at((2, "invalid_phone")))

    judgement = judge(said_so, 5, POLICY, failures=1, own_list=True)

    assert [judgement.verdicts.of(at).status for at in range(5)] == [
        "queued",
        "queued",
        "dead_letter",
        "queued",
        "queued",
    ]


def test_finished_records_are_not_sent_again_with_the_one_that_failed() -> None:
    """EventBridge's sink, Redpanda Connect and Vector sent all entries again, for years, when one had failed."""
    made = flow(A)
    five = chunk(A, range(5))
    read(made, five)
    made.add_ready([batch(five)])
    ((serial, posted),) = started(made)
    judgement = judge(
        Reply("answered", status=200, errors=errors_at((2, "provider_error"))), 5, POLICY, failures=1, own_list=True
    )

    failed, others = posted.split(judgement.again)
    made.finish(serial, others, judgement.verdicts.picked([0, 1, 3, 4]), attempts=1, sent_ms=1, answered_ms=2)
    made.again(batch(*failed), at=0.0)

    ((_, again),) = started(made)
    assert positions(again.chunks) == [(A, 2)]
    assert [list(made.partitions[A].in_flight()), made.partitions[A].base] == [[(2, 3)], 2]


def test_no_failure_that_hits_everything_makes_a_dead_letter() -> None:
    """Vector's source moves past what was answered 401; clescot empties the topic into the dead letters meanwhile."""
    for status in (401, 402, 403, 404, 301):
        assert classify(Reply("answered", status=status), POLICY, own_list=True).action is Action.HOLD
    assert classify(Reply("not_sent", trouble="connect"), POLICY, own_list=True).action is Action.OUTAGE
    retry = RetryPolicy(5, 1.0, 60.0, 60.0)
    spent: Batch = batch(chunk())
    spent.attempts = 1_000
    assert next_step(spent, retry, Others(passed=False, still_pass=False)) == "again"


def test_an_answer_after_the_revoke_reaches_no_tick() -> None:
    """Redpanda Connect committed for partitions that were revoked already."""
    made = flow(A)
    two = chunk(A, range(2))
    read(made, two)
    made.add_ready([batch(two)])
    ((serial, _),) = started(made)
    made.begin_revoke([A])
    made.release([A])

    assert settled(made, serial) is None
    assert made.plan(now=0.0, slots=64) is None


def test_an_answer_to_an_earlier_assignment_changes_nothing_of_the_later_one() -> None:
    """Parallel Consumer and Redpanda Connect: work of before a rebalance is acknowledged after the partition came back.

    Whoever had the partition in between has named these records in doubt; they must not get a second result.
    """
    made = flow(A)
    two = chunk(A, range(2))
    read(made, two)
    made.add_ready([batch(two)])
    ((serial, _),) = started(made)
    made.release([A])
    made.assign(A, 2, Progress(0))
    later = chunk(A, range(2), epoch=2)
    read(made, later)

    assert settled(made, serial) is None

    assert not made.wants_tick(now=0.0, slots=64)
    made.add_ready([batch(later)])
    ((_, posted),) = started(made)
    assert posted.chunks == (later,)
    assert (made.partitions[A].base, list(made.partitions[A].in_flight())) == (0, [(0, 2)])


def test_a_batch_that_is_too_large_is_halved_to_its_end() -> None:
    """Redpanda Connect posts the batch that was answered 413 again, as it is, without end."""
    whole = batch(chunk(A, range(1_000)))
    assert classify(Reply("answered", status=413), POLICY, own_list=True).action is Action.SHRINK

    rounds, pieces = 0, [whole]
    while any(piece.count > 1 for piece in pieces):
        pieces = [batch(*half) for piece in pieces if piece.count > 1 for half in piece.parts(2)]
        rounds += 1

    assert rounds == 10, "log2 of 1,000 records"
