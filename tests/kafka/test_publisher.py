"""What a publisher hands over, and what it says of brokers that do not answer, with librdkafka itself."""

import random
import string
import time
from collections.abc import Callable
from typing import Any
from unittest.mock import create_autospec

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException

from connector.core.chunks import Chunk, Headers, Partition
from connector.core.records import Scribe
from connector.core.results import Finished
from connector.core.verdicts import Verdict, Verdicts
from connector.demo.finding import BrokerHandle
from connector.demo.topics import Topics
from connector.kafka.errors import AbortableError, FatalError, translate
from connector.kafka.publisher import PlainPublisher, TransactionalPublisher
from connector.kafka.source import Membership, Source
from connector.kafka.topics import Topics as AskedTopics
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


@pytest.mark.parametrize(
    "call", ["commit", "commit with offsets", "commit with offsets, known", "write", "write batch"]
)
def test_results_that_a_topic_refuses_are_told_as_such_whichever_call_notices(
    broker: BrokerHandle, topics: Topics, call: str
) -> None:
    """Records behind them are reported as given up, and a call may say no more than that it cannot go on."""
    topic = topics.create(partitions=1, config={"max.message.bytes": "3000"})
    config: dict[str, Any] = {"bootstrap.servers": broker.bootstrap_servers, "transactional.id": topic, "log_level": 0}
    publisher = TransactionalPublisher({**config, "batch.size": 6_000, "linger.ms": 100}, topic)
    consumer = Consumer({"bootstrap.servers": broker.bootstrap_servers, "group.id": topic, "log_level": 0})
    membership = Membership(consumer.consumer_group_metadata())
    publisher.start(30)
    publisher.begin()
    calls: dict[str, Callable[[], object]] = {
        "commit": lambda: publisher.commit({}, membership, 30),
        "write": lambda: publisher.write(topic, 0, key=None, value=b"one more", headers=[]),
        "write batch": lambda: publisher.write_batch(topic, 0, ["one more"], None),
    }

    def write_and_call() -> None:
        publisher.write_batch(topic, 0, [random.Random(n).randbytes(50).hex() for n in range(1_000)], None)
        if call not in {"commit", "commit with offsets"}:
            publisher.flush(30)
        calls.get(call, lambda: publisher.commit({Partition(topic, 0): (7, "")}, membership, 30))()

    with pytest.raises(AbortableError) as raised:  # on a slow machine the first one notices
        write_and_call()

    assert raised.value.too_large
    assert topic in str(raised.value)
    consumer.close()
    publisher.close()


@pytest.mark.parametrize("under_way_secs", [0.0, 0.03, 0.1])
def test_what_was_given_up_is_not_held_against_the_next_tick(
    broker: BrokerHandle, topics: Topics, under_way_secs: float
) -> None:
    """Nor is its producer, which would be thrown away for brokers that do not answer."""
    topic = topics.create(partitions=1)
    config = {"bootstrap.servers": broker.bootstrap_servers, "linger.ms": 100, "log_level": 0}
    publisher = PlainPublisher(config, create_autospec(Source, instance=True))
    publisher.begin()
    publisher.write_batch(topic, 0, ["first"], None)
    publisher.commit({}, Membership(None), 30)

    for _ in range(5):
        publisher.begin()
        publisher.write_batch(topic, 0, ["given up" * 25] * 20_000, None)
        time.sleep(under_way_secs)
        publisher.abort(30)
        publisher.begin()
        publisher.write_batch(topic, 0, ["next"] * 10, None)
        publisher.commit({}, Membership(None), 30)

    publisher.close()


def _lose_the_error() -> None:
    """End as a flush was seen to, once in some hundred fenced producers."""
    raise SystemError("<built-in method flush of cimpl.Producer object> returned NULL without setting an exception")


def test_a_call_whose_error_the_library_lost_asks_for_a_new_publisher() -> None:
    publisher = PlainPublisher({"bootstrap.servers": "127.0.0.1:1"}, create_autospec(Source, instance=True))

    with pytest.raises(FatalError):
        publisher._call(_lose_the_error)


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
    with pytest.raises(FatalError) as lost:
        publisher._call(_lose_the_error)

    assert raised.value.fenced
    assert lost.value.fenced == (call != "commit")  # librdkafka tells nothing but that it is not over
    consumer.close()
    heir.close()
    publisher.close()


@pytest.mark.parametrize("message_id", [36, 500])
def test_the_largest_key_that_is_kept_makes_an_outcome_that_its_topic_takes_alone(
    broker: BrokerHandle, topics: Topics, message_id: int
) -> None:
    """However much it tells beside: long names, where the record first came from, the platform's own id."""
    limit, rng = 5_000, random.Random(2)
    topic = topics.create(partitions=1, config={"max.message.bytes": str(limit)})
    name = "".join(rng.choices(string.ascii_letters, k=249))
    origin: Headers = [("trackly.origin.topic", name.encode()), ("trackly.origin.offset", b"1000000000000")]
    verdict = Verdict(
        "queued", "", http_status=200, message_id="".join(rng.choices(string.ascii_letters, k=message_id))
    )
    keys = [rng.randbytes(size) for size in range(limit - 2_000, limit)]
    chunk = Chunk(Partition(name, 100), 1, range(10**12, 10**12 + len(keys)), [b"x"] * len(keys), keys)
    chunk.headers = [origin] * len(keys)
    item = Finished((chunk,), Verdicts(verdict), name[:90], 1, 3, 1_795_813_349_451, 1_795_813_349_451)
    [outcomes] = Scribe(name[:64], "contacts", "group").outcomes(item)
    kept = outcomes.keys_within(limit)
    assert kept is not None
    largest = max(size for size, key in enumerate(kept) if key is not None)
    config = {"bootstrap.servers": broker.bootstrap_servers, "transactional.id": topic, "log_level": 0}
    publisher = TransactionalPublisher(config, topic)
    publisher.start(30)

    publisher.begin()
    publisher.write_batch(topic, 0, outcomes.values[largest : largest + 1], kept[largest : largest + 1])
    publisher.commit({}, Membership(None), 30)

    assert outcomes.may_exceed(limit)
    assert len(keys[largest]) + len(outcomes.values[largest]) > limit - 150, "no smaller than it has to be"
    publisher.close()


def test_results_that_are_too_large_for_a_segment_of_their_topic_are_told_as_too_large(
    broker: BrokerHandle, topics: Topics
) -> None:
    """Batches are made smaller for it, and a dead letter that fits none goes without its value."""
    segment = 1 << 20
    config = {"max.message.bytes": "5000000", "segment.bytes": str(segment)}
    topic = topics.create(partitions=1, config=config)
    asking = {"bootstrap.servers": broker.bootstrap_servers, "log_level": 0}
    publisher = TransactionalPublisher({**asking, "transactional.id": topic, "message.max.bytes": 5_000_000}, topic)
    publisher.start(30)
    publisher.begin()
    publisher.write(topic, 0, key=None, value=random.Random(2).randbytes(segment + 1), headers=[])

    with pytest.raises(AbortableError) as raised:
        publisher.commit({}, Membership(None), 30)

    publisher.close()
    assert raised.value.too_large
    assert AskedTopics(asking, 30).limits([topic]) == {topic: segment}
