"""Connectors that are forked from a process that has loaded all their modules, in place of being started anew.

Loading them takes more than a second of CPU, of which tests would spend several hundred. Nothing is running in the
process that is forked from; signals, logs and exit codes are those of a connector that a user has started.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from multiprocessing import get_context
from pathlib import Path
from typing import Final

from connector.processes import defer_requests, end_with_parent

_CONTEXT: Final = get_context("forkserver")
_CONTEXT.set_forkserver_preload(["connector.app.application", "connector.cli.main", __name__])


class Forked:
    """A process of `trackly-connector`, to be used as a `subprocess.Popen`; it does not outlive this process."""

    def __init__(self, arguments: Sequence[str], log: Path, env: Mapping[str, str]) -> None:
        """Start it; what it says is appended to `log`."""
        self._process = _CONTEXT.Process(target=_become, args=(arguments, log, dict(env)))
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    def poll(self) -> int | None:
        """Return the exit code, or None while it runs."""
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end and return the exit code; raises `TimeoutExpired`."""
        self._process.join(timeout)
        code = self.poll()
        if code is None:
            raise subprocess.TimeoutExpired("trackly-connector", timeout or 0.0)
        return code

    def send_signal(self, number: int) -> None:
        """Send a signal to it, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """End it at once."""
        self.send_signal(signal.SIGKILL)


def _become(arguments: Sequence[str], log: Path, env: Mapping[str, str]) -> None:
    """Be the program `trackly-connector` with these arguments."""
    from connector.__main__ import main  # noqa: PLC0415 (by then its modules are there)

    end_with_parent()
    os.setsid()
    with log.open("ab") as out, Path(os.devnull).open("rb") as nothing:
        for theirs, ours in ((nothing, 0), (out, 1), (out, 2)):
            os.dup2(theirs.fileno(), ours)
    os.environ.clear()
    os.environ.update(env)
    defer_requests()  # as where `connector.processes` starts it
    sys.argv = ["trackly-connector", *arguments]
    main()
