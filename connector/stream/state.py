"""What the three drivers of a stream share, and the one lock that guards it.

The reader's thread, the ticker's thread and the event loop meet here and nowhere else. The lock is held for decisions
of the core, never while anything is waited for; `changed` is notified when there may be something to tick.
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
    """Unix time of the last commit that settled records; that of the start before the first."""

    @property
    def settled(self) -> int:
        """Records with a result on its topic."""
        return self.queued + self.skipped + sum(self.dead_letters.values())


@dataclass(frozen=True, slots=True)
class KafkaTrouble:
    """Kafka could not be reached when it was last asked; with nothing newer this counts until `until`."""

    text: str
    until: float


@dataclass(slots=True, eq=False)
class State:
    """Everything that is decided about under the lock."""

    flow: Flow
    batcher: Batcher
    gate: Gate
    limit: ConcurrencyLimit
    storm: StormGuard
    lock: threading.RLock = field(default_factory=threading.RLock)
    counts: Counts = field(default_factory=Counts)
    partition_holds: dict[Partition, Hold] = field(default_factory=dict)
    quarantine: list[Finished] = field(default_factory=list)
    """Dead letters that the storm guard keeps from being written; off the list, so a restart reads them again."""
    storms: dict[str, Hold] = field(default_factory=dict)
    """The storm guard's holds, by the reason of the dead letters that are kept back."""
    kafka_hold: Hold | None = None
    """Kafka refuses us (authorization, a deleted topic): nothing starts until a tick commits again."""
    shaping_hold: Hold | None = None
    """Events can't be made of records now (the schema registry is away): what is read waits, and nothing more is read;
    what was made of records before is posted."""
    unshaped_bytes: int = 0
    """Bytes of the records that wait for it."""
    kafka_trouble: KafkaTrouble | None = None
    """Why ticks or progress wait for brokers, where they do."""
    paused: Hold | None = None
    """The operator wants nothing more to start; what is in flight finishes."""
    failures: Failures = field(default_factory=Failures)
    paused_until: float = 0.0
    """The platform asked for a pause."""
    draining: bool = False
    writing: bool = False
    """The ticker hands results to librdkafka."""
    _last_ready: int = -1
    """The newest of the batches that were ready when a list that waits for its pace went on last."""
    admission: Admission = field(init=False)
    """The way into the batcher; with nothing in between unless the wiring says so."""
    changed: threading.Condition = field(init=False)
    on_hold: Callable[[Hold], None] = field(default=lambda _hold: None)

    def __post_init__(self) -> None:
        self.changed = threading.Condition(self.lock)
        self.admission = Admission(self.batcher)

    def slots(self, at: float) -> int:
        """Return how many batches may start now."""
        if self._stands(at):
            return 0
        active = len(self.flow.active)
        allowed = self.gate.allowed(active)
        return max(self.limit.limit - active, 0) if allowed is None else allowed

    def is_crowded(self, at: float) -> bool:
        """Tell whether more is ready than may start: the platform sets the pace, or something holds the stream."""
        flow = self.flow
        records = flow.active_records + sum([batch.count for batch in flow.ready])
        return len(flow.ready) > self.slots(at) or records > flow.limits.max_in_flight_records

    @property
    def may_read(self) -> bool:
        """Tell whether consumption goes on: nothing holds the stream."""
        held = self.kafka_hold is not None or self.shaping_hold is not None or self.paused is not None
        return self.gate.state != "open" and not held and not self.draining

    @property
    def may_rest(self) -> bool:
        """Tell whether reading had better wait: results are being written, and enough is ready to be started with them.

        Both want the interpreter for themselves. Once results are written, the ticker only waits for the broker.
        """
        return self.writing and 2 * len(self.flow.ready) >= self.limit.limit

    @property
    def held_bytes(self) -> int:
        """Bytes of records in memory, from being read to being settled."""
        waiting = self.admission.held_bytes + self.unshaped_bytes
        return self.flow.held_bytes + waiting + sum(item.bytes for item in self.quarantine)

    def may_start_more(self, at: float) -> bool:
        """Tell whether more batches than are ready might start now, or lists with a pace have waited for their turn.

        What is ready in a partition without room does not count: the record that would make room there may be one that
        waits to be let in. And where more is ready than ever may start, as of lists without a pace, the others go on
        once all has started that was ready when they went on last: a lot of each at a time, lest what a slow platform
        keeps waiting is a flood when it is quick again.
        """
        if self.slots(at) > self.flow.queue.startable:
            return True
        first = self.flow.queue.first_startable
        is_open = self.gate.state == "closed" and not self._stands(at)
        return is_open and first is not None and first.family > self._last_ready

    def _stands(self, at: float) -> bool:
        held = self.kafka_hold is not None or self.paused is not None
        return self.draining or held or at < self.paused_until

    def queue(self, batches: list[Batch]) -> None:
        """Queue batches that were closed."""
        for batch in batches:
            self.counts.batches_closed[batch.closed_by] += 1
        self.flow.add_ready(batches)
        self.changed.notify_all()

    def close_due(self, at: float) -> None:
        """Queue what has waited long enough, and no more of it than could be started at once.

        Where records go to very many lists, each has a batch of its own, and windows pass faster than requests are
        answered: measured with 1,000 lists, batches that go on filling meanwhile make it 1.7 times as fast. What is
        ready may be kept from starting by its partition; the batches of others still close one by one.
        """
        lots = self.admission.lots
        due = self.admission.due(now=at, may_start=self.may_start_more(at), at_most=self._room(at))
        if due:
            self.queue(due)
        if self.admission.lots > lots and self.flow.ready:
            self._last_ready = self.flow.ready[-1].family

    def let_in(self, settled: Iterable[Finished], at: float) -> None:
        """Queue what was in the way of nothing but these, as `close_due` does."""
        self.queue(self.admission.settled(settled, now=at, at_most=self._room(at)))

    def _room(self, at: float) -> int:
        return max(self.limit.limit - len(self.flow.ready), min(self.slots(at), 1))

    def settle(self, item: Finished) -> None:
        """Queue the results of records that belong to no active batch; the storm guard is asked first."""
        queued = self.flow.settle(item)
        if queued is not None:
            self._guard(queued, queued.count)

    def checked(self, count: int, settled: Finished | None) -> None:
        """Queue the results that the checks of `count` records brought, if any; the storm guard is asked first."""
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
        """Queue the results of an active batch; the storm guard is asked first."""
        item = self.flow.finish(serial, chunks, verdicts, attempts=attempts, sent_ms=sent_ms, answered_ms=answered_ms)
        if item is not None:
            self._guard(item, item.count)

    def _guard(self, item: Finished, of: int, *, checked: bool = False) -> None:
        """Ask the storm guard about an item that was just queued, and take its dead letters out when one storms.

        `of` are the records among which its dead letters are.
        """
        reasons = item.reasons()
        self.failures.note(item, reasons)
        storming = self.storm.observe(of, reasons, now=now(), checked=checked)
        if storming is not None and storming not in self.storms:
            failed, total = self.storm.counted(storming, checked=checked)
            detail = f"too large a share of records end as {storming}: {failed:,} of {total:,} lately"
            hold = Hold(f"storm:{storming}", time.time(), detail, "operator")
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
        """Start nothing more until the operator resumes; return the hold that says so."""
        if self.paused is None:
            self.paused = Hold("paused", time.time(), detail, "operator")
            self.on_hold(self.paused)
        return self.paused

    def resume(self) -> None:
        """Go on by the operator's word: write what the storm guard kept back, and ask the platform again at once.

        What ends by a probe does not end by this: whether the platform works again is for the probe to find.
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
        """Keep one partition paused until the operator acts; then it is read again, so that nothing is kept of it.

        All partitions share the room for what waits, and would stand still with this one.
        """
        if partition not in self.partition_holds:
            hold = Hold(reason, time.time(), f"{partition}: {detail}", "operator")
            self.partition_holds[partition] = hold
            self.on_hold(hold)
        self.flow.hold(partition)
        self.admission.keep(self.flow.may_start)

    def troubled(self, error: KafkaTroubleError, *, for_secs: float, why: str = "") -> None:
        """Take note that Kafka could not be reached, and why if that is known; it is tried again within `for_secs`."""
        if error.away:
            text = f"{error.code}: {error}"
            self.kafka_trouble = KafkaTrouble(f"{why} ({text})" if why else text, now() + for_secs)

    def holds(self) -> list[Hold]:
        """Return every hold of the stream as a whole, and none of a partition."""
        gate = self.gate.hold if not self.storms else None  # a storm stops the gate, and is told once
        found = [h for h in (self.paused, self.kafka_hold, gate, self.shaping_hold) if h is not None]
        return [*found, *self.storms.values()]
