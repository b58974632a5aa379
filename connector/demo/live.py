"""What the demo shows while it runs: the connector's status, from its status page.

Without a terminal, a line every two seconds replaces the table.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import httpx
import msgspec
from rich.console import Console
from rich.live import Live
from rich.table import Table

_POLL_SECS: Final = 0.2
_LINE_SECS: Final = 2.0


class Hold(msgspec.Struct, frozen=True):
    """Why a stream is on hold."""

    reason: str


class StreamStatus(msgspec.Struct, frozen=True):
    """The part of a stream's status that the demo shows."""

    state: str = "not started"
    queued: int = 0
    skipped: int = 0
    dead_letters: dict[str, int] = {}
    in_flight_records: int = 0
    in_flight_requests: int = 0
    hold: Hold | None = None

    @property
    def settled(self) -> int:
        """Records whose outcome or dead letter is written."""
        return self.queued + self.skipped + sum(self.dead_letters.values())


class _Status(msgspec.Struct, frozen=True):
    streams: list[StreamStatus]


class StatusPage:
    """Queries a connector's status; before it answers, and after it has stopped, the last answer counts."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._client = httpx.Client(timeout=2, trust_env=False)
        self._decode = msgspec.json.Decoder(_Status).decode
        self._last = StreamStatus()

    def ask(self) -> StreamStatus:
        """Return the status of the first stream."""
        try:
            reply = self._client.get(self._url)
        except httpx.TransportError:
            return self._last
        if reply.status_code == httpx.codes.OK:
            self._last = self._decode(reply.content).streams[0]
        return self._last

    def close(self) -> None:
        """Close the connection."""
        self._client.close()


@contextmanager
def live_view(console: Console, produced: Callable[[], int]) -> Iterator[Callable[[StreamStatus], None]]:
    """Yield a `show(status)` while the context lasts; `produced` returns how many events were produced so far."""
    rate = _Rate()
    if console.is_terminal:
        with Live(console=console, refresh_per_second=5) as live:
            yield lambda status: live.update(_table(status, produced(), rate(status.settled)))
        return
    last = time.monotonic()

    def show(status: StreamStatus) -> None:
        nonlocal last
        per_sec = rate(status.settled)
        if time.monotonic() - last >= _LINE_SECS:
            last = time.monotonic()
            console.print(_line(status, produced(), per_sec), highlight=False, markup=False, soft_wrap=True)

    yield show


def watch(
    page: StatusPage,
    show: Callable[[StreamStatus], None],
    until: Callable[[StreamStatus], bool],
    *,
    timeout_secs: float,
) -> bool:
    """Show the status repeatedly until `until` is true for it; return False on timeout."""
    deadline = time.monotonic() + timeout_secs
    while True:
        status = page.ask()
        show(status)
        if until(status):
            return True
        if time.monotonic() >= deadline:
            return False
        time.sleep(_POLL_SECS)


class _Rate:
    """Records per second over the last two seconds or so."""

    def __init__(self) -> None:
        self._points: list[tuple[float, int]] = []

    def __call__(self, settled: int) -> float:
        at = time.monotonic()
        self._points = [point for point in self._points if at - point[0] < 2] + [(at, settled)]
        (first_at, first), (last_at, last) = self._points[0], self._points[-1]
        return (last - first) / (last_at - first_at) if last_at > first_at else 0.0


def _table(status: StreamStatus, produced: int, per_sec: float) -> Table:
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="dim")
    table.add_column(justify="right")
    state = status.state if status.hold is None else f"[yellow]hold: {status.hold.reason}[/]"
    rows: list[tuple[str, str]] = [
        ("state", state),
        ("produced", f"{produced:,}"),
        ("records/s", f"{per_sec:,.0f}"),
        ("in flight", f"{status.in_flight_records:,} in {status.in_flight_requests} requests"),
        ("outcomes", f"{status.queued + status.skipped:,}"),
        ("dead letters", f"{sum(status.dead_letters.values()):,}"),
    ]
    rows += [(f"  {reason}", f"{count:,}") for reason, count in sorted(status.dead_letters.items())]
    for row in rows:
        table.add_row(*row)
    return table


def _line(status: StreamStatus, produced: int, per_sec: float) -> str:
    hold = "" if status.hold is None else f", hold: {status.hold.reason}"
    return (
        f"produced {produced:,}, outcomes {status.queued + status.skipped:,}, "
        f"dead letters {sum(status.dead_letters.values()):,}, "
        f"in flight {status.in_flight_records:,}, {per_sec:,.0f} records/s{hold}"
    )
