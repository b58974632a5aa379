"""What the reader has asked of brokers without waiting for the answer: whether they are reached, and to be quick.

In a thread of its own: the reader's has to go on polling, and those that look up beginnings may wait for the very
brokers that are away.
"""

from collections.abc import Collection
from concurrent.futures import Future, ThreadPoolExecutor

from connector.core.chunks import Partition
from connector.kafka.reach import REACH_SECS
from connector.kafka.source import Source


class Asker:
    """Asks the brokers of one stream's consumer; called by the reader's thread, and never waits before `close`."""

    def __init__(self, name: str) -> None:
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

    def wake(self, source: Source, partitions: Collection[Partition]) -> None:
        """Have these fetched at once."""
        if partitions:
            self._thread.submit(source.wake, partitions)

    def close(self) -> None:
        """Wait for what is asked: a call that the consumer is closed under never returns."""
        self._thread.shutdown(wait=True, cancel_futures=True)
