"""Child processes end with their parent, and are protected from its signals; `kill -9` is in a test of brokers."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from connector.processes import spawn, stop, tail


def _ready(*command: str, log: Path) -> "subprocess.Popen[bytes]":
    """Start a child, and return it once it prints that it is ready."""
    child = spawn(command, log=log)
    while "ready" not in tail(log):
        assert child.poll() is None
        time.sleep(0.01)
    return child


def test_a_child_that_ignores_sigterm_is_killed_after_the_grace(tmp_path: Path) -> None:
    child = _ready("sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.05; done", log=tmp_path / "log")

    assert stop(child, grace_secs=0.2) == -signal.SIGKILL


def test_a_program_that_does_not_exist_cannot_be_spawned(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no-such-program"):
        spawn(["no-such-program"], log=tmp_path / "log")


def test_a_child_is_out_of_reach_of_ctrl_c(tmp_path: Path) -> None:
    child = spawn(["sleep", "30"], log=tmp_path / "log")

    assert os.getsid(child.pid) != os.getsid(0)

    assert stop(child, grace_secs=5) == -signal.SIGTERM


def test_a_child_that_does_not_listen_for_sighup_yet_outlives_it(tmp_path: Path) -> None:
    child = _ready("sh", "-c", "echo ready; exec sleep 30", log=tmp_path / "log")

    child.send_signal(signal.SIGHUP)

    time.sleep(0.1)
    assert child.poll() is None
    assert stop(child, grace_secs=5) == -signal.SIGTERM


_LISTENS_LATE = """
import signal, time
from connector.processes import hear_requests

print("ready", flush=True)
deadline = time.monotonic() + 10
while signal.SIGUSR1 not in signal.sigpending() and time.monotonic() < deadline:
    time.sleep(0.01)
signal.signal(signal.SIGUSR1, lambda *_: print("heard"))
hear_requests()
"""


def test_what_a_child_is_asked_before_it_listens_is_received_once_it_does(tmp_path: Path) -> None:
    """A worker takes seconds to start, and the supervisor has no other way to tell whether the log was switched."""
    log = tmp_path / "log"
    child = _ready(sys.executable, "-c", _LISTENS_LATE, log=log)

    child.send_signal(signal.SIGUSR1)

    assert child.wait(60) == 0
    assert "heard" in tail(log)
