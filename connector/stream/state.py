"""What the three drivers of a stream share, and the one lock that guards it.

The reader's thread, the ticker's thread and the event loop share nothing else. The lock is held for decisions of the
core, never while waiting for anything; `changed` is notified when there may be something to tick.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from connector.clock import now
from connector.core.admission import Admission
from connector.core.batching import Batch, Batcher
from connector.core.breaker import Gate, Hold
from connector.core.chunks import Chunk, Partition
from connector.core.concurrency import ConcurrencyLimit
from connector.core.flow import Flow
from connector.core.results import Finished
from connector.core.storm import StormGuard
from connector.core.verdicts import Verdicts
from connector.kafka.errors import KafkaTroubleError
from connector.stream.failures import Failures


@dataclass(slots=True)
class Counts:
    """What a stream has done since it started; results are counted when their tick has committed."""

    records_read: int = 0
    queued: int = 0
    skipped: int = 0
    dead_letters: Counter[str] = field(default_factory=Counter)
    vanished: int = 0
    passed_over: int = 0
    missing: int = 0
    resent: int = 0
    requests: int = 0
    requests_by_row: Counter[str] = field(default_factory=Counter)
    batches_closed: Counter[str] = field(default_factory=Counter)
    ticks: int = 0
    ticks_aborted: int = 0
    producers_replaced: int = 0
    consumers_replaced: int = 0
    progress_at: float = field(default_factory=time.time)
    """Unix time of the last commit that settled records; before the first, of the start."""

    @property
    def settled(self) -> int:
        """Records whose results are written."""
        return self.queued + self.skipped + sum(self.dead_letters.values())


@dataclass(frozen=True, slots=True)
class KafkaTrouble:
    """Kafka could not be reached at the last call; without news this counts until `until`."""

    text: str
    until: float


@dataclass(slots=True, eq=False)
class State:
    """Everything that is decided under the lock."""

    flow: Flow
    admission: Admission
    gate: Gate
    limit: ConcurrencyLimit
    storm: StormGuard
    lock: threading.RLock = field(default_factory=threading.RLock)
    counts: Counts = field(default_factory=Counts)
    partition_holds: dict[Partition, Hold] = field(default_factory=dict)
    quarantine: list[Finished] = field(default_factory=list)
    """Dead letters that the storm guard holds back; they are off the in-flight list, so a restart reads them again."""
    storms: dict[str, Hold] = field(default_factory=dict)
    """The storm guard's holds, by the reason of the dead letters that are held back."""
    kafka_hold: Hold | None = None
    """Kafka rejects our results (authorization, a deleted topic): nothing starts until a tick commits again."""
    shaping_hold: Hold | None = None
    """Records cannot be shaped now (the schema registry is unavailable): those that were read wait, and no more are
    read; what was shaped before is posted."""
    unshaped_bytes: int = 0
    """Bytes of the records that wait to be shaped."""
    kafka_trouble: KafkaTrouble | None = None
    """Why ticks or progress wait for brokers, if they do."""
    paused: Hold | None = None
    """The operator paused the stream; what is in flight finishes."""
    failures: Failures = field(default_factory=Failures)
    paused_until: float = 0.0
    """Until then nothing starts, because the platform asked for a pause."""
    draining: bool = False
    writing: bool = False
    """The ticker is passing results to librdkafka."""
    _last_ready: int = -1
    """The newest batch that was ready when lists last proceeded after waiting for their pace."""
    changed: threading.Condition = field(init=False)
    on_hold: Callable[[Hold], None] = field(default=lambda _hold: None)

    def __post_init__(self) -> None:
        self.changed = threading.Condition(self.lock)

    @property
    def batcher(self) -> Batcher:
        """Where admitted records become batches."""
        return self.admission.batcher

    def slots(self, at: float) -> int:
        """Return how many batches may start now."""
        if self._is_stopped(at):
            return 0
        active = len(self.flow.active)
        allowed = self.gate.allowed(active)
        return max(self.limit.limit - active, 0) if allowed is None else allowed

    def is_saturated(self, at: float) -> bool:
        """Return whether more is ready than may start: the platform is the bottleneck, or the stream holds."""
        flow = self.flow
        records = flow.active_records + sum([batch.count for batch in flow.ready])
        return len(flow.ready) > self.slots(at) or records > flow.limits.max_in_flight_records

    @property
    def may_read(self) -> bool:
        """Return whether to continue reading: nothing holds the stream."""
        held = self.kafka_hold is not None or self.shaping_hold is not None or self.paused is not None
        return self.gate.state != "open" and not held and not self.draining

    @property
    def should_yield(self) -> bool:
        """Return whether reading should wait: results are being written, and enough batches are ready to start.

        Both need the interpreter lock. Once results are written, the ticker only waits for the broker.
        """
        return self.writing and 2 * len(self.flow.ready) >= self.limit.limit

    @property
    def held_bytes(self) -> int:
        """Bytes of records in memory, from being read to being settled."""
        waiting = self.admission.held_bytes + self.unshaped_bytes
        return self.flow.held_bytes + waiting + sum(item.bytes for item in self.quarantine)

    def may_start_more(self, at: float) -> bool:
        """Return whether more batches than are ready might start now, or waiting lists may proceed anyway.

        Ready batches of partitions without room do not count: the record that would make room may still wait to be
        admitted. And if more is always ready than may start, for instance from lists without a pace, waiting lists
        proceed once everything has started that was ready when they last did: one lot each at a time, so that a slow
        platform is not flooded when it gets fast again.
        """
        if self.slots(at) > self.flow.queue.startable:
            return True
        first = self.flow.queue.first_startable
        is_open = self.gate.state == "closed" and not self._is_stopped(at)
        return is_open and first is not None and first.family > self._last_ready

    def _is_stopped(self, at: float) -> bool:
        held = self.kafka_hold is not None or self.paused is not None
        return self.draining or held or at < self.paused_until

    def queue(self, batches: list[Batch]) -> None:
        """Queue batches that were closed."""
        for batch in batches:
            self.counts.batches_closed[batch.closed_by] += 1
        self.flow.add_ready(batches)
        self.changed.notify_all()

    def close_due(self, at: float) -> None:
        """Queue batches whose window has passed, but no more than could start at once.

        If records go to very many lists, each list has a batch of its own, and windows pass faster than requests are
        answered: measured with 1,000 lists, it is 1.7 times as fast to let batches fill up meanwhile. Ready batches may
        be unable to start because of their partitions; then at least one batch closes at a time.
        """
        lots = self.admission.lots
        due = self.admission.due(now=at, may_start=self.may_start_more(at), at_most=self._room(at))
        if due:
            self.queue(due)
        if self.admission.lots > lots and self.flow.ready:
            self._last_ready = self.flow.ready[-1].family

    def admit_released(self, settled: Iterable[Finished], at: float) -> None:
        """Admit the records that waited only for these items, and queue what that closes, as `close_due` does."""
        self.queue(self.admission.settled(settled, now=at, at_most=self._room(at)))

    def _room(self, at: float) -> int:
        more = self.slots(at) - self.flow.queue.startable  # what is ready and may start takes the slots first
        return max(self.limit.limit - len(self.flow.ready), min(more, 1), 0)

    def settle(self, item: Finished) -> None:
        """Queue the results of records that belong to no active batch; the storm guard may hold them back."""
        queued = self.flow.settle(item)
        if queued is not None:
            self._guard(queued, queued.count)

    def checked(self, count: int, settled: Finished | None) -> None:
        """Queue the results of checking `count` records, if any; the storm guard may hold them back."""
        queued = None if settled is None else self.flow.settle(settled)
        if queued is not None:
            self._guard(queued, count, checked=True)
        else:
            self.storm.observe(count, {}, now=now(), checked=True)

    def finish(
        self,
        serial: int,
        chunks: tuple[Chunk, ...],
        verdicts: Verdicts,
        *,
        attempts: int,
        sent_ms: int,
        answered_ms: int,
    ) -> None:
        """Queue the results of an active batch; the storm guard may hold them back."""
        item = self.flow.finish(serial, chunks, verdicts, attempts=attempts, sent_ms=sent_ms, answered_ms=answered_ms)
        if item is not None:
            self._guard(item, item.count)

    def _guard(self, item: Finished, of: int, *, checked: bool = False) -> None:
        """Pass an item that was just queued to the storm guard, and take out the dead letters that it holds back.

        `of` is the number of records that its dead letters are counted among.
        """
        reasons = item.reasons()
        self.failures.note(item, reasons)
        storming = self.storm.observe(of, reasons, now=now(), checked=checked)
        if storming is not None and storming not in self.storms:
            failed, total = self.storm.counted(storming, checked=checked)
            detail = f"too large a share of records end as {storming}: {failed:,} of {total:,} lately"
            hold = Hold(f"storm:{storming}", now(), detail, "operator")
            self.storms[storming] = hold
            self.gate.stop(hold.reason, now=hold.since, detail=hold.detail)
            self.on_hold(hold)
        for reason in self.storms:
            if reasons[reason]:
                apart, rest = self.flow.set_aside(item, reason)
                self.quarantine += [apart] if apart else []
                if rest is None:
                    return
                item = rest

    def pause(self, detail: str) -> Hold:
        """Start nothing more until the operator resumes; return the hold for it."""
        if self.paused is None:
            self.paused = Hold("paused", now(), detail, "operator")
            self.on_hold(self.paused)
        return self.paused

    def resume(self) -> None:
        """Resume on the operator's request: write what the storm guard held back, and probe the platform at once.

        This does not end holds that end by a probe: the probe decides whether the platform works.
        """
        self.paused = None
        self.storm.resume(self.storms, now=now())
        self.storms.clear()
        for item in self.quarantine:
            self.flow.settle(item)
        self.quarantine = []
        if self.gate.hold is not None and self.gate.hold.ends == "operator":
            self.gate.resume()
        self.gate.next_probe_at = 0.0
        self.changed.notify_all()

    def resend(self, chunks: Iterable[Chunk]) -> None:
        """Mark records in doubt as posted again, as the operator chose."""
        for chunk in chunks:
            chunk.resent = True
            self.counts.resent += len(chunk)

    def hold_partition(self, partition: Partition, reason: str, detail: str) -> None:
        """Hold one partition until the operator acts. It is read again then, so nothing of it is kept.

        Otherwise its waiting records would use up the room of all partitions, which would stand still with it.
        """
        if partition not in self.partition_holds:
            hold = Hold(reason, now(), f"{partition}: {detail}", "operator")
            self.partition_holds[partition] = hold
            self.on_hold(hold)
        self.flow.hold(partition)
        self.admission.keep(self.flow.may_start)

    def note_trouble(self, error: KafkaTroubleError, *, for_secs: float, why: str = "") -> None:
        """Note that Kafka could not be reached, and `why`, if known; it is tried again within `for_secs`."""
        if error.unreachable or error.rejected:
            text = f"{error.code}: {error}"
            self.kafka_trouble = KafkaTrouble(f"{why} ({text})" if why else text, now() + for_secs)

    def holds(self) -> list[Hold]:
        """Return the holds of the stream as a whole, not those of partitions."""
        gate = self.gate.hold if not self.storms else None  # a storm stops the gate as well, and is reported once
        found = [h for h in (self.paused, self.kafka_hold, gate, self.shaping_hold) if h is not None]
        return [*found, *self.storms.values()]
