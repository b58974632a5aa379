"""Child processes on a leash: none outlives the process that started it.

A supervisor that is killed must not leave workers behind that nobody steers, nor a demonstration a broker that holds
memory and ports. The kernel keeps the promise, not a clean-up handler: a child asks to be killed when its parent ends
(``PR_SET_PDEATHSIG``), so even ``kill -9`` of the parent takes the children along.
"""

import ctypes
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import IO, Final

# "Parent" means the thread that forked: with a short-lived thread the child would die along with that thread. All
# children are therefore started by this one, which lasts as long as the interpreter.
_KEEPER: Final = ThreadPoolExecutor(max_workers=1, thread_name_prefix="leash")

_PR_SET_PDEATHSIG: Final = 1

# Runs in the child before the program proper. Asking for the signal here rather than in a `preexec_fn` keeps Python
# code out of the fork of a threaded process. The parent may have ended before the request: hence the second look.
# SIGHUP tells a program to read its secrets again, SIGUSR1 to log more; both wait until it listens (`hear_requests`).
_LEASH: Final = """
import ctypes, os, signal, sys
if ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGKILL, 0, 0, 0) != 0:
    sys.exit("prctl: " + os.strerror(ctypes.get_errno()))
if os.getppid() != int(sys.argv[1]):
    sys.exit("the parent has gone")
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP, signal.SIGUSR1})
os.execvp(sys.argv[2], sys.argv[2:])
"""


def spawn(
    argv: Sequence[str],
    *,
    log: Path | None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stdin: int = subprocess.DEVNULL,
) -> subprocess.Popen[bytes]:
    """Start a process that ends with this one; its output is appended to `log`, or goes where ours does without one.

    It gets a session of its own: Ctrl-C reaches this process alone, which stops its children in the right order.
    Raises `FileNotFoundError` when the program does not exist.
    """
    program = shutil.which(argv[0], path=(env or os.environ).get("PATH"))
    if program is None:
        raise FileNotFoundError(argv[0])
    argv = [program, *argv[1:]]
    with nullcontext() if log is None else log.open("ab") as out:
        return _KEEPER.submit(_popen, argv, out, env, cwd, stdin).result()


def _popen(
    argv: Sequence[str], out: IO[bytes] | None, env: Mapping[str, str] | None, cwd: Path | None, stdin: int
) -> subprocess.Popen[bytes]:
    leash = [sys.executable, "-I", "-S", "-c", _LEASH, str(os.getpid())]
    return subprocess.Popen(  # noqa: S603 - the callers' own programs
        [*leash, *argv],
        stdin=stdin,
        stdout=out,
        stderr=None if out is None else subprocess.STDOUT,
        env=env,
        cwd=cwd,
        start_new_session=True,
    )


def end_with_parent() -> None:
    """Have this process killed when the one ends that forked it: for those that are started by other means."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def defer_requests() -> None:
    """Have SIGHUP and SIGUSR1 wait until they are listened for: unheard they would end the process."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP, signal.SIGUSR1})


def hear_requests() -> None:
    """Take what `defer_requests` has kept waiting; to be called once handlers are there."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP, signal.SIGUSR1})


def stop(process: subprocess.Popen[bytes], *, grace_secs: float) -> int:
    """End a process and return its exit code: SIGTERM first, SIGKILL when it is still there after the grace."""
    if process.poll() is None:
        process.terminate()
    try:
        return process.wait(timeout=grace_secs)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def tail(log: Path, *, lines: int = 40) -> str:
    """Return the last lines of a log, or a note that there is none."""
    try:
        text = log.read_text(errors="replace")
    except FileNotFoundError:
        return "(no log)"
    return "\n".join(text.splitlines()[-lines:]) or "(the log is empty)"
