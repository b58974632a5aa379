"""Progress that is rebuilt from results: where each partition starts, what is in doubt, and what is refused."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final
from zlib import crc32

import pytest
from confluent_kafka import KafkaError

from connector.config.settings import Settings
from connector.core.chunks import Chunk, Partition
from connector.core.progress import Progress, encode
from connector.core.ranges import Range
from connector.deadletters import rebuilding
from connector.deadletters.letters import CLOCKS_MS
from connector.deadletters.rebuilding import Asked, NotRebuiltError, Planned, Rebuild
from connector.deadletters.working import Job, R, Spans
from connector.kafka.commits import Committed
from connector.kafka.errors import KafkaTroubleError
from connector.kafka.scanning import until_aborted
from tests.deadletters.making import NOW_MS, SETTINGS, STREAM, FakeClock

SMS: Final = Partition("sms", 0)
REDRIVE: Final = Partition("sends.redrive", 0)
OUTCOMES: Final = Partition("sms.outcomes", 0)
SECOND_MS: Final = 1_000
"""Between two records of a topic."""


@dataclass
class Cluster:
    """Topics with a record a second, a group's commits, and results by offset of their source."""

    ends: dict[Partition, Range]
    results: dict[Partition, list[int]] = field(default_factory=dict)
    """The offsets of each partition that have an outcome, written as they were produced."""
    commits: dict[Partition, Committed] = field(default_factory=dict)
    cut: int | None = None
    open_until: float = 0.0
    """When the transaction ends that hides an outcome."""
    members: list[str] = field(default_factory=list)
    clock: FakeClock = field(default_factory=FakeClock)

    def require(self, _topic: str) -> None: ...

    def names(self) -> list[str]:
        return sorted({partition.topic for partition in self.ends})

    def compacted(self, _names: object) -> set[str]:
        return set()

    def spans_of(self, topic: str) -> dict[Partition, Range]:
        return {partition: span for partition, span in self.ends.items() if partition.topic == topic}

    def committed(self, partitions: Iterable[Partition], *, within_secs: float) -> dict[Partition, Committed]:
        assert within_secs == until_aborted(SETTINGS.kafka)
        return {partition: self.commits.get(partition, Committed(None, "")) for partition in partitions}

    def offset_at(self, partition: Partition, time_ms: int) -> int:
        low, high = self.ends[partition]
        return next((offset for offset in range(low, high) if produced_ms(offset) >= time_ms), 1 << 62)

    def first_ms(self, _partition: Partition, span: Range) -> int | None:
        return produced_ms(span[0])

    def cut_ms(self, _ends: object) -> int | None:
        return self.cut

    def written_ends(self, topic: str) -> dict[Partition, int]:
        return {partition: stop for partition, (_, stop) in self.spans_of(topic).items()}

    def visible(self, topic: str) -> dict[Partition, Range]:
        hidden = topic == OUTCOMES.topic and self.clock.now < self.open_until
        return {partition: (low, stop - hidden) for partition, (low, stop) in self.spans_of(topic).items()}

    def work(self, spans: Spans, job: Job[R], _what: str, /) -> Iterator[R]:
        """Read each partition as a piece of its own."""
        for partition, (start, stop) in spans.items():
            values: list[bytes | None] = [b""] * (stop - start)
            times = [produced_ms(offset) for offset in range(start, stop)]
            offsets = range(start, stop)
            if partition == OUTCOMES:
                told = [(place, offset) for place, those in self.results.items() for offset in those]
                values = [outcome(place, offset) for place, offset in told]
                times, offsets = [produced_ms(offset) for _, offset in told], range(len(told))
            yield job(iter([Chunk(partition, 0, offsets, values, timestamps=times)]))


class Scanning:
    """A scanner of a cluster."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cluster, name)

    def ends(self, topic: str) -> dict[Partition, Range]:
        return self._cluster.visible(topic)


def produced_ms(offset: int) -> int:
    return NOW_MS + offset * SECOND_MS


def outcome(place: Partition, offset: int) -> bytes:
    told = f'"stream":"sends","operation":"send","topic":"{place.topic}","partition":{place.number},"offset":{offset}'
    return f'{{"version":1,"status":"queued",{told}}}'.encode()


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """Make a cluster with 200 records, of which those below 100 have a result, except for one."""
    made = Cluster({SMS: (0, 200), OUTCOMES: (0, 300)}, {SMS: [offset for offset in range(100) if offset != 90]})

    @contextmanager
    def scanning(*_: object, **__: object) -> Iterator[Scanning]:
        yield Scanning(made)

    def set_offsets(_config: object, _group: str, offsets: Mapping[Partition, tuple[int, str]], _secs: float) -> None:
        made.commits.update({partition: Committed(*there) for partition, there in offsets.items()})

    monkeypatch.setattr(rebuilding, "scanning", scanning)
    monkeypatch.setattr(rebuilding, "topics_of", lambda _settings: made)
    monkeypatch.setattr(rebuilding, "members", lambda *_: made.members)
    monkeypatch.setattr(rebuilding, "set_offsets", set_offsets)
    monkeypatch.setattr(rebuilding, "time", made.clock)
    return made


def rebuild(cluster: Cluster, *, stream: Mapping[str, Any] | None = None, **asked: Any) -> Rebuild:
    settings = SETTINGS
    if stream is not None:
        settings = Settings.model_validate({**SETTINGS.model_dump(), "streams": [{**STREAM, **stream}]})
    return Rebuild(settings, settings.streams[0], Asked(**asked), cluster.work)


def planned(cluster: Cluster, **told: Any) -> dict[Partition, Planned]:
    return rebuild(cluster, **told).plan()


@pytest.mark.parametrize(
    ("asked", "in_flight", "unread"),
    [
        ({}, [(90, 91), (100, 200)], 0),
        ({"clean": True}, [], 100),
        ({"stopped_ms": produced_ms(130) - CLOCKS_MS}, [(90, 91), (100, 130)], 70),
        ({"stopped_ms": produced_ms(130) - CLOCKS_MS + 1}, [(90, 91), (100, 131)], 69),
        ({"stopped_ms": produced_ms(99) - CLOCKS_MS}, [(90, 91)], 100),
        ({"stopped_ms": produced_ms(500)}, [(90, 91), (100, 200)], 0),
    ],
    ids=["unknown", "cleanly", "at a time", "a moment later", "before the last result", "after all"],
)
def test_what_has_no_result_is_in_doubt_up_to_the_time_when_the_last_worker_stopped(
    cluster: Cluster, asked: dict[str, Any], in_flight: list[Range], unread: int
) -> None:
    """Clocks may differ by a minute, so that long after it as well."""
    plan = planned(cluster, **asked)[SMS]

    assert (plan.progress.base, list(plan.progress.settled), list(plan.progress.in_flight)) == (
        90,
        [(91, 100)],
        in_flight,
    )
    assert plan.as_json() == {
        "commit": 90,
        "results": 99,
        "done_above": 9,
        "without_result_between": 1,
        "in_doubt_behind": 100 - unread,
        "unread": unread,
    }


def test_a_partition_begins_where_the_stream_did_unless_it_came_later_or_is_its_own(cluster: Cluster) -> None:
    """Commits that Kafka still has tell how many partitions there were when the group began."""
    others = {Partition("sms", number): (0, 200) for number in (1, 2, 3)}
    cluster.ends |= {**others, REDRIVE: (0, 200), Partition("other", 0): (0, 9)}
    cluster.commits[Partition("sms", 1)] = Committed(5, encode(Progress(5, birth=3)))
    cluster.commits[Partition("sms", 2)] = Committed(5, "made by a tool")

    plan = planned(cluster, stream={"start": "2026-01-31T08:01:30Z"}, clean=True)

    assert list(plan) == [REDRIVE, SMS, Partition("sms", 3)]
    assert [there.progress.base for there in plan.values()] == [0, 90, 0]
    assert [there.progress.birth for there in plan.values()] == [1, 3, 3]


@pytest.mark.parametrize(("since_ms", "base"), [(0, 20), (produced_ms(50), 50), (produced_ms(900), 200)])
def test_what_was_produced_before_a_given_time_is_dealt_with_in_each_partition(
    cluster: Cluster, since_ms: int, base: int
) -> None:
    cluster.ends |= {SMS: (20, 200), REDRIVE: (20, 200)}
    cluster.results[REDRIVE] = [199]

    plan = planned(cluster, since_ms=since_ms, clean=True, stream={"start": "latest"})

    assert plan[REDRIVE].progress.base == base


@pytest.mark.parametrize(("cut", "unsure"), [(150, 51), (100, 1), (99, 1), (91, 1), (90, 0)])
def test_results_that_were_removed_may_have_been_of_records_that_are_as_old(
    cluster: Cluster, cut: int, unsure: int
) -> None:
    """What was produced later has no result that was removed."""
    cluster.cut = produced_ms(cut) - CLOCKS_MS
    if not unsure:
        assert planned(cluster)[SMS].progress.base == 90
        return

    with pytest.raises(NotRebuiltError, match=f"^sms:0: {unsure} offsets have no result"):
        planned(cluster)


@pytest.mark.parametrize("is_known", [False, True])
def test_open_transactions_are_waited_for_as_long_as_brokers_need_to_end_them(
    cluster: Cluster, *, is_known: bool
) -> None:
    patience = until_aborted(SETTINGS.kafka)
    cluster.open_until = patience - 1 if is_known else patience + 5

    if is_known:
        assert planned(cluster)
    else:
        with pytest.raises(NotRebuiltError, match=r"sms\.outcomes:0: an open transaction hides results"):
            planned(cluster)
    assert patience - 1 <= cluster.clock.now <= patience + 1


@pytest.mark.parametrize("code", [KafkaError.COORDINATOR_NOT_AVAILABLE, KafkaError.GROUP_AUTHORIZATION_FAILED])
def test_a_coordinator_that_is_not_there_yet_is_waited_for_and_other_trouble_is_not(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def members(*_: object) -> list[str]:
        if cluster.clock.now < 3 or code == KafkaError.GROUP_AUTHORIZATION_FAILED:
            raise KafkaTroubleError(KafkaError(code))
        return []

    monkeypatch.setattr(rebuilding, "members", members)

    if code == KafkaError.COORDINATOR_NOT_AVAILABLE:
        assert planned(cluster)
        assert cluster.clock.now >= 3
    else:
        with pytest.raises(KafkaTroubleError):
            planned(cluster)
        assert cluster.clock.now == 0


def test_a_coordinator_that_never_comes_is_given_up(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    def members(*_: object) -> list[str]:
        raise KafkaTroubleError(KafkaError(KafkaError.COORDINATOR_NOT_AVAILABLE))

    monkeypatch.setattr(rebuilding, "members", members)

    with pytest.raises(KafkaTroubleError):
        planned(cluster)
    assert cluster.clock.now == pytest.approx(until_aborted(SETTINGS.kafka), abs=1)


def test_a_plan_is_committed_unless_a_worker_has_come_since(cluster: Cluster) -> None:
    made = rebuild(cluster)
    plan = made.plan()

    cluster.members = ["worker"]
    with pytest.raises(NotRebuiltError, match="has 1 members"):
        made.commit(plan)
    assert cluster.commits == {}

    cluster.members = []
    made.commit(plan)
    assert cluster.commits == {SMS: Committed(90, plan[SMS].metadata)}

    with pytest.raises(NotRebuiltError, match="sms:0: a worker has started since"):
        made.commit(plan)


@pytest.mark.parametrize(
    ("stream", "asked", "words"),
    [
        ({"outcomes": {"topic": "sms.outcomes", "records": "failures"}}, {}, "outcomes.records is failures"),
        ({"start": "latest"}, {}, "start is latest"),
        ({}, {"stopped_ms": produced_ms(99) - CLOCKS_MS - 1}, "later than --stopped-at"),
        ({"name": "renamed"}, {}, "streams that are not in the settings have results of these records: sends"),
    ],
)
def test_what_results_cannot_tell_is_refused(
    cluster: Cluster, stream: dict[str, Any], asked: dict[str, Any], words: str
) -> None:
    with pytest.raises(NotRebuiltError, match=words):
        planned(cluster, stream=stream, **asked)


def test_without_any_result_the_stream_is_new(cluster: Cluster) -> None:
    cluster.results.clear()

    with pytest.raises(NotRebuiltError, match="the stream is new as far as Kafka and its results can tell"):
        planned(cluster)


def test_where_each_partition_with_records_has_a_commit_there_is_nothing_to_rebuild(cluster: Cluster) -> None:
    cluster.commits[SMS] = Committed(1, "")
    cluster.ends[REDRIVE] = (5, 5)

    with pytest.raises(NotRebuiltError, match="there is nothing to rebuild"):
        planned(cluster)


@pytest.mark.parametrize(
    ("end", "older_ms", "is_other"),
    [(100, 0, False), (99, 0, True), (200, CLOCKS_MS, False), (200, CLOCKS_MS + 1, True)],
)
def test_a_result_behind_the_end_or_from_before_the_first_record_is_of_an_earlier_topic(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, end: int, older_ms: int, *, is_other: bool
) -> None:
    cluster.ends[SMS] = (0, end)
    monkeypatch.setattr(Cluster, "first_ms", lambda _self, _partition, _span: NOW_MS + older_ms)

    if is_other:
        with pytest.raises(NotRebuiltError, match=r"sms:0: .*: the topic was recreated"):
            planned(cluster)
    else:
        assert planned(cluster)[SMS].progress.base == 90


def test_results_that_are_too_scattered_for_a_commit_are_refused_with_what_helps(cluster: Cluster) -> None:
    cluster.ends[SMS] = (0, 60_000)
    cluster.results[SMS] = [offset for offset in range(60_000) if crc32(b"%d" % offset) % 3]

    with pytest.raises(NotRebuiltError, match="results are so scattered"):
        planned(cluster)
