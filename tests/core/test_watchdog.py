"""Laws of the watchdog: what stands still, since when, and when the cause is unknown."""

from typing import Final

from hypothesis import given
from hypothesis import strategies as st

from connector.core.watchdog import SUSPECT_SHARE, Position, Standstill, Wait, Watchdog
from tests.core.making import A, B

LIMIT: Final = 100.0
OUTAGE: Final = Wait("hold", True, "outage")
FETCH: Final = Wait("fetch", False)


def watched(dog: Watchdog, position: Position, wait: Wait, *, now: float) -> list[Standstill]:
    """Look at one partition, which waits for something."""
    suspects = dog.suspects({A: position}, now=now)
    return dog.check(dict.fromkeys(suspects, wait), now=now)


def seen(dog: Watchdog, position: Position, wait: Wait, times: list[float]) -> list[bool]:
    """Look at one partition at each of these times, and return whether it stood still."""
    return [bool(watched(dog, position, wait, now=at)) for at in times]


def test_records_that_wait_for_nothing_known_stand_still_after_the_limit() -> None:
    dog = Watchdog(LIMIT)

    told = seen(dog, Position(7, 3), FETCH, [0, 50, 99.9, 100, 5_000])

    assert told == [False, False, False, True, True]


def test_it_is_reported_where_and_since_when() -> None:
    dog = Watchdog(LIMIT)
    watched(dog, Position(7, 3), FETCH, now=10)

    (found,) = watched(dog, Position(7, 5), FETCH, now=110)

    assert found == Standstill(A, 7, 5, 10, FETCH)
    assert not found.wait.known


def test_a_partition_that_moves_does_not_stand_still() -> None:
    dog = Watchdog(LIMIT)

    assert not any(watched(dog, Position(offset, 1_000), FETCH, now=offset * 99.0) for offset in range(50))


def test_a_partition_that_was_restarted_at_the_same_offset_has_moved() -> None:
    dog = Watchdog(LIMIT)
    watched(dog, Position(7, 3, mark=1), FETCH, now=0)

    assert watched(dog, Position(7, 3, mark=2), FETCH, now=100) == []


def test_without_lag_nothing_stands_still_and_the_time_begins_with_the_first_record() -> None:
    dog = Watchdog(LIMIT)
    assert seen(dog, Position(7, 0), FETCH, [0, 100, 1_000]) == [False, False, False]

    assert seen(dog, Position(7, 1), FETCH, [1_001, 1_099, 1_100]) == [False, False, True]


def test_what_is_not_known_is_expected_to_move() -> None:
    dog = Watchdog(LIMIT)

    assert seen(dog, Position(None, None), FETCH, [0, 100]) == [False, True]


def test_a_known_wait_is_reported_and_leaves_health_alone() -> None:
    dog = Watchdog(LIMIT)
    assert seen(dog, Position(7, 3), OUTAGE, [0, 99]) == [False, False]

    found = watched(dog, Position(7, 3), OUTAGE, now=10_000)

    assert [(s.since, s.wait) for s in found] == [(0, OUTAGE)]
    assert all(standstill.wait.known for standstill in found)


def test_the_time_without_a_reason_begins_when_a_known_wait_ends() -> None:
    """A hold of hours must not turn health off in the moment in which it ends."""
    dog = Watchdog(LIMIT)
    seen(dog, Position(7, 3), OUTAGE, [0, 1_000, 5_000])

    told = seen(dog, Position(7, 3), FETCH, [5_001, 5_099, 5_100])

    assert told == [False, False, True]


def test_each_new_attempt_is_work() -> None:
    """A batch that is posted again and again after long timeouts is not stuck."""
    dog = Watchdog(LIMIT)
    waits = [Wait("post", False, mark=("b", attempt)) for attempt in range(9)]
    assert not any(watched(dog, Position(7, 3), wait, now=n * 90.0) for n, wait in enumerate(waits))

    assert seen(dog, Position(7, 3), waits[-1], [8 * 90 + 99, 8 * 90 + 100]) == [False, True]


def test_only_those_that_have_not_moved_for_a_while_are_asked_about() -> None:
    dog = Watchdog(LIMIT)
    dog.suspects({A: Position(7, 3), B: Position(1, 9)}, now=0)

    soon = dog.suspects({A: Position(7, 3), B: Position(2, 9)}, now=LIMIT * SUSPECT_SHARE - 1)
    later = dog.suspects({A: Position(7, 3), B: Position(3, 9)}, now=LIMIT * SUSPECT_SHARE)

    assert (soon, later) == ([], [A])


def test_a_partition_that_went_away_is_forgotten() -> None:
    dog = Watchdog(LIMIT)
    dog.suspects({A: Position(7, 3)}, now=0)
    dog.suspects({}, now=1)
    dog.suspects({A: Position(7, 3)}, now=2)

    assert dog.suspects({A: Position(7, 3)}, now=2 + LIMIT * SUSPECT_SHARE - 1) == []
    assert dog.check({A: FETCH, B: FETCH}, now=1_000) == [Standstill(A, 7, 3, 2, FETCH)]


_STEPS: Final = st.lists(
    st.tuples(
        st.floats(0.1, 150),
        st.integers(0, 2),
        st.integers(0, 3),
        st.sampled_from([OUTAGE, FETCH, Wait("post", False, mark=1), Wait("post", False, mark=2)]),
    ),
    max_size=40,
)


@given(_STEPS)
def test_health_is_off_only_after_the_limit_without_progress_lag_and_reason(
    steps: list[tuple[float, int, int, Wait]],
) -> None:
    """The requirement itself, over any sequence of events: a partition that moved, had no lag or a cause is alive.

    The cause is not determined before a partition is suspect: one that came and went until then does not count.
    """
    dog = Watchdog(LIMIT)
    now, offset, moved_at, quiet_since = 0.0, 0, 0.0, 0.0
    watched(dog, Position(0, 0), FETCH, now=now)
    for waited, moved, lag, wait in steps:
        now, offset = now + waited, offset + moved
        found = watched(dog, Position(offset, lag), wait, now=now)
        if moved or lag == 0:
            moved_at = quiet_since = now
        elif wait.known and now - moved_at >= LIMIT * SUSPECT_SHARE:
            quiet_since = now

        if now - quiet_since < LIMIT:
            assert all(standstill.wait.known for standstill in found)
        if moved or lag == 0:
            assert found == []
        assert all(now - standstill.since >= LIMIT for standstill in found)


@given(st.floats(0.1, 10), st.booleans())
def test_a_standstill_is_found_within_a_quarter_more_than_the_limit(every: float, attempted: bool) -> None:
    """Whatever the interval of looks, once nothing changes any more it is found; a running attempt has its time."""
    dog = Watchdog(LIMIT)
    wait = Wait("post", False, mark="an attempt") if attempted else FETCH
    last = round(LIMIT * (1 + SUSPECT_SHARE) / every) + 2

    told = seen(dog, Position(7, 3), wait, [n * every for n in range(last + 1)])

    assert told[-1]
    assert told == sorted(told)
