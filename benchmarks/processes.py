"""What a process costs, read from `/proc`: CPU with all its children, and resident memory."""

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

_TICKS_PER_SEC: Final = os.sysconf("SC_CLK_TCK")


def cpu_secs(pid: int) -> float:
    """Return user and system seconds of a process and its children, those that have ended included."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    own = sum(map(int, fields[11:15])) / _TICKS_PER_SEC
    return own + _of_children(cpu_secs, pid)


def rss_mb(pid: int) -> float:
    """Return the resident memory of a process and its children in MB, what they share counted each time."""
    return _status_mb(pid, "VmRSS") + _of_children(rss_mb, pid)


def peak_rss_mb(pid: int) -> float:
    """Return the most that a process and its children had resident, in MB; the peaks need not have coincided."""
    return _status_mb(pid, "VmHWM") + _of_children(peak_rss_mb, pid)


def compiler_secs(pid: int) -> float:
    """Return the CPU seconds of the threads of a Java process that compile its code."""
    found = 0.0
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):  # the JVM ends those that have nothing to do
            if (task / "comm").read_text().startswith(("C1 ", "C2 ")):
                found += int((task / "schedstat").read_text().split()[0]) / 1e9
    return found


def _status_mb(pid: int, field: str) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024 / 1e6
    return 0.0


def _of_children(figure: Callable[[int], float], pid: int) -> float:
    total = 0.0
    for child in _children(pid):
        with suppress(FileNotFoundError, ProcessLookupError):  # one that has just ended
            total += figure(child)
    return total


def _children(pid: int) -> list[int]:
    found: list[int] = []
    for tasks in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(FileNotFoundError, ProcessLookupError):  # a thread that has just ended
            found += map(int, tasks.read_text().split())
    return found
