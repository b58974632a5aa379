"""Timeouts of the console use a clock that cannot be set back."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from connector.console import tasks
from connector.console.guarding import RefusedError
from connector.console.task_process import TaskRequest
from connector.console.tasks import KEPT_SECS, Task, Tasks
from tests.console.conftest import settings


class _Clock:
    """Stands for the module `time`: the time of day can be set, the other clock goes on."""

    def __init__(self) -> None:
        self.of_day, self.going_on = 1_769_846_400.0, 1_000.0

    def time(self) -> float:
        return self.of_day

    def monotonic(self) -> float:
        return self.going_on


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> _Clock:
    clock = _Clock()
    monkeypatch.setattr(tasks, "time", clock)
    return clock


def _over(kept: Tasks, task: Task) -> None:
    kept._tasks[task.name] = task
    kept._end(task, "done")


@pytest.mark.parametrize("set_by", [-86_400, 86_400])
def test_what_a_task_found_is_kept_for_minutes_though_the_clock_is_set(clock: _Clock, set_by: float) -> None:
    async def main() -> None:
        kept, task = Tasks(settings()), Task("one", TaskRequest("look"))
        _over(kept, task)
        clock.of_day += set_by
        assert kept.find("one") is task

        clock.going_on += KEPT_SECS + 1

        with pytest.raises(RefusedError, match="there is no such task"):
            kept.find("one")

    asyncio.run(main())


def test_what_a_task_found_is_forgotten_though_nobody_comes_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may hold what was revealed."""
    later: list[tuple[float, Any]] = []
    monkeypatch.setattr(tasks, "KEPT_SECS", 0.0)

    async def main() -> None:
        loop = SimpleNamespace(call_later=lambda secs, what: later.append((secs, what)))
        monkeypatch.setattr("asyncio.get_running_loop", lambda: loop)
        kept = Tasks(settings())
        _over(kept, Task("one", TaskRequest("letter", reveal=True)))
        ((secs, forget),) = later
        forget()

        assert secs > 0
        assert not kept._tasks

    asyncio.run(main())
