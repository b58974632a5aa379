"""Calls to the brokers that the reader must not wait for: reachability, permissions, and fetching at once.

They run in a thread of their own: the reader's thread has to keep polling, and the loaders' threads may be waiting for
the very brokers that are unreachable.
"""

from collections.abc import Callable, Collection
from concurrent.futures import Future, ThreadPoolExecutor

from connector.config.kafka import KafkaSettings
from connector.config.streams import StreamSettings
from connector.core.chunks import Partition
from connector.kafka import configs
from connector.kafka.errors import KafkaTroubleError
from connector.kafka.permissions import Permissions
from connector.kafka.reachability import REACH_SECS
from connector.kafka.source import Source

Sources = Collection[str | None]
"""What a stream reads from: topics, and None for the consumer group."""

RIGHTS_SECS = 5.0
"""Maximum duration of each call that checks permissions: one call, or three if the group is included."""


def may_read(kafka: KafkaSettings, stream: StreamSettings, client_id: str, of: Sources) -> Sources:
    """Return those of the sources that the stream may certainly read, checked with a temporary client."""
    try:
        permissions = Permissions(configs.asking(kafka, client_id), min(kafka.request_timeout_secs, RIGHTS_SECS))
    except KafkaTroubleError:
        return ()  # asked again later
    return permissions.may_read(of, group=stream.group, topics=[*stream.topics, stream.redrive_topic])


class BrokerQueries:
    """Queries the brokers for one stream's consumer; called from the reader's thread, blocks only in `close`.

    `may_read` returns those of some sources that may certainly be read; it may take its time.
    """

    def __init__(self, name: str, may_read: Callable[[Sources], Sources]) -> None:
        self._may_read = may_read
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"{name}-reach")
        self._asking: Future[bool] | None = None
        """The running check whether the consumer reaches any broker."""

    def finds_cut_off(self, source: Source) -> bool:
        """Check whether a silent consumer still reaches a broker; return True, once, if it never will."""
        if self._asking is None:
            if source.is_silent:
                self._asking = self._thread.submit(source.is_cut_off, REACH_SECS)
            return False
        if not self._asking.done():
            return False
        cut_off, self._asking = self._asking.result(), None
        return cut_off

    def ask_what_may_be_read(self, of: Sources) -> Future[Sources]:
        """Start to find out which of these may be read."""
        return self._thread.submit(self._may_read, of)

    def wake(self, source: Source, partitions: Collection[Partition]) -> None:
        """Fetch these partitions at once."""
        if partitions:
            self._thread.submit(source.wake, partitions)

    def close(self) -> None:
        """Wait for running calls: a call never returns if its consumer is closed meanwhile."""
        self._thread.shutdown(wait=True, cancel_futures=True)
