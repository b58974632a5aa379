"""Laws of the adaptive limit: its bounds, how it rises and falls, and the reason that it gives."""

import heapq
import random
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connector.core.concurrency import ConcurrencyLimit, ConcurrencyPolicy

POLICY: Final = ConcurrencyPolicy(min=1, max=64)


def started(policy: ConcurrencyPolicy = POLICY, *, answers: int = 0, now: float = 0.0) -> ConcurrencyLimit:
    """Return a limit after some fast answers while it was fully used."""
    limit = ConcurrencyLimit(policy)
    for _ in range(answers):
        limit.answered(0.05, active=limit.limit, now=now)
    return limit


def test_it_starts_low_and_says_so() -> None:
    limit = started()

    assert (limit.limit, limit.moved) == (8, "start")


@pytest.mark.parametrize(("least", "most", "begins"), [(1, 4, 4), (16, 64, 16), (8, 8, 8), (1, 1, 1)])
def test_it_starts_within_its_bounds(least: int, most: int, begins: int) -> None:
    assert started(ConcurrencyPolicy(least, most)).limit == begins


def test_until_the_first_trouble_each_answer_raises_it_by_one() -> None:
    """So a round trip doubles it, as in a TCP slow start."""
    limit = started(answers=8)

    assert (limit.limit, limit.moved) == (16, "grow")


def test_the_ceiling_is_kept_after_a_fall_as_well() -> None:
    """After that it rises by fractions, which must not add up to one more."""
    limit = started(ConcurrencyPolicy(1, 10), answers=10)
    limit.troubled(now=0.0)

    for _ in range(100):
        limit.answered(0.05, active=10, now=1.0)

    assert limit._limit == 10.0


def test_after_trouble_a_round_trip_raises_it_by_one() -> None:
    limit = started(answers=24)
    limit.troubled(now=0.0)
    before = limit.limit

    for _ in range(before + 2):
        limit.answered(0.05, active=before, now=1.0)

    assert before == 22
    assert limit.limit == before + 1


def test_after_trouble_twenty_round_trips_raise_it_by_twenty() -> None:
    limit = started(answers=24)
    limit.troubled(now=0.0)
    before = limit.limit

    for second in range(20):
        for _ in range(limit.limit):
            limit.answered(0.05, active=limit.limit, now=float(second))

    assert limit.limit == pytest.approx(before + 20, abs=1)


def test_a_platform_that_is_slow_from_the_first_answer_on_is_no_trouble() -> None:
    """The best latency seen is what it can do: nothing shows yet that it can do better."""
    limit = ConcurrencyLimit(POLICY)
    for _ in range(56):
        limit.answered(2.0, active=limit.limit, now=0.0)

    assert (limit.limit, limit.moved) == (64, "grow")


def test_trouble_takes_a_share_of_it() -> None:
    limit = started(answers=32)

    limit.troubled(now=0.0)

    assert (limit.limit, limit.moved) == (28, "trouble")


def test_trouble_of_one_round_trip_counts_once() -> None:
    """Sixty-four requests that fail together are one event."""
    limit = ConcurrencyLimit(POLICY)
    for _ in range(56):
        limit.answered(0.5, active=limit.limit, now=0.0)
    for at in range(64):
        limit.troubled(now=at / 150)

    assert limit.limit == int(64 * 0.7)
    limit.troubled(now=0.5)
    assert limit.limit == int(64 * 0.7 * 0.7)


def test_answers_that_take_far_longer_than_the_best_lower_it() -> None:
    limit = started(answers=32)

    for _ in range(5):
        limit.answered(1.0, active=20, now=10.0)

    assert (limit.limit, limit.moved) == (28, "latency")


def test_one_answer_that_takes_long_tells_nothing() -> None:
    """It may have carried a hundred times as much as the others."""
    limit = started(answers=32)

    limit.answered(1.0, active=40, now=10.0)

    assert limit.moved == "grow"


@pytest.mark.parametrize("slow_share", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_small_batches_beside_large_ones_are_no_trouble(slow_share: float) -> None:
    """Half of the answers took 5 ms and half 400 ms: each of these would look like an overloaded platform."""
    limit, dice = ConcurrencyLimit(POLICY), random.Random(1)
    under_way: list[tuple[float, float]] = []
    now, limits = 0.0, []
    while now < 30:
        while len(under_way) < limit.limit:
            took = 0.4 if dice.random() < slow_share else 0.005 * dice.uniform(0.8, 1.2)
            heapq.heappush(under_way, (now + took, took))
        now, took = under_way[0]
        limit.answered(took, active=len(under_way), now=now)
        heapq.heappop(under_way)
        limits.append(limit.limit)

    assert sum(limits) / len(limits) > 50


def test_an_overload_is_met_once_a_round_trip() -> None:
    """Answers that were in flight when it was lowered come late as well, and are part of the same event."""
    limit = started(answers=56)
    for at in range(64):
        limit.answered(4.0, active=32, now=10 + at / 64)

    assert (limit.limit, limit.moved) == (int(64 * 0.7), "latency")


def test_an_overload_that_lasts_is_met_again_after_a_round_trip() -> None:
    limit = started(answers=56)
    for second in range(9):
        limit.answered(4.0, active=32, now=10.0 + second)

    assert limit.limit == int(64 * 0.7**3), "at 10, 14 and 18 seconds, as an answer takes four"


def test_the_best_is_the_measure_not_the_first() -> None:
    """The first one pays for the connection."""
    limit = ConcurrencyLimit(POLICY)
    for latency in (1.0, *[0.05] * 40):
        limit.answered(latency, active=8, now=0.0)

    for _ in range(5):
        limit.answered(1.0, active=8, now=1.0)

    assert limit.moved == "latency"


def test_quick_answers_that_vary_do_not_lower_it() -> None:
    """A few milliseconds more are four times as long, and mean nothing."""
    limit = ConcurrencyLimit(POLICY)
    for latency in (0.002, 0.02, 0.1, 0.25):
        limit.answered(latency, active=limit.limit, now=0.0)

    assert limit.moved == "grow"


def test_a_platform_that_stays_slow_is_believed() -> None:
    """Otherwise a limit that was spoilt by fast answers would stay at the floor forever."""
    limit = started(answers=56)
    now = 0.0
    for _ in range(400):
        now += 1.0
        limit.answered(2.0, active=limit.limit, now=now)

    assert limit.moved == "grow"
    assert limit.limit > 2


@pytest.mark.parametrize(("active", "grows"), [(3, False), (4, True), (8, True)])
def test_it_grows_only_while_it_is_used(active: int, grows: bool) -> None:
    limit = started()

    limit.answered(0.05, active=active, now=0.0)

    assert (limit.limit > 8) is grows


events = st.lists(
    st.tuples(
        st.sampled_from(["answer", "trouble"]),
        st.floats(0, 40, allow_nan=False),
        st.floats(0, 3, allow_nan=False),
        st.integers(1, 80),
    ),
    max_size=60,
)


@given(st.integers(1, 40), st.integers(0, 40), events)
def test_bounds_are_kept_and_each_move_is_explained(
    least: int, more: int, story: list[tuple[str, float, float, int]]
) -> None:
    policy = ConcurrencyPolicy(least, least + more)
    limit = ConcurrencyLimit(policy)
    now = 0.0
    for kind, latency, secs, active in story:
        now += secs
        before = limit._limit

        if kind == "answer":
            limit.answered(latency, active=active, now=now)
        else:
            limit.troubled(now=now)

        assert policy.min <= limit._limit <= policy.max
        if limit._limit > before:
            assert (kind, limit.moved) == ("answer", "grow")
            assert limit._limit <= before + 1
        elif limit._limit < before:
            assert limit.moved == ("trouble" if kind == "trouble" else "latency")
            assert limit._limit >= 0.7 * before or limit._limit == policy.min


@pytest.mark.parametrize("least", [1, 10])
def test_at_the_floor_nothing_moved(least: int) -> None:
    """What is shown beside the limit explains the limit."""
    limit = ConcurrencyLimit(ConcurrencyPolicy(least, least))

    limit.troubled(now=0.0)
    limit.answered(0.01, active=least, now=1.0)

    assert (limit.limit, limit.moved) == (least, "start")


def test_after_an_outage_it_starts_low_and_doubles_again() -> None:
    """So that full speed is back within a few round trips, without overloading a platform that has just come back."""
    limit = started(answers=56)
    limit.troubled(now=0.0)
    assert limit.limit == 44

    limit.restart()

    assert (limit.limit, limit.moved) == (8, "restart")
    for _ in range(8):
        limit.answered(0.05, active=limit.limit, now=1.0)
    assert limit.limit == 16


def test_a_restart_never_raises_it() -> None:
    limit = started()
    for second in range(10):
        limit.troubled(now=float(second))
    before = limit.limit

    limit.restart()

    assert limit.limit == before < 8


def test_a_request_is_overdue_when_it_takes_far_longer_than_the_last_answers_took() -> None:
    """The measure is the latency of recent answers, not the best one."""
    limit = ConcurrencyLimit(POLICY)

    overdue = [limit.overdue_secs]
    for latency in (0.1, 0.5):
        for _ in range(100):
            limit.answered(latency, active=1, now=0.0)
        overdue.append(limit.overdue_secs)

    assert overdue == pytest.approx([0.25, 4 * 0.1 + 0.25, 4 * 0.5 + 0.25], rel=0.01)
