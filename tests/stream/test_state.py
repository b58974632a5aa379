"""Due batches are queued as far as they could start."""

import itertools
import random
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connector.core.breaker import Hold
from connector.core.chunks import Chunk, Partition
from connector.core.concurrency import ConcurrencyLimit, ConcurrencyPolicy
from connector.core.flow import Flow
from connector.core.ordering import KeyQueues
from connector.core.pacing import Pace, Pacer
from connector.core.progress import Progress
from connector.core.results import Finished
from connector.core.storm import StormGuard, StormPolicy
from connector.core.verdicts import QUEUED, Verdict, Verdicts
from connector.stream.state import State
from tests.core.making import A, B, batch, chunk
from tests.kit.patience import PATIENCE_SECS
from tests.stream.making import make_state


def _filled(*, lists: int) -> State:
    """Return a state with a record of each of so many lists, whose windows have passed at 1.0."""
    state = make_state()
    state.flow.assign(A, 1, Progress(0))
    for number in range(lists):
        state.batcher.add(f"list-{number}", chunk(offsets=[number]), now=0.0)
    return state


def _close(state: State) -> int:
    before = len(state.flow.ready)
    with state.changed:
        state.close_due(1.0)
    return len(state.flow.ready) - before


def test_no_more_becomes_ready_than_may_be_under_way() -> None:
    state = _filled(lists=100)

    assert _close(state) == state.limit.limit < 100
    assert state.counts.batches_closed == {"window": state.limit.limit}
    assert not state.is_saturated(1.0), "all that is ready may start"


def test_a_key_that_is_free_again_makes_no_more_ready_than_that_either() -> None:
    state = _filled(lists=100)
    key_queues = state.admission.key_queues = KeyQueues()
    first, second = (replace(chunk(offsets=[offset]), keys=[b"a"]) for offset in (100, 101))
    key_queues.admit([("list-0", first), ("list-0", second)], now=0.0)

    with state.changed:
        state.admit_released([Finished((first,), Verdicts(QUEUED), "t-1")], 1.0)

    assert key_queues.waiting_records == 0
    assert len(state.flow.ready) == state.limit.limit < 100


def test_what_is_ready_and_cannot_start_does_not_keep_others_from_it() -> None:
    """A partition without room for more in flight keeps its batches ready; others' must get past them."""
    state = _filled(lists=100)
    _close(state)
    ready = list(state.flow.ready)
    state.flow.ready.clear()
    state.flow.queue.defer(ready)

    assert [_close(state), _close(state)] == [1, 1]


def test_what_is_ready_and_may_start_keeps_others_open_so_that_they_fill_up() -> None:
    """Otherwise each free slot starts one small batch and closes another, and requests stay small for good."""
    state = _filled(lists=100)
    _close(state)

    assert len(state.flow.ready) == state.limit.limit
    assert _close(state) == 0


def test_nothing_more_becomes_ready_while_nothing_may_start() -> None:
    state = _filled(lists=100)
    _close(state)
    state.pause("paused by a")

    assert _close(state) == 0
    assert state.batcher.open_records == 100 - state.limit.limit


def _paced(*, fast: int, slow: int, answered_after: float, until: float) -> State:
    """Return a state after so many seconds of a platform that answers after a while.

    There are so many records for list `fast`, and for list `slow`, which has a pace of 10 per second.
    """
    lists = {A: "fast", B: "slow"}
    there = {A: iter(range(0, fast, 1_000)), B: iter(range(0, slow, 1_000))}
    state = make_state()
    state.admission.pacer = Pacer(Pace(None, {"slow": 600}), max_lot=100)
    for partition in (A, B):
        state.flow.assign(partition, 1, Progress(0))
    came: dict[int, float] = {}
    with state.changed:
        for turn in range(int(until * 20)):
            at = turn / 20
            for partition in (B, A):
                while state.held_bytes < 3_000_000 and (first := next(there[partition], None)) is not None:
                    piece = chunk(partition, offsets=range(first, first + 1_000))
                    piece = replace(piece, lists=[lists[partition]] * 1_000)
                    state.queue(state.admission.take([(None, piece)], now=at))
            state.close_due(at)
            tick = state.flow.plan(now=at, slots=state.slots(at))
            for serial, _ in [] if tick is None else state.flow.committed(tick):
                came[serial] = at
            for serial, batch in list(state.flow.active.items()):
                if at - came[serial] >= answered_after:
                    state.finish(serial, batch.chunks, Verdicts(QUEUED), attempts=1, sent_ms=1, answered_ms=1)
    return state


def test_a_list_has_its_pace_while_others_have_more_than_the_platform_takes() -> None:
    state = _paced(fast=100_000_000, slow=2_000, answered_after=0.1, until=60)

    assert len(state.flow.ready) > state.limit.limit, "the others have a backlog all the time"
    assert state.flow.partitions[B].base >= 0.8 * 60 * 10
    assert state.flow.partitions[B].base <= 61 * 10 + 100


@pytest.mark.parametrize("others", [0, 100_000])
def test_what_a_platform_keeps_waiting_is_no_flood_of_a_list_when_it_is_quick_again(others: int) -> None:
    """Nothing is answered any more: only what fills the requests, and two lots of waiting lists, were released."""
    state = _paced(fast=others, slow=8_000, answered_after=1_000, until=600)

    assert len(state.flow.active) == state.limit.limit
    assert (len(state.flow.ready) > state.limit.limit) is (others > 0)
    ready = [name for batch in state.flow.ready for piece in batch.chunks for name in piece.lists or ()]
    assert ready.count("slow") + state.batcher.open_records <= 2 * 50


@pytest.mark.parametrize("why", ["busy", "paused", "unauthorized", "asked to wait", "draining"])
def test_waiting_lists_proceed_while_all_requests_are_busy_and_not_while_nothing_may_start(why: str) -> None:
    """What a list does not use of its pace during a hold is lost: otherwise the end of it would be a flood."""
    state = make_state()
    state.flow.assign(A, 1, Progress(0))
    for number in range(state.limit.limit + 1):
        state.flow.add_ready([batch(chunk(offsets=[number]))])
    tick = state.flow.plan(now=1.0, slots=state.slots(1.0))
    assert tick is not None
    state.flow.committed(tick)
    assert (len(state.flow.active), state.flow.queue.startable) == (state.limit.limit, 1)

    with state.changed:
        match why:
            case "paused":
                state.pause("paused by a")
            case "unauthorized":
                state.gate.refused(0, why, now=1.0, detail="")
            case "asked to wait":
                state.paused_until = 2.0
            case "draining":
                state.draining = True
            case _:
                pass

    assert state.may_start_more(1.0) is (why == "busy")


def test_a_list_continues_at_its_pace_although_its_partition_has_no_room_for_what_is_ready() -> None:
    """Its records lie between others', which fill the metadata as they settle: the oldest would make room."""
    state = make_state()
    state.flow = Flow(replace(state.flow.limits, max_metadata=60))
    state.admission.pacer = Pacer(Pace(None, {"slow": 600}), max_lot=10)
    state.flow.assign(A, 1, Progress(0))
    offsets, dice, at = range(2_000), random.Random(1), 0.0
    piece = replace(chunk(offsets=offsets), lists=dice.choices(["slow", "fast"], [1, 9], k=len(offsets)))
    with state.changed:
        state.queue(state.admission.take([(None, piece)], now=at))

        while state.flow.partitions[A].base < len(offsets) and at < 60:
            at += 0.1
            state.close_due(at)
            tick = state.flow.plan(now=at, slots=state.slots(at))
            for serial, batch in [] if tick is None else state.flow.committed(tick):
                state.finish(serial, batch.chunks, Verdicts(QUEUED), attempts=1, sent_ms=1, answered_ms=1)

    assert state.flow.partitions[A].base == len(offsets)
    assert at > 15, "200 records of the slow list, 10 a second"


@pytest.mark.parametrize(("is_gone", "storms"), [(False, ["a"]), (True, [])])
def test_what_was_posted_may_be_a_storm_unless_its_partition_is_gone(is_gone: bool, storms: list[str]) -> None:
    """Then its next owner has its results."""
    state, refused, piece = make_state(), Verdicts(Verdict("dead_letter", "a")), chunk(offsets=range(5))
    state.storm = StormGuard(StormPolicy(0.5, 4, 10_000.0))
    state.flow.assign(A, 1, Progress(0))
    state.flow.intake(piece)
    state.flow.add_ready([batch(piece)])
    tick = state.flow.plan(now=0.0, slots=1)
    assert tick is not None
    [(serial, posted)] = state.flow.committed(tick)
    if is_gone:
        state.flow.release([A])

    with state.changed:
        state.finish(serial, posted.chunks, refused, attempts=1, sent_ms=1, answered_ms=2)
        state.settle(Finished((chunk(B, range(5)),), refused))

    assert ([*state.storms], [item.count for item in state.quarantine]) == (storms, [5] * len(storms))


def test_a_storm_holds_back_only_its_own_dead_letters_until_a_resume(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Then its reason is tolerated for as long as it occurs; another one is another storm."""
    state, told, at = make_state(), list[Hold](), 1_000.0
    monkeypatch.setattr("connector.stream.state.now", lambda: at)
    state.on_hold = told.append
    state.storm = StormGuard(StormPolicy(0.5, 4, 60.0))
    state.flow.assign(A, 1, Progress(0))
    offsets = itertools.count()

    def end(*reasons: str) -> list[str]:
        """Settle a record for each reason, and return what is held back of all that was settled so far."""
        piece = chunk(offsets=[next(offsets) for _ in reasons])
        verdicts = {number: Verdict("dead_letter", reason) for number, reason in enumerate(reasons)}
        with state.changed:
            state.flow.intake(piece)
            state.settle(Finished((piece,), Verdicts(QUEUED, verdicts)))
        return kept()

    def kept() -> list[str]:
        return [reason for item in state.quarantine for reason in item.reasons().elements()]

    def to_be_written() -> Counter[str]:
        return sum((item.reasons() for item in state.flow.finished), Counter[str]())

    assert end("a", "a", "a", "b") == []
    assert end("a", "b") == ["a"]
    assert end("b", "a") == ["a", "a"]
    assert end("b") == ["a", "a"], "what is no storm yet is written"
    assert end("b", "b", "a") == ["a", "a", "a"], "as is what comes with it"
    assert to_be_written() == {"a": 3, "b": 6}
    assert ([hold.reason for hold in state.holds()], state.holds()) == (["storm:a"], told)
    assert (state.gate.state, state.may_read, state.slots(at)) == ("open", False, 0)
    assert {failure["reason"]: failure["count"] for failure in state.failures.status(str)} == {"a": 6, "b": 6}
    held_back = sum(item.bytes for item in state.quarantine)
    assert state.held_bytes == state.flow.held_bytes + held_back > state.flow.held_bytes

    with state.changed:
        state.resume()
    assert (kept(), to_be_written()) == ([], {"a": 6, "b": 6})
    assert state.held_bytes == state.flow.held_bytes
    assert (state.holds(), state.may_read, state.gate.state) == ([], True, "closed")
    for _ in range(3):  # each within a minute of the one before
        at += 50
        assert end(*["a"] * 10) == []
    assert end(*["b"] * 60) == ["b"] * 60
    with state.changed:
        state.resume()
    assert end(*["a"] * 100) == []
    at += 61
    assert end(*["a"] * 1_000) == ["a"] * 1_000, (
        "its time is up: the guard is back on it, though nothing else came meanwhile"
    )
    assert end(*["b"] * 3_000)[1_000:] == ["b"] * 3_000
    assert end("a", "b", "c")[4_000:] == ["a", "b"], "of two storms at once either is kept back"
    assert to_be_written()["c"] == 1
    assert [hold.reason for hold in told] == ["storm:a", "storm:b", "storm:a", "storm:b"]


def test_a_partition_that_is_held_is_reported_once_with_its_name_and_nothing_of_it_is_kept() -> None:
    """It is read again once it is resumed; what waits for that would use up the room of all others."""
    last = Partition("last", 0)
    state, alone, told = _waiting(A, last, B), _waiting(last), list[Hold]()
    state.on_hold = told.append
    for partition in (A, B, A):
        state.hold_partition(partition, "in_doubt", "why")

    assert [piece.partition for ready in state.flow.ready for piece in ready.chunks] == [last]
    assert (state.batcher.open_records, state.held_bytes) == (alone.batcher.open_records, alone.held_bytes)

    assert [(hold.reason, hold.detail, hold.ends) for hold in told] == [
        ("in_doubt", f"{A}: why", "operator"),
        ("in_doubt", f"{B}: why", "operator"),
    ]
    assert (state.partition_holds, state.holds()) == (dict(zip((A, B), told, strict=True)), [])


def _waiting(*partitions: Partition) -> State:
    """Return a state in which some records of each partition are ready, and some in an open batch."""
    state = make_state()
    for partition in partitions:
        state.flow.assign(partition, 1, Progress(0))
        state.flow.add_ready([batch(chunk(partition, range(5)))])
        state.batcher.add(None, chunk(partition, range(5, 10)), now=0.0)
    return state


@pytest.mark.parametrize("what", ["kafka_hold", "shaping_hold", "paused", "draining", "gate"])
def test_nothing_is_read_while_anything_holds_the_stream(what: str) -> None:
    """Nor started, except for what was shaped before the schema registry was unavailable."""
    state = make_state()
    free = (state.may_read, state.slots(1.0) > 0)
    if what == "gate":
        state.gate.refused(0, "unauthorized", now=1.0, detail="")
    else:
        setattr(state, what, True if what == "draining" else Hold(what, 1.0, "", "probe"))

    assert free == (True, True)
    assert (state.may_read, state.slots(1.0) > 0) == (False, what == "shaping_hold")


@pytest.mark.parametrize(("bad", "detail"), [(5, None), (6, "too large a share of records end as a: 12 of 40 lately")])
def test_what_fails_before_it_is_posted_is_a_storm_by_its_share_of_what_was_checked(
    bad: int, detail: str | None
) -> None:
    """Not of what was answered, which is behind by all that waits to be posted."""
    state, offsets = make_state(), itertools.count()
    state.storm = StormGuard(StormPolicy(0.25, 10, 10_000.0))
    state.flow.assign(A, 1, Progress(0))

    def read(count: int) -> Chunk:
        piece = chunk(offsets=list(itertools.islice(offsets, count)))
        state.flow.intake(piece)
        return piece

    with state.changed:
        for _ in range(2):
            state.settle(Finished((read(100),), Verdicts(QUEUED)))
            read(10)
            state.checked(10, None)
            state.checked(10, Finished((read(10).slice(0, bad),), Verdicts(Verdict("dead_letter", "a"))))

    assert [hold.detail for hold in state.storms.values()] == ([] if detail is None else [detail])


def test_whoever_waits_for_something_to_tick_is_woken_by_what_gives_it() -> None:
    """The ticker would notice a second later."""
    state = make_state()
    state.flow.assign(A, 1, Progress(0))
    gives: list[Callable[[], None]] = [
        lambda: state.queue([batch(chunk())]),
        state.resume,
    ]
    for give in gives:
        waiting, woken = threading.Event(), list[bool]()

        def wait(waiting: threading.Event, woken: list[bool]) -> None:
            with state.changed:
                waiting.set()
                woken.append(state.changed.wait(PATIENCE_SECS))

        thread = threading.Thread(target=wait, args=(waiting, woken))
        thread.start()
        assert waiting.wait(PATIENCE_SECS)
        with state.changed:
            give()
        thread.join(PATIENCE_SECS)
        assert woken == [True]


@pytest.mark.parametrize("writing", [True, False])
def test_reading_waits_for_results_that_are_being_written_once_half_of_the_requests_have_a_batch(writing: bool) -> None:
    """Both need the interpreter lock; with less that is ready, requests would be left without a batch."""
    state = make_state()
    state.flow.assign(A, 1, Progress(0))
    state.writing = writing

    waits = []
    for number in range(state.limit.limit):
        waits.append(state.should_yield)
        state.flow.add_ready([batch(chunk(offsets=[number]))])

    half = state.limit.limit // 2
    assert waits == [False] * half + [writing] * half


@given(
    limit=st.integers(1, 4),
    most=st.integers(1, 12),
    active=st.lists(st.integers(1, 4), max_size=4),
    ready=st.lists(st.integers(1, 4), max_size=6),
)
def test_a_stream_is_saturated_if_and_only_if_a_tick_leaves_something_ready(
    limit: int, most: int, active: list[int], ready: list[int]
) -> None:
    """Only then do ticks wait for the delivery of results before they choose what starts."""
    state, offsets = make_state(), itertools.count()
    state.limit = ConcurrencyLimit(ConcurrencyPolicy(1, limit, start=limit))
    state.flow = Flow(replace(state.flow.limits, max_in_flight_records=most))
    state.flow.assign(A, 1, Progress(0))

    def add(sizes: list[int]) -> None:
        for size in sizes:
            piece = chunk(offsets=list(itertools.islice(offsets, size)))
            state.flow.intake(piece)
            state.flow.add_ready([batch(piece)])

    def tick() -> None:
        tick = state.flow.plan(now=1.0, slots=state.slots(1.0))
        if tick is not None:
            state.flow.committed(tick)

    add([size for size in active if size <= most])
    tick()
    state.flow.ready.clear()
    add([size for size in ready if size <= most])
    saturated = state.is_saturated(1.0)
    tick()

    assert saturated == bool(state.flow.ready)


@pytest.mark.parametrize("within", [True, False])
def test_nothing_starts_within_a_wait_that_the_platform_has_asked_for(within: bool) -> None:
    state = _filled(lists=100)
    state.paused_until = 10.0

    assert state.slots(9.0 if within else 10.0) == (0 if within else state.limit.limit)
    assert state.may_start_more(9.0 if within else 10.0) is not within
