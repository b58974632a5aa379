"""A worker as its supervisor sees it: the state of its process, and whether its pages answer."""

import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from connector.clock import now
from connector.core.restarts import Restarts
from connector.telemetry.metrics import WorkerSeen


@dataclass(slots=True, eq=False)
class Worker:
    """A worker over all restarts: a process, or the wait for the next one. At most one process at a time."""

    ordinal: int
    instance_id: str
    socket: Path | None
    restarts: Restarts
    start_secs: float
    """How long its pages may take to answer for the first time."""
    process: subprocess.Popen[bytes] | None = None
    started_at: float | None = None
    last_exit: int | None = None
    _has_answered: bool = False
    _began_at: float = 0.0
    _signalled: bool = False
    _over: bool = False

    @property
    def is_up(self) -> bool:
        """Whether there is a process."""
        return self.process is not None

    @property
    def state(self) -> str:
        """Its state: `running` once its pages have answered, `starting` before, `silent` if that takes long."""
        if self.process is None:
            return "stopped" if self._over else "restarting"
        if self._signalled:
            return "draining"
        if self._has_answered:
            return "running"
        return "silent" if now() - self._began_at > self.start_secs else "starting"

    def began(self, process: subprocess.Popen[bytes]) -> None:
        """Note a new process."""
        self.process, self.started_at = process, time.time()
        self._has_answered, self._began_at = False, now()

    def ended(self, code: int) -> None:
        """Note that the process has exited."""
        self.process, self.last_exit = None, code

    def answered(self) -> None:
        """Note that its pages answer."""
        self._has_answered = True

    def over(self) -> None:
        """Note that there will be no other process."""
        self._over = True

    def signal(self, number: signal.Signals) -> None:
        """Send its process a signal, if there is one."""
        if self.process is not None:
            self._signalled = self._signalled or number == signal.SIGTERM
            self.process.send_signal(number)

    def status(self) -> dict[str, Any]:
        """Return what is known of it as JSON-ready values."""
        return {
            "ordinal": self.ordinal,
            "instance_id": self.instance_id,
            "pid": None if self.process is None else self.process.pid,
            "state": self.state,
            "started_at": None if self.started_at is None else round(self.started_at, 3),
            "restarts": self.restarts.times,
            "last_exit": self.last_exit,
        }

    def seen(self) -> WorkerSeen:
        """Return what the metrics report about it."""
        return WorkerSeen(self.ordinal, self.is_up, self.restarts.times)
