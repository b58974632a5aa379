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
class _Held:
    consumer: Consumer
    inside: int = 0


class Replaceable:
    """Holds the current consumer; one thread replaces and closes it, all others borrow it for a call."""

    def __init__(self, consumer: Consumer) -> None:
        self._held = _Held(consumer)
        self._lock = threading.Lock()
        self._leaving: list[threading.Thread] = []

    @property
    def consumer(self) -> Consumer:
        """The current consumer, for the thread that replaces it: nobody closes it meanwhile."""
        return self._held.consumer

    @contextmanager
    def borrowed(self) -> Iterator[Consumer]:
        """Lend the consumer for calls that end before it is closed."""
        with self._lock:
            held = self._held
            held.inside += 1
        try:
            yield held.consumer
        finally:
            with self._lock:
                held.inside -= 1
                if held is not self._held and not held.inside:
                    self._leave(held)

    def replace(self, consumer: Consumer) -> None:
        """Use another consumer from now on; returns at once."""
        with self._lock:
            old, self._held = self._held, _Held(consumer)
            if not old.inside:
                self._leave(old)

    def close(self, within_secs: float) -> None:
        """Close the consumer, and wait for those that were replaced; one with a call still running is abandoned."""
        self._held.consumer.close()
        for thread in self._leaving:
            thread.join(within_secs)

    def _leave(self, held: _Held) -> None:
        """Close a consumer; called under the lock, once for each."""
        self._leaving = [thread for thread in self._leaving if thread.is_alive()]
        thread = threading.Thread(target=held.consumer.close, name="leave-group", daemon=True)
        self._leaving.append(thread)
        thread.start()
