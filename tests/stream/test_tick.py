"""The thread that ticks, with a producer that fails as librdkafka's was seen to: a mock stands for librdkafka alone."""

import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any
from unittest.mock import create_autospec

import pytest
from confluent_kafka import KafkaError
from structlog.testing import capture_logs

from connector.core.batching import Batch
from connector.core.breaker import Hold
from connector.core.chunks import Headers, Partition
from connector.core.records import Scribe
from connector.core.results import Finished
from connector.core.verdicts import QUEUED, Verdicts
from connector.kafka.errors import AbortableError, KafkaTroubleError, RetriableError
from connector.kafka.publisher import Offsets
from connector.kafka.source import Committed, Source
from connector.kafka.topics import Outputs
from connector.stream.tick import Ticker, TickOptions
from tests.kit.sending import PARTITION, Bench


class Producer:
    """A producer of transactions; `fails` is what each of its commits ends with."""

    def __init__(self, fails: KafkaTroubleError | None = None) -> None:
        self.fails = fails
        self.written: list[str] = []
        self.committed: list[str] = []
        self.offsets: Offsets = {}
        self.closed = False

    def start(self, timeout_secs: float) -> None:
        pass

    def begin(self) -> None:
        self.written = []

    def write_batch(
        self,
        topic: str,
        partition: int,
        values: Sequence[str],
        keys: Sequence[bytes | None] | None,
        headers: Headers | None = None,
    ) -> None:
        self.written += values

    def write(self, topic: str, partition: int, *, key: bytes | None, value: bytes | None, headers: Headers) -> None:
        self.written.append(topic)

    def flush(self, timeout_secs: float) -> bool:
        return True

    def commit(self, offsets: Offsets, group: Any, timeout_secs: float) -> None:
        self.offsets = self.offsets or offsets
        if self.fails is not None:
            raise self.fails
        self.committed += self.written

    def abort(self, timeout_secs: float) -> None:
        pass

    def close(self) -> None:
        self.closed = True


def _timed_out() -> AbortableError:
    return AbortableError(KafkaError(KafkaError._TIMED_OUT, "Failed to add offsets to transaction"))


def _expired() -> AbortableError:
    return AbortableError(KafkaError(KafkaError._MSG_TIMED_OUT))


def _too_large() -> AbortableError:
    return AbortableError(KafkaError(KafkaError.MSG_SIZE_TOO_LARGE))


def _unknown() -> RetriableError:
    return RetriableError(KafkaError(KafkaError._TIMED_OUT, "Timed out waiting for operation to finish"))


def _refused() -> AbortableError:
    return AbortableError(KafkaError(KafkaError.ILLEGAL_GENERATION, "Specified group generation id is not valid"))


def _silent_outputs() -> Any:
    """Return topics of which nobody answers what they take."""
    outputs = create_autospec(Outputs, instance=True, dead_letter_limit=1_000_000)
    outputs.outcome_topic, outputs.dead_letter_topic = "outcomes", "dead"
    outputs.results_bytes = 1_000_000
    outputs.absent.return_value = set()
    outputs.refresh.side_effect = RetriableError(KafkaError(KafkaError._TIMED_OUT))
    return outputs


def _ticker(
    bench: Bench,
    producers: list[Producer],
    source: Any,
    *,
    outputs: Outputs | None = None,
    post: Callable[[list[tuple[int, Batch]], float], None] = lambda posted, listed_at: None,
    settled: Callable[[list[Finished], int], None] = lambda items, at_ms: None,
    fail: Callable[[BaseException], None],
) -> Ticker:
    made = iter(producers)
    return Ticker(
        bench.state,
        source,
        lambda: next(made),
        outputs=outputs or _silent_outputs(),
        scribe=Scribe("bench", "send", "group", failures_only=False),
        options=TickOptions(0.001, 0.1, 1.0),
        post=post,
        settled=settled,
        fail=fail,
    )


def _run(
    producers: list[Producer], *, committed: Committed | None = None, outputs: Outputs | None = None
) -> list[KafkaTroubleError]:
    """Run ticks over one malformed record until its dead letter is written; return what ended the stream.

    `committed` is what the group tells of its partition when it is asked; that is what the tick was to commit unless
    given.
    """
    bench, done = Bench(), threading.Event()
    source = create_autospec(Source, instance=True)

    def told(_partitions: object, _secs: float) -> dict[Partition, Committed]:
        last = next(producer.offsets for producer in producers if producer.offsets)
        return {PARTITION: committed or Committed(*last[PARTITION])}

    source.committed.side_effect = told
    failed: list[Any] = []

    def settled(items: list[Finished], at_ms: int) -> None:
        done.set()

    def fail(error: BaseException) -> None:
        failed.append(error)
        done.set()

    ticker = _ticker(bench, producers, source, outputs=outputs, settled=settled, fail=fail)
    bench.read([b"{"])
    ticker.start()
    assert done.wait(30)
    ticker.stop(30)
    return failed


@pytest.mark.parametrize(
    ("error", "replaced"), [(_timed_out, True), (_expired, True), (_refused, False), (_too_large, False)]
)
def test_a_producer_that_gets_no_answer_is_replaced(error: Callable[[], AbortableError], replaced: bool) -> None:
    """It may have lost its coordinator for good; one that was answered, however badly, is kept.

    What the topics take is looked up after some of that: that nobody tells it must not end the stream.
    """
    first, second = Producer(error()), Producer()
    if not replaced:
        first.abort = lambda timeout_secs: setattr(first, "fails", None)  # type: ignore[method-assign] # heals it

    assert _run([first, second]) == []

    heir = second if replaced else first
    assert (heir.committed, first.closed) == (["dead"], True)
    assert second.closed is replaced


@pytest.mark.parametrize("code", [KafkaError.INVALID_RECORD, KafkaError.INVALID_TIMESTAMP])
def test_a_topic_that_takes_no_such_results_holds_the_stream_until_it_does(code: int) -> None:
    """As one that is compacted and gets an outcome without a key: nothing more is posted, and somebody is told."""
    first, told = Producer(AbortableError(KafkaError(code))), []
    bench, done = Bench(), threading.Event()

    def hold(hold: Hold) -> None:
        told.append(hold.reason)
        first.fails = None

    bench.state.on_hold = hold
    ticker = _ticker(
        bench,
        [first],
        create_autospec(Source, instance=True),
        settled=lambda _items, _at_ms: done.set(),
        fail=lambda _error: done.set(),
    )
    bench.read([b"{"])
    ticker.start()
    assert done.wait(30)
    ticker.stop(30)

    assert (told, first.committed) == (["results_refused"], ["dead"])
    assert bench.state.kafka_hold is None


@pytest.mark.parametrize("took_effect", [True, False])
def test_a_commit_that_is_never_answered_is_known_by_what_the_next_producer_finds(took_effect: bool) -> None:
    """Nothing is written twice, and nothing is left out, however it was decided."""
    first, second = Producer(_unknown()), Producer()

    assert _run([first, second], committed=None if took_effect else Committed(0, "")) == []

    assert first.closed
    assert second.committed == ([] if took_effect else ["dead"])


def test_what_topics_take_that_were_gone_is_looked_up_before_anything_is_written() -> None:
    done: list[str] = []
    outputs, producer = _silent_outputs(), Producer()
    outputs.catch_up.side_effect = lambda *, now: done.append("looked up")
    producer.begin = lambda: done.append("begun")  # type: ignore[method-assign]

    assert _run([producer], outputs=outputs) == []

    assert done[:2] == ["looked up", "begun"]


def test_a_producer_is_told_as_replaced_once_the_next_one_has_taken_over() -> None:
    """While brokers are away it takes any time, and the end may come first."""
    late = Producer()
    late.start = lambda timeout_secs: (_ for _ in ()).throw(_unknown())  # type: ignore[method-assign]

    with capture_logs() as logs:
        assert _run([Producer(_expired()), late, Producer()]) == []

    told = [(entry["event"], entry["code"]) for entry in logs if entry["event"].startswith("producer")]
    assert told == [("producer not ready yet", "_TIMED_OUT"), ("producer replaced", "_MSG_TIMED_OUT")]


class Slow(Producer):
    """One whose brokers get no more than five records done in the time of a call."""

    def commit(self, offsets: Offsets, group: Any, timeout_secs: float) -> None:
        self.fails = _timed_out() if len(self.written) > 5 else None
        super().commit(offsets, group, timeout_secs)


def test_what_is_too_much_for_slow_brokers_is_written_in_ever_smaller_ticks() -> None:
    """Down to a batch: else nothing would ever be written, and every tick would begin with a new producer."""
    bench, written, done = Bench(), 0, threading.Event()
    bench.state.flow.limits = replace(bench.state.flow.limits, max_tick_records=40)
    failed: list[BaseException] = []

    def settled(items: list[Finished], _at_ms: int) -> None:
        nonlocal written
        written += sum(item.count for item in items)
        if written == 40:
            done.set()

    for _ in range(40):
        bench.read([b"{"])
    producers: list[Producer] = [Slow() for _ in range(50)]
    ticker = _ticker(bench, producers, create_autospec(Source, instance=True), settled=settled, fail=failed.append)
    ticker.start()

    assert done.wait(30)
    ticker.stop(30)
    assert failed == []


def test_a_producer_is_replaced_when_the_topics_take_larger_batches_again() -> None:
    """Its batches stay as they were made; nobody tells it that somebody has put a limit right."""
    bench, done = Bench(), threading.Event()
    outputs, first, second = _silent_outputs(), Producer(), Producer()
    outputs.results_bytes = 76

    def put_right(*, now: float) -> None:
        outputs.results_bytes = 1_000_000

    outputs.catch_up.side_effect = put_right
    failed: list[BaseException] = []
    ticker = _ticker(
        bench,
        [first, second],
        create_autospec(Source, instance=True),
        outputs=outputs,
        settled=lambda items, at_ms: done.set(),
        fail=failed.append,
    )
    bench.read([b"{"])
    ticker.start()

    assert done.wait(30)
    ticker.stop(30)
    assert (first.closed, first.committed, second.committed, failed) == (True, [], ["dead"], [])
    assert bench.state.counts.producers_replaced == 1


@pytest.mark.parametrize(
    ("batches", "most_records", "first", "next_"), [(10, 999, 8, 2), (9, 999, 8, 1), (6, 20, 4, 2)]
)
def test_where_more_is_ready_than_may_start_it_is_chosen_when_results_have_arrived(
    batches: int, most_records: int, first: int, next_: int
) -> None:
    """What is listed takes up a slot and waits for the commit: so an answer that comes meanwhile makes room for it.

    Eight batches of five may be under way. Where there is room for all that is ready, the tick does not wait.
    """
    bench, producer, posted = Bench(), Producer(), queue.SimpleQueue[list[tuple[int, Batch]]]()
    bench.state.flow.limits = replace(bench.state.flow.limits, max_in_flight_records=most_records)
    failed: list[BaseException] = []

    def answer() -> bool:
        serial, batch = under_way.pop()
        with bench.state.changed:
            bench.state.finish(serial, batch.chunks, Verdicts(QUEUED), attempts=1, sent_ms=1, answered_ms=2)
            bench.state.changed.notify_all()
        return True

    producer.flush = lambda timeout_secs: answer()  # type: ignore[method-assign]
    ticker = _ticker(
        bench,
        [producer],
        create_autospec(Source, instance=True),
        post=lambda listed, _at: posted.put(listed),
        fail=failed.append,
    )
    bench.read([b'{"to":"+18005550100","body":"hello"}'] * 5 * batches)
    ticker.start()
    under_way = posted.get(timeout=30)
    assert len(under_way) == first
    answer()

    assert len(posted.get(timeout=30)) == next_
    ticker.stop(30)
    assert failed == []
