"""A stream that stands still reports where, since when and what it waits for; only unknown causes turn health off."""

import asyncio
import math
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, Final, cast

import pytest
from confluent_kafka import KafkaError
from structlog.testing import capture_logs

from connector.app.pages import health_of
from connector.clock import now
from connector.core.admission import Admission
from connector.core.breaker import Hold
from connector.core.chunks import Chunk, Partition
from connector.core.pacing import Pace, Pacer
from connector.core.progress import Progress
from connector.core.verdicts import QUEUED, Verdicts
from connector.core.watchdog import Position
from connector.kafka.errors import KafkaTroubleError
from connector.stream.paces import PaceMonitor
from connector.stream.reader import Reader
from connector.stream.state import KafkaTrouble, State
from connector.stream.watching import Watch
from tests.core.making import A, B, batch, chunk
from tests.kit.patience import PATIENCE_SECS
from tests.stream.making import make_state

LIMIT: Final = 100.0


@dataclass
class _Reading:
    turns: int = 0
    in_group: bool = True
    partitions: Sequence[Partition] = (A,)
    positions: dict[Partition, Position] = field(default_factory=dict)
    has_room: bool = True


class _Watched:
    """A stream's state, whose partitions have 10 records, and its watch; the test sets the time."""

    def __init__(self, *partitions: Partition) -> None:
        self.state = make_state()
        self.reader = _Reading(partitions=partitions)
        for partition in partitions:
            self.state.flow.assign(partition, 1, Progress(0))
            self.reader.positions[partition] = Position(0, 10)
        self.readable: dict[Partition, int | KafkaTroubleError] = dict.fromkeys(partitions, 10)
        self.asked: list[Partition] = []
        self.watch = Watch(
            "sends",
            self.state,
            cast("Reader", self.reader),
            stalled_secs=LIMIT,
            holds=self.state.holds,
            readable_end=self._readable_end,
            ask_secs=1,
        )
        self.at = float(math.ceil(now()))  # a whole number, so that tens of seconds add up exactly

    @property
    def is_alive(self) -> bool:
        """Whether everything that stands still has a known cause."""
        return all(standstill.wait.known for standstill in self.watch.standstills)

    def _readable_end(self, partition: Partition, _timeout_secs: float) -> int:
        self.asked.append(partition)
        end = self.readable[partition]
        if isinstance(end, KafkaTroubleError):
            raise end
        return end

    def read(self, partition: Partition = A, count: int = 10, **names: Any) -> None:
        """Read records that are ready to be posted."""
        piece = chunk(partition, range(count))
        self.state.flow.intake(piece)
        self.state.flow.add_ready([batch(piece, **names)])

    def tick(self) -> list[int]:
        tick = self.state.flow.plan(now=now(), slots=64)
        assert tick is not None
        return [serial for serial, _ in self.state.flow.committed(tick)]

    def pass_secs(self, secs: int) -> None:
        """Let time pass, with a look every ten seconds; queries are answered at once."""
        asyncio.run(self._pass_secs(secs))

    async def _pass_secs(self, secs: int) -> None:
        for _ in range(secs // 10):
            self.at += 10
            self.reader.turns += 1
            self.watch.check(self.at)
            asking = self.watch._asking
            if asking is not None:
                await asking

    def check(self) -> None:
        async def once() -> None:
            self.watch.check(self.at)

        asyncio.run(once())

    def seen(self) -> list[tuple[str | None, str, bool]]:
        return [(s["partition"], s["waits_for"], s["known"]) for s in self.watch.status()]


# ------------------------------------------------------------------ unknown causes


def test_records_that_do_not_come_although_the_leader_has_them() -> None:
    watched = _Watched(A)

    watched.pass_secs(int(LIMIT))
    assert watched.seen() == []
    with capture_logs() as logs:
        watched.pass_secs(30)

    assert watched.seen() == [("alpha:0", "fetch", False)]
    began, unix = watched.watch.standstills[0].since, time.time() - now()
    assert watched.watch.status()[0]["since"] == pytest.approx(unix + began, abs=3)
    assert began == watched.at - LIMIT - 20, "since it was first seen, when nothing of it was known to have moved"
    assert [line["event"] for line in logs] == ["stream stands still"], "told once"
    assert not watched.is_alive
    watched.reader.positions[A] = Position(1, 9)
    watched.pass_secs(10)
    assert watched.seen() == []
    assert watched.is_alive


def test_a_record_that_is_nowhere_to_be_found() -> None:
    """The worst possible fault: read, and neither batched nor settled."""
    watched = _Watched(A)
    watched.state.flow.intake(chunk(A, range(10)))

    watched.pass_secs(int(LIMIT) + 10)

    assert watched.seen() == [("alpha:0", "nothing", False)]


def test_unanswered_requests_and_uncommitted_results_are_named() -> None:
    watched = _Watched(A, B)
    watched.read(A)
    watched.tick()
    watched.read(B, batch_id="other")
    serial = watched.tick()[0]
    watched.state.finish(
        serial,
        watched.state.flow.active[serial].chunks,
        verdicts=Verdicts(QUEUED),
        attempts=1,
        sent_ms=1,
        answered_ms=2,
    )

    watched.pass_secs(int(LIMIT * 1.5))

    assert watched.seen() == [("alpha:0", "post", False), ("beta:1", "tick", False)]


def test_a_batch_that_is_posted_repeatedly_is_at_work() -> None:
    watched = _Watched(A)
    watched.read()
    watched.tick()
    (active,) = watched.state.flow.active.values()
    for attempt in range(8):
        active.attempts = attempt
        watched.pass_secs(90)

        assert watched.seen() == []


def test_a_partition_whose_progress_is_not_taken_over() -> None:
    watched = _Watched()
    watched.reader.partitions = (A,)

    watched.pass_secs(int(LIMIT) + 10)

    assert watched.seen() == [("alpha:0", "progress", False)]


def test_a_reader_that_does_not_come_round() -> None:
    watched = _Watched()
    for _ in range(12):
        watched.pass_secs(10)
        watched.reader.turns = 1

    assert watched.seen() == [(None, "reader", False)]


@pytest.mark.parametrize(
    ("why", "waits_for", "detail"),
    [
        (
            "nothing is known",
            "kafka",
            "it is not in its group: no broker answers, or there is no topic to read",
        ),
        ("trouble", "kafka", "_TRANSPORT: brokers away"),
        ("hold", "hold", "paused"),
    ],
)
def test_a_stream_that_is_out_of_its_group_stands_still_as_a_whole(why: str, waits_for: str, detail: str) -> None:
    """After a session without brokers it has no partitions left that could be seen to stand still."""
    watched = _Watched()
    watched.reader.in_group = False
    if why == "trouble":
        watched.state.kafka_trouble = KafkaTrouble("_TRANSPORT: brokers away", now() + 10_000)
    elif why == "hold":
        watched.state.paused = Hold("paused", 0, "", "operator")

    watched.pass_secs(int(LIMIT) + 10)

    assert watched.seen() == [(None, waits_for, True)]
    assert watched.watch.status()[0]["detail"] == detail
    watched.reader.in_group = True
    watched.pass_secs(10)
    assert watched.seen() == []


def test_batches_that_wait_for_a_request_while_none_is_answered() -> None:
    watched = _Watched(A)
    watched.read()
    for _ in range(20):
        watched.state.counts.requests += 1
        watched.pass_secs(10)
    assert watched.seen() == [("alpha:0", "turn", True)]

    watched.pass_secs(int(LIMIT * 1.5) + 10)

    assert watched.seen() == [("alpha:0", "turn", False)]


# ------------------------------------------------------------------ known causes


@pytest.mark.parametrize("partition_alone", [False, True])
def test_holds_are_known_and_the_clock_restarts_when_they_end(partition_alone: bool) -> None:
    watched = _Watched(A)
    hold = Hold("outage", 0, "HTTP 503", "probe")
    if partition_alone:
        watched.state.partition_holds[A] = hold
    else:
        watched.state.kafka_hold = hold

    with capture_logs() as lines:
        watched.pass_secs(5_000)

    assert watched.seen() == [("alpha:0", "hold", True)]
    assert [s["detail"] for s in watched.watch.status()] == ["outage"]
    assert watched.is_alive
    assert lines == []  # it has lines of its own
    watched.state.partition_holds.clear()
    watched.state.kafka_hold = None
    watched.pass_secs(int(LIMIT) - 10)
    assert watched.seen() == []
    watched.pass_secs(20)
    assert watched.seen() == [("alpha:0", "fetch", False)]


def test_holds_are_checked_once_for_any_number_of_held_partitions() -> None:
    """All of it is done under the lock, once a second."""
    partitions = [Partition("many", number) for number in range(1_000)]
    watched = _Watched(*partitions)
    watched.pass_secs(int(LIMIT))
    for partition in partitions:
        watched.state.hold_partition(partition, "in_doubt", "10 records are in doubt")
    asked, holds = 0, watched.state.holds

    def counting() -> list[Hold]:
        nonlocal asked
        asked += 1
        return holds()

    watched.watch._holds = counting
    watched.pass_secs(10)

    assert watched.seen() == [(f"many:{number}", "hold", True) for number in range(1_000)]
    assert asked == 1


def test_an_open_transaction_of_the_topics_producer_is_named() -> None:
    """The leader says that nothing after what was read may be read, and there are records after it."""
    watched = _Watched(A, B)
    watched.reader.positions = {A: Position(0, 10), B: Position(0, 0)}
    watched.readable = {A: 0, B: 0}

    with capture_logs() as lines:
        watched.pass_secs(int(LIMIT) + 10)
        watched.readable[A] = 10
        watched.reader.positions[A] = Position(10, 0)
        watched.pass_secs(20)

    begun, ended = lines
    assert (begun["log_level"], begun["event"], begun["waits_for"]) == (
        "warning",
        "stream stands still",
        "upstream_transaction_open",
    )
    (told,) = begun["partitions"]
    assert (told["partition"], told["offset"], told["lag"]) == ("alpha:0", 0, 10)
    assert (ended["log_level"], ended["event"]) == ("info", "standstill ended")
    assert LIMIT <= ended["lasted_secs"] < 2 * LIMIT
    assert watched.is_alive
    assert B not in watched.asked


@pytest.mark.parametrize("lag", [10, None], ids=["end known", "end unknown"])
@pytest.mark.parametrize(
    ("code", "known"),
    [
        (KafkaError._TIMED_OUT, True),
        (KafkaError.LEADER_NOT_AVAILABLE, True),
        (KafkaError.UNKNOWN_TOPIC_OR_PART, True),
        (KafkaError.TOPIC_AUTHORIZATION_FAILED, True),
        (KafkaError.INVALID_REQUEST, False),
    ],
)
def test_a_leader_that_cannot_be_asked_is_reported_with_its_error(code: int, known: bool, lag: int | None) -> None:
    watched = _Watched(A)
    watched.reader.positions[A] = Position(0, lag)
    watched.readable[A] = KafkaTroubleError(KafkaError(code))

    watched.pass_secs(int(LIMIT) + 10)

    assert watched.seen() == [("alpha:0", "kafka", known)]
    assert watched.watch.status()[0]["detail"].startswith(KafkaError(code).name())


@pytest.mark.parametrize("code", [KafkaError.COORDINATOR_NOT_AVAILABLE, KafkaError.CONCURRENT_TRANSACTIONS])
def test_ticks_that_wait_for_brokers_are_known_as_long_as_they_say_so(code: int) -> None:
    """The second is the answer while a transaction cannot be ended, for instance with too few replicas in sync."""
    watched = _Watched(A)
    watched.read()
    watched.state.note_trouble(KafkaTroubleError(KafkaError(code)), for_secs=200, why="a broker is missing")
    watched.pass_secs(int(LIMIT) + 10)
    assert watched.seen() == [("alpha:0", "kafka", True)]
    assert watched.watch.status()[0]["detail"].startswith("a broker is missing (")

    watched.pass_secs(250)

    assert watched.seen() == [("alpha:0", "turn", False)]


def test_a_retry_that_waits_for_its_turn_is_known_while_others_are_answered() -> None:
    """Suspects are at most half of the requests in flight, however many retries there are."""
    watched = _Watched(A)
    watched.read()
    (serial,) = watched.tick()
    watched.state.flow.again(watched.state.flow.withdraw(serial), at=watched.at)

    for _ in range(20):
        watched.state.counts.requests += 1
        watched.pass_secs(10)

    assert watched.seen() == [("alpha:0", "retry", True)]


def test_a_pause_of_the_platform_and_a_retry_that_is_due_later_are_known() -> None:
    watched = _Watched(A, B)
    watched.read(A)
    (serial,) = watched.tick()
    watched.state.flow.again(watched.state.flow.withdraw(serial), at=watched.at + 400)
    watched.state.flow.release([B])
    watched.reader.partitions = (A,)
    watched.pass_secs(int(LIMIT) + 10)
    assert watched.seen() == [("alpha:0", "retry", True)]
    watched.state.paused_until = watched.at + 200
    watched.pass_secs(100)
    assert watched.seen() == [("alpha:0", "pause", True)]
    assert watched.watch.status()[0]["detail"] == "the platform asked for a pause of 100 s more"

    watched.pass_secs(600)

    assert watched.seen() == [("alpha:0", "retry", False)]


def test_a_partition_without_room_waits_for_the_one_that_uses_it() -> None:
    watched = _Watched(A, B)
    watched.read(A)
    (serial,) = watched.tick()
    watched.state.flow.again(watched.state.flow.withdraw(serial), at=watched.at + 150)
    watched.reader.has_room = False
    watched.pass_secs(int(LIMIT) + 10)
    assert watched.seen() == [("alpha:0", "retry", True), ("beta:1", "room", True)]

    watched.pass_secs(300)

    assert watched.seen() == [("alpha:0", "retry", False), ("beta:1", "room", False)]


def test_that_leaders_were_not_asked_yet_does_not_explain_why_there_is_no_room() -> None:
    partitions = [Partition("many", number) for number in range(40)]
    watched = _Watched(*partitions)
    watched.pass_secs(40)
    assert 0 < len(watched.asked) < 40, "the others are to be asked next"

    watched.reader.has_room = False
    watched.pass_secs(int(LIMIT) + 10)

    assert {(wait, known) for _, wait, known in watched.seen()} == {("room", False)}


def test_a_record_without_room_in_the_metadata_is_not_waiting_for_its_turn() -> None:
    """The record at the committed offset proceeds in any case: if it does not, that is our own mistake."""
    watched = _Watched(A)
    watched.read()
    watched.state.flow.metadata_room.note(A)
    watched.state.flow.metadata_room.note(A)

    watched.pass_secs(2 * int(LIMIT))

    assert watched.seen() == [("alpha:0", "start", False)]


def test_an_empty_partition_that_nothing_was_fetched_of_yet_does_not_stand_still() -> None:
    watched = _Watched(A)
    watched.reader.positions = {}
    watched.readable[A] = 0

    watched.pass_secs(1_000)

    assert watched.seen() == []
    assert len(watched.asked) > 1


@pytest.mark.parametrize(("readable", "seen"), [(15, [("alpha:0", "fetch", False)]), (5, []), (3, [])])
def test_a_partition_that_nothing_was_fetched_of_stands_still_if_its_leader_has_more_than_was_committed(
    readable: int, seen: list[tuple[str | None, str, bool]]
) -> None:
    """An end below the committed offset is of a topic that was truncated: nothing is left to read."""
    watched = _Watched(A)
    watched.reader.positions = {}
    watched.state.flow.partitions[A].base = 5
    watched.readable[A] = readable

    watched.pass_secs(2 * int(LIMIT))

    assert watched.seen() == seen
    assert [standstill["lag"] for standstill in watched.watch.status()] == [10 for _ in seen]


def test_a_partition_whose_records_are_settled_does_not_stand_still_though_nothing_more_is_fetched() -> None:
    watched = _Watched(A)
    for _ in range(30):
        watched.state.flow.partitions[A].base += 1
        watched.pass_secs(10)

        assert watched.seen() == []


def test_a_partition_about_to_be_given_away_is_not_watched() -> None:
    watched = _Watched(A)
    watched.state.flow.begin_revoke([A])

    watched.pass_secs(1_000)

    assert watched.seen() == []


# ------------------------------------------------------------------ queries and log lines


def test_leaders_are_asked_in_turn_and_not_at_each_look() -> None:
    partitions = [Partition("many", number) for number in range(40)]
    watched = _Watched(*partitions)

    watched.pass_secs(20)
    assert watched.asked == []
    watched.pass_secs(40)

    assert len(watched.asked) >= 40
    assert set(watched.asked[:40]) == set(partitions)
    before = len(watched.asked)
    for _ in range(50):
        watched.check()
    watched.pass_secs(10)
    assert len(watched.asked) <= before + 32
    watched.pass_secs(600)
    often = Counter(watched.asked).values()
    assert max(often) - min(often) <= 1, "each has its turn again"


def test_leaders_are_not_asked_again_before_they_have_answered() -> None:
    """Calls to a broker that hangs would pile up."""
    watched = _Watched(A)

    async def look_on() -> None:
        for _ in range(int(LIMIT)):
            watched.at += 10
            watched.watch.check(watched.at)
        assert watched.watch._asking is not None
        await watched.watch._asking

    asyncio.run(look_on())

    assert watched.asked == [A]


def test_an_error_of_ours_while_a_leader_is_asked_is_raised() -> None:
    """It ends the stream, visibly: in a task that nobody awaits it would be lost."""
    watched = _Watched(A)
    watched.readable.clear()

    async def look_on() -> None:
        for _ in range(int(LIMIT)):
            watched.at += 10
            watched.watch.check(watched.at)
            if watched.watch._asking is not None:
                await asyncio.wait([watched.watch._asking])

    with pytest.raises(KeyError):
        asyncio.run(look_on())


@pytest.mark.parametrize("count", [40, 300, 1_000])
def test_partitions_whose_leaders_were_not_asked_yet_leave_health_green(count: int) -> None:
    """One open transaction may span more partitions than are queried before the time is up."""
    partitions = [Partition("many", number) for number in range(count)]
    watched = _Watched(*partitions)
    watched.readable = dict.fromkeys(partitions, 0)

    red = 0
    for _ in range(100):
        watched.pass_secs(10)
        red += not watched.is_alive

    assert red == 0
    assert {wait for _, wait, _ in watched.seen()} == {"upstream_transaction_open"}


def test_a_partition_that_is_not_fetched_is_found_among_many_that_wait_for_what_is_known() -> None:
    partitions = [Partition("many", number) for number in range(100)]
    watched = _Watched(*partitions)
    watched.readable = {**dict.fromkeys(partitions, 0), partitions[-1]: 10}

    watched.pass_secs(3 * int(LIMIT))

    assert not watched.is_alive
    assert ("many:99", "fetch", False) in watched.seen()


def test_each_reason_is_told_once_and_as_an_error_if_anything_of_it_is_unknown() -> None:
    watched = _Watched(A, B)
    watched.state.note_trouble(KafkaTroubleError(KafkaError(KafkaError._TRANSPORT)), for_secs=10_000, why="away")
    with capture_logs() as first:
        watched.pass_secs(int(LIMIT) + 10)
    watched.state.kafka_trouble = None
    watched.readable[A] = KafkaTroubleError(KafkaError(KafkaError._TIMED_OUT))
    watched.readable[B] = KafkaTroubleError(KafkaError(KafkaError.INVALID_REQUEST))
    watched.reader.positions = {A: Position(1, 9), B: Position(1, 9)}
    watched.pass_secs(10)
    with capture_logs() as second:
        watched.pass_secs(int(LIMIT))
        watched.state.flow.intake(chunk(B, range(10)))
        watched.pass_secs(int(LIMIT) + 10)

    told = [[(line["log_level"], line["waits_for"], line["count"]) for line in lines] for lines in (first, second)]
    assert told == [[("warning", "kafka", 2)], [("error", "kafka", 2), ("error", "nothing", 1)]]


def test_health_names_the_stream_the_place_and_what_it_waits_for() -> None:
    watched = _Watched(A)
    watched.pass_secs(int(LIMIT) + 10)
    sound = SimpleNamespace(name="sound", standstills=list)
    stuck = SimpleNamespace(name="stuck", standstills=watched.watch.status)

    alive, told = health_of(cast("Any", SimpleNamespace(streams=[sound, stuck])))

    assert not alive
    assert told["status"] == "stalled"
    (found,) = told["standstills"]
    assert {name: found[name] for name in ("stream", "partition", "offset", "lag", "waits_for")} == {
        "stream": "stuck",
        "partition": "alpha:0",
        "offset": 0,
        "lag": 10,
        "waits_for": "fetch",
    }
    assert health_of(cast("Any", SimpleNamespace(streams=[sound]))) == (True, {"status": "alive"})


def test_a_watch_looks_again_and_again_until_it_ends_and_then_has_seen_nothing_and_asks_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A stream that drains or has failed is not reported as standing still as well, and its consumer is closed."""
    watched, asked, answered = _Watched(A, B), threading.Event(), threading.Event()
    ask = watched.watch._readable_end

    def slowly(partition: Partition, secs: float) -> int:
        if len(watched.asked) == 2:  # both were asked before
            asked.set()
            assert answered.wait(PATIENCE_SECS)
        return ask(partition, secs)

    async def until_next(_secs: float) -> None:
        watched.at += 10
        watched.reader.turns += 1
        await asyncio.sleep(0.001)

    async def run() -> None:
        running = asyncio.get_running_loop().create_task(watched.watch.run())
        assert await asyncio.to_thread(asked.wait, PATIENCE_SECS)
        while not watched.watch.status():  # noqa: ASYNC110 (nothing is set when it stands still)
            await asyncio.sleep(0.001)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        answered.set()
        assert watched.watch._asking is not None
        await asyncio.wait([watched.watch._asking])

    monkeypatch.setattr("connector.stream.watching.until_next", until_next)
    monkeypatch.setattr("connector.stream.watching.now", lambda: watched.at)
    watched.watch._readable_end = slowly
    assert watched.watch.status() == []

    asyncio.run(run())

    assert watched.watch.status() == []
    assert len(watched.asked) == 3, "the one that was being asked, and none after it"


# ------------------------------------------------------------------ lists that wait for their pace


@pytest.mark.parametrize("per_minute", [0.5, 2, 60])
def test_a_record_that_waits_for_the_pace_of_its_list_is_known_to_until_its_time_is_long_past(
    per_minute: float,
) -> None:
    """Nothing lets a list proceed here, as with a mistake of ours."""
    watched = _Watched(A)
    pacer = _pace(watched.state, Pace(per_minute))
    piece = chunk(A, range(10))
    watched.state.flow.intake(piece)
    watched.state.admission.take([("+18005551234", chunk(B, range(5)))], now=watched.at)
    watched.state.admission.take([("+18005551234", piece)], now=watched.at)
    due, began = pacer.waits_until(lambda _: True), watched.at
    assert due is not None

    known: list[bool] = []
    while watched.is_alive:
        watched.pass_secs(10)
        known += [is_known for _, waits_for, is_known in watched.seen() if waits_for == "pace"]

    long_past = max(due + LIMIT / 2, began)
    assert watched.at == pytest.approx(long_past + LIMIT, abs=10), "a look is every ten seconds"
    assert known == [*[True] * (len(known) - 1), False]


def test_a_record_waits_for_the_pace_of_its_own_list() -> None:
    """Others of its partition, and of other partitions at the same offset, may wait for lists that are slower."""
    watched = _Watched(A, B)
    slow, fast = "+18005550001", "+18005550002"
    _pace(watched.state, Pace(60, {slow: 0.01}))
    watched.state.flow.intake(chunk(A, range(10)))
    watched.state.flow.intake(chunk(B, range(10)))
    goes_at_once = [(B, range(90, 95), number) for number in (slow, fast)]
    for partition, offsets, number in [
        *goes_at_once,
        (B, range(10), slow),
        (A, range(5, 10), slow),
        (A, range(5), fast),
    ]:
        watched.state.admission.take([(number, _listed(partition, offsets, number))], now=watched.at)

    watched.pass_secs(2 * int(LIMIT) + 10)

    assert watched.seen() == [("alpha:0", "pace", False), ("beta:1", "pace", True)]


def _listed(partition: Partition, offsets: Sequence[int], number: str) -> Chunk:
    piece = chunk(partition, offsets)
    piece.lists = [number] * len(offsets)
    return piece


def test_a_list_that_the_platform_would_not_wait_for_is_reported_once_masked() -> None:
    """600 records a minute, 20,000 of them: 33 minutes."""
    watched = _Watched(A)
    pacer = _pace(watched.state, Pace(600))
    watched.state.flow.intake(chunk(A, range(20_000)))
    book = PaceMonitor("sends", watched.state)
    assert book.status() == {
        "share": 1.0,
        "waiting_records": 0,
        "backlog_secs": 0.0,
        "lists_waiting": 0,
        "lists": [],
    }
    watched.state.admission.take([("+18005551234", chunk(A, range(20_000)))], now=now())

    with capture_logs() as logs:
        book.check()
        book.check()
        pacer.pace = Pace(6_000)
        book.check()

    assert [(line["event"], line["log_level"]) for line in logs] == [
        ("list falls behind its pace", "warning"),
        ("list keeps its pace again", "info"),
    ]
    told = book.status()
    assert told is not None
    assert told["lists"] == [{"list": "+1800***1234", "waiting_records": 19_950, "backlog_secs": told["backlog_secs"]}]
    assert 199 < told["backlog_secs"] < 205


def test_a_stream_without_a_pace_reports_none() -> None:
    book = PaceMonitor("sends", _Watched(A).state)

    book.check()

    assert book.status() is None


def _pace(state: State, pace: Pace) -> Pacer:
    pacer = Pacer(pace, max_lot=1_000)
    state.admission = Admission(state.batcher, pacer=pacer)
    return pacer


def test_a_partition_that_is_full_for_a_while_is_reported_once_and_so_is_its_end() -> None:
    """One record that is settled makes room for a moment: that is not the end."""
    watched = _Watched(A, B)
    flow = watched.state.flow
    with capture_logs() as logs:
        for full_secs, free_secs in ((30, 80), (100, 20), (100, 80)):
            flow.metadata_room.full.add(A)
            watched.pass_secs(full_secs)
            flow.metadata_room.full.clear()
            watched.pass_secs(free_secs)

    told = [(entry["event"], entry["partition"]) for entry in logs if "full" in entry["event"]]
    assert told == [("partition full", str(A)), ("partition not full", str(A))]
