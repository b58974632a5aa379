"""Where a partition starts: the calls to the consumer, mostly with the real librdkafka without a broker."""

import threading
import time
from collections.abc import Callable
from operator import methodcaller
from statistics import median
from typing import Any
from unittest.mock import create_autospec

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, ThrottleEvent, TopicPartition

from connector.core.chunks import Chunk, Partition
from connector.demo.finding import BrokerHandle
from connector.demo.topics import Record, Topics
from connector.kafka import source
from connector.kafka.commits import Membership
from connector.kafka.errors import AbortableError, KafkaTroubleError
from connector.kafka.leader_epochs import NO_EPOCH
from connector.kafka.reachability import SILENT_SECS
from connector.kafka.source import SEEK_RETRY_SECS, RebalanceHandler, Source
from tests.conftest import MakeBroker
from tests.kit.brokers import sasl_plain
from tests.kit.patience import PATIENCE_SECS, tell

PARTITION = Partition("events", 3)
_COOPERATIVE = {"partition.assignment.strategy": "cooperative-sticky"}


@pytest.fixture
def consumer(monkeypatch: pytest.MonkeyPatch) -> Consumer:
    made: Consumer = create_autospec(Consumer, instance=True)
    monkeypatch.setattr(source, "Consumer", lambda _config: made)
    return made


def _source() -> Source:
    return Source({}, create_autospec(RebalanceHandler, instance=True), lambda _partition: 1)


def _seeks(consumer: Consumer) -> list[int]:
    return [call.args[0].offset for call in consumer.seek.call_args_list]  # type: ignore[attr-defined] # a mock


def _refusing(code: int) -> Callable[[TopicPartition], None]:
    def refuse(position: TopicPartition) -> None:
        raise KafkaException(KafkaError(code))

    return refuse


def test_a_new_partition_stands_at_a_number_until_it_begins(consumer: Consumer) -> None:
    """A word such as the end is looked up: an answer that comes after the seek moves the partition there, silently."""
    _source()._on_assign(consumer, [TopicPartition(*PARTITION)])

    [positions] = consumer.incremental_assign.call_args.args  # type: ignore[attr-defined] # a mock
    assert [(position.topic, position.partition) for position in positions] == [PARTITION]
    assert all(position.offset >= 0 for position in positions)
    consumer.pause.assert_called_once_with(positions)  # type: ignore[attr-defined] # a mock


def test_a_static_member_that_returns_reads_no_topic_that_it_has_unsubscribed_from(
    broker: BrokerHandle, topics: Topics
) -> None:
    """The coordinator gives it all that it had, without a rebalance: a topic may be another stream's by now."""
    kept, dropped = topics.create(), topics.create()
    config: dict[str, Any] = {
        "bootstrap.servers": broker.bootstrap_servers,
        "group.id": kept,
        "group.instance.id": "one",
        "partition.assignment.strategy": "cooperative-sticky",
        "auto.offset.reset": "error",
        "enable.auto.commit": False,
    }

    def held(*names: str) -> list[Partition]:
        handler = create_autospec(RebalanceHandler, instance=True)
        reader, deadline = Source(config, handler, lambda _: 1), time.monotonic() + PATIENCE_SECS
        reader.subscribe(names)
        while not handler.assigned.called and time.monotonic() < deadline:
            reader.read(1, 0.05)
        reader.close()
        found: list[Partition] = sorted(handler.assigned.call_args.args[0])
        return found

    assert held(kept, dropped) == sorted([Partition(kept, 0), Partition(dropped, 0)])

    assert held(kept) == [Partition(kept, 0)]


@pytest.mark.parametrize(
    ("subscribed", "wanted"), [("other", []), ("events", [PARTITION]), ("^x", []), ("^even", [PARTITION])]
)
def test_partitions_that_were_not_taken_are_not_given_back_either(
    consumer: Consumer, subscribed: str, wanted: list[Partition]
) -> None:
    """Librdkafka refuses that, and they would stay with a group that goes on without this member."""
    made = _source()
    made.subscribe([subscribed, "plain"])

    made._on_assign(consumer, [TopicPartition(*PARTITION)])
    made._on_revoke(consumer, [TopicPartition(*PARTITION)])
    made._on_lost(consumer, [TopicPartition(*PARTITION)])

    given = [call.args[0] for call in consumer.incremental_assign.call_args_list]  # type: ignore[attr-defined] # a mock
    given += [call.args[0] for call in consumer.incremental_unassign.call_args_list]  # type: ignore[attr-defined] # same
    assert [[(position.topic, position.partition) for position in positions] for positions in given] == [wanted] * 3


def test_what_a_consumer_that_was_replaced_gives_up_is_no_word_about_the_partitions_of_the_next(
    consumer: Consumer,
) -> None:
    """It leaves in a thread of its own, while the next one has them already."""
    made, replaced = _source(), create_autospec(Consumer, instance=True)
    made._on_assign(consumer, [TopicPartition(*PARTITION)])

    made._on_revoke(replaced, [TopicPartition(*PARTITION)])
    made._on_lost(replaced, [TopicPartition(*PARTITION)])

    handler: Any = made._handler
    assert (handler.assigned.called, handler.revoking.called, handler.lost.called) == (True, False, False)
    assert replaced.incremental_unassign.call_count == 2


def test_a_read_that_returns_only_an_error_reports_it(consumer: Consumer, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = _source()
    tried._on_assign(consumer, [TopicPartition(*PARTITION)])
    error = KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED)
    message = create_autospec(Message, instance=True)  # only the library's later versions let anybody make one
    monkeypatch.setattr(source, "_error", methodcaller("error"))  # its own takes no mock
    message.topic.return_value, message.partition.return_value = PARTITION
    message.error.return_value = error
    consumer.consume.return_value = [message]  # type: ignore[attr-defined] # a mock

    read = tried.read(10, 0.0)

    assert (read.chunks, [partition for partition, _ in read.troubles]) == ([], [PARTITION])


def test_a_read_reports_that_a_broker_rejects_the_password(make_broker: MakeBroker) -> None:
    """No call of the library fails for that: they only time out."""
    broker = make_broker(listeners=[sasl_plain("DOOR", {"connector": "its password"})])
    config: dict[str, Any] = {
        "bootstrap.servers": broker.address("DOOR"),
        "group.id": "any",
        "security.protocol": "sasl_plaintext",
        "sasl.mechanism": "PLAIN",
        "sasl.username": "connector",
        "sasl.password": "another",
        "log_level": 0,
    }
    tried = Source(config, create_autospec(RebalanceHandler, instance=True), lambda _partition: 1)
    tried.subscribe(["events"])
    deadline = time.monotonic() + PATIENCE_SECS
    troubles: list[tuple[Partition | None, KafkaTroubleError]] = []
    while not troubles and time.monotonic() < deadline:
        troubles = tried.read(10, 0.1).troubles

    assert [(partition, trouble.rejected) for partition, trouble in troubles] == [(None, True)]
    assert "uthentication failed" in str(troubles[0][1])
    tried.close()


@pytest.mark.parametrize("was_there", [True, False])
def test_a_topic_that_is_gone_is_reported_and_not_one_that_is_yet_to_come(
    was_there: bool, consumer: Consumer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which topics are yet to come is said at the start, once for all."""
    tried = _source()
    if was_there:
        tried._on_assign(consumer, [TopicPartition(*PARTITION)])
    monkeypatch.setattr(source, "_error", methodcaller("error"))
    message = create_autospec(Message, instance=True)
    message.topic.return_value, message.partition.return_value = PARTITION
    message.error.return_value = KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART)
    consumer.consume.return_value = [message]  # type: ignore[attr-defined] # a mock

    assert bool(tried.read(10, 0.0).troubles) is was_there


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (
            "Partition log truncation detected at offset 700 (leader epoch 1): broker end offset is 500",
            {PARTITION: 500},
        ),
        (
            "No epoch found less or equal to offset 700 (leader epoch 4): broker end offset is -1",
            {PARTITION: 0},
        ),
        ("fetch failed due to requested offset not available on the broker: Broker: Offset out of range", {}),
    ],
    ids=["an unclean election", "a recreated topic", "retention"],
)
def test_librdkafka_reports_the_offset_from_which_an_election_discarded_records(
    words: str, expected: dict[Partition, int], consumer: Consumer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both come with one code."""
    monkeypatch.setattr(source, "_error", methodcaller("error"))
    message = create_autospec(Message, instance=True)
    message.topic.return_value, message.partition.return_value = PARTITION
    message.error.return_value = KafkaError(KafkaError._AUTO_OFFSET_RESET, words)
    consumer.consume.return_value = [message]  # type: ignore[attr-defined] # a mock

    read = _source().read(10, 0.0)

    assert (read.missing, read.truncated) == ([PARTITION], expected)


def test_a_partition_begins_and_commits_with_the_epoch_of_what_was_read_before(
    consumer: Consumer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By it brokers tell whether that is still there, also when a worker starts after they said no."""
    monkeypatch.setattr(source, "_error", methodcaller("error"))
    tried = _source()
    tried._on_assign(consumer, [TopicPartition(*PARTITION)])
    tried.begin(PARTITION, 100, 3)
    message = create_autospec(Message, instance=True)
    message.topic.return_value, message.partition.return_value = PARTITION
    message.error.return_value = KafkaError(KafkaError._AUTO_OFFSET_RESET, "truncation detected at 9")
    consumer.consume.return_value = [message]  # type: ignore[attr-defined] # a mock
    tried.read(10, 0.0)
    positions = tried.membership().positions({PARTITION: (100, "m")})

    [begun] = [call.args[0] for call in consumer.seek.call_args_list]  # type: ignore[attr-defined] # a mock
    assert (begun.offset, begun.leader_epoch) == (100, 3)
    assert [(position.offset, position.metadata, position.leader_epoch) for position in positions] == [(100, "m", 3)]


def _reading(consumer: Consumer, monkeypatch: pytest.MonkeyPatch, source_: Source, *there: tuple[int, int]) -> Any:
    """Read records with these offsets and leader epochs; chunks are lists of their offsets."""
    for name in ("error", "topic", "partition", "offset"):
        monkeypatch.setattr(source, f"_{name}", methodcaller(name))
    monkeypatch.setattr(source, "chunk_of", lambda run, *_, **__: [message.offset() for message in run])
    messages = []
    for offset, leader_epoch in there:
        message = create_autospec(Message, instance=True)
        message.topic.return_value, message.partition.return_value = PARTITION
        message.error.return_value, message.offset.return_value = None, offset
        message.leader_epoch.return_value = leader_epoch
        messages.append(message)
    consumer.consume.return_value = messages  # type: ignore[attr-defined] # a mock
    return source_.read(10, 0.0)


def _epoch(tried: Source) -> int | None:
    [position] = tried.membership().positions({PARTITION: (0, "")})
    epoch: int | None = position.leader_epoch
    return epoch


def test_a_record_of_a_later_epoch_where_another_was_read_before_is_not_taken_for_that(
    consumer: Consumer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An unclean election kept the committed offset, and new records have those above that were read by epoch 3."""
    tried = _source()
    tried.begin(PARTITION, 100, 3, 105)

    first = _reading(consumer, monkeypatch, tried, (100, 2), (102, 3), (103, 4), (107, 4))
    second = _reading(consumer, monkeypatch, tried, (108, 4))

    assert (first.chunks, first.missing, first.truncated) == ([[100, 102]], [PARTITION], {PARTITION: 103})
    assert second.chunks == []
    [paused] = consumer.pause.call_args_list[0].args  # type: ignore[attr-defined] # a mock
    assert [(position.topic, position.partition) for position in paused] == [PARTITION]
    assert _epoch(tried) == 3, "a worker that starts meanwhile finds out as well"


@pytest.mark.parametrize("leader_epoch", [3, NO_EPOCH], ids=["known", "unknown"])
def test_what_was_read_before_is_committed_with_its_own_epoch_until_it_is_passed(
    consumer: Consumer, monkeypatch: pytest.MonkeyPatch, leader_epoch: int
) -> None:
    """With that of an earlier record, the later ones would be taken for new."""
    tried, epochs = _source(), []
    tried.begin(PARTITION, 100, leader_epoch, 105)

    for offset, of_record in [(100, 2), (103, 3), (104, 3), (105, 4)]:
        read = _reading(consumer, monkeypatch, tried, (offset, of_record))
        assert (read.chunks, read.missing) == ([[offset]], [])
        epochs.append(_epoch(tried))

    before = None if leader_epoch == NO_EPOCH else 3
    assert epochs == [before, before, 3, 4]


def test_markers_that_are_passed_count_with_their_epoch(consumer: Consumer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A transaction that an election interrupts ends in a later epoch; with the records' one the end looked cut off."""
    tried = _source()
    tried.begin(PARTITION, 100)
    _reading(consumer, monkeypatch, tried, (100, 3))
    consumer.position.return_value = [TopicPartition(*PARTITION, 102, leader_epoch=4)]  # type: ignore[attr-defined]

    assert tried.passed([PARTITION]) == {PARTITION: 102}
    assert _epoch(tried) == 4


def test_a_read_has_the_arrival_time_of_its_first_record_not_of_the_end_of_the_linger(
    consumer: Consumer, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried, times = _source(), iter([5.0, 6.0, 7.0])
    monkeypatch.setattr("connector.kafka.source.time.monotonic", lambda: next(times))
    monkeypatch.setattr(source, "_error", methodcaller("error"))
    message = create_autospec(Message, instance=True)
    message.topic.return_value, message.partition.return_value = PARTITION
    message.error.return_value = KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED)  # a mock is no column's record
    consumer.poll.return_value = message  # type: ignore[attr-defined] # a mock
    consumer.consume.return_value = []  # type: ignore[attr-defined] # a mock

    assert tried.read(10, 1.0).at == 5.0


@pytest.mark.parametrize(
    "protocol",
    [{"group.protocol": "consumer"}, _COOPERATIVE],
    ids=["consumer", "classic"],
)
def test_a_pattern_is_for_all_topics_that_begin_so(
    broker: BrokerHandle, topics: Topics, protocol: dict[str, str]
) -> None:
    beginning, other = topics.name("many"), topics.create()
    wanted = {topics.create(name=f"{beginning}.{end}") for end in ("one", "two")}
    seen: set[str] = set()
    handler = create_autospec(RebalanceHandler, instance=True)
    handler.assigned.side_effect = lambda partitions: seen.update(partition.topic for partition in partitions)
    config = {"bootstrap.servers": broker.bootstrap_servers, "group.id": beginning, **protocol}
    tried, deadline = Source(config, handler, lambda _partition: None), time.monotonic() + PATIENCE_SECS
    try:
        tried.subscribe([f"^{beginning}[.]one$|^{beginning}[.]t", other])
        while not {*wanted, other} <= seen and time.monotonic() < deadline:
            tried.read(1, 0.05)
    finally:
        tried.close()

    assert seen == {*wanted, other}


@pytest.mark.parametrize("offset", [0, 3])
@pytest.mark.parametrize("again", [False, True], ids=["begun", "resumed"])
def test_a_partition_that_is_woken_is_read_at_once(
    broker: BrokerHandle, topics: Topics, offset: int, again: bool
) -> None:
    """Measured: 5 ms, where librdkafka's own thread would sleep for up to a second."""
    topic = topics.create(partitions=1)
    partition = Partition(topic, 0)
    topics.produce(topic, [Record(b"x")] * 10)
    handler = create_autospec(RebalanceHandler, instance=True)
    config = {"bootstrap.servers": broker.bootstrap_servers, "group.id": topic, **_COOPERATIVE}
    tried, waits = Source(config, handler, lambda _partition: 1), []

    def wait_for_first() -> int:
        began, read = time.monotonic(), tried.read(10, 0.0)
        while not read.chunks and time.monotonic() < began + PATIENCE_SECS:
            read = tried.read(10, 0.05)
        waits.append(time.monotonic() - began)
        return read.chunks[0].offsets[0]

    try:
        tried.subscribe([topic])
        while not handler.assigned.called:
            tried.read(1, 0.05)
        tried.bounds(partition, 30)
        for _ in range(3):
            while not tried.begin(partition, offset):
                tried.read(1, 0.01)
            if again:
                tried.pause([partition])
                tried.read(1, 0.05)
                tried.resume([partition])
            tried.wake([partition])
            assert wait_for_first() == offset
            tried.pause([partition])
            tried.read(1, 0.05)
    finally:
        tried.close()

    tell("the first record after it is woken", median(waits), 0.1)


def test_a_partition_that_is_starting_is_waited_for_and_one_that_stopped_is_assigned_again(
    consumer: Consumer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both are refused a seek in the same words; time tells them apart."""
    consumer.seek.side_effect = _refusing(KafkaError._STATE)  # type: ignore[attr-defined] # a mock
    reader = _source()

    assert not reader.begin(PARTITION, 70)
    consumer.incremental_assign.assert_not_called()  # type: ignore[attr-defined] # a mock
    monkeypatch.setattr(source, "RESTART_SECS", 0.0)
    assert reader.begin(PARTITION, 70)

    for call in (consumer.incremental_unassign, consumer.incremental_assign):
        [[position]] = call.call_args.args  # type: ignore[attr-defined] # a mock
        assert (Partition(position.topic, position.partition), position.offset) == (PARTITION, 70)


def test_a_partition_that_yields_nothing_is_sought_again_where_it_was(consumer: Consumer) -> None:
    """An answer that comes late may have stopped it, and librdkafka does not tell."""
    consumer.consume.return_value, consumer.poll.return_value = [], None  # type: ignore[attr-defined] # a mock
    reader = _source()
    reader.begin(PARTITION, 70)
    began = time.monotonic()

    while len(_seeks(consumer)) < 2 and time.monotonic() < began + PATIENCE_SECS:
        reader.read(10, 0.0)
        time.sleep(0.01)

    assert _seeks(consumer) == [70, 70]
    assert time.monotonic() - began >= SEEK_RETRY_SECS


def test_an_error_of_a_pause_or_a_resume_is_ours(consumer: Consumer) -> None:
    for name in ("pause", "resume"):
        getattr(consumer, name).side_effect = KafkaException(KafkaError(KafkaError._STATE))

        with pytest.raises(KafkaTroubleError) as raised:
            getattr(_source(), name)([PARTITION])
        assert raised.value.code == "_STATE"


def test_a_seek_is_not_retried_for_a_partition_that_is_paused_has_yielded_or_was_revoked(
    consumer: Consumer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would be resumed, or thrown back."""
    monkeypatch.setattr(source, "SEEK_RETRY_SECS", 0.0)
    message = create_autospec(Message, instance=True)
    message.error.return_value = None
    for column, value in {"topic": "events", "partition": 3, "offset": 70, "timestamp": (0, 0)}.items():
        monkeypatch.setattr(source, f"_{column}", lambda _message, value=value: value)
        getattr(message, column).return_value = value
    for column in ("value", "key", "headers", "error"):
        monkeypatch.setattr(source, f"_{column}", lambda _message: None)
    consumer.consume.return_value, consumer.poll.return_value = [], None  # type: ignore[attr-defined] # a mock

    paused, yielded, revoked = _source(), _source(), _source()
    for reader in (paused, yielded, revoked):
        reader._on_assign(consumer, [TopicPartition(*PARTITION)])
        reader.begin(PARTITION, 70)
    paused.pause([PARTITION])
    consumer.consume.return_value = [message]  # type: ignore[attr-defined] # a mock
    assert [chunk.offsets for chunk in yielded.read(10, 0.0).chunks] == [range(70, 71)]
    consumer.consume.return_value = []  # type: ignore[attr-defined] # a mock
    revoked._on_revoke(consumer, [TopicPartition(*PARTITION)])
    sought = len(_seeks(consumer))
    for reader in (paused, yielded, revoked):
        reader.read(10, 0.0)

    assert len(_seeks(consumer)) == sought
    paused.resume([PARTITION])
    paused.read(10, 0.0)
    assert len(_seeks(consumer)) == sought + 1


def test_a_commit_that_is_not_answered_is_given_up_and_does_not_come_after_a_later_one(consumer: Consumer) -> None:
    """A consumer that has lost its brokers keeps one for as long as its session; what is older must not win.

    What nobody waits for any more is not begun either: its partitions may be another worker's by then.
    """
    answered = threading.Event()
    done: list[int] = []

    def commit(offsets: list[TopicPartition], *, asynchronous: bool) -> None:
        assert not asynchronous
        if not done:
            answered.wait(PATIENCE_SECS)
        done.append(offsets[0].offset)

    consumer.commit.side_effect = commit  # type: ignore[attr-defined] # a mock
    tried = _source()

    for offset in (70, 80):
        with pytest.raises(KafkaTroubleError) as raised:
            tried.commit({PARTITION: (offset, "")}, tried.membership(), 0.1)
        assert raised.value.unanswered
    answered.set()
    tried.commit({PARTITION: (90, "")}, tried.membership(), 30)

    assert done == [70, 90]


@pytest.mark.parametrize("how", ["_on_revoke", "_on_lost"])
def test_nothing_from_before_a_revoke_is_committed_after_it(consumer: Consumer, how: str) -> None:
    """However long it waited: under the generation of a consumer that has joined again the group would take it.

    Seen in a run of chaos: what another worker had committed meanwhile was forgotten, and 591 texts were sent twice.
    """
    answered, begun = threading.Event(), threading.Event()
    done: list[int] = []

    def commit(offsets: list[TopicPartition], *, asynchronous: bool) -> None:
        assert not asynchronous
        begun.set()
        answered.wait(PATIENCE_SECS)
        done.append(offsets[0].offset)

    consumer.commit.side_effect = commit  # type: ignore[attr-defined] # a mock
    tried = _source()
    early = tried.membership()
    with pytest.raises(KafkaTroubleError):
        tried.commit({PARTITION: (70, "")}, early, 0.1)
    late = threading.Thread(target=lambda: _refused(tried, early))
    late.start()
    assert begun.wait(PATIENCE_SECS)
    getattr(tried, how)(consumer, [TopicPartition(*PARTITION)])
    answered.set()
    late.join(PATIENCE_SECS)

    tried.commit({PARTITION: (90, "")}, tried.membership(), 30)

    assert done == [70, 90]


def _refused(tried: Source, membership: Membership) -> None:
    with pytest.raises(KafkaTroubleError, match="generation"):
        tried.commit({PARTITION: (80, "")}, membership, 30)


def _as_member(consumer: Consumer, member: bytes, generation: int = 7) -> None:
    packed = b"CGMDv2:" + generation.to_bytes(4, "little") + b"group\0" + member + b"\0\0worker-1\0"
    consumer.consumer_group_metadata.return_value = packed  # type: ignore[attr-defined] # a mock


@pytest.mark.parametrize("now_known_as", [b"second", b""], ids=["joined anew", "about to join anew"])
def test_nothing_is_committed_as_another_member_than_the_one_that_partitions_were_assigned_to(
    consumer: Consumer, now_known_as: bytes
) -> None:
    """The group asks who commits, and not whose the partition is: 3,240 texts were sent twice.

    A worker was frozen as it let one partition go, and librdkafka joined its group again with the other still in hand.
    """
    tried = _source()
    _as_member(consumer, b"first")
    tried._on_assign(consumer, [TopicPartition(*PARTITION)])
    _as_member(consumer, b"first", generation=8)  # a rebalance changes no member
    membership = tried.membership()
    assert membership.metadata == consumer.consumer_group_metadata()

    _as_member(consumer, now_known_as)

    with pytest.raises(AbortableError) as raised:
        tried.membership()
    assert raised.value.code == "UNKNOWN_MEMBER_ID"
    _refused(tried, membership)
    assert not tried.was_expelled, "librdkafka may still tell that they are lost"


@pytest.mark.parametrize("told", ["_on_revoke", "_on_assign", "_on_lost"])
def test_what_a_member_kept_that_its_group_took_for_gone_is_lost_though_librdkafka_does_not_say_so(
    consumer: Consumer, told: str
) -> None:
    handler = create_autospec(RebalanceHandler, instance=True)
    tried = Source({}, handler, lambda _partition: 1)
    _as_member(consumer, b"first")
    tried._on_assign(consumer, [TopicPartition(*PARTITION)])
    _as_member(consumer, b"second")

    getattr(tried, told)(consumer, [TopicPartition(*PARTITION)])

    handler.revoking.assert_not_called()
    assert tried.was_expelled == (told != "_on_lost")
    if told == "_on_revoke":
        handler.lost.assert_called_once_with([PARTITION])
    if told == "_on_lost":
        tried._on_assign(consumer, [TopicPartition(*PARTITION)])
        assert tried.membership().metadata == consumer.consumer_group_metadata()
    else:
        with pytest.raises(AbortableError):
            tried.membership()
        tried.renew()
        tried._on_assign(consumer, [TopicPartition(*PARTITION)])
        assert not tried.was_expelled


def test_a_consumer_that_took_over_commits_nothing_of_the_one_before_and_does_not_wait_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[Any] = [create_autospec(Consumer, instance=True) for _ in range(2)]
    consumers = iter(made)
    monkeypatch.setattr(source, "Consumer", lambda _config: next(consumers))
    old, new = made
    answered, closed = threading.Event(), threading.Event()
    old.commit.side_effect = lambda **_: answered.wait(PATIENCE_SECS)
    old.close.side_effect = closed.set
    new.commit.return_value = []
    tried = _source()

    for offset in (70, 80):
        with pytest.raises(KafkaTroubleError):
            tried.commit({PARTITION: (offset, "")}, tried.membership(), 0.1)
    tried.renew()
    tried.commit({PARTITION: (60, "")}, tried.membership(), 30)
    assert not closed.is_set(), "it is inside a call"
    answered.set()

    assert closed.wait(PATIENCE_SECS)
    for consumer, expected in ((old, 70), (new, 60)):
        [call] = consumer.commit.call_args_list
        assert [position.offset for position in call.kwargs["offsets"]] == [expected]


def test_a_consumer_that_brings_nothing_is_silent_until_it_is_asked_or_brings_records(
    consumer: Consumer, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = 0.0
    monkeypatch.setattr("connector.kafka.source.time.monotonic", lambda: at)
    monkeypatch.setattr(source, "_topic", lambda _message: PARTITION.topic)
    monkeypatch.setattr(source, "_partition", lambda _message: PARTITION.number)
    monkeypatch.setattr(source, "_error", lambda _message: None)
    monkeypatch.setattr(source, "_offset", lambda _message: 0)
    monkeypatch.setattr(source, "chunk_of", lambda *_, **__: create_autospec(Chunk, instance=True))
    tried, heard = _source(), []

    for what in (None, "asked", "read"):
        at += SILENT_SECS + 1
        if what == "asked":
            tried.is_cut_off(0.1)
        elif what == "read":
            consumer.consume.return_value = [create_autospec(Message, instance=True)]  # type: ignore[attr-defined]
            tried.read(1, 0.0)
        heard.append(tried.is_silent)

    assert heard == [True, False, False]


@pytest.mark.parametrize("read_since", [False, True])
def test_a_consumer_that_a_broker_throttles_is_neither_silent_nor_cut_off_for_so_long(
    consumer: Consumer, monkeypatch: pytest.MonkeyPatch, read_since: bool
) -> None:
    """A new one is answered, and throttled in its turn: replaced again and again, it would read next to nothing."""
    at = 0.0
    monkeypatch.setattr("connector.kafka.source.time.monotonic", lambda: at)
    monkeypatch.setattr(source, "is_cut_off", lambda *_: True)
    monkeypatch.setattr(source, "_topic", lambda _message: PARTITION.topic)
    monkeypatch.setattr(source, "_partition", lambda _message: PARTITION.number)
    monkeypatch.setattr(source, "_error", lambda _message: None)
    monkeypatch.setattr(source, "_offset", lambda _message: 0)
    monkeypatch.setattr(source, "chunk_of", lambda *_, **__: create_autospec(Chunk, instance=True))
    tried = _source()

    tried._config["throttle_cb"](ThrottleEvent("broker", 1, 20.0))
    if read_since:  # what was there already
        consumer.consume.return_value = [create_autospec(Message, instance=True)]  # type: ignore[attr-defined] # a mock
        tried.read(1, 0.0)
    at = 19.0

    assert (tried.is_silent, tried.is_cut_off(0.1)) == (False, False)
    at = 20.0 + SILENT_SECS + 1
    assert (tried.is_silent, tried.is_cut_off(0.1)) == (True, True)


def test_a_record_that_was_read_is_kept_when_the_wait_for_company_fails(
    consumer: Consumer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not read again: left out, it would look like an offset that the topic does not have."""
    monkeypatch.setattr(source, "_error", methodcaller("error"))
    message = create_autospec(Message, instance=True)
    message.error.return_value = KafkaError(KafkaError._PARTITION_EOF)
    kept: list[Any] = []
    monkeypatch.setattr(Source, "_sort_error", lambda _self, _read, first, _trouble: kept.append(first))
    consumer.poll.return_value = message  # type: ignore[attr-defined] # a mock
    refused = KafkaException(KafkaError(KafkaError._STATE))
    consumer.consume.side_effect = [[], refused]  # type: ignore[attr-defined]

    read = _source().read(10, 1.0)

    assert kept == [message]
    assert [trouble.code for _, trouble in read.troubles] == ["_STATE"]
