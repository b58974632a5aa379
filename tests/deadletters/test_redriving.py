"""A plan that is carried out: each record once, within what was asked for, and with what was left still to be done."""

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

import pytest
from confluent_kafka import KafkaError
from hypothesis import given
from hypothesis import strategies as st

from connector.config.kafka import KafkaSettings
from connector.core.chunks import Chunk, Headers, Partition
from connector.core.ranges import Range, RangeSet
from connector.deadletters import redriving
from connector.deadletters.deciding import Action, Actions, Rules
from connector.deadletters.progressing import Place, place_at, read_place
from connector.deadletters.redriving import LANES, MAX_RECORDS, OVERTAKEN_SECS, Order, Pace, carry_out
from connector.kafka.commits import Committed
from connector.kafka.errors import AbortableError
from connector.kafka.publisher import Offsets
from connector.kafka.topics import TopicFacts
from tests.deadletters.making import SETTINGS, FakeClock, headers_of

SELECTION = "0123456789abcdef"
PARTITIONS = LANES + 1
STOP = 6
"""The end of each partition of dead letters."""
STEP = 2
"""Records of a partition that are read together."""
TARGET = TopicFacts(3, 1_000_000)


class KilledError(Exception):
    """The redrive was killed."""


@dataclass(frozen=True)
class Sent:
    """A record that was written."""

    topic: str
    partition: int
    key: bytes | None
    value: bytes | None
    headers: Headers


@dataclass
class Cluster:
    """Dead letters, whose keys are their positions, and what redrives have written and committed."""

    value: bytes | None = b"{}"
    large: int = -1
    """The offset whose value is large in each partition."""
    committed: dict[Partition, Committed] = field(default_factory=dict)
    transactions: list[list[Sent]] = field(default_factory=list)
    writers: set[int] = field(default_factory=set)
    """The threads that have written."""
    clients: int = 0
    """Those that are not closed."""
    commits: int | None = None
    """How many there are before the redrive is killed."""

    @property
    def sent(self) -> list[Sent]:
        return [sent for transaction in self.transactions for sent in transaction]

    def done(self, number: int) -> tuple[int, list[Range]]:
        """Return below which offset all is dealt with in a partition, and the ranges above."""
        there = self.committed.get(Partition("dead", number), Committed(None, ""))
        base, settled = read_place(there.offset, there.metadata).done
        return base, list(settled)

    def read(self, partition: Partition, start: int, stop: int) -> Iterator[list[Chunk]]:
        for at in range(start, stop, STEP):
            offsets = range(at, min(at + STEP, stop))
            yield [
                Chunk(
                    partition,
                    0,
                    offsets,
                    [b"x" * 10_000 if offset == self.large else self.value for offset in offsets],
                    keys=[key(partition.number, offset) for offset in offsets],
                    headers=[headers_of("in_doubt", partition=7, offset=offset) for offset in offsets],
                    timestamps=[0] * len(offsets),
                )
            ]


def key(number: int, offset: int) -> bytes:
    return b"%d:%d" % (number, offset)


class Publishing:
    """A transactional producer: what is not committed was never written."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._cluster.clients += 1
        self._has_started = False
        self._open: list[Sent] | None = None

    def start(self, _secs: float) -> None:
        self._has_started = True

    def close(self) -> None:
        self._cluster.clients -= 1

    def begin(self) -> None:
        assert self._has_started
        assert self._open is None
        self._open = []

    def write(self, topic: str, partition: int, *, key: bytes | None, value: bytes | None, headers: Headers) -> None:
        assert self._open is not None
        self._cluster.writers.add(threading.get_ident())
        self._open.append(Sent(topic, partition, key, value, headers))

    def commit(self, offsets: Offsets, _group: object, _secs: float) -> None:
        assert self._open is not None
        if self._cluster.commits is not None:
            if not self._cluster.commits:
                raise KilledError
            self._cluster.commits -= 1
        self._cluster.transactions.append(self._open)
        self._cluster.committed.update({p: Committed(*there) for p, there in offsets.items()})
        self._open = None

    def abort(self, _secs: float) -> None:
        assert self._open is not None
        self._open = None


class Scanning:
    """A scanner of the dead letters."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._cluster.clients += 1

    def committed(self, spans: Iterable[Partition]) -> dict[Partition, Committed]:
        return {p: self._cluster.committed.get(p, Committed(None, "")) for p in spans}

    def steps(self, reach: Mapping[Partition, Range]) -> Iterator[list[Chunk]]:
        for partition, (start, stop) in reach.items():
            yield from self._cluster.read(partition, start, stop)

    def membership(self) -> None: ...

    def close(self) -> None:
        self._cluster.clients -= 1


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    made = Cluster()
    monkeypatch.setattr(redriving, "TransactionalPublisher", lambda _config, _topic: Publishing(made))
    monkeypatch.setattr(redriving, "Scanner", lambda _config, _secs: Scanning(made))
    yield made
    assert made.clients == 0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    made = FakeClock()
    monkeypatch.setattr(redriving, "time", made)
    return made


def ordered(
    wanted: Mapping[int, Iterable[int]], *, action: Action = "redrive", leave: Iterable[Range] = (), **more: Any
) -> Order:
    """Return the order to do something with the dead letters at these offsets, by partition, and to leave others."""
    spans = {Partition("dead", number): (0, STOP) for number in range(PARTITIONS)}
    actions = {
        Partition("dead", number): Actions(dict.fromkeys(offsets, action), RangeSet(leave))
        for number, offsets in wanted.items()
    }
    kafka, rules = KafkaSettings(bootstrap_servers="nowhere:1"), Rules({}, to="target")
    return replace(Order(kafka, "name", SELECTION, rules, spans, actions, {"target": TARGET}), **more)


def untold(_count: int) -> None: ...


EVERYWHERE: Final = {number: {1, 2, 4} for number in range(PARTITIONS)}


@pytest.mark.parametrize("limit", [1, 2, 4, 7, 100])
def test_runs_with_a_limit_write_each_record_once_in_the_end_and_none_more_than_it_may(
    cluster: Cluster, limit: int
) -> None:
    left = sum(map(len, EVERYWHERE.values()))
    told: list[int] = []

    while left:
        written = carry_out(ordered(EVERYWHERE, limit=limit), told.append).total
        assert written == min(limit, left)
        left -= written

    assert carry_out(ordered(EVERYWHERE, limit=limit), told.append).total == 0
    assert Counter(sent.key for sent in cluster.sent) == {
        key(number, offset): 1 for number, offsets in EVERYWHERE.items() for offset in offsets
    }
    assert sum(told) == len(cluster.sent)
    assert [cluster.done(number) for number in range(PARTITIONS)] == [(STOP, [])] * PARTITIONS


def test_what_is_left_is_still_to_be_dealt_with_and_nothing_else(cluster: Cluster) -> None:
    left = {0: {1, 4, 5}}
    first = ordered(left, leave=[(0, 1), (2, 4)], limit=2)

    carry_out(first, untold)
    under_way = cluster.done(0)
    carry_out(replace(first, limit=None), untold)

    assert under_way == (0, [(1, 2), (4, 5)])
    assert cluster.done(0) == (0, [(1, 2), (4, 6)])
    assert cluster.done(1) == (STOP, []), "where nothing was planned, there is nothing to be done"


@pytest.mark.parametrize("leave", [[], [(0, 1), (3, 4)]], ids=["nothing left", "some left"])
def test_a_redrive_that_is_killed_after_any_commit_continues_and_writes_each_record_once(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, leave: list[Range]
) -> None:
    monkeypatch.setattr(redriving, "MAX_BYTES", 1)
    order, kills = ordered(EVERYWHERE, leave=leave), 0

    cluster.commits = 1
    for _ in range(100):
        try:
            carry_out(order, untold)
            break
        except KilledError:
            kills, cluster.commits = kills + 1, 1

    assert Counter(sent.key for sent in cluster.sent) == {
        key(number, offset): 1 for number, offsets in EVERYWHERE.items() for offset in offsets
    }
    assert kills >= len(cluster.sent) / STEP - 1
    assert [cluster.done(0), cluster.done(3)] == [(0, [(1, 3), (4, STOP)]) if leave else (STOP, [])] * 2


def test_what_nothing_is_planned_for_is_dealt_with_as_far_as_it_was_read(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise a redrive that is killed would look at it again."""
    monkeypatch.setattr(redriving, "MAX_BYTES", 1)
    cluster.commits = 1

    with pytest.raises(KilledError):
        carry_out(ordered({0: {0, 4}}, limit=2), untold)

    assert cluster.done(0) == (STEP, [])


def test_a_process_that_is_to_stop_commits_nothing_more(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its redrive was interrupted, or failed in another process."""
    monkeypatch.setattr(redriving, "is_stopped", lambda: True)

    assert carry_out(ordered({0: {1}}), untold).total == 0
    assert (cluster.sent, cluster.done(0)) == ([], (0, []))


def test_what_is_too_large_for_its_topic_is_left_counted_and_written_once_it_fits(cluster: Cluster) -> None:
    cluster.large = 1

    refused = carry_out(ordered(EVERYWHERE, targets={"target": TopicFacts(3, 10_000)}), untold)
    accepted = carry_out(ordered(EVERYWHERE), untold)

    assert (refused.total, refused.too_large) == (2 * PARTITIONS, PARTITIONS)
    assert (accepted.total, accepted.too_large) == (PARTITIONS, 0)
    assert Counter(sent.key for sent in cluster.sent) == {
        key(number, offset): 1 for number, offsets in EVERYWHERE.items() for offset in offsets
    }


def test_a_record_without_a_value_is_sent_without_one(cluster: Cluster) -> None:
    cluster.value = None

    carry_out(ordered({0: {1}}), untold)

    assert [(sent.key, sent.value) for sent in cluster.sent] == [(key(0, 1), None)]


def test_a_record_is_sent_by_its_origin_and_parked_by_its_place(cluster: Cluster) -> None:
    """What has one key in one partition of the source stays in one partition of the redrive topic."""
    parking: dict[str, Any] = {"targets": {"dead.parking": TopicFacts(2, 1_000_000)}, "note": "why"}

    carry_out(ordered({3: {1}}), untold)
    cluster.committed.clear()
    carry_out(ordered({3: {1}}, action="park", rules=Rules({}), **parking), untold)

    sent, parked = cluster.sent
    assert (sent.topic, sent.partition, sent.key, sent.value) == ("target", 7 % 3, key(3, 1), b"{}")
    assert (parked.topic, parked.partition, parked.key, parked.value) == ("dead.parking", 3 % 2, key(3, 1), b"{}")
    assert dict(parked.headers)["trackly.parked_note"] == b"why"


def test_what_was_accepted_is_settled_by_an_outcome_in_the_partition_of_its_origin(cluster: Cluster) -> None:
    streams = SETTINGS.streams_by_name
    outcomes = streams["sends"].outcomes.topic

    written = carry_out(
        ordered({3: {1}}, action="accept", rules=Rules(streams), targets={outcomes: TopicFacts(4, 1_000_000)}), untold
    )

    [sent] = cluster.sent
    outcome = json.loads(sent.value or b"")
    assert written.by_action == {"accept": 1}
    assert (sent.topic, sent.partition, sent.key, sent.headers) == (outcomes, 7 % 4, key(3, 1), [])
    assert (outcome["source"], outcome["stream"], outcome["topic"], outcome["offset"]) == (
        "evidence",
        "sends",
        "sms",
        1,
    )


def test_a_transaction_has_no_more_records_or_bytes_than_one_may(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise it could take longer than brokers let one be open."""
    everything = {number: range(STOP) for number in range(PARTITIONS)}
    monkeypatch.setattr(redriving, "MAX_RECORDS", 3)
    carry_out(ordered(everything), untold)
    by_count = max(map(len, cluster.transactions))

    cluster.transactions.clear()
    cluster.committed.clear()
    monkeypatch.setattr(redriving, "MAX_RECORDS", MAX_RECORDS)
    monkeypatch.setattr(redriving, "MAX_BYTES", 2_000)
    cluster.value = b"x" * 700
    carry_out(ordered(everything), untold)
    by_bytes = max(map(len, cluster.transactions))

    assert (by_count, by_bytes) == (3, 2)


class Failing(Publishing):
    """A producer whose commits fail from the second one on."""

    def commit(self, offsets: Offsets, _group: object, _secs: float) -> None:
        if self._cluster.transactions:
            raise AbortableError(KafkaError(KafkaError.UNKNOWN, "EndTxn commit failed"))
        super().commit(offsets, _group, _secs)


@pytest.mark.parametrize(
    ("after_secs", "fenced"), [(None, False), (0.0, True), (OVERTAKEN_SECS - 1, True), (OVERTAKEN_SECS + 1, False)]
)
def test_a_commit_that_fails_after_others_is_a_takeover_if_somebody_commits_soon(
    cluster: Cluster, clock: FakeClock, monkeypatch: pytest.MonkeyPatch, after_secs: float | None, *, fenced: bool
) -> None:
    """The later redrive, which has ended this one's transaction, needs a moment to commit its first."""
    begun, partition = clock.now, Partition("dead", 0)

    class Overtaken(Scanning):
        def committed(self, spans: Iterable[Partition]) -> dict[Partition, Committed]:
            found = super().committed(spans)
            is_taken = after_secs is not None and clock.now >= begun + after_secs
            if partition in found and cluster.transactions and is_taken:
                found[partition] = Committed(*place_at(Place(), STOP - 1, RangeSet(), SELECTION))
            return found

    monkeypatch.setattr(redriving, "Scanner", lambda _config, _secs: Overtaken(cluster))
    monkeypatch.setattr(redriving, "TransactionalPublisher", lambda _config, _topic: Failing(cluster))
    monkeypatch.setattr(redriving, "MAX_BYTES", 1)

    with pytest.raises(AbortableError) as caught:
        carry_out(ordered({0: {0, 2, 4}}, limit=3), untold)

    assert (caught.value.fenced, len(cluster.sent)) == (fenced, 1)


def test_a_commit_that_is_known_to_be_fenced_needs_no_further_look(
    cluster: Cluster, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Fenced(Publishing):
        def commit(self, _offsets: Offsets, _group: object, _secs: float) -> None:
            raise AbortableError(KafkaError(KafkaError.PRODUCER_FENCED))

    monkeypatch.setattr(redriving, "TransactionalPublisher", lambda _config, _topic: Fenced(cluster))
    begun = clock.now

    with pytest.raises(AbortableError) as caught:
        carry_out(ordered({0: {0}}, limit=1), untold)

    assert (caught.value.fenced, clock.now) == (True, begun)


@pytest.mark.parametrize("rate", [0.5, 10.0, 40.0])
def test_a_rate_is_kept_to_over_all_that_is_written(cluster: Cluster, clock: FakeClock, rate: float) -> None:
    begun = clock.now

    written = carry_out(ordered(EVERYWHERE, rate=rate), untold)

    assert written.total == len(cluster.sent) == 3 * PARTITIONS
    assert clock.now - begun == pytest.approx(written.total / rate)
    assert max(map(len, cluster.transactions)) == max(1, int(rate * redriving.PACE_SECS))
    assert cluster.writers == {threading.get_ident()}, "lanes that share a rate take turns"


def test_with_a_rate_and_nothing_to_write_progress_is_committed_at_once(cluster: Cluster, clock: FakeClock) -> None:
    begun = clock.now

    assert carry_out(ordered({}, rate=1.0), untold).total == 0
    assert (clock.now, cluster.done(0), cluster.sent) == (begun, (STOP, []), [])


@given(st.floats(0.1, 1e9), st.lists(st.tuples(st.integers(0, 50), st.floats(0.0, 3.0)), max_size=9))
def test_a_pace_waits_as_long_as_the_rate_asks_for_and_no_longer(rate: float, turns: list[tuple[int, float]]) -> None:
    clock, pace = FakeClock(), Pace(rate)
    with pytest.MonkeyPatch.context() as patches:
        patches.setattr(redriving, "time", clock)
        clock.sleep(5.0)
        begun, written = clock.now, 0
        for count, took in turns:
            pace.begin()
            clock.sleep(took)
            due, written = clock.now, written + count
            pace.wait(count)
            assert clock.now == pytest.approx(max(due, begun + written / rate))

    assert pace.quota == min(max(int(rate * redriving.PACE_SECS), 1), MAX_RECORDS)


@pytest.mark.parametrize(
    ("processors", "alone", "more", "processes"),
    [
        (2, 0, {}, 2),
        (2 * LANES, 3 * PARTITIONS - 1, {}, LANES),
        (2, 3 * PARTITIONS, {}, 0),
        (1, 0, {}, 0),
        (2, 0, {"limit": 100}, 0),
        (2, 0, {"rate": 1e6}, 0),
    ],
    ids=["two", "lanes", "few records", "one", "limit", "rate"],
)
def test_other_processes_share_the_lanes_if_that_is_worth_it_and_these_share_no_limit_or_rate(
    cluster: Cluster, processors: int, alone: int, more: dict[str, Any], processes: int
) -> None:
    tasks: list[Callable[[], redriving.Written]] = []

    def elsewhere(_kafka: KafkaSettings, given: Iterable[Callable[[], redriving.Written]], _told: object) -> Any:
        own = list(given)
        tasks.extend(own)
        return [task() for task in own]

    cluster.value = b"x" * 10_000
    with pytest.MonkeyPatch.context() as patches:
        patches.setattr(redriving, "elsewhere", elsewhere)
        patches.setattr(redriving, "tell", untold)
        patches.setattr(redriving, "processors", lambda: processors)
        patches.setattr(redriving, "ALONE", alone)
        refused = carry_out(ordered(EVERYWHERE, targets={"target": TopicFacts(3, 10_000)}, **more), untold)
        written = carry_out(ordered(EVERYWHERE, **more), untold)

    assert len(tasks) == 2 * processes
    assert (refused.total, refused.too_large) == (0, 3 * PARTITIONS)
    assert (written.total, written.too_large) == (3 * PARTITIONS, 0)
    assert Counter(sent.key for sent in cluster.sent) == {
        key(number, offset): 1 for number, offsets in EVERYWHERE.items() for offset in offsets
    }
