"""A stream that is stopped before it has started, or while brokers are unreachable."""

import asyncio
import threading
import time
from collections.abc import Iterator
from unittest.mock import create_autospec

import pytest

from connector.clock import now
from connector.core.progress import Progress
from connector.core.verdicts import QUEUED, Verdicts
from connector.kafka.source import Read, Source
from connector.kafka.targets import Outputs
from connector.stream.beginning import BeginOptions
from connector.stream.preparing import Preparer
from connector.stream.reader import Reader, ReadOptions, _Assigned
from connector.stream.sender import Sender
from connector.stream.stream import Stream
from connector.stream.tick import Ticker
from tests.kit.patience import PATIENCE_SECS
from tests.kit.sending import PARTITION, Bench
from tests.stream.making import ids, make_stream, settings_of

SETTINGS = settings_of("early")


def test_a_stream_that_is_stopped_while_it_starts_never_joins_its_group(monkeypatch: pytest.MonkeyPatch) -> None:
    """Starting takes calls to brokers: meanwhile others are drained, and with the last of them the process ends."""
    asked, answered = threading.Event(), threading.Event()

    def refresh() -> None:
        asked.set()
        assert answered.wait(PATIENCE_SECS)

    outputs, sources = create_autospec(Outputs), create_autospec(Source)
    outputs.return_value.refresh.side_effect = refresh
    monkeypatch.setattr("connector.stream.stream.Outputs", outputs)
    monkeypatch.setattr("connector.stream.stream.Source", sources)

    async def run() -> bool:
        stream = make_stream(SETTINGS, "early-0", lambda error: pytest.fail(str(error)))
        starting = asyncio.ensure_future(stream.start())
        assert await asyncio.to_thread(asked.wait, PATIENCE_SECS)
        clean = await stream.stop(time.monotonic() + PATIENCE_SECS)
        answered.set()
        await starting
        return clean

    assert asyncio.run(run())
    assert not sources.called
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("early")]


@pytest.fixture
def cut_off() -> Iterator[Stream]:
    """Create a stream whose only batch is listed and answered; brokers are unreachable, so no result is written."""
    bench, failed = Bench(), list[BaseException]()
    state = bench.state
    state.flow.release([PARTITION])
    begin = BeginOptions((PARTITION.topic,), "group", "earliest", "hold", "dead_letter", 1.0)
    options, preparer = ReadOptions(begin, 1_000_000, 1.0, 6.0), Preparer(state, bench.operation, name="early")
    reader = Reader(state, preparer, options, name="early", fail=failed.append, ask_ids=ids())

    def read(*_: object) -> Read:
        time.sleep(0.01)
        return Read()

    source, ticker = create_autospec(Source, instance=True), create_autospec(Ticker, instance=True)
    source.read.side_effect = read
    source.generation = 0
    source.is_silent, source.known_end.return_value, ticker.names.return_value = False, None, False
    with state.lock:
        reader._assigned[PARTITION] = _Assigned(1, "dead_letter", is_looked_up=True, has_begun=True)
        state.flow.assign(PARTITION, 1, Progress(0))
        bench.read([b'{"to":"+15550000001","body":"x"}'] * 5)
        tick = state.flow.plan(now=now(), slots=1)
        assert tick is not None
        ((serial, batch),) = state.flow.committed(tick)
        state.finish(serial, batch.chunks, Verdicts(QUEUED), attempts=1, sent_ms=1, answered_ms=2)
    stream = make_stream(SETTINGS, "early-0", lambda error: pytest.fail(str(error)))
    stream.state, stream._reader, stream._ticker = state, reader, ticker
    stream._sender = create_autospec(Sender, instance=True)
    reader.start(source, ticker)
    yield stream
    reader.close(10)
    assert failed == []


def test_a_stop_says_that_records_are_in_doubt_whose_results_could_not_be_written(cut_off: Stream) -> None:
    """They are listed as in flight: the next owner of their partition cannot know that they were answered."""
    clean = asyncio.run(cut_off.stop(now() + 0.1))

    assert not clean


def test_a_stop_says_that_records_are_in_doubt_whose_partitions_were_lost_before(cut_off: Stream) -> None:
    """A consumer that reaches no broker for a session has no partitions left when the stop comes."""
    assert cut_off._reader is not None
    cut_off._reader.lost([PARTITION])

    clean = asyncio.run(cut_off.stop(now() + 0.1))

    assert not clean


def test_partitions_that_were_lost_are_another_matter_once_the_group_has_been_joined_again(cut_off: Stream) -> None:
    assert cut_off._reader is not None
    cut_off._reader.lost([PARTITION])
    cut_off._reader.assigned([])

    assert asyncio.run(cut_off.stop(now() + 0.1))


def test_what_looks_at_a_stream_does_not_end_in_silence() -> None:
    """Without it nobody would notice a standstill, or partitions without an owner."""
    told: list[str] = []

    async def run() -> Stream:
        stream = make_stream(SETTINGS, "early-0", lambda error: told.append(str(error)))
        stream._loop = asyncio.get_running_loop()
        stream._loop.set_exception_handler(lambda _loop, context: told.append(context["message"]))
        stream._begin(asyncio.sleep(0, None))
        cancelled = stream._begin(asyncio.sleep(30, None))
        cancelled.cancel()
        await asyncio.wait([cancelled])
        assert stream.failed is None

        async def look() -> None:
            raise ValueError("a bug")

        await asyncio.wait([stream._begin(look())])
        await asyncio.sleep(0.01)
        return stream

    stream = asyncio.run(run())
    assert (str(stream.failed), stream.state_name, told) == ("a bug", "failed", ["a bug"])
