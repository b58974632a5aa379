"""One stream: a reader, a ticker and a sender that share one state; starts, stops and reports on them."""

import asyncio
import time
from collections.abc import Callable, Collection, Coroutine
from functools import partial
from typing import Any

from connector.clock import now, until_next
from connector.config.kafka import KafkaSettings
from connector.config.streams import StreamSettings
from connector.config.trackly import TracklySettings
from connector.core.breaker import Hold
from connector.core.orphans import OrphanWatch
from connector.core.records import ResultEncoder
from connector.kafka import configs
from connector.kafka.errors import KafkaTroubleError
from connector.kafka.groups import Group, trigger_rebalance
from connector.kafka.publisher import PlainPublisher, Publisher, TransactionalPublisher
from connector.kafka.source import Source
from connector.kafka.targets import Outputs
from connector.kafka.topics import Topics
from connector.shaping.formats import SchemaRegistry, decoder_for
from connector.shaping.shaper import shaper_of
from connector.stream.broker_queries import may_read
from connector.stream.holds import Decision, HoldMonitor, HoldSeen, Resumed, status_of
from connector.stream.last_outcomes import last_settled
from connector.stream.paces import PaceMonitor
from connector.stream.preparing import Preparer
from connector.stream.reader import Reader
from connector.stream.sender import Sender, SendOptions
from connector.stream.tick import Ticker, TickOptions
from connector.stream.watching import Watch
from connector.stream.wiring import (
    groups_of,
    read_options,
    retry_policy,
    state_of,
    topics_of,
    verdict_policy,
)
from connector.telemetry.logging import fit_to_show, get_logger
from connector.telemetry.metrics import BatchMetrics
from connector.telemetry.traces import Traces
from connector.trackly.client import Client
from connector.trackly.operations import operation_of

ORPHANS_CHECK_SECS = 5.0
"""How often a worker looks for partitions without an owner."""

CHECK_SECS = 1.0
"""How late the end of a hold may be logged."""


class Stream:
    """Runs one stream; `failed` holds the exception that ended it, if any.

    `instance_id` identifies the worker in its group, `client_id` the process. `api_key` is called for each request,
    `reread_secrets` before each probe. `resume_command` is the command that ends its holds; options for a single hold
    are appended. `stalled_secs` is how long records may wait for an unknown cause. `docs_url` is where the
    documentation is served. `traces` creates the spans of batches, `registry` is for formats with schemas; both are
    optional. `others` are the names of the other streams.
    """

    def __init__(
        self,
        settings: StreamSettings,
        *,
        kafka: KafkaSettings,
        trackly: TracklySettings,
        instance_id: str,
        client_id: str,
        buffer_bytes: int,
        api_key: Callable[[], str],
        reread_secrets: Callable[[], None],
        on_failure: Callable[["Stream", BaseException], None],
        resume_command: str = "",
        stalled_secs: float = 300.0,
        docs_url: str | None = None,
        traces: Traces | None = None,
        registry: SchemaRegistry | None = None,
        others: Collection[str] = (),
    ) -> None:
        self.settings = settings
        self.name = settings.name
        self.failed: BaseException | None = None
        self.state_name = "new"
        self.redrives: Callable[[], list[dict[str, Any]]] = list
        """Returns the state of the rules that redrive dead letters, which run beside the stream."""
        self._others = others
        self._kafka = kafka
        self._trackly = trackly
        self._instance_id = instance_id
        self._client_id = f"{client_id}.{self.name}"
        self._buffer_bytes = buffer_bytes
        self._api_key = api_key
        self._reread_secrets = reread_secrets
        self._on_failure = on_failure
        self._log = get_logger("stream").bind(stream=self.name)
        self.operation = operation_of(settings)
        self._shaper = shaper_of(settings, lambda variant: decoder_for(variant.format, registry))
        self.state = state_of(settings, self.operation, f"{instance_id}-{int(time.time()):x}")
        self._preparer = Preparer(
            self.state,
            self.operation,
            name=self.name,
            shape=None if self._shaper is None else self._shaper.shape,
            before_probe=reread_secrets,
            probe_secs=settings.hold.probe_secs,
            probe_max_secs=settings.hold.probe_max_secs,
        )
        self.metrics = BatchMetrics(self.name)
        self._resume_command = resume_command or f"trackly-connector resume {self.name}"
        self._docs_url = docs_url
        self._hold_monitor = HoldMonitor(self.name, self._resume_command, self.metrics.held, docs_url)
        self._traces = None if traces is None else traces.of_stream(self.name, settings.group, client_id)
        self._pace_monitor = PaceMonitor(self.name, self.state)
        self.state.on_hold = self._report_hold
        self._stalled_secs = stalled_secs
        self._monitoring: asyncio.Task[None] | None = None
        self._watch: Watch | None = None
        self._watching: list[asyncio.Task[None]] = []
        """Tasks that watch the stream and its groups until it stops."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._sender: Sender | None = None
        self._reader: Reader | None = None
        self._ticker: Ticker | None = None
        self._leaving: asyncio.Task[bool] | None = None
        self._stopping = False

    async def start(self) -> None:
        """Join the group and start work, unless it was stopped meanwhile; partitions are assigned later."""
        settings, kafka = self.settings, self._kafka
        self._loop = asyncio.get_running_loop()
        topics = Topics(configs.asking(kafka, self._client_id), kafka.request_timeout_secs)
        outputs = Outputs(
            topics,
            outcome_topic=settings.outcomes.topic,
            dead_letter_topic=settings.dead_letters.topic,
            outcomes_by_key=settings.outcomes.partition == "key",
            compressed=configs.compresses(kafka),
        )
        await asyncio.to_thread(outputs.refresh)
        if self._stopping:
            return
        reader = Reader(
            self.state,
            self._preparer,
            read_options(settings, kafka, self._buffer_bytes),
            name=self.name,
            fail=self._fail,
            ask_ids=topics.ask_ids,
            last_settled=partial(last_settled, kafka, settings, self._client_id, self._others),
            may_read=partial(may_read, kafka, settings, self._client_id),
        )
        source = Source(
            configs.consumer(kafka, settings, client_id=self._client_id, instance_id=self._instance_id),
            reader,
            reader.epoch_of,
            keep_timestamps=settings.delivery.max_age_secs is not None
            or (self._shaper is not None and self._shaper.needs_timestamps),
        )
        self._sender = Sender(
            self.state,
            Client(self._trackly, self._api_key),
            self.operation,
            policy=verdict_policy(settings, self.operation),
            retry=retry_policy(settings),
            options=SendOptions(kafka.post_within_secs, settings.in_doubt),
            name=self.name,
            before_probe=self._reread_secrets,
            observe=self.metrics.request,
            fail=self._fail,
            traces=self._traces,
        )
        self._ticker = Ticker(
            self.state,
            source,
            self._publisher_maker(source, outputs),
            outputs=outputs,
            encoder=ResultEncoder(
                self.name, settings.operation, settings.group, settings.outcomes.records == "failures"
            ),
            options=TickOptions(
                settings.delivery.tick_interval_ms / 1000, kafka.request_timeout_secs, kafka.session_timeout_secs
            ),
            post=self._sender.start,
            settled=self.metrics.settled,
            fail=self._fail,
        )
        self._reader = reader
        self._sender.run()
        self._monitoring = self._begin(self._check_holds())
        if kafka.group_protocol == "classic":
            self._watching += [
                self._begin(self._monitor_group(group, topics)) for group, topics in groups_of(settings).items()
            ]
        self._watch = Watch(
            self.name,
            self.state,
            reader,
            stalled_secs=self._stalled_secs,
            holds=lambda: [seen.hold for seen in self._holds_seen() if seen.partition is None],
            readable_end=lambda partition, secs: source.bounds(partition, secs)[1],
            ask_secs=min(kafka.request_timeout_secs, 5.0),
        )
        self._watching.append(self._begin(self._watch.run()))
        self._ticker.start()
        reader.start(source, self._ticker)
        self.state_name = "running"
        self._log.info(
            "stream started", topics=topics_of(settings), group=settings.group, operation=self.operation.name
        )

    def _begin(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run a task until it is cancelled; an exception in it fails the stream, or nobody would notice."""
        assert self._loop is not None
        task = self._loop.create_task(work)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._fail(error)

    def _publisher_maker(self, source: Source, outputs: Outputs) -> Callable[[], Publisher]:
        """Return a factory of producers, each with batches as large as the topics are known to accept at that time."""
        plain = self.settings.delivery.guarantee == "at_least_once"
        transactional_id = None if plain else f"{self.settings.group}.{self._instance_id}"

        def make() -> Publisher:
            config = configs.producer(
                self._kafka,
                client_id=self._client_id,
                transactional_id=transactional_id,
                batch_bytes=outputs.results_bytes,
            )
            return (
                PlainPublisher(config, source) if plain else TransactionalPublisher(config, outputs.dead_letter_topic)
            )

        return make

    async def stop(self, deadline: float) -> bool:
        """Drain until `deadline` (monotonic clock) and leave the group; return whether nothing was left in flight."""
        self._stopping = True
        if self._reader is None or self._ticker is None or self._sender is None:
            return True
        for task in self._watching:
            task.cancel()
        if self.state_name != "failed":
            self.state_name = "draining"
        self._reader.drain(deadline)
        await asyncio.to_thread(self._reader.wait_drained, max(deadline - now(), 0.0) + 5.0)
        with self.state.lock:
            # A record that is answered but has no result yet is in doubt as well for the next owner of its partition.
            flow = self.state.flow
            left = self._reader.left + flow.listed(flow.partitions)
        await asyncio.to_thread(self._ticker.stop, 5.0)
        await asyncio.to_thread(self._reader.close, 10.0)
        await self._sender.close()
        if self._monitoring is not None:
            self._monitoring.cancel()
        if self.state_name != "failed":
            self.state_name = "stopped"
        self._log.info("stream stopped", left_in_flight=left)
        return left == 0

    def resume(self, decision: Decision) -> Resumed:
        """End the holds that wait for the operator, and probe at once those that end by a probe.

        If a hold needs a decision that is not given, nothing changes. Partitions restart a moment later; one whose
        cause persists holds again.
        """
        with self.state.changed:
            wanted = [seen for seen in self._holds_seen() if decision.wants(seen)]
            held = {seen.partition for seen in wanted}
            not_held = tuple(sorted(decision.partitions - held))
            undecided = tuple(seen for seen in wanted if decision.needs(seen))
            if undecided or self._reader is None:
                return Resumed(undecided=undecided, not_held=not_held)
            if not decision.partitions:
                self.state.resume()
                self._preparer.try_at_once()
                self._reader.troubles.ask_at_once()
            self._reader.resume({seen.partition: decision for seen in wanted if seen.partition is not None})
            self._report_hold()
        ended = tuple(seen for seen in wanted if seen.hold.ends == "operator")
        return Resumed(ended, tuple(seen for seen in wanted if seen not in ended), not_held=not_held)

    def pause(self, detail: str) -> HoldSeen:
        """Start nothing more until the operator resumes; what is in flight finishes. Return the hold for it.

        If the stream is already paused, its present hold is returned.
        """
        with self.state.changed:
            self.state.changed.notify_all()
            return HoldSeen(self.state.pause(detail))

    def _fail(self, error: BaseException) -> None:
        """End this stream, visibly; others continue. May be called from any thread, more than once."""
        if self.failed is not None:
            return
        self.failed = error
        self.state_name = "failed"
        self._log.error("stream failed", error=f"{type(error).__name__}: {error}", exc_info=error)
        with self.state.changed:
            self.state.draining = True
            self.state.changed.notify_all()
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._leave)
            self._loop.call_soon_threadsafe(self._on_failure, self, error)

    def _leave(self) -> None:
        """Leave the partitions of a failed stream to other workers."""
        assert self._loop is not None
        self._leaving = self._loop.create_task(self.stop(now() + 1.0))

    def _report_hold(self, _hold: Hold | None = None) -> None:
        """Log holds that began or ended; called under the lock."""
        self._hold_monitor.check(self._holds_seen(), secrets=[self._api_key()])

    async def _check_holds(self) -> None:
        """Notice the end of holds, which has many causes."""
        while True:
            await until_next(CHECK_SECS)
            with self.state.lock:
                self._report_hold()
                self._pace_monitor.check()

    async def _monitor_group(self, name: str, topics: tuple[str, ...]) -> None:
        """Trigger a rebalance when partitions are left without an owner, which the group itself does not notice."""
        kafka, settings = self._kafka, self.settings
        group = Group(configs.asking(kafka, self._client_id), name, min(kafka.request_timeout_secs, 5.0))
        config = configs.consumer(kafka, settings, client_id=f"{self._client_id}.stir", instance_id="", group=name)
        watch = OrphanWatch(settle_secs=kafka.session_timeout_secs / 2)
        while True:
            await asyncio.sleep(ORPHANS_CHECK_SECS)
            try:
                orphans = await asyncio.to_thread(group.orphans, topics)
                if watch.seen(orphans, now=now()):
                    told = [str(partition) for partition in sorted(orphans)]
                    self._log.warning("partitions without a worker", group=name, partitions=told)
                    await asyncio.to_thread(trigger_rebalance, config, settings.outcomes.topic)
            except KafkaTroubleError:  # logged elsewhere
                continue

    @property
    def threads(self) -> set[int]:
        """Native ids of the threads that constantly need the interpreter lock while there is work."""
        own = (self._reader, self._ticker)
        return {who.thread for who in own if who is not None and who.thread is not None}

    # ------------------------------------------------------------------ for the pages

    @property
    def is_ready(self) -> bool:
        """Return whether the stream is in its group and works; holds do not matter."""
        return self.state_name == "running" and self._reader is not None and self._reader.in_group

    def standstills(self) -> list[dict[str, Any]]:
        """Return what stands still, and what it waits for, as JSON-ready values."""
        return [] if self._watch is None else self._watch.status()

    def is_held(self) -> bool:
        """Return whether anything holds the stream or one of its partitions, or it has ended; for any thread."""
        with self.state.lock:
            return self.state_name != "running" or bool(self._holds_seen())

    def holds(self) -> list[Hold]:
        """Return every hold, those of the whole stream first."""
        return [seen.hold for seen in self._holds_seen()]

    def _holds_seen(self) -> list[HoldSeen]:
        refused = None if self._reader is None else self._reader.troubles.refused
        of_stream = ([refused] if refused is not None else []) + self.state.holds()
        partitions = list(self.state.partition_holds.items())
        return [*map(HoldSeen, of_stream), *(HoldSeen(hold, partition) for partition, hold in partitions)]

    @property
    def lag(self) -> int | None:
        """Records between the committed offsets and the ends of the partitions, according to the last fetches."""
        return None if self._reader is None else self._reader.lag

    def _oldest_unsettled_secs(self) -> float:
        """Return the age of the oldest record without a result, 0 if there is none; called under the lock."""
        began = [found["since"] for found in self.standstills()]  # all that is known of unread records
        read_ms = self.state.flow.oldest_ms()
        if read_ms is not None:
            began.append(read_ms / 1000)
        return round(max(time.time() - min(began), 0.0), 3) if began else 0.0

    def status(self) -> dict[str, Any]:
        """Return the stream's state as JSON-ready values."""
        state = self.state
        with state.lock:
            counts, flow, at, full = state.counts, state.flow, now(), state.flow.metadata_room.full
            secrets = [self._api_key()]
            holds = [
                status_of(seen, base=self._resume_command, secrets=secrets, docs_url=self._docs_url)
                for seen in self._holds_seen()
            ]
            open_doubt = sum(s.doubt.count for s in flow.partitions.values())
            return {
                "name": self.name,
                "state": "on_hold" if holds and self.state_name == "running" else self.state_name,
                "operation": self.operation.name,
                "group": self.settings.group,
                "guarantee": self.settings.delivery.guarantee,
                "in_doubt_policy": self.settings.in_doubt,
                "records_read": counts.records_read,
                "queued": counts.queued,
                "skipped": counts.skipped,
                "dead_letters": dict(counts.dead_letters),
                "in_doubt": counts.dead_letters["in_doubt"] + open_doubt,
                "open_doubt": open_doubt,
                "resent": counts.resent,
                "missing": counts.missing,
                "vanished": counts.vanished,
                "passed_over": counts.passed_over,
                "in_flight_records": flow.active_records,
                "in_flight_requests": len(flow.active),
                "waiting_batches": flow.waiting,
                "ready_batches": len(flow.ready),
                "open_records": state.batcher.open_records,
                "ordering": self.settings.ordering,
                "waiting_for_key": 0
                if state.admission.key_queues is None
                else state.admission.key_queues.waiting_records,
                "pace": self._pace_monitor.status(),
                "held_bytes": state.held_bytes,
                "requests": counts.requests,
                "requests_by_row": dict(counts.requests_by_row),
                "batches_closed": dict(counts.batches_closed),
                "ticks": counts.ticks,
                "ticks_aborted": counts.ticks_aborted,
                "producers_replaced": counts.producers_replaced,
                "consumers_replaced": counts.consumers_replaced,
                "concurrency_limit": state.limit.limit,
                "concurrency_moved": state.limit.moved,
                "largest_batch": flow.size.limit,
                "paused_secs": round(max(state.paused_until - at, 0.0), 3),
                "gate": state.gate.state,
                "lag": self.lag,
                "oldest_unsettled_secs": self._oldest_unsettled_secs(),
                "progress_at": round(counts.progress_at, 3),
                "partitions": {
                    str(p): {
                        "committed": s.base,
                        "read": s.next_read,
                        "in_doubt": s.doubt.count,
                        "full": p in full,
                    }
                    for p, s in sorted(flow.partitions.items())
                },
                "hold": holds[0] if holds else None,
                "holds": holds,
                "standstills": self.standstills(),
                "redrives": self.redrives(),
                "failures": state.failures.status(lambda text: fit_to_show(text, secrets)),
                "error": None
                if self.failed is None
                else fit_to_show(f"{type(self.failed).__name__}: {self.failed}", secrets),
            }
