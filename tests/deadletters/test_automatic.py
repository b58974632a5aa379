"""A rule that redrives dead letters: each once, whoever else does, and whatever its topic accepts."""

import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partialmethod
from typing import Any
from unittest.mock import Mock, create_autospec

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._config import AlterConfigOpType, ConfigEntry, ConfigResource
from confluent_kafka.admin._resource import ResourceType
from structlog.testing import capture_logs

from connector.clock import now_ms
from connector.config.kafka import KafkaSettings
from connector.config.streams import StreamSettings
from connector.core.chunks import Chunk, Headers, Partition
from connector.deadletters import automatic, waiting
from connector.deadletters.automatic import MAX_ABORTS, AutomaticRedrive
from connector.deadletters.earlier import Earlier
from connector.deadletters.letters import CLOCKS_MS, Letter
from connector.deadletters.looking import Looking
from connector.deadletters.waiting import Part
from connector.demo.topics import Record
from connector.kafka.commits import Committed, Membership
from connector.kafka.errors import AbortableError, FatalError, translate
from connector.kafka.publisher import TransactionalPublisher
from connector.kafka.source import Read, RebalanceHandler, Source
from connector.kafka.targets import Targets
from connector.kafka.topics import Topics
from tests.deadletters.conftest import Desk
from tests.deadletters.making import NOW_MS, STREAM, headers_of, letter
from tests.kit.patience import PATIENCE_SECS

DEAD, FOREIGN = Partition("dead", 0), Partition("dead", 1)
LOCAL = KafkaSettings(bootstrap_servers="nowhere:1")


@contextmanager
def running(
    content: dict[str, Any], kafka: KafkaSettings, *, name: str = "rule", reasons: Sequence[str] = ("server_error",)
) -> Iterator[AutomaticRedrive]:
    """Run a rule of a stream, without a delay and as fast as it can."""
    rule = {"name": name, "reasons": list(reasons), "delay_secs": 0, "max_per_sec": 100_000}
    stream = StreamSettings.model_validate(
        {**content, "dead_letters": {**content["dead_letters"], "redrive": [rule]}, "metadata_refresh_secs": 1}
    )
    (settings,) = stream.dead_letters.redrive
    made = AutomaticRedrive(
        stream, settings, kafka=kafka, instance_id=f"{name}-0", client_id="test", held=lambda: False
    )
    made.start()
    try:
        yield made
    finally:
        made.stop(PATIENCE_SECS)


def wait_for(rule: AutomaticRedrive, wanted: Callable[[dict[str, Any]], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECS
    while not wanted(rule.status()):
        assert time.monotonic() < deadline, rule.status()
        time.sleep(0.02)


def begin_at(desk: Desk, offset: int, *, rule: str = "rule") -> None:
    """Commit an offset of all partitions for a rule of the first stream."""
    group = f"{_group(desk)}.redrive.{rule}"
    consumer = Consumer({"bootstrap.servers": desk.content["kafka"]["bootstrap_servers"], "group.id": group})
    consumer.commit(offsets=[TopicPartition(desk.dead, at, offset) for at in range(4)], asynchronous=False)
    consumer.close()


def _group(desk: Desk) -> str:
    return StreamSettings.model_validate(desk.content["streams"][0]).group


def _kafka(desk: Desk) -> KafkaSettings:
    return KafkaSettings.model_validate(desk.content["kafka"])


def letters(
    desk: Desk, numbers: range, reason: str = "server_error", size: int = 40, redrives: int = 0
) -> list[Record]:
    """Return dead letters of the first stream, each with a value that no compression makes smaller."""
    again = [("trackly.redrives", b"%d" % redrives)] if redrives else []
    return [
        Record(
            secrets.token_bytes(size),
            b"%d" % at,
            [*headers_of(reason, stream=desk.names[0], topic="src", offset=at), *again],
        )
        for at in numbers
    ]


def redriven(desk: Desk) -> Counter[tuple[str, str]]:
    """Return how often which record stands in the redrive topic with which number of redrives."""
    return Counter(
        ((message.key() or b"").decode(), dict(message.headers() or [])["trackly.redrives"].decode())  # type: ignore[union-attr]
        for message in desk.redriven()
    )


def test_what_the_command_or_another_rule_sent_again_is_passed_over(desk: Desk) -> None:
    """Each rule is a group of its own, and one to which a reason was moved may lag behind."""
    desk.put(letters(desk, range(40)))
    desk.put(letters(desk, range(40, 60), "provider_error"))
    told = desk.told("redrive", "--reason", "server_error", "--limit", "15", "--yes")
    begin_at(desk, 0, rule="first")
    begin_at(desk, 0, rule="second")
    with running(desk.content["streams"][0], _kafka(desk), name="first") as first:
        wait_for(first, lambda status: status["redriven"] >= 25)
        desk.put(letters(desk, range(10), redrives=1))
        wait_for(first, lambda status: status["redriven"] >= 35)

    reasons = ["server_error", "provider_error"]
    with running(desk.content["streams"][0], _kafka(desk), name="second", reasons=reasons) as second:
        wait_for(second, lambda status: status["redriven"] >= 20)
        wait_for(second, lambda status: status["passed_over"] == {"redriven": 50, "too_large": 0})
    with running(desk.content["streams"][0], _kafka(desk), name="second", reasons=reasons) as second:
        desk.put(letters(desk, range(60, 61)))
        wait_for(second, lambda status: status["redriven"] >= 1)

    assert told["written"] == {"redrive": 15}
    assert first.status()["passed_over"] == {"redriven": 15, "too_large": 0}
    expected = {(str(at), "1") for at in range(61)} | {(str(at), "2") for at in range(10)}
    assert redriven(desk) == dict.fromkeys(expected, 1)


def test_what_is_sent_again_keeps_to_the_batches_that_the_topic_takes_and_a_letter_too_large_stops_nothing(
    desk: Desk,
) -> None:
    desk.topics.create(config={"max.message.bytes": "100000"}, name=f"{desk.names[0]}.redrive")
    begin_at(desk, 0)
    desk.topics.produce(desk.dead, letters(desk, range(300), size=1_000), partition=0)
    desk.topics.produce(desk.dead, letters(desk, range(300, 301), size=99_950), partition=0)
    desk.topics.produce(desk.dead, letters(desk, range(301, 310)), partition=0)

    with running(desk.content["streams"][0], _kafka(desk)) as rule:
        wait_for(rule, lambda status: status["redriven"] >= 309)
        wait_for(rule, lambda status: status["passed_over"] == {"redriven": 0, "too_large": 1})

    assert rule.status()["error"] is None
    assert redriven(desk) == {(str(at), "1"): 1 for at in range(310) if at != 300}


def test_a_limit_that_is_lowered_or_raised_while_a_rule_runs_is_kept_to(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Targets, "refresh_if_due", partialmethod(Targets.refresh_if_due, every_secs=0.0))
    target = desk.topics.create(name=f"{desk.names[0]}.redrive")
    admin = AdminClient({"bootstrap.servers": desk.content["kafka"]["bootstrap_servers"]})

    def limit(size: int) -> None:
        entry = ConfigEntry("max.message.bytes", str(size), incremental_operation=AlterConfigOpType.SET)
        resource = ConfigResource(ResourceType.TOPIC, target, incremental_configs=[entry])
        for future in admin.incremental_alter_configs([resource]).values():
            future.result(PATIENCE_SECS)

    begin_at(desk, 0)
    with running(desk.content["streams"][0], _kafka(desk)) as rule:
        desk.topics.produce(desk.dead, letters(desk, range(1)), partition=0)
        wait_for(rule, lambda status: status["redriven"] == 1)
        limit(100_000)
        desk.topics.produce(desk.dead, letters(desk, range(1, 2), size=200_000), partition=0)
        desk.topics.produce(desk.dead, letters(desk, range(2, 3)), partition=0)
        wait_for(
            rule, lambda status: status["redriven"] == 2 and status["passed_over"] == {"redriven": 0, "too_large": 1}
        )
        limit(1_000_000)
        desk.topics.produce(desk.dead, letters(desk, range(3, 4), size=200_000), partition=0)
        wait_for(rule, lambda status: status["redriven"] == 3)

    assert redriven(desk) == {("0", "1"): 1, ("2", "1"): 1, ("3", "1"): 1}


class Played:
    """What a rule has in place of Kafka: reads that a test plays, one after another, and commits that succeed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, committed: int | None = 0, end: int = 10) -> None:
        self.reads: list[Read | Callable[[], object]] = []
        """What is read, or what happens during a read instead."""
        self.handler: RebalanceHandler | None = None
        self.assigned = [DEAD]
        self.source: Mock = create_autospec(Source, instance=True, is_silent=False)
        self.publisher: Mock = create_autospec(TransactionalPublisher, instance=True)
        self.earlier: Mock = create_autospec(Earlier, instance=True, is_looking=False)
        self.earlier.step.return_value, self.earlier.tells.return_value = True, False
        self.topics: Mock = create_autospec(Topics, instance=True)
        self.topics.partitions.side_effect = lambda names, _secs=None: dict.fromkeys(names, 1)
        self.topics.limits.return_value = {}
        self.source.committed.side_effect = lambda asked, _secs: dict.fromkeys(asked, Committed(committed, ""))
        self.source.bounds.return_value = (0, end)
        self.source.membership.return_value = Membership(b"")
        self.source.read.side_effect = self._read
        monkeypatch.setattr(automatic, "Source", self._made)
        monkeypatch.setattr(automatic, "TransactionalPublisher", lambda _config, _topic: self.publisher)
        monkeypatch.setattr(automatic, "Topics", lambda _config, _secs: self.topics)
        monkeypatch.setattr(automatic, "Earlier", lambda *_, **__: self.earlier, raising=False)

    def _made(self, _config: object, handler: RebalanceHandler, *_: object, **__: object) -> Mock:
        self.handler = handler
        self.source.subscribe.side_effect = lambda _topics: handler.assigned(list(self.assigned))
        return self.source

    def _read(self, _count: int, _secs: float) -> Read:
        time.sleep(0.002)
        step = self.reads.pop(0) if self.reads else Read()
        if isinstance(step, Read):
            return step
        step()
        return Read()

    def rebalance(self, event: str) -> None:
        assert self.handler is not None
        getattr(self.handler, event)([DEAD])

    def committed(self) -> list[int]:
        """Return the offsets that were committed of the partition."""
        return [offsets[DEAD][0] for call in self.publisher.commit.call_args_list if DEAD in (offsets := call.args[0])]

    def begun(self) -> list[int]:
        return [call.args[1] for call in self.source.begin.call_args_list]


def chunk(*offsets: int, at_ms: int = NOW_MS) -> Chunk:
    count = len(offsets)
    headers: list[Headers | None] = [
        headers_of("server_error", offset=100 + offset, now_ms=at_ms) for offset in offsets
    ]
    return Chunk(DEAD, 0, list(offsets), [b"{}"] * count, headers=headers, timestamps=[at_ms] * count)


@pytest.mark.parametrize(("committed", "start"), [(1_000, 10), (10, 10), (4, 4), (1, 2)])
def test_a_rule_begins_within_the_topic_at_the_end_that_is_nearer(
    monkeypatch: pytest.MonkeyPatch, committed: int, start: int
) -> None:
    """Behind the end is who was committed in a topic that was made anew; from its start all would be sent twice."""
    played = Played(monkeypatch, committed=committed)
    played.source.bounds.return_value = (2, 10)

    with capture_logs() as logs, running(STREAM, LOCAL) as rule:
        wait_for(rule, lambda _: bool(played.begun()))

    assert played.begun()[0] == start
    assert any("behind the end" in str(entry) for entry in logs) is (committed > 10)


def test_a_rule_that_never_ran_begins_when_it_starts_and_says_so_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody asked for older dead letters to be sent again."""
    played = Played(monkeypatch, committed=None)
    played.source.offset_at.return_value = 5
    before = now_ms()

    with running(STREAM, LOCAL) as rule:
        wait_for(rule, lambda _: bool(played.committed()))

    partition, asked_ms, _ = played.source.offset_at.call_args.args
    assert (partition, played.begun()[0], played.committed()[0]) == (DEAD, 5, 5)
    assert before <= asked_ms <= now_ms()


@pytest.mark.parametrize("event", ["revoking", "lost"])
def test_what_waits_in_a_partition_that_goes_is_left_to_its_next_owner(
    monkeypatch: pytest.MonkeyPatch, event: str
) -> None:
    """Who reads it from its commit sends it again as well, and the broker does not check who owns it."""
    played = Played(monkeypatch)
    played.earlier.step.return_value = False  # it waits for that look
    played.reads = [Read(), Read(chunks=[chunk(0, 1)])]

    with running(STREAM, LOCAL) as rule:
        wait_for(rule, lambda status: status["waiting"] == 2)
        played.reads.append(lambda: played.rebalance(event))
        wait_for(rule, lambda status: status["waiting"] == 0)
        played.earlier.step.return_value = True
        reads = played.source.read.call_count
        wait_for(rule, lambda _: played.source.read.call_count > reads + 3)

    assert (rule.status()["redriven"], played.publisher.write.called, played.committed()) == (0, False, [])


def test_a_partition_that_goes_before_it_was_begun_is_not_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    played = Played(monkeypatch)
    played.assigned = []

    def come_and_go() -> None:
        played.rebalance("assigned")
        played.rebalance("revoking")

    played.reads = [come_and_go, Read()]
    with running(STREAM, LOCAL) as rule:
        wait_for(rule, lambda _: played.source.read.call_count > 4)

    assert played.begun() == []


def test_what_waited_before_an_error_is_read_again_from_its_commit_if_it_is_still_ours(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(automatic, "REST_SECS", 0.01)
    played = Played(monkeypatch)
    played.earlier.step.return_value = False
    played.reads = [Read(), Read(chunks=[chunk(0, 1)])]

    def fail() -> None:
        played.rebalance("assigned")
        played.assigned = []  # they are others' by the time it has joined again
        played.earlier.step.return_value = True
        raise FatalError(KafkaError(KafkaError._FATAL))

    with running(STREAM, LOCAL) as rule:
        wait_for(rule, lambda status: status["waiting"] == 2)
        played.reads.append(fail)
        wait_for(rule, lambda status: status["error"] is not None and played.source.subscribe.call_count == 2)
        begun, reads = len(played.begun()), played.source.read.call_count
        wait_for(rule, lambda _: played.source.read.call_count > reads + 3)

    assert len(played.begun()) == begun
    assert "FatalError" in rule.status()["error"]
    assert (rule.status()["redriven"], rule.status()["waiting"], played.committed()) == (0, 0, [])


def test_a_rule_without_its_topic_reads_nothing_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(automatic, "REST_SECS", 0.01)
    played = Played(monkeypatch)
    played.topics.partitions.side_effect = lambda names, _secs=None: dict.fromkeys(names, 0)

    with running(STREAM, LOCAL) as rule:
        wait_for(rule, lambda _: played.topics.partitions.call_count >= 2)

    assert "topic sends.redrive does not exist" in str(rule.status()["error"])
    assert not played.source.subscribe.called


@pytest.mark.parametrize(
    ("code", "level"),
    [
        (KafkaError.INVALID_PRODUCER_ID_MAPPING, "warning"),  # the brokers forget a producer after a week
        (KafkaError._FENCED, "error"),
        (KafkaError.TOPIC_AUTHORIZATION_FAILED, "error"),
    ],
)
def test_an_interruption_is_an_error_only_where_somebody_must_act(
    monkeypatch: pytest.MonkeyPatch, code: int, level: str
) -> None:
    played = Played(monkeypatch)
    played.publisher.start.side_effect = translate(KafkaException(KafkaError(code)))

    with capture_logs() as logs, running(STREAM, LOCAL) as rule:
        wait_for(rule, lambda status: status["error"] is not None)

    assert [(line["event"], line["log_level"]) for line in logs] == [("redrive interrupted, begins again", level)]


@pytest.mark.parametrize("cut_off", [False, True])
def test_a_rule_that_reads_nothing_begins_anew_only_if_no_broker_can_be_reached(
    monkeypatch: pytest.MonkeyPatch, cut_off: bool
) -> None:
    monkeypatch.setattr(automatic, "REST_SECS", 0.01)
    played = Played(monkeypatch)
    played.source.is_silent = True
    played.source.is_cut_off.return_value = cut_off

    with running(STREAM, LOCAL) as rule:
        wait_for(rule, lambda _: played.source.is_cut_off.call_count >= 3)

    assert (played.source.subscribe.call_count > 1) is cut_off
    assert ("has lost its brokers" in str(rule.status()["error"])) is cut_off
    assert played.publisher.start.call_count == played.source.subscribe.call_count


@pytest.mark.parametrize(
    ("code", "anew"), [(KafkaError.TOPIC_AUTHORIZATION_FAILED, True), (KafkaError._TRANSPORT, False)]
)
def test_a_rule_begins_anew_after_trouble_but_not_while_a_broker_is_away(
    monkeypatch: pytest.MonkeyPatch, code: int, anew: bool
) -> None:
    monkeypatch.setattr(automatic, "REST_SECS", 0.01)
    played = Played(monkeypatch)
    trouble = translate(KafkaException(KafkaError(code)), "reading")
    played.reads = [Read(), Read(troubles=[(DEAD, trouble)]), Read(chunks=[chunk(0)])]

    with running(STREAM, LOCAL) as rule:
        wait_for(rule, lambda _: not played.reads and (not anew or played.source.subscribe.call_count > 1))
        wait_for(rule, lambda status: anew or status["redriven"] == 1)

    assert (played.source.subscribe.call_count > 1) is anew


def test_where_retention_has_removed_what_was_to_be_read_a_rule_continues_with_what_there_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    played = Played(monkeypatch)
    played.earlier.step.return_value = False
    played.reads = [Read(), Read(chunks=[chunk(0, 1)])]

    with running(STREAM, LOCAL) as rule:
        wait_for(rule, lambda status: status["waiting"] == 2)
        played.source.bounds.return_value = (7, 10)
        played.reads = [Read(missing=[DEAD])]
        wait_for(rule, lambda _: played.begun()[-1] == 7)
        played.earlier.step.return_value = True
        played.reads = [Read(chunks=[chunk(7)])]
        wait_for(rule, lambda status: status["redriven"] == 1)

    assert played.publisher.write.call_count == 1


def test_a_partition_is_not_read_while_as_much_waits_as_may(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "MAX_WAITING", 2)
    played = Played(monkeypatch)
    played.earlier.step.return_value = False
    played.reads = [Read(), Read(chunks=[chunk(0, 1)])]

    with running(STREAM, LOCAL) as rule:
        wait_for(rule, lambda _: played.source.pause.called)
        before = played.source.resume.called
        played.earlier.step.return_value = True
        wait_for(rule, lambda _: played.source.resume.called)

    assert not before
    assert rule.status()["redriven"] == 2


def test_a_rule_that_is_stopped_has_let_go_of_its_clients(monkeypatch: pytest.MonkeyPatch) -> None:
    played = Played(monkeypatch)

    with running(STREAM, LOCAL) as rule:
        wait_for(rule, lambda _: bool(played.begun()))

    assert [there.close.called for there in (played.earlier, played.publisher, played.source)] == [True] * 3


def test_a_rule_that_was_not_started_can_be_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal during a start stops all services, also those whose turn to start had not come."""
    Played(monkeypatch)
    monkeypatch.setattr(AutomaticRedrive, "start", lambda _rule: None)

    with running(STREAM, LOCAL) as rule:
        pass

    assert rule.status()["error"] is None


def test_why_a_transaction_was_aborted_is_shown_until_one_succeeds(monkeypatch: pytest.MonkeyPatch) -> None:
    played = Played(monkeypatch)
    played.reads = [Read(), Read(chunks=[chunk(0, 1)])]
    played.publisher.commit.side_effect = AbortableError(KafkaError(KafkaError.NOT_ENOUGH_REPLICAS))

    with running(STREAM, LOCAL) as rule:
        wait_for(rule, lambda status: status["error"] is not None)
        shown = rule.status()["error"]
        played.publisher.commit.side_effect = None
        played.reads = [Read(chunks=[chunk(0, 1)])]
        wait_for(rule, lambda status: status["redriven"] == 2)

    assert "AbortableError" in shown
    assert rule.status()["error"] is None
    assert played.publisher.abort.called


def test_after_some_aborts_in_a_row_a_rule_asks_again_what_its_topic_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(automatic, "REST_SECS", 0.01)
    played = Played(monkeypatch)

    def begin(_partition: Partition, _offset: int) -> bool:
        played.reads.append(Read(chunks=[chunk(0)]))
        return True

    played.source.begin.side_effect = begin
    played.publisher.commit.side_effect = AbortableError(KafkaError(KafkaError.MSG_SIZE_TOO_LARGE))

    with running(STREAM, LOCAL) as rule:
        wait_for(rule, lambda _: played.topics.partitions.call_count >= 3)

    assert played.publisher.abort.call_count in range(2 * MAX_ABORTS, 3 * MAX_ABORTS + 1)


def test_a_letter_is_not_too_large_for_a_topic_that_has_not_told_its_limit_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What is passed over never goes out: one answer too few must not shrink what was learnt."""
    played = Played(monkeypatch)
    played.topics.limits.return_value = {"sends.redrive": 3_000_000}
    huge, large = chunk(0), chunk(1)
    huge.values, large.values = [b"x" * 4_000_000], [b"x" * 2_000_000]

    with running(STREAM, LOCAL) as rule:
        wait_for(rule, lambda _: bool(played.begun()))
        played.topics.limits.return_value = {}
        played.reads = [Read(chunks=[huge])]
        wait_for(rule, lambda status: status["passed_over"]["too_large"] == 1)
        played.reads = [Read(chunks=[large])]
        wait_for(rule, lambda status: status["redriven"] == 1)


def test_partitions_that_are_missing_and_not_ours_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    played = Played(monkeypatch)
    played.reads = [Read(), Read(missing=[FOREIGN]), Read(chunks=[chunk(0)])]

    with running(STREAM, LOCAL) as rule:
        wait_for(rule, lambda status: status["redriven"] == 1)

    assert {call.args[0] for call in played.source.begin.call_args_list} == {DEAD}
    assert FOREIGN not in {partition for call in played.source.committed.call_args_list for partition in call.args[0]}


def test_while_it_looks_what_was_sent_again_a_rule_reads_and_sends_nothing_and_can_be_stopped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    played = Played(monkeypatch)
    played.reads = [Read(), Read(chunks=[chunk(0, 1, 2)])]
    played.earlier.step.return_value = False
    played.earlier.tells.side_effect = lambda letter: letter.offset == 1

    with running(STREAM, LOCAL) as rule:
        wait_for(rule, lambda _: played.earlier.step.call_count >= 3)
        reads = played.source.read.call_count
        wait_for(rule, lambda _: played.source.read.call_count > reads + 3)
        before = rule.status()
        played.earlier.step.return_value = True
        wait_for(rule, lambda status: status["redriven"] == 2)

    assert (before["redriven"], before["waiting"]) == (0, 3)
    assert rule.status()["passed_over"] == {"redriven": 1, "too_large": 0}


def test_a_letter_older_than_what_was_looked_at_has_it_looked_at_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """An import writes dead letters with the times that they had."""
    played = Played(monkeypatch)
    older, younger = chunk(2, at_ms=NOW_MS - 1_000), chunk(3, at_ms=NOW_MS + 1)
    played.reads = [Read(), Read(chunks=[chunk(0, 1)]), Read(chunks=[older]), Read(chunks=[younger])]

    with running(STREAM, LOCAL) as rule:
        wait_for(rule, lambda status: status["redriven"] == 4)

    begun = [call.args[0] + CLOCKS_MS for call in played.earlier.begin.call_args_list]
    assert begun == [NOW_MS, NOW_MS - 1_000]


def test_a_rule_looks_for_what_a_machine_sent_again_whose_clock_is_behind_that_of_the_worker() -> None:
    earlier = create_autospec(Earlier, instance=True, is_looking=False)
    part = Part(0, None)
    part.waiting.append(letter(timestamp_ms=NOW_MS))

    Looking(earlier, {DEAD: part}).look(lambda _partition: 1)

    earlier.begin.assert_called_once_with(NOW_MS - CLOCKS_MS)


def test_a_rule_looks_at_all_that_was_sent_again_where_a_dead_letter_has_a_time_that_was_still_to_come() -> None:
    """When it was written nobody knows, and it may have been sent again since."""
    earlier = create_autospec(Earlier, instance=True, is_looking=False)
    part = Part(0, None, ahead={0: NOW_MS - 86_400_000.0})
    part.waiting.append(letter(timestamp_ms=NOW_MS))

    Looking(earlier, {DEAD: part}).look(lambda _partition: 1)

    earlier.begin.assert_called_once_with(0)


def test_what_was_sent_again_is_kept_until_all_that_was_written_by_then_is_dealt_with(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    played = Played(monkeypatch, end=7)
    played.reads = [Read(), Read(chunks=[chunk(0, 1)]), Read(), Read(chunks=[chunk(4)])]
    kept: list[bool] = []

    def tells(letter: Letter) -> bool:
        kept.append(not played.earlier.forget.called)
        return letter.offset == 4

    played.earlier.tells.side_effect = tells
    with running(STREAM, LOCAL) as rule:
        wait_for(rule, lambda status: status["passed_over"]["redriven"] == 1)
        before = played.earlier.forget.called
        played.reads = [Read(chunks=[chunk(6)])]
        wait_for(rule, lambda _: played.earlier.forget.called)

    assert not before
    assert all(kept)


def test_what_comes_after_all_was_forgotten_though_it_was_written_before_is_looked_for_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Markers of transactions at the end are never read, so that a rule that reads nothing any more forgets."""
    monkeypatch.setattr(automatic, "IDLE_SECS", 0.1)
    played = Played(monkeypatch, end=7)
    played.reads = [Read(), Read(chunks=[chunk(0)])]

    with running(STREAM, LOCAL) as rule:
        wait_for(rule, lambda _: played.earlier.forget.called)
        looks = played.earlier.begin.call_count
        played.reads = [Read(chunks=[chunk(5)])]
        wait_for(rule, lambda status: status["redriven"] == 2)

    assert (looks, played.earlier.begin.call_count) == (1, 2)
