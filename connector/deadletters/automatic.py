"""Sends dead letters again automatically, by a rule of a stream: reasons, a delay, a rate, a maximum of redrives.

Each rule is a consumer group of its own, so that none waits for another's delay. Records and offsets are committed in
one transaction; if it fails, the rule restarts from its commits. One thread polls, looks, writes and commits, so that
no rebalance can happen in between. `waiting` decides what is sent again and when, `looking` that nobody did so before.
"""

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, Final, get_args

from connector.clock import now_ms
from connector.config.kafka import KafkaSettings
from connector.config.streams import RedriveSettings, StreamSettings
from connector.core.chunks import Partition
from connector.deadletters.earlier import Earlier
from connector.deadletters.headers import redriven_fits, redriven_headers
from connector.deadletters.letters import Letter
from connector.deadletters.looking import Looking
from connector.deadletters.redriving import commit
from connector.deadletters.waiting import Part, Passed, Waiting
from connector.kafka import configs
from connector.kafka.errors import AbortableError, FatalError, KafkaTroubleError
from connector.kafka.publisher import Offsets, Publisher, TransactionalPublisher
from connector.kafka.reachability import REACH_SECS
from connector.kafka.source import Source
from connector.kafka.targets import Targets
from connector.kafka.topics import TopicFacts, Topics
from connector.telemetry.logging import get_logger

SAY_SECS: Final = 2.0
"""How often offsets are committed while nothing is sent, for dead letters that the rule does not select."""

REST_SECS: Final = 2.0
"""Pause after an error."""

MAX_ABORTS: Final = 3
"""Consecutive aborted transactions, after which the rule restarts, with the present limits of its topic."""

IDLE_SECS: Final = 10.0
"""A rule that has read nothing for so long has probably read everything."""


class AutomaticRedrive:
    """One rule of one stream, on this worker. `held` returns whether the stream holds: nothing is sent again then."""

    def __init__(
        self,
        stream: StreamSettings,
        rule: RedriveSettings,
        *,
        kafka: KafkaSettings,
        instance_id: str,
        client_id: str,
        held: Callable[[], bool],
    ) -> None:
        self._stream = stream
        self._rule = rule
        self._kafka = kafka
        self._held = held
        self._client_id = f"{client_id}.{stream.name}.redrive.{rule.name}"
        self._instance_id = instance_id
        self._group = stream.redrive_group(rule.name)
        self._started_ms = now_ms()
        self._new: list[Partition] = []
        topics = Topics(configs.asking(kafka, self._client_id), kafka.request_timeout_secs)
        self._targets = Targets(topics, [stream.redrive_topic])
        self._earlier = Earlier(kafka, stream.redrive_topic, client_id=self._client_id, group=self._group)
        self._waiting = Waiting(
            stream.name, rule, fits=self._fits, was_redriven=self._earlier.tells, now=time.monotonic()
        )
        self._parts = self._waiting.parts
        self._looking = Looking(self._earlier, self._parts)
        self._taken_at = time.monotonic()
        self._aborts = 0
        self._said_at = time.monotonic()
        self._stop = threading.Event()
        self._error: str | None = None
        self._shown: tuple[int, float | None] = (0, None)
        """How many wait, and when the next is due; replaced as a whole, for other threads."""
        self.redriven = 0
        """Records that this process has sent again."""
        self.passed_over: Counter[Passed] = Counter()
        """Records that the rule selects and this process does not send again, by cause."""
        self._log = get_logger("redrive").bind(stream=stream.name, rule=rule.name)
        self._thread = threading.Thread(target=self._run, name=f"{stream.name}-redrive-{rule.name}", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self, timeout_secs: float) -> None:
        """End after the running transaction; a rule that was not started yet will not run."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join(timeout_secs)

    def status(self) -> dict[str, Any]:
        """Return the state of the rule as JSON-ready values."""
        waiting, next_at = self._shown
        return {
            "rule": self._rule.name,
            "reasons": sorted(set(self._rule.reasons)),
            "redriven": self.redriven,
            "passed_over": {why: self.passed_over[why] for why in get_args(Passed)},
            "waiting": waiting,
            "next_at": next_at,
            "held": self._held(),
            "error": self._error,
        }

    # ------------------------------------------------------------------ rebalances, inside `Source.read`

    def assigned(self, partitions: list[Partition]) -> None:
        """Note partitions; at the next turn they start where they are committed."""
        self._new += partitions

    def revoking(self, partitions: list[Partition]) -> None:
        """Release partitions: no transaction is open while this thread polls."""
        for partition in partitions:
            self._parts.pop(partition, None)
        self._new = [partition for partition in self._new if partition not in partitions]

    def lost(self, partitions: list[Partition]) -> None:
        """Release partitions that another worker has already."""
        self.revoking(partitions)

    # ------------------------------------------------------------------ the thread

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._follow()
            except Exception as error:  # noqa: BLE001 (logged, and retried: the rule must not end silently)
                self._error = f"{type(error).__name__}: {error}"
                # A client that ended by itself, as a producer that was forgotten, is replaced: there is nothing to do.
                is_replaced = isinstance(error, FatalError) and not (error.fenced or error.unauthorized)
                level = logging.WARNING if is_replaced else logging.ERROR
                self._log.log(level, "redrive interrupted, begins again", error=self._error)
                self._stop.wait(REST_SECS)

    def _follow(self) -> None:
        """Read and send again until stopped, or until an error that needs new clients."""
        self._parts.clear()
        self._new.clear()
        self._taken_at = time.monotonic()
        config = configs.consumer(
            self._kafka, self._stream, client_id=self._client_id, instance_id=self._instance_id, group=self._group
        )
        self._targets.refresh()
        if self._targets.gone:
            raise KafkaTroubleError(f"topic {self._stream.redrive_topic} does not exist", "sending again")
        source = Source(config, self, lambda p: 0 if p in self._parts else None, keep_timestamps=True)
        publisher = TransactionalPublisher(
            configs.producer(
                self._kafka,
                client_id=self._client_id,
                transactional_id=f"{self._group}.{self._instance_id}",
                batch_bytes=self._facts.batch_bytes,
            ),
            self._stream.redrive_topic,
        )
        try:
            publisher.start(self._kafka.request_timeout_secs)
            source.subscribe([self._stream.dead_letters.topic])
            while not self._stop.is_set():
                self._turn(source, publisher)
        finally:
            self._earlier.close()
            publisher.close()
            source.close()

    @property
    def _facts(self) -> TopicFacts:
        return self._targets.of(self._stream.redrive_topic)

    def _turn(self, source: Source, publisher: Publisher) -> None:
        self._begin_new(source)
        read = source.read(1_000, 0.1)
        if source.is_silent and source.is_cut_off(REACH_SECS):
            raise KafkaTroubleError("this consumer has lost its brokers", "reading dead letters")
        for chunk in read.chunks:
            self._taken_at = time.monotonic()
            self._waiting.take(chunk, now_ms=time.time() * 1_000)
        for _, trouble in read.troubles:
            if not trouble.unreachable:
                raise trouble
        missing = [partition for partition in read.missing if partition in self._parts]
        if missing:  # removed by retention: it cannot be sent again
            self.revoking(missing)
            self._new += missing
            self._log.warning("dead letters removed before they were sent again", count=len(missing))
        self._looking.look(lambda partition: source.bounds(partition, self._kafka.request_timeout_secs)[1])
        self._looking.forget(idle=time.monotonic() - self._taken_at > IDLE_SECS)
        self._pause(source)
        due = [] if self._held() else self._waiting.due(now=time.monotonic(), now_ms=time.time() * 1_000)
        offsets = self._waiting.offsets(due)
        self._shown = self._waiting.shown()
        is_unsaid = any(part.said is None for part in self._parts.values())
        if due or (offsets and (is_unsaid or time.monotonic() - self._said_at > SAY_SECS)):
            self._send(source, publisher, due, offsets)

    def _begin_new(self, source: Source) -> None:
        if self._new:
            fresh, self._new = list(dict.fromkeys(self._new)), []
            timeout = self._kafka.request_timeout_secs
            for partition, there in source.committed(fresh, timeout).items():
                low, high = source.bounds(partition, timeout)
                if there.offset is None:
                    # Nobody asked for old dead letters to be sent again.
                    start = source.offset_at(partition, self._started_ms, timeout)
                else:
                    start = min(max(there.offset, low), high)
                    if there.offset > high:  # the topic was recreated: its records may have been sent again
                        self._log.warning(
                            "committed behind the end of the dead letters, begins at their end",
                            partition=str(partition),
                            committed=there.offset,
                            end=high,
                        )
                self._parts[partition] = Part(start, there.offset)
        for partition, part in self._parts.items():
            if not part.begun:
                part.begun = source.begin(partition, part.next_read)

    def _fits(self, letter: Letter) -> bool:
        """Return whether the redrive topic accepts a dead letter; queried again first, as limits may be raised."""
        if redriven_fits(letter, letter.value, self._facts.max_message_bytes):
            return True
        self._targets.refresh_if_due(now=time.monotonic())
        return redriven_fits(letter, letter.value, self._facts.max_message_bytes)

    def _pause(self, source: Source) -> None:
        for partition, part in self._parts.items():
            if part.begun and part.is_full != part.paused:
                part.paused = part.is_full
                (source.pause if part.paused else source.resume)([partition])

    def _send(self, source: Source, publisher: Publisher, due: list[Letter], offsets: Offsets) -> None:
        """Write and commit; raises `KafkaTroubleError` if the rule must restart from its commits."""
        group, timeout = source.membership(), self._kafka.request_timeout_secs
        partitions = self._facts.partitions
        try:
            publisher.begin()
            for letter in due:
                publisher.write(
                    self._stream.redrive_topic,
                    letter.origin[0].number % partitions,
                    key=letter.key,
                    value=letter.value,
                    headers=redriven_headers(letter),
                )
            commit(publisher, offsets, group, timeout, self._stop)
        except AbortableError as error:
            self._error = f"{type(error).__name__}: {error}"
            self._log.warning("redrive aborted, tried again", code=error.code, error=str(error))
            publisher.abort(timeout)
            self._new += list(self._parts)  # read again from their commits
            self._parts.clear()
            self._aborts += 1
            if self._aborts >= MAX_ABORTS:
                self._aborts = 0
                raise
            self._stop.wait(0.2)
            return
        self._aborts = 0
        passed = self._waiting.committed(due, offsets)
        self._said_at = time.monotonic()
        self.redriven += len(due)
        self._error = None
        self.passed_over = self.passed_over + passed  # a new object: other threads read it
        if due:
            self._log.info("dead letters sent again", count=len(due))
        if passed["redriven"]:
            self._log.info("dead letters passed over that were sent again already", count=passed["redriven"])
        if passed["too_large"]:
            self._log.warning(
                "dead letters passed over that are larger than the redrive topic takes",
                count=passed["too_large"],
                limit=self._facts.max_message_bytes,
            )
