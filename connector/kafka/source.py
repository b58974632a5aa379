"""Reads topics: the consumer, its rebalances, and messages turned into columns.

All calls that change the assignment (assign, pause, seek, close) come from the reader's thread. The ticker's thread may
only query the group metadata and the commits, and, without transactions, commit.
"""

import re
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, Protocol

from confluent_kafka import (
    OFFSET_BEGINNING,
    OFFSET_END,
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
from connector.kafka.call_thread import CallThread
from connector.kafka.commits import Committed, Membership, committed_of, generation_and_member
from connector.kafka.configs import Config
from connector.kafka.errors import REJECTIONS, FatalError, KafkaTroubleError, translate, translating
from connector.kafka.leader_epochs import NO_EPOCH, LeaderEpochs
from connector.kafka.reachability import SILENT_SECS, is_cut_off
from connector.kafka.replaceable_consumer import ReplaceableConsumer
from connector.kafka.topics import partitions_of

# Unbound C methods: mapped over a list of messages, they cost a third of a call in a comprehension.
_value: Any = Message.value
_key: Any = Message.key
_offset: Any = Message.offset
_partition: Any = Message.partition
_topic: Any = Message.topic
_headers: Any = Message.headers
_error: Any = Message.error
_timestamp: Any = Message.timestamp


_TRUNCATED = re.compile(r"(?:truncation detected|No epoch found) .*broker end offset is (-?\d+)")
"""How librdkafka reports, in text only, from where on what was read is not there any more.

An unclean leader election has discarded it, or (-1) nothing of it is there: the topic was recreated with lower epochs.
"""

LINGER_SECS = 0.005
SEEK_RETRY_SECS, SEEK_RETRY_MAX_SECS = 1.0, 60.0
"""A partition that has begun and returned nothing is sought again after this time, then after twice as long each time.

librdkafka silently stops a partition when a response says that an offset is out of range, even one that was replaced by
a seek in the meantime. If there is nothing to read, seeking the same offset again changes nothing.
"""

LEAVE_SECS = 5.0
"""How long `close` waits for replaced consumers to leave the group."""

WAKE_SECS = 1.0
"""How long librdkafka's broker threads sleep at most when there is nothing to fetch."""

RESTART_SECS = 1.0
"""A partition for which seeking fails for so long is stopped, not starting: it is assigned again."""


def _is_empty(column: list[Any]) -> bool:
    """Return whether a column contains only None; if its first value is not None, that is one comparison."""
    return column[0] is None and column.count(None) == len(column)


class RebalanceHandler(Protocol):
    """What the stream does on rebalances; called in the reader's thread, from inside `read`."""

    def assigned(self, partitions: list[Partition]) -> None:
        """Note newly assigned partitions; they are paused until `Source.begin`."""

    def revoking(self, partitions: list[Partition]) -> None:
        """Finish what can be finished; when this returns, the partitions may be assigned to another worker."""

    def lost(self, partitions: list[Partition]) -> None:
        """Note partitions that may already be assigned to another worker."""


@dataclass(frozen=True, slots=True)
class _PendingSeek:
    """A partition that has begun and returned nothing yet: where, and when that is sought again."""

    position: TopicPartition
    due: float
    waited: float


@dataclass(slots=True)
class Read:
    """The result of one call: chunks, and troubles by partition (None: the whole consumer)."""

    chunks: list[Chunk] = field(default_factory=list)
    troubles: list[tuple[Partition | None, KafkaTroubleError]] = field(default_factory=list)
    missing: list[Partition] = field(default_factory=list)
    """Partitions whose next offset the broker does not have: removed by retention, or the topic was recreated."""
    truncated: dict[Partition, int] = field(default_factory=dict)
    """Those of which what was read is gone from an offset on; there may be other records by now."""
    at: float = field(default_factory=time.monotonic)
    """When the first of the records had arrived (monotonic clock)."""


def chunk_of(messages: list[Message], partition: Partition, epoch: int, *, keep_timestamps: bool) -> Chunk:
    """Return messages of one partition, at least one, as columns."""
    count = len(messages)
    first, last = _offset(messages[0]), _offset(messages[-1])
    # They ascend, so first and last show whether any offset is missing.
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
    """The consumer of one stream.

    `epoch_of` returns the number of a partition's assignment; `keep_timestamps` adds the column of timestamps. Topics
    need not exist; nothing is reported about them until they do.
    """

    def __init__(
        self,
        config: Config,
        handler: RebalanceHandler,
        epoch_of: Callable[[Partition], int | None],
        *,
        keep_timestamps: bool = False,
    ) -> None:
        self._config = {**config, "error_cb": self._on_error, "throttle_cb": self._wait_throttled}
        self._shared = ReplaceableConsumer(Consumer(self._config))
        self._committer = CallThread("commit")
        self._handler = handler
        self._epoch_of = epoch_of
        self._keep_timestamps = keep_timestamps
        self._topics: set[str] = set()
        """Topics of which a partition was ever assigned: records of revoked ones may still arrive."""
        self._known_topic = ""
        """One of the topics; it need not exist."""
        self._is_read: Callable[[str], bool] = lambda _topic: True
        """Whether a topic matches the subscription."""
        self._names: dict[str, str] = {}
        self._refused: dict[Partition, float] = {}
        """When seeking first failed, for partitions that should begin."""
        self._pending_seeks: dict[Partition, _PendingSeek] = {}
        self._leader_epochs = LeaderEpochs()
        self._paused: set[Partition] = set()
        self._active_at = time.monotonic()
        """When it last returned records or was checked for reachability, or until when a broker throttles it."""
        self._losses = 0
        """How many times partitions were lost or revoked."""
        self._member = b""
        """Its member id when partitions were assigned; empty before that and after they were lost."""
        self._was_expelled = False
        self._rejected: KafkaError | None = None
        """Why a broker's connection was refused since the last read: no call fails for that."""

    # ------------------------------------------------------------------ the reader's thread

    @property
    def _consumer(self) -> Consumer:
        return self._shared.consumer

    def subscribe(self, topics: Sequence[str]) -> None:
        """Join the group; names that start with `^` are patterns, but at least one is not."""
        self._known_topic = next(topic for topic in topics if not topic.startswith("^"))
        self._is_read = naming(topics)
        # With this protocol brokers match patterns, against whole names; librdkafka matches the beginning of a name.
        if self._config.get("group.protocol") == "consumer":
            topics = [f"^({topic}).*" if topic.startswith("^") else topic for topic in topics]
        self._consumer.subscribe(
            list(topics), on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
        )

    def _on_error(self, error: KafkaError) -> None:
        if error.code() in REJECTIONS:
            self._rejected = error

    def read(self, count: int, timeout_secs: float) -> Read:
        """Return up to `count` records as chunks; rebalances are handled inside this call.

        librdkafka waits for the whole count or the whole timeout. So this waits for the first record only, and takes
        along what arrives within a moment.
        """
        if self._pending_seeks:
            self._retry_seeks()
        read, messages = Read(), []
        if self._rejected is not None:
            read.troubles.append((None, KafkaTroubleError(self._rejected)))
            self._rejected = None
        try:
            messages = self._consumer.consume(count, 0.0)
            if not messages and timeout_secs > 0:
                first = self._consumer.poll(timeout_secs)
                if first is not None:
                    read.at = time.monotonic()
                    messages = [first]
                    messages += self._consumer.consume(max(count - 1, 1), LINGER_SECS)
        except KafkaException as error:  # messages that were read before stay read
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
            self._pending_seeks.pop(partition, None)
            if epoch is not None:  # otherwise revoked during the call that returned these
                run = self._what_was_read(read, partition, messages[start : start + length])
                if run:
                    read.chunks.append(chunk_of(run, partition, epoch, keep_timestamps=self._keep_timestamps))
                    self._leader_epochs.passed(partition, _offset(run[-1]), run[-1].leader_epoch())
            start += length
        if read.chunks:
            self._active_at = max(self._active_at, time.monotonic())
        return read

    def _runs(self, messages: list[Message]) -> Iterator[tuple[str, int, int]]:
        """Yield topic, partition and length of each run of messages of one partition."""
        if len(self._topics) == 1:
            # Reading the topic of each message would create a string and a tuple every time.
            [topic] = self._topics
            for number, run in groupby(map(_partition, messages)):
                yield topic, number, len(list(run))
            return
        for (topic, number), pairs in groupby(zip(map(_topic, messages), map(_partition, messages), strict=True)):
            yield topic, number, len(list(pairs))

    def _what_was_read(self, read: Read, partition: Partition, run: list[Message]) -> list[Message]:
        """Return the messages without those that took the offsets of others that were read before."""
        place = self._leader_epochs.place_of_other(partition, run)
        if place is None:
            return run
        self.pause([partition])
        read.missing.append(partition)
        read.truncated.setdefault(partition, _offset(run[place]))
        return run[:place]

    def _sort_error(self, read: Read, message: Message, error: KafkaError) -> None:
        topic, number = message.topic(), message.partition()
        partition = None if topic is None or number is None or number < 0 else Partition(topic, number)
        if error.code() in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE) and partition:  # noqa: SLF001
            self._pending_seeks.pop(partition, None)
            read.missing.append(partition)
            if found := _TRUNCATED.search(error.str()):
                read.truncated[partition] = max(int(found[1]), 0)
        elif error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART and topic not in self._topics:
            return  # it does not exist yet, which was reported at the start
        elif error.fatal() or error.code() == KafkaError._FATAL:  # noqa: SLF001
            read.troubles.append((partition, FatalError(error)))
        else:
            read.troubles.append((partition, KafkaTroubleError(error)))

    def begin(self, partition: Partition, offset: int, leader_epoch: int = NO_EPOCH, read_to: int = 0) -> bool:
        """Start to read a partition at `offset`; return False while librdkafka is not ready for it.

        With the epoch of what was read before, which is all below `offset` and some records below `read_to`, `read`
        reports if any of it was discarded by an unclean leader election.
        """
        position = TopicPartition(*partition, offset, leader_epoch=leader_epoch)
        if not self._seek(partition, position):
            return False
        self._paused.discard(partition)
        self._leader_epochs.begin(partition, leader_epoch, read_to)
        self._pending_seeks[partition] = _PendingSeek(position, time.monotonic() + SEEK_RETRY_SECS, SEEK_RETRY_SECS)
        return True

    def _retry_seeks(self) -> None:
        """Seek partitions again that have begun and returned nothing, in case they were stopped."""
        at = time.monotonic()
        for partition, seek in list(self._pending_seeks.items()):
            if at >= seek.due and partition not in self._paused and self._seek(partition, seek.position):
                wait = min(2 * seek.waited, SEEK_RETRY_MAX_SECS)
                self._pending_seeks[partition] = _PendingSeek(seek.position, at + wait, wait)

    def _seek(self, partition: Partition, position: TopicPartition) -> bool:
        try:
            self._consumer.seek(position)
            self._consumer.resume([TopicPartition(*partition)])
        except KafkaException as error:
            if error.args[0].code() not in (KafkaError._STATE, KafkaError._TIMED_OUT, KafkaError._PREV_IN_PROGRESS):  # noqa: SLF001
                raise translate(error) from error
            refused_since = self._refused.setdefault(partition, time.monotonic())
            if time.monotonic() - refused_since < RESTART_SECS:
                return False
            self._reassign(position)
        self._refused.pop(partition, None)
        return True

    def _reassign(self, position: TopicPartition) -> None:
        """Stop and restart a partition: librdkafka cannot seek one that it stopped for an offset out of range."""
        with translating():
            self._consumer.incremental_unassign([position])
            self._consumer.incremental_assign([position])

    def pause(self, partitions: Iterable[Partition]) -> None:
        """Stop fetching; librdkafka discards what was fetched and not read yet, and fetches it again later."""
        partitions = list(partitions)
        self._paused.update(partitions)
        with translating():
            self._consumer.pause([TopicPartition(*p) for p in partitions])

    def resume(self, partitions: Iterable[Partition]) -> None:
        """Fetch again."""
        partitions = list(partitions)
        self._paused.difference_update(partitions)
        with translating():
            self._consumer.resume([TopicPartition(*p) for p in partitions])

    @property
    def was_expelled(self) -> bool:
        """Whether it rejoined its group as a different member without reporting that its partitions are lost.

        librdkafka does that if the group removed it, for instance because it was frozen, while it was giving up
        partitions. Those that it kept belong to another worker by then; only a new consumer starts without them.
        """
        return self._was_expelled

    def known_end(self, partition: Partition) -> int | None:
        """Return the end of a partition according to the last fetch, without a call.

        Unlike the end that `bounds` returns, it is after open transactions.
        """
        try:
            _, high = self._consumer.get_watermark_offsets(TopicPartition(*partition), cached=True)
        except KafkaException:
            return None
        return None if high < 0 else high

    def passed(self, partitions: Sequence[Partition]) -> dict[Partition, int]:
        """Return the offset below which everything was returned or is unreadable (markers, aborted records).

        Partitions of which nothing was returned since they began are left out.
        """
        try:
            positions = self._consumer.position([TopicPartition(*p) for p in partitions])
        except KafkaException:
            return {}
        there = {
            Partition(position.topic, position.partition): position for position in positions if position.offset >= 0
        }
        for partition, position in there.items():  # a marker may be of a later epoch than the last record
            self._leader_epochs.passed(partition, position.offset - 1, position.leader_epoch)
        return {partition: position.offset for partition, position in there.items()}

    def renew(self) -> None:
        """Replace a consumer that cannot continue; it leaves the group. Call `subscribe` for the new one."""
        self._losses += 1
        self._member, self._was_expelled = b"", False
        self._shared.replace(Consumer(self._config))
        self._committer = CallThread("commit")  # its thread may be waiting for the old consumer
        self._forget([*self._pending_seeks, *self._paused, *self._refused])
        self._leader_epochs = LeaderEpochs()
        self._active_at = time.monotonic()

    def close(self) -> None:
        """Leave; a static member does not tell the group, so that a restart needs no rebalance."""
        self._shared.close(LEAVE_SECS)

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        if consumer is not self._consumer:
            return  # it is being closed
        partitions = self._wanted(partitions)
        # A position while paused; `begin` seeks to the right one. It must be a number: for a symbolic one such as the
        # end, librdkafka queries the broker, and an answer that arrives after the seek, as it may after a restart, is
        # found outdated and queried again. Then everything between our position and the end is skipped.
        positions = [TopicPartition(p.topic, p.partition, 0) for p in partitions]
        self._topics.update(p.topic for p in partitions)
        consumer.incremental_assign(positions)
        if positions:
            consumer.pause(positions)
        mine = [Partition(p.topic, p.partition) for p in partitions]
        self._forget(mine)
        packed = consumer.consumer_group_metadata()
        self._was_expelled |= self._is_another(packed)
        if not self._was_expelled:
            self._member = generation_and_member(packed)[1]
        self._handler.assigned(mine)

    def _wanted(self, partitions: list[TopicPartition]) -> list[TopicPartition]:
        """Return the partitions of subscribed topics.

        A static member that comes back is assigned what it had, whatever its new subscription: a topic that was removed
        from its settings may be another stream's, which posts the same records.
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

    def _is_another(self, packed: bytes) -> bool:
        """Return whether it is a different member of its group than when partitions were assigned."""
        return bool(self._member) and generation_and_member(packed)[1] != self._member

    def _forget(self, partitions: Iterable[Partition]) -> None:
        """Forget what was known of partitions under an earlier assignment."""
        for partition in partitions:
            self._refused.pop(partition, None)
            self._pending_seeks.pop(partition, None)
            self._leader_epochs.forget(partition)
            self._paused.discard(partition)

    # ------------------------------------------------------------------ any thread

    def _wait_throttled(self, event: ThrottleEvent) -> None:
        """Expect nothing for the throttle time: a broker that enforces a quota does not answer.

        If the consumer is replaced meanwhile, it loses what it prefetched, and its successor waits as long.
        """
        self._active_at = max(self._active_at, time.monotonic() + event.throttle_time)

    @property
    def is_silent(self) -> bool:
        """Whether it returned nothing for so long that `is_cut_off` should be called."""
        return time.monotonic() - self._active_at > SILENT_SECS

    def is_cut_off(self, secs: float) -> bool:
        """Return whether only a new consumer can reach a broker again; takes up to three times `secs`."""
        config = {**self._config, "log_level": 2}  # what is unreachable was logged already
        with self._shared.leased() as consumer:
            cut_off = is_cut_off(consumer, lambda: Consumer(config), self._known_topic, secs)
            asked_at = time.monotonic()
            if self._active_at > asked_at:  # meanwhile a broker throttled it, so it is reachable
                return False
            self._active_at = asked_at
            return cut_off and consumer is self._consumer  # it may have been replaced meanwhile for another reason

    def wake(self, partitions: Collection[Partition]) -> None:
        """Fetch partitions at once that have begun or were resumed.

        Neither wakes up librdkafka's broker threads, but any request to the leaders does.
        """
        latest = [TopicPartition(*p, OFFSET_END) for p in partitions]
        with suppress(KafkaTroubleError), self._asking() as consumer:
            consumer.offsets_for_times(latest, WAKE_SECS)

    @contextmanager
    def _asking(self) -> Iterator[Consumer]:
        """Lease the consumer for a call, and translate its errors."""
        with translating(), self._shared.leased() as consumer:
            yield consumer

    @property
    def generation(self) -> int:
        """The latest generation of the group that it joined; below 1 before the first."""
        return generation_and_member(self._consumer.consumer_group_metadata())[0]

    def membership(self) -> Membership:
        """Return the membership under which offsets are committed from now on.

        Raises `AbortableError` if it is a different member than when partitions were assigned: the group would accept
        its commits, whoever owns the partitions by now.
        """
        losses = self._losses  # before the metadata: a loss in between counts
        with self._asking() as consumer:
            packed = consumer.consumer_group_metadata()
            if self._is_another(packed):
                raise KafkaException(KafkaError(KafkaError.UNKNOWN_MEMBER_ID))
            return Membership(packed, losses, self._leader_epochs.copy())

    def committed(self, partitions: Iterable[Partition], timeout_secs: float) -> dict[Partition, Committed]:
        """Return the commits, after waiting for open transactions with commits."""
        asked = [TopicPartition(*p) for p in partitions]
        if not asked:
            return {}
        with self._asking() as consumer:
            return committed_of(consumer.committed(asked, timeout_secs))

    def commit(self, offsets: dict[Partition, tuple[int, str]], group: Membership, timeout_secs: float) -> None:
        """Commit without a transaction (at-least-once), and wait for it.

        A commit without an answer may still take effect, but before any later one. A consumer that has lost its brokers
        keeps it for `session.timeout.ms`, whatever its other timeouts. Commits that wait behind it are not started, nor
        is any once a partition was revoked or lost, or we are a different member: librdkafka would send it under the
        new membership, the group would accept it, and overwrite what another worker has committed.
        """
        self._committer.call(timeout_secs, self._commit_by, group, group.positions(offsets))

    def _commit_by(self, group: Membership, positions: list[TopicPartition]) -> None:
        with self._asking() as consumer:
            if self._losses != group.losses or self._is_another(consumer.consumer_group_metadata()):
                raise KafkaException(KafkaError(KafkaError.ILLEGAL_GENERATION))
            for answer in consumer.commit(offsets=positions, asynchronous=False) or []:
                if answer.error is not None:
                    raise KafkaException(answer.error)

    def bounds(self, partition: Partition, timeout_secs: float) -> tuple[int, int]:
        """Query the partition's leader for its first offset, and the offset after the last readable one."""
        with self._asking() as consumer:
            low, high = consumer.get_watermark_offsets(TopicPartition(*partition), timeout_secs)
        return low, high

    def written_end(self, partition: Partition, timeout_secs: float) -> int:
        """Query the offset after the last written one, including open transactions.

        A consumer queries what it may read, so this creates one that may read everything.
        """
        config = {**self._config, "isolation.level": "read_uncommitted"}
        with translating(), closing(Consumer(config)) as consumer:
            _, high = consumer.get_watermark_offsets(TopicPartition(*partition), timeout_secs)
        return int(high)

    def offset_at(self, partition: Partition, time_ms: int, timeout_secs: float) -> int:
        """Return the first offset with a timestamp at or after a time, or the end if there is none."""
        with self._asking() as consumer:
            (found,) = consumer.offsets_for_times([TopicPartition(*partition, time_ms)], timeout_secs)
        if found.offset in (OFFSET_END, OFFSET_BEGINNING) or found.offset < 0:
            return self.bounds(partition, timeout_secs)[1]
        return int(found.offset)

    def all_partitions(self, topics: Sequence[str], timeout_secs: float) -> set[Partition]:
        """Return all partitions of these topics, names and patterns, whoever owns them."""
        with self._asking() as consumer:
            return partitions_of(topics, consumer.list_topics(timeout=timeout_secs))

    def partition_count(self, topic: str, timeout_secs: float) -> int:
        """Return how many partitions a topic has."""
        with self._asking() as consumer:
            metadata = consumer.list_topics(topic, timeout_secs)
        return len(metadata.topics[topic].partitions)
