"""The producer that never stops: events for every flow at a steady rate, some of them bad, and the ledger's answer."""

import threading
import time
from collections.abc import Sequence
from functools import partial
from typing import Any, Final, Self

from confluent_kafka import KafkaError, Message, Producer

from connector.demo.judge import Produced
from connector.demo.topics import Record, position_of
from connector.simulator import SimulatorThread
from tests.chaos.arena import PARTITIONS, Arena, Lane
from tests.kit.feed import ONCE, watch_ledger

BAD_EVERY: Final = 50
_BAD: Final[tuple[tuple[bytes | None, str], ...]] = (
    (b"{", "not_json"),
    (b"\xff\xfe\x00", "not_utf8"),
    (b'{"to": "0101", "body": "hello"}', "invalid_phone"),
    (b'{"to": "+15550000001"}', "missing_body"),
    (b"[1, 2]", "not_an_object"),
    (None, "skipped"),
)


class Taken:
    """The newest record of each flow and partition that the platform has accepted."""

    def __init__(self, platform: SimulatorThread) -> None:
        self._newest: dict[tuple[str, int], int] = {}
        watch_ledger(platform, self._note)

    def _note(self, identities: Sequence[str | None]) -> None:
        for identity in identities:
            flow, _, number = (identity or "").rpartition(" ")
            if number.isdigit():
                key = (flow, int(number) % PARTITIONS)
                self._newest[key] = max(self._newest.get(key, -1), int(number))

    def newest(self, flow: str, partition: int) -> int:
        """Return the number of that record, -1 when there is none."""
        return self._newest.get((flow, partition), -1)


class Feed:
    """Produces until it is left; `produced` holds what the broker has acknowledged, by flow."""

    def __init__(self, arena: Arena) -> None:
        self.produced = {lane.flow.name: Produced() for lane in arena.lanes}
        self.deleted: set[str] = set()
        """Topics that were deleted with whatever was not settled yet."""
        self.sent = dict.fromkeys(self.produced, 0)
        self._lanes = arena.lanes
        self._taken = Taken(arena.platform)
        self._failed: KafkaError | None = None
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="feed", daemon=True)
        self._producer = Producer(
            {
                "bootstrap.servers": arena.bootstrap_servers,
                **ONCE,
                "linger.ms": 10,
                "queue.buffering.max.messages": 1_000_000,
                # Not at once: who asks a node that comes up before it counts as alive may lose it (librdkafka 5301).
                "reconnect.backoff.max.ms": 1_000,
                "log_level": 2,
            }
        )

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Produce no more, and return when all is acknowledged; raise `AssertionError` if something was not."""
        self._stopping.set()
        self._thread.join()
        left = self._producer.flush(120)
        assert not left, f"{left} records were not acknowledged"
        assert self._failed is None, self._failed

    def waiting(self, marks: dict[str, int]) -> list[tuple[str, int]]:
        """Return the flows and partitions of which nothing was accepted that was produced after the marks."""
        return [
            (lane.flow.name, partition)
            for lane in self._lanes
            for partition in range(PARTITIONS)
            if self._taken.newest(lane.flow.name, partition) < marks[lane.flow.name]
        ]

    def marks(self) -> dict[str, int]:
        """Return, for each flow, a number that only records have which are produced from now on."""
        return dict(self.sent)

    def side(self, lane: Lane, topic: str, count: int) -> None:
        """Produce good records into a topic that is going to be deleted."""
        for number in range(count):
            name = f"{topic} {number}"
            self._produce(lane, topic, number % 2, Record(_event(name, number), name.encode()), "queued")

    def _run(self) -> None:
        began = time.monotonic()
        while not self._stopping.wait(0.02):
            passed = time.monotonic() - began
            for lane in self._lanes:
                self._send(lane, int(passed * lane.flow.per_sec))
            with self._lock:
                self._producer.poll(0)

    def _send(self, lane: Lane, upto: int) -> None:
        name = lane.flow.name
        for number in range(self.sent[name], upto):
            text = f"{name} {number}"
            bad = _BAD[number // BAD_EVERY % len(_BAD)]
            value, expected = (_event(text, number), "queued") if number % BAD_EVERY else bad
            headers = (("trace", b"\x00\xff" + text.encode()),) if number % 7 == 0 else ()
            self._produce(lane, lane.source, number % PARTITIONS, Record(value, text.encode(), headers), expected)
        self.sent[name] = max(self.sent[name], upto)

    def _produce(self, lane: Lane, topic: str, partition: int, record: Record, expected: str) -> None:
        report = partial(self._delivered, self.produced[lane.flow.name], expected)
        headers: Any = list(record.headers) or None
        with self._lock:
            self._producer.produce(topic, record.value, record.key, partition, report, headers=headers)

    def _delivered(self, produced: Produced, expected: str, error: KafkaError | None, message: Message) -> None:
        if error is None:
            produced.add(position_of(message), expected)
        elif self._failed is None:
            self._failed = error


def _event(text: str, number: int) -> bytes:
    return f'{{"to": "+1555{number % 10_000_000:07d}", "body": "{text}"}}'.encode()
