"""Checks once a second whether a stream stands still, and finds out what it waits for.

How far partitions have come is known without any call. Only for partitions that have not moved for a while, their
oldest record is searched, and only if there is none, their leader is queried, in another thread.
"""

import asyncio
import time
from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Any, Final, assert_never

from connector.clock import now, until_next
from connector.core.breaker import Hold
from connector.core.chunks import Partition
from connector.core.watchdog import Position, Standstill, Wait, Watchdog
from connector.kafka.errors import KafkaTroubleError
from connector.stream.reader import Reader
from connector.stream.state import State
from connector.telemetry.logging import get_logger

CHECK_SECS: Final = 1.0

ASKED_AT_ONCE: Final = 16
"""Maximum number of leaders queried in one round; those queried longest ago come first."""

ASK_SHARE: Final = 0.05
"""Share of `stalled_secs` between two rounds of queries."""

FULL_SECS: Final = 60.0
"""How long a partition must be full, or not full, before this is logged: a single settled record makes room for a few,
and then it is full again."""

_NAMED: Final = 5
"""Partitions that a log line names; the status has all of them."""

_NOT_FETCHED: Final = Wait("fetch", False, "nothing was fetched")
_NOT_ASKED_YET: Final = Wait("fetch", True, "nothing was fetched; its leader has not been asked yet")
_OUT_OF_GROUP: Final = Wait("kafka", True, "it is not in its group: no broker answers, or there is no topic to read")
_NOTHING_KNOWN: Final = Wait("nothing", False, "its oldest unsettled record cannot be found")


class Watch:
    """Watches one stream; `standstills` is the result of the last look.

    `holds` returns the holds of the stream as a whole. `readable_end` queries a partition's leader for the end of what
    may be read, for at most so many seconds, and raises `KafkaTroubleError`.
    """

    def __init__(
        self,
        name: str,
        state: State,
        reader: Reader,
        *,
        stalled_secs: float,
        holds: Callable[[], list[Hold]],
        readable_end: Callable[[Partition, float], int],
        ask_secs: float,
    ) -> None:
        self.standstills: list[Standstill] = []
        self._state = state
        self._reader = reader
        self._holds = holds
        self._readable_end = readable_end
        self._ask_secs = ask_secs
        self._stalled_secs = stalled_secs
        self._watchdog = Watchdog(stalled_secs)
        self._asked: dict[Partition, Wait] = {}
        self._queued: set[Partition] = set()
        """Partitions whose leaders have to wait because of `ASKED_AT_ONCE`: they do not count as standing still before
        the first answer."""
        self._ends: dict[Partition, int] = {}
        """The readable end according to the leader, for partitions of which no fetch has reported one yet."""
        self._ask_at = 0.0
        self._asking: asyncio.Task[None] | None = None
        self._done: Hashable = None
        self._done_at = now()
        self._logged: dict[str, float] = {}
        self._full: dict[Partition, tuple[float, float]] = {}
        """When partitions were first and last found full; logged if far enough apart."""
        self._log = get_logger("stream").bind(stream=name)

    async def run(self) -> None:
        """Look once a second, until cancelled."""
        try:
            while True:
                await until_next(CHECK_SECS)
                self.check(now())
        finally:
            if self._asking is not None:
                self._asking.cancel()
            self.standstills = []  # nothing is known once it is not watched

    def check(self, at: float) -> None:
        """Look at everything once, and query leaders where that may explain something."""
        with self._state.lock:
            waits = self._waits(self._watchdog.suspects(self._positions(), now=at), at)
            self.standstills = self._watchdog.check(waits, now=at)
            full = {p: self._state.flow.partitions[p].doubt.count for p in self._state.flow.metadata_room.full}
        self._log_standstills(at)
        self._log_full(full, at)
        unread = [p for p, wait in waits.items() if p is not None and wait.waits_for in {"fetch", *_LEADERS_SAY}]
        there = set(unread)
        self._asked = {p: answer for p, answer in self._asked.items() if p in there}
        self._ends = {p: end for p, end in self._ends.items() if p in waits}
        if self._asking is not None and self._asking.done():
            asked, self._asking = self._asking, None
            asked.result()  # raises its error, which would be lost otherwise
        if unread and at >= self._ask_at and self._asking is None:
            self._ask_at = at + self._stalled_secs * ASK_SHARE
            # Queried partitions go to the end, so that all have their turn.
            turns = {p: turn for turn, p in enumerate(self._asked)}
            unread.sort(key=lambda p: turns.get(p, -1))
            self._queued = set(unread[ASKED_AT_ONCE:])
            self._asking = asyncio.get_running_loop().create_task(self._ask(unread[:ASKED_AT_ONCE]))

    def _positions(self) -> dict[Partition | None, Position]:
        """Return how far all partitions have come; called under the lock."""
        flow, known = self._state.flow, self._reader.positions
        # Outside of its group a stream has no partitions that could stand still: it does, as a whole.
        positions: dict[Partition | None, Position] = {
            None: Position(None, None, self._reader.in_group and self._reader.turns)
        }
        for partition in self._reader.partitions:
            there = flow.partitions.get(partition)
            if there is None:
                positions[partition] = Position(None, None)
            elif not there.revoking:
                seen = known.get(partition, Position(there.base, None))
                lag, end = seen.lag, self._ends.get(partition)
                if lag is None and end is not None:
                    lag = max(end - there.base, 0)
                positions[partition] = Position(max(there.base, seen.offset or 0), lag, there.epoch)
        return positions

    def _waits(self, suspects: Iterable[Partition | None], at: float) -> dict[Partition | None, Wait]:
        """Return what each suspect waits for; called under the lock."""
        done = (self._state.counts.requests, self._state.counts.settled)
        if done != self._done:
            self._done, self._done_at = done, at
        holds = self._holds()
        waits = {partition: self._wait(partition, holds, at) for partition in suspects}
        if not self._reader.has_room:
            # All others wait for the one that uses up the room.
            why = next((wait for wait in waits.values() if wait.known and wait.waits_for != "fetch"), None)
            full = Wait("room", why is not None, "no room for more records: buffer.max_bytes is used up")
            waits |= {p: full for p, wait in waits.items() if wait.waits_for == "fetch"}
        return waits

    def _wait(self, partition: Partition | None, holds: list[Hold], at: float) -> Wait:
        state = self._state
        if partition is None and self._reader.in_group:
            return Wait("reader", False, "the reader thread is stuck")
        hold = holds[0] if holds else None if partition is None else state.partition_holds.get(partition)
        if hold is not None:
            return Wait("hold", True, hold.reason)
        if at < state.paused_until:
            return Wait("pause", True, f"the platform asked for a pause of {state.paused_until - at:.0f} s more")
        trouble = state.kafka_trouble
        if trouble is not None and at < trouble.until:
            return Wait("kafka", True, trouble.text)
        if partition is None:
            return _OUT_OF_GROUP
        if partition not in state.flow.partitions:
            return Wait("progress", False, "its committed progress was not loaded")
        return self._wait_of_oldest(partition, at)

    def _wait_of_oldest(self, partition: Partition, at: float) -> Wait:
        place = self._state.flow.oldest(partition)
        attempt = (place.batch_id, place.attempts)
        match place.name:
            case "unread":
                unasked = _NOT_ASKED_YET if partition in self._queued else _NOT_FETCHED
                return self._asked.get(partition, unasked)
            case "posted":
                return Wait("post", False, f"batch {place.batch_id} is not answered", attempt)
            case "answered":
                return Wait("tick", False, "its results are not committed", attempt)
            case "waiting":
                known = at < place.until or self._is_busy(at)
                return Wait("retry", known, f"batch {place.batch_id} waits for another attempt", attempt)
            case "ready":
                return Wait("turn", self._is_busy(at), f"batch {place.batch_id} waits for a free request", attempt)
            case "no_room":
                return Wait("start", False, "its commit metadata is full", attempt)
            case "elsewhere" if (until := self._paced_until(partition)) is not None:
                known = at < until + self._stalled_secs * 0.5
                return Wait("pace", known, "its oldest record waits for the pace of its list")
            case "elsewhere":
                return _NOTHING_KNOWN
            case _ as never:
                assert_never(never)

    def _is_busy(self, at: float) -> bool:
        """Return whether other records got results lately, so that a startable batch just waits for its turn."""
        return at - self._done_at < self._stalled_secs * 0.5

    def _paced_until(self, partition: Partition) -> float | None:
        """Return when the list of its oldest record may proceed, or None if that does not wait for a pace."""
        flow, pacer = self._state.flow, self._state.admission.pacer
        base = flow.partitions[partition].base
        if pacer is None:
            return None
        return pacer.waits_until(lambda c: c.partition == partition and c.offsets[0] == base)

    # ------------------------------------------------------------------ queries to Kafka

    async def _ask(self, partitions: list[Partition]) -> None:
        for partition in partitions:
            answer = await asyncio.to_thread(self._end_of, partition)
            if isinstance(answer, int):
                self._ends[partition] = answer
            self._asked.pop(partition, None)
            self._asked[partition] = self._why_unread(partition, answer)

    def _end_of(self, partition: Partition) -> int | KafkaTroubleError:
        try:
            return self._readable_end(partition, self._ask_secs)
        except KafkaTroubleError as error:
            return error

    def _why_unread(self, partition: Partition, end: int | KafkaTroubleError) -> Wait:
        """Return why nothing was fetched, given the leader's answer."""
        if isinstance(end, KafkaTroubleError):
            there_after_a_restart = end.unreachable or end.topic_gone or end.unauthorized
            return Wait("kafka", there_after_a_restart, f"{end.code}: {end}")
        position = self._reader.positions.get(partition)
        if position is None or position.offset is None or not position.lag or end > position.offset:
            return Wait("fetch", False, "there are records that were not fetched")
        return Wait("upstream_transaction_open", True, "a producer of the topic has neither committed nor aborted")

    # ------------------------------------------------------------------ logging

    def _log_standstills(self, at: float) -> None:
        """Log one line when something begins to stand still for a reason, and one when nothing does any more."""
        groups: dict[str, list[Standstill]] = {}
        for standstill in self.standstills:
            if standstill.wait.waits_for != "hold":  # holds are logged elsewhere
                groups.setdefault(standstill.wait.waits_for, []).append(standstill)
        for waits_for in [reason for reason in self._logged if reason not in groups]:
            lasted = round(at - self._logged.pop(waits_for), 1)
            self._log.info("standstill ended", waits_for=waits_for, lasted_secs=lasted)
        for waits_for, found in groups.items():
            if waits_for in self._logged:
                continue
            self._logged[waits_for] = min(standstill.since for standstill in found)
            known = all(standstill.wait.known for standstill in found)
            log = self._log.warning if known else self._log.error
            log(
                "stream stands still",
                waits_for=waits_for,
                detail=found[0].wait.detail,
                partitions=[status_of(standstill) for standstill in found[:_NAMED]],
                count=len(found),
                healthy=known,
            )

    def _log_full(self, full: Mapping[Partition, int], at: float) -> None:
        """Log one line when a partition has been full for a while, and one when it no longer is."""
        for partition, in_doubt in full.items():
            first, last = self._full.get(partition, (at, at))
            self._full[partition] = first, at
            if last - first < FULL_SECS <= at - first:
                self._log.warning(
                    "partition full",
                    partition=str(partition),
                    in_doubt=in_doubt,
                    detail="too many scattered records above its committed offset are unanswered or wait to be posted "
                    "again, so there is no room to list more; new ones start as these are settled",
                )
        for partition, (first, last) in list(self._full.items()):
            if at - last >= FULL_SECS:
                del self._full[partition]
                if last - first >= FULL_SECS:
                    self._log.info("partition not full", partition=str(partition), lasted_secs=round(last - first, 1))

    def status(self) -> list[dict[str, Any]]:
        """Return what stands still as JSON-ready values."""
        return [status_of(standstill) for standstill in self.standstills]


_LEADERS_SAY: Final = frozenset({"kafka", "upstream_transaction_open"})


def status_of(standstill: Standstill) -> dict[str, Any]:
    """Return a standstill as JSON-ready values."""
    wait = standstill.wait
    return {
        "partition": None if standstill.partition is None else str(standstill.partition),
        "offset": standstill.offset,
        "lag": standstill.lag,
        "since": round(time.time() - (now() - standstill.since), 3),
        "waits_for": wait.waits_for,
        "known": wait.known,
        "detail": wait.detail,
    }
