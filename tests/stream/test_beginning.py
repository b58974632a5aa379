"""Where partitions start, by what a real broker reports, and what a hold says if what was committed does not exist."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from itertools import pairwise
from types import SimpleNamespace
from typing import Any, Literal, cast
from unittest.mock import Mock, create_autospec

import pytest
from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition

from connector.core.chunks import Partition
from connector.core.progress import Progress, encode
from connector.core.ranges import Range, RangeSet
from connector.demo.finding import BrokerHandle
from connector.demo.topics import Record, Topics
from connector.kafka.commits import Committed
from connector.kafka.errors import RetriableError
from connector.kafka.leader_epochs import NO_EPOCH
from connector.kafka.source import RebalanceHandler, Source
from connector.stream.beginning import Beginning, Beginnings, BeginOptions, _of_the_next
from connector.stream.holds import Decision
from connector.stream.identities import Identities
from tests.kit.patience import PATIENCE_SECS
from tests.stream.making import ids, make_state


@pytest.mark.parametrize(("beyond", "held"), [(0, False), (1, True)])
def test_offsets_that_were_reset_behind_an_open_transaction_are_there(
    broker: BrokerHandle, topics: Topics, beyond: int, held: bool
) -> None:
    """Kafka's own tool resets to the end of all that is written, which is past the end for a reader."""
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


def _beginnings(options: BeginOptions, fail: Callable[[BaseException], None]) -> Beginnings:
    """Return those of a stream whose partitions are assigned under number 1."""
    return Beginnings(
        make_state(),
        options,
        name="s",
        fail=fail,
        epoch_of=lambda _: 1,
        last_settled=lambda _: {},
        identities=Identities(ids()),
    )


def _begin(broker: BrokerHandle, topic: str, committed: int) -> Beginning:
    partition, config = Partition(topic, 0), {"bootstrap.servers": broker.bootstrap_servers, "group.id": topic}
    tool = Consumer(config)
    tool.commit(offsets=[TopicPartition(*partition, committed)], asynchronous=False)
    tool.close()
    source = Source(
        {**config, "isolation.level": "read_committed"}, create_autospec(RebalanceHandler, instance=True), lambda _: 1
    )
    failed: list[BaseException] = []
    beginnings = _beginnings(BeginOptions((topic,), topic, "earliest", "hold", "dead_letter", 30.0), failed.append)
    beginnings.look_up(source, {partition: 1})
    deadline = time.monotonic() + PATIENCE_SECS
    while not beginnings.found and time.monotonic() < deadline:
        time.sleep(0.01)
    beginnings.close()
    source.close()
    assert failed == []
    return beginnings.found.popleft()


Start = Callable[..., Beginning]


@pytest.fixture
def start() -> Start:
    """Return what a partition with records 50 to 99 starts with, given the commit's offset and metadata."""

    def started(
        offset: int,
        *,
        on_missing: Literal["hold", "continue"] = "hold",
        settled: Sequence[Range] = (),
        in_flight: Sequence[Range] = (),
        leader_epoch: int = 7,
        is_missing: bool = False,
        truncated: int | None = None,
    ) -> Beginning:
        options = BeginOptions(
            topics=("alpha",), group="g", start="earliest", on_missing=on_missing, in_doubt="dead_letter", call_secs=1
        )
        refuse: Any = None
        found = _beginnings(options, refuse)
        if is_missing or truncated is not None:
            found.truncated[Partition("alpha", 0)] = truncated
        source = create_autospec(Source, instance=True)
        source.bounds.return_value, source.written_end.return_value = (50, 100), 100
        there = Committed(offset, encode(Progress(offset, 1, 0, RangeSet(settled), RangeSet(in_flight))), leader_epoch)
        return found._start_of(source, Beginning(Partition("alpha", 0), 1, None), there, refuse)

    return started


@pytest.mark.parametrize(
    "cause", [{"leader_epoch": NO_EPOCH}, {"is_missing": True}], ids=["no epoch to ask with", "brokers do not tell"]
)
def test_a_commit_beyond_the_end_says_what_a_resume_would_post_again_and_how_it_is_passed_over(
    start: Start, cause: dict[str, Any]
) -> None:
    """After an unclean leader election all that was left was posted before; what was written since was not."""
    hold = start(120, **cause).hold

    assert hold is not None
    reason, detail = hold
    assert reason == "records_missing"
    assert "offset 120 is beyond the end 100" in detail
    assert "unclean leader election" in detail
    assert "only what was written since is new" in detail
    assert "kafka-consumer-groups.sh --group g --reset-offsets --to-offset N --execute --topic alpha:0" in detail
    assert "posts all of them, even those that were posted before" in detail


@pytest.mark.parametrize("on_missing", ["hold", "continue"])
@pytest.mark.parametrize("base", [120, 90], ids=["the committed offset", "what was read behind it"])
def test_what_is_beyond_the_end_begins_as_committed_so_that_brokers_tell_from_where_on_it_was_discarded(
    start: Start, base: int, on_missing: str
) -> None:
    """Without their word, to continue would mean to post the whole partition again, or to pass over new records."""
    found = start(base, on_missing=on_missing, settled=[(125, 130)])

    assert (found.hold, found.missing) == (None, 0)
    assert (found.progress, found.leader_epoch) == (Progress(base, 1, 0, RangeSet([(125, 130)])), 7)


def test_a_commit_before_the_beginning_says_how_many_are_gone(start: Start) -> None:
    assert start(20).hold == (
        "records_missing",
        (
            "retention removed 30 records before they were read; "
            "to continue with the oldest available record: resume, or on_missing: continue"
        ),
    )


def test_what_was_read_beyond_an_end_that_was_cut_off_is_reported(start: Start) -> None:
    hold = start(90, leader_epoch=NO_EPOCH, settled=[(95, 120)], in_flight=[(120, 130)]).hold

    assert hold is not None
    assert hold[0] == "records_missing"
    assert "what was read up to offset 129 is beyond the end 100" in hold[1]
    assert hold[1].endswith("to continue with what is there: resume, or on_missing: continue")


@pytest.mark.parametrize(("base", "begins", "missing"), [(90, 90, 1), (20, 50, 30)])
def test_what_is_written_where_the_end_was_cut_off_is_not_taken_for_what_was_read(
    start: Start, base: int, begins: int, missing: int
) -> None:
    """Other records have these offsets now: they must not be skipped, and it is others that are in doubt."""
    settled, in_flight = [(95, 120)], [(91, 93), (120, 130)]
    found = start(base, is_missing=True, on_missing="continue", settled=settled, in_flight=in_flight)

    assert found.progress == Progress(begins, 1, 0, RangeSet([(95, 100)]), RangeSet([(91, 93)]))
    assert (found.missing, found.vanished) == (missing, 10)
    assert found.leader_epoch == 7, "the end may have been cut off at 92, and be 100 again by now"


def test_a_partition_that_has_outgrown_what_an_election_discarded_holds_and_says_from_where_on_it_is_new(
    start: Start,
) -> None:
    """Its bounds tell nothing of that any more: what was read up to 89 ended at 70, and 100 is the end by now."""
    hold = start(80, truncated=70, settled=[(85, 90)]).hold

    assert hold is not None
    assert hold[0] == "records_missing"
    assert "from offset 70 up to 89 was discarded by an unclean leader election" in hold[1]


@pytest.mark.parametrize(("base", "cut", "begins"), [(80, 70, 70), (65, 70, 65), (80, 20, 50)])
def test_what_was_written_after_an_election_is_read(start: Start, base: int, cut: int, begins: int) -> None:
    found = start(base, truncated=cut, on_missing="continue", settled=[(85, 90)], in_flight=[(90, 92)])

    assert found.progress == Progress(begins, 1)
    assert (found.missing, found.vanished) == (1, 2)
    assert found.leader_epoch == NO_EPOCH, "that of what is gone"


@pytest.mark.parametrize(("base", "begins"), [(80, 80), (20, 50)], ids=["all is there", "retention took the oldest"])
def test_a_partition_begins_with_the_epoch_of_what_was_read_before(start: Start, base: int, begins: int) -> None:
    found = start(base, on_missing="continue", settled=[(85, 90)])

    assert found.progress == Progress(begins, 1, 0, RangeSet([(85, 90)]))
    assert found.leader_epoch == 7


def test_a_topic_whose_epochs_are_all_lower_was_recreated_and_holds(start: Start) -> None:
    """Brokers do not know the committed epoch. What is there may be new, or a copy of what was read."""
    hold = start(80, truncated=0, settled=[(85, 90)]).hold

    assert hold is not None
    assert hold[0] == "records_missing"
    assert "nothing of what was read up to offset 89 is there: the topic was recreated" in hold[1]
    assert "--reset-offsets --to-offset 80 --execute --topic alpha:0" in hold[1]


@pytest.mark.parametrize("base", [80, 50])
def test_a_recreated_topic_begins_without_an_epoch_where_it_is_continued(start: Start, base: int) -> None:
    """With the committed one it would be refused again."""
    found = start(base, truncated=0, on_missing="continue")

    assert (found.progress, found.leader_epoch) == (Progress(50, 1), NO_EPOCH)


def test_an_election_that_discarded_nothing_that_was_read_holds_nothing(start: Start) -> None:
    assert start(80, truncated=80).progress == Progress(80, 1)


def test_what_was_read_up_to_the_end_stays_settled_and_in_doubt(start: Start) -> None:
    found = start(90, settled=[(95, 99)], in_flight=[(99, 100)])

    assert found.progress == Progress(90, 1, 0, RangeSet([(95, 99)]), RangeSet([(99, 100)]))


def test_a_stop_waits_for_one_question_and_not_for_those_about_all_other_partitions() -> None:
    """Each takes as long as its broker is unreachable; the process could not end before the last of hundreds."""
    partitions = [Partition("alpha", number) for number in range(100)]
    asked, may_answer = threading.Event(), threading.Event()
    source = create_autospec(Source, instance=True)
    source.committed.side_effect = lambda mine, _secs: {p: Committed(50, encode(Progress(50, 1))) for p in mine}

    def bounds(*_: object) -> tuple[int, int]:
        asked.set()
        assert may_answer.wait(PATIENCE_SECS)
        return 50, 100

    source.bounds.side_effect = bounds
    failed: list[BaseException] = []
    beginnings = _beginnings(BeginOptions(("alpha",), "g", "earliest", "hold", "dead_letter", 30.0), failed.append)
    beginnings.look_up(source, dict.fromkeys(partitions, 1))
    assert asked.wait(PATIENCE_SECS)

    closing = threading.Thread(target=beginnings.close)
    closing.start()
    assert beginnings._closing.wait(PATIENCE_SECS)
    may_answer.set()
    closing.join(PATIENCE_SECS)

    assert (source.bounds.call_count, failed) == (1, [])


def test_a_stop_ends_a_scan_of_outcomes(asking: "Asking") -> None:
    """While brokers are silent it takes a minute: a process that was told to end would go on for as long."""
    started = threading.Event()

    def scan(should_stop: Callable[[], bool]) -> dict[Partition, int]:
        started.set()
        deadline = time.monotonic() + PATIENCE_SECS
        while not should_stop():
            assert time.monotonic() < deadline, "nobody stopped it"
            time.sleep(0.01)
        raise RetriableError("it was stopped")

    asking.beginnings._last_settled = scan
    asking.beginnings.look_up(asking.source, asking.epochs)
    assert started.wait(PATIENCE_SECS)

    asking.beginnings.close()

    assert (list(asking.beginnings.found), asking.failed, asking.state.kafka_trouble) == ([], [], None)


def test_a_scan_of_outcomes_that_fails_is_not_repeated_for_each_partition(asking: "Asking") -> None:
    """It takes up to a minute, and other partitions wait behind those that have no commit."""
    partitions = [Partition("alpha", number) for number in range(3)]
    asking.epochs = dict.fromkeys(partitions, 1)
    asking.stand[partitions[2]] = Committed(60, encode(Progress(60, 1)))
    scan = asking.beginnings._last_settled = Mock(side_effect=RetriableError("nothing came"))

    found = asking.look_up(*partitions)

    assert [there.partition.number for there in found] == [2]
    assert scan.call_count == 1
    asking.look_up(*partitions[:2])
    assert scan.call_count == 2, "it is tried again with them"


class Asking:
    """Partitions with records 50 to 99, and what is found about where they start; tests set what is committed."""

    def __init__(self, **options: Any) -> None:
        self.partition = Partition("alpha", 1)
        self.source = create_autospec(Source, instance=True)
        self.source.bounds.return_value, self.source.written_end.return_value = (50, 100), 100
        self.source.partition_count.return_value = 3
        self.source.all_partitions.return_value = {Partition("alpha", number) for number in range(3)}
        self.source.offset_at.side_effect = lambda _partition, at_ms, _secs: at_ms
        self.stand: dict[Partition, Committed] = {}
        self.source.committed.side_effect = lambda asked, _secs: {
            p: self.stand.get(p, Committed(None, "")) for p in asked
        }
        self.failed: list[BaseException] = []
        self.epochs = {self.partition: 1}
        self.outcomes: dict[Partition, int] = {}
        base: dict[str, Any] = {"start": "earliest", "on_missing": "hold", "in_doubt": "dead_letter", "call_secs": 1.0}
        self.state = make_state()
        self.beginnings = Beginnings(
            self.state,
            BeginOptions(("alpha",), "g", **{**base, **options}),
            name="s",
            fail=self.failed.append,
            epoch_of=lambda partition: self.epochs.get(partition),  # noqa: PLW0108 (tests put others in its place)
            last_settled=lambda _: self.outcomes,
            identities=Identities(ids()),
        )

    def look_up(self, *partitions: Partition) -> list[Beginning]:
        """Return what is found about partitions, by default the one, under their present epochs."""
        asked = {p: self.epochs.get(p, 1) for p in partitions or (self.partition,)}
        self.beginnings._load(self.source, asked, 0.1)
        found = list(self.beginnings.found)
        self.beginnings.found.clear()
        return found

    def begins(self) -> tuple[int | None, str]:
        """Return the base of the one partition, or the reason of its hold."""
        [found] = self.look_up()
        return None if found.progress is None else found.progress.base, found.hold[0] if found.hold else ""

    def rule(self, reason: str, **decision: Any) -> None:
        self.beginnings.rule(self.partition, reason, Decision(**decision))


@pytest.fixture
def asking() -> Iterator[Asking]:
    made = Asking()
    yield made
    made.beginnings.close()


@pytest.mark.parametrize(
    ("stands", "reason", "decision", "begins"),
    [
        (Committed(60, "of somebody else"), "foreign_metadata", {"foreign_metadata": "discard"}, 60),
        (Committed(40, encode(Progress(40, 1))), "records_missing", {}, 50),
        (Committed(None, ""), "progress_missing", {"progress_missing": "begin"}, 50),
    ],
)
def test_a_partition_that_holds_begins_once_that_was_decided_and_no_hold_that_comes_later_is(
    asking: Asking, stands: Committed, reason: str, decision: dict[str, Any], begins: int
) -> None:
    asking.outcomes = {asking.partition: 80}
    asking.stand[asking.partition] = stands
    asked = asking.begins()
    for another in {"in_doubt", "foreign_metadata", "records_missing", "progress_missing", "paused"} - {reason}:
        asking.rule(another, foreign_metadata="discard", progress_missing="begin", in_doubt="resend")
    other_word = asking.begins()
    asking.rule(reason, **decision)
    decided = asking.begins()
    again = asking.begins()
    asking.beginnings.forget(asking.partition)

    assert (asked, other_word) == ((None, reason), (None, reason))
    assert (decided, again) == ((begins, ""), (begins, "")), "until it has begun"
    assert asking.begins() == (None, reason)


def test_foreign_metadata_is_reported_with_the_command_that_resets_it(asking: Asking) -> None:
    asking.stand[asking.partition] = Committed(60, "of somebody else")

    [found] = asking.look_up()

    assert found.hold is not None
    assert "resume with --foreign-metadata discard, or stop the connector" in found.hold[1]
    assert "--group g --reset-offsets --to-current --execute --topic alpha:1" in found.hold[1]


@pytest.mark.parametrize("foreign", ["", "of somebody else"])
@pytest.mark.parametrize(
    ("births", "number", "begins"), [((2, 0), 1, 100), ((2, 3), 2, 50), ((3, 3), 2, 100), ((), 2, 100)]
)
def test_a_partition_that_was_added_after_the_group_began_begins_with_its_first_record_whatever_start_says(
    births: tuple[int, ...], number: int, begins: int, foreign: str
) -> None:
    """The smallest birth in other partitions' commits is the partition count at the beginning."""
    asking = Asking(start="latest")
    asking.partition = Partition("alpha", number)
    asking.epochs = {asking.partition: 1}
    others = [Partition("alpha", other) for other in range(3) if other != number]
    for other, birth in zip(others, births, strict=False):
        asking.stand[other] = Committed(70, encode(Progress(70, birth)) if birth else foreign)
    [found] = asking.look_up()
    asking.beginnings.close()

    assert found.progress is not None
    assert (found.progress.base, found.progress.birth, found.new) == (
        begins,
        min([b for b in births if b] or [3]),
        True,
    )


@pytest.mark.parametrize(
    ("start", "from_beginning", "begins"),
    [
        ("earliest", (), 50),
        ("latest", (), 100),
        ("latest", ("alpha",), 50),
        (datetime.fromtimestamp(0.07, UTC), (), 70),
        (datetime.fromtimestamp(0.07, UTC), ("alpha",), 50),
    ],
)
def test_a_group_without_commits_begins_where_it_was_told(
    start: Literal["earliest", "latest"] | datetime, from_beginning: Sequence[str], begins: int
) -> None:
    asking = Asking(start=start, from_beginning=frozenset(from_beginning))
    try:
        assert asking.begins() == (begins, "")
    finally:
        asking.beginnings.close()


def test_a_commit_that_an_operator_has_reset_is_ours_from_then_on(asking: Asking) -> None:
    """Partitions added later are read from their beginning, by the present partition count."""
    asking.stand[asking.partition] = Committed(70, "")

    [found] = asking.look_up()

    assert (found.progress, found.new, found.missing) == (Progress(70, 3), True, 0)
    assert not asking.source.all_partitions.called, "they are only counted where lists have a pace"


def test_what_retention_removed_is_counted_without_what_was_read_and_what_was_in_doubt_is_gone(start: Start) -> None:
    """Of 20 to 49, five are settled and seven in doubt; those from 50 on exist."""
    found = start(20, on_missing="continue", settled=[(25, 30), (60, 62)], in_flight=[(43, 53)])

    assert (found.missing, found.vanished) == (30 - 5 - 7, 7)
    assert found.progress == Progress(50, 1, 0, RangeSet([(60, 62)]), RangeSet([(50, 53)]))


@pytest.mark.parametrize("committed", [50, 100])
def test_a_commit_at_the_beginning_or_at_the_end_misses_nothing(start: Start, committed: int) -> None:
    found = start(committed)

    assert (found.hold, found.missing, found.vanished) == (None, 0, 0)
    assert found.progress == Progress(committed, 1)


def test_records_in_doubt_hold_until_a_decision_which_is_passed_on() -> None:
    asking = Asking(in_doubt="hold")
    asking.stand[asking.partition] = Committed(60, encode(Progress(60, 1, in_flight=RangeSet([(61, 64)]))))
    held = asking.look_up()[0].hold
    asking.rule("in_doubt", in_doubt="resend")
    [found] = asking.look_up()
    asking.beginnings.close()

    assert held == ("in_doubt", "3 records are in doubt; decide what to do with them")
    assert (found.hold, found.in_doubt, found.progress and found.progress.base) == (None, "resend", 60)


def test_partitions_that_nothing_could_be_learned_of_are_asked_about_after_ever_longer_waits(
    asking: Asking, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those with unreachable brokers come last, and with them querying stops: each call would wait."""
    at, asked, away = 0.0, list[int](), RetriableError(KafkaError(KafkaError._TIMED_OUT))
    monkeypatch.setattr("connector.stream.beginning.now", lambda: at)
    asking.beginnings._threads = cast("ThreadPoolExecutor", SimpleNamespace(submit=lambda call, *args: call(*args)))
    partitions = [Partition("alpha", number) for number in range(4)]
    asking.epochs = dict.fromkeys(partitions, 1)
    asking.stand = dict.fromkeys(partitions, Committed(60, encode(Progress(60, 1))))

    def bounds(partition: Partition, _secs: float) -> tuple[int, int]:
        asked.append(partition.number)
        if partition.number == 1:
            raise away
        return 50, 100

    asking.source.bounds.side_effect = bounds
    asking.beginnings.look_up(asking.source, asking.epochs)
    found, times = [[f.partition.number for f in asking.beginnings.found]], [0.0]
    while len(times) < 9:
        due = asking.beginnings._later[0].at
        for at in (due - 0.01, due):
            before = len(asked)
            asking.beginnings.look_again(asking.source)
            assert (len(asked) > before) == (at == due)
        times.append(at)
        found.append([f.partition.number for f in asking.beginnings.found])
    asking.beginnings._threads = ThreadPoolExecutor(1)
    waits = [round(after - before, 2) for before, after in pairwise(times)]

    assert found[:2] == [[0], [0, 2, 3]]
    assert asked == [0, 1, 2, 3, *[1] * 8]
    assert waits == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]
    assert asking.state.kafka_trouble is not None
    assert asking.failed == []


def test_released_partitions_are_not_looked_up_and_an_unexpected_error_fails_the_stream(
    asking: Asking,
) -> None:
    asking.epochs = {}
    asking.stand[asking.partition] = Committed(60, "")
    assert asking.look_up() == []
    assert not asking.source.committed.called

    asking.epochs = {asking.partition: 1}
    asking.source.bounds.side_effect = KeyError("a bug")
    assert asking.look_up() == []
    assert [type(error) for error in asking.failed] == [KeyError]


@pytest.mark.parametrize(("start", "end"), [("latest", 50), ("earliest", 50), (datetime.fromtimestamp(0.1, UTC), 100)])
def test_outcomes_are_not_asked_about_where_nothing_can_be_posted_again_or_passed_over(
    start: Literal["earliest", "latest"] | datetime, end: int
) -> None:
    """Reading outcomes takes long."""
    asking = Asking(start=start)
    asking.source.bounds.return_value = 50, end
    asked = asking.beginnings._last_settled = Mock(return_value={})
    try:
        assert asking.begins() == (end, "")
        assert not asked.called
    finally:
        asking.beginnings.close()


@pytest.mark.parametrize(
    ("last", "told", "untold"),
    [
        (120, "--reset-offsets --to-offset 50 --execute --topic alpha:1", "dead letters"),
        (80, "there may be dead letters of later records", "--to-offset"),
        (20, "there may be dead letters of later records", "--to-offset"),
    ],
)
def test_only_for_a_recreated_topic_the_hold_says_where_to_continue_after_what_kafka_forgot(
    last: int, told: str, untold: str
) -> None:
    """After the last outcome there may be dead letters for records in doubt; before it, records may have waited."""
    asking = Asking(start="latest")
    asking.outcomes = {asking.partition: last}
    [found] = asking.look_up()
    asking.beginnings.close()

    assert found.hold is not None
    assert (told in found.hold[1], untold in found.hold[1]) == (True, False)


@pytest.mark.parametrize(
    ("low", "high", "doubted"), [(60, 100, (78, 82)), (79, 100, (79, 82)), (60, 81, (78, 81)), (0, 78, None)]
)
def test_of_a_topic_that_replaces_another_is_in_doubt_what_was_read_since_it_may_be_there_and_is_there(
    low: int, high: int, doubted: Range | None
) -> None:
    progress = Progress(70, 3, 7, RangeSet([(75, 80)]), RangeSet([(71, 73), (80, 82)]))

    assert _of_the_next(progress, 78, low, high) == Progress(low, 3, in_flight=RangeSet([doubted] if doubted else []))


@pytest.mark.parametrize(
    ("start", "named", "committed", "told"),
    [
        ("earliest", Partition("alpha", 0), False, "from `start` on, 50 offsets would be posted"),
        ("latest", Partition("alpha", 0), False, "with `start: latest`, its 50 offsets would be skipped"),
        (
            datetime.fromtimestamp(0.07, UTC),
            Partition("alpha", 0),
            False,
            "from `start` on, 30 offsets would be posted",
        ),
        ("earliest", Partition("alpha", 0), True, ""),
        ("earliest", Partition("alpha", 7), False, ""),
        ("earliest", Partition("beta", 0), False, ""),
    ],
    ids=["", "latest", "a time", "it has a commit", "it is gone", "it is read no more"],
)
def test_a_partition_that_was_quiet_for_long_is_not_new_where_another_that_outcomes_name_has_lost_its_commit(
    start: Literal["earliest", "latest"] | datetime, named: Partition, committed: bool, told: str
) -> None:
    """The last outcomes may all be of other partitions; a partition that is added to a stream is new."""
    asking = Asking(start=start)
    asking.outcomes = {named: 400}
    if committed:
        asking.stand[named] = Committed(401, encode(Progress(401, 3)))
    [found] = asking.look_up()
    asking.beginnings.close()

    assert (found.hold is not None) == bool(told)
    if found.hold is not None:
        assert found.hold[0] == "progress_missing"
        assert told in found.hold[1]
        assert f"of {named}" in found.hold[1]
