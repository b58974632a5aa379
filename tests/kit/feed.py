"""A steady flow of records, and the times at which the platform took them: how long a partition stood still."""

import itertools
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final, Self

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from connector.demo.topics import position_of
from connector.simulator import SimulatorThread
from tests.kit.patience import PATIENCE_SECS
from tests.kit.world import World, send

TAG = "feed"

ONCE: Final[Mapping[str, str | int | float | bool]] = {
    "enable.idempotence": True,
    "max.in.flight.requests.per.connection": 1,
}
"""Settings of a producer that writes each record once while brokers come and go.

With several requests in flight, librdkafka may write a record again when the leader changes (its issue 4953).
"""

FEEDING: Final[Mapping[str, str | int | float | bool]] = {
    **ONCE,
    "linger.ms": 20,
    "reconnect.backoff.max.ms": 200,
    "queue.buffering.max.messages": 1_000_000,
    "socket.timeout.ms": 5_000,  # what a frozen broker has not answered by then goes to the next leader
    "log_level": 2,
}


def watch_ledger(platform: SimulatorThread, note: Callable[[Sequence[str | None]], None]) -> None:
    """Have each lot of identities that the platform accepts told: the ledger itself keeps no order and no times."""
    ledger = platform._simulator.behaviour.ledger
    write = ledger.accept

    def watched(operation: str, identities: Sequence[str | None]) -> None:
        note(identities)
        write(operation, identities)

    ledger.accept = watched  # type: ignore[method-assign] # what it is for


class Watch:
    """Notes when the ledger accepted what; times are those of the monotonic clock."""

    def __init__(self, platform: SimulatorThread) -> None:
        self.accepted: list[tuple[float, int]] = []
        """When how many records were accepted."""
        self.times: dict[str, float] = {}
        """When each record was first accepted, by its text."""
        watch_ledger(platform, self._note)

    def _note(self, identities: Sequence[str | None]) -> None:
        at = time.monotonic()
        self.accepted.append((at, len(identities)))
        for identity in identities:
            self.times.setdefault(identity or "", at)

    def count(self, start: float, stop: float) -> int:
        """Return how many records were accepted between two times."""
        return sum(records for at, records in self.accepted if start <= at < stop)


class Feed:
    """Produces records at a steady pace, round robin over the partitions, until it is left.

    What it produced is read back then: a producer that is told of an outage's end by a node which does not count as
    alive yet may lose its brokers for good, and reports of duplicates have no offset.
    """

    def __init__(self, world: World, *, per_sec: int = 400, partitions: int = 4, silent_secs: float = 3.0) -> None:
        """`silent_secs`: a producer that is told nothing for so long is looked at."""
        self.watch = Watch(world.platform)
        self.partitions = partitions
        self._world = world
        self._per_sec = per_sec
        self._silent_secs = silent_secs
        self._produced = 0
        self._heard_at = 0.0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="feed", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()
        written = self._written()
        twice = [key for key, times in Counter(message.key() for message in written).items() if times > 1]
        assert not twice, f"the feed itself wrote records twice, so the ledger tells nothing: {twice}"
        self._world.produced.add_all(map(position_of, written), "queued")

    def mark(self) -> int:
        """Return a number below which lie all records that were produced by now."""
        return self._produced

    def wait_posted(self, partitions: Collection[int], *, after: int, since: float) -> float:
        """Wait until each partition has had a record accepted that was produced after the mark.

        Return the seconds from `since` until the last of them had.
        """
        deadline = time.monotonic() + PATIENCE_SECS
        while True:
            first = {partition: self._first(partition, after) for partition in partitions}
            if all(at is not None for at in first.values()):
                return max(at for at in first.values() if at is not None) - since
            if time.monotonic() > deadline:
                waiting = [partition for partition, at in first.items() if at is None]
                told = "\n\n".join(worker.account(worker.status()) for worker in self._world.workers)
                raise AssertionError(f"nothing of partitions {waiting} was posted\n{told}")
            time.sleep(0.05)

    def longest_gap(self, partition: int, start: float, stop: float) -> float:
        """Return the longest time between two times without a record of a partition accepted."""
        texts = (f"{TAG} {number}" for number in range(partition, self._produced, self.partitions))
        times = sorted({at for text in texts if start <= (at := self.watch.times.get(text, 0.0)) <= stop})
        edges = [start, *times, stop]
        return max(right - left for left, right in itertools.pairwise(edges))

    def _first(self, partition: int, after: int) -> float | None:
        start = after + (partition - after) % self.partitions
        times = self.watch.times
        for number in range(start, self._produced, self.partitions):
            at = times.get(f"{TAG} {number}")
            if at is not None:
                return at
        return None

    def _run(self) -> None:
        producer, began = self._new_producer(), time.monotonic()
        while not self._stopping.is_set():
            ahead = self._produced / self._per_sec - (time.monotonic() - began)
            if ahead > 0.02:
                self._stopping.wait(ahead)
                producer.poll(0)
            if len(producer) and time.monotonic() - self._heard_at > self._silent_secs:
                producer = self._mended(producer)
            self._send(producer, self._produced)
            self._produced += 1
        deadline = time.monotonic() + PATIENCE_SECS
        while producer.flush(1) and time.monotonic() < deadline:
            if time.monotonic() - self._heard_at > self._silent_secs:
                producer = self._mended(producer)

    def _new_producer(self) -> Producer:
        self._heard_at = time.monotonic()
        return Producer({"bootstrap.servers": self._world.bootstrap_servers, **FEEDING})

    def _send(self, producer: Producer, number: int) -> None:
        record = send(number, tag=TAG)
        partition = number % self.partitions
        producer.produce(self._world.source, record.value, record.key, partition, on_delivery=self._hear)

    def _hear(self, error: KafkaError | None, _message: Message) -> None:
        if error is None:
            self._heard_at = time.monotonic()

    def _mended(self, producer: Producer) -> Producer:
        """Return a new producer in place of one that will never reach a broker again, which others do.

        What that one had not written is not sent again: a request that is still under way may yet be carried out.
        """
        fresh = self._new_producer()
        if self._reaches(producer) or not self._reaches(fresh):
            return producer
        producer.purge()
        return fresh

    def _reaches(self, producer: Producer) -> bool:
        try:
            return bool(producer.list_topics(self._world.source, timeout=1).brokers)
        except KafkaException:
            return False

    def _written(self) -> list[Message]:
        messages = self._world.topics.read(self._world.source)
        return [message for message in messages if (message.key() or b"").startswith(TAG.encode())]
