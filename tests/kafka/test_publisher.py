"""What a publisher hands over, and what it says of brokers that do not answer, with librdkafka itself."""

import random
from collections.abc import Callable
from typing import Any
from unittest.mock import create_autospec

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException

from connector.core.chunks import Headers, Partition
from connector.demo.finding import BrokerHandle
from connector.demo.topics import Topics
from connector.kafka.errors import AbortableError, FatalError, translate
from connector.kafka.publisher import PlainPublisher, TransactionalPublisher
from connector.kafka.source import Membership, Source
from tests.kit.world import free_port


def test_results_that_are_not_written_in_time_are_told_as_unanswered() -> None:
    """So that the producer is replaced: this one may have lost its brokers for good."""
    config = {"bootstrap.servers": f"127.0.0.1:{free_port()}", "log_level": 0}
    publisher = PlainPublisher(config, create_autospec(Source, instance=True))
    publisher.begin()
    publisher.write("outcomes", 0, key=None, value=b"{}", headers=[])

    with pytest.raises(AbortableError, match="writing the results") as raised:
        publisher.commit({}, Membership(None), 0.2)

    assert raised.value.unanswered
    publisher.close()


@pytest.mark.parametrize("headers", [None, [("traceparent", b"00-1")]])
@pytest.mark.parametrize("keyed", [True, False])
def test_a_full_queue_is_waited_for_and_nothing_is_handed_over_twice(
    broker: BrokerHandle, topics: Topics, headers: Headers | None, keyed: bool
) -> None:
    topic = topics.create(partitions=2)
    config: dict[str, Any] = {
        "bootstrap.servers": broker.bootstrap_servers,
        "transactional.id": topic,
        "queue.buffering.max.messages": 300,
        "linger.ms": 5,
        "log_level": 0,
    }
    publisher = TransactionalPublisher(config, topic)
    publisher.start(30)
    values = [f"value {number}" for number in range(2_000)]
    keys = [b"%d" % number if number % 3 else None for number in range(2_000)] if keyed else None

    publisher.begin()
    publisher.write_batch(topic, 1, values, keys, headers)
    publisher.write_batch(topic, 1, [], None)
    publisher.commit({}, Membership(None), 30)

    found = topics.read(topic)
    assert [(record.value(), record.key()) for record in found] == [
        (value.encode(), None if keys is None else keys[number]) for number, value in enumerate(values)
    ]
    assert {tuple(record.headers() or ()) for record in found} == {tuple(headers or ())}
    publisher.close()


@pytest.mark.parametrize("plain", [True, False])
def test_a_producer_that_cannot_go_on_is_told_as_such_whichever_call_notices(plain: bool) -> None:
    """The library raises it out of any call that serves reports: unmarked, or within an error of the interpreter's."""
    unmarked = KafkaException(KafkaError(KafkaError._FATAL, "fenced"))
    assert isinstance(translate(unmarked), FatalError)
    config = {"bootstrap.servers": "127.0.0.1:1", "log_level": 0}
    publisher = PlainPublisher(config, create_autospec(Source)) if plain else TransactionalPublisher(config)

    def raising(_secs: float) -> int:
        raise unmarked

    def hiding(_secs: float) -> int:
        raise SystemError("a call returned a result with an exception set") from unmarked

    def broken(_secs: float) -> int:
        raise SystemError("of the interpreter's own")

    for call in (raising, hiding):
        with pytest.raises(FatalError):
            publisher._call(call, 0.1)
    with pytest.raises(SystemError):
        publisher._call(broken, 0.1)
    publisher.close()


@pytest.mark.parametrize("call", ["commit", "commit with offsets", "commit with offsets once it is known"])
def test_results_that_a_topic_refuses_are_told_as_such_whichever_call_notices(
    broker: BrokerHandle, topics: Topics, call: str
) -> None:
    """Records behind them are reported as given up, and a call may say no more than that it cannot go on."""
    topic = topics.create(partitions=1, config={"max.message.bytes": "3000"})
    config: dict[str, Any] = {"bootstrap.servers": broker.bootstrap_servers, "transactional.id": topic, "log_level": 0}
    publisher = TransactionalPublisher({**config, "batch.size": 6_000, "linger.ms": 100}, topic)
    consumer = Consumer({"bootstrap.servers": broker.bootstrap_servers, "group.id": topic, "log_level": 0})
    membership = Membership(consumer.consumer_group_metadata())
    offsets = {Partition(topic, 0): (7, "")}
    publisher.start(30)
    publisher.begin()
    publisher.write_batch(topic, 0, [random.Random(n).randbytes(50).hex() for n in range(1_000)], None)
    if call.endswith("known"):
        publisher.flush(30)

    with pytest.raises(AbortableError) as raised:
        publisher.commit({} if call == "commit" else offsets, membership, 30)

    assert raised.value.too_large
    assert topic in str(raised.value)
    consumer.close()
    publisher.close()


@pytest.mark.parametrize("call", ["commit", "commit with offsets", "abort", "flush", "poll"])
def test_a_producer_that_was_fenced_is_told_as_such_by_the_broker_whichever_call_notices(
    broker: BrokerHandle, topics: Topics, call: str
) -> None:
    """A flush serves the reports that come after the news, and brings an error of the interpreter's."""
    topic = topics.create(partitions=2)
    config = {"bootstrap.servers": broker.bootstrap_servers, "transactional.id": topic, "log_level": 0}
    publisher, heir = TransactionalPublisher(config, topic), TransactionalPublisher(config)
    consumer = Consumer({"bootstrap.servers": broker.bootstrap_servers, "group.id": topic, "log_level": 0})
    membership = Membership(consumer.consumer_group_metadata())
    publisher.start(30)
    publisher.begin()
    for number in range(20):
        publisher.write(topic, number % 2, key=None, value=b"first", headers=[])
    publisher._producer.flush(30)
    heir.start(30)
    for number in range(20):
        publisher.write(topic, number % 2, key=None, value=b"second", headers=[])

    calls: dict[str, Callable[[], object]] = {
        "commit": lambda: publisher.commit({}, membership, 30),
        "commit with offsets": lambda: publisher.commit({Partition(topic, 0): (7, "")}, membership, 30),
        "abort": lambda: publisher.abort(30),
        "flush": lambda: publisher._call(publisher._producer.flush, 30),
        "poll": lambda: [publisher._call(publisher._producer.poll, 0.1) for _ in range(300)],
    }
    with pytest.raises(FatalError) as raised:
        calls[call]()

    assert raised.value.fenced
    consumer.close()
    heir.close()
    publisher.close()
