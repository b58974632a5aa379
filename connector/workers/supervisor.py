"""One process over several workers: starts them, restarts those that die, and stops all of them together.

No record passes through it. Each worker is an ordinary connector process in the same group, so Kafka alone decides who
has which partition; the supervisor assigns their ids, watches them, and stops them. Workers exit with it, however it
ends (`connector/processes.py`).
"""

import asyncio
import shutil
import signal
import socket
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from connector.app.instance import claim_all, make_own, temporary_files
from connector.clock import now
from connector.config.problems import SettingsError
from connector.config.secrets import Secrets
from connector.config.settings import Settings
from connector.console.listening import PagesError
from connector.core.restarts import RestartPolicy, Restarts
from connector.processes import hear_requests, spawn
from connector.telemetry.logging import get_logger, say, toggle_debug
from connector.workers.pages import Pages
from connector.workers.worker import Worker

log = get_logger("workers")

_CANNOT_START: Final = 1
"""The exit code for a process that the system could not start."""

_MAX_SOCKET_PATH: Final = 100
"""Bytes; the kernel allows 107 on Linux, and fewer elsewhere."""


@dataclass(frozen=True, slots=True)
class _Copy:
    """The settings file as it was read: a restarted worker must not differ from the others."""

    path: Path
    content: bytes = field(repr=False)

    @classmethod
    def of(cls, settings: Settings, path: Path) -> "_Copy":
        """Return a copy to be written to a path."""
        assert settings.origin is not None, "a supervisor runs a settings file"
        copy = cls(path, settings.origin.content)
        with temporary_files():
            copy.keep()
        return copy

    def keep(self) -> None:
        """Write it if it is missing: temporary folders are cleared of files that were not read for days."""
        make_own(self.path.parent)  # an emptied folder may be removed as well
        if not self.path.exists():
            self.path.touch(mode=0o600)
            self.path.write_bytes(self.content)


@dataclass(slots=True)
class Supervisor:
    """Runs the workers of one settings file.

    `command` returns the arguments of a worker's process, given a copy of the settings and whether SIGUSR1 has toggled
    the log level, so that a new worker has the same level as the others.

    Invariant: once a stop was requested, nothing is started.
    """

    settings: Settings
    policy: RestartPolicy
    command: Callable[[Worker, Path, bool], list[str]]
    fatal: Worker | None = None
    """The worker whose exit a restart cannot fix."""
    _workers: list[Worker] = field(default_factory=list)
    _stopping: asyncio.Event = field(default_factory=asyncio.Event)
    _log_switched: bool = False
    _started_at: float = field(default_factory=time.time)
    _secrets: Secrets = field(init=False)

    def __post_init__(self) -> None:
        self._secrets = Secrets(self.settings)

    async def run(self) -> int:
        """Run until a signal, or an exit that a restart cannot fix, has ended all workers; return the exit code.

        Raises `InstanceIdInUseError`, `TemporaryFolderError` or `PagesError` before anything is started.
        """
        claims = claim_all(self.settings)  # held until the process exits
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self._asked_to_stop)
        with temporary_files():
            home = Path(tempfile.mkdtemp(prefix="trackly-workers-"))
        try:
            if self.settings.web.enabled and len(bytes(home / "99.sock")) > _MAX_SOCKET_PATH:
                raise PagesError(f"the folder {home} has too long a name for sockets; set TMPDIR to a shorter one")
            copy = _Copy.of(self.settings, home / "settings.yaml")
            # A start may wait so long for brokers; what stands still after that does so for an unknown cause.
            start_secs = self.settings.kafka.startup_timeout_secs + self.settings.health.stalled_secs
            for ordinal, claimed in enumerate(claims):
                path = home / f"{ordinal}.sock" if self.settings.web.enabled else None
                self._workers.append(Worker(ordinal, claimed.instance_id, path, Restarts(self.policy), start_secs))
            async with AsyncExitStack() as stack:
                if self.settings.web.enabled:
                    pages = Pages(self.settings, self._secrets, self._workers, self._about)
                    await pages.start()
                    stack.push_async_callback(pages.stop)
                await self._run_all(copy)
        finally:
            shutil.rmtree(home, ignore_errors=True)
            del claims
        if self.fatal is not None and self.fatal.last_exit is not None:
            return self.policy.code_of(self.fatal.last_exit)
        return self.policy.worst(worker.last_exit for worker in self._workers if worker.last_exit is not None)

    def _about(self) -> dict[str, Any]:
        return {
            "instance_id": self.settings.instance_id or socket.gethostname(),
            "started_at": round(self._started_at, 3),
        }

    def _log_more_or_less(self) -> None:
        toggle_debug()
        self._log_switched = not self._log_switched
        self._signal_all(signal.SIGUSR1)

    async def _run_all(self, copy: _Copy) -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGHUP, self._read_secrets)
        self._read_secrets()  # a SIGHUP before this was not handled
        loop.add_signal_handler(signal.SIGUSR1, self._log_more_or_less)
        hear_requests()
        watching = loop.create_task(self._end_in_time())
        with ThreadPoolExecutor(len(self._workers), thread_name_prefix="worker") as waiters:
            try:
                async with asyncio.TaskGroup() as keeping:
                    for worker in self._workers:
                        keeping.create_task(self._keep(worker, copy, waiters))
            finally:
                self._signal_all(signal.SIGKILL)  # there is none left, unless something here failed
                watching.cancel()

    async def _keep(self, worker: Worker, copy: _Copy, waiters: ThreadPoolExecutor) -> None:
        """Keep one worker running until all should stop."""
        try:
            while not self._stopping.is_set():
                code = await self._live(worker, copy, waiters)
                if self._stopping.is_set():
                    return
                wait = worker.restarts.ended(code, now=now())
                if wait is None:
                    self.fatal = worker
                    log.error("worker failed, a restart cannot fix it; stopping all", worker=worker.ordinal, code=code)
                    self._stop()
                    return
                log.error("worker exited, restarting it", worker=worker.ordinal, code=code, in_secs=wait)
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._stopping.wait(), wait)
        finally:
            worker.over()

    async def _live(self, worker: Worker, copy: _Copy, waiters: ThreadPoolExecutor) -> int:
        """Start a worker's process, wait for its exit, and return its exit code; negative for a signal."""
        if worker.socket is not None:
            worker.socket.unlink(missing_ok=True)
        worker.restarts.started(now=now())
        try:
            copy.keep()
            process = spawn(self.command(worker, copy.path, self._log_switched), log=None)
        except OSError as error:
            log.error("worker cannot be started", worker=worker.ordinal, error=str(error))  # noqa: TRY400 (the text is enough)
            worker.ended(_CANNOT_START)
            return _CANNOT_START
        worker.began(process)
        log.info("worker started", worker=worker.ordinal, instance_id=worker.instance_id, pid=process.pid)
        code = await asyncio.get_running_loop().run_in_executor(waiters, process.wait)
        worker.ended(code)
        if self._stopping.is_set():
            log.info("worker stopped", worker=worker.ordinal, code=code)
        return code

    def _read_secrets(self) -> None:
        """Read the console's token again, and make all workers read their secrets, who report errors."""
        with suppress(SettingsError):
            self._secrets.read_again()
        self._signal_all(signal.SIGHUP)

    def _asked_to_stop(self) -> None:
        """Stop all workers in order; at the second request, immediately."""
        if not self._stopping.is_set():
            self._stop()
            return
        say("second signal: stopping all at once; what is in flight is in doubt\n")
        self._signal_all(signal.SIGKILL)

    def _stop(self) -> None:
        self._stopping.set()
        self._signal_all(signal.SIGTERM)

    async def _end_in_time(self) -> None:
        """Kill what has not drained halfway between its own deadline and that of whoever stops us."""
        await self._stopping.wait()
        drain = max(stream.delivery.drain_secs for stream in self.settings.streams)
        await asyncio.sleep((drain + self.settings.shutdown.grace_secs) / 2)
        late = [worker.ordinal for worker in self._workers if worker.is_up]
        log.error("workers did not drain in time and are killed; what they had in flight is in doubt", workers=late)
        self._signal_all(signal.SIGKILL)

    def _signal_all(self, number: signal.Signals) -> None:
        for worker in self._workers:
            worker.signal(number)
