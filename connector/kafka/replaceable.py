"""A consumer that may be replaced while several threads call it.

A call that its consumer is closed under never returns. But one that is given up must not just be left: if it finds its
brokers again it goes on as a member of the group, and the partitions that it holds stand still until it counts as stuck
after `max.poll.interval.ms`. So it is closed as soon as nobody is inside, in a thread of its own: that may take long.
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
    """Holds the consumer that is used now; one thread replaces it and closes it, all others borrow it for a call."""

    def __init__(self, consumer: Consumer) -> None:
        self._held = _Held(consumer)
        self._lock = threading.Lock()
        self._leaving: list[threading.Thread] = []

    @property
    def consumer(self) -> Consumer:
        """The one that is used now, for the thread that replaces it: nobody closes it meanwhile."""
        return self._held.consumer

    @contextmanager
    def borrowed(self) -> Iterator[Consumer]:
        """Give the consumer for calls that end before it is closed."""
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
        """Close the consumer, and wait so long for those that it has replaced; one that somebody is inside is left."""
        self._held.consumer.close()
        for thread in self._leaving:
            thread.join(within_secs)

    def _leave(self, held: _Held) -> None:
        """Close a consumer; called under the lock, once for each."""
        self._leaving = [thread for thread in self._leaving if thread.is_alive()]
        thread = threading.Thread(target=held.consumer.close, name="leave-group", daemon=True)
        self._leaving.append(thread)
        thread.start()
