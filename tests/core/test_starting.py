"""Which batch starts next: retries by their time, ready batches, and both in turns."""

from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from connector.core.batching import Batch
from connector.core.starting import StartQueue
from tests.core.making import batch, chunk

ENTRIES = st.lists(
    st.tuples(st.integers(0, 4), st.booleans(), st.sampled_from(["kept", "kept", "made anew", "gone"])), max_size=12
)
"""Batches that wait for a retry: from when on, whether they are suspects, and what replaces them meanwhile."""

KINDS = st.lists(st.sampled_from(["ready", "failed", "suspect"]), max_size=8)


def named(batch_id: str, *, suspect: bool = False) -> Batch:
    made = batch(chunk(), batch_id=batch_id)
    made.suspect = suspect
    return made


def taken(queue: StartQueue, *, now: float, suspects: bool = True, trial: bool = False) -> list[str]:
    """Take all that may start, and return their names."""
    out = []
    while queue.is_due(now=now, suspects=suspects):
        one = queue.take(now=now, suspects=suspects, trial=trial)
        assert one is not None
        out.append(one.id)
    assert queue.take(now=now, suspects=suspects, trial=trial) is None
    return out


@given(ENTRIES, st.integers(0, 4), st.booleans())
@example(entries=[(0, False, "gone"), (2, False, "kept"), (1, False, "kept")], now=4, suspects=True)
def test_of_what_is_due_the_one_that_waited_longest_starts_first(
    entries: list[tuple[int, bool, str]], now: int, suspects: bool
) -> None:
    """Of those that wait since the same time the one that was queued first, and what is made of one in its place."""
    queue = StartQueue()
    for number, (at, suspect, _) in enumerate(entries):
        queue.again(named(f"{number}", suspect=suspect), at=at)

    def became(one: Batch) -> Batch | None:
        fate = entries[int(one.id)][2]
        return one if fate == "kept" else replace(one) if fate == "made anew" else None

    queue.change(became)

    left = sorted((at, number, suspect) for number, (at, suspect, fate) in enumerate(entries) if fate != "gone")
    assert queue.waiting == len(left)
    assert queue.has_suspects == any(suspect for _, _, suspect in left)
    assert sorted((at, int(one.id)) for at, one in queue.retries()) == [(at, number) for at, number, _ in left]
    soon = queue.next_at(now=now)
    assert soon is None or soon > now
    may = [f"{number}" for at, number, suspect in left if at <= now and suspects >= suspect]
    assert taken(queue, now=now, suspects=suspects) == may
    assert queue.waiting == len(left) - len(may)
    if suspects:
        assert queue.next_at(now=now) == min((at for at, _, _ in left if at > now), default=None)


@given(st.integers(0, 5), st.integers(0, 5), st.booleans())
def test_retries_go_first_and_alternate_with_ready_batches(again: int, ready: int, trial: bool) -> None:
    """Except for a trial, which should not use one that may be at fault: those only if nothing else is there."""
    queue = StartQueue()
    for number in range(again):
        queue.again(named(f"again {number}"), at=0.0)
    queue.ready.extend(named(f"ready {number}") for number in range(ready))

    order = taken(queue, now=1.0, trial=trial)

    turns = [(number, kind) for kind, count in (("again", again), ("ready", ready)) for number in range(count)]
    expected = sorted(turns, key=lambda turn: turn[1], reverse=True) if trial else sorted(turns)
    assert order == [f"{kind} {number}" for number, kind in expected]


def filled(kinds: list[str], *, begun: int) -> StartQueue:
    """Return a queue with a batch of each kind, all of which may start at 1.0, after `begun` starts."""
    queue = StartQueue()
    for number, kind in enumerate(kinds):
        one = named(f"{number}", suspect=kind == "suspect")
        if kind == "ready":
            queue.ready.append(one)
        else:
            one.sent_ms = 1
            queue.again(one, at=1.0)
    for _ in range(begun):
        queue.take(now=1.0, suspects=True, trial=False)
    return queue


@pytest.mark.parametrize("at_once", [True, False])
@given(
    kinds=KINDS,
    begun=st.integers(0, 3),
    count=st.integers(0, 8),
    trial=st.booleans(),
    suspects=st.booleans(),
)
def test_what_did_not_start_after_all_starts_as_if_it_had_not_been_taken(
    *, at_once: bool, kinds: list[str], begun: int, count: int, trial: bool, suspects: bool
) -> None:
    """Before all others and in its order, whether it is put back together or from the last on. It had no turn yet."""
    queue = filled(kinds, begun=begun)
    out = [one for _ in range(count) if (one := queue.take(now=1.0, suspects=True, trial=False))]

    for some in [out] if at_once else [[one] for one in reversed(out)]:
        queue.put_back(some)

    order, untouched = (
        taken(one, now=1.0, suspects=suspects, trial=trial) for one in (queue, filled(kinds, begun=begun))
    )
    assert order == untouched


@given(KINDS, st.integers(0, 3))
def test_the_rest_of_a_batch_starts_before_all_others_of_its_kind_at_their_next_turn(
    kinds: list[str], begun: int
) -> None:
    """What is to be posted again and what is ready go on taking turns as if the batch had been two."""
    queue, untouched = filled(kinds, begun=begun), filled(kinds, begun=begun)
    begins, _ = [each.take(now=1.0, suspects=True, trial=False) for each in (queue, untouched)]
    if begins is None:
        return
    rest = named("rest", suspect=begins.suspect)
    rest.sent_ms = begins.sent_ms
    queue.put_rest(rest)

    order, others = taken(queue, now=1.0), taken(untouched, now=1.0)

    again = {number for number, kind in enumerate(kinds) if kind != "ready"}
    of_its_kind = [one for one in others if (int(one) in again) == rest.was_posted]
    of_the_other = [one for one in others if one not in of_its_kind]
    assert [one for one in order if one not in of_the_other] == ["rest", *of_its_kind]
    assert [one for one in order if one in of_the_other] == of_the_other
    assert order[:2] == [*of_the_other[:1], "rest", *of_its_kind][:2], "it is not its kind's turn"


def test_what_there_was_no_room_for_has_had_its_turn() -> None:
    queue = StartQueue()
    queue.again(named("a"), at=0.0)
    queue.again(named("b"), at=0.0)
    queue.ready.append(named("crowded"))
    _, crowded = [queue.take(now=1.0, suspects=True, trial=False) for _ in range(2)]
    assert crowded is not None

    queue.defer([crowded])

    assert taken(queue, now=1.0) == ["b", "crowded"]


def test_the_next_time_to_look_is_the_first_that_has_not_come() -> None:
    queue = StartQueue()
    nothing_waits = queue.next_at(now=1.0)
    queue.again(named("a"), at=5.0)
    queue.again(named("b", suspect=True), at=3.0)

    assert nothing_waits is None
    assert [queue.next_at(now=now) for now in (1.0, 3.0, 5.0)] == [3.0, 5.0, None]


def test_what_there_was_no_room_for_is_not_counted_among_what_may_start() -> None:
    """Otherwise nothing more would be read, although what would make room may be among that."""
    queue = StartQueue()
    queue.ready.extend(map(named, "cd"))

    def told() -> tuple[int, str | None]:
        first = queue.first_startable
        return queue.startable, None if first is None else first.id

    seen = [told()]
    queue.defer([named("a"), named("s", suspect=True), named("b")])
    seen.append(told())
    queue.change(lambda one: None if one.id in "cd" else one)
    seen.append(told())
    queue.change(lambda one: None if one.id == "b" else one)
    seen.append(told())
    queue.ready.extend(map(named, "ef"))
    queue.defer([])
    seen.append(told())

    assert seen == [(2, "c"), (2, "c"), (0, None), (0, None), (3, "a")]
