"""Where partitions begin, by what a real broker says of them."""

import time
from unittest.mock import create_autospec

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from connector.core.chunks import Partition
from connector.demo.finding import BrokerHandle
from connector.demo.topics import Record, Topics
from connector.kafka.source import RebalanceHandler, Source
from connector.stream.beginning import Beginning, Beginnings, BeginOptions
from tests.kit.sending import Bench


@pytest.mark.parametrize(("beyond", "held"), [(0, False), (1, True)])
def test_offsets_that_were_reset_behind_an_open_transaction_are_there(
    broker: BrokerHandle, topics: Topics, beyond: int, held: bool
) -> None:
    """Kafka's own tool resets to the end of all that is written; what is behind that is beyond the end."""
    topic = topics.create(partitions=1)
    topics.produce(topic, [Record(b"before")])
    producer = Producer({"bootstrap.servers": broker.bootstrap_servers, "transactional.id": topic, "log_level": 0})
    producer.init_transactions(30)
    producer.begin_transaction()
    producer.produce(topic, b"open")
    producer.flush(30)
    base = 2 + beyond
    found = _begin(broker, topic, base)
    producer.abort_transaction(30)

    assert (found.hold is not None, found.progress and found.progress.base) == (held, None if held else base)


def _begin(broker: BrokerHandle, topic: str, committed: int) -> Beginning:
    partition, config = Partition(topic, 0), {"bootstrap.servers": broker.bootstrap_servers, "group.id": topic}
    tool = Consumer(config)
    tool.commit(offsets=[TopicPartition(*partition, committed)], asynchronous=False)
    tool.close()
    source = Source(
        {**config, "isolation.level": "read_committed"}, create_autospec(RebalanceHandler, instance=True), lambda _: 1
    )
    failed: list[BaseException] = []
    options = BeginOptions((topic,), topic, "earliest", "hold", "dead_letter", 30.0)
    beginnings = Beginnings(
        Bench().state, options, name="bench", fail=failed.append, epoch_of=lambda _: 1, last_settled=dict
    )
    beginnings.look_up(source, {partition: 1})
    deadline = time.monotonic() + 30
    while not beginnings.found and time.monotonic() < deadline:
        time.sleep(0.01)
    beginnings.close()
    source.close()
    assert failed == []
    return beginnings.found.popleft()
