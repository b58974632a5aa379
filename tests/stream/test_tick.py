"""The ticker's thread, with a producer that fails as librdkafka's was seen to: only librdkafka is mocked."""

import json
import queue
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, Literal, cast, get_args
from unittest.mock import create_autospec

import pytest
from confluent_kafka import KafkaError
from hypothesis import example, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from connector.clock import awake, now
from connector.core.batching import Batch
from connector.core.chunks import Headers, Partition
from connector.core.progress import Progress, decode
from connector.core.ranges import RangeSet, runs
from connector.core.records import ResultEncoder
from connector.core.results import Finished
from connector.core.verdicts import QUEUED, SKIPPED, Verdict, Verdicts
from connector.kafka.commits import Committed
from connector.kafka.errors import AbortableError, FatalError, KafkaTroubleError, RetriableError
from connector.kafka.publisher import Offsets, Publisher
from connector.kafka.source import Source
from connector.kafka.targets import Outputs
from connector.stream.tick import REFUSED_IN_A_ROW, Ticker, TickOptions
from tests.kit.patience import PATIENCE_SECS
from tests.kit.sending import PARTITION, Bench

OF_ANOTHER = Partition("another", 0)


class Producer(Publisher):
    """A transactional producer; `fails` is the result of each commit."""

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

    def write(
        self,
        topic: str,
        partition: int,
        *,
        key: bytes | None,
        value: bytes | None,
        headers: Headers,
        timestamp_ms: int = 0,
    ) -> None:
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


def _full() -> AbortableError:
    return AbortableError("librdkafka's queue stays full")


def _fenced() -> FatalError:
    return FatalError(KafkaError(KafkaError._FENCED))


def _silent_outputs() -> Any:
    """Return topics whose limits nobody answers for."""
    outputs = create_autospec(Outputs, instance=True, dead_letter_limit=1_000_000)
    outputs.outcome_topic, outputs.dead_letter_topic = "outcomes", "dead"
    outputs.results_bytes = 1_000_000
    outputs.absent.return_value = set()
    outputs.under_min_isr.return_value = ""
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
    options: TickOptions = TickOptions(0.001, 0.1, 1.0),  # noqa: B008 (frozen)
    fail: Callable[[BaseException], None],
) -> Ticker:
    made = iter(producers)
    return Ticker(
        bench.state,
        source,
        lambda: next(made),
        outputs=outputs or _silent_outputs(),
        encoder=ResultEncoder("bench", "send", "group", failures_only=False),
        options=options,
        post=post,
        settled=settled,
        fail=fail,
    )


def _run(
    producers: list[Producer],
    *,
    committed: Committed | None = None,
    outputs: Outputs | None = None,
    options: TickOptions = TickOptions(0.001, 0.1, 1.0),  # noqa: B008 (frozen)
) -> list[KafkaTroubleError]:
    """Run ticks over one malformed record until its dead letter is written; return what ended the stream.

    `committed` is what the group returns for its partition; by default, what the tick tried to commit.
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

    ticker = _ticker(bench, producers, source, outputs=outputs, settled=settled, options=options, fail=fail)
    bench.read([b"{"])
    ticker.start()
    assert done.wait(PATIENCE_SECS)
    ticker.stop(30)
    return failed


def _by_hand(
    bench: Bench,
    producers: Sequence[Producer],
    *,
    outputs: Outputs | None = None,
    post: Callable[[list[tuple[int, Batch]], float], None] = lambda posted, listed_at: None,
    options: TickOptions = TickOptions(0.0, 0.1, 60.0),  # noqa: B008 (frozen)
) -> Ticker:
    """Return a ticker whose ticks the caller runs; the group has no commits."""
    source = create_autospec(Source, instance=True)
    source.committed.return_value = {PARTITION: Committed(0, "")}
    ticker = _ticker(
        bench, list(producers), source, outputs=outputs, post=post, options=options, fail=lambda _error: None
    )
    ticker._replace_publisher()
    return ticker


def _answer(bench: Bench, listed: list[tuple[int, Batch]], verdicts: Verdicts = Verdicts(QUEUED)) -> None:  # noqa: B008
    """Have the platform answer this for everything posted."""
    for serial, batch in listed:
        bench.state.finish(serial, batch.chunks, verdicts, attempts=1, sent_ms=1, answered_ms=2)


@pytest.mark.parametrize(
    ("error", "replaced"), [(_timed_out, True), (_expired, True), (_refused, False), (_too_large, False)]
)
def test_a_producer_that_gets_no_answer_is_replaced(error: Callable[[], AbortableError], replaced: bool) -> None:
    """It may have lost its coordinator for good; one that was answered, however badly, is kept.

    The topics' limits are looked up after some of that: if nobody answers, that must not end the stream.
    """
    first, second = Producer(error()), Producer()
    if not replaced:
        first.abort = lambda timeout_secs: setattr(first, "fails", None)  # type: ignore[method-assign] # repairs it

    assert _run([first, second]) == []

    heir = second if replaced else first
    assert (heir.committed, first.closed) == (["dead"], True)
    assert second.closed is replaced


@pytest.mark.parametrize("code", [KafkaError.INVALID_RECORD, KafkaError.INVALID_TIMESTAMP])
def test_a_topic_that_takes_no_such_results_holds_the_stream_until_it_does(code: int) -> None:
    """For instance a compacted one with an outcome without a key: nothing more is posted, and this is reported."""
    bench, producer, told = Bench(), Producer(AbortableError(KafkaError(code))), list[str]()
    bench.state.on_hold = lambda hold: told.append(hold.reason)
    ticker = _by_hand(bench, [producer])
    bench.read([b"{"])
    ticker._tick()
    slots = bench.state.slots(now())
    producer.fails = None

    ticker._tick()

    assert (told, slots, producer.committed) == (["results_refused"], 0, ["dead"])
    assert bench.state.kafka_hold is None, "it ends with the first tick that commits, however much there is to write"


@pytest.mark.parametrize("took_effect", [True, False])
def test_a_commit_that_is_never_answered_is_known_by_what_the_next_producer_finds(took_effect: bool) -> None:
    """Nothing is written twice or left out, whatever its result was."""
    first, second = Producer(_unknown()), Producer()

    assert _run([first, second], committed=None if took_effect else Committed(0, "")) == []

    assert first.closed
    assert second.committed == ([] if took_effect else ["dead"])


def test_limits_of_topics_that_were_missing_are_queried_before_anything_is_written() -> None:
    done: list[str] = []
    outputs, producer = _silent_outputs(), Producer()
    outputs.catch_up.side_effect = lambda *, now: done.append("looked up")
    producer.begin = lambda: done.append("begun")  # type: ignore[method-assign]

    assert _run([producer], outputs=outputs) == []

    assert done[:2] == ["looked up", "begun"]


def test_a_producer_is_reported_as_replaced_once_the_next_one_has_taken_over() -> None:
    """While brokers are unreachable it takes any time, and the stop may come first."""
    late = Producer()
    late.start = lambda timeout_secs: (_ for _ in ()).throw(_unknown())  # type: ignore[method-assign]

    with capture_logs() as logs:
        assert _run([Producer(_expired()), late, Producer()]) == []

    told = [(entry["event"], entry["code"]) for entry in logs if entry["event"].startswith("producer")]
    assert told == [("producer not ready yet", "_TIMED_OUT"), ("producer replaced", "_MSG_TIMED_OUT")]


@pytest.mark.parametrize("at_start", [True, False], ids=["no new transaction", "no results"])
def test_it_is_reported_if_brokers_accept_nothing_because_too_few_replicas_are_in_sync(at_start: bool) -> None:
    """The brokers' own answers, a timeout or a concurrent transaction, do not help."""
    why = "outcomes takes no results while too few replicas are in sync"
    outputs, told = _silent_outputs(), list[str]()
    outputs.under_min_isr.return_value = why
    bench, first, second = Bench(), Producer(_expired()), Producer()

    def start(timeout_secs: float) -> None:
        trouble = bench.state.kafka_trouble
        told.append("" if trouble is None else trouble.text)
        if at_start and len(told) == 1:
            bench.state.kafka_trouble = None
            raise AbortableError(KafkaError(KafkaError.CONCURRENT_TRANSACTIONS))

    second.start = start  # type: ignore[method-assign]
    ticker = _by_hand(bench, [first, second, second], outputs=outputs)
    bench.read([b"{"])

    ticker._tick()

    assert told[-1].startswith(f"{why} ({'CONCURRENT_TRANSACTIONS' if at_start else '_MSG_TIMED_OUT'}: ")


class Slow(Producer):
    """One whose brokers complete at most five records within a call's timeout."""

    def commit(self, offsets: Offsets, group: Any, timeout_secs: float) -> None:
        self.fails = _timed_out() if len(self.written) > 5 else None
        super().commit(offsets, group, timeout_secs)


def test_what_is_too_much_for_slow_brokers_is_written_in_ever_smaller_ticks() -> None:
    """Down to one batch: otherwise nothing would ever be written, and every tick would begin with a new producer."""
    bench = Bench()
    bench.state.flow.limits = replace(bench.state.flow.limits, max_tick_records=40)
    for _ in range(40):
        bench.read([b"{"])
    ticker = _by_hand(bench, [Slow() for _ in range(50)])

    for _ in range(50):
        ticker._tick()

    assert bench.state.counts.settled == 40


def test_a_producer_is_replaced_when_the_topics_take_larger_batches_again() -> None:
    """Its batches keep the size of its creation; nothing reports that a limit was raised."""
    bench, outputs, first, second = Bench(), _silent_outputs(), Producer(), Producer()
    outputs.results_bytes = 76
    ticker = _by_hand(bench, [first, second], outputs=outputs)
    outputs.catch_up.side_effect = lambda *, now: setattr(outputs, "results_bytes", 1_000_000)
    bench.read([b"{"])

    ticker._tick()

    assert (first.closed, first.committed, second.committed) == (True, [], ["dead"])
    assert bench.state.counts.producers_replaced == 1


@pytest.mark.parametrize(
    ("batches", "most_records", "first", "next_"), [(10, 999, 8, 2), (9, 999, 8, 1), (6, 20, 4, 2)]
)
def test_where_more_is_ready_than_may_start_it_is_chosen_when_results_have_arrived(
    batches: int, most_records: int, first: int, next_: int
) -> None:
    """A listed batch takes a slot and waits for the commit: an answer that arrives meanwhile frees one for it.

    Eight batches of five may be in flight. If there is room for all ready ones, the tick does not wait.
    """
    bench, producer, posted = Bench(), Producer(), list[list[tuple[int, Batch]]]()
    bench.state.flow.limits = replace(bench.state.flow.limits, max_in_flight_records=most_records)

    def answer() -> bool:
        _answer(bench, [posted[0].pop()])
        return True

    producer.flush = lambda timeout_secs: answer()  # type: ignore[method-assign]
    ticker = _by_hand(bench, [producer], post=lambda listed, _at: posted.append(listed))
    bench.read([b'{"to":"+18005550100","body":"hello"}'] * 5 * batches)
    ticker._tick()
    assert len(posted[0]) == first
    answer()

    ticker._tick()

    assert len(posted[1]) == next_


EVENT = b'{"to":"+18005550100","body":"hello"}'


def test_a_producer_that_is_fenced_once_is_replaced_and_continues() -> None:
    """For instance one whose transaction took too long; nothing is written twice."""
    first, second = Producer(_fenced()), Producer()

    assert _run([first, second], committed=Committed(0, "")) == []

    assert (first.closed, second.committed) == (True, ["dead"])


@pytest.mark.parametrize(("fence_secs", "ends"), [(60.0, True), (0.0, False)])
def test_a_producer_that_is_fenced_again_at_once_has_a_duplicate_and_ends_the_stream(
    fence_secs: float, ends: bool
) -> None:
    """Two workers with one id would fence each other forever; much later it is a different matter."""
    errors = [_fenced(), _fenced()]

    failed = _run(
        [*map(Producer, errors), Producer()],
        committed=Committed(0, ""),
        options=TickOptions(0.001, 0.1, fence_secs),
    )

    assert failed == (errors[1:] if ends else [])


class Impatient(Producer):
    """One that is given up before brokers have answered it, because their quorum is lost."""

    def start(self, timeout_secs: float) -> None:
        raise _unknown()


def test_a_producer_that_is_fenced_by_those_that_were_given_up_before_it_has_no_twin() -> None:
    """Brokers that come back process earlier requests: each request for the id fences the present producer.

    Seen with two of three brokers down for two minutes, in which a dozen producers were given up.
    """
    producers = [Producer(_unknown()), *[Impatient()] * 2, Producer(_fenced()), Producer(_fenced()), Producer()]

    failed = _run(producers, committed=Committed(0, ""), options=TickOptions(0.001, 0.1, 60.0))

    assert (failed, producers[-1].committed) == ([], ["dead"])


def test_what_partitions_wait_for_is_known_while_a_tick_runs_and_no_longer() -> None:
    """A revoke asks whether the tick names a partition, and how many records it lists as in flight."""
    bench, producer, told, others = Bench(), Producer(), list[object](), {Partition("bench", 1)}

    def ask(*_: object) -> None:
        told.append((ticker.names({PARTITION}), ticker.names(others)))
        told.append((ticker.listing({PARTITION}), ticker.listing(others)))

    producer.commit = ask  # type: ignore[method-assign, assignment]
    ticker = _by_hand(bench, [producer])
    bench.read([EVENT] * 5)
    ask()
    ticker._tick()
    ask()

    idle = [(False, False), (0, 0)]
    assert told == [*idle, (True, False), (5, 0), *idle]


@pytest.mark.parametrize("ending", ["abandon", "stop"])
def test_a_commit_without_an_answer_is_retried_until_a_timeout_or_a_stop(ending: str) -> None:
    """Then what it was to write is read back, or left to the next owner."""
    assert _unanswered("commit", Producer(_unknown()), ending) == (["dead"] if ending == "abandon" else [])


def _unanswered(call: str, first: Producer, ending: str) -> list[str]:
    """Run ticks over a malformed record while a producer's call has no answer; return what the next one commits.

    It ends by a timeout (`time`), an `abandon`, or a `stop`.
    """
    bench, asked, done = Bench(), threading.Event(), threading.Event()
    second, tries = Producer(), 0

    def unanswered(*_arguments: Any) -> None:
        nonlocal tries
        tries += 1
        if tries == (1 if ending == "time" else 3):
            asked.set()
        raise _unknown()

    setattr(first, call, unanswered)
    source = create_autospec(Source, instance=True)
    source.committed.return_value = {PARTITION: Committed(0, "")}
    failed: list[BaseException] = []
    ticker = _ticker(
        bench,
        [first, second],
        source,
        settled=lambda _items, _at_ms: done.set(),
        options=TickOptions(0.001, 600.0, 0.2 if ending == "time" else 600.0),
        fail=failed.append,
    )
    bench.read([b"{"])
    ticker.start()
    assert asked.wait(PATIENCE_SECS)
    if ending == "abandon":
        ticker.abandon()
    if ending != "stop":
        assert done.wait(PATIENCE_SECS)
    ticker.stop(30)

    assert (ticker.thread, first.closed, failed) == (None, True, [])
    counts = bench.state.counts
    assert (counts.ticks, counts.ticks_aborted) == ((0, 1) if ending == "stop" else (1, 1))
    return second.committed


def test_having_no_more_time_for_one_tick_is_no_word_about_the_next() -> None:
    """A tick that commits all the same must not leave the next unanswered commit to a new producer."""
    bench, producer = Bench(), Producer()
    ticker, answers = _by_hand(bench, [producer]), iter([None, _unknown(), None])

    def commit(offsets: Offsets, group: Any, timeout_secs: float) -> None:
        if bench.state.counts.ticks == 0:
            ticker.abandon()
        if (error := next(answers)) is not None:
            raise error

    producer.commit = commit  # type: ignore[method-assign]
    for _ in range(2):
        bench.read([b"{"])
        ticker._tick()

    assert (bench.state.counts.ticks, bench.state.counts.producers_replaced) == (2, 0)


def test_a_stop_waits_for_the_running_tick_no_longer_than_it_may() -> None:
    bench, begun, goes_on = Bench(), threading.Event(), threading.Event()
    producer = Producer()

    def flush() -> None:
        begun.set()
        assert goes_on.wait(PATIENCE_SECS)

    producer.begin = flush  # type: ignore[method-assign]
    failed: list[BaseException] = []
    ticker = _ticker(bench, [producer], create_autospec(Source, instance=True), fail=failed.append)
    bench.read([b"{"])
    ticker.start()
    assert begun.wait(PATIENCE_SECS)

    ticker.stop(0.01)
    still_runs = ticker.thread is not None

    goes_on.set()
    ticker.stop(30)
    assert (still_runs, ticker.thread, failed, producer.closed) == (True, None, [], True)


def test_what_is_to_be_tried_again_later_starts_when_it_is_due_without_anybody_calling() -> None:
    bench, posted = Bench(), queue.SimpleQueue[list[tuple[int, Batch]]]()
    failed: list[BaseException] = []
    ticker = _ticker(
        bench,
        [Producer()],
        create_autospec(Source, instance=True),
        post=lambda listed, _at: posted.put(listed),
        fail=failed.append,
    )
    bench.read([EVENT])
    ticker.start()
    [(serial, _)] = posted.get(timeout=PATIENCE_SECS)
    with bench.state.changed:
        due = now() + 0.2
        bench.state.flow.again(bench.state.flow.withdraw(serial), at=due)
        bench.state.changed.notify_all()

    [(_, again)] = posted.get(timeout=PATIENCE_SECS)

    assert now() >= due
    assert [list(piece.offsets) for piece in again.chunks] == [[0]]
    ticker.stop(30)
    assert failed == []


def test_ticks_follow_one_another_at_their_interval_at_the_earliest() -> None:
    bench, written = Bench(), queue.SimpleQueue[float]()
    failed: list[BaseException] = []
    ticker = _ticker(
        bench,
        [Producer()],
        create_autospec(Source, instance=True),
        settled=lambda _items, _at_ms: written.put(now()),
        options=TickOptions(0.1, 0.1, 1.0),
        fail=failed.append,
    )
    ticker.start()
    began = last = now()
    for _ in range(4):
        bench.read([b"{"])
        with bench.state.changed:
            bench.state.changed.notify_all()
        last = written.get(timeout=PATIENCE_SECS)
    ticker.stop(30)

    assert last - began >= 0.3
    assert failed == []


def test_a_tick_counts_its_results_by_verdict() -> None:
    bench = Bench()
    verdicts = Verdicts(QUEUED, {0: SKIPPED, 1: Verdict("dead_letter", "refused")})
    ticker = _by_hand(bench, [Producer()], post=lambda listed, _at: _answer(bench, listed, verdicts))
    bench.read([EVENT] * 5)
    counts = bench.state.counts
    counts.progress_at = 0.0

    ticker._tick()
    assert counts.progress_at == 0.0, "nothing has a result yet"
    ticker._tick()

    assert counts.progress_at > 0.0
    assert (counts.ticks, counts.ticks_aborted, counts.queued, counts.skipped) == (2, 0, 3, 1)
    assert dict(counts.dead_letters) == {"refused": 1}


def test_what_is_posted_is_listed_in_what_was_committed_last() -> None:
    """Whether a tick had results to write before its batches were chosen, or none."""
    bench, rounds = Bench(), list[tuple[RangeSet, RangeSet]]()
    committed: list[Offsets] = []
    producer = Producer()
    producer.commit = lambda offsets, group, timeout_secs: committed.append(offsets)  # type: ignore[method-assign]

    def post(listed: list[tuple[int, Batch]], _at: float) -> None:
        posted = RangeSet(run for _, batch in listed for piece in batch.chunks for run in runs(piece.offsets))
        rounds.append((posted, decode(*committed[-1][PARTITION]).in_flight))
        _answer(bench, listed)

    ticker = _by_hand(bench, [producer], post=post)
    bench.read([EVENT] * 100)
    for _ in range(3):
        ticker._tick()

    assert [posted for posted, _ in rounds] == [RangeSet([(at, min(at + 40, 100))]) for at in (0, 40, 80)]
    assert [listed for _, listed in rounds] == [posted for posted, _ in rounds]


def test_a_batch_whose_window_passes_while_results_are_written_starts_with_their_tick(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench, posted = Bench(), list[tuple[int, Batch]]()
    ticker = _by_hand(bench, [Producer()], post=lambda listed, _at: posted.extend(listed))
    bench.read([b"{"])
    with monkeypatch.context() as patched:
        patched.setattr(bench.state.batcher, "drain", list)
        bench.read([EVENT])
    assert not bench.state.flow.ready
    monkeypatch.setattr("connector.stream.tick.now", lambda: now() + 2.0)  # later than its window ends

    ticker._tick()

    assert [batch.closed_by for _, batch in posted] == ["window"]


def test_the_time_within_which_a_batch_may_be_posted_begins_before_the_commit_that_lists_it() -> None:
    """Its next owner may have read that commit as soon as it was made."""
    bench, producer, times = Bench(), Producer(), list[float]()
    producer.commit = lambda offsets, group, timeout_secs: times.append(awake())  # type: ignore[method-assign]
    ticker = _by_hand(bench, [producer], post=lambda _listed, at: times.append(at))
    bench.read([EVENT])
    began = awake()

    ticker._tick()

    committing, listed_at = times
    assert began <= listed_at <= committing


def test_brokers_that_are_well_again_are_known_to_be_and_get_ticks_as_large_as_before() -> None:
    """Gradually, so that too large a tick occurs once in several, and not in every second one."""
    bench, sizes, known = Bench(), list[int](), list[bool]()
    bench.state.flow.limits = replace(bench.state.flow.limits, max_tick_records=40)
    ticker = _by_hand(bench, [Producer(_timed_out()), Producer(_timed_out()), Producer()])
    for _ in range(22):
        bench.read([b"{"])
        ticker._tick()
        sizes.append(bench.state.flow.limits.max_tick_records)
        known.append(bench.state.kafka_trouble is not None)

    assert sizes[:2] == [20, 10]
    assert sizes[2:] == sorted(sizes[2:])
    assert (sizes[2] < 20, sizes[-1]) == (True, 40), "halved twice, and hardly more at first"
    assert known == [True] * 2 + [False] * 20, "while nobody answered it was known that Kafka is away"
    assert (bench.state.counts.ticks, bench.state.counts.ticks_aborted) == (20, 2)


def test_it_is_known_while_results_are_written() -> None:
    """The reader waits meanwhile."""
    bench, producer, told = Bench(), Producer(), list[bool]()
    producer.write = lambda *_, **__: told.append(bench.state.writing)  # type: ignore[method-assign]
    producer.commit = lambda *_: told.append(bench.state.writing)  # type: ignore[method-assign]
    bench.read([b"{"])

    _by_hand(bench, [producer])._tick()

    assert told == [True, False]


def test_a_commit_that_is_answered_when_it_is_asked_for_again_is_not_made_twice() -> None:
    producer, offsets_given, begun = Producer(), list[bool](), list[None]()

    def commit(offsets: Offsets, group: Any, timeout_secs: float) -> None:
        offsets_given.append(bool(offsets))
        if len(offsets_given) < 3:
            raise _unknown()

    producer.commit = commit  # type: ignore[method-assign]
    producer.begin = lambda: begun.append(None)  # type: ignore[method-assign]

    assert _run([producer], options=TickOptions(0.001, 600.0, 600.0)) == []

    assert (offsets_given, len(begun)) == ([True, False, False], 1)


@pytest.mark.parametrize("ending", ["time", "abandon", "stop"])
def test_an_abort_without_an_answer_is_asked_for_until_its_time_is_up(ending: str) -> None:
    """The next producer with our id ends the open transaction."""
    assert _unanswered("abort", Producer(_refused()), ending) == ([] if ending == "stop" else ["dead"])


def test_results_that_are_refused_for_their_size_some_times_in_a_row_hold_the_stream() -> None:
    """Batches get smaller meanwhile, and most soon fit; that is no reason to alert anybody."""
    bench, producer, outputs, told = Bench(), Producer(_too_large()), _silent_outputs(), list[str]()
    outputs.limits_in_words = "outcomes takes 76 bytes"
    bench.state.on_hold = lambda hold: told.append(f"{hold.reason} after {outputs.were_refused.call_count}")
    ticker = _by_hand(bench, [producer], outputs=outputs)
    bench.read([b"{"])

    for _ in range(REFUSED_IN_A_ROW + 2):
        ticker._tick()

    assert told == [f"results_refused after {REFUSED_IN_A_ROW}"]


def test_commits_list_less_for_brokers_that_take_less_and_the_stream_holds_if_that_is_next_to_nothing() -> None:
    bench, told = Bench(), list[str]()
    bench.state.on_hold = lambda hold: told.append(f"{hold.reason}: {hold.detail}")
    producer = Producer(AbortableError(KafkaError(KafkaError.OFFSET_METADATA_TOO_LARGE)))
    ticker = _by_hand(bench, [producer])
    bench.read([b"{"])

    rooms = []
    for _ in range(6):
        ticker._tick()
        rooms.append(bench.state.flow.limits.max_metadata)
    producer.fails = None
    ticker._tick()

    assert rooms == [2_000, 1_000, 500, 250, 250, 250]
    assert told == [
        "results_refused: Broker: Offset metadata string too large; set the brokers' offset.metadata.max.bytes to 4096"
    ]
    assert (bench.state.kafka_hold, len(producer.committed)) == (None, 1)


@pytest.mark.parametrize("code", [KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._MSG_TIMED_OUT])
@pytest.mark.parametrize(
    ("absent", "held", "left"),
    [
        ({"outcomes"}, ["topic_missing: outcomes does not exist"], [PARTITION, OF_ANOTHER]),
        ({"outcomes", "dead"}, ["topic_missing: dead and outcomes do not exist"], [PARTITION, OF_ANOTHER]),
        ({PARTITION.topic}, [], [OF_ANOTHER]),
    ],
)
def test_a_missing_result_topic_holds_the_stream_and_a_missing_source_topic_releases_its_partitions(
    absent: set[str], held: list[str], left: list[Partition], code: int
) -> None:
    """Otherwise they would fail every tick, also for other topics. Results for it may just wait and time out."""
    bench, outputs, told = Bench(), _silent_outputs(), list[str]()
    outputs.absent.return_value = absent
    bench.state.flow.assign(OF_ANOTHER, 1, Progress(0))
    bench.state.on_hold = lambda hold: told.append(f"{hold.reason}: {hold.detail.partition(' (')[0]}")
    bench.read([b"{"])

    _by_hand(bench, [Producer(AbortableError(KafkaError(code))), Producer()], outputs=outputs)._tick()

    assert (told, [*bench.state.flow.partitions]) == (held, left)


def test_a_hold_is_reported_once_and_why_however_many_ticks_fail_for_it() -> None:
    bench, told = Bench(), list[tuple[str, str]]()
    denied = AbortableError(KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED, "dead may not be written"))
    bench.state.on_hold = lambda hold: told.append((hold.reason, hold.detail))
    ticker = _by_hand(bench, [Producer(denied)])
    bench.read([b"{"])

    for _ in range(3):
        ticker._tick()

    assert told == [("kafka_authorization", str(denied))]


@pytest.mark.parametrize(("limit", "kept"), [(1_000_000, b"{"), (10, None)])
def test_a_dead_letter_that_its_topic_would_not_take_is_written_without_its_value(
    limit: int, kept: bytes | None
) -> None:
    outputs, producer, written = _silent_outputs(), Producer(), list[bytes | None]()
    outputs.dead_letter_limit = limit

    def write(topic: str, partition: int, *, value: bytes | None, headers: Headers, **_rest: Any) -> None:
        written.append(value)
        assert ("trackly.value_omitted" in dict(headers)) is (value is None)

    producer.write = write  # type: ignore[method-assign]

    assert _run([producer], outputs=outputs) == []

    assert written == [kept]
    assert outputs.refresh_if_due.called is (kept is None), "somebody may have raised the limit"


Word = Literal["well", "unknown", "unknown, done", "refused", "fatal", "fatal, done"]


class Kafka:
    """A transaction log; its producers' calls end as the next of `words` says, and succeed once there is none."""

    def __init__(self, words: Iterable[Word]) -> None:
        self._words = iter(words)
        self.results: list[int] = []
        """Offsets of records whose results can be read."""
        self.offsets: Offsets = {}
        self.open: Transactional | None = None

    def next(self, *fits: Word) -> Word:
        word = next(self._words, "well")
        return word if word in fits else "well"

    def committed(self, asked: Iterable[Partition], _secs: float) -> dict[Partition, Committed]:
        if self.next("unknown") == "unknown":
            raise _unknown()
        return {p: Committed(*self.offsets.get(p, (0, ""))) for p in asked}


class Transactional(Producer):
    """A producer of that log: its open transaction ends with it, or when the next one takes over its id."""

    def __init__(self, kafka: Kafka) -> None:
        super().__init__()
        self._kafka = kafka
        self._results: list[int] | None = None
        self._prepared = False

    def start(self, timeout_secs: float) -> None:
        self._fail("unknown")
        self._kafka.open = self

    def begin(self) -> None:
        assert self._results is None, "one is open"
        assert self._kafka.open is self, "another one has taken over"
        self._fail("unknown", "refused", "fatal")
        self._results, self._prepared, self.offsets = [], False, {}

    def write_batch(
        self,
        topic: str,
        partition: int,
        values: Sequence[str],
        keys: Sequence[bytes | None] | None,
        headers: Headers | None = None,
    ) -> None:
        assert (topic, self._results is not None) == ("outcomes", True)
        self._fail("unknown", "refused", "fatal")
        self._results = [*(self._results or []), *(json.loads(value)["offset"] for value in values)]

    def write(
        self,
        topic: str,
        partition: int,
        *,
        key: bytes | None,
        value: bytes | None,
        headers: Headers,
        timestamp_ms: int = 0,
    ) -> None:
        assert (topic, self._results is not None) == ("dead", True)
        self._fail("unknown", "refused", "fatal")
        offset = int(dict(headers)["__connect.errors.offset"] or b"")
        self._results = [*(self._results or []), offset]

    def commit(self, offsets: Offsets, group: Any, timeout_secs: float) -> None:
        assert self._results is not None
        self.offsets = offsets or self.offsets
        word = self._kafka.next("unknown", "unknown, done", "refused", "fatal", "fatal, done")
        if word.endswith("done") or word == "well":
            assert self._kafka.open is self
            if not self._prepared:
                self._kafka.results += self._results
                self._kafka.offsets = {**self._kafka.offsets, **self.offsets}
            self._prepared = True
        elif self._prepared and word == "refused":
            word = "well"  # what is decided is not rejected
        self._say(word)
        self._results = None

    def abort(self, timeout_secs: float) -> None:
        self._fail("unknown", "fatal")
        self._results = None

    def _fail(self, *fits: Word) -> None:
        self._say(self._kafka.next(*fits))

    @staticmethod
    def _say(word: Word) -> None:
        if word.startswith("unknown"):
            raise _unknown()
        if word == "refused":
            raise _refused()
        if word.startswith("fatal"):
            raise FatalError(KafkaError(KafkaError._FATAL, "out of order"))


_OUTPUTS = _silent_outputs()
_words = st.sampled_from(get_args(Word)) | st.just("well")


@settings(max_examples=100)
@given(words=st.lists(_words, max_size=30), fence_secs=st.sampled_from([0.0, 60.0]))
@example(words=["well", "well", "well", "well", "unknown, done", "unknown"], fence_secs=0.0)
@example(words=["well"] * 4 + ["fatal, done", "unknown"], fence_secs=60.0)
def test_each_record_has_one_result_and_one_request_for_any_result_of_the_ticks_calls(
    words: list[Word], fence_secs: float
) -> None:
    """For a reader of what is committed; and what is posted is listed in what is committed."""
    bench, kafka, posted = Bench(), Kafka(words), list[int]()
    source = cast("Source", SimpleNamespace(committed=kafka.committed, membership=object))

    def post(listed: list[tuple[int, Batch]], _at: float) -> None:
        for serial, batch in listed:
            offsets = [offset for piece in batch.chunks for offset in piece.offsets]
            in_flight = decode(*kafka.offsets[PARTITION]).in_flight
            assert all(offset in in_flight for offset in offsets)
            posted.extend(offsets)
            bench.state.finish(serial, batch.chunks, Verdicts(QUEUED), attempts=1, sent_ms=1, answered_ms=2)

    settled = list[int]()
    ticker = Ticker(
        bench.state,
        source,
        lambda: cast("Publisher", Transactional(kafka)),
        outputs=_OUTPUTS,
        encoder=ResultEncoder("bench", "send", "group", failures_only=False),
        options=TickOptions(0.0, 60.0, fence_secs),
        post=post,
        settled=lambda items, _at_ms: settled.extend(item.count for item in items),
        fail=lambda _error: None,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("connector.stream.tick.time", SimpleNamespace(sleep=lambda _secs: None, time=time.time))
        ticker._replace_publisher()
        for values in ([EVENT] * 3, [b"{"], [EVENT, b"{"]):
            bench.read(values)
            ticker._tick()
        for _ in range(len(words) + 9):
            if not bench.state.held_bytes:
                break
            ticker._tick()

    assert sorted(kafka.results) == [0, 1, 2, 3, 4, 5]
    assert sorted(posted) == [0, 1, 2, 4]
    assert kafka.offsets[PARTITION][0] == 6
    assert (sum(settled), bench.state.counts.settled) == (6, 6)


@pytest.mark.parametrize(
    ("error", "records"),
    [(_timed_out, 20), (_expired, 20), (_unknown, 20), (_full, 20), (_refused, 40), (_fenced, 40), (_too_large, 40)],
)
def test_only_what_brokers_were_too_slow_for_makes_ticks_smaller(
    error: Callable[[], KafkaTroubleError], records: int
) -> None:
    """And only what was too large for a topic makes batches smaller."""
    bench, outputs = Bench(), _silent_outputs()
    bench.state.flow.limits = replace(bench.state.flow.limits, max_tick_records=40)
    bench.read([b"{"])

    _by_hand(bench, [Producer(error()), Producer()], outputs=outputs)._tick()

    assert bench.state.flow.limits.max_tick_records == records
    assert bench.state.counts.ticks_aborted == 1
    assert outputs.were_refused.called is (error is _too_large)


@pytest.mark.parametrize("call", ["begin", "write"])
def test_brokers_that_cannot_be_reached_before_the_commit_do_not_make_ticks_smaller(call: str) -> None:
    """They were not too slow for this one; and nothing is committed, so the tick is taken back."""
    bench, producer, away = Bench(), Producer(), RetriableError(KafkaError(KafkaError._TRANSPORT))
    setattr(producer, call, lambda *_, **__: (_ for _ in ()).throw(away))
    bench.state.flow.limits = replace(bench.state.flow.limits, max_tick_records=40)
    bench.read([b"{"])

    _by_hand(bench, [producer, Producer()])._tick()

    assert bench.state.flow.limits.max_tick_records == 40
    assert (bench.state.counts.ticks_aborted, len(bench.state.flow.finished)) == (1, 1)


def test_after_trouble_ticks_wait_ever_longer_and_no_longer_than_two_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Until one commits."""
    waits, at, producer, bench = list[float](), now(), Producer(_refused()), Bench()
    ticker = _by_hand(bench, [producer], options=TickOptions(0.25, 0.1, 60.0))
    monkeypatch.setattr("connector.stream.tick.now", lambda: at)
    monkeypatch.setattr("connector.stream.tick.time", SimpleNamespace(sleep=waits.append, time=time.time))
    bench.read([b"{"])
    for turn in range(14):
        assert ticker._wait(at - 0.125)
        if turn == 12:
            producer.fails = None
        ticker._tick()
        bench.read([b"{"])

    assert waits == pytest.approx([0.125, 0.125, 0.2, 0.4, 0.8, 1.6, *[2.0] * 7, 0.125])


def test_results_of_a_partition_that_is_released_while_they_are_written_are_withdrawn() -> None:
    """Its next owner writes them; a commit of ours would fail, or duplicate theirs."""
    bench, producer = Bench(), Producer()
    producer.write = lambda *_, **__: bench.state.flow.release([PARTITION])  # type: ignore[method-assign]
    producer.abort = lambda timeout_secs: aborts.append(True)  # type: ignore[method-assign]
    aborts = list[bool]()
    ticker = _by_hand(bench, [producer])
    bench.read([b"{"])

    ticker._tick()

    assert (producer.offsets, aborts, bench.state.counts.ticks) == ({}, [True], 0)
    assert ticker.names({PARTITION}) is False


def test_a_producer_whose_batches_are_larger_than_topics_take_by_now_is_replaced() -> None:
    bench, first, second, outputs = Bench(), Producer(_too_large()), Producer(), _silent_outputs()
    first.abort = lambda timeout_secs: setattr(outputs, "results_bytes", 76)  # type: ignore[method-assign]
    ticker = _by_hand(bench, [first, second], outputs=outputs)
    bench.read([b"{"])

    ticker._tick()
    ticker._tick()

    assert (first.closed, first.committed, second.committed) == (True, [], ["dead"])
    assert outputs.were_refused.call_args.args == (1_000_000,)


def test_a_producer_that_may_not_take_over_its_id_holds_the_stream_until_it_may(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench, told, waits = Bench(), list[str](), list[float]()
    monkeypatch.setattr("connector.stream.tick.time", SimpleNamespace(sleep=waits.append, time=time.time))
    bench.state.on_hold = lambda hold: told.append(hold.reason)
    denied = AbortableError(KafkaError(KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED))
    refused = [Producer() for _ in range(9)]
    for each in refused:
        each.start = lambda timeout_secs: (_ for _ in ()).throw(denied)  # type: ignore[method-assign]
    bench.read([b"{"])

    ticker = _by_hand(bench, [*refused, Producer()])
    held = bench.state.slots(now())
    ticker._tick()

    assert (told, held, all(each.closed for each in refused)) == (["kafka_authorization"], 0, True)
    assert waits == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0, 5.0]
    assert (bench.state.kafka_hold, bench.state.counts.settled) == (None, 1)
