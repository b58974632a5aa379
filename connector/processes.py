"""Child processes that never outlive their parent.

A supervisor that is killed must not leave workers behind that nobody controls, nor a demo a broker that occupies memory
and ports. The kernel guarantees it, not a clean-up handler: a child asks to be killed when its parent ends
(``PR_SET_PDEATHSIG``), so that even ``kill -9`` of the parent ends the children.
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

# "Parent" means the thread that forked: the child of a short-lived thread would die with that thread. So all children
# are started by this one, which lasts as long as the interpreter.
_KEEPER: Final = ThreadPoolExecutor(max_workers=1, thread_name_prefix="leash")

_PR_SET_PDEATHSIG: Final = 1

# Runs in the child before the program itself. Requesting the signal here, not in a `preexec_fn`, keeps Python code out
# of the fork of a threaded process. The parent may have ended before the request: hence the second check. SIGHUP makes
# a program read its secrets again, SIGUSR1 log more; both are blocked until it handles them (`hear_requests`).
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
    """Start a process that ends with this one; its output is appended to `log`, or without one goes where ours does.

    It gets a session of its own: Ctrl-C reaches only this process, which stops its children in the right order. Raises
    `FileNotFoundError` if the program does not exist.
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
    """Have this process killed when the process that forked it ends; for processes not started by `spawn`."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def defer_requests() -> None:
    """Block SIGHUP and SIGUSR1 until they are handled: by default they would end the process."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP, signal.SIGUSR1})


def hear_requests() -> None:
    """Unblock what `defer_requests` has blocked; call once handlers are installed."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP, signal.SIGUSR1})


def stop(process: subprocess.Popen[bytes], *, grace_secs: float) -> int:
    """End a process and return its exit code: SIGTERM first, SIGKILL if it is still there after the grace period."""
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
