"""The records that are measured with: what the topics hold, and how they are filled."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import cycle
from typing import Any, Final

from confluent_kafka import Producer

from benchmarks.services import avro

_CHUNK: Final = 10_000
_QUEUE: Final = 400_000
_QUEUE_BYTES: Final = 256_000_000


@dataclass(frozen=True, slots=True)
class Events:
    """A kind of source topic: sends of about 105 bytes with their key, unless something else is stated."""

    name: str = "small"
    partitions: int = 8
    compression: str = "none"
    body_bytes: int = 0
    """The least length of a text; 0 leaves it as short as it is."""
    keys: int = 100_000_000
    """How many different keys there are at most."""
    lists: int = 1
    orders: bool = False
    """Orders of a shop, of about 150 bytes, that a mapping makes sends of."""
    bad_of_100: int = 0
    """Of a hundred events so many have a number that is none: dead letters, found before a request is spent."""
    traced: bool = False
    """Each record has a `traceparent` of its own, as from a producer that traces."""
    avro: bool = False
    """Whether events are Avro in Confluent's frame, in place of JSON."""

    def chunk(self, start: int) -> list[dict[str, Any]]:
        """Return records `start` and following, as `produce_batch` takes them."""
        filler = "x" * max(self.body_bytes - 44, 0)
        records: list[dict[str, Any]] = []
        for number in range(start, start + _CHUNK):
            to = "0101" if number % 100 < self.bad_of_100 else f"+1555{number % 10_000_000:07d}"
            sender = f"+1800{number * 7919 % self.lists:07d}"
            text = f"Order {number:010d} has shipped. Thank you, Ann!{filler}"
            value = f'{{"to":"{to}","body":"{text}","list_number":"{sender}"}}'.encode()
            if self.orders:
                value = (
                    f'{{"type":"order.shipped","id":{number},"sms_opt_in":true,"list":"{sender}",'
                    f'"customer":{{"phone":"{to}","first_name":"Ann"}},"total":12.5}}'
                ).encode()
            elif self.avro:
                value = avro(to, text, sender)
            records.append({"key": b"%08d" % (number % self.keys), "value": value})
            if self.traced:
                records[-1]["headers"] = {"traceparent": f"00-{number + 1:032x}-{number + 1:016x}-01"}
        return records


def filler(bootstrap_servers: str, events: Events, over: Mapping[str, str | int] | None = None) -> Producer:
    """Return a producer for a topic of these events; `over` goes over its properties."""
    own: dict[str, Any] = {
        "bootstrap.servers": bootstrap_servers,
        "enable.idempotence": True,
        "linger.ms": 20,
        "batch.size": 1_000_000,
        "queue.buffering.max.messages": 2 * _QUEUE,
        "queue.buffering.max.kbytes": 2 * _QUEUE_BYTES // 1_000,
        "compression.type": events.compression,
        "delivery.report.only.error": True,
        "log_level": 2,
        "on_delivery": _refused,
    }
    return Producer({**own, **(over or {})})


def _refused(error: object, _message: object) -> None:
    raise RuntimeError(f"a record was not delivered: {error}")


def fill(producer: Producer, topic: str, events: Events, count: int) -> Iterator[int]:
    """Fill a topic with `count` records, spread evenly over its partitions; yields how many are there so far.

    Raises `RuntimeError` when not all were delivered.
    """
    for start, partition in zip(range(0, count, _CHUNK), cycle(range(events.partitions)), strict=False):
        records = events.chunk(start)[: count - start]
        while len(producer) > min(_QUEUE, _QUEUE_BYTES // len(records[0]["value"])):
            producer.poll(0.05)
        if producer.produce_batch(topic, records, partition=partition) != len(records):
            raise RuntimeError("the producer's queue is full")
        yield start + len(records)
    if left := producer.flush(60):
        raise RuntimeError(f"{topic} could not be filled: {left} records are not acknowledged")
