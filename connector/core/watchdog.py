"""Whether a stream stands still: records wait, the committed offset does not move, and no known cause explains it.

Each partition has two clocks. One measures how long its committed offset has not moved although there is more to
settle. The other measures how long, in addition, no known cause was found. Known causes (a hold, an open transaction of
the topic's producer, unreachable brokers, a retry that is due later) do not end by a restart, so they must not look
like a fault of the worker. When such a wait ends, the second clock restarts.
"""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Literal

from connector.core.chunks import Partition

Known = Literal["hold", "upstream_transaction_open", "kafka", "pause", "retry", "pace", "turn", "room"]
Unknown = Literal["post", "tick", "start", "fetch", "progress", "reader", "nothing"]

SUSPECT_SHARE = 0.25
"""Share of `stalled_secs` after which the cause of a wait is determined."""


@dataclass(frozen=True, slots=True)
class Position:
    """How far a partition has come: the next offset to be settled, and how many records lie from there to the end.

    None means unknown. An unknown offset is expected to move all the same, which shows in `mark`.
    """

    offset: int | None
    lag: int | None
    mark: Hashable = None


@dataclass(frozen=True, slots=True)
class Wait:
    """What a partition waits for. A `known` wait ends by itself or by a person, never by a restart.

    `mark` identifies the current attempt: while it changes, work is being done.
    """

    waits_for: Known | Unknown
    known: bool
    detail: str = ""
    mark: Hashable = None


@dataclass(frozen=True, slots=True)
class Standstill:
    """A partition that stands still; None is the stream as a whole. `since` is on the driver's clock."""

    partition: Partition | None
    offset: int | None
    lag: int | None
    since: float
    wait: Wait


@dataclass(slots=True)
class _Watched:
    position: Position
    moved_at: float
    excused_at: float
    mark: Hashable = None


class Watchdog:
    """Remembers when each partition last moved. Usage: `suspects`, find out what each of them waits for, `check`."""

    def __init__(self, stalled_secs: float) -> None:
        self._stalled_secs = stalled_secs
        self._watched: dict[Partition | None, _Watched] = {}

    def suspects(self, positions: Mapping[Partition | None, Position], *, now: float) -> list[Partition | None]:
        """Note how far all have come; return those that have more to settle and have not moved for a while."""
        self._watched = {key: self._noted(key, position, now) for key, position in positions.items()}
        while_secs = self._stalled_secs * SUSPECT_SHARE
        return [key for key, watched in self._watched.items() if now - watched.moved_at >= while_secs]

    def _noted(self, key: Partition | None, position: Position, now: float) -> _Watched:
        watched = self._watched.get(key)
        if (
            watched is None
            or position.lag == 0
            or (position.offset, position.mark) != (watched.position.offset, watched.position.mark)
        ):
            return _Watched(position, now, now)
        watched.position = position
        return watched

    def check(self, waits: Mapping[Partition | None, Wait], *, now: float) -> list[Standstill]:
        """Return what stands still, given what each suspect waits for."""
        found = []
        for key, wait in waits.items():
            watched = self._watched.get(key)
            if watched is None:
                continue
            if wait.known or wait.mark != watched.mark:
                watched.excused_at, watched.mark = now, wait.mark
            since = watched.moved_at if wait.known else max(watched.moved_at, watched.excused_at)
            if now - since >= self._stalled_secs:
                found.append(Standstill(key, watched.position.offset, watched.position.lag, watched.moved_at, wait))
        return found
