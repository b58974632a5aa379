import threading

import pytest
from confluent_kafka import KafkaException, Producer

from connector.demo.finding import BrokerHandle
from connector.demo.topics import Position, Record, Topics, produce, read_topic


def test_records_come_back_as_they_were_produced(topics: Topics) -> None:
    topic = topics.create(partitions=3)
    records = [Record(b"v", b"k", [("h", b"1"), ("h", None)]), Record(None, b"k"), Record(b"", None)]

    positions = topics.produce(topic, records)
    read = topics.read(topic)

    assert positions == [Position(topic, partition, 0) for partition in range(3)]
    assert [(m.value(), m.key(), m.headers()) for m in read] == [
        (b"v", b"k", [("h", b"1"), ("h", None)]),
        (None, b"k", None),
        (b"", None, None),
    ]


def test_an_empty_topic_reads_as_nothing(topics: Topics) -> None:
    assert topics.read(topics.create(partitions=2)) == []


def test_acknowledgements_can_be_heard_one_by_one(broker: BrokerHandle, topics: Topics) -> None:
    topic = topics.create()
    heard: dict[int, Position] = {}

    listed = produce(broker.bootstrap_servers, topic, [Record(b"a"), Record(b"b")], acknowledged=heard.__setitem__)

    assert listed == []
    assert heard == {0: Position(topic, 0, 0), 1: Position(topic, 0, 1)}


def test_a_record_that_the_broker_refuses_is_an_error(topics: Topics) -> None:
    topic = topics.create(config={"max.message.bytes": "1000"})

    with pytest.raises(KafkaException):
        topics.produce(topic, [Record(b"x" * 2_000)])


def test_reading_a_topic_that_does_not_exist_is_an_error(broker: BrokerHandle) -> None:
    with pytest.raises(KafkaException):
        list(read_topic(broker.bootstrap_servers, "no-such-topic"))


@pytest.mark.parametrize("commit", [True, False])
def test_reading_waits_for_a_transaction_that_is_still_open(
    broker: BrokerHandle, topics: Topics, *, commit: bool
) -> None:
    """What an open transaction holds would else be missed, though it is committed a moment later."""
    topic = topics.create()
    producer = Producer({"bootstrap.servers": broker.bootstrap_servers, "transactional.id": topic, "log_level": 3})
    producer.init_transactions(30)
    producer.begin_transaction()
    producer.produce(topic, b"in the transaction")
    producer.flush()
    topics.produce(topic, [Record(b"after it")])
    end = producer.commit_transaction if commit else producer.abort_transaction
    timer = threading.Timer(1, end)

    timer.start()
    read = topics.read(topic)
    timer.join()

    assert [message.value() for message in read] == [b"in the transaction"] * commit + [b"after it"]


def test_a_transaction_that_stays_open_ends_the_reading_with_an_error(broker: BrokerHandle, topics: Topics) -> None:
    topic = topics.create()
    producer = Producer({"bootstrap.servers": broker.bootstrap_servers, "transactional.id": topic, "log_level": 3})
    producer.init_transactions(30)
    producer.begin_transaction()
    producer.produce(topic, b"never committed")
    producer.flush()

    with pytest.raises(TimeoutError, match="not reached within 1 s"):
        topics.read(topic, timeout_secs=1)

    producer.abort_transaction()


def test_deleted_topics_are_gone(topics: Topics) -> None:
    topic = topics.create()

    topics.delete_all()

    with pytest.raises(KafkaException):
        topics.read(topic)
    topics.delete(topic)  # does not matter
