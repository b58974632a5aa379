"""The thread that reads, with a consumer that does what librdkafka was seen to do."""

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Literal
from unittest.mock import create_autospec

import pytest
from confluent_kafka import KafkaError

from connector.core.chunks import Chunk, Partition
from connector.core.pacing import Pace, Pacer
from connector.core.progress import Progress, RangeSet, encode
from connector.core.results import Finished
from connector.core.verdicts import QUEUED, Verdicts
from connector.kafka.errors import AbortableError, KafkaTroubleError, RetriableError
from connector.kafka.source import Committed, Read, Source
from connector.stream.beginning import BeginOptions
from connector.stream.reader import Reader, ReadOptions, TickView
from tests.kit.sending import PARTITION, Bench

OTHER = Partition(PARTITION.topic, 1)
OFFSET = 70


def chunk_of(epoch: int, *offsets: int) -> Chunk:
    return Chunk(PARTITION, epoch, list(offsets), [b'{"to":"+15550000001","body":"x"}' for _ in offsets])


class Reading:
    """A reader at work on partitions that hold nothing; `begins` tells when it began which of them where."""

    def __init__(self, in_doubt: Literal["dead_letter", "resend", "hold"] = "dead_letter") -> None:
        bench = Bench()
        self.state = bench.state
        bench.state.flow.let_go([PARTITION])
        begin = BeginOptions((PARTITION.topic,), "group", "earliest", "hold", in_doubt, 1.0)
        options = ReadOptions(begin, 1_000_000, 1.0, 6.0)
        self.failed: list[Any] = []
        self.begins: list[tuple[float, Partition, int]] = []
        self.ticker = create_autospec(TickView, instance=True)
        self.ticker.names.return_value = False
        self.reader = Reader(bench.state, bench.operation, options, name="bench", fail=self.failed.append)
        self.source = create_autospec(Source, instance=True)
        self.source.begin.side_effect = self._begin
        self.source.read.side_effect = self._read
        self.source.is_silent = False
        self.source.bounds.return_value = (60, 100)
        self.source.partition_count.return_value = 4
        self.source.known_end.return_value, self.source.passed.return_value = 100, {}
        self.source.committed.side_effect = lambda asked, _secs: dict.fromkeys(asked, self.committed())
        self._began = threading.Condition()

    @staticmethod
    def committed() -> Committed:
        return Committed(OFFSET, encode(Progress(OFFSET)))

    def start(self, *partitions: Partition) -> None:
        self.source.subscribe.side_effect = lambda _topics: self.reader.assigned(list(partitions))
        self.reader.start(self.source, self.ticker)

    def wait(self, wanted: Callable[[], bool]) -> None:
        with self._began:
            assert self._began.wait_for(wanted, 30), (self.begins, self.failed)
        assert self.failed == []

    def wait_for_share(self, share: float) -> None:
        pacer, deadline = self.state.admission.pacer, time.monotonic() + 30
        assert pacer is not None
        while pacer.share != share and time.monotonic() < deadline:
            time.sleep(0.01)
        assert (pacer.share, self.failed) == (share, [])

    def has_begun(self, partition: Partition) -> bool:
        return any(began == partition for _, began, _ in self.begins)

    def _begin(self, partition: Partition, offset: int) -> bool:
        with self._began:
            self.begins.append((time.monotonic(), partition, offset))
            self._began.notify_all()
        return True

    def _read(self, _count: int, timeout_secs: float) -> Read:
        time.sleep(min(timeout_secs, 0.01))
        return Read()


@pytest.fixture
def reading() -> Iterator[Reading]:
    made = Reading()
    yield made
    made.reader.close(10)


def test_a_window_is_counted_from_the_first_record_and_not_from_the_end_of_the_wait_for_more() -> None:
    reading = Reading()
    state, window = reading.state, reading.state.batcher.limits.window_secs
    state.flow.assign(PARTITION, 1, Progress(OFFSET))

    reading.reader._take(chunk_of(1, OFFSET), 100.0)

    assert state.admission.next_deadline(may_start=True) == 100.0 + window


@pytest.fixture
def holding() -> Iterator[Reading]:
    """Make a reader that is to ask what becomes of records in doubt; two are listed as in flight."""
    made = Reading("hold")
    listed = Progress(OFFSET, in_flight=RangeSet([(OFFSET, OFFSET + 2)]))
    made.source.committed.side_effect = lambda asked, _secs: {p: Committed(OFFSET, encode(listed)) for p in asked}
    yield made
    made.reader.close(10)


def test_what_another_worker_had_in_flight_waits_for_the_operator(holding: Reading) -> None:
    holding.start(PARTITION)

    deadline = time.monotonic() + 30
    while not holding.state.partition_holds and time.monotonic() < deadline:
        time.sleep(0.01)

    hold = holding.state.partition_holds[PARTITION]
    assert (hold.reason, hold.detail) == (
        "in_doubt",
        f"{PARTITION}: 2 records are in doubt; say what becomes of them",
    )
    assert not holding.has_begun(PARTITION)


def test_a_partition_whose_records_in_flight_were_all_answered_needs_no_operator(holding: Reading) -> None:
    answered = Finished((chunk_of(1, OFFSET, OFFSET + 1),), Verdicts(QUEUED), "t-1")
    assert holding.state.flow.settle(answered) is None, "its partition is gone"
    holding.start(PARTITION)

    holding.wait(lambda: holding.has_begun(PARTITION))

    holding.reader._take(chunk_of(holding.reader._epochs[PARTITION], OFFSET, OFFSET + 1), 100.0)
    assert [item.count for item in holding.state.flow.finished] == [2]
    assert holding.state.partition_holds == {}


def test_records_in_doubt_whose_answers_were_forgotten_meanwhile_hold_their_partition(holding: Reading) -> None:
    """They were known when it began; others came since, and of too many answers the oldest are forgotten."""
    flow = holding.state.flow
    flow.assign(PARTITION, 2, Progress(OFFSET, in_flight=RangeSet([(OFFSET, OFFSET + 2)])))

    holding.start()
    holding.reader._take(chunk_of(2, OFFSET, OFFSET + 1), 100.0)

    hold = holding.state.partition_holds[PARTITION]
    assert (hold.reason, "2 records are in doubt" in hold.detail) == ("in_doubt", True)
    assert not flow.finished
    assert flow.partitions[PARTITION].held


@pytest.mark.parametrize(
    "error",
    [
        AbortableError(KafkaError(KafkaError._UNKNOWN_PARTITION)),  # its topic was deleted meanwhile
        RetriableError(KafkaError(KafkaError._TIMED_OUT)),  # its leader is away
    ],
    ids=["gone", "away"],
)
def test_a_partition_that_nothing_can_be_learned_of_keeps_no_other_from_beginning(
    reading: Reading, error: KafkaTroubleError
) -> None:
    def bounds(partition: Partition, _secs: float) -> tuple[int, int]:
        if partition == PARTITION and not healed:
            raise error
        return 60, 100

    healed: list[bool] = []
    reading.source.bounds.side_effect = bounds
    reading.start(PARTITION, OTHER)

    reading.wait(lambda: reading.has_begun(OTHER))
    assert not reading.has_begun(PARTITION)
    healed.append(True)
    reading.wait(lambda: reading.has_begun(PARTITION))


def test_a_partition_whose_commits_may_not_be_read_keeps_no_other_from_beginning(reading: Reading) -> None:
    def committed(asked: list[Partition], _secs: float) -> dict[Partition, Committed]:
        if PARTITION in asked:
            raise AbortableError(KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED))
        return dict.fromkeys(asked, reading.committed())

    reading.source.committed.side_effect = committed
    reading.start(PARTITION, OTHER)

    reading.wait(lambda: reading.has_begun(OTHER))

    assert not reading.has_begun(PARTITION)


def test_a_worker_learns_of_others_that_share_its_paces_when_nothing_is_assigned_to_it(reading: Reading) -> None:
    """A rebalance that gives it nothing new may have given others something, of topics that grew."""
    reading.state.admission.pacer = Pacer(Pace(600, {}), max_lot=10)
    counts: Iterator[KafkaTroubleError | int] = iter([KafkaTroubleError("not now"), 4, 8])

    def all_partitions(_topics: object, _secs: float) -> int:
        count = next(counts)
        if isinstance(count, KafkaTroubleError):
            raise count
        return count

    reading.source.all_partitions.side_effect = all_partitions
    reading.start(PARTITION)
    reading.wait(lambda: reading.has_begun(PARTITION))
    reading.wait_for_share(1 / 4)

    reading.reader.assigned([])

    reading.wait_for_share(1 / 8)


def test_a_consumer_is_not_closed_under_a_call_that_asks_what_is_committed(reading: Reading) -> None:
    """Such a call never returns, and the process that waits for its threads never ends."""
    asked, answered = threading.Event(), threading.Event()
    order: list[str] = []

    def bounds(_partition: Partition, _secs: float) -> tuple[int, int]:
        asked.set()
        answered.wait(30)
        order.append("answered")
        return 60, 100

    reading.source.bounds.side_effect = bounds
    reading.source.close.side_effect = lambda: order.append("closed")
    reading.source.read.side_effect = lambda *_: (asked.wait(30), 1 / 0)
    reading.start(PARTITION)
    assert asked.wait(30)
    threading.Timer(0.3, answered.set).start()
    reading.reader.close(30)

    assert order == ["answered", "closed"]


def test_partitions_that_come_while_the_consumer_leaves_are_not_looked_up(reading: Reading) -> None:
    """A stream that is stopped as soon as it has started joins its group within the call that leaves it."""
    closed: list[str] = []

    def close() -> None:
        reading.reader.assigned([PARTITION])
        closed.append("assigned")
        reading.reader.revoking([PARTITION])
        closed.append("revoked")

    reading.source.close.side_effect = close
    reading.start()
    reading.reader.close(30)

    assert closed == ["assigned", "revoked"]


def test_a_consumer_that_has_lost_its_brokers_is_replaced_and_its_partitions_are_given_up(reading: Reading) -> None:
    reading.source.is_silent = True
    answers = iter([False, True])  # asked again and again, as long as nothing comes
    reading.source.is_cut_off.side_effect = lambda _secs: next(answers, False)
    reading.start(PARTITION)
    reading.wait(lambda: reading.has_begun(PARTITION))

    deadline = time.monotonic() + 30
    while reading.source.subscribe.call_count < 2 and time.monotonic() < deadline:
        time.sleep(0.01)

    reading.source.renew.assert_called_once_with()
    assert reading.state.counts.consumers_replaced == 1
    reading.wait(lambda: len(reading.begins) == 2)  # the new one has it, where its progress says
    assert [offset for _, _, offset in reading.begins] == [OFFSET, OFFSET]


def test_a_partition_that_a_tick_still_names_begins_when_that_is_over(reading: Reading) -> None:
    """Its results may be needed: what it has written, or not, decides what is in doubt."""
    reading.ticker.names.side_effect = lambda partitions: PARTITION in partitions and not over
    over: list[bool] = []
    reading.start(PARTITION, OTHER)

    reading.wait(lambda: reading.has_begun(OTHER))
    assert not reading.has_begun(PARTITION)
    over.append(True)
    reading.wait(lambda: reading.has_begun(PARTITION))
