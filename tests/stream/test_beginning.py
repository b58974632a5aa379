"""Where partitions begin, by what a real broker says of them, and what is told when what was committed is not there."""

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Literal
from unittest.mock import create_autospec

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from connector.core.chunks import Partition
from connector.core.progress import Progress, Range, RangeSet, encode
from connector.demo.finding import BrokerHandle
from connector.demo.topics import Record, Topics
from connector.kafka.source import Committed, RebalanceHandler, Source
from connector.stream.beginning import Beginning, Beginnings, BeginOptions
from connector.stream.identities import Identities
from tests.kit.sending import Bench
from tests.stream.making import ids, make_state


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
        Bench().state,
        options,
        name="bench",
        fail=failed.append,
        epoch_of=lambda _: 1,
        last_settled=dict,
        identities=Identities(ids()),
    )
    beginnings.look_up(source, {partition: 1})
    deadline = time.monotonic() + 30
    while not beginnings.found and time.monotonic() < deadline:
        time.sleep(0.01)
    beginnings.close()
    source.close()
    assert failed == []
    return beginnings.found.popleft()


Start = Callable[..., Beginning]


@pytest.fixture
def start() -> Start:
    """Return what a partition with the records from 50 to 99 begins with, given the offset and what is committed."""

    def started(
        offset: int,
        *,
        on_missing: Literal["hold", "continue"] = "hold",
        settled: Sequence[Range] = (),
        in_flight: Sequence[Range] = (),
    ) -> Beginning:
        options = BeginOptions(
            topics=("alpha",), group="g", start="earliest", on_missing=on_missing, in_doubt="dead_letter", call_secs=1
        )
        refuse: Any = None
        found = Beginnings(
            make_state(),
            options,
            name="s",
            fail=refuse,
            epoch_of=lambda _: 1,
            last_settled=dict,
            identities=Identities(ids()),
        )
        source = create_autospec(Source, instance=True)
        source.bounds.return_value, source.written_end.return_value = (50, 100), 100
        there = Committed(offset, encode(Progress(offset, 1, 0, RangeSet(settled), RangeSet(in_flight))))
        return found._start_of(source, Beginning(Partition("alpha", 0), 1, None), there, dict)

    return started


def test_a_commit_beyond_the_end_says_what_a_resume_would_post_again_and_how_it_is_passed_over(
    start: Start,
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


def test_a_commit_before_the_beginning_says_how_many_are_gone(start: Start) -> None:
    assert start(20).hold == (
        "records_missing",
        (
            "retention removed 30 records before they were read; "
            "to go on with the oldest record there is: resume, or on_missing: continue"
        ),
    )


def test_what_was_read_beyond_an_end_that_was_cut_off_is_told(start: Start) -> None:
    hold = start(90, settled=[(95, 120)], in_flight=[(120, 130)]).hold

    assert hold is not None
    assert hold[0] == "records_missing"
    assert "what was read up to offset 129 lies beyond the end 100" in hold[1]
    assert hold[1].endswith("to go on with what is there: resume, or on_missing: continue")


@pytest.mark.parametrize(("base", "begins", "missing"), [(90, 90, 1), (20, 50, 30)])
def test_what_is_written_where_the_end_was_cut_off_is_not_taken_for_what_was_read(
    start: Start, base: int, begins: int, missing: int
) -> None:
    """Other records have these offsets now: passed over they would be lost, and in doubt are others."""
    found = start(base, on_missing="continue", settled=[(95, 120)], in_flight=[(91, 93), (120, 130)])

    assert found.progress == Progress(begins, 1, 0, RangeSet([(95, 100)]), RangeSet([(91, 93)]))
    assert (found.missing, found.vanished) == (missing, 10)


def test_what_was_read_up_to_the_end_stays_settled_and_in_doubt(start: Start) -> None:
    found = start(90, settled=[(95, 99)], in_flight=[(99, 100)])

    assert found.progress == Progress(90, 1, 0, RangeSet([(95, 99)]), RangeSet([(99, 100)]))


def test_a_stop_waits_for_one_question_and_not_for_those_about_all_other_partitions() -> None:
    """Each takes as long as its broker is away from us; the process could not end before the last of hundreds."""
    partitions = [Partition("alpha", number) for number in range(100)]
    asked, may_answer = threading.Event(), threading.Event()
    source = create_autospec(Source, instance=True)
    source.committed.side_effect = lambda mine, _secs: {p: Committed(50, encode(Progress(50, 1))) for p in mine}

    def bounds(*_: object) -> tuple[int, int]:
        asked.set()
        assert may_answer.wait(30)
        return 50, 100

    source.bounds.side_effect = bounds
    failed: list[BaseException] = []
    options = BeginOptions(("alpha",), "g", "earliest", "hold", "dead_letter", 30.0)
    beginnings = Beginnings(
        make_state(),
        options,
        name="s",
        fail=failed.append,
        epoch_of=lambda _: 1,
        last_settled=dict,
        identities=Identities(ids()),
    )
    beginnings.look_up(source, dict.fromkeys(partitions, 1))
    assert asked.wait(30)

    closing = threading.Thread(target=beginnings.close)
    closing.start()
    assert beginnings._closing.wait(30)
    may_answer.set()
    closing.join(30)

    assert (source.bounds.call_count, failed) == (1, [])
