"""Where partitions begin, by what a real broker says of them, and what is told when what was committed is not there."""

import time
from collections.abc import Callable
from typing import Any
from unittest.mock import create_autospec

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from connector.core.chunks import Partition
from connector.core.progress import Progress, encode
from connector.demo.finding import BrokerHandle
from connector.demo.topics import Record, Topics
from connector.kafka.source import Committed, RebalanceHandler, Source
from connector.stream.beginning import Beginning, Beginnings, BeginOptions
from tests.kit.sending import Bench
from tests.stream.making import make_state


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


@pytest.fixture
def start() -> Callable[[int], Beginning]:
    """Return what a partition with the records from 50 to 99 begins with, given the committed offset."""

    def started(offset: int) -> Beginning:
        options = BeginOptions(
            topics=("alpha",), group="g", start="earliest", on_missing="hold", in_doubt="dead_letter", call_secs=1
        )
        refuse: Any = None
        found = Beginnings(make_state(), options, name="s", fail=refuse, epoch_of=lambda _: 1, last_settled=dict)
        source = create_autospec(Source, instance=True)
        source.bounds.return_value, source.written_end.return_value = (50, 100), 100
        there = Committed(offset, encode(Progress(offset, 1)))
        return found._start_of(source, Partition("alpha", 0), 1, there, dict)

    return started


def test_a_commit_beyond_the_end_says_what_a_resume_would_post_again_and_how_it_is_passed_over(
    start: Callable[[int], Beginning],
) -> None:
    """After an unclean leader election all that the partition holds was posted before."""
    hold = start(120).hold

    assert hold is not None
    reason, detail = hold
    assert reason == "records_missing"
    assert "offset 120 lies beyond the end 100" in detail
    assert "unclean leader election" in detail
    assert "kafka-consumer-groups.sh --group g --reset-offsets --to-latest --execute --topic alpha:0" in detail
    assert "posts all of them, also those that were posted before" in detail


def test_a_commit_before_the_beginning_says_how_many_are_gone(start: Callable[[int], Beginning]) -> None:
    assert start(20).hold == (
        "records_missing",
        (
            "retention removed 30 records before they were read; "
            "to go on with the oldest record there is: resume, or on_missing: continue"
        ),
    )
