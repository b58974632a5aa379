"""Sends dead letters again by itself, as a rule of a stream says: by reason, after a delay, at a rate, so many times.

Each rule is a consumer group of its own, so that none waits for another's delay. Within a partition dead letters stand
in the order of their time: the first that is not due yet is waited for, and what stands before it that the rule does
not mean was passed already. Records and offsets are one transaction; whatever goes wrong with it, the rule begins again
where it is committed. One thread polls, writes and commits, so that no rebalance can come in between.

Nobody is to be texted twice. Where a rule has come to says nothing of what other rules or the command sent again: a
reason may have been another rule's, or the rule be one that was put back. So before the first dead letter is sent again
of a partition that has begun, the redrive topic is looked at once, from the time of that dead letter on, and what was
sent again already is passed over. That tells what stands there by then. Not covered is what another sends again later
than that, as in an update where workers of the old rules and of the new ones run side by side, or in a transaction that
is open meanwhile; nor what the retention of the redrive topic has removed.
"""

import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, Literal, get_args

from connector.config.kafka import KafkaSettings
from connector.config.streams import RedriveSettings, StreamSettings
from connector.core.chunks import Chunk, Partition
from connector.deadletters.earlier import Earlier
from connector.deadletters.hygiene import redriven_fits, redriven_headers
from connector.deadletters.letters import Letter, letters_of
from connector.kafka import configs
from connector.kafka.errors import AbortableError, KafkaTroubleError, RetriableError
from connector.kafka.publisher import Offsets, Publisher, TransactionalPublisher
from connector.kafka.reach import REACH_SECS
from connector.kafka.source import Membership, Source
from connector.kafka.topics import Targets, TopicFacts, Topics
from connector.telemetry.logging import get_logger

MAX_WAITING: Final = 1_000
"""Dead letters of a partition that are kept while they wait; beyond it the partition is not read."""

MAX_PASSED: Final = 100_000
"""The same of those that are passed over while one before them waits."""

SAY_SECS: Final = 2.0
"""How often offsets are committed while nothing is sent: for what the rule does not mean."""

REST_SECS: Final = 2.0
"""Pause after trouble."""

MAX_RECORDS: Final = 5_000
"""Of one transaction."""

MAX_ABORTS: Final = 3
"""Of transactions in a row; after these the rule begins anew, with what its topic takes by then."""

LOOK_SECS: Final = 0.5
"""How long the redrive topic is read before the group is heard again."""

IDLE_SECS: Final = 10.0
"""A rule that has read nothing for so long has most likely read all that there is."""

Passed = Literal["redriven", "too_large"]
"""Why a dead letter that is meant is passed over, in the words of the commands."""


@dataclass(slots=True)
class _Part:
    """A partition that is ours: how far it was read and said, and what waits."""

    next_read: int
    said: int | None
    """The committed offset, None before there is one."""
    looked_from: int | None = None
    """From which time on the redrive topic was looked at, in milliseconds; None while nothing may be sent again."""
    passed: list[tuple[int, Passed]] = field(default_factory=list)
    """Dead letters that are passed over, by their offset, until that is committed."""
    waiting: deque[Letter] = field(default_factory=deque)
    begun: bool = False
    paused: bool = False


class AutomaticRedrive:
    """One rule of one stream, on this worker. `held` tells whether the stream holds: nothing is sent again then."""

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
        self._reasons = frozenset(rule.reasons)
        self._kafka = kafka
        self._held = held
        self._client_id = f"{client_id}.{stream.name}.redrive.{rule.name}"
        self._instance_id = instance_id
        self._group = stream.redrive_group(rule.name)
        self._started_ms = int(time.time() * 1_000)
        self._parts: dict[Partition, _Part] = {}
        self._new: list[Partition] = []
        topics = Topics(configs.asking(kafka, self._client_id), kafka.request_timeout_secs)
        self._targets = Targets(topics, [stream.redrive_topic])
        self._earlier = Earlier(kafka, stream.redrive_topic, client_id=self._client_id, group=self._group)
        self._looking: tuple[int, dict[Partition, _Part]] = (0, {})
        """From which time on it is looked now, and for whom."""
        self._until: dict[Partition, int] = {}
        """Below which offset dead letters were written before the last look at the redrive topic."""
        self._taken_at = time.monotonic()
        self._aborts = 0
        self._allowance = 0.0
        self._allowed_at = time.monotonic()
        self._said_at = time.monotonic()
        self._stop = threading.Event()
        self._error: str | None = None
        self._shown: tuple[int, float | None] = (0, None)
        """How many wait, and when the next is due, as the thread last left it: other threads read it whole."""
        self.redriven = 0
        """Records sent again, by this process."""
        self.passed_over: Counter[Passed] = Counter()
        """Records that are not sent again though the rule means them, by this process."""
        self._log = get_logger("redrive").bind(stream=stream.name, rule=rule.name)
        self._thread = threading.Thread(target=self._run, name=f"{stream.name}-redrive-{rule.name}", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self, timeout_secs: float) -> None:
        """End after the running transaction."""
        self._stop.set()
        self._thread.join(timeout_secs)

    def status(self) -> dict[str, Any]:
        """Return the state of the rule as JSON-ready values."""
        waiting, next_at = self._shown
        return {
            "rule": self._rule.name,
            "reasons": sorted(self._reasons),
            "redriven": self.redriven,
            "passed_over": {why: self.passed_over[why] for why in get_args(Passed)},
            "waiting": waiting,
            "next_at": next_at,
            "held": self._held(),
            "error": self._error,
        }

    # ------------------------------------------------------------------ partitions come and go, inside `Source.read`

    def assigned(self, partitions: list[Partition]) -> None:
        """Take note of partitions; they are begun where they are committed, at the next turn."""
        self._new += partitions

    def revoking(self, partitions: list[Partition]) -> None:
        """Let go: no transaction runs while this thread polls."""
        for partition in partitions:
            self._parts.pop(partition, None)
        self._new = [partition for partition in self._new if partition not in partitions]

    def lost(self, partitions: list[Partition]) -> None:
        """Let go of what is another worker's already."""
        self.revoking(partitions)

    # ------------------------------------------------------------------ the thread

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._follow()
            except Exception as error:  # noqa: BLE001 (told, and tried again: the rule must not end in silence)
                self._error = f"{type(error).__name__}: {error}"
                self._log.error("redrive interrupted, begins again", error=self._error)
                self._stop.wait(REST_SECS)

    def _follow(self) -> None:
        """Read and send again until told to stop, or something goes wrong that needs new clients."""
        self._parts, self._new = {}, []
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
            self._take(chunk)
        for _, trouble in read.troubles:
            if not trouble.away:
                raise trouble
        missing = [partition for partition in read.missing if partition in self._parts]
        if missing:  # retention was faster: what is gone cannot be sent again
            for partition in missing:
                del self._parts[partition]
            self._new += missing
            self._log.warning("dead letters removed before they were sent again", count=len(missing))
        self._look(source)
        self._forget()
        self._pause(source)
        due = self._due()
        offsets = self._offsets(due)
        heads = [part.waiting[0].timestamp_ms for part in self._parts.values() if part.waiting]
        next_at = round(min(heads) / 1_000 + self._rule.delay_secs, 3) if heads else None
        self._shown = (sum(len(part.waiting) for part in self._parts.values()), next_at)
        if due or (offsets and (time.monotonic() - self._said_at > SAY_SECS or self._any_unsaid())):
            self._send(source, publisher, due, offsets)

    def _begin_new(self, source: Source) -> None:
        if self._new:
            fresh, self._new = list(dict.fromkeys(self._new)), []
            timeout = self._kafka.request_timeout_secs
            for partition, there in source.committed(fresh, timeout).items():
                low, high = source.bounds(partition, timeout)
                if there.offset is None:
                    # Of old dead letters nobody said that they are to be sent again.
                    start = source.offset_at(partition, self._started_ms, timeout)
                else:
                    start = min(max(there.offset, low), high)
                    if there.offset > high:  # the topic was made anew: what stands there may have been sent again
                        self._log.warning(
                            "committed behind the end of the dead letters, begins at their end",
                            partition=str(partition),
                            committed=there.offset,
                            end=high,
                        )
                self._parts[partition] = _Part(start, there.offset)
        for partition, part in self._parts.items():
            if not part.begun:
                part.begun = source.begin(partition, part.next_read)

    def _take(self, chunk: Chunk) -> None:
        part = self._parts.get(chunk.partition)
        self._taken_at = time.monotonic()
        if part is None or not part.begun:
            return
        for letter in letters_of(chunk):
            if letter.offset < part.next_read or not self._is_meant(letter):
                continue
            if not self._fits(letter):
                part.passed.append((letter.offset, "too_large"))
                continue
            if part.looked_from is not None and letter.timestamp_ms < part.looked_from:
                part.looked_from = None  # one that was imported
            if part.looked_from is not None and self._earlier.tells(letter):
                part.passed.append((letter.offset, "redriven"))
            else:
                part.waiting.append(letter)
        part.next_read = max(part.next_read, chunk.offsets[-1] + 1)

    def _is_meant(self, letter: Letter) -> bool:
        return (
            letter.reason in self._reasons
            and letter.stream == self._stream.name
            and not letter.may_be_taken
            and not letter.value_omitted
            and letter.redrives < self._rule.max_redrives
        )

    def _fits(self, letter: Letter) -> bool:
        """Tell whether the redrive topic takes a dead letter; asked before one is passed over: limits get raised."""
        if redriven_fits(letter, letter.value, self._facts.max_message_bytes):
            return True
        self._targets.look_again(now=time.monotonic())
        return redriven_fits(letter, letter.value, self._facts.max_message_bytes)

    def _look(self, source: Source) -> None:
        """Look for a while at what was sent again earlier, where dead letters wait of which that is not known."""
        if not self._earlier.is_looking:
            parts = {p: part for p, part in self._parts.items() if part.waiting and part.looked_from is None}
            if not parts:
                return
            for partition in parts:
                self._until[partition] = source.bounds(partition, self._kafka.request_timeout_secs)[1]
            since_ms = min(letter.timestamp_ms for part in parts.values() for letter in part.waiting)
            self._looking = since_ms, parts
            self._earlier.begin(since_ms)
        if not self._earlier.step(LOOK_SECS):
            return
        since_ms, parts = self._looking
        for partition, part in parts.items():
            # Older ones may have come meanwhile, which are looked for next.
            if self._parts.get(partition) is part and min(one.timestamp_ms for one in part.waiting) >= since_ms:
                part.looked_from = since_ms
                part.passed += [(one.offset, "redriven") for one in part.waiting if self._earlier.tells(one)]
                part.waiting = deque(one for one in part.waiting if not self._earlier.tells(one))

    def _forget(self) -> None:
        """Forget what was sent again earlier once the dead letters are dealt with that were written by then.

        The last offsets of a partition may be markers of transactions, which are never read. Where nothing is read any
        more none may be left; if one is all the same, it is looked for again.
        """
        if not self._until or self._earlier.is_looking:
            return
        idle = time.monotonic() - self._taken_at > IDLE_SECS
        short = [
            part
            for partition, part in self._parts.items()
            if (part.waiting[0].offset if part.waiting else part.next_read) < self._until.get(partition, 0)
        ]
        if any(part.waiting for part in short) or ((short or not self._parts) and not idle):
            return
        for part in short:
            part.looked_from = None
        self._earlier.forget()
        self._until = {}

    def _pause(self, source: Source) -> None:
        for partition, part in self._parts.items():
            full = len(part.waiting) >= MAX_WAITING or len(part.passed) >= MAX_PASSED
            if part.begun and full != part.paused:
                part.paused = full
                (source.pause if full else source.resume)([partition])

    def _due(self) -> list[Letter]:
        """Return what is to be sent again now, as far as the rate allows."""
        at = time.monotonic()
        rate = self._rule.max_per_sec
        # What was not used is not saved up for more than a second, or a hold would end in a flood.
        self._allowance = min(self._allowance + (at - self._allowed_at) * rate, max(rate, 1.0))
        self._allowed_at = at
        if self._held():
            return []
        limit_ms = time.time() * 1_000 - self._rule.delay_secs * 1_000
        due: list[Letter] = []
        most = min(int(self._allowance), MAX_RECORDS)
        for part in self._parts.values():
            for letter in part.waiting if part.looked_from is not None else ():
                if len(due) >= most or letter.timestamp_ms > limit_ms:
                    break
                due.append(letter)
        return due

    def _offsets(self, due: list[Letter]) -> Offsets:
        """Return what is to be committed once `due` is sent again: each partition that has come further."""
        sent: dict[Partition, int] = {}
        for letter in due:
            sent[letter.partition] = sent.get(letter.partition, 0) + 1
        offsets: Offsets = {}
        for partition, part in self._parts.items():
            count = sent.get(partition, 0)
            offset = part.waiting[count].offset if count < len(part.waiting) else part.next_read
            if offset != part.said:
                offsets[partition] = (offset, "")
        return offsets

    def _any_unsaid(self) -> bool:
        return any(part.said is None for part in self._parts.values())

    def _send(self, source: Source, publisher: Publisher, due: list[Letter], offsets: Offsets) -> None:
        """Write and commit; raises `KafkaTroubleError` when the rule must begin again where it is committed."""
        group, timeout = source.membership(), self._kafka.request_timeout_secs
        try:
            publisher.begin()
            for letter in due:
                publisher.write(
                    self._stream.redrive_topic,
                    letter.origin[0].number % self._facts.partitions,
                    key=letter.key,
                    value=letter.value,
                    headers=redriven_headers(letter),
                )
            self._commit(publisher, offsets, group, timeout)
        except AbortableError as error:
            self._error = f"{type(error).__name__}: {error}"
            self._log.warning("redrive aborted, tried again", code=error.code, error=str(error))
            publisher.abort(timeout)
            self._new += list(self._parts)  # read anew from where they are committed
            self._parts = {}
            self._aborts += 1
            if self._aborts >= MAX_ABORTS:
                self._aborts = 0
                raise
            self._stop.wait(0.2)
            return
        self._aborts = 0
        for letter in due:
            self._parts[letter.partition].waiting.popleft()
        passed: Counter[Passed] = Counter()
        for partition, (offset, _) in offsets.items():
            part = self._parts[partition]
            part.said = offset
            passed.update(why for at, why in part.passed if at < offset)
            part.passed = [(at, why) for at, why in part.passed if at >= offset]
        self._said_at = time.monotonic()
        self._allowance -= len(due)
        self.redriven += len(due)
        self._error = None
        self.passed_over = self.passed_over + passed  # a new one: other threads read it
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

    def _commit(self, publisher: Publisher, offsets: Offsets, group: Membership, timeout_secs: float) -> None:
        """Commit, again while no answer comes: with a new producer the committed offsets tell what became of it."""
        for attempt in range(3):
            try:
                publisher.commit({} if attempt else offsets, group, timeout_secs)
            except RetriableError:
                if attempt == 2 or self._stop.is_set():
                    raise
            else:
                return
