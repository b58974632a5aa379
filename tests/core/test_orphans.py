"""Partitions without an owner: a rebalance is triggered if they stay so, and then more and more rarely."""

from connector.core.orphans import AGAIN_MAX_SECS, AGAIN_SECS, OrphanWatch
from tests.core.making import A, B


def test_only_what_stays_without_a_worker_is_given_out_again() -> None:
    watch = OrphanWatch(settle_secs=5.0)

    told = [watch.seen({A}, now=0), watch.seen({A}, now=4), watch.seen({A, B}, now=6), watch.seen({A, B}, now=11)]

    assert told == [False, False, False, True]


def test_a_group_in_order_is_left_alone() -> None:
    watch = OrphanWatch(settle_secs=5.0)

    assert not any(watch.seen(frozenset(), now=at) for at in range(100))


def test_what_a_rebalance_does_not_change_is_tried_ever_more_seldom() -> None:
    watch = OrphanWatch(settle_secs=5.0)

    tried = [at for at in range(300) if watch.seen({A}, now=at)]

    assert tried == [5, 5 + AGAIN_SECS, 5 + 3 * AGAIN_SECS, 5 + 7 * AGAIN_SECS]


def test_it_is_tried_as_often_as_at_the_longest_wait_for_ever() -> None:
    watch = OrphanWatch(settle_secs=5.0)

    tried = [at for at in range(0, 20_000, 5) if watch.seen({A}, now=at)]

    assert tried[-1] - tried[-2] == AGAIN_MAX_SECS


def test_once_all_have_an_owner_the_waits_are_reset() -> None:
    watch = OrphanWatch(settle_secs=5.0)
    for at in range(1_000):
        watch.seen({A}, now=at)
    watch.seen(frozenset(), now=1_000)

    tried = [at for at in range(2_000, 2_100) if watch.seen({A}, now=at)]

    assert tried == [2_005, 2_005 + AGAIN_SECS, 2_005 + 3 * AGAIN_SECS]
