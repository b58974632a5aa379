"""What an operator decides about a stream, how it stops, and how it fails."""

import asyncio
from dataclasses import fields
from types import SimpleNamespace
from typing import Any, Final, cast
from unittest.mock import Mock

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from connector.clock import now
from connector.core.breaker import Hold
from connector.core.chunks import Partition
from connector.core.progress import Progress
from connector.core.ranges import RangeSet
from connector.core.verdicts import QUEUED, Verdicts
from connector.stream.holds import CHOICES, Decision, HoldMonitor, HoldSeen
from connector.stream.preparing import Preparer
from connector.stream.reader import Reader
from connector.stream.sender import Sender
from connector.stream.stream import Stream
from connector.stream.tick import Ticker
from connector.stream.troubles import Troubles
from connector.stream.watching import Watch
from tests.core.making import A, B, C, batch, chunk
from tests.kit.patience import PATIENCE_SECS
from tests.kit.world import KEY
from tests.stream.making import make_stream, settings_of

SETTINGS: Final = settings_of("sends")
REASONS: Final = [*CHOICES, "records_missing"]
BY_PROBE: Final = {"kafka": "topic_missing", "outage": "unauthorized", "refused": "kafka_authorization"}


def _stream(failed: list[BaseException] | None = None) -> tuple[Stream, Any]:
    """Return a stream that has started, and its reader, ticker and sender, which do nothing."""
    stream = make_stream(SETTINGS, "worker-0", ([] if failed is None else failed).append)
    reader = Mock(spec=Reader, left=0, lag=None, in_group=True, partitions=[])
    reader.troubles = Mock(spec=Troubles, refused=None)
    stream._reader, stream.state_name = reader, "running"
    stream._ticker, stream._sender = Mock(spec=Ticker), Mock(spec=Sender)
    stream._preparer = Mock(spec=Preparer)
    return stream, reader


@given(
    of_stream=st.sets(st.sampled_from(["paused", "storm", *BY_PROBE])),
    of_partitions=st.dictionaries(st.sampled_from([A, B, C]), st.sampled_from(REASONS)),
    about=st.frozensets(st.sampled_from([A, B, C])),
    choices=st.fixed_dictionaries({}, optional={reason: st.just(CHOICES[reason][0]) for reason in CHOICES}),
)
def test_a_decision_ends_all_holds_that_it_is_about_or_changes_nothing_if_one_of_them_needs_another_decision(
    of_stream: set[str], of_partitions: dict[Partition, str], about: frozenset[Partition], choices: dict[str, Any]
) -> None:
    """A decision about partitions leaves the stream's own holds; a hold that ends by a probe is probed at once."""
    stream, reader = _stream()
    state, decision = stream.state, Decision(about, **choices)
    if "refused" in of_stream:
        reader.troubles.refused = Hold("kafka_authorization", now(), "", "probe")
    with state.changed:
        if "outage" in of_stream:
            state.gate.refused(1, "unauthorized", now=now(), detail="")
        if "storm" in of_stream:
            state.storms["a"] = Hold("storm:a", now(), "", "operator")
            state.gate.stop("storm:a", now=now(), detail="")
        if "kafka" in of_stream:
            state.kafka_hold = Hold("topic_missing", now(), "", "probe")
        if "paused" in of_stream:
            stream.pause("paused by a")
        for partition, reason in of_partitions.items():
            state.hold_partition(partition, reason, "")
    before = stream._holds_seen()
    wanted = {seen for seen in before if not about or seen.partition in about}
    undecided = {seen for seen in wanted if seen.hold.reason in CHOICES.keys() - choices.keys()}

    resumed = stream.resume(decision)

    assert set(resumed.undecided) == undecided
    assert set(resumed.not_held) == about - of_partitions.keys()
    if undecided:
        assert (resumed.ended, resumed.probed, stream._holds_seen()) == ((), (), before)
        assert not reader.resume.called
        return
    assert set(resumed.ended) == {seen for seen in wanted if seen.hold.ends == "operator"}
    assert set(resumed.probed) == wanted - set(resumed.ended)
    decided = {partition: decision for partition in of_partitions if not about or partition in about}
    reader.resume.assert_called_once_with(decided)
    left = {seen.hold.reason for seen in stream._holds_seen() if seen.partition is None}
    if about:
        assert left == {seen.hold.reason for seen in before if seen.partition is None}
    else:
        assert left == {reason for what, reason in BY_PROBE.items() if what in of_stream}
        assert state.gate.probe_due(now=now()) is ("outage" in of_stream)
        assert reader.troubles.ask_at_once.called
        assert cast("Mock", stream._preparer).try_at_once.called


def test_a_decision_has_a_field_for_each_choice_that_is_offered() -> None:
    assert {field.name for field in fields(Decision)} == {"partitions", *CHOICES}


@pytest.mark.parametrize(("in_flight", "state_name", "ends_as"), [(0, "running", "stopped"), (3, "failed", "failed")])
def test_a_stream_that_stops_drains_then_writes_its_results_then_leaves_its_group_then_gives_up_requests(
    in_flight: int, state_name: str, ends_as: str
) -> None:
    """Results need the membership, and requests that are answered by then have theirs written."""
    stream, reader = _stream()
    stream.state_name, order, seen = state_name, list[str](), list[str]()
    stream.state.flow.assign(A, 1, Progress(0, in_flight=RangeSet([(5, 5 + in_flight)] if in_flight else [])))
    reader.left = in_flight  # of other partitions

    def note(step: str) -> Any:
        def called(*_: object) -> None:
            order.append(step)
            seen.append(stream.state_name)

        return called

    ports: list[tuple[Any, str, str]] = [
        (reader, "drain", "drain"),
        (reader, "wait_drained", "drained"),
        (stream._ticker, "stop", "write"),
        (reader, "close", "leave"),
        (stream._sender, "close", "give up"),
    ]
    for port, call, step in ports:
        getattr(port, call).side_effect = note(step)

    async def run() -> bool:
        stream._loop = asyncio.get_running_loop()
        watching = stream._begin(asyncio.sleep(PATIENCE_SECS, None))
        stream._watching = [watching]
        stream._monitoring = stream._begin(asyncio.sleep(PATIENCE_SECS, None))
        clean = await stream.stop(now() + PATIENCE_SECS)
        await asyncio.wait([watching, stream._monitoring])
        assert watching.cancelled()
        assert stream._monitoring.cancelled()
        return clean

    assert asyncio.run(run()) is (in_flight == 0)
    assert order == ["drain", "drained", "write", "leave", "give up"]
    assert set(seen) == {"failed" if ends_as == "failed" else "draining"}
    assert (stream.state_name, stream.failed) == (ends_as, None)


def test_a_stream_fails_once_is_reported_once_and_leaves_its_partitions_to_others() -> None:
    told = list[BaseException]()
    stream, reader = _stream(told)
    began = now()
    errors = [ValueError(f"bug {number}, for +15550000001 with {KEY}") for number in range(2)]

    async def run() -> None:
        stream._loop = asyncio.get_running_loop()
        for error in errors:
            await asyncio.to_thread(stream._fail, error)
        while not reader.close.called:  # noqa: ASYNC110 (a mock sets no event)
            await asyncio.sleep(0.001)

    with capture_logs() as logs:
        asyncio.run(run())

    assert (told, stream.failed) == (errors[:1], errors[0])
    assert reader.drain.call_args.args[0] >= began + 1, "what is in flight has a second"
    assert [entry["event"] for entry in logs].count("stream failed") == 1
    assert (stream.state.slots(now()), stream.state.may_read, stream.is_ready, stream.is_held()) == (
        0,
        False,
        False,
        True,
    )
    shown = stream.status()["error"]
    assert shown.startswith("ValueError: bug 0")
    assert "+15550000001" not in shown
    assert KEY not in shown


def test_a_hold_is_an_error_in_the_log_and_a_pause_which_somebody_asked_for_is_not() -> None:
    seen = [HoldSeen(Hold(reason, now(), "", "operator")) for reason in ("paused", "unauthorized")]

    with capture_logs() as logs:
        HoldMonitor("sends", "http://localhost:8080", Mock()).check(seen)

    assert [(line["reason"], line["log_level"]) for line in logs] == [("paused", "info"), ("unauthorized", "error")]


def test_a_hold_is_shown_with_the_stream_while_it_runs_and_the_first_one_is_that_of_the_stream() -> None:
    stream, reader = _stream()
    reader.lag = 5
    stream.state.flow.assign(A, 1, Progress(0))
    assert (stream.status()["state"], stream.status()["hold"], stream.is_held()) == ("running", None, False)

    with stream.state.changed:
        stream.state.hold_partition(A, "in_doubt", "")
        stream.pause("paused by a")

    status = stream.status()
    assert (status["state"], stream.is_ready, stream.is_held()) == ("on_hold", True, True)
    assert [(hold["reason"], hold["partition"]) for hold in status["holds"]] == [("paused", None), ("in_doubt", str(A))]
    assert status["hold"] == status["holds"][0]
    assert stream.holds() == [seen.hold for seen in stream._holds_seen()]
    assert HoldSeen(stream.state.partition_holds[A], A) in stream._holds_seen()
    assert status["lag"] == 5
    reader.in_group = False
    assert not stream.is_ready
    stream.state_name = "draining"
    assert stream.status()["state"] == "draining"


def test_the_oldest_record_without_a_result_is_the_oldest_that_was_read_or_what_stands_still_for_longer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Alerts depend on it: it falls to 0 only when everything that was read has its result."""
    (stream, _), unix, at = _stream(), 1_800_000_000.0, 1_000.0
    state, watch = stream.state, Mock(spec=Watch)
    watch.status.return_value, stream._watch = [], watch
    monkeypatch.setattr("connector.stream.stream.time", SimpleNamespace(time=lambda: unix))

    def age() -> float:
        return stream.status()["oldest_unsettled_secs"]  # type: ignore[no-any-return] # ready for JSON

    for partition, secs in ((A, 100), (B, 50)):
        state.flow.assign(partition, 1, Progress(0))
        piece = chunk(partition, range(5))
        piece.oldest_ms = int((unix - secs) * 1_000)
        state.flow.intake(piece)
        state.flow.add_ready([batch(piece)])
    assert age() == 100
    watch.status.return_value = [{"since": unix - 200}, {"since": unix - 20}]
    assert age() == 200
    watch.status.return_value = []
    ages = []
    while (tick := state.flow.plan(now=at, slots=1)) is not None:
        for serial, posted in state.flow.committed(tick):
            state.finish(serial, posted.chunks, Verdicts(QUEUED), attempts=1, sent_ms=1, answered_ms=2)
        ages.append(age())
    assert ages == [100, 50, 0]
    watch.status.return_value = [{"since": unix + 1}]
    assert age() == 0, "clocks may be set"


def test_records_in_doubt_are_those_with_a_dead_letter_and_those_that_wait_for_a_decision(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stream, _ = _stream()
    monkeypatch.setattr("connector.stream.stream.now", lambda: 100.0)
    for partition, listed in ((A, 3), (B, 4)):
        stream.state.flow.assign(partition, 1, Progress(0, in_flight=RangeSet([(10, 10 + listed)])))
    stream.state.counts.dead_letters["in_doubt"] = 5
    stream.state.paused_until = 107.5

    status = stream.status()

    assert (status["in_doubt"], status["open_doubt"], status["paused_secs"]) == (12, 7, 7.5)
    assert [each["in_doubt"] for each in status["partitions"].values()] == [3, 4]
    stream.state.paused_until = 99.0
    assert stream.status()["paused_secs"] == 0
