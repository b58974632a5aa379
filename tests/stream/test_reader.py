"""The reader's thread, with a consumer that does what librdkafka was seen to do."""

import itertools
import threading
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Literal
from unittest.mock import create_autospec

import pytest
from confluent_kafka import KafkaError
from structlog.testing import capture_logs

from connector.core.chunks import Chunk, Partition
from connector.core.ordering import KeyQueues
from connector.core.pacing import LOT_SECS, Pace, Pacer
from connector.core.progress import Progress, decode, encode
from connector.core.ranges import RangeSet
from connector.core.results import Finished
from connector.core.storm import StormGuard, StormPolicy
from connector.core.verdicts import QUEUED, Verdict, Verdicts
from connector.kafka.commits import Committed
from connector.kafka.errors import AbortableError, FatalError, KafkaTroubleError, RetriableError
from connector.kafka.source import Read, Source
from connector.kafka.topics import IdsAsked
from connector.shaping.decoded import FormatAwayError
from connector.shaping.shaped import Shaped
from connector.stream.beginning import BeginOptions
from connector.stream.holds import Decision
from connector.stream.preparing import Preparer
from connector.stream.reader import Reader, ReadOptions
from connector.stream.tick import Ticker
from connector.trackly.operations import Operation, Rules
from tests.kit.patience import PATIENCE_SECS
from tests.kit.sending import PARTITION, Bench
from tests.stream.making import ids

OTHER = Partition(PARTITION.topic, 1)
OFFSET = 70
REFUSED = Verdict("dead_letter", "invalid_phone")
VALUE = b'{"to":"+15550000001","body":"x"}'


def chunk_of(epoch: int, *offsets: int) -> Chunk:
    return Chunk(PARTITION, epoch, list(offsets), [VALUE for _ in offsets])


class Reading:
    """A reader at work on empty partitions; `begins` lists when it started which of them where."""

    def __init__(self, in_doubt: Literal["dead_letter", "resend", "hold"] = "dead_letter") -> None:
        bench = Bench()
        self.state = bench.state
        bench.state.flow.release([PARTITION])
        begin = BeginOptions((PARTITION.topic,), "group", "earliest", "hold", in_doubt, 1.0)
        options = ReadOptions(begin, 1_000_000, 1.0, 6.0)
        self.failed: list[Any] = []
        self.begins: list[tuple[float, Partition, int]] = []
        self.ticker = create_autospec(Ticker, instance=True)
        self.ticker.names.return_value = False
        self.preparer = Preparer(bench.state, bench.operation, name="bench")
        self.ids: dict[str, int] | None = None
        """The ids of topics, None if the cluster returns none."""
        self.cluster = "east"
        self.reader = Reader(
            bench.state,
            self.preparer,
            options,
            name="bench",
            fail=self.failed.append,
            ask_ids=self._ask_ids,
        )
        self.source = create_autospec(Source, instance=True)
        self.source.begin.side_effect = self._begin
        self.source.read.side_effect = self._read
        self.source.is_silent = self.source.was_expelled = False
        self.source.bounds.return_value = (60, 100)
        self.source.partition_count.return_value = 4
        self.source.generation = 0
        self.source.known_end.return_value, self.source.passed.return_value = 100, {}
        self.stand: dict[Partition, tuple[int, str]] = {}
        """Commits that differ from the initial ones."""
        self.source.committed.side_effect = lambda asked, _secs: {
            p: Committed(*self.stand[p]) if p in self.stand else self.committed() for p in asked
        }
        self._began = threading.Condition()

    def _ask_ids(self, names: Collection[str]) -> IdsAsked:
        return ids(self.ids, cluster=self.cluster)(names)

    @staticmethod
    def committed() -> Committed:
        return Committed(OFFSET, encode(Progress(OFFSET)))

    def start(self, *partitions: Partition) -> None:
        self.source.subscribe.side_effect = lambda _topics: self.reader.assigned(list(partitions))
        self.reader.start(self.source, self.ticker)

    def close(self) -> None:
        if self.reader.thread is not None:
            self.reader.close(10)
        self.reader._beginnings.close()
        self.reader._broker_queries.close()

    def begin_by_hand(self, *partitions: Partition) -> None:
        """Assign partitions and start them, with the reader's turns left to the caller."""
        self.reader._source, self.reader._ticker = self.source, self.ticker
        self.source.subscribe.side_effect = lambda _topics: self.reader.assigned(list(partitions))
        self.reader.assigned(list(partitions))
        self.look_up()
        self.commit()

    def look_up(self) -> None:
        """Take turns until it is known where all partitions start."""
        deadline = time.monotonic() + PATIENCE_SECS
        while self.reader._looks_up and time.monotonic() < deadline:
            self.reader._turn(self.source)
        assert (self.reader._looks_up, self.failed) == (False, [])

    def turn_until(self, wanted: Callable[[], bool]) -> None:
        """Take turns until this is true."""
        deadline = time.monotonic() + PATIENCE_SECS
        while not wanted() and time.monotonic() < deadline:
            self.reader._turn(self.source)
        assert (wanted(), self.failed) == (True, [])

    def wait_found(self) -> None:
        """Wait until something is found about a partition that was looked up."""
        deadline = time.monotonic() + PATIENCE_SECS
        while not self.reader._beginnings.found and time.monotonic() < deadline:
            time.sleep(0.01)
        assert (bool(self.reader._beginnings.found), self.failed) == (True, [])

    def commit(self, *, slots: int = 0) -> list[list[int]]:
        """Commit a tick, if there is one, as the broker does; return the offsets of each posted batch."""
        with self.state.changed:
            self.state.queue(self.state.batcher.drain())
            tick = self.state.flow.plan(now=time.monotonic(), slots=slots)
            if tick is None:
                return []
            self.stand.update(tick.offsets)
            posted = self.state.flow.committed(tick)
        return [[offset for chunk in batch.chunks for offset in chunk.offsets] for _, batch in posted]

    def send(self, *offsets: int) -> None:
        """Read records, post them, and commit that they were queued."""
        self.reader._take(chunk_of(self.reader._assigned[PARTITION].epoch, *offsets), 100.0)
        self.commit(slots=1)
        [(serial, batch)] = self.state.flow.active.items()
        self.state.finish(serial, batch.chunks, Verdicts(QUEUED), attempts=1, sent_ms=1, answered_ms=2)
        self.commit()

    def ask_ids(self, ids: dict[str, int] | None) -> None:
        """Query the ids of topics, with these results, None if the cluster returns none."""
        self.ids = ids
        for _ in range(3):  # one may wait for the answer to an earlier query
            self.reader._identities._due = 0.0
            self.reader._turn(self.source)

    def wait(self, wanted: Callable[[], bool]) -> None:
        with self._began:
            assert self._began.wait_for(wanted, PATIENCE_SECS), (self.begins, self.failed)
        assert self.failed == []

    def wait_for_share(self, share: float) -> None:
        pacer, deadline = self.state.admission.pacer, time.monotonic() + PATIENCE_SECS
        assert pacer is not None
        while pacer.share != share and time.monotonic() < deadline:
            time.sleep(0.01)
        assert (pacer.share, self.failed) == (share, [])

    def has_begun(self, partition: Partition) -> bool:
        return any(began == partition for _, began, _ in self.begins)

    def _begin(self, partition: Partition, offset: int, _leader_epoch: int, _read_to: int) -> bool:
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
    made.close()


def test_a_window_is_counted_from_the_first_record_and_not_from_the_end_of_the_wait_for_more() -> None:
    reading = Reading()
    state, window = reading.state, reading.state.batcher.limits.window_secs
    state.flow.assign(PARTITION, 1, Progress(OFFSET))

    reading.reader._take(chunk_of(1, OFFSET), 100.0)

    assert state.admission.next_deadline(may_start=True) == 100.0 + window


@pytest.fixture
def holding() -> Iterator[Reading]:
    """Create a reader that holds for records in doubt; two are listed as in flight."""
    made = Reading("hold")
    made.stand[PARTITION] = OFFSET, encode(Progress(OFFSET, in_flight=RangeSet([(OFFSET, OFFSET + 2)])))
    yield made
    made.close()


def test_what_another_worker_had_in_flight_waits_for_the_operator(holding: Reading) -> None:
    holding.start(PARTITION)

    deadline = time.monotonic() + PATIENCE_SECS
    while not holding.state.partition_holds and time.monotonic() < deadline:
        time.sleep(0.01)

    hold = holding.state.partition_holds[PARTITION]
    assert (hold.reason, hold.detail) == (
        "in_doubt",
        f"{PARTITION}: 2 records are in doubt; decide what to do with them",
    )
    assert not holding.has_begun(PARTITION)


def test_a_partition_whose_records_in_flight_were_all_answered_needs_no_operator(holding: Reading) -> None:
    answered = Finished((chunk_of(1, OFFSET, OFFSET + 1),), Verdicts(QUEUED), "t-1")
    assert holding.state.flow.settle(answered) is None, "its partition is gone"
    holding.start(PARTITION)

    holding.wait(lambda: holding.has_begun(PARTITION))

    holding.reader._take(chunk_of(holding.reader._assigned[PARTITION].epoch, OFFSET, OFFSET + 1), 100.0)
    assert [item.count for item in holding.state.flow.finished] == [2]
    assert holding.state.partition_holds == {}


@pytest.mark.parametrize("answered", [False, True])
def test_records_that_a_worker_takes_over_in_doubt_are_reported_with_what_becomes_of_them(
    reading: Reading, answered: bool
) -> None:
    reading.stand[PARTITION] = OFFSET, encode(Progress(OFFSET, in_flight=RangeSet([(OFFSET, OFFSET + 2)])))
    if answered:
        reading.state.flow.settle(Finished((chunk_of(1, OFFSET, OFFSET + 1),), Verdicts(QUEUED), "t-1"))

    with capture_logs() as logs:
        reading.begin_by_hand(PARTITION)

    told = [
        (line["partition"], line["records"], line["in_doubt"]) for line in logs if line["event"] == "records in doubt"
    ]
    assert told == ([] if answered else [(str(PARTITION), 2, "dead_letter")])


_LONG_AGO, _SINCE = datetime(2020, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("start", "base", "last", "told"),
    [
        ("earliest", 60, 80, "all would be posted again"),
        ("latest", 100, 80, "19 offsets after it would be skipped"),
        ("latest", 100, 20, "40 offsets after it would be skipped"),
        ("latest", 100, 99, ""),
        ("latest", 100, None, ""),
        ("latest", 100, 120, "recreated; with `start: latest`, its 40 offsets would be skipped"),
        ("earliest", 60, 120, ""),
        (_LONG_AGO, 70, 80, "all would be posted again"),
        (_SINCE, 90, 80, ""),
        (_SINCE, 100, 80, ""),
    ],
)
def test_what_kafka_forgot_is_neither_posted_again_nor_passed_over_before_the_operator_decides(
    start: Literal["earliest", "latest"] | datetime, base: int, last: int | None, told: str
) -> None:
    """Offsets 60 to 99 exist. A time after the last outcome was set on purpose, to skip older records."""
    reading = Reading()
    beginnings = reading.reader._beginnings
    beginnings._options = replace(beginnings._options, start=start)
    beginnings._last_settled = lambda _: {} if last is None else {PARTITION: last}
    reading.source.offset_at.return_value = base
    reading.source.committed.side_effect = lambda asked, _secs: {p: Committed(None, "") for p in asked}
    try:
        reading.begin_by_hand(PARTITION)

        hold = reading.state.partition_holds.get(PARTITION)
        assert (hold is not None) == bool(told)
        assert told in (hold.detail if hold is not None else "")
        assert [where for *_, where in reading.begins] == ([] if told else [base])
    finally:
        reading.close()


def test_a_topic_that_replaces_another_begins_at_its_first_record_and_doubts_only_what_may_have_been_its_own(
    reading: Reading,
) -> None:
    """Offsets 60 to 99 exist. What was read before the last known id was of the old topic."""
    reading.begin_by_hand(PARTITION)
    reading.ask_ids({PARTITION.topic: 1})
    reading.send(OFFSET, OFFSET + 1)
    reading.ask_ids({PARTITION.topic: 1})
    reading.send(OFFSET + 2, OFFSET + 3)
    reading.reader._take(chunk_of(reading.reader._assigned[PARTITION].epoch, OFFSET + 4), 100.0)
    reading.ask_ids({PARTITION.topic: 2})
    reading.look_up()
    reading.commit()

    base, metadata = reading.stand[PARTITION]
    assert [where for *_, where in reading.begins] == [OFFSET, 60]
    assert decode(base, metadata).in_flight == RangeSet([(OFFSET + 2, OFFSET + 4)])
    assert (base, reading.state.counts.missing) == (60, 1)


def test_a_topic_that_replaces_another_is_read_by_a_new_consumer_once_what_was_posted_has_its_results(
    reading: Reading,
) -> None:
    """Where its leader epochs are lower than those of the old one, librdkafka reads nothing of it, without a word."""
    other = Partition(PARTITION.topic, PARTITION.number + 1)
    calls = reading.source.mock_calls
    reading.begin_by_hand(PARTITION, other)
    reading.ask_ids({PARTITION.topic: 1})
    reading.reader._take(chunk_of(reading.reader._assigned[PARTITION].epoch, OFFSET), 100.0)
    reading.commit(slots=1)
    reading.ask_ids({PARTITION.topic: 2})
    waits = not reading.source.renew.called
    [(serial, batch)] = reading.state.flow.active.items()
    reading.state.finish(serial, batch.chunks, Verdicts(QUEUED), attempts=1, sent_ms=1, answered_ms=2)
    reading.commit()
    reading.reader._turn(reading.source)
    reading.look_up()

    names = [name for name, *_ in calls if name in ("renew", "subscribe", "begin")]
    assert (waits, names) == (True, ["begin", "begin", "renew", "subscribe", "begin", "begin"])


def test_what_may_have_been_read_of_a_topic_that_replaces_another_holds_once_that_is_committed(
    holding: Reading,
) -> None:
    """A worker that is restarted during the hold would take the old topic's commit for one of the new."""
    holding.stand.clear()
    holding.begin_by_hand(PARTITION)
    holding.ask_ids({PARTITION.topic: 1})
    holding.send(OFFSET)
    holding.ask_ids({PARTITION.topic: 2})
    holding.look_up()
    holding.commit()
    holding.reader._take(chunk_of(holding.reader._assigned[PARTITION].epoch, 60, OFFSET), 100.0)

    assert holding.stand[PARTITION][0] == 60
    assert holding.state.partition_holds[PARTITION].reason == "in_doubt"


def test_what_was_answered_of_a_replaced_topic_is_no_answer_for_the_same_offset_of_the_next_one(
    reading: Reading,
) -> None:
    """Both topics were another worker's as well, which has begun the next one and listed its record there."""
    reading.begin_by_hand(PARTITION)
    reading.ask_ids({PARTITION.topic: 1})
    reading.reader._take(chunk_of(reading.reader._assigned[PARTITION].epoch, OFFSET), 100.0)
    reading.commit(slots=1)
    [(serial, batch)] = reading.state.flow.active.items()
    reading.reader.lost([PARTITION])
    reading.state.finish(serial, batch.chunks, Verdicts(QUEUED), attempts=1, sent_ms=1, answered_ms=2)
    listed = RangeSet([(OFFSET, OFFSET + 1)])
    reading.stand[PARTITION] = OFFSET, encode(Progress(OFFSET, birth=4, mark=1, in_flight=listed))
    reading.ids = {PARTITION.topic: 2}
    reading.reader.assigned([PARTITION])
    reading.look_up()
    reading.reader._take(chunk_of(reading.reader._assigned[PARTITION].epoch, OFFSET), 100.0)

    assert [item.verdicts.default.reason for item in reading.state.flow.finished] == ["in_doubt"]


def test_records_of_a_replaced_topic_that_are_posted_have_their_results_before_the_next_one_begins(
    reading: Reading,
) -> None:
    reading.begin_by_hand(PARTITION)
    reading.ask_ids({PARTITION.topic: 1})
    reading.reader._take(chunk_of(reading.reader._assigned[PARTITION].epoch, OFFSET), 100.0)
    reading.commit(slots=1)
    reading.ask_ids({PARTITION.topic: 2})
    waits = [where for *_, where in reading.begins]
    [(serial, batch)] = reading.state.flow.active.items()
    reading.state.finish(serial, batch.chunks, Verdicts(QUEUED), attempts=1, sent_ms=1, answered_ms=2)
    [item] = reading.state.flow.finished
    reading.commit()
    reading.reader._turn(reading.source)
    reading.look_up()

    assert (waits, item.count, [where for *_, where in reading.begins]) == ([OFFSET], 1, [OFFSET, 60])


@pytest.mark.parametrize(
    ("cluster", "topic"),
    [("east", 1), ("east", 0), ("east", None), ("west", 2)],
    ids=["same", "no-ids", "deleted", "copy"],
)
def test_a_topic_that_is_not_known_to_replace_another_is_read_on(
    reading: Reading, cluster: str, topic: int | None
) -> None:
    """In another cluster, as after a failover to a copy, the copied topic has another id."""
    reading.begin_by_hand(PARTITION)
    reading.ask_ids({PARTITION.topic: 1})
    reading.cluster = cluster
    reading.ask_ids({} if topic is None else {PARTITION.topic: topic})
    reading.look_up()

    assert [where for *_, where in reading.begins] == [OFFSET]


def test_a_broker_that_has_not_heard_of_the_new_topic_yet_does_not_bring_the_old_one_back(reading: Reading) -> None:
    """The new topic would be taken for another one and restarted, and its records would be sent again."""
    reading.begin_by_hand(PARTITION)
    reading.ask_ids({PARTITION.topic: 1})
    reading.ask_ids({PARTITION.topic: 2})
    reading.look_up()
    reading.send(OFFSET, OFFSET + 1)
    reading.ask_ids({PARTITION.topic: 1})
    reading.ask_ids({PARTITION.topic: 2})
    reading.ask_ids({PARTITION.topic: 1})

    assert reading.source.renew.call_count == 1
    assert [where for *_, where in reading.begins] == [OFFSET, 60]
    assert (reading.reader._assigned[PARTITION].restart_by, bool(reading.reader._beginnings.found)) == (None, False)


@pytest.mark.parametrize(("by_others", "begins"), [(False, 60), (True, OFFSET + 5)])
def test_a_partition_that_returns_with_another_topic_begins_at_a_commit_made_in_between_if_any(
    reading: Reading, by_others: bool, begins: int
) -> None:
    """The newer group protocol, for instance, notices a recreated topic before we do."""
    reading.begin_by_hand(PARTITION)
    reading.ask_ids({PARTITION.topic: 1})
    reading.send(OFFSET, OFFSET + 1)
    reading.reader.lost([PARTITION])
    if by_others:
        reading.stand[PARTITION] = OFFSET + 5, encode(Progress(OFFSET + 5, birth=4, mark=7))
    reading.ids = {PARTITION.topic: 2}
    reading.reader.assigned([PARTITION])
    reading.look_up()

    assert [where for *_, where in reading.begins] == [OFFSET, begins]


def test_records_in_doubt_with_forgotten_answers_hold_their_partition(holding: Reading) -> None:
    """They were known when it started; others came since, and beyond the limit the oldest answers are forgotten."""
    flow = holding.state.flow
    holding.stand[PARTITION] = OFFSET, encode(Progress(OFFSET))
    holding.begin_by_hand(PARTITION)
    flow.assign(PARTITION, 1, Progress(OFFSET, in_flight=RangeSet([(OFFSET, OFFSET + 2)])))

    holding.reader._take(chunk_of(1, OFFSET, OFFSET + 1), 100.0)

    hold = holding.state.partition_holds[PARTITION]
    assert (hold.reason, "2 records are in doubt" in hold.detail) == ("in_doubt", True)
    assert not flow.finished
    assert flow.partitions[PARTITION].held


@pytest.mark.parametrize(
    "error",
    [
        AbortableError(KafkaError(KafkaError._UNKNOWN_PARTITION)),  # its topic was deleted meanwhile
        RetriableError(KafkaError(KafkaError._TIMED_OUT)),  # its leader is unreachable
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


def test_a_topic_that_may_not_be_read_is_held_until_it_is_read_whatever_others_bring(reading: Reading) -> None:
    """This is reported once, when the permission is lost, and not again while no records come."""
    elsewhere = Partition("other-topic", 0)
    reading.begin_by_hand(PARTITION, elsewhere)
    refused = AbortableError(KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED))

    def bring(read: Read) -> bool:
        reading.source.read.side_effect = [read]
        reading.reader._turn(reading.source)
        return reading.reader.troubles.refused is not None

    epoch = reading.reader.epoch_of(PARTITION)
    assert epoch is not None
    held = [
        bring(Read(troubles=[(elsewhere, refused)])),
        bring(Read(chunks=[chunk_of(epoch, OFFSET)])),
    ]
    reading.reader.assigned([OTHER])
    held.append(bring(Read()))
    held.append(bring(Read(chunks=[Chunk(elsewhere, 0, [7], [VALUE])])))

    assert held == [True, True, True, False]


@pytest.mark.parametrize("assigned", [True, False])
def test_a_group_that_may_not_be_read_is_held_until_it_is(reading: Reading, assigned: bool) -> None:
    reading.begin_by_hand(PARTITION)
    reading.reader.troubles.take(None, AbortableError(KafkaError(KafkaError.GROUP_AUTHORIZATION_FAILED)))
    assert reading.reader.troubles.refused is not None

    if assigned:
        reading.reader.assigned([])
    else:
        reading.source.read.side_effect = [Read(chunks=[chunk_of(1, OFFSET)])]
        reading.reader._turn(reading.source)

    assert reading.reader.troubles.refused is None


def _some(count: int) -> set[Partition]:
    return {Partition(PARTITION.topic, number) for number in range(count)}


def test_a_worker_learns_of_others_that_share_its_paces_when_nothing_is_assigned_to_it(reading: Reading) -> None:
    """A rebalance that gives it nothing new may have given others partitions, of topics that grew."""
    reading.state.admission.pacer = Pacer(Pace(600, {}), max_lot=10)
    counts: Iterator[KafkaTroubleError | int] = iter([KafkaTroubleError("not now"), 4, 8])

    def all_partitions(_topics: object, _secs: float) -> set[Partition]:
        count = next(counts)
        if isinstance(count, KafkaTroubleError):
            raise count
        return _some(count)

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
        answered.wait(PATIENCE_SECS)
        order.append("answered")
        return 60, 100

    reading.source.bounds.side_effect = bounds
    reading.source.close.side_effect = lambda: order.append("closed")
    reading.source.read.side_effect = lambda *_: (asked.wait(PATIENCE_SECS), 1 / 0)
    reading.start(PARTITION)
    assert asked.wait(PATIENCE_SECS)
    threading.Timer(0.3, answered.set).start()
    reading.reader.close(30)

    assert order == ["answered", "closed"]


def test_partitions_that_come_while_the_consumer_leaves_are_not_looked_up(reading: Reading) -> None:
    """A stream that is stopped right after its start joins its group within the call that leaves it."""
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


@pytest.mark.parametrize("how", ["lost its brokers", "was expelled from its group"])
def test_a_consumer_that_cannot_continue_is_replaced_and_its_partitions_are_given_up(
    reading: Reading, how: str
) -> None:
    def renew() -> None:
        reading.source.was_expelled = False

    reading.source.renew.side_effect = renew
    if how == "lost its brokers":
        reading.source.is_silent = True
        answers = iter([False, True])  # checked again and again, as long as nothing comes
        reading.source.is_cut_off.side_effect = lambda _secs: next(answers, False)
    reading.start(PARTITION)
    reading.wait(lambda: reading.has_begun(PARTITION))
    reading.source.was_expelled = how == "was expelled from its group"

    deadline = time.monotonic() + PATIENCE_SECS
    while reading.source.subscribe.call_count < 2 and time.monotonic() < deadline:
        time.sleep(0.01)

    reading.source.renew.assert_called_once_with()
    assert reading.state.counts.consumers_replaced == 1
    reading.wait(lambda: len(reading.begins) == 2)  # the new consumer reads it, from its progress on
    assert [offset for _, _, offset in reading.begins] == [OFFSET, OFFSET]


def test_a_partition_that_a_tick_still_names_begins_when_that_is_over(reading: Reading) -> None:
    """Its results may be needed: whether they were written decides what is in doubt."""
    reading.ticker.names.side_effect = lambda partitions: PARTITION in partitions and not over
    over: list[bool] = []
    reading.start(PARTITION, OTHER)

    reading.wait(lambda: reading.has_begun(OTHER))
    assert not reading.has_begun(PARTITION)
    over.append(True)
    reading.wait(lambda: reading.has_begun(PARTITION))


def test_a_partition_begins_at_what_a_tick_commits_that_was_running_when_it_came_back(reading: Reading) -> None:
    """The same member may lose it and get it back: brokers need not reject the commit, which may be slow."""
    reading.begin_by_hand(PARTITION)
    reading.reader._take(chunk_of(reading.reader._assigned[PARTITION].epoch, OFFSET), 100.0)
    reading.commit(slots=1)
    [(serial, batch)] = reading.state.flow.active.items()
    reading.state.finish(serial, batch.chunks, Verdicts(QUEUED), attempts=1, sent_ms=1, answered_ms=2)
    tick = reading.state.flow.plan(now=0.0, slots=0)
    assert tick is not None
    running = set(tick.offsets)
    reading.ticker.names.side_effect = lambda asked: not asked.isdisjoint(running)

    reading.reader.lost([PARTITION])
    reading.reader.assigned([PARTITION, OTHER])
    reading.turn_until(lambda: reading.has_begun(OTHER))
    reading.stand.update(tick.offsets)
    reading.state.flow.committed(tick)
    running.clear()
    reading.look_up()

    assert [offset for _, partition, offset in reading.begins if partition == PARTITION] == [OFFSET, OFFSET + 1]
    assert reading.state.flow.partitions[PARTITION].doubt.count == 0


def test_what_an_unresolved_tick_lists_needs_no_operator_when_its_partition_came_back_meanwhile(
    holding: Reading,
) -> None:
    """None of it was posted, which is known only once it is known that the tick was ours."""
    holding.stand.clear()
    holding.begin_by_hand(PARTITION)
    holding.reader._take(chunk_of(holding.reader._assigned[PARTITION].epoch, OFFSET), 100.0)
    with holding.state.changed:
        holding.state.queue(holding.state.batcher.drain())
        tick = holding.state.flow.plan(now=0.0, slots=1)
    assert tick is not None
    running = set(tick.offsets)
    holding.ticker.names.side_effect = lambda asked: not asked.isdisjoint(running)
    holding.stand.update(tick.offsets)

    holding.reader.lost([PARTITION])
    holding.reader.assigned([PARTITION, OTHER])
    holding.turn_until(lambda: holding.has_begun(OTHER))
    holding.state.flow.aborted(tick)
    running.clear()
    holding.look_up()

    assert holding.state.partition_holds == {}
    assert [offset for _, partition, offset in holding.begins if partition == PARTITION] == [OFFSET, OFFSET]


def test_a_partition_that_begins_while_there_is_no_room_has_no_other_read_on(reading: Reading) -> None:
    """Otherwise memory would grow for as long as a hold lasts."""
    reading.begin_by_hand(PARTITION)
    stopped: set[Partition] = set()
    reading.source.pause.side_effect = stopped.update
    next_offset = itertools.count(OFFSET)

    def read(_count: int, timeout_secs: float) -> Read:
        if PARTITION in stopped:
            time.sleep(timeout_secs)
            return Read()
        return Read([chunk_of(reading.reader._assigned[PARTITION].epoch, next(next_offset))])

    reading.source.read.side_effect = read
    reading.state.pause("for the test")
    reading.reader.assigned([OTHER])
    reading.wait_found()

    for _ in range(5):
        reading.reader._turn(reading.source)

    assert stopped == {PARTITION, OTHER}
    assert reading.state.counts.records_read == 0


def test_what_begins_and_what_is_resumed_is_asked_for_at_once(
    reading: Reading, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The threads of librdkafka may be asleep; partitions that start without room are not fetched."""
    monkeypatch.setattr("connector.stream.reader.LONG_WAIT_SECS", 0.02)
    woken: list[list[Partition]] = []
    reading.source.wake.side_effect = lambda partitions: woken.append(sorted(partitions))
    reading.begin_by_hand(PARTITION)
    reading.state.pause("for the test")
    reading.reader._turn(reading.source)
    reading.reader.assigned([OTHER])
    reading.look_up()
    with reading.state.changed:
        reading.state.resume()

    reading.reader._turn(reading.source)
    reading.reader._broker_queries._thread.shutdown()

    assert woken == [[PARTITION], [PARTITION, OTHER]]
    assert reading.source.pause.call_args.args[0] == [OTHER], "it is not read on either"


def test_a_held_partition_does_not_have_the_next_one_wait_to_be_begun(reading: Reading) -> None:
    """It was counted twice, as started and as held: all seemed to have started, and reads waited their whole time."""
    reading.begin_by_hand(PARTITION)
    reading.state.hold_partition(PARTITION, "in_doubt", "for the test")
    reading.source.committed.side_effect = RetriableError("for the test")
    reading.reader.assigned([OTHER])

    reading.reader._turn(reading.source)

    assert reading.source.read.call_args.args[1] <= 0.01


def test_what_is_not_started_of_a_partition_that_is_held_takes_no_room_from_others(reading: Reading) -> None:
    """With a busy key there is always a full buffer of waiting records; they are read again after the decision."""
    reading.state.admission.key_queues = KeyQueues()
    reading.begin_by_hand(PARTITION)
    epoch, offsets = reading.reader._assigned[PARTITION].epoch, range(OFFSET, OFFSET + 5_000)
    read = Chunk(PARTITION, epoch, offsets[:4_000], [VALUE] * 4_000, keys=[b"k"] * 4_000)
    late = Chunk(PARTITION, epoch, offsets[4_000:], [VALUE] * 1_000, keys=[b"k"] * 1_000)
    reading.reader._take(read, 100.0)
    had_room = reading.reader.has_room

    reading.state.hold_partition(PARTITION, "in_doubt", "an answer was lost")
    reading.reader._take(late, 101.0)

    assert (had_room, reading.reader.has_room) == (False, True)
    assert reading.state.held_bytes == 0


def test_what_was_in_flight_before_the_order_was_kept_goes_after_earlier_records_of_its_key() -> None:
    """Without ordering, later records of a key may be in doubt while earlier ones were not even read."""
    reading = Reading("resend")
    reading.state.admission.key_queues = KeyQueues()
    doubt = RangeSet([(OFFSET + 1, OFFSET + 2), (OFFSET + 4, OFFSET + 6)])
    reading.stand[PARTITION] = OFFSET, encode(Progress(OFFSET, in_flight=doubt))
    reading.begin_by_hand(PARTITION)
    epoch, keys = reading.reader._assigned[PARTITION].epoch, [b"k", b"k", b"a", b"b", b"a", b"c", b"c"]
    read = Chunk(PARTITION, epoch, range(OFFSET, OFFSET + 7), [VALUE] * 7, keys=list(keys))

    reading.reader._take(read, 100.0)
    posted = [offset for offsets in reading.commit(slots=9) for offset in offsets]
    reading.close()

    assert sorted(posted) == [OFFSET, OFFSET + 2, OFFSET + 3, OFFSET + 5]
    assert reading.state.counts.resent == 3


def test_a_partition_is_not_looked_up_again_while_a_tick_names_it(reading: Reading) -> None:
    """Nothing would reject that tick's commit, since the partition stays assigned: it must be known first."""
    reading.begin_by_hand(PARTITION)
    state, flow = reading.state, reading.state.flow
    reading.reader._take(chunk_of(reading.reader._assigned[PARTITION].epoch, OFFSET), 100.0)
    assert reading.commit(slots=1) == [[OFFSET]]
    [(serial, sent)] = flow.active.items()
    item = flow.finish(serial, sent.chunks, Verdicts(REFUSED), attempts=1, sent_ms=1, answered_ms=1)
    assert item is not None
    apart, _ = flow.set_aside(item, REFUSED.reason)
    assert apart is not None
    state.quarantine.append(apart)
    reading.commit()
    state.hold_partition(PARTITION, "in_doubt", "an answer was lost")

    with state.changed:
        state.resume()
    reading.reader.resume({PARTITION: Decision(in_doubt="dead_letter")})
    tick = flow.plan(now=0.0, slots=0)
    assert tick is not None
    running = set(tick.offsets)
    reading.ticker.names.side_effect = lambda asked: not asked.isdisjoint(running)
    for _ in range(3):
        reading.reader._turn(reading.source)
    reading.stand.update(tick.offsets)
    flow.committed(tick)
    running.clear()
    reading.reader._turn(reading.source)
    reading.look_up()

    assert [offset for _, _, offset in reading.begins] == [OFFSET, OFFSET + 1], "it begins behind what is settled"


def test_a_hold_that_came_after_the_decision_about_an_earlier_one_is_asked_about_with_it(holding: Reading) -> None:
    holding.stand.clear()
    holding.begin_by_hand(PARTITION)
    holding.reader._take(chunk_of(holding.reader._assigned[PARTITION].epoch, OFFSET, OFFSET + 1), 100.0)
    assert holding.commit(slots=1) == [[OFFSET, OFFSET + 1]]
    state, flow = holding.state, holding.state.flow
    [(serial, sent)] = flow.active.items()
    state.hold_partition(PARTITION, "in_doubt", "an answer was lost")
    holding.reader.resume({PARTITION: Decision(in_doubt="resend")})
    holding.reader._turn(holding.source)  # what is in flight has to be answered first
    flow.doubt(sent.chunks)
    flow.withdraw(serial)
    state.hold_partition(PARTITION, "in_doubt", "another answer was lost")
    holding.commit()

    holding.reader._turn(holding.source)
    holding.look_up()

    assert "2 records are in doubt" in state.partition_holds[PARTITION].detail
    assert PARTITION not in flow.partitions


def test_of_two_decisions_the_partition_begins_by_the_later_one_and_once(holding: Reading) -> None:
    """The first lookup may take long, with brokers unreachable; its result is outdated then."""
    holding.begin_by_hand(PARTITION)
    assert PARTITION in holding.state.partition_holds
    asked, answered = threading.Semaphore(0), threading.Semaphore(0)

    def bounds(_partition: Partition, _secs: float) -> tuple[int, int]:
        asked.release()
        assert answered.acquire(timeout=PATIENCE_SECS)
        return 60, 100

    holding.source.bounds.side_effect = bounds
    for _ in range(2):
        holding.reader.resume({PARTITION: Decision(in_doubt="resend")})
        holding.reader._turn(holding.source)
        assert asked.acquire(timeout=PATIENCE_SECS)
        holding.state.hold_partition(PARTITION, "in_doubt", "for the test: it is still there")
    holding.state.partition_holds.clear()
    for _ in range(2):
        answered.release()
        holding.wait_found()
        holding.reader._turn(holding.source)

    assert [offset for _, _, offset in holding.begins] == [OFFSET]
    assert holding.state.partition_holds == {}


def test_of_two_decisions_that_come_at_once_the_first_is_carried_out(holding: Reading) -> None:
    """When the second one's turn comes, there is no hold that it could be about."""
    holding.begin_by_hand(PARTITION)
    for choice in ("resend", "dead_letter"):
        holding.reader.resume({PARTITION: Decision(in_doubt=choice)})
    holding.reader._turn(holding.source)
    holding.look_up()

    holding.reader._take(chunk_of(holding.reader._assigned[PARTITION].epoch, OFFSET, OFFSET + 1), 100.0)

    assert (holding.state.counts.resent, len(holding.state.flow.finished)) == (2, 0)


def test_partitions_that_nothing_can_be_learned_of_take_no_thread_from_those_that_come_later(reading: Reading) -> None:
    def bounds(partition: Partition, _secs: float) -> tuple[int, int]:
        if partition.number < 3:
            raise AbortableError(KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED))
        return 60, 100

    reading.source.bounds.side_effect = bounds
    unknown = [Partition(PARTITION.topic, number) for number in range(3)]
    healthy = Partition(PARTITION.topic, 3)
    reading.start()
    for partition in (*unknown, healthy):
        reading.reader.assigned([partition])

    reading.wait(lambda: reading.has_begun(healthy))

    assert [began for _, began, _ in reading.begins] == [healthy]


def test_a_partition_whose_topic_only_seemed_to_be_deleted_restarts(reading: Reading) -> None:
    """The ticker releases it, so that it does not fail every tick; whether it exists is for Kafka to say."""
    reading.begin_by_hand(PARTITION)
    reading.state.flow.release([PARTITION])

    reading.reader._turn(reading.source)
    reading.look_up()

    assert [offset for _, _, offset in reading.begins] == [OFFSET, OFFSET]
    assert PARTITION in reading.state.flow.partitions


def test_a_partition_that_ends_with_what_can_not_be_read_is_committed_to_its_end(reading: Reading) -> None:
    """Retention removes the marker of the last transaction as well, which is not an unread record."""
    reading.begin_by_hand(PARTITION)
    reading.source.passed.return_value = {PARTITION: OFFSET + 3}
    reading.reader._stock_taken_at = float("-inf")

    reading.reader._turn(reading.source)

    reading.commit()
    assert (reading.stand[PARTITION][0], reading.state.counts.passed_over) == (OFFSET + 3, 3)
    reading.source.passed.return_value = {PARTITION: OFFSET + 5}
    reading.reader._stock_taken_at = float("-inf")
    reading.reader._turn(reading.source)
    reading.commit()
    assert (reading.stand[PARTITION][0], reading.state.counts.passed_over) == (OFFSET + 5, 5)


def test_a_partition_that_has_not_begun_is_not_passed_over(reading: Reading) -> None:
    """The consumer's position is from before it was released: what was read since then was dropped."""
    reading.begin_by_hand(PARTITION)
    reading.source.passed.return_value = {PARTITION: OFFSET + 3}
    reading.source.begin.side_effect = lambda *_: False
    reading.reader._reload(PARTITION, 1.0)

    deadline = time.monotonic() + PATIENCE_SECS
    while reading.reader._assigned[PARTITION].begin_at is None and time.monotonic() < deadline:
        reading.reader._stock_taken_at = float("-inf")
        reading.reader._turn(reading.source)

    assert reading.reader._assigned[PARTITION].begin_at is not None
    reading.commit()
    assert reading.stand[PARTITION][0] == OFFSET


def test_a_partition_that_waits_for_its_restart_is_not_passed_over(reading: Reading) -> None:
    """The consumer's position is behind records that it returned, and that were dropped as others than those read."""
    reading.begin_by_hand(PARTITION)
    reading.source.read.side_effect = [Read(missing=[PARTITION], truncated={PARTITION: OFFSET})]
    reading.reader._turn(reading.source)
    reading.ticker.names.return_value = True
    reading.source.read.side_effect = reading._read
    reading.source.passed.return_value = {PARTITION: OFFSET + 3}
    reading.reader._stock_taken_at = float("-inf")

    reading.reader._turn(reading.source)

    reading.commit()
    assert (reading.stand.get(PARTITION, (OFFSET, ""))[0], reading.state.counts.passed_over) == (OFFSET, 0)


def test_lists_of_partitions_that_stay_continue_at_their_pace_while_another_drains(reading: Reading) -> None:
    """The reader waits for what is in flight, and nobody else checks whose turn has come."""
    reading.source.all_partitions.return_value = _some(2)
    reading.preparer._operation = Operation("send", Rules(list_number="+18005551234", keep_lists=True))
    pacer = reading.state.admission.pacer = Pacer(Pace(6_000), max_lot=10)
    reading.begin_by_hand(PARTITION, OTHER)
    epochs = {partition: mine.epoch for partition, mine in reading.reader._assigned.items()}
    offsets = range(OFFSET, OFFSET + 500)
    reading.reader._take(Chunk(PARTITION, epochs[PARTITION], offsets[:5], [VALUE] * 5), time.monotonic())
    assert reading.commit(slots=1) == [list(offsets[:5])]
    reading.reader._take(Chunk(OTHER, epochs[OTHER], offsets, [VALUE] * 500), time.monotonic())
    waiting = pacer.waiting_records

    began = time.monotonic()
    reading.reader._release([PARTITION], began + 1.0)

    assert waiting > 400
    print(
        f"{waiting - pacer.waiting_records} of {waiting} went on in {time.monotonic() - began:.2f} s, 100 a second may"
    )
    assert pacer.waiting_records < waiting - 30


def test_partitions_that_begin_together_have_all_of_their_share_of_a_pace_at_once(reading: Reading) -> None:
    """Otherwise the first record of a slow list would be charged at the share of a single partition."""
    partitions = [Partition(PARTITION.topic, number) for number in range(60)]
    reading.source.all_partitions.return_value = _some(60)
    reading.preparer._operation = Operation("send", Rules(list_number="+18005551234", keep_lists=True))
    pacer = reading.state.admission.pacer = Pacer(Pace(60), max_lot=10)
    reading.reader._stock_taken_at = time.monotonic() + 30
    reading.begin_by_hand(*partitions)

    epoch, at = reading.reader._assigned[PARTITION].epoch, time.monotonic()
    reading.reader._take(Chunk(PARTITION, epoch, range(OFFSET, OFFSET + 7), [VALUE] * 7), at)

    next_at = pacer.next_at()
    assert (pacer.share, pacer.waiting_records) == (1.0, 2), "of one a second, a lot has gone on"
    assert next_at is not None
    assert next_at - at < LOT_SECS


def test_bad_records_of_a_backlog_are_no_storm_where_most_are_well(reading: Reading) -> None:
    """Good records have no result before they are answered; a backlog of bad ones is found at once."""
    state = reading.state
    state.storm = StormGuard(StormPolicy(0.5, 100, 60.0))
    reading.begin_by_hand(PARTITION)
    epoch = reading.reader._assigned[PARTITION].epoch

    for first in range(OFFSET, OFFSET + 10_000, 1_000):
        values = [b"{" if number % 20 == 0 else VALUE for number in range(1_000)]
        reading.reader._take(Chunk(PARTITION, epoch, range(first, first + 1_000), values), time.monotonic())
    assert state.holds() == []

    first += 1_000
    reading.reader._take(Chunk(PARTITION, epoch, range(first, first + 12_000), [b"{"] * 12_000), time.monotonic())
    assert [(hold.reason, hold.detail) for hold in state.holds()] == [
        ("storm:not_json", "too large a share of records end as not_json: 12,500 of 22,000 lately")
    ]


def test_a_worker_without_partitions_has_no_lag_and_one_whose_ends_are_unknown_does_not_know(reading: Reading) -> None:
    """A supervisor adds up the lags of its workers; a sum with an unknown part is unknown."""
    reading.reader._source, reading.reader._ticker = reading.source, reading.ticker
    reading.reader._take_stock(reading.source)
    unassigned = reading.reader.lag
    reading.reader.assigned([])
    reading.reader._stock_taken_at = float("-inf")
    reading.reader._take_stock(reading.source)
    without = reading.reader.lag
    reading.source.known_end.return_value = None
    reading.begin_by_hand(PARTITION)
    reading.reader._stock_taken_at = float("-inf")
    reading.reader._take_stock(reading.source)

    assert (unassigned, without, reading.reader.lag) == (None, 0, None)


def test_a_worker_whose_partitions_were_lost_does_not_know_its_lag_until_it_is_in_its_group_again(
    reading: Reading,
) -> None:
    """No broker has answered for a session: it must not look as if nothing waited."""
    reading.reader._source, reading.reader._ticker = reading.source, reading.ticker
    reading.reader.assigned([PARTITION])
    seen = []
    for is_back in (False, True):
        if is_back:
            reading.reader.assigned([])
        else:
            reading.reader.lost([PARTITION])
        reading.reader._stock_taken_at = float("-inf")
        reading.reader._take_stock(reading.source)
        seen.append((reading.reader.in_group, reading.reader.lag))

    assert seen == [(False, None), (True, 0)]


def test_a_member_that_is_told_of_no_assignment_is_in_its_group_by_its_generation(reading: Reading) -> None:
    """With KIP-848 a member without partitions gets no callback; a generation from before they were lost is stale."""
    reading.reader._source, reading.reader._ticker = reading.source, reading.ticker
    seen = []
    for generation in (-1, 0, 3, "lost", 3, 4):
        if generation == "lost":
            reading.reader.lost([])
        else:
            reading.source.generation = generation
            reading.reader._stock_taken_at = float("-inf")
            reading.reader._take_stock(reading.source)
        seen.append(reading.reader.in_group)

    assert seen == [False, False, True, False, False, True]


def test_a_reader_that_has_ended_has_no_lag(reading: Reading) -> None:
    """Its stream may have failed alone: the process continues, and its partitions are another worker's."""
    reading.start(PARTITION)
    deadline = time.monotonic() + PATIENCE_SECS
    while reading.reader.lag != 30 and time.monotonic() < deadline:
        time.sleep(0.01)
    before = reading.reader.lag
    reading.source.read.side_effect = RuntimeError("a bug")
    while reading.reader.thread is not None and time.monotonic() < deadline:
        time.sleep(0.01)

    assert (before, reading.reader.lag, len(reading.failed)) == (30, 0, 1)


def test_records_that_retention_removed_are_counted_once_each_time_that_some_were(reading: Reading) -> None:
    """A partition that was held for some, and was another worker's meanwhile, may come back with others missing."""
    reading.reader._source, reading.reader._ticker = reading.source, reading.ticker
    counted = []
    for committed, low in ((40, 60), (40, 60), (40, 65), (55, 65)):  # held, twice again, and resumed elsewhere
        reading.source.bounds.return_value = (low, 100)
        reading.stand[PARTITION] = committed, encode(Progress(committed))
        reading.reader.assigned([PARTITION])
        reading.look_up()
        counted.append((reading.state.counts.missing, PARTITION in reading.state.partition_holds))
        reading.reader.lost([PARTITION])

    assert counted == [(20, True), (20, True), (25, True), (35, True)]


def test_a_reader_that_is_drained_reads_no_more_and_stays_in_its_group_until_it_is_told_to_leave(
    reading: Reading,
) -> None:
    """The last transaction may still need the membership, and it waits for the answers to what is in flight."""
    reading.start(PARTITION)
    reading.wait(lambda: reading.has_begun(PARTITION))
    epoch = reading.reader._assigned[PARTITION].epoch
    reading.reader._take(chunk_of(epoch, OFFSET), 100.0)
    assert reading.commit(slots=1) == [[OFFSET]]
    [(serial, batch)] = reading.state.flow.active.items()

    reading.reader.drain(time.monotonic() + 30)
    may_read, while_in_flight = reading.state.may_read, reading.reader.wait_drained(0.1)
    with reading.state.changed:
        reading.state.finish(serial, batch.chunks, Verdicts(QUEUED), attempts=1, sent_ms=1, answered_ms=2)
        reading.commit()
        reading.state.changed.notify_all()
    once_written = reading.reader.wait_drained(30)
    owned, left = reading.reader.partitions, reading.reader.left
    polls = reading.source.read.call_count
    deadline = time.monotonic() + PATIENCE_SECS
    while reading.source.read.call_count <= polls and time.monotonic() < deadline:
        time.sleep(0.01)
    had_left = reading.source.close.called
    reading.close()

    assert (may_read, while_in_flight, once_written) == (False, False, True)
    assert (owned, left, had_left) == ([], 0, False)
    assert reading.source.close.call_count == 1
    assert reading.stand[PARTITION][0] == OFFSET + 1


def test_a_later_drain_does_not_extend_the_deadline_of_a_failed_stream(
    reading: Reading,
) -> None:
    """That drains all streams for as long as they may take, while nothing commits what this one waits for."""
    reading.start(PARTITION)
    reading.wait(lambda: reading.has_begun(PARTITION))
    reading.reader._take(chunk_of(reading.reader._assigned[PARTITION].epoch, OFFSET), 100.0)
    assert reading.commit(slots=1) == [[OFFSET]]

    def read(_count: int, _timeout: float) -> Read:
        reading.reader.drain(time.monotonic())
        reading.reader.drain(time.monotonic() + 300)
        return Read()

    reading.source.read.side_effect = read

    assert reading.reader.wait_drained(30)
    assert (reading.reader.partitions, reading.reader.left) == ([], 1)


@pytest.mark.parametrize(("named", "listed", "left"), [(True, 7, 7), (True, 1, 2), (False, 7, 2)])
def test_what_is_in_flight_when_a_drain_has_no_more_time_is_reported_as_left_and_the_tick_is_abandoned(
    reading: Reading, named: bool, listed: int, left: int
) -> None:
    """The next owner treats it as in doubt, and what the running tick lists as well, should it commit."""
    reading.begin_by_hand(PARTITION, OTHER)
    reading.reader._take(chunk_of(reading.reader._assigned[PARTITION].epoch, OFFSET, OFFSET + 1), 100.0)
    assert reading.commit(slots=1) == [[OFFSET, OFFSET + 1]]
    reading.ticker.names.side_effect = lambda asked: named and PARTITION in asked
    reading.ticker.listing.side_effect = lambda asked: listed if PARTITION in asked else 0
    reading.reader._options = replace(reading.reader._options, drain_secs=0.0)

    reading.reader.revoking([PARTITION, Partition("not-ours", 0)])

    assert (reading.reader.left, reading.ticker.abandon.called) == (left, named)
    assert (reading.reader.partitions, [*reading.state.flow.partitions]) == ([OTHER], [OTHER])


@pytest.mark.parametrize(("fence_secs", "ends"), [(60.0, True), (0.0, False)])
def test_a_consumer_that_ends_is_replaced_and_ends_the_stream_when_the_next_one_does_at_once(
    reading: Reading, fence_secs: float, ends: bool
) -> None:
    """Two with one instance id would fence each other forever; much later it is a different matter.

    What else the old consumer reports is no news.
    """
    fenced = [FatalError(KafkaError(KafkaError._FATAL, "fenced")) for _ in range(2)]
    words = iter([Read(troubles=[(None, error)] * 2) for error in fenced])
    reading.source.read.side_effect = lambda _count, timeout: next(words, None) or reading._read(1, timeout)
    reading.reader._options = replace(reading.reader._options, fence_secs=fence_secs)
    reading.start(PARTITION)

    deadline = time.monotonic() + PATIENCE_SECS
    while not (reading.failed or reading.source.subscribe.call_count == 3) and time.monotonic() < deadline:
        time.sleep(0.01)

    assert reading.failed == (fenced[1:] if ends else [])
    assert (reading.source.renew.call_count, reading.state.counts.consumers_replaced) == ((1, 1) if ends else (2, 2))


def test_a_password_that_is_not_accepted_any_more_is_what_a_stream_waits_for(reading: Reading) -> None:
    """Calls only report that brokers do not answer."""
    reading.begin_by_hand(PARTITION)
    rejected = KafkaTroubleError(KafkaError(KafkaError._AUTHENTICATION, "SASL authentication error"))
    reading.source.read.side_effect = [Read(troubles=[(None, rejected)])]

    reading.reader._turn(reading.source)

    trouble = reading.state.kafka_trouble
    assert trouble is not None
    assert trouble.text == (
        "a password or a certificate is not accepted, and new ones are read only at a start "
        "(_AUTHENTICATION: SASL authentication error)"
    )
    assert reading.reader.troubles.refused is None


def test_a_member_of_the_newer_protocol_waits_until_the_last_of_the_classic_one_has_left_its_group(
    reading: Reading, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kafka does not convert a group whose assignor stores data with its members; failing would help nothing."""
    monkeypatch.setattr("connector.stream.reader.REJOIN_SECS", 0.01)
    text = "Fatal error: Broker: The group id does not exist: ConsumerGroupHeartbeat fatal error"
    refused = FatalError(KafkaError(KafkaError._FATAL, text))
    words = iter([Read(troubles=[(None, refused)]) for _ in range(3)])
    reading.source.read.side_effect = lambda _count, timeout: next(words, None) or reading._read(1, timeout)
    reading.reader._options = replace(reading.reader._options, fence_secs=60.0)

    reading.start(PARTITION)

    reading.wait(lambda: reading.source.subscribe.call_count == 4)
    trouble = reading.state.kafka_trouble
    assert trouble is not None
    assert "group lets nobody in by the newer protocol before all others have left" in trouble.text
    assert reading.failed == []


def test_a_partition_whose_next_record_is_not_there_any_more_restarts_once_what_was_read_has_its_results(
    reading: Reading,
) -> None:
    """For instance if retention overtakes a slow reader. What was read of it is posted."""
    reading.begin_by_hand(PARTITION)
    reading.reader._take(chunk_of(reading.reader._assigned[PARTITION].epoch, OFFSET, OFFSET + 1), 100.0)
    assert reading.commit(slots=1) == [[OFFSET, OFFSET + 1]]
    reading.source.read.side_effect = [Read(missing=[PARTITION, OTHER]), Read(missing=[PARTITION]), Read(), Read()]
    for _ in range(4):
        reading.reader._turn(reading.source)
    before = [where for *_, where in reading.begins]
    [(serial, batch)] = reading.state.flow.active.items()
    reading.state.finish(serial, batch.chunks, Verdicts(QUEUED), attempts=1, sent_ms=1, answered_ms=2)
    reading.commit()
    reading.source.read.side_effect = reading._read
    reading.reader._turn(reading.source)
    reading.look_up()

    assert (before, [where for *_, where in reading.begins]) == ([OFFSET], [OFFSET, OFFSET + 2])


def test_a_partition_that_is_held_is_paused_once_and_restarts_as_was_decided(reading: Reading) -> None:
    reading.begin_by_hand(PARTITION, OTHER)
    reading.state.hold_partition(PARTITION, "in_doubt", "an answer was lost")
    for _ in range(3):
        reading.reader._turn(reading.source)
    paused = [set(call.args[0]) for call in reading.source.pause.call_args_list]

    reading.reader.resume({PARTITION: Decision(in_doubt="dead_letter")})
    reading.reader._turn(reading.source)
    reading.look_up()
    reading.state.hold_partition(PARTITION, "in_doubt", "another answer was lost")
    reading.reader._turn(reading.source)

    assert paused == [{PARTITION}]
    assert [began for _, began, _ in reading.begins].count(PARTITION) == 2
    assert reading.source.pause.call_count == 2, "and so is the next hold"


def test_what_is_read_is_counted_by_what_becomes_of_it(reading: Reading) -> None:
    """Of 70 to 75, two are in doubt and 72 is settled; 76 to 78 do not exist, as 77 was; the answer of 79 is known."""
    progress = Progress(OFFSET, settled=RangeSet([(72, 73)]), in_flight=RangeSet([(70, 72), (77, 78), (79, 80)]))
    counts = reading.state.counts
    counts.records_read = counts.vanished = counts.passed_over = 100
    reading.stand[PARTITION] = OFFSET, encode(progress)
    assert reading.state.flow.settle(Finished((chunk_of(1, 79),), Verdicts(QUEUED), "t-1")) is None
    reading.begin_by_hand(PARTITION)
    epoch = reading.reader._assigned[PARTITION].epoch

    reading.reader._take(chunk_of(epoch, *range(OFFSET, 76)), 100.0)
    first = reading.state.counts.records_read
    reading.reader._take(chunk_of(epoch, 79), 100.0)
    posted = reading.commit(slots=9)

    assert (first, counts.records_read, counts.resent, counts.vanished, counts.passed_over) == (105, 106, 0, 101, 103)
    assert posted == [[73, 74, 75]]
    assert decode(*reading.stand[PARTITION]).in_flight == RangeSet([(73, 76)])
    assert reading.stand[PARTITION][0] == 73


def test_a_stream_whose_buffer_is_full_reads_on_when_there_is_room_and_pauses_only_for_a_long_wait(
    reading: Reading, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pause discards what was prefetched; a held partition is not resumed with the others."""
    reading.begin_by_hand(PARTITION, OTHER)
    turn, source = reading.reader._turn, reading.source
    reading.reader._take(chunk_of(reading.reader._assigned[PARTITION].epoch, OFFSET), time.monotonic())
    reading.commit(slots=1)
    [(serial, batch)] = reading.state.flow.active.items()
    reading.reader._options = replace(reading.reader._options, buffer_bytes=reading.state.held_bytes + 1)
    source.read.reset_mock()
    turn(source)
    reading.reader._options = replace(reading.reader._options, buffer_bytes=reading.state.held_bytes)
    monkeypatch.setattr("connector.stream.reader.LONG_WAIT_SECS", 0.02)
    turn(source)
    turn(source)
    asked = [call.args[0] for call in source.read.call_args_list]
    paused = [set(call.args[0]) for call in source.pause.call_args_list]
    reading.state.hold_partition(OTHER, "in_doubt", "an answer was lost")
    monkeypatch.setattr("connector.stream.reader.LONG_WAIT_SECS", 30.0)

    def settle() -> None:
        with reading.state.changed:
            reading.state.finish(serial, batch.chunks, Verdicts(QUEUED), attempts=1, sent_ms=1, answered_ms=2)
            reading.commit()
            reading.state.changed.notify_all()

    settle()
    turn(source)
    reading.reader._take(chunk_of(reading.reader._assigned[PARTITION].epoch, OFFSET + 1), time.monotonic())
    reading.commit(slots=1)
    [(serial, batch)] = reading.state.flow.active.items()
    timer = threading.Timer(0.05, settle)
    timer.start()
    turn(source)
    timer.join()

    assert (asked, paused) == ([2_000, 1, 1], [{PARTITION, OTHER}])
    assert [list(call.args[0]) for call in source.resume.call_args_list] == [[PARTITION]]
    assert [call.args[0] for call in source.read.call_args_list][3:] == [2_000, 2_000], "it waited for what is short"
    assert [set(call.args[0]) for call in source.pause.call_args_list][1:] == [{OTHER}], "for its own hold"


def test_one_call_waits_for_records_until_the_next_batch_is_due_or_a_partition_may_begin(
    reading: Reading, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading.begin_by_hand(PARTITION)
    turn, source, window = reading.reader._turn, reading.source, reading.state.batcher.limits.window_secs
    epoch = reading.reader._assigned[PARTITION].epoch
    source.read.reset_mock()
    at = time.monotonic()
    monkeypatch.setattr("connector.stream.reader.now", lambda: at)

    turn(source)
    reading.reader._take(chunk_of(epoch, OFFSET), at - window + 0.25)
    turn(source)
    at += 0.25
    turn(source)
    due = [[*piece.offsets] for batch in reading.state.flow.ready for piece in batch.chunks]
    source.committed.side_effect = RetriableError(KafkaError(KafkaError._TIMED_OUT))
    reading.reader.assigned([OTHER])
    turn(source)

    waits = [call.args[1] for call in source.read.call_args_list]
    assert waits == [0.5, pytest.approx(0.25), 0.5, 0.01]
    assert due == [[OFFSET]], "it is closed though nothing was read"


def test_a_partition_revoked_during_a_tick_is_left_as_the_tick_lists_it(reading: Reading) -> None:
    """All is answered; whether that was written is unknown, and otherwise its next owner treats it as in doubt."""
    reading.begin_by_hand(PARTITION)
    reading.ticker.names.return_value, reading.ticker.listing.return_value = True, 3
    reading.reader._options = replace(reading.reader._options, drain_secs=0.0)

    reading.reader.revoking([PARTITION])

    assert reading.reader.left == 3
    reading.ticker.names.return_value = False
    reading.reader.assigned([])
    assert reading.reader.left == 0, "it has another owner by now"


def test_a_partition_revoked_before_its_start_does_not_start(reading: Reading) -> None:
    reading.source.begin.side_effect = lambda *_: False
    reading.reader._source, reading.reader._ticker = reading.source, reading.ticker
    reading.reader.assigned([PARTITION])
    reading.wait_found()
    reading.reader._turn(reading.source)
    reading.reader.lost([PARTITION])
    reading.source.begin.side_effect = reading._begin

    reading.reader._turn(reading.source)

    assert reading.begins == []


def test_a_partition_of_which_an_election_discarded_what_was_read_holds_and_continues_with_what_came_since(
    reading: Reading,
) -> None:
    """Offsets 60 to 99 are there again: without the word of the brokers those from 70 on were taken for read."""
    reading.stand[PARTITION] = 80, encode(Progress(80, birth=4))
    reading.begin_by_hand(PARTITION)
    reading.source.read.side_effect = [Read(missing=[PARTITION], truncated={PARTITION: 70}), Read()]
    for _ in range(2):
        reading.reader._turn(reading.source)
    reading.source.read.side_effect = reading._read
    reading.look_up()
    held = reading.state.partition_holds[PARTITION]

    reading.reader.resume({PARTITION: Decision()})
    reading.reader._turn(reading.source)
    reading.look_up()
    reading.commit()

    assert held.reason == "records_missing"
    assert [where for *_, where in reading.begins] == [80, 70]
    assert reading.stand[PARTITION][0] == 70
    assert reading.reader._beginnings.truncated == {}


def test_a_partition_revoked_before_its_restart_does_not_start(reading: Reading) -> None:
    reading.begin_by_hand(PARTITION)
    reading.reader._take(chunk_of(reading.reader._assigned[PARTITION].epoch, OFFSET), 100.0)
    reading.commit(slots=1)
    reading.source.read.side_effect = [Read(missing=[PARTITION]), Read()]
    reading.reader._turn(reading.source)
    reading.reader.lost([PARTITION])

    reading.reader._turn(reading.source)

    assert reading.reader.partitions == []


def test_a_decision_is_dropped_with_its_partition(holding: Reading) -> None:
    """When it comes back, another worker may have had it, and other records are in doubt."""
    holding.begin_by_hand(PARTITION)
    holding.reader.resume({PARTITION: Decision(in_doubt="resend")})
    holding.reader._turn(holding.source)
    holding.reader.lost([PARTITION])

    holding.reader.assigned([PARTITION])
    holding.look_up()

    assert holding.state.partition_holds[PARTITION].reason == "in_doubt"


def test_what_retention_removed_is_counted_and_committed_at_once_where_a_stream_continues(reading: Reading) -> None:
    """A restarted worker would count it again. Offsets 60 to 99 exist."""
    beginnings = reading.reader._beginnings
    beginnings._options = replace(beginnings._options, on_missing="continue")
    reading.stand[PARTITION] = 40, encode(Progress(40, birth=4, in_flight=RangeSet([(45, 50)])))

    reading.begin_by_hand(PARTITION)

    assert (reading.state.counts.missing, reading.state.counts.vanished) == (15, 5)
    assert (reading.stand[PARTITION][0], [where for *_, where in reading.begins]) == (60, [60])


def test_what_retention_removed_is_counted_once_though_it_could_not_be_committed(reading: Reading) -> None:
    beginnings = reading.reader._beginnings
    beginnings._options = replace(beginnings._options, on_missing="continue")
    reading.stand[PARTITION] = 40, encode(Progress(40, birth=4))
    reading.reader._source, reading.reader._ticker = reading.source, reading.ticker
    for _ in range(2):
        reading.reader.assigned([PARTITION])
        reading.look_up()
        reading.reader.lost([PARTITION])

    assert reading.state.counts.missing == 20


def test_a_partition_that_continues_where_it_stood_has_nothing_to_commit(reading: Reading) -> None:
    """Otherwise each rebalance would cause a transaction of all partitions."""
    stood = reading.stand[PARTITION] = OFFSET, encode(Progress(OFFSET, birth=4))

    reading.begin_by_hand(PARTITION)

    assert reading.stand[PARTITION] == stood


def test_each_turn_is_counted_and_tries_again_what_no_events_could_be_made_of(reading: Reading) -> None:
    """Nothing is read meanwhile; and turns show that the thread is alive."""
    away = [FormatAwayError("schema_registry", "away")]

    def shape(chunk: Chunk) -> Shaped:
        if away:
            raise away.pop()
        return Shaped.unchanged(chunk)

    reading.preparer._shape = shape
    reading.begin_by_hand(PARTITION)
    reading.reader._take(chunk_of(reading.reader._assigned[PARTITION].epoch, OFFSET), 100.0)
    held, turns = reading.state.shaping_hold is not None, reading.reader.turns
    reading.preparer.try_at_once()

    reading.reader._turn(reading.source)

    assert (held, reading.state.shaping_hold, reading.reader.turns) == (True, None, turns + 1)
    assert reading.commit(slots=1) == [[OFFSET]]


def test_what_is_kept_of_a_partition_that_restarts_is_read_again_and_holds_nothing(reading: Reading) -> None:
    def shape(chunk: Chunk) -> Shaped:
        raise FormatAwayError("schema_registry", "away")

    reading.preparer._shape = shape
    reading.begin_by_hand(PARTITION)
    reading.reader._take(chunk_of(reading.reader._assigned[PARTITION].epoch, OFFSET), 100.0)
    held = reading.state.shaping_hold is not None

    reading.reader._reload(PARTITION, 1.0)

    assert (held, reading.state.shaping_hold, reading.state.held_bytes) == (True, None, 0)


def test_denied_topics_are_queried_although_no_records_arrive(reading: Reading) -> None:
    reading.begin_by_hand(PARTITION)
    reading.reader._broker_queries._may_read = lambda of: of
    reading.reader.troubles.take(PARTITION, AbortableError(KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED)))
    reading.reader.troubles.ask_at_once()
    refused = reading.reader.troubles.refused

    deadline = time.monotonic() + PATIENCE_SECS
    while reading.reader.troubles.refused is not None and time.monotonic() < deadline:
        reading.reader._turn(reading.source)

    assert (refused is not None, reading.reader.troubles.refused) == (True, None)


def test_paces_get_the_number_of_records_still_to_be_read(reading: Reading) -> None:
    """Those up to 99 exist; what was read waits in memory, and is known. An end may be from before it was read."""
    pacer = reading.state.admission.pacer = Pacer(Pace(6_000), max_lot=10)
    reading.source.all_partitions.return_value = _some(2)
    reading.begin_by_hand(PARTITION, OTHER)
    told = []
    for end in (100, 100, 80, 60, None):
        reading.source.known_end.return_value = end
        reading.reader._stock_taken_at = float("-inf")
        reading.reader._take_stock(reading.source)
        told.append((pacer.unread, reading.reader.lag))
        reading.reader._take(chunk_of(reading.reader._assigned[PARTITION].epoch, *range(OFFSET, OFFSET + 20)), 100.0)

    assert told == [(60, 60), (40, 60), (10, 20), (0, 0), (0, None)]
