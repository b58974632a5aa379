"""A lane whose commit fails for good: whether another redrive with its name is the cause; librdkafka is mocked."""

import signal
import threading
import time
from collections.abc import Iterator, Mapping
from itertools import chain
from unittest.mock import create_autospec

import pytest
from confluent_kafka import KafkaError

from connector.config.kafka import KafkaSettings
from connector.core.chunks import Chunk, Partition
from connector.core.ranges import RangeSet
from connector.deadletters import redriving
from connector.deadletters.deciding import Actions, Rules
from connector.deadletters.progressing import Place, place_at
from connector.deadletters.redriving import Order, carry_out
from connector.kafka.commits import Committed, Membership
from connector.kafka.errors import AbortableError, FatalError, KafkaTroubleError, RetriableError
from connector.kafka.publisher import Offsets, TransactionalPublisher
from connector.kafka.scanning import Scanner
from connector.kafka.topics import TopicFacts
from tests.deadletters.making import FakeClock, headers_of

DEAD = Partition("dead", 0)
SELECTION = "0123456789abcdef"
RECORDS = 3


def _letters(offsets: range) -> Chunk:
    count = len(offsets)
    values: list[bytes | None] = [b"{}"] * count
    return Chunk(DEAD, 0, offsets, values, headers=[headers_of()] * count, timestamps=[0] * count)


def _order(kafka: KafkaSettings, wanted: set[int], stop: int) -> Order:
    """Return the order to send some of the dead letters of a topic again."""
    return Order(
        kafka,
        "name",
        SELECTION,
        Rules({}, to="target"),
        {DEAD: (0, stop)},
        {DEAD: Actions(dict.fromkeys(wanted, "redrive"))},
        {"target": TopicFacts(1, 1_000_000)},
    )


@pytest.mark.parametrize("kind", [FatalError, AbortableError])
@pytest.mark.parametrize(("came_to", "fenced"), [(2, True), (0, False), (RECORDS, False)])
def test_a_commit_that_fails_without_a_reason_is_a_takeover_where_somebody_has_come_to_another_place(
    monkeypatch: pytest.MonkeyPatch, came_to: int, fenced: bool, kind: type[KafkaTroubleError]
) -> None:
    """Where it was before, or where it tried to come, the lane itself may stand."""
    found = [Committed(None, "")]
    publisher = create_autospec(TransactionalPublisher, instance=True)
    scanner = create_autospec(Scanner, instance=True)

    def commit(_offsets: Offsets, _group: object, _secs: float) -> None:
        found.append(Committed(*place_at(Place(), came_to, RangeSet(), SELECTION)) if came_to else found[0])
        raise kind(KafkaError(KafkaError.UNKNOWN, "EndTxn commit failed"))

    def committed(spans: Mapping[Partition, object]) -> dict[Partition, Committed]:
        return dict.fromkeys(spans, found[-1])

    publisher.commit.side_effect, scanner.committed.side_effect = commit, committed
    scanner.steps.side_effect = lambda reach: [[_letters(range(RECORDS))]] if reach else []
    monkeypatch.setattr(redriving, "TransactionalPublisher", lambda _config, _topic: publisher)
    monkeypatch.setattr(redriving, "Scanner", lambda _config, _secs: scanner)
    monkeypatch.setattr(redriving, "OVERTAKEN_SECS", 0.0)
    order = _order(KafkaSettings(bootstrap_servers="nowhere:1"), set(range(RECORDS)), RECORDS)

    with pytest.raises(kind) as caught:
        carry_out(order, lambda _count: None)

    assert caught.value.fenced is fenced


def test_a_transaction_is_committed_while_long_stretches_are_read_that_hold_nothing_to_be_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Brokers abort one that is open for too long, and the same one would be aborted at each next try."""
    passing = 50
    clock = FakeClock()
    publisher = create_autospec(TransactionalPublisher, instance=True)
    scanner = create_autospec(Scanner, instance=True)
    opened: list[float] = []
    open_secs: list[float] = []
    publisher.begin.side_effect = lambda: opened.append(clock.now)
    publisher.commit.side_effect = lambda *_: open_secs.append(clock.now - opened[-1])
    scanner.committed.side_effect = lambda spans: dict.fromkeys(spans, Committed(None, ""))

    def steps(reach: object) -> Iterator[list[Chunk]]:
        for offset in range(RECORDS * passing if reach else 0):
            clock.now += 1.0
            yield [] if offset % 2 else [_letters(range(offset, offset + 1))]

    scanner.steps.side_effect = steps
    scanner.read.side_effect = lambda reach: chain.from_iterable(steps(reach))
    monkeypatch.setattr(redriving, "TransactionalPublisher", lambda _config, _topic: publisher)
    monkeypatch.setattr(redriving, "Scanner", lambda _config, _secs: scanner)
    monkeypatch.setattr(redriving, "time", clock)
    kafka = KafkaSettings(bootstrap_servers="nowhere:1")
    wanted = {number * passing for number in range(RECORDS)}

    written = carry_out(_order(kafka, wanted, RECORDS * passing), lambda _count: None)

    assert written.total == RECORDS
    assert max(open_secs) < kafka.transaction_timeout_secs / 2


def test_a_commit_that_is_not_answered_is_asked_for_again_after_a_pause() -> None:
    """A broker that says at once that it cannot be asked now would be asked thousands of times else."""
    publisher = create_autospec(TransactionalPublisher, instance=True)
    publisher.commit.side_effect = RetriableError("no broker is named", "committing")
    begun = time.monotonic()

    with pytest.raises(RetriableError):
        redriving.commit(publisher, {DEAD: (1, "")}, Membership(b"", 0), 0.2, threading.Event())

    assert time.monotonic() - begun > 0.6
    offsets = [call.args[0] for call in publisher.commit.call_args_list]
    assert 2 <= len(offsets) <= 5
    assert offsets == [{DEAD: (1, "")}, *([{}] * (len(offsets) - 1))], "with the first, librdkafka keeps the offsets"


def test_a_commit_that_is_not_answered_is_given_up_by_whoever_is_to_stop() -> None:
    publisher = create_autospec(TransactionalPublisher, instance=True)
    publisher.commit.side_effect = RetriableError("no broker is named", "committing")
    stop = threading.Event()
    stop.set()

    with pytest.raises(RetriableError):
        redriving.commit(publisher, {DEAD: (1, "")}, Membership(b"", 0), 60.0, stop)

    assert publisher.commit.call_count == 1


@pytest.fixture
def interrupting() -> Iterator[None]:
    """Have SIGINT interrupt as it does in a command: others may have left it to something else."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interrupting")
def test_an_interrupt_ends_a_redrive_with_what_is_committed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever types Ctrl-C has seen that something is wrong, and what is written is sent."""
    count = 1_000
    publisher = create_autospec(TransactionalPublisher, instance=True)
    scanner = create_autospec(Scanner, instance=True)
    scanner.committed.side_effect = lambda spans: dict.fromkeys(spans, Committed(None, ""))

    def steps(reach: object) -> Iterator[list[Chunk]]:
        for offset in range(count if reach else 0):
            if offset == 1:
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
            time.sleep(0.002)
            yield [_letters(range(offset, offset + 1))]

    scanner.steps.side_effect = steps
    monkeypatch.setattr(redriving, "TransactionalPublisher", lambda _config, _topic: publisher)
    monkeypatch.setattr(redriving, "Scanner", lambda _config, _secs: scanner)

    with pytest.raises(KeyboardInterrupt):
        carry_out(_order(KafkaSettings(bootstrap_servers="nowhere:1"), set(range(count)), count), lambda _count: None)

    assert publisher.write.call_count < count / 2
    assert (publisher.abort.call_count, publisher.commit.call_count) == (1, 0)
