"""Writes results and commits progress: the producer of one stream, with transactions or, at-least-once, without.

A caller calls `begin`, any number of `write_*`, optionally `flush`, then `commit`. Errors are ours: after
`AbortableError` call `abort`, after `RetriableError` from `commit` call `commit` again, after `FatalError` create a new
publisher.
"""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice, repeat
from operator import length_hint
from typing import Any, Final, TypeVar, cast

from confluent_kafka import KafkaError, KafkaException, Producer, TopicPartition

from connector.core.chunks import Headers, Partition
from connector.kafka.call_thread import CallThread
from connector.kafka.commits import Membership
from connector.kafka.configs import Config
from connector.kafka.errors import AbortableError, FatalError, KafkaTroubleError, RetriableError, translate
from connector.kafka.source import Source

_T = TypeVar("_T")

_UNSPECIFIC: Final = frozenset({"_STATE", "_INCONSISTENT"})
"""Errors that only say that something failed earlier in the transaction."""

_PURGED: Final = frozenset({KafkaError._PURGE_QUEUE, KafkaError._PURGE_INFLIGHT})  # noqa: SLF001
"""Also reported for records behind the one that failed: any other report says more."""

Offsets = dict[Partition, tuple[int, str]]


class Publisher(ABC):
    """Where a tick writes to: a producer, and what both kinds of it share."""

    def __init__(self, config: Config) -> None:
        self._failed: KafkaError | None = None
        self._producer = Producer({**config, "error_cb": lambda _: None})

    @abstractmethod
    def start(self, timeout_secs: float) -> None:
        """Get ready; with transactions, end those that an earlier worker with the same id left open."""

    def begin(self) -> None:
        """Begin a tick."""
        self._failed = None

    @abstractmethod
    def commit(self, offsets: Offsets, group: Membership, timeout_secs: float) -> None:
        """Make the tick durable: its records first, then, or together with them, its offsets."""

    @abstractmethod
    def abort(self, timeout_secs: float) -> None:
        """Take the tick back."""

    def close(self) -> None:
        """Discard the producer, with everything it still holds."""
        self._producer.purge(in_queue=True, in_flight=True, blocking=False)

    def write_batch(
        self,
        topic: str,
        partition: int,
        values: Sequence[str],
        keys: Sequence[bytes | None] | None,
        headers: Headers | None = None,
    ) -> None:
        """Write records to a partition, or by key if `partition` is -1; `headers` are added to each record."""
        done = 0
        for _ in range(1_000):
            rest = iter(values[done:])
            watched = max(self._watched(len(values)) - done, 0)
            try:
                self._produce((topic, partition), islice(rest, watched), keys and keys[done:], headers, self._report)
                self._produce((topic, partition), rest, keys and keys[done + watched :], headers, None)
            except BufferError:
                done = len(values) - length_hint(rest) - 1  # the one without room was already taken off `rest`
                self._call(self._producer.poll, 0.05)
            except KafkaException as error:
                raise self._reason(translate(error)) from error
            else:
                return
        raise AbortableError("the producer's queue stays full")

    def _produce(
        self,
        where: tuple[str, int],
        values: Iterator[str],
        keys: Sequence[bytes | None] | None,
        headers: Headers | None,
        report: Callable[..., None] | None,
    ) -> None:
        """Pass records to librdkafka, with one call for each, made in C.

        Measured: a fifth less than `produce_batch` and its dicts; each further argument takes some 10 ns.
        """
        topic, partition = where
        those: Iterable[bytes | None] = repeat(None) if keys is None else keys
        columns: list[Iterable[Any]] = [repeat(topic), values, those, repeat(partition)]
        if report is not None or headers is not None:
            columns.append(repeat(report))
        if headers is not None:  # before them: the callback's other name, and timestamp 0 (now)
            columns += [repeat(None), repeat(0), repeat(headers)]
        deque(map(self._producer.produce, *columns), maxlen=0)

    def _watched(self, count: int) -> int:
        """Return for how many of `count` records, the first ones, delivery is reported."""
        return count

    def write(
        self,
        topic: str,
        partition: int,
        *,
        key: bytes | None,
        value: bytes | None,
        headers: Headers,
        timestamp_ms: int = 0,
    ) -> None:
        """Write one record with headers; a timestamp of 0 is the time of writing."""
        for _ in range(1_000):
            try:
                self._producer.produce(
                    topic,
                    value=value,
                    key=key,
                    partition=partition,
                    headers=cast("Any", headers),
                    on_delivery=self._report,
                    timestamp=timestamp_ms,
                )
            except BufferError:
                self._call(self._producer.poll, 0.05)
            except KafkaException as error:
                raise self._reason(translate(error)) from error
            else:
                return
        raise AbortableError("the producer's queue stays full")

    def flush(self, timeout_secs: float) -> bool:
        """Wait for the delivery of what was written, at most so long; return whether nothing is left."""
        return self._call(self._producer.flush, timeout_secs) == 0

    def _call(self, function: Callable[..., _T], *arguments: object) -> _T:
        """Call librdkafka and translate its errors.

        A fatal error is raised by any call that notices it while it serves delivery reports: directly, as the cause of
        a SystemError if another report is served after it, or as a SystemError without a cause if the library loses it.
        """
        try:
            return function(*arguments)
        except KafkaException as error:
            raise self._reason(translate(error)) from error
        except SystemError as error:
            if "without setting an exception" in str(error):
                raise self._end() from error
            if not isinstance(error.__cause__, KafkaException):
                raise
            raise self._reason(translate(error.__cause__)) from error

    def _end(self) -> KafkaTroubleError:
        """Return why the producer cannot continue."""
        return FatalError(KafkaError(KafkaError._FATAL))  # noqa: SLF001

    def _reason(self, error: KafkaTroubleError) -> KafkaTroubleError:
        """Return a failed delivery instead of an error that only says that there was one."""
        if error.code not in _UNSPECIFIC or self._failed is None:
            return error
        failed, self._failed = self._failed, None
        return AbortableError(failed)

    def _report(self, error: KafkaError | None, _message: object) -> None:
        if error is not None and (self._failed is None or self._failed.code() in _PURGED):
            self._failed = error

    def _raise_failed(self) -> None:
        failed, self._failed = self._failed, None
        if failed is not None:
            raise AbortableError(failed)


GRACE_SECS: Final = 1.0
"""What a call may take beyond its timeout."""

METADATA_SECS: Final = 1.0
"""Timeout for querying the brokers while a call waits for one of them."""


class TransactionalPublisher(Publisher):
    """Records, offsets and progress in one transaction. `topic` is an existing topic that is written to."""

    def __init__(self, config: Config, topic: str | None = None) -> None:
        super().__init__(config)
        self._topic = topic
        self._call_thread = CallThread("offsets")
        self._brokers: set[int] = set()
        """Broker ids at the last query."""

    def _watched(self, count: int) -> int:  # noqa: ARG002 (the signature of the base class)
        """Return 1: delivery is reported for the first record only.

        A record that is not delivered fails the transaction anyway. Each report needs the interpreter lock; one per
        batch is enough for the cause, because all records of a produce request share their fate, and those queued
        behind it are purged.
        """
        return 1

    def start(self, timeout_secs: float) -> None:
        """Take over the transactional id; a transaction left open under it is ended first."""
        if self._topic is not None:
            # The first answer tells librdkafka the brokers, the second waits until one is connected. Measured: if none
            # is when transactions are initialised, it waits half a second before it looks again.
            for _ in range(2):
                found = self._call(self._producer.list_topics, self._topic, timeout_secs)
                if not found.brokers:  # this producer will never reach any: see `reachability`
                    raise RetriableError("no broker is named", "asking for the brokers")
                self._brokers = set(found.brokers)
        self._call(self._producer.init_transactions, timeout_secs)

    def begin(self) -> None:
        """Begin a transaction."""
        super().begin()
        self._call(self._producer.begin_transaction)

    def _reason(self, error: KafkaTroubleError) -> KafkaTroubleError:
        """Return why the transaction failed, if a call only says that it did."""
        if error.code == "_STATE" and (kept := self._remembered_error()) is not None and kept.txn_requires_abort():
            return translate(KafkaException(kept))
        return super()._reason(error)

    def _end(self) -> KafkaTroubleError:
        """Return why the producer cannot continue."""
        kept = self._remembered_error()
        return FatalError(kept) if kept is not None and kept.fatal() else super()._end()

    def _remembered_error(self) -> KafkaError | None:
        """Return the cause of failure that librdkafka remembers.

        It is the error of `begin_transaction`, which is not allowed before an abort or after a fatal error.
        """
        try:
            self._producer.begin_transaction()
        except KafkaException as told:
            kept: KafkaError = told.args[0]
            return kept
        return None

    def commit(self, offsets: Offsets, group: Membership, timeout_secs: float) -> None:
        """Add the offsets and commit; repeated after a `RetriableError`, then without offsets."""
        if offsets:
            try:
                self._call(self._send_offsets, group.positions(offsets), group.metadata, timeout_secs)
            except RetriableError as error:
                # librdkafka has retried within the timeout; nothing is committed, so an abort is safe.
                raise AbortableError(error) from error
        self._call(self._producer.commit_transaction, timeout_secs)

    def abort(self, timeout_secs: float) -> None:
        """Abort the transaction."""
        self._failed = None
        self._call(self._producer.abort_transaction, timeout_secs)

    def _send_offsets(self, positions: list[TopicPartition], group: bytes, timeout_secs: float) -> None:
        """Add offsets in another thread, which is abandoned if the call does not return.

        Whatever its timeout, librdkafka waits forever for a group coordinator that it knows and that has left the
        cluster, as in an orderly shutdown (its issues 5456 and 5511), and if no broker is left to ask for another one:
        see `reachability`. Giving up costs only a new producer, so the call gets half the time.
        """
        half = timeout_secs / 2
        send = self._producer.send_offsets_to_transaction
        self._call_thread.call(half + GRACE_SECS, send, positions, group, half, should_cancel=self._has_lost_a_broker)

    def _has_lost_a_broker(self) -> bool:
        """Return whether a broker has left since the last query."""
        if self._topic is None:
            return False
        try:
            named = set(self._producer.list_topics(self._topic, timeout=METADATA_SECS).brokers)
        except KafkaException:
            return False
        lost, self._brokers = self._brokers - named, named
        return bool(lost)


class PlainPublisher(Publisher):
    """Flushes records, then commits offsets: at-least-once, for brokers or principals without transactions."""

    def __init__(self, config: Config, source: Source) -> None:
        super().__init__(config)
        self._source = source

    def start(self, timeout_secs: float) -> None:
        """Do nothing: there is nothing to take over."""

    def commit(self, offsets: Offsets, group: Membership, timeout_secs: float) -> None:
        """Flush the records, then commit the offsets; a failure in between repeats records, and never loses any."""
        if not self.flush(timeout_secs):
            self._raise_failed()
            raise AbortableError(KafkaError(KafkaError._TIMED_OUT), "writing the results")  # noqa: SLF001
        self._raise_failed()
        try:
            self._source.commit(offsets, group, timeout_secs)
        except FatalError:
            raise
        except KafkaTroubleError as error:
            raise AbortableError(error) from error

    def abort(self, timeout_secs: float) -> None:
        """Discard what is still queued."""
        self._producer.purge(in_queue=True, in_flight=True, blocking=True)
        self._call(self._producer.flush, timeout_secs)  # serves the reports, which must not count for the next tick
