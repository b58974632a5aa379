"""What is due joins what is ready as far as it could be started."""

import random
from collections.abc import Callable
from dataclasses import replace

from connector.core.chunks import Chunk, Partition
from connector.core.flow import Flow
from connector.core.ordering import Lineup
from connector.core.pacing import Pace, Pacer
from connector.core.progress import Progress
from connector.core.results import Finished
from connector.core.verdicts import QUEUED, Verdicts
from connector.stream.state import State
from tests.core.making import A, B, chunk
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


def test_a_key_that_is_free_again_makes_no_more_ready_than_that_either() -> None:
    state = _filled(lists=100)
    lineup = state.admission.lineup = Lineup()
    first, second = (replace(chunk(offsets=[offset]), keys=[b"a"]) for offset in (100, 101))
    lineup.admit([("list-0", first), ("list-0", second)], now=0.0)

    with state.changed:
        state.let_in([Finished((first,), Verdicts(QUEUED), "t-1")], 1.0)

    assert lineup.waiting_records == 0
    assert len(state.flow.ready) == state.limit.limit < 100


def test_what_is_ready_and_cannot_start_does_not_keep_others_from_it() -> None:
    """A partition without room for more in flight keeps its batches ready; those of others must get past them."""
    state = _filled(lists=100)
    _close(state)

    assert [_close(state), _close(state)] == [1, 1]


def test_nothing_more_becomes_ready_while_nothing_may_start() -> None:
    state = _filled(lists=100)
    _close(state)
    state.pause("paused by a")

    assert _close(state) == 0
    assert state.batcher.open_records == 100 - state.limit.limit


def _paced(read: Callable[[Partition, int], Chunk | None], *, answered_after: float, until: float) -> State:
    """Return a state after so many seconds of a platform that answers after a while; list `slow` has 10 a second."""
    state = make_state()
    state.admission.pacer = Pacer(Pace(None, {"slow": 600}), max_lot=100)
    for partition in (A, B):
        state.flow.assign(partition, 1, Progress(0))
    came: dict[int, float] = {}
    with state.changed:
        for turn in range(int(until * 20)):
            at = turn / 20
            for partition in (B, A):
                while state.held_bytes < 3_000_000 and (piece := read(partition, turn)) is not None:
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
    there = {A: iter(range(0, 100_000_000, 1_000)), B: iter(range(0, 2_000, 1_000))}

    def read(partition: Partition, _turn: int) -> Chunk | None:
        first = next(there[partition], None)
        offsets = range(first, first + 1_000) if first is not None else ()
        lists = ["fast" if partition is A else "slow"] * len(offsets)
        return replace(chunk(partition, offsets=offsets), lists=lists) if offsets else None

    state = _paced(read, answered_after=0.1, until=60)

    assert len(state.flow.ready) > state.limit.limit, "the others have a backlog all the time"
    assert state.flow.partitions[B].base >= 0.8 * 60 * 10
    assert state.flow.partitions[B].base <= 61 * 10 + 100


def test_what_a_platform_keeps_waiting_is_no_flood_of_a_list_when_it_is_quick_again() -> None:
    """Nothing is answered any more: what fills the requests at once was let go, and two lots of those that wait."""
    there = iter(range(0, 20_000, 1_000))

    def read(partition: Partition, _turn: int) -> Chunk | None:
        first = next(there, None) if partition is B else None
        offsets = range(first, first + 1_000) if first is not None else ()
        return replace(chunk(partition, offsets=offsets), lists=["slow"] * len(offsets)) if offsets else None

    state = _paced(read, answered_after=1_000, until=600)

    assert len(state.flow.active) == state.limit.limit
    assert sum(batch.count for batch in state.flow.ready) + state.batcher.open_records <= 2 * 50


def test_a_list_goes_on_at_its_pace_although_its_partition_has_no_room_for_what_is_ready() -> None:
    """Its records lie among those of others, which fill the metadata as they settle: the oldest would make room."""
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
