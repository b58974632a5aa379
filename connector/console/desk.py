"""The console's long tasks: what was requested, its progress, and its result.

Each task is done by a clerk, a process of its own (`clerk.py`). Few run at a time, and results are kept for a few
minutes only, because they may contain revealed values.
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
from connector.console.clerk import Task, serve
from connector.console.guarding import RefusedError
from connector.telemetry.logging import get_logger

AT_ONCE: Final = 3
"""Tasks that run or wait for confirmation at the same time."""

KEPT: Final = 30
KEPT_SECS: Final = 600.0

log = get_logger("console")


@dataclass(slots=True, eq=False)
class Piece:
    """One task and its state: `running`, `asks` (for confirmation), `done`, `failed` or `cancelled`."""

    name: str
    task: Task
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


class Desk:
    """Accepts tasks, and runs them in clerks. Not thread-safe: used by one event loop."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._pieces: dict[str, Piece] = {}
        self._following: set[asyncio.Task[None]] = set()
        # Not the loop's own threads: the streams would miss one that waits for a person.
        self._listeners = ThreadPoolExecutor(2 * AT_ONCE, thread_name_prefix="clerk")

    def begin(self, task: Task) -> Piece:
        """Start a task; raises `RefusedError` if too many are running."""
        self._forget()
        if sum(not piece.is_over for piece in self._pieces.values()) >= AT_ONCE:
            raise RefusedError(503, f"{AT_ONCE} tasks are under way already; wait for one, or cancel it")
        context = get_context("spawn")
        ours, theirs = context.Pipe()
        piece = Piece(secrets.token_hex(8), task)
        piece.process = context.Process(
            target=serve, args=(self._settings, task, theirs), name="trackly-connector-clerk", daemon=False
        )
        piece.line = ours
        piece.process.start()
        theirs.close()
        self._pieces[piece.name] = piece
        following = asyncio.get_running_loop().create_task(self._follow(piece, ours))
        self._following.add(following)
        following.add_done_callback(self._following.discard)
        return piece

    def find(self, name: str) -> Piece:
        """Return a task; raises `RefusedError` if it does not exist, or no longer."""
        self._forget()
        if name not in self._pieces:
            raise RefusedError(404, "there is no such task here: it is over for long, or another worker has it")
        return self._pieces[name]

    def confirm(self, piece: Piece) -> None:
        """Confirm a task; raises `RefusedError` if it does not wait for that."""
        if piece.state != "asks" or piece.line is None:
            raise RefusedError(409, "this does not wait for a confirmation any more")
        piece.line.send("go")
        piece.state, piece.what, piece.done, piece.total = "running", "writing", 0, 0
        log.info("redrive confirmed", remote=piece.task.asked_by, name=piece.result.get("name"))

    def cancel(self, piece: Piece) -> None:
        """End a task. What a redrive has committed stays; started again, it continues there."""
        if not piece.is_over:
            self._end(piece, "cancelled")

    async def close(self) -> None:
        """End all tasks."""
        for piece in self._pieces.values():
            self.cancel(piece)
        await asyncio.gather(*self._following, return_exceptions=True)
        self._listeners.shutdown(wait=False, cancel_futures=True)

    async def _follow(self, piece: Piece, line: "Connection[Any, Any]") -> None:
        """Receive a clerk's messages until it ends."""
        loop = asyncio.get_running_loop()
        while not piece.is_over:
            try:
                word, told = await loop.run_in_executor(self._listeners, line.recv)
            except (EOFError, OSError):
                if not piece.is_over:
                    piece.problem = "the process that worked on it has ended; the log may say why"
                    self._end(piece, "failed")
                return
            match word:
                case "progress":
                    piece.what, piece.done, piece.total = told["what"], told["done"], told["total"]
                case "asks":
                    piece.state, piece.result = "asks", told
                case "result":
                    piece.result = told
                    self._end(piece, "done")
                case _:
                    piece.problem = told
                    self._end(piece, "failed")

    def _end(self, piece: Piece, state: str) -> None:
        piece.state, piece.ended_at = state, time.monotonic()
        asyncio.get_running_loop().call_later(KEPT_SECS + 1.0, self._forget)  # even if nobody asks again
        if piece.process is not None and state == "cancelled":
            piece.process.kill()
        log.info(
            "dead letters worked on",
            kind=piece.task.kind,
            state=state,
            took_secs=round(piece.ended_at - piece.began_at, 1),
            remote=piece.task.asked_by,
            **({"written": piece.result["written"]} if "written" in piece.result else {}),
            **({"problem": piece.problem} if piece.problem else {}),
        )

    def _forget(self) -> None:
        """Drop tasks that ended long ago, and the oldest if there are too many."""
        now = time.monotonic()
        over = [piece for piece in self._pieces.values() if piece.ended_at is not None]
        for at, piece in enumerate(sorted(over, key=lambda piece: -(piece.ended_at or 0.0))):
            if at >= KEPT or now - (piece.ended_at or 0.0) > KEPT_SECS:
                if piece.process is not None and piece.process.is_alive():
                    continue
                if piece.process is not None:
                    piece.process.join()
                if piece.line is not None:
                    piece.line.close()
                del self._pieces[piece.name]
