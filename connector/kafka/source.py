"""Reads topics: the consumer, its rebalances, and messages turned into columns.

All calls that change the assignment (assign, pause, seek, close) come from one thread, the reader's. The tick's thread
may only ask: for the group metadata, for what is committed, and, without transactions, to commit.
"""

import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, Protocol

from confluent_kafka import (
    OFFSET_BEGINNING,
    OFFSET_END,
    OFFSET_INVALID,
    TIMESTAMP_NOT_AVAILABLE,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    ThrottleEvent,
    TopicPartition,
)

from connector.config.streams import naming
from connector.core.chunks import Chunk, Partition
from connector.kafka.configs import Config
from connector.kafka.errors import FatalError, KafkaTroubleError, translate
from connector.kafka.lent import Lent
from connector.kafka.reach import SILENT_SECS, is_cut_off
from connector.kafka.replaceable import Replaceable
from connector.kafka.topics import partitions_of

# Unbound C methods: mapped over a list of messages they cost a third of a call in a comprehension.
_value: Any = Message.value
_key: Any = Message.key
_offset: Any = Message.offset
_partition: Any = Message.partition
_topic: Any = Message.topic
_headers: Any = Message.headers
_error: Any = Message.error
_timestamp: Any = Message.timestamp


COMPANY_SECS = 0.005
PROVE_SECS, PROVE_MAX_SECS = 1.0, 60.0
"""A partition that has begun and yielded nothing is sought again after this time, and after twice as long each time.

Librdkafka stops a partition when an answer says that an offset is out of range, even one that it was sought away from
meanwhile, and does not tell. Where there is nothing to read, seeking the same place again changes nothing.
"""

LEAVE_SECS = 5.0
"""How long the end waits for consumers that were replaced to leave the group."""

WAKE_SECS = 1.0
"""How long librdkafka's thread for a broker sleeps at most, where there is nothing to fetch."""

RESTART_SECS = 1.0
"""A partition that may not be sought for so long is stopped, not starting: it is assigned anew."""


def _generation_and_member(packed: Any) -> tuple[int, Any]:
    """Return the generation of its group that a consumer is in, below 1 before the first, and its id there, if any.

    With KIP-848 the generation is its own epoch. The client tells both in no other way than in what it packs for
    transactions: a magic word, the generation, then the group, the id and more, each with a zero at its end.
    """
    rest = packed.partition(b":")[2]
    fields = rest[4:].split(b"\0")
    return int.from_bytes(rest[:4], sys.byteorder, signed=True), fields[1] if len(fields) > 1 else b""


def _is_empty(column: list[Any]) -> bool:
    """Tell whether a column holds nothing but None; one look settles it where the first value is there."""
    return column[0] is None and column.count(None) == len(column)


class RebalanceHandler(Protocol):
    """What the stream does when partitions come and go; called in the reader's thread, from inside `read`."""

    def assigned(self, partitions: list[Partition]) -> None:
        """Take note of partitions that are ours now; they are paused until `Source.begin`."""

    def revoking(self, partitions: list[Partition]) -> None:
        """Finish what can be finished; when this returns the partitions are another worker's."""

    def lost(self, partitions: list[Partition]) -> None:
        """Take note of partitions that are another worker's already."""


@dataclass(frozen=True, slots=True)
class Committed:
    """What the group has committed for a partition; `offset` is None when nothing is."""

    offset: int | None
    metadata: str


def committed_of(answers: Iterable[TopicPartition]) -> dict[Partition, Committed]:
    """Return what a group is said to have committed; raises KafkaException for a partition that is not told of."""
    found = {}
    for answer in answers:
        if answer.error is not None:
            raise KafkaException(answer.error)
        offset = None if answer.offset == OFFSET_INVALID else answer.offset
        found[Partition(answer.topic, answer.partition)] = Committed(offset, answer.metadata or "")
    return found


@dataclass(frozen=True, slots=True)
class Membership:
    """Under what a group takes offsets: librdkafka's word for it, and how often partitions had gone from us by then."""

    metadata: Any
    losses: int = 0


@dataclass(frozen=True, slots=True)
class _Trial:
    """A partition that has begun and yielded nothing yet: where, and when it is sought there again."""

    offset: int
    due: float
    waited: float


@dataclass(slots=True)
class Read:
    """What one call brought: chunks, and troubles by partition (None: the whole consumer)."""

    chunks: list[Chunk] = field(default_factory=list)
    troubles: list[tuple[Partition | None, KafkaTroubleError]] = field(default_factory=list)
    missing: list[Partition] = field(default_factory=list)
    """Partitions whose next offset the broker does not have: retention passed us, or the topic was made anew."""
    at: float = field(default_factory=time.monotonic)
    """When the first of the records was there, of the monotonic clock."""


def chunk_of(messages: list[Message], partition: Partition, epoch: int, *, keep_timestamps: bool) -> Chunk:
    """Return messages of one partition, of which there is one at least, as columns."""
    count = len(messages)
    first, last = _offset(messages[0]), _offset(messages[-1])
    # They rise, so that the ends tell whether any is left out between them.
    offsets = range(first, last + 1) if last - first + 1 == count else list(map(_offset, messages))
    keys = list(map(_key, messages))
    kind, oldest_ms = messages[0].timestamp()
    return Chunk(
        partition=partition,
        epoch=epoch,
        offsets=offsets,
        values=list(map(_value, messages)),
        keys=None if _is_empty(keys) else keys,
        headers=list(map(_headers, messages)) if any(map(_headers, messages)) else None,
        timestamps=[at_ms for _, at_ms in map(_timestamp, messages)] if keep_timestamps else None,
        oldest_ms=0 if kind == TIMESTAMP_NOT_AVAILABLE else oldest_ms,
    )


class Source:
    """A consumer of one stream.

    `epoch_of` gives the assignment's number for a partition; `keep_timestamps` asks for the column of timestamps.
    Topics need not exist yet; nothing is told of them until they do.
    """

    def __init__(
        self,
        config: Config,
        handler: RebalanceHandler,
        epoch_of: Callable[[Partition], int | None],
        *,
        keep_timestamps: bool = False,
    ) -> None:
        self._config = {**config, "error_cb": lambda _: None, "throttle_cb": self._wait_throttled}
        self._shared = Replaceable(Consumer(self._config))
        self._committer = Lent("commit")
        self._handler = handler
        self._epoch_of = epoch_of
        self._keep_timestamps = keep_timestamps
        self._topics: set[str] = set()
        """Topics of which a partition was ever assigned: records of one that is revoked may still come."""
        self._known_topic = ""
        """One that is read; it need not exist."""
        self._is_read: Callable[[str], bool] = lambda _topic: True
        """Whether a topic is one that was subscribed to."""
        self._names: dict[str, str] = {}
        self._refused: dict[Partition, float] = {}
        """Since when partitions that are to begin may not be sought."""
        self._unproven: dict[Partition, _Trial] = {}
        self._paused: set[Partition] = set()
        self._heard_at = time.monotonic()
        """When it last brought records or was asked whether it reaches a broker, or until when one throttles it."""
        self._losses = 0
        """How often partitions have gone from us."""
        self._member: Any = b""
        """Its id in the group when partitions were assigned, empty before that and after they were lost."""
        self._was_expelled = False

    # ------------------------------------------------------------------ the reader's thread

    @property
    def _consumer(self) -> Consumer:
        return self._shared.consumer

    def subscribe(self, topics: Sequence[str]) -> None:
        """Join the group; a name that starts with `^` is a pattern, and not all are."""
        self._known_topic = next(topic for topic in topics if not topic.startswith("^"))
        self._is_read = naming(topics)
        # With this protocol brokers match, and want whole names; librdkafka is content with the beginning of one.
        if self._config.get("group.protocol") == "consumer":
            topics = [f"^({topic}).*" if topic.startswith("^") else topic for topic in topics]
        self._consumer.subscribe(
            list(topics), on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
        )

    def read(self, count: int, timeout_secs: float) -> Read:
        """Return up to `count` records as chunks; rebalances are handled inside this call.

        librdkafka waits for the whole count or the whole time: so the wait is for the first record alone, and what
        comes within a moment of it is taken along.
        """
        if self._unproven:
            self._prove()
        read, messages = Read(), []
        try:
            messages = self._consumer.consume(count, 0.0)
            if not messages and timeout_secs > 0:
                first = self._consumer.poll(timeout_secs)
                if first is not None:
                    read.at = time.monotonic()
                    messages = [first]
                    messages += self._consumer.consume(max(count - 1, 1), COMPANY_SECS)
        except KafkaException as error:  # what was read before it is read, and is not read again
            read.troubles.append((None, translate(error)))
        if not messages:
            return read
        if any(map(_error, messages)):
            good = []
            for message in messages:
                trouble = message.error()
                if trouble is None:
                    good.append(message)
                else:
                    self._sort_error(read, message, trouble)
            messages = good
        start = 0
        for topic, number, length in self._runs(messages):
            partition = Partition(self._names.setdefault(topic, topic), number)
            epoch = self._epoch_of(partition)
            self._unproven.pop(partition, None)
            if epoch is not None:  # else revoked during the call that returned these
                run = messages[start : start + length]
                read.chunks.append(chunk_of(run, partition, epoch, keep_timestamps=self._keep_timestamps))
            start += length
        if read.chunks:
            self._heard_at = max(self._heard_at, time.monotonic())
        return read

    def _runs(self, messages: list[Message]) -> Iterator[tuple[str, int, int]]:
        """Yield topic, partition and length of each run of messages of one partition."""
        if len(self._topics) == 1:
            # Its name need not be asked of each message: that would make a string, and a pair, every time.
            [topic] = self._topics
            for number, run in groupby(map(_partition, messages)):
                yield topic, number, len(list(run))
            return
        for (topic, number), pairs in groupby(zip(map(_topic, messages), map(_partition, messages), strict=True)):
            yield topic, number, len(list(pairs))

    def _sort_error(self, read: Read, message: Message, error: KafkaError) -> None:
        topic, number = message.topic(), message.partition()
        partition = None if topic is None or number is None or number < 0 else Partition(topic, number)
        if error.code() in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE) and partition:  # noqa: SLF001
            self._unproven.pop(partition, None)
            read.missing.append(partition)
        elif error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001
            return
        elif error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART and topic not in self._topics:
            return  # not there yet, as is told at the start
        elif error.fatal() or error.code() == KafkaError._FATAL:  # noqa: SLF001
            read.troubles.append((partition, FatalError(error)))
        else:
            read.troubles.append((partition, KafkaTroubleError(error)))

    def begin(self, partition: Partition, offset: int) -> bool:
        """Start reading a partition at `offset`; returns False while librdkafka is not ready for it yet."""
        if not self._seek(partition, offset):
            return False
        self._paused.discard(partition)
        self._unproven[partition] = _Trial(offset, time.monotonic() + PROVE_SECS, PROVE_SECS)
        return True

    def _prove(self) -> None:
        """Seek again what has begun and yielded nothing, in case it was stopped."""
        at = time.monotonic()
        for partition, trial in list(self._unproven.items()):
            if at >= trial.due and partition not in self._paused and self._seek(partition, trial.offset):
                wait = min(2 * trial.waited, PROVE_MAX_SECS)
                self._unproven[partition] = _Trial(trial.offset, at + wait, wait)

    def _seek(self, partition: Partition, offset: int) -> bool:
        spot = TopicPartition(*partition, offset)
        try:
            self._consumer.seek(spot)
            self._consumer.resume([TopicPartition(*partition)])
        except KafkaException as error:
            if error.args[0].code() not in (KafkaError._STATE, KafkaError._TIMED_OUT, KafkaError._PREV_IN_PROGRESS):  # noqa: SLF001
                raise translate(error) from error
            refused_since = self._refused.setdefault(partition, time.monotonic())
            if time.monotonic() - refused_since < RESTART_SECS:
                return False
            self._assign_anew(spot)
        self._refused.pop(partition, None)
        return True

    def _assign_anew(self, spot: TopicPartition) -> None:
        """Stop a partition and start it: librdkafka seeks none that it stopped because its offset was out of range."""
        try:
            self._consumer.incremental_unassign([spot])
            self._consumer.incremental_assign([spot])
        except KafkaException as error:
            raise translate(error) from error

    def pause(self, partitions: Iterable[Partition]) -> None:
        """Stop fetching; what was fetched and not read yet is thrown away by librdkafka and read again later."""
        partitions = list(partitions)
        self._paused.update(partitions)
        self._consumer.pause([TopicPartition(*p) for p in partitions])

    def resume(self, partitions: Iterable[Partition]) -> None:
        """Fetch again."""
        partitions = list(partitions)
        self._paused.difference_update(partitions)
        self._consumer.resume([TopicPartition(*p) for p in partitions])

    @property
    def was_expelled(self) -> bool:
        """Tell whether it has joined its group as another member without being told that what it had is lost.

        Librdkafka does that where the group took it for gone, as one that was frozen, while it was letting partitions
        go. Those that it kept are another worker's by then; only a new consumer has none of them.
        """
        return self._was_expelled

    def known_end(self, partition: Partition) -> int | None:
        """Return the end of a partition as the last fetch told it, without asking the broker.

        It lies behind transactions that are still open, unlike the end that `bounds` asks for.
        """
        try:
            _, high = self._consumer.get_watermark_offsets(TopicPartition(*partition), cached=True)
        except KafkaException:
            return None
        return None if high < 0 else high

    def passed(self, partitions: Sequence[Partition]) -> dict[Partition, int]:
        """Return below which offset all was handed over, or is nothing that we may read: markers, what was aborted.

        Partitions of which nothing was handed over since they began are left out.
        """
        try:
            spots = self._consumer.position([TopicPartition(*p) for p in partitions])
        except KafkaException:
            return {}
        return {Partition(spot.topic, spot.partition): spot.offset for spot in spots if spot.offset >= 0}

    def renew(self) -> None:
        """Take a new consumer in place of one that cannot go on, which leaves the group; `subscribe` the new one."""
        self._losses += 1
        self._member, self._was_expelled = b"", False
        self._shared.replace(Consumer(self._config))
        self._committer = Lent("commit")  # the other may be waiting for the old one
        self._forget([*self._unproven, *self._paused, *self._refused])
        self._heard_at = time.monotonic()

    def close(self) -> None:
        """Leave; the group hears of it only where there is no static membership, so that a restart is quick."""
        self._shared.close(LEAVE_SECS)

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        if consumer is not self._consumer:
            return  # it is being closed
        partitions = self._wanted(partitions)
        # A place to stand while paused: `begin` seeks to where the progress says. It must be a number. For a word such
        # as the end, librdkafka asks the broker, and when the answer is late, as after a restart, it comes after the
        # seek, is found outdated and asked for again, and what is between our place and the end is passed over.
        spots = [TopicPartition(p.topic, p.partition, 0) for p in partitions]
        self._topics.update(p.topic for p in partitions)
        consumer.incremental_assign(spots)
        if spots:
            consumer.pause(spots)
        mine = [Partition(p.topic, p.partition) for p in partitions]
        self._forget(mine)
        packed = consumer.consumer_group_metadata()
        self._was_expelled |= self._is_another(packed)
        if not self._was_expelled:
            self._member = _generation_and_member(packed)[1]
        self._handler.assigned(mine)

    def _wanted(self, partitions: list[TopicPartition]) -> list[TopicPartition]:
        """Return the partitions of the topics that were subscribed to.

        A static member that comes back is given what it had, whatever it subscribes to by now: a topic that was taken
        out of its settings may be another stream's, which posts the same records.
        """
        return [p for p in partitions if self._is_read(p.topic)]

    def _on_revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        partitions = self._wanted(partitions)
        if consumer is self._consumer:
            mine = [Partition(p.topic, p.partition) for p in partitions]
            self._was_expelled |= self._is_another(consumer.consumer_group_metadata())
            (self._handler.lost if self._was_expelled else self._handler.revoking)(mine)
            self._losses += 1
            self._forget(mine)
        consumer.incremental_unassign(partitions)

    def _on_lost(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        partitions = self._wanted(partitions)
        if consumer is self._consumer:
            mine = [Partition(p.topic, p.partition) for p in partitions]
            self._losses += 1
            self._handler.lost(mine)
            self._member = b""
            self._forget(mine)
        consumer.incremental_unassign(partitions)

    def _is_another(self, packed: Any) -> bool:
        """Tell whether it is another member of its group than the one to which partitions were assigned."""
        return bool(self._member) and _generation_and_member(packed)[1] != self._member

    def _forget(self, partitions: Iterable[Partition]) -> None:
        """Forget what was known of partitions under an assignment that is over."""
        for partition in partitions:
            self._refused.pop(partition, None)
            self._unproven.pop(partition, None)
            self._paused.discard(partition)

    # ------------------------------------------------------------------ any thread

    def _wait_throttled(self, event: ThrottleEvent) -> None:
        """Expect nothing for so long: a broker that has a quota to keep does not answer, and lets others ask.

        A consumer that is replaced meanwhile throws away what it had, and has its successor wait as long.
        """
        self._heard_at = max(self._heard_at, time.monotonic() + event.throttle_time)

    @property
    def is_silent(self) -> bool:
        """Tell whether it has brought nothing for so long that it is to be asked whether it `is_cut_off`."""
        return time.monotonic() - self._heard_at > SILENT_SECS

    def is_cut_off(self, secs: float) -> bool:
        """Tell whether only a new consumer will reach a broker again; takes up to three times `secs`."""
        config = {**self._config, "log_level": 2}  # what can't be reached is told of already
        with self._shared.borrowed() as consumer:
            cut_off = is_cut_off(consumer, lambda: Consumer(config), self._known_topic, secs)
            asked_at = time.monotonic()
            if self._heard_at > asked_at:  # a broker has said meanwhile that it lets us wait
                return False
            self._heard_at = asked_at
            return cut_off and consumer is self._consumer  # which may have been replaced meanwhile, for another reason

    def wake(self, partitions: Collection[Partition]) -> None:
        """Have partitions fetched at once that have begun or were resumed.

        Neither ends the sleep of librdkafka's threads for brokers, but any request to the leaders does.
        """
        latest = [TopicPartition(*p, OFFSET_END) for p in partitions]
        with suppress(KafkaTroubleError), self._asking() as consumer:
            consumer.offsets_for_times(latest, WAKE_SECS)

    @contextmanager
    def _asking(self) -> Iterator[Consumer]:
        """Borrow the consumer for a call; what it says is wrong is ours to read."""
        with self._shared.borrowed() as consumer:
            try:
                yield consumer
            except KafkaException as error:
                raise translate(error) from error

    @property
    def generation(self) -> int:
        """The generation of the group that it has joined last; below 1 before the first."""
        return _generation_and_member(self._consumer.consumer_group_metadata())[0]

    def membership(self) -> Membership:
        """Return under what offsets are committed that are known now.

        Raises `AbortableError` when that is another member than partitions were assigned to: the group would take what
        it says of them, whoever has them by now.
        """
        losses = self._losses  # before the other: what goes meanwhile counts
        with self._asking() as consumer:
            packed = consumer.consumer_group_metadata()
            if self._is_another(packed):
                raise KafkaException(KafkaError(KafkaError.UNKNOWN_MEMBER_ID))
            return Membership(packed, losses)

    def committed(self, partitions: Iterable[Partition], timeout_secs: float) -> dict[Partition, Committed]:
        """Return what is committed, after waiting for transactions that are still open on it."""
        asked = [TopicPartition(*p) for p in partitions]
        if not asked:
            return {}
        with self._asking() as consumer:
            return committed_of(consumer.committed(asked, timeout_secs))

    def commit(self, offsets: dict[Partition, tuple[int, str]], group: Membership, timeout_secs: float) -> None:
        """Commit without a transaction (at-least-once), and wait for it.

        One that is not answered in time may take effect yet, but before any later one. A consumer that has lost its
        brokers keeps it for `session.timeout.ms`, whatever its other timeouts; what waits behind it is not begun, nor
        is anything once a partition has gone from us, or we are another member: librdkafka would send it under what it
        is by then, the group would take it, and what another worker has committed would be forgotten.
        """
        spots = [TopicPartition(*p, offset, metadata) for p, (offset, metadata) in offsets.items()]
        self._committer.call(timeout_secs, self._commit_by, group, spots)

    def _commit_by(self, group: Membership, spots: list[TopicPartition]) -> None:
        with self._asking() as consumer:
            if self._losses != group.losses or self._is_another(consumer.consumer_group_metadata()):
                raise KafkaException(KafkaError(KafkaError.ILLEGAL_GENERATION))
            for answer in consumer.commit(offsets=spots, asynchronous=False) or []:
                if answer.error is not None:
                    raise KafkaException(answer.error)

    def bounds(self, partition: Partition, timeout_secs: float) -> tuple[int, int]:
        """Ask the partition's leader for the first offset that exists and the one after the last that may be read."""
        with self._asking() as consumer:
            low, high = consumer.get_watermark_offsets(TopicPartition(*partition), timeout_secs)
        return low, high

    def written_end(self, partition: Partition, timeout_secs: float) -> int:
        """Ask for the offset after the last that was written, behind transactions that are still open.

        A consumer asks for what it may read, so this makes one that may read all.
        """
        try:
            with closing(Consumer({**self._config, "isolation.level": "read_uncommitted"})) as consumer:
                _, high = consumer.get_watermark_offsets(TopicPartition(*partition), timeout_secs)
        except KafkaException as error:
            raise translate(error) from error
        return int(high)

    def offset_at(self, partition: Partition, time_ms: int, timeout_secs: float) -> int:
        """Return the first offset with a timestamp at or after a time, or the end when there is none."""
        with self._asking() as consumer:
            (found,) = consumer.offsets_for_times([TopicPartition(*partition, time_ms)], timeout_secs)
        if found.offset in (OFFSET_END, OFFSET_BEGINNING) or found.offset < 0:
            return self.bounds(partition, timeout_secs)[1]
        return int(found.offset)

    def all_partitions(self, topics: Sequence[str], timeout_secs: float) -> set[Partition]:
        """Return all partitions of these topics, names and patterns, whoever they are assigned to."""
        with self._asking() as consumer:
            return partitions_of(topics, consumer.list_topics(timeout=timeout_secs))

    def partition_count(self, topic: str, timeout_secs: float) -> int:
        """Return how many partitions a topic has."""
        with self._asking() as consumer:
            metadata = consumer.list_topics(topic, timeout_secs)
        return len(metadata.topics[topic].partitions)
