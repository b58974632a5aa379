"""Topics from the outside: create, fill, read back. Shares no code with the connector, which it checks."""

import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Final, NamedTuple

from confluent_kafka import (
    Consumer,
    IsolationLevel,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._listoffsets import OffsetSpec
from confluent_kafka.admin._metadata import TopicMetadata
from confluent_kafka.cimpl import NewTopic

Headers = Sequence[tuple[str, bytes | None]]
Properties = Mapping[str, str | int | float | bool]
"""librdkafka properties, for instance for security; they override those that are set here."""

_REQUEST_TIMEOUT_SECS: Final = 30
_LEADER_TIMEOUT_SECS: Final = 5
_EARLIEST: Final = OffsetSpec.earliest()  # type: ignore[no-untyped-call] # theirs
_LATEST: Final = OffsetSpec.latest()  # type: ignore[no-untyped-call] # theirs
_MAY_CREATE: Final[Properties] = {"allow.auto.create.topics": True}
_CONSUME: Final = 10_000  # records per call
# With librdkafka's defaults, a reader waits a second whenever its queue was full.
_FAST_READER: Final[Properties] = {"fetch.queue.backoff.ms": 5, "queued.min.messages": 200_000, "fetch.wait.max.ms": 50}
_FAST_PRODUCER: Final[Properties] = {
    "enable.idempotence": True,
    "linger.ms": 20,
    "batch.size": 1_000_000,
    "queue.buffering.max.messages": 1_000_000,
}


_LEADERLESS: Final = frozenset(
    {
        KafkaError._NOENT,  # noqa: SLF001 - the library names its own errors so
        KafkaError._TIMED_OUT,  # noqa: SLF001
        KafkaError._TRANSPORT,  # noqa: SLF001
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.UNKNOWN_LEADER_EPOCH,
        KafkaError.FENCED_LEADER_EPOCH,
        KafkaError.OFFSET_NOT_AVAILABLE,
    }
)
"""Errors about a partition without a leader, as after a restart, and of a client that does not reach it."""


class Record(NamedTuple):
    """A record to produce."""

    value: bytes | None
    key: bytes | None = None
    headers: Headers = ()


class Position(NamedTuple):
    """The position of a record."""

    topic: str
    partition: int
    offset: int


class Topics:
    """Creates topics with new names on one broker, fills and reads them, and deletes those that it created."""

    def __init__(self, bootstrap_servers: str, *, prefix: str = "test", auto_created: bool = False) -> None:
        """`auto_created`: ask for the topic instead of creating it, as librdkafka's mock cluster wants it."""
        self._admin = AdminClient(_client(bootstrap_servers))
        self._prefix = prefix
        self._auto_created = auto_created
        self._bootstrap_servers = bootstrap_servers
        self._made: list[str] = []

    def name(self, purpose: str = "topic") -> str:
        """Return a name that no other topic has."""
        return f"{self._prefix}.{purpose}.{uuid.uuid4().hex[:8]}"

    def create(
        self, purpose: str = "topic", *, partitions: int = 1, config: Mapping[str, str] | None = None, name: str = ""
    ) -> str:
        """Create a topic and return its name (`<prefix>.<purpose>.<random>` unless given) once it can be used.

        Raises `KafkaException` if the broker refuses.
        """
        topic = name or self.name(purpose)
        if self._auto_created:
            asker = Consumer({**_client(self._bootstrap_servers), "group.id": "topics", **_MAY_CREATE})
            asker.list_topics(topic, timeout=_REQUEST_TIMEOUT_SECS)
            asker.close()
        else:
            order = NewTopic(topic, num_partitions=partitions, replication_factor=-1, config=dict(config or {}))
            self._order(order)
            self._made.append(topic)
        self._wait_for_leaders(topic)
        return topic

    def _order(self, order: NewTopic) -> None:
        deadline = time.monotonic() + _REQUEST_TIMEOUT_SECS
        while True:
            try:
                self._admin.create_topics([order])[order.topic].result(_REQUEST_TIMEOUT_SECS)
            except KafkaException as error:
                # A broker that has just started, or whose heartbeat is late, does not count for a moment.
                too_few = error.args[0].code() == KafkaError.INVALID_REPLICATION_FACTOR
                if not too_few or time.monotonic() > deadline:
                    raise
                time.sleep(0.2)
            else:
                return

    def delete(self, *topics: str) -> None:
        """Delete topics, and return when they are gone; missing ones are ignored."""
        if not topics:
            return
        for topic, deletion in self._admin.delete_topics(list(topics)).items():
            try:
                deletion.result(_REQUEST_TIMEOUT_SECS)
            except KafkaException as error:
                if error.args[0].code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                    raise
            if topic in self._made:
                self._made.remove(topic)
        self._wait_for_metadata(lambda there: there.keys().isdisjoint(topics), f"{', '.join(topics)} are still there")

    def delete_all(self) -> None:
        """Delete every topic that was created here."""
        self.delete(*self._made)

    def produce(self, topic: str, records: Iterable[Record], *, partition: int | None = None) -> list[Position]:
        """Produce records and return their positions; see the function of that name."""
        return produce(self._bootstrap_servers, topic, records, partition=partition)

    def read(self, topic: str, *, timeout_secs: float = 60) -> list[Message]:
        """Return a topic's records, partition by partition in order of offset; see `read_topic`."""
        chunks = read_topic(self._bootstrap_servers, topic, timeout_secs=timeout_secs)
        return sorted((message for chunk in chunks for message in chunk), key=position_of)

    def ends(self, topic: str) -> dict[int, int]:
        """Return the next offset of each partition, including open transactions: a cheap way to see it grow."""
        deadline = time.monotonic() + _REQUEST_TIMEOUT_SECS
        return _offsets(_client(self._bootstrap_servers), topic, _LATEST, deadline, self._admin)

    def _wait_for_leaders(self, topic: str) -> None:
        """Wait until every partition has a leader, which is after the creation was answered."""

        def has_leaders(there: dict[str, TopicMetadata]) -> bool:
            partitions = there[topic].partitions.values() if topic in there else ()
            return bool(partitions) and all(partition.leader >= 0 for partition in partitions)

        self._wait_for_metadata(has_leaders, f"{topic} has no leaders")

    def _wait_for_metadata(self, wanted: Callable[[dict[str, TopicMetadata]], bool], unmet: str) -> None:
        deadline = time.monotonic() + _REQUEST_TIMEOUT_SECS
        while not wanted(self._admin.list_topics(timeout=_REQUEST_TIMEOUT_SECS).topics):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{unmet} after {_REQUEST_TIMEOUT_SECS} s")
            time.sleep(0.02)


def produce(
    bootstrap_servers: str,
    topic: str,
    records: Iterable[Record],
    *,
    partition: int | None = None,
    acknowledged: Callable[[int, Position], None] | None = None,
    properties: Properties | None = None,
) -> list[Position]:
    """Produce records, each exactly once, and return their positions in the order of the records.

    Without `partition` they go round robin over all of the topic's. With `acknowledged`, each record's index and
    position are passed to it as the broker acknowledges them, and the list stays empty: for millions of records. Raises
    `KafkaException` for the first record that could not be delivered.
    """
    positions: dict[int, Position] = {}
    note = acknowledged or positions.__setitem__

    def delivered(index: int, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            raise KafkaException(error)  # out of the call that serves the producer
        note(index, position_of(message))

    producer = Producer({**_client(bootstrap_servers), **_FAST_PRODUCER, **(properties or {})})
    partitions = len(producer.list_topics(topic, timeout=_REQUEST_TIMEOUT_SECS).topics[topic].partitions)
    for index, record in enumerate(records):
        number = index % partitions if partition is None else partition
        on_delivery = partial(delivered, index)
        headers: list[tuple[str, str | bytes | None]] | None = list(record.headers) or None
        while True:
            try:
                producer.produce(topic, record.value, record.key, number, on_delivery, headers=headers)
            except BufferError:  # the queue is full: let the broker catch up
                producer.poll(0.1)
            else:
                break
        if index % 1_000 == 0:
            producer.poll(0)
    if left := producer.flush(_REQUEST_TIMEOUT_SECS):
        raise TimeoutError(f"{left} records for {topic} are not acknowledged after {_REQUEST_TIMEOUT_SECS} s")
    return [position for _, position in sorted(positions.items())]


def position_of(message: Message) -> Position:
    """Return the position of a delivered or consumed message."""
    topic, partition, offset = message.topic(), message.partition(), message.offset()
    assert topic is not None
    assert partition is not None
    assert offset is not None
    return Position(topic, partition, offset)


def read_topic(bootstrap_servers: str, topic: str, *, timeout_secs: float = 60) -> Iterator[list[Message]]:
    """Yield a topic's committed records in chunks, from the first to the end at the time of the call.

    It waits for transactions that are open below that end: their records are then read, or known to be aborted. Raises
    `TimeoutError` if the end is not reached in `timeout_secs`, `KafkaException` for errors.
    """
    own: Properties = {
        "group.id": "reader",  # never joined, never committed to
        "enable.auto.commit": False,
        "isolation.level": "read_committed",
        "auto.offset.reset": "error",
        "enable.partition.eof": True,
    }
    consumer = Consumer({**_client(bootstrap_servers), **own, **_FAST_READER})
    try:
        deadline = time.monotonic() + timeout_secs
        # A consumer's own query would stop at the first open transaction.
        asking = _client(bootstrap_servers)
        admin = _acquainted(asking)
        starts, ends = (_offsets(asking, topic, spec, deadline, admin) for spec in (_EARLIEST, _LATEST))
        left = {number: end for number, end in ends.items() if starts[number] < end}
        # A consumer that knows no leaders looks for them only once a second.
        with suppress(KafkaException):  # it goes on looking
            consumer.list_topics(topic, timeout=_LEADER_TIMEOUT_SECS)
        consumer.assign([TopicPartition(topic, number, starts[number]) for number in left])
        while left:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{topic}: the ends {left} are not reached within {timeout_secs:g} s")
            messages = consumer.consume(_CONSUME, timeout=0.02)
            chunk = [message for message in messages if _is_below_end(message, left)]
            if chunk:
                yield chunk
    finally:
        consumer.close()


def _offsets(asking: Properties, topic: str, spec: OffsetSpec, deadline: float, admin: AdminClient) -> dict[int, int]:
    """Return an offset for each partition, including open transactions.

    Waits for leaders: after a restart, a broker has none for a moment. Each retry uses a new client, since one that
    knows a leader from before an election uses the old epoch, and one whose broker was frozen may reach it no more.
    """
    while True:
        try:
            partitions = _partitions(admin, topic)
            # A leader that is down does not answer until the others have elected another one.
            answers = admin.list_offsets(
                {TopicPartition(topic, number): spec for number in partitions},
                isolation_level=IsolationLevel.READ_UNCOMMITTED,
                request_timeout=_LEADER_TIMEOUT_SECS,
            )
            return {at.partition: result.result(_REQUEST_TIMEOUT_SECS).offset for at, result in answers.items()}
        except KafkaException as error:
            if error.args[0].code() not in _LEADERLESS or time.monotonic() > deadline:
                raise
        time.sleep(0.2)
        admin = _acquainted(asking)


def _partitions(admin: AdminClient, topic: str) -> list[int]:
    found = admin.list_topics(topic, timeout=_LEADER_TIMEOUT_SECS).topics[topic]
    if found.error is not None:
        raise KafkaException(found.error)
    return list(found.partitions)


def _acquainted(asking: Properties) -> AdminClient:
    """Return a client that knows the brokers.

    A client that does not, and is asked for offsets, queries leaders over the connection that it closes as soon as it
    has learned of the brokers. If that query is lost, it retries after one second or three: measured on a busy machine,
    one time in five.
    """
    admin = AdminClient(dict(asking))
    with suppress(KafkaException):  # the query for offsets will report the error
        admin.list_topics(timeout=_LEADER_TIMEOUT_SECS)
    return admin


def _is_below_end(message: Message, left: dict[int, int]) -> bool:
    """Return whether to keep a consumer's message; remove partitions from `left` that are completely read.

    The last offsets may be transaction markers or aborted records, which no reader sees: there, an event shows that
    nothing is left to fetch.
    """
    _, partition, offset = position_of(message)
    error = message.error()
    if error is not None:
        if error.code() != KafkaError._PARTITION_EOF:  # noqa: SLF001 - the library names its own events so
            raise KafkaException(error)
        if offset >= left.get(partition, 0):
            left.pop(partition, None)
        return False
    end = left.get(partition, 0)
    if offset >= end - 1:
        left.pop(partition, None)
    return offset < end


def _client(bootstrap_servers: str) -> dict[str, str | int | float | bool]:
    # Silent, since errors are raised, and with short backoff: brokers are stopped and killed under these clients.
    return {"bootstrap.servers": bootstrap_servers, "log_level": 2, "reconnect.backoff.max.ms": 200}
