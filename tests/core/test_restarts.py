"""When a worker that died is restarted, and which exit code counts for all."""

import pytest

from connector.cli.errors import RESTARTS, ExitCode
from connector.core.restarts import Restarts

KILLED = -9


def _waits(*runs_secs: float, code: int = KILLED) -> list[float | None]:
    """Return the waits after runs of these lengths, one after the other."""
    restarts, now, waits = Restarts(RESTARTS), 1_000.0, list[float | None]()
    for run in runs_secs:
        restarts.started(now=now)
        now += run
        waits.append(restarts.ended(code, now=now))
        now += waits[-1] or 0.0
    return waits


def test_waits_double_up_to_the_longest() -> None:
    assert _waits(*[1.0] * 9) == [0.5, 1, 2, 4, 8, 16, 32, 60, 60]


def test_a_thousand_deaths_wait_no_longer_than_the_longest() -> None:
    assert _waits(*[0.0] * 1_000)[-1] == 60


def test_a_run_that_lasted_resets_the_waits() -> None:
    assert _waits(1, 1, 1, 60, 1, 59.9) == [0.5, 1, 2, 0.5, 1, 2]


def test_a_twin_ends_all_at_any_time() -> None:
    assert _waits(1, code=ExitCode.INSTANCE_ID_IN_USE) == [None]
    restarts = Restarts(RESTARTS)
    restarts.started(now=0)
    assert restarts.ended(KILLED, now=500) is not None
    restarts.started(now=501)
    assert restarts.ended(ExitCode.INSTANCE_ID_IN_USE, now=502) is None


@pytest.mark.parametrize("code", [ExitCode.BAD_SETTINGS, ExitCode.BROKER_UNREACHABLE])
def test_what_never_worked_ends_all_and_what_worked_before_is_tried_again(code: int) -> None:
    """A secret's file, or brokers, that are missing for a moment are no reason to end workers that run."""
    assert _waits(60, code=code) == [None]
    restarts = Restarts(RESTARTS)
    for second in range(2):
        restarts.started(now=second * 500)
        waited = restarts.ended(KILLED if second == 0 else code, now=second * 500 + 100)
        assert waited == 0.5


def test_restarts_are_counted_and_the_first_start_is_none() -> None:
    restarts = Restarts(RESTARTS)
    counted = [restarts.times]
    for _ in range(3):
        restarts.started(now=0)
        counted.append(restarts.times)

    assert counted == [0, 0, 1, 2]


@pytest.mark.parametrize(
    ("codes", "whole"),
    [
        ([], 0),
        ([0, 0], 0),
        ([0, 5], 5),
        ([5, 1, 0], 1),
        ([1, 3], 3),
        ([3, 4], 4),
        ([4, 2], 2),
        ([0, -1], 5),
        ([0, -9], 5),  # killed with records in flight
        ([0, -15], 0),  # ended by SIGTERM before it listened for it: nothing had begun
        ([2, 77], 77),
    ],
)
def test_the_whole_ends_as_the_worst_of_its_workers(codes: list[int], whole: int) -> None:
    assert RESTARTS.worst(codes) == whole


def test_every_exit_code_has_its_place_in_the_order() -> None:
    assert sorted(RESTARTS.order) == sorted(ExitCode)
