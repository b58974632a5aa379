"""What the reader has asked of brokers without waiting for the answer: to be reached, to be let in, and to be quick.

In a thread of its own: the reader's has to go on polling, and those that look up beginnings may wait for the very
brokers that are away.
"""

from collections.abc import Callable, Collection
from concurrent.futures import Future, ThreadPoolExecutor

from connector.config.kafka import KafkaSettings
from connector.config.streams import StreamSettings
from connector.core.chunks import Partition
from connector.kafka import configs
from connector.kafka.errors import KafkaTroubleError
from connector.kafka.permissions import Permissions
from connector.kafka.reach import REACH_SECS
from connector.kafka.source import Source

Sources = Collection[str | None]
"""What is read from: topics, and None for the group."""

RIGHTS_SECS = 5.0
"""How long each of the calls may take, at most, by which it is asked what may be read: one, or with the group three."""


def may_read(kafka: KafkaSettings, stream: StreamSettings, client_id: str, of: Sources) -> Sources:
    """Return which of these a stream may surely read; a client of its own asks, which is gone afterwards."""
    try:
        permissions = Permissions(configs.asking(kafka, client_id), min(kafka.request_timeout_secs, RIGHTS_SECS))
    except KafkaTroubleError:
        return ()  # it is asked again
    return permissions.may_read(of, group=stream.group, topics=[*stream.topics, stream.redrive_topic])


class Asker:
    """Asks the brokers of one stream's consumer; called by the reader's thread, and never waits before `close`.

    `may_read` returns which of some sources may surely be read, and may take its time.
    """

    def __init__(self, name: str, may_read: Callable[[Sources], Sources]) -> None:
        self._may_read = may_read
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"{name}-reach")
        self._asking: Future[bool] | None = None
        """The question whether the consumer reaches anybody, while it is asked."""

    def finds_cut_off(self, source: Source) -> bool:
        """Have a consumer that brings nothing asked whether it reaches a broker; tell once if one never will."""
        if self._asking is None:
            if source.is_silent:
                self._asking = self._thread.submit(source.is_cut_off, REACH_SECS)
            return False
        if not self._asking.done():
            return False
        cut_off, self._asking = self._asking.result(), None
        return cut_off

    def ask_what_may_be_read(self, of: Sources) -> Future[Sources]:
        """Have it asked which of these may be read."""
        return self._thread.submit(self._may_read, of)

    def wake(self, source: Source, partitions: Collection[Partition]) -> None:
        """Have these fetched at once."""
        if partitions:
            self._thread.submit(source.wake, partitions)

    def close(self) -> None:
        """Wait for what is asked: a call that the consumer is closed under never returns."""
        self._thread.shutdown(wait=True, cancel_futures=True)
