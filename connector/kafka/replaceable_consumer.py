"""A consumer that may be replaced while several threads call it.

A call never returns if its consumer is closed meanwhile. But a replaced consumer must not just be dropped: if it finds
its brokers again, it continues as a member of the group, and its partitions stand still until `max.poll.interval.ms`.
So it is closed as soon as no call is running, in a thread of its own, because that may take long.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from confluent_kafka import Consumer


@dataclass(slots=True, eq=False)
class _Shared:
    consumer: Consumer
    calls: int = 0


class ReplaceableConsumer:
    """Holds the current consumer; one thread replaces and closes it, all others lease it for a call."""

    def __init__(self, consumer: Consumer) -> None:
        self._current = _Shared(consumer)
        self._lock = threading.Lock()
        self._closing: list[threading.Thread] = []

    @property
    def consumer(self) -> Consumer:
        """The current consumer, for the thread that replaces it: nobody closes it meanwhile."""
        return self._current.consumer

    @contextmanager
    def leased(self) -> Iterator[Consumer]:
        """Lease the consumer for calls that end before it is closed."""
        with self._lock:
            shared = self._current
            shared.calls += 1
        try:
            yield shared.consumer
        finally:
            with self._lock:
                shared.calls -= 1
                if shared is not self._current and not shared.calls:
                    self._close_in_background(shared)

    def replace(self, consumer: Consumer) -> None:
        """Use another consumer from now on; returns at once."""
        with self._lock:
            old, self._current = self._current, _Shared(consumer)
            if not old.calls:
                self._close_in_background(old)

    def close(self, within_secs: float) -> None:
        """Close the consumer, and wait for those that were replaced; one with a call still running is abandoned."""
        self._current.consumer.close()
        for thread in self._closing:
            thread.join(within_secs)

    def _close_in_background(self, shared: _Shared) -> None:
        """Close a consumer; called under the lock, once for each."""
        self._closing = [thread for thread in self._closing if thread.is_alive()]
        thread = threading.Thread(target=shared.consumer.close, name="leave-group", daemon=True)
        self._closing.append(thread)
        thread.start()
