"""The console's long tasks: what was requested, its progress, and its result.

Each task is done by a process of its own (`task_process.py`). Few run at a time, and results are kept for a few minutes
only, because they may contain revealed values.
"""

import asyncio
import secrets
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, Final

from connector.config.settings import Settings
from connector.console.guarding import RefusedError
from connector.console.task_process import TaskRequest, serve
from connector.telemetry.logging import get_logger

AT_ONCE: Final = 3
"""Tasks that run or wait for confirmation at the same time."""

KEPT: Final = 30
KEPT_SECS: Final = 600.0

log = get_logger("console")


@dataclass(slots=True, eq=False)
class Task:
    """One task and its state: `running`, `asks` (for confirmation), `done`, `failed` or `cancelled`."""

    name: str
    request: TaskRequest
    state: str = "running"
    what: str = "starting"
    done: int = 0
    total: int = 0
    result: dict[str, Any] = field(default_factory=dict, repr=False)
    problem: str = ""
    began_at: float = field(default_factory=time.monotonic)
    ended_at: float | None = None
    process: BaseProcess | None = field(default=None, repr=False)
    line: "Connection[Any, Any] | None" = field(default=None, repr=False)

    @property
    def is_over(self) -> bool:
        """Whether it is in a final state."""
        return self.state in {"done", "failed", "cancelled"}


class Tasks:
    """Accepts tasks, each of which runs in a process. Not thread-safe: used by one event loop."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._tasks: dict[str, Task] = {}
        self._following: set[asyncio.Task[None]] = set()
        # Not the loop's own threads: the streams would miss one that waits for a person.
        self._listeners = ThreadPoolExecutor(2 * AT_ONCE, thread_name_prefix="console-task")

    def begin(self, request: TaskRequest) -> Task:
        """Start a task; raises `RefusedError` if too many are running."""
        self._forget()
        if sum(not task.is_over for task in self._tasks.values()) >= AT_ONCE:
            raise RefusedError(503, f"{AT_ONCE} tasks are under way already; wait for one, or cancel it")
        context = get_context("spawn")
        ours, theirs = context.Pipe()
        task = Task(secrets.token_hex(8), request)
        task.process = context.Process(
            target=serve, args=(self._settings, request, theirs), name="trackly-connector-task", daemon=False
        )
        task.line = ours
        task.process.start()
        theirs.close()
        self._tasks[task.name] = task
        following = asyncio.get_running_loop().create_task(self._follow(task, ours))
        self._following.add(following)
        following.add_done_callback(self._following.discard)
        return task

    def find(self, name: str) -> Task:
        """Return a task; raises `RefusedError` if it does not exist, or no longer."""
        self._forget()
        if name not in self._tasks:
            raise RefusedError(404, "there is no such task here: it is over for long, or another worker has it")
        return self._tasks[name]

    def confirm(self, task: Task) -> None:
        """Confirm a task; raises `RefusedError` if it does not wait for that."""
        if task.state != "asks" or task.line is None:
            raise RefusedError(409, "this does not wait for a confirmation any more")
        task.line.send("go")
        task.state, task.what, task.done, task.total = "running", "writing", 0, 0
        log.info("redrive confirmed", remote=task.request.asked_by, name=task.result.get("name"))

    def cancel(self, task: Task) -> None:
        """End a task. What a redrive has committed stays; started again, it continues there."""
        if not task.is_over:
            self._end(task, "cancelled")

    async def close(self) -> None:
        """End all tasks."""
        for task in self._tasks.values():
            self.cancel(task)
        await asyncio.gather(*self._following, return_exceptions=True)
        self._listeners.shutdown(wait=False, cancel_futures=True)

    async def _follow(self, task: Task, line: "Connection[Any, Any]") -> None:
        """Receive the messages of a task's process until it ends."""
        loop = asyncio.get_running_loop()
        while not task.is_over:
            try:
                word, told = await loop.run_in_executor(self._listeners, line.recv)
            except (EOFError, OSError):
                if not task.is_over:
                    task.problem = "the process that worked on it has ended; the log may say why"
                    self._end(task, "failed")
                return
            match word:
                case "progress":
                    task.what, task.done, task.total = told["what"], told["done"], told["total"]
                case "asks":
                    task.state, task.result = "asks", told
                case "result":
                    task.result = told
                    self._end(task, "done")
                case _:
                    task.problem = told
                    self._end(task, "failed")

    def _end(self, task: Task, state: str) -> None:
        task.state, task.ended_at = state, time.monotonic()
        asyncio.get_running_loop().call_later(KEPT_SECS + 1.0, self._forget)  # even if nobody asks again
        if task.process is not None and state == "cancelled":
            task.process.kill()
        log.info(
            "dead letters worked on",
            kind=task.request.kind,
            state=state,
            took_secs=round(task.ended_at - task.began_at, 1),
            remote=task.request.asked_by,
            **({"written": task.result["written"]} if "written" in task.result else {}),
            **({"problem": task.problem} if task.problem else {}),
        )

    def _forget(self) -> None:
        """Drop tasks that ended long ago, and the oldest if there are too many."""
        now = time.monotonic()
        over = [task for task in self._tasks.values() if task.ended_at is not None]
        for at, task in enumerate(sorted(over, key=lambda task: -(task.ended_at or 0.0))):
            if at >= KEPT or now - (task.ended_at or 0.0) > KEPT_SECS:
                if task.process is not None and task.process.is_alive():
                    continue
                if task.process is not None:
                    task.process.join()
                if task.line is not None:
                    task.line.close()
                del self._tasks[task.name]
