"""How large a request may be after one was too large, or was not answered."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connector.core.sizing import FIRST_WAIT_SECS, LONGEST_WAIT_SECS, ByteLimit, SizeLimit


def limited(count: int = 1_000, *, now: float = 100.0) -> SizeLimit:
    """Return a limit that was set when a request of `count` records was lost and nothing else was answered."""
    size = SizeLimit()
    assert size.lost(count, began=now - 30, due=now - 29, now=now)
    return size


def test_as_long_as_all_are_answered_there_is_no_limit() -> None:
    size = SizeLimit()
    for count in (1, 500, 1_000):
        assert not size.answered(count, now=1.0)

    assert size.most(now=1.0, may_try=True) is None


def test_of_answers_no_more_is_kept_than_there_are_sizes() -> None:
    size = SizeLimit()
    for number in range(1_000):
        size.answered(3 - number % 3, now=float(number))

    assert len(size._answered) <= 3


def test_where_nothing_is_answered_the_next_request_holds_one_record() -> None:
    assert limited().most(now=100.0, may_try=False) == 1


@pytest.mark.parametrize(("answered", "limit"), [([], 1), ([40], 40), ([40, 600, 40], 600), ([999, 3], 999)])
def test_the_limit_is_what_was_answered_since_the_lost_one_was_due(answered: list[int], limit: int) -> None:
    size = SizeLimit()
    size.answered(1_000, now=70.5)  # soon after it was begun, so before it was late
    for at, count in enumerate(answered):
        size.answered(count, now=72.0 + at)

    assert size.lost(1_000, began=70.0, due=71.0, now=100.0)
    assert size.limit == limit


@pytest.mark.parametrize("count", [1_000, 5_000])
def test_size_is_not_the_cause_if_others_as_large_are_answered(count: int) -> None:
    size = SizeLimit()
    size.answered(count, now=72.0)
    size.answered(5, now=73.0)

    assert not size.lost(1_000, began=70.0, due=71.0, now=100.0)
    assert size.limit is None


def test_a_single_record_without_an_answer_is_not_too_many() -> None:
    size = SizeLimit()

    assert not size.lost(1, began=70.0, due=71.0, now=100.0)
    assert size.limit is None


def test_each_answer_about_more_doubles_it_until_as_many_pass_as_were_lost() -> None:
    size, tried, ended = limited(700), [], False
    while not ended:
        tried.append(size.most(now=101.0, may_try=True) or 0)
        ended = size.answered(tried[-1], now=101.0)

    assert tried == [2, 4, 8, 16, 32, 64, 128, 256, 512, 1_024]
    assert size.most(now=101.0, may_try=False) is None


def test_an_answer_about_less_says_nothing_new() -> None:
    size = limited()
    for count in (8, 2, 1):
        size.answered(count, now=101.0)

    assert size.limit == 8


def test_requests_in_flight_when_the_limit_was_set_do_not_change_it() -> None:
    """All of them are lost one after another, because all were too large."""
    size = limited()
    for late in range(60):
        assert not size.lost(1_000, began=99.0, due=99.5, now=101.0 + late)

    assert (size.limit, size.most(now=161.0, may_try=True)) == (1, 2)


def test_one_of_them_that_is_answered_after_all_says_that_it_was_not_the_size() -> None:
    size = limited()

    assert size.answered(1_000, now=101.0)
    assert size.limit is None


def test_where_more_is_not_answered_either_the_next_attempt_waits_each_time_longer() -> None:
    size, at, waits = limited(), 100.0, []
    size.answered(64, now=at)
    for _ in range(9):
        assert size.lost(128, began=at, due=at + 1, now=at + 30)
        at += 30
        begun = at
        while size.most(now=at, may_try=True) == 64:
            at += 1
        waits.append(at - begun)

    assert waits == [10, 20, 40, 80, 160, 320, 600, 600, 600]
    assert (waits[0], waits[-1]) == (FIRST_WAIT_SECS, LONGEST_WAIT_SECS)
    assert size.limit == 64, "what was answered is not too many"

    size.answered(128, now=at)
    size.lost(256, began=at, due=at + 1, now=at + 30)

    assert size.most(now=at + 30 + FIRST_WAIT_SECS, may_try=True) == 256, "it waits no longer than at first"


def test_what_was_not_too_many_once_may_be_later() -> None:
    size = limited()
    size.answered(64, now=101.0)
    size.lost(128, began=101.0, due=102.0, now=131.0)

    assert size.lost(64, began=140.0, due=141.0, now=170.0)
    assert (size.limit, size.most(now=170.0, may_try=True)) == (1, 2), "and more may be tried at once"
    assert not size.answered(999, now=171.0), "1,000 were lost in the first place"


@given(most=st.integers(1, 400), batches=st.integers(2, 1_000), late=st.floats(0, 5))
def test_whatever_a_platform_answers_at_most_a_few_requests_are_lost_until_all_are_answered(
    most: int, batches: int, late: float
) -> None:
    """It finds what is answered within a factor of two, for one lost request, and tries more ever more rarely."""
    size, now, tries_lost = limited(batches), 100.0, 0
    while now < 100.0 + 3_600:
        count = min(size.most(now=now, may_try=True) or batches, batches)
        if count <= most:
            now += 0.1 + late
            size.answered(count, now=now)
        else:
            began, now = now, now + 30
            size.lost(count, began=began, due=began + 1, now=now)
            tries_lost += 1
        if size.limit is None:
            break
        now += 1

    assert tries_lost <= 13
    if batches <= most:
        assert (size.limit, tries_lost) == (None, 0)
    else:
        assert size.limit is not None
        assert most / 2 < size.limit <= most


@pytest.mark.parametrize(
    ("taken", "at", "limit"),
    [
        ([], 0.0, 4_000),
        ([(3_000, 0.0)], 0.0, 4_000),
        ([(6_000, 0.0), (3_000, 30.0)], 60.0, 6_000),
        ([(6_000, 0.0)], 61.0, 4_000),
        ([(6_000, 0.0), (5_000, 61.0)], 100.0, 5_000),
    ],
)
def test_what_was_too_large_is_halved_but_never_below_what_was_taken_lately(
    taken: list[tuple[int, float]], at: float, limit: int
) -> None:
    """For a minute: limits are lowered, too."""
    size = ByteLimit(10_000)
    for number, when in taken:
        size.taken(number, now=when)

    size.too_large(8_000, 100, now=at)

    assert size.limit == limit


def test_a_limit_of_bytes_only_falls_and_ends_a_time_after_it_fell_last() -> None:
    size = ByteLimit(10_000)
    size.too_large(8_000, 100, now=0.0)
    size.too_large(9_000, 100, now=1.0)
    size.too_large(200, 2, now=2.0)
    lowest = size.limit
    size.taken(900, now=602.0)
    before = size.limit
    size.taken(900, now=602.1)

    assert (lowest, before, size.limit) == (1_000, 1_000, 10_000)


def test_a_single_record_that_is_too_large_ends_the_limit_that_its_batches_began() -> None:
    size = ByteLimit(10_000)
    size.too_large(8_000, 100, now=0.0)

    size.too_large(7_000, 1, now=1.0)

    assert size.limit == 10_000
