"""Reads topics once, from first offsets to known ends, without joining a group.

The end of a partition is what a `read_committed` reader may see when it is queried. So a scan ends whatever is written
meanwhile, and never waits for an open transaction. The scanner's group is only used to query commits, and to commit in
the transactions of its owner.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from itertools import chain, groupby
from typing import Any, Final

from confluent_kafka import (
    OFFSET_BEGINNING,
    OFFSET_END,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)

from connector.clock import now_ms
from connector.config.kafka import KafkaSettings
from connector.core.chunks import Chunk, Partition
from connector.core.ranges import Range
from connector.kafka import configs
from connector.kafka.call_thread import first_answer
from connector.kafka.commits import Committed, Membership, committed_of
from connector.kafka.configs import Config
from connector.kafka.errors import RetriableError, translate, translating
from connector.kafka.source import chunk_of

_topic: Any = Message.topic
_partition: Any = Message.partition
_error: Any = Message.error

CONSUME: Final = 1_000
"""Records per call. Measured: ten times as many, with some thirty headers each, no longer fit into the CPU cache, and a
redrive costs a fifth more."""

IDLE_TIMEOUT_SECS: Final = 60.0
"""A scan that received nothing for so long fails: brokers do not answer."""

ABORTS_EVERY_SECS: Final = 10.0
"""How often brokers look for transactions that timed out, by default
(`transaction.abort.timed.out.transaction.cleanup.interval.ms`)."""


def config_of(kafka: KafkaSettings, *, client_id: str, group: str) -> Config:
    """Return the properties of a scanner."""
    return {
        "fetch.queue.backoff.ms": 5,
        "queued.min.messages": 100_000,
        "queued.max.messages.kbytes": 65_536,
        "fetch.wait.max.ms": 50,
        **configs.common(kafka, client_id),
        **kafka.consumer_properties,
        "group.id": group,
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "auto.offset.reset": "error",
        "isolation.level": "read_committed",
        "enable.partition.eof": True,
    }


def until_aborted(kafka: KafkaSettings) -> float:
    """Return how long the transaction of a killed owner may stay open, in seconds, plus one request."""
    return kafka.transaction_timeout_secs + ABORTS_EVERY_SECS + kafka.request_timeout_secs


class NoSuchTopicError(Exception):
    """A topic that should be read does not exist."""


class Scanner:
    """Scans topics; not thread-safe. Methods raise `KafkaTroubleError`."""

    def __init__(self, config: Config, timeout_secs: float) -> None:
        self._config = {**config, "error_cb": lambda _: None}
        self._consumer = Consumer(self._config)
        self._timeout = timeout_secs
        self._has_abandoned_call = False

    def close(self) -> None:
        """Close the connections, unless a query was abandoned and is still running: that ends with the process."""
        if not self._has_abandoned_call:
            self._consumer.close()

    def partitions(self, topic: str) -> int | None:
        """Return how many partitions a topic has, None if it does not exist.

        This is the first call to the brokers.
        """
        try:
            found = first_answer(self._timeout, self._consumer.list_topics, topic, self._timeout).topics[topic]
        except KeyboardInterrupt:
            self._has_abandoned_call = True
            raise
        except KafkaException as error:
            raise translate(error, f"asking for topic {topic}") from error
        if found.error is not None:
            if found.error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
                return None
            raise translate(KafkaException(found.error), f"asking for topic {topic}")
        return len(found.partitions)

    def require(self, topic: str) -> None:
        """Raise `NoSuchTopicError` if a topic does not exist."""
        if self.partitions(topic) is None:
            raise NoSuchTopicError(f"topic {topic} does not exist")

    def spans(self, topic: str, *, since_ms: int | None = None) -> dict[Partition, Range]:
        """Return the offsets to read of each partition that is not empty; none for a topic that does not exist."""
        spans: dict[Partition, Range] = {}
        partitions = [Partition(topic, number) for number in range(self.partitions(topic) or 0)]
        starts = {} if since_ms is None else self._offsets_at(partitions, since_ms)
        for partition in partitions:
            low, high = self._ends(partition)
            low = max(low, starts.get(partition, low))
            if low < high:
                spans[partition] = (low, high)
        return spans

    def lacks(self, topic: str, since_ms: int) -> bool:
        """Return whether retention may have removed records of a topic that were written at or after a time."""
        ends = self.ends(topic)
        starts = self._offsets_at(list(ends), since_ms)
        return any(low > 0 and (low == high or starts.get(p, low) <= low) for p, (low, high) in ends.items())

    def cut_ms(self, ends: Mapping[Partition, Range]) -> int | None:
        """Return the time since which all records of topics with these ends exist, None if none was ever removed."""
        times = []
        for partition, (low, high) in ends.items():
            if low > 0:
                first_ms = self.first_ms(partition, (low, high)) if low < high else None
                times.append(now_ms() if first_ms is None else first_ms)
        return max(times, default=None)

    def offset_at(self, partition: Partition, time_ms: int) -> int:
        """Return the first offset with a timestamp at or after a time; beyond all offsets if there is none."""
        return self._offsets_at([partition], time_ms)[partition]

    def first_ms(self, partition: Partition, span: Range) -> int | None:
        """Return the timestamp of the first record of a span, None if it is empty."""
        first = next(self.read({partition: span}), None)
        return None if first is None or first.timestamps is None else first.timestamps[0]

    def written_ends(self, topic: str) -> dict[Partition, int]:
        """Return the offset after everything that was written to each partition, including open transactions."""
        partitions = [Partition(topic, number) for number in range(self.partitions(topic) or 0)]
        with closing(Consumer({**self._config, "isolation.level": "read_uncommitted"})) as consumer:
            return {partition: self._ends(partition, consumer)[1] for partition in partitions}

    def ends(self, topic: str) -> dict[Partition, Range]:
        """Return the offsets to read of each partition, including empty ones."""
        partitions = [Partition(topic, number) for number in range(self.partitions(topic) or 0)]
        return {partition: self._ends(partition) for partition in partitions}

    def _ends(self, partition: Partition, consumer: Consumer | None = None) -> Range:
        with translating(f"asking for the ends of {partition}"):
            low, high = (consumer or self._consumer).get_watermark_offsets(TopicPartition(*partition), self._timeout)
        return low, high

    def _offsets_at(self, partitions: list[Partition], time_ms: int) -> dict[Partition, int]:
        asked = [TopicPartition(*partition, max(time_ms, 0)) for partition in partitions]
        with translating("asking for offsets by time"):
            answers = self._consumer.offsets_for_times(asked, self._timeout) if asked else []
        found = {}
        for answer in answers:
            if answer.offset == OFFSET_END or answer.offset >= 0:
                # No record at or after that time: the span is empty.
                offset = (1 << 62) if answer.offset == OFFSET_END else answer.offset
                found[Partition(answer.topic, answer.partition)] = offset
            elif answer.offset != OFFSET_BEGINNING and answer.error is not None:
                raise translate(KafkaException(answer.error), "asking for offsets by time")
        return found

    def read(
        self, spans: Mapping[Partition, Range], *, should_stop: Callable[[], bool] = lambda: False
    ) -> Iterator[Chunk]:
        """Yield all records of the spans as chunks with timestamps; partitions are mixed, offsets of each ascend.

        Raises `RetriableError` once it should stop.
        """
        return chain.from_iterable(self.steps(spans, should_stop=should_stop))

    def steps(
        self, spans: Mapping[Partition, Range], *, should_stop: Callable[[], bool] = lambda: False
    ) -> Iterator[list[Chunk]]:
        """Yield the same in short steps, for a thread that has other things to do in between."""
        left = {partition: stop for partition, (_, stop) in spans.items()}
        if not left:
            return
        names = {partition.topic: partition.topic for partition in spans}
        # After a query for commits, librdkafka looks for unknown leaders only once a second: measured, a second until
        # the first record, and some milliseconds with this query.
        for topic in names:
            self.partitions(topic)
        self._consumer.assign([TopicPartition(*p, start) for p, (start, _) in spans.items()])
        answered_at = time.monotonic()
        try:
            while left:
                if should_stop():
                    raise RetriableError("it was stopped", "reading")
                messages = self._consumer.consume(CONSUME, 0.05)
                if messages:
                    answered_at = time.monotonic()
                elif time.monotonic() - answered_at > IDLE_TIMEOUT_SECS:
                    where = ", ".join(map(str, left))
                    raise RetriableError(f"nothing came within {IDLE_TIMEOUT_SECS:g} s from {where}", "reading")
                yield list(self._sorted(messages, left, names))
        except KafkaException as error:
            raise translate(error, "reading") from error
        finally:
            self._consumer.unassign()

    def _sorted(self, messages: list[Message], left: dict[Partition, int], names: Mapping[str, str]) -> Iterator[Chunk]:
        """Yield the records within the spans, and remove from `left` what is completely read."""
        if any(map(_error, messages)):
            good = [message for message in messages if message.error() is None]
            ended = [message for message in messages if message.error() is not None]
        else:
            good, ended = messages, []
        start = 0
        for (topic, number), run in groupby(zip(map(_topic, good), map(_partition, good), strict=True)):
            stop = start + len(list(run))
            partition = Partition(names[topic], number)
            end = left.get(partition)
            if end is not None:
                chunk = chunk_of(good[start:stop], partition, 0, keep_timestamps=True)
                last = chunk.offsets[-1]
                if last >= end - 1:
                    del left[partition]
                    chunk = chunk.slice(0, sum(offset < end for offset in chunk.offsets)) if last >= end else chunk
                if len(chunk):
                    yield chunk
            start = stop
        for message in ended:
            self._note_end(message, left)

    def _note_end(self, message: Message, left: dict[Partition, int]) -> None:
        """Remove a partition whose last offsets are markers or aborted records, which no reader sees."""
        error = message.error()
        assert error is not None
        topic, number, offset = message.topic(), message.partition(), message.offset()
        if error.code() != KafkaError._PARTITION_EOF:  # noqa: SLF001 (librdkafka's own name)
            trouble = translate(KafkaException(error), "reading")
            if trouble.unreachable and not error.fatal():
                return
            raise trouble
        if topic is not None and number is not None and offset is not None:
            partition = Partition(topic, number)
            if offset >= left.get(partition, offset + 1):
                del left[partition]

    # ------------------------------------------------------------------ the group

    def committed(
        self, partitions: Iterable[Partition], *, within_secs: float | None = None
    ) -> dict[Partition, Committed]:
        """Return the commits of the scanner's group, after waiting for open transactions with commits.

        That takes no longer than one request, unless `within_secs` is given: see `until_aborted`.
        """
        asked = [TopicPartition(*partition) for partition in partitions]
        if not asked:
            return {}
        deadline = time.monotonic() + (self._timeout if within_secs is None else within_secs)
        while True:
            try:
                return committed_of(self._consumer.committed(asked, self._timeout))
            except KafkaException as error:
                trouble = translate(error, "asking for what is committed")
                if not isinstance(trouble, RetriableError) or time.monotonic() > deadline:
                    raise trouble from error
            time.sleep(0.2)

    def membership(self) -> Membership:
        """Return the group, which has no members, as a transaction needs it."""
        return Membership(self._consumer.consumer_group_metadata())


@contextmanager
def scanning(kafka: KafkaSettings, *, client_id: str, group: str) -> Iterator[Scanner]:
    """Provide a scanner, and close it."""
    scanner = Scanner(config_of(kafka, client_id=client_id, group=group), kafka.request_timeout_secs)
    try:
        yield scanner
    finally:
        scanner.close()
