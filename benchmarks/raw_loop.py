"""The limit for Python: consume and produce in transactions, one small record for each that is read, and no HTTP.

Nothing is parsed, checked or batched; it is what any exactly-once connector in Python has to pay at least.
"""

import time
from itertools import groupby
from typing import Annotated, Any

import typer
from confluent_kafka import Consumer, Message, Producer, TopicPartition

from benchmarks.baseline import FAST_CONSUMER, FAST_PRODUCER
from connector.memory import calm_collector

TRANSACTION_SECS = 0.2
TRANSACTION_RECORDS = 100_000
_partition: Any = Message.partition
_offset: Any = Message.offset
_RESULT = b'{"status":"queued"}'


def main(
    *,
    bootstrap_servers: Annotated[str, typer.Option()],
    source: Annotated[str, typer.Option()],
    target: Annotated[str, typer.Option()],
    group: Annotated[str, typer.Option()],
) -> None:
    """Run until the process is ended."""
    calm_collector()
    consumer = Consumer({"bootstrap.servers": bootstrap_servers, "group.id": group, **FAST_CONSUMER})
    producer = Producer({"bootstrap.servers": bootstrap_servers, "transactional.id": group, **FAST_PRODUCER})
    producer.init_transactions()
    consumer.subscribe([source])
    while True:
        messages = consumer.consume(10_000, 0.1)
        if not messages:
            continue
        producer.begin_transaction()
        until, count = time.monotonic() + TRANSACTION_SECS, 0
        offsets: dict[int, int] = {}
        while True:
            for number, run in groupby(messages, _partition):
                records = list(run)
                results = [{"value": _RESULT, "key": key} for key in map(Message.key, records)]
                while (done := producer.produce_batch(target, results, partition=number)) < len(results):
                    results = results[done:]
                    producer.poll(0.05)
                offsets[number] = _offset(records[-1]) + 1
            count += len(messages)
            if count >= TRANSACTION_RECORDS or time.monotonic() > until:
                break
            messages = consumer.consume(10_000, 0.01)
        spots = [TopicPartition(source, number, offset) for number, offset in offsets.items()]
        producer.send_offsets_to_transaction(spots, consumer.consumer_group_metadata())
        producer.commit_transaction()


if __name__ == "__main__":
    typer.run(main)
