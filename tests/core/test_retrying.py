"""How long a failed batch waits, and when it is retried unchanged, halved, or given up."""

from dataclasses import replace
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connector.core.batching import Batch
from connector.core.retrying import SUSPICION, Others, RetryPolicy, backoff, next_step, requested_wait
from tests.core.making import batch, chunk

POLICY: Final = RetryPolicy(max_attempts=5, base_secs=1.0, max_secs=60.0, retry_after_max_secs=300.0)

policies = st.builds(
    RetryPolicy,
    max_attempts=st.integers(1, 100),
    base_secs=st.floats(0.001, 3_600),
    max_secs=st.floats(0.001, 86_400),
    retry_after_max_secs=st.floats(0, 86_400),
)
jitters = st.floats(0, 1)


def test_waits_are_those_that_the_platform_advises() -> None:
    """`2^attempt + uniform(0, 1)` seconds, the attempt counted from 0."""
    assert [backoff(failures, POLICY, jitter=0.5) for failures in (1, 2, 3, 4)] == [1.5, 2.5, 4.5, 8.5]


def test_the_base_stretches_the_wait_and_its_jitter() -> None:
    assert backoff(2, replace(POLICY, base_secs=3.0), jitter=0.25) == 6.75


@pytest.mark.parametrize("attempts", [7, 40, 10**9])
def test_no_wait_passes_the_ceiling_however_often_it_failed(attempts: int) -> None:
    assert backoff(attempts, POLICY, jitter=1.0) == 60.0


@given(policies, st.integers(-1, 200), jitters, jitters)
def test_waits_never_shrink_with_further_failures(
    policy: RetryPolicy, attempts: int, jitter: float, other: float
) -> None:
    now, later = backoff(attempts, policy, jitter=jitter), backoff(attempts + 2, policy, jitter=other)

    assert 0 < now <= policy.max_secs
    assert now <= later or later == pytest.approx(now) or attempts + 2 <= 1


@pytest.mark.parametrize(
    ("told", "waited"),
    [(0.0, 0.5), (7.0, 7.5), (300.0, 300.5), (301.0, 300.5), (1e18, 300.5), (-4.0, 0.5), (None, 4.5)],
)
def test_what_the_platform_asks_for_is_kept_within_the_cap(told: float | None, waited: float) -> None:
    """With jitter, so that not all workers come back at the same moment; without one: as after any failure."""
    assert requested_wait(told, 3, POLICY, jitter=0.5) == waited


def test_jitter_is_a_share_of_the_setting_that_waits_begin_with() -> None:
    assert requested_wait(7.0, 3, replace(POLICY, base_secs=4.0), jitter=0.5) == 9.0


@given(policies, st.none() | st.floats(allow_nan=False), st.integers(0, 50), jitters)
def test_no_header_makes_a_wait_that_never_ends(
    policy: RetryPolicy, told: float | None, attempts: int, jitter: float
) -> None:
    waited = requested_wait(told, attempts, policy, jitter=jitter)

    assert 0 <= waited <= max(policy.max_secs, policy.retry_after_max_secs + policy.base_secs)


# ------------------------------------------------------------------ after a 5xx

many = batch(chunk(offsets=range(4)))
alone = batch(chunk(offsets=[0]))


@pytest.mark.parametrize("attempts", [1, 2, 5, 100])
@pytest.mark.parametrize("failed", [many, alone], ids=["many", "alone"])
def test_while_nothing_passes_no_batch_is_blamed(failed: Batch, attempts: int) -> None:
    """An outage of any length must neither halve batches nor make dead letters."""
    blamed = replace(failed, failures=attempts, suspect=True)

    assert next_step(blamed, POLICY, Others(passed=False, still_pass=False)) == "again"


def test_a_batch_is_halved_when_it_fails_again_while_others_pass() -> None:
    steps = [next_step(replace(many, failures=n), POLICY, Others(passed=True, still_pass=True)) for n in (1, 2, 3)]

    assert SUSPICION == 2
    assert steps == ["again", "split", "split"]


def test_halves_of_a_suspect_are_halved_at_once() -> None:
    assert next_step(replace(many, failures=1, suspect=True), POLICY, Others(passed=True, still_pass=True)) == "split"


def test_what_may_be_taken_each_time_is_split_at_once_and_posted_no_more_often_than_allowed() -> None:
    """Each post may send another text for every record of it, so all of them are given up when that is enough."""
    steps = [
        next_step(replace(many, attempts=n, failures=1), POLICY, Others(True, True), may_be_taken=True)
        for n in (2, 4, 5)
    ]

    assert POLICY.max_attempts == 5
    assert steps == ["split", "split", "give_up"]
    ended = Others(passed=True, still_pass=False)
    assert next_step(replace(many, attempts=9), POLICY, ended, may_be_taken=True) == "split"


def test_a_record_alone_is_given_up_when_its_attempts_are_spent() -> None:
    steps = [next_step(replace(alone, failures=n), POLICY, Others(passed=True, still_pass=True)) for n in (1, 4, 5, 6)]

    assert steps == ["again", "again", "give_up", "give_up"]


def test_a_record_alone_is_not_given_up_for_others_that_passed_before_an_outage() -> None:
    spent = replace(alone, failures=POLICY.max_attempts)

    assert next_step(spent, POLICY, Others(passed=True, still_pass=False)) == "again"


@given(st.integers(2, 1_000), st.integers(1, 8))
def test_a_poisoned_record_is_alone_after_few_failures(count: int, max_attempts: int) -> None:
    """One among 1,000 costs ten levels, the first of which takes two failures."""
    policy = replace(POLICY, max_attempts=max_attempts)
    failed = batch(chunk(offsets=range(count)))
    failures = 0
    while failed.count > 1:
        failed.failures += 1
        failures += 1
        if next_step(failed, policy, Others(passed=True, still_pass=True)) == "split":
            failed = batch(*failed.parts(2)[1])
            failed.suspect = True

    assert failures <= count.bit_length() + 1
