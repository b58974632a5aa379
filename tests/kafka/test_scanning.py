"""What a scanner reads of a group whose last member was killed during a transaction."""

import time

import pytest
from confluent_kafka import Producer, TopicPartition

from connector.config.kafka import KafkaSettings
from connector.core.chunks import Partition
from connector.demo.finding import BrokerHandle
from connector.demo.topics import Record, Topics
from connector.kafka.errors import RetriableError
from connector.kafka.scanning import Scanner, config_of, until_aborted
from tests.kit.patience import tell


def test_what_a_killed_transaction_leaves_open_is_waited_for(broker: BrokerHandle, topics: Topics) -> None:
    """The broker answers once it has aborted it: after its time and a round of its own, more than a question takes."""
    topic = topics.create(partitions=1)
    kafka = KafkaSettings(
        bootstrap_servers=broker.bootstrap_servers, request_timeout_secs=1, transaction_timeout_secs=3
    )
    config = config_of(kafka, client_id="test", group=f"{topic}.group")
    scanner = Scanner(config, kafka.request_timeout_secs)
    killed = Producer(
        {
            "bootstrap.servers": broker.bootstrap_servers,
            "transactional.id": topic,
            "transaction.timeout.ms": 3_000,
            "log_level": 0,
        }
    )
    killed.init_transactions(30)
    killed.begin_transaction()
    killed.send_offsets_to_transaction([TopicPartition(topic, 0, 5)], scanner.membership().metadata, 30)

    found = scanner.committed([Partition(topic, 0)], within_secs=until_aborted(kafka))

    scanner.close()
    assert found[Partition(topic, 0)].offset is None


def test_a_scan_begins_at_once_after_committed_offsets_were_asked_for(broker: BrokerHandle, topics: Topics) -> None:
    """Left to itself librdkafka begins a second later; the quickest of three tells, whatever else the machine does."""
    topic = topics.create(partitions=2)
    topics.produce(topic, [Record(b"value", b"key")])
    kafka = KafkaSettings(bootstrap_servers=broker.bootstrap_servers)
    spans = {Partition(topic, 0): (0, 1), Partition(topic, 1): (0, 1)}
    waits = []
    for number in range(3):
        scanner = Scanner(config_of(kafka, client_id="test", group=f"{topic}.{number}"), kafka.request_timeout_secs)
        scanner.committed(spans)
        began = time.monotonic()

        next(scanner.read(spans))

        waits.append(time.monotonic() - began)
        scanner.close()
    tell("the first record", min(waits), 0.2)


def test_a_scan_that_nothing_comes_to_ends_as_soon_as_it_is_told_to(broker: BrokerHandle, topics: Topics) -> None:
    """By itself it waits for brokers for a minute."""
    topic = topics.create(partitions=1)
    kafka = KafkaSettings(bootstrap_servers=broker.bootstrap_servers)
    scanner = Scanner(config_of(kafka, client_id="test", group=f"{topic}.group"), kafka.request_timeout_secs)
    asked = iter([False, False, True])

    with pytest.raises(RetriableError, match="stopped"):
        list(scanner.read({Partition(topic, 0): (0, 1)}, should_stop=lambda: next(asked)))

    scanner.close()
