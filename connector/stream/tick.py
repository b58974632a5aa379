"""The tick: one Kafka transaction after another, in a thread of its own.

The promise depends on the order of steps. The results are written. Then, under the lock: first the group metadata, then
which partitions are still assigned and what may start. Outside it: the offsets with progress, and the commit. Only when
the result of the commit is known, under the lock again: the new state is adopted, and the listed batches may be posted.
What starts is chosen late because answers that arrive while results are written free slots: what is in flight is
limited, and listed batches count before they are posted. When this limit is the bottleneck, the choice is made after
the results have been delivered.

Every failure ends in one of three ways: the tick is known to have committed, it is known not to have, or the producer
is replaced and the committed progress is read back to find out.
"""

import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace

from connector.clock import awake, now, now_ms
from connector.core.batching import Batch
from connector.core.breaker import Hold
from connector.core.chunks import Partition
from connector.core.flow import Tick
from connector.core.records import ResultEncoder, without_value
from connector.core.results import Finished
from connector.kafka.commits import Membership
from connector.kafka.errors import AbortableError, FatalError, KafkaTroubleError, RetriableError
from connector.kafka.publisher import Publisher
from connector.kafka.source import Source
from connector.kafka.targets import Outputs
from connector.stream.state import State
from connector.telemetry.logging import get_logger

REFUSED_IN_A_ROW = 5
"""Ticks that topics reject for their size before this is a hold: batches are halved meanwhile, and most soon fit."""

LEAST_METADATA = 250
"""Characters for a partition's progress that are tried, at least, before brokers that take less hold the stream."""

FLUSH_SECS = 1.0
"""How long to wait for the delivery of results before choosing what starts: a later choice gains nothing more."""


@dataclass(frozen=True, slots=True)
class TickOptions:
    """Times in seconds."""

    interval_secs: float
    call_secs: float
    """How long one call to Kafka may take before it is repeated or given up."""
    fence_secs: float
    """If a producer is fenced twice within this time, another worker has its id; see `_contested_until` for the
    exception."""


class Ticker:
    """Runs the ticks of one stream.

    `post` is called with the batches that a committed tick lists and the time of listing, `settled` with what a tick
    wrote and when, `fail` with the exception that ends the stream.
    """

    def __init__(
        self,
        state: State,
        source: Source,
        make_publisher: Callable[[], Publisher],
        *,
        outputs: Outputs,
        encoder: ResultEncoder,
        options: TickOptions,
        post: Callable[[list[tuple[int, Batch]], float], None],
        settled: Callable[[list[Finished], int], None],
        fail: Callable[[BaseException], None],
    ) -> None:
        self._state = state
        self._source = source
        self._make_publisher = make_publisher
        self._batch_bytes = 0
        """The producer's limit; topics may accept less by now."""
        self._publisher: Publisher | None = None
        self._outputs = outputs
        self._encoder = encoder
        self._options = options
        self._post = post
        self._settled = settled
        self._fail = fail
        self._full_records = state.flow.limits.max_tick_records
        self._running: Tick | None = None
        self._listed_at = 0.0
        self._abandon = False
        self._stopped = False
        self._fenced_at = float("-inf")
        self._contested_until = float("-inf")
        """Until then our producer may be fenced by an earlier one of ours that was given up while it asked for the
        id."""
        self._trouble_in_a_row = 0
        self._log = get_logger("tick").bind(stream=encoder.stream)
        self._thread = threading.Thread(target=self._run, name=f"{encoder.stream}-ticker", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self, timeout_secs: float) -> None:
        """End after the running tick."""
        with self._state.changed:
            self._stopped = True
            self._state.changed.notify_all()
        self._thread.join(timeout_secs)

    @property
    def thread(self) -> int | None:
        """The native id of its thread, None if that is not running."""
        return self._thread.native_id if self._thread.is_alive() else None

    def names(self, partitions: set[Partition]) -> bool:
        """Return whether the running tick names one of these partitions; called under the lock."""
        return self._running is not None and not partitions.isdisjoint(self._running.offsets)

    def listing(self, partitions: Collection[Partition]) -> int:
        """Return how many records of these partitions the running tick lists as in flight; called under the lock."""
        listed = {} if self._running is None else self._running.progress
        return sum(progress.in_flight.count for partition, progress in listed.items() if partition in partitions)

    def abandon(self) -> None:
        """Replace the running tick's producer instead of waiting for it any longer."""
        self._abandon = True

    # ------------------------------------------------------------------ the ticker's thread

    def _run(self) -> None:
        try:
            self._replace_publisher()
            last = float("-inf")
            while self._wait(last):
                last = now()
                self._tick()
        except BaseException as error:  # noqa: BLE001 (whatever it is, it ends this stream, visibly)
            self._fail(error)
        finally:
            if self._publisher is not None:
                self._publisher.close()

    def _wait(self, last: float) -> bool:
        """Wait until there is something to commit, at least the tick interval; return False when stopped."""
        state = self._state
        with state.changed:
            while not self._stopped:
                at = now()
                if state.flow.wants_tick(now=at, slots=state.slots(at)):
                    break
                state.kafka_hold = None  # with nothing to write, Kafka rejects nothing
                due = [t for t in (state.flow.queue.next_at(now=at), state.paused_until) if t is not None and t > at]
                state.changed.wait(min(min(due, default=at + 1) - at, 1.0))
        pause = last + self._options.interval_secs - now()
        if self._trouble_in_a_row:
            pause = max(pause, min(0.05 * 2**self._trouble_in_a_row, 2.0))
        if pause > 0 and not self._stopped:
            time.sleep(pause)
        return not self._stopped

    def _tick(self) -> None:
        state = self._state
        self._fit_batches()
        with state.lock:
            at = now()
            tick = state.flow.plan(now=at, slots=0) if state.flow.finished else None
            if tick is None:  # there are no results to write, so what may start can be chosen now
                tick = state.flow.plan(now=at, slots=state.slots(at), trial=state.gate.state == "half_open")
            if tick is None:
                return
            self._running, self._abandon = tick, False
        done = self._commit(tick)
        with state.changed:
            # Cleared together with the adoption: a revoke that waits for the tick must find its results settled.
            tick, self._running = self._running, None
            if done:
                posted = state.flow.committed(tick)
                state.admit_released(tick.settle, now())
                self._count(tick)
            else:
                state.counts.ticks_aborted += 1
                state.flow.aborted(tick)
                posted = []
            state.changed.notify_all()
        if posted:
            self._post(posted, self._listed_at)
        if done and tick.settle:
            self._settled(tick.settle, now_ms())

    def _fit_batches(self) -> None:
        """Replace the producer if topics accept larger batches than when it was created.

        If they accept less, a rejected batch shows it.
        """
        self._outputs.catch_up(now=now())
        larger = self._outputs.results_bytes
        if larger > self._batch_bytes:
            self._replace_publisher()
            self._log.info("producer replaced", why="the topics take larger batches", bytes=larger)

    def _commit(self, tick: Tick) -> bool:
        """Return whether the tick (the final version is in `_running`) has committed; certain when this returns."""
        publisher = self._publisher
        assert publisher is not None
        group: Membership | None = None
        try:
            publisher.begin()
            self._state.writing = True
            try:
                self._write(publisher, tick)
            finally:
                self._state.writing = False
            self._await_delivery(publisher)
            group, extended = self._snapshot(tick)
            if extended is None:
                self._log.info("tick taken back", why="it names partitions that are gone")
                return self._abort(publisher, tick)
            tick = extended
            publisher.commit(tick.offsets, group, self._options.call_secs)
        except RetriableError as error:
            if group is None:
                return self._abort_for(publisher, tick, error)
            return self._commit_again(publisher, tick, group, error)
        except AbortableError as error:
            return self._abort_for(publisher, tick, error)
        except FatalError as error:
            return self._recover(tick, error)
        self._note_success()
        return True

    def _await_delivery(self, publisher: Publisher) -> None:
        """Wait for the delivery of results if more is ready than may start.

        The commit waits for them anyway, and batches that it lists take slots from their choice on, but cannot be
        posted before the commit. If there are slots for all, this would only make ticks longer: measured, 0.92 times
        the speed.
        """
        with self._state.lock:
            saturated = self._state.is_saturated(now())
        if saturated:
            publisher.flush(FLUSH_SECS)

    def _snapshot(self, tick: Tick) -> tuple[Membership, Tick | None]:
        """Return the group's generation, and after that the tick with everything that may start by now.

        None instead of the tick if one of its partitions went away while its results were written.
        """
        state = self._state
        with state.changed:
            state.changed.notify_all()  # the reader may be waiting for `writing` to end
            group, at = self._source.membership(), now()
            state.close_due(at)
            self._listed_at = awake()
            half_open = state.gate.state == "half_open"
            extended = state.flow.extend(tick, now=at, slots=state.slots(at), trial=half_open)
            if extended is not None:
                self._running = extended
        return group, extended

    def _commit_again(self, publisher: Publisher, tick: Tick, group: Membership, error: KafkaTroubleError) -> bool:
        """Repeat a commit until its result is known: aborting could undo what has committed.

        If it stays unanswered, the next producer with our transactional id learns the result: it reads back the
        progress.
        """
        self._troubled(error)
        self._log.warning("commit not answered yet", code=error.code)
        self._halve()
        deadline = now() + self._options.call_secs / 2
        while (left := deadline - now()) > 0 and not self._abandon and not self._stopped:
            try:
                publisher.commit({}, group, left)
            except RetriableError as again:
                self._troubled(again)
            except AbortableError as abortable:
                return self._abort_for(publisher, tick, abortable)
            except FatalError as fatal:
                return self._recover(tick, fatal)
            else:
                self._note_success()
                return True
        return self._recover(tick, error)

    def _abort_for(self, publisher: Publisher, tick: Tick, error: KafkaTroubleError) -> bool:
        """Abort the tick, and deal with the cause."""
        self._trouble_in_a_row = min(self._trouble_in_a_row + 1, 8)
        self._troubled(error)
        self._log.warning("tick aborted", code=error.code, error=str(error), in_a_row=self._trouble_in_a_row)
        if error.unanswered:
            # A connection that ends at the wrong moment can make librdkafka lose its transaction coordinator for good
            # (seen with 2.15 when a broker was stopped): every later call, including the abort, waits in a queue that
            # is never processed. And while a broker is frozen, an abort waits for what was sent to it. The next
            # producer with our id ends the open transaction.
            self._handle_cause(tick, error)
            self._replace_publisher(error)
            return False
        done = self._abort(publisher, tick)
        self._handle_cause(tick, error)
        return done

    def _abort(self, publisher: Publisher, tick: Tick) -> bool:
        """Abort; return whether the tick has committed all the same, which is known once a new producer took over."""
        deadline = now() + self._options.fence_secs
        while True:
            try:
                publisher.abort(self._options.call_secs)
            except RetriableError as again:
                if now() > deadline or self._abandon or self._stopped:
                    return self._recover(tick, again)
            except KafkaTroubleError as fatal:
                return self._recover(tick, fatal)
            else:
                return False

    def _handle_cause(self, tick: Tick, error: KafkaTroubleError) -> None:
        if error.timed_out or error.code == "LOCAL":
            self._halve()
        if error.too_large:
            self._outputs.were_refused(self._batch_bytes, now=now())
            if self._outputs.results_bytes < self._batch_bytes:
                self._replace_publisher(error)
            if self._trouble_in_a_row >= REFUSED_IN_A_ROW:
                self._hold("results_refused", f"{error}; {self._outputs.limits_in_words}")
        if error.metadata_too_large:
            self._halve_metadata(error)
        if error.unfit:
            self._hold("results_refused", str(error))
        if error.unauthorized:
            self._hold("kafka_authorization", str(error))
        # Results for a deleted topic are not rejected; they wait until librdkafka times them out.
        if error.topic_gone or error.timed_out:
            sources = {partition.topic for partition in tick.offsets}
            absent = self._outputs.absent(sources)
            if gone := absent & sources:
                self._forget_deleted(gone)
            if missing := absent - sources:
                verb = "does" if len(missing) == 1 else "do"
                self._hold("topic_missing", f"{' and '.join(sorted(missing))} {verb} not exist ({error})")
            elif short := self._outputs.under_min_isr():
                self._troubled(error, short)
                self._log.warning("results not taken", why=short)

    def _forget_deleted(self, gone: set[str]) -> None:
        """Release partitions whose topic was deleted, so that they do not fail every tick."""
        with self._state.lock:
            partitions = [p for p in self._state.flow.partitions if p.topic in gone]
            self._state.flow.release(partitions)
            self._state.admission.keep(self._state.flow.is_alive)
        self._log.error("topic deleted", topics=sorted(gone), partitions=len(partitions))

    def _hold(self, reason: str, detail: str) -> None:
        with self._state.lock:
            if self._state.kafka_hold is None or self._state.kafka_hold.reason != reason:
                self._state.kafka_hold = Hold(reason, now(), detail, "probe")
                self._state.on_hold(self._state.kafka_hold)

    def _recover(self, tick: Tick, error: KafkaTroubleError) -> bool:
        """Replace the producer, and read back whether the tick has committed."""
        if error.fenced and now() >= self._contested_until:
            if now() - self._fenced_at < self._options.fence_secs:
                raise error
            self._fenced_at = now()
        self._replace_publisher(error)
        while not self._stopped:
            with self._state.lock:
                mine = [p for p in tick.offsets if p in self._state.flow.partitions]
            try:
                committed = self._source.committed(mine, self._options.call_secs)
            except KafkaTroubleError as trouble:
                self._troubled(trouble)
                self._log.warning("committed progress not read yet", code=trouble.code)
                time.sleep(0.2)
                continue
            return any(
                (there.offset, there.metadata) == tick.offsets[partition] for partition, there in committed.items()
            )
        return False

    def _replace_publisher(self, why: KafkaTroubleError | None = None) -> None:
        """Create a producer and take over our transactional id, retrying for as long as brokers are unavailable.

        `why` is the error for which the previous one is discarded, None for the first.
        """
        if self._publisher is not None:
            self._publisher.close()
            self._state.counts.producers_replaced += 1
        wait, was_unanswered = 0.1, False
        while not self._stopped:
            self._batch_bytes = self._outputs.results_bytes
            publisher = self._make_publisher()
            try:
                publisher.start(self._options.call_secs)
            except KafkaTroubleError as error:
                publisher.close()
                was_unanswered |= error.unanswered  # brokers may process its request after they come back
                short = self._outputs.under_min_isr()
                self._troubled(error, short)
                if error.unauthorized:
                    self._hold("kafka_authorization", str(error))
                told = f"{error}; {short}" if short else str(error)
                self._log.warning("producer not ready yet", code=error.code, error=told)
                time.sleep(wait)
                wait = min(wait * 2, 5.0)
            else:
                self._publisher = publisher
                if was_unanswered:
                    self._contested_until = now() + self._options.fence_secs
                if why is not None:
                    self._log.warning("producer replaced", code=why.code, error=str(why))
                return

    def _troubled(self, error: KafkaTroubleError, why: str = "") -> None:
        self._state.note_trouble(error, for_secs=2 * self._options.call_secs + 10.0, why=why)

    def _note_success(self) -> None:
        self._trouble_in_a_row = 0
        state = self._state
        state.kafka_trouble = None
        if state.kafka_hold is not None:
            with state.lock:
                state.kafka_hold = None
        most = state.flow.limits.max_tick_records
        if most < self._full_records:  # by an eighth: a tick is then too large once in several, not in every second one
            more = min(most + max(most // 8, 1), self._full_records)
            state.flow.limits = replace(state.flow.limits, max_tick_records=more)

    def _halve(self) -> None:
        """Halve the maximum size of ticks, down to the results of a single batch."""
        limits = self._state.flow.limits
        self._state.flow.limits = replace(limits, max_tick_records=max(limits.max_tick_records // 2, 1))

    def _halve_metadata(self, error: KafkaTroubleError) -> None:
        """List less in each commit, so that less can be in flight: the brokers take less than Kafka does by default."""
        limits = self._state.flow.limits
        if limits.max_metadata < 2 * LEAST_METADATA:
            self._hold("results_refused", f"{error}; set the brokers' offset.metadata.max.bytes to 4096")
            return
        self._state.flow.limits = replace(limits, max_metadata=limits.max_metadata // 2)
        self._log.warning("commits list less", why=str(error), max_characters=limits.max_metadata // 2)

    # ------------------------------------------------------------------ writing

    def _write(self, publisher: Publisher, tick: Tick) -> None:
        outputs, encoder = self._outputs, self._encoder
        at = now_ms()
        for item in tick.settle:
            for outcomes in encoder.outcomes(item):
                keys = outcomes.keys
                if outcomes.may_exceed(outputs.outcome_limit):
                    outputs.refresh_if_due(now=now())
                    keys = outcomes.keys_within(outputs.outcome_limit)
                publisher.write_batch(
                    outputs.outcome_topic,
                    outputs.outcome_partition(outcomes.source),
                    outcomes.values,
                    keys,
                    outcomes.headers,
                )
            for letter in encoder.dead_letters(item, now_ms=at):
                if letter.size > outputs.dead_letter_limit:
                    outputs.refresh_if_due(now=now())
                fits = letter.size <= outputs.dead_letter_limit
                kept = letter if fits else without_value(letter, outputs.dead_letter_limit)
                publisher.write(
                    outputs.dead_letter_topic,
                    outputs.dead_letter_partition(kept.source),
                    key=kept.key,
                    value=kept.value,
                    headers=kept.headers,
                )

    def _count(self, tick: Tick) -> None:
        counts = self._state.counts
        counts.ticks += 1
        if tick.settle:
            counts.progress_at = time.time()
        for item in tick.settle:
            reasons = item.reasons()
            dead = reasons.total()
            skipped = sum(verdict.status == "skipped" for verdict in item.verdicts.exceptions.values())
            counts.dead_letters.update(reasons)
            counts.skipped += skipped
            counts.queued += item.count - dead - skipped
