"""Errors of Kafka, classified by how we must react."""

from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import TypeVar

from confluent_kafka import KafkaError, KafkaException

_T = TypeVar("_T")

UNTIL_GIVEN_UP_SECS = 3600.0
"""Timeout for librdkafka of what a group's coordinator is asked: its maximum, so that `answer` ends the wait.

librdkafka (2.15) releases a request twice that it timed out itself before it found the coordinator, once it does find
it: the process is aborted by an assertion (librdkafka's issue 4605).
"""

_AUTHORIZATION = frozenset(
    {
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
    }
)
REJECTIONS = frozenset({KafkaError._AUTHENTICATION, KafkaError._SSL, KafkaError.SASL_AUTHENTICATION_FAILED})  # noqa: SLF001
"""Causes for which a broker closes the connection, or we do: only `error_cb` and the client's log are told."""
_FENCED = frozenset({KafkaError._FENCED, KafkaError.PRODUCER_FENCED, KafkaError.INVALID_PRODUCER_EPOCH})  # noqa: SLF001
_GONE = frozenset({KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION})  # noqa: SLF001
_UNANSWERED = frozenset(
    {
        KafkaError._TIMED_OUT,  # noqa: SLF001
        KafkaError._MSG_TIMED_OUT,  # noqa: SLF001
        # Reported for records of a transaction that timed out before they were sent at all.
        KafkaError._PURGE_QUEUE,  # noqa: SLF001
        KafkaError._PURGE_INFLIGHT,  # noqa: SLF001
    }
)
_TIMED_OUT = _UNANSWERED | {KafkaError.REQUEST_TIMED_OUT}
_ENDED = frozenset({KafkaError._FATAL, KafkaError.INVALID_PRODUCER_ID_MAPPING})  # noqa: SLF001
"""What ends a producer without the library's mark for it: `produce` names its end without, and a coordinator forgets an
id after a week without a transaction (`transactional.id.expiration.ms`). librdkafka (2.15) calls for an abort then, and
fails again after each."""
_TOO_LARGE = frozenset({KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.RECORD_LIST_TOO_LARGE})
"""For the topic, or for one of its segments."""
_UNFIT = frozenset({KafkaError.INVALID_RECORD, KafkaError.INVALID_TIMESTAMP, KafkaError.POLICY_VIOLATION})
"""Topics have rules: a compacted one accepts no record without a key, and none accepts times far ahead of its own."""

_AGAIN = frozenset(
    {
        KafkaError._TIMED_OUT,  # noqa: SLF001
        KafkaError._TRANSPORT,  # noqa: SLF001
        # The call was waiting for a broker that a newer answer about the cluster does not name.
        KafkaError._DESTROY_BROKER,  # noqa: SLF001
        KafkaError.REQUEST_TIMED_OUT,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        KafkaError.NOT_COORDINATOR,
    }
)

_UNREACHABLE = _AGAIN | {
    KafkaError._ALL_BROKERS_DOWN,  # noqa: SLF001
    KafkaError._RESOLVE,  # noqa: SLF001
    KafkaError._WAIT_COORD,  # noqa: SLF001
    KafkaError._MSG_TIMED_OUT,  # noqa: SLF001
    KafkaError._PURGE_QUEUE,  # noqa: SLF001
    KafkaError._PURGE_INFLIGHT,  # noqa: SLF001
    KafkaError.BROKER_NOT_AVAILABLE,
    # The previous transaction has not ended yet, for instance because too few replicas are in sync.
    KafkaError.CONCURRENT_TRANSACTIONS,
    KafkaError.KAFKA_STORAGE_ERROR,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.NETWORK_EXCEPTION,
    KafkaError.NOT_ENOUGH_REPLICAS,
    KafkaError.NOT_ENOUGH_REPLICAS_AFTER_APPEND,
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.REPLICA_NOT_AVAILABLE,
    KafkaError.UNSTABLE_OFFSET_COMMIT,
}


class KafkaTroubleError(Exception):
    """Kafka did not do what was asked; `code` is librdkafka's name for the cause."""

    def __init__(self, error: "KafkaError | KafkaTroubleError | str", doing: str = "") -> None:
        text = error.str() if isinstance(error, KafkaError) else str(error)
        super().__init__(f"{doing}: {text}" if doing else text)
        if isinstance(error, KafkaTroubleError):
            self.__dict__.update(error.__dict__)
            return
        self.code = error.name() if isinstance(error, KafkaError) else "LOCAL"
        number = error.code() if isinstance(error, KafkaError) else 0
        self.unauthorized = number in _AUTHORIZATION
        self.rejected = number in REJECTIONS
        """A password or a certificate is not accepted, ours or the broker's; clients read new ones when they start."""
        # A consumer that cannot continue gives the cause only as text.
        self.fenced = number in _FENCED or (number == KafkaError._FATAL and "fenced" in text)  # noqa: SLF001
        self.topic_gone = number in _GONE
        self.timed_out = number in _TIMED_OUT
        self.unanswered = number in _UNANSWERED
        """No broker answered within the timeout of the call or of the records."""
        self.group_is_classic = number == KafkaError._FATAL and "group id does not exist" in text  # noqa: SLF001
        """A member with the newer protocol cannot join its group, because that has members with the classic one."""
        self.unreachable = number in _UNREACHABLE or self.group_is_classic
        """Brokers, a leader or a coordinator are unreachable or not working: restarting us would not help."""
        self.too_large = number in _TOO_LARGE
        self.metadata_too_large = number == KafkaError.OFFSET_METADATA_TOO_LARGE
        self.unfit = number in _UNFIT
        """The topic does not accept such records, whatever their size."""


class RetriableError(KafkaTroubleError):
    """The call may be repeated; whether it took effect is unknown."""


class AbortableError(KafkaTroubleError):
    """The transaction must be aborted; another one may follow at once."""


class FatalError(KafkaTroubleError):
    """This producer or consumer cannot continue; a new one may."""


def translate(exception: KafkaException, doing: str = "") -> KafkaTroubleError:
    """Return librdkafka's exception as one of ours; `doing` says what was tried, and begins the message."""
    error: KafkaError = exception.args[0]
    if error.fatal() or error.code() in _ENDED:
        return FatalError(error, doing)
    if error.txn_requires_abort():
        return AbortableError(error, doing)
    if error.retriable() or error.code() in _AGAIN:
        return RetriableError(error, doing)
    return AbortableError(error, doing)


@contextmanager
def translating(doing: str = "") -> Iterator[None]:
    """Raise librdkafka's exceptions as ours: see `translate`."""
    try:
        yield
    except KafkaException as error:
        raise translate(error, doing) from error


def answer(future: "Future[_T]", timeout_secs: float, doing: str) -> _T:
    """Return the result of an admin call; raises `RetriableError` on timeout."""
    try:
        return future.result(timeout_secs)
    except TimeoutError as error:  # librdkafka's own timeout does not run while it looks for a coordinator
        raise RetriableError(KafkaError(KafkaError._TIMED_OUT), doing) from error  # noqa: SLF001
    except KafkaException as error:
        raise translate(error, doing) from error
