"""What a publisher writes, and how it reports unresponsive brokers, with the real librdkafka."""

import random
import string
import time
from collections.abc import Callable
from typing import Any, Final
from unittest.mock import create_autospec

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer

from connector.core.chunks import Chunk, Headers, Partition
from connector.core.records import ResultEncoder
from connector.core.results import Finished
from connector.core.verdicts import Verdict, Verdicts
from connector.demo.finding import BrokerHandle
from connector.demo.topics import Topics
from connector.kafka.commits import Membership
from connector.kafka.errors import AbortableError, FatalError, KafkaTroubleError, RetriableError, translate
from connector.kafka.publisher import PlainPublisher, TransactionalPublisher
from connector.kafka.source import Source
from connector.kafka.topics import Topics as AskedTopics
from tests.conftest import MakeBroker
from tests.kit.patience import PATIENCE_SECS
from tests.kit.world import free_port

NOWHERE: Final[dict[str, Any]] = {"bootstrap.servers": "127.0.0.1:1", "log_level": 0}


def _stand_in(publisher: PlainPublisher | TransactionalPublisher) -> Any:
    """Put something in the place of librdkafka's producer, to answer as no broker does at will."""
    publisher._producer = create_autospec(Producer, instance=True)
    return publisher._producer


def test_results_that_are_not_written_in_time_are_reported_as_unanswered() -> None:
    """So that the producer is replaced: this one may have lost its brokers for good."""
    config = {"bootstrap.servers": f"127.0.0.1:{free_port()}", "log_level": 0}
    publisher = PlainPublisher(config, create_autospec(Source, instance=True))
    publisher.begin()
    publisher.write("outcomes", 0, key=None, value=b"{}", headers=[])

    with pytest.raises(AbortableError, match="writing the results") as raised:
        publisher.commit({}, Membership(b""), 0.2)

    assert raised.value.unanswered
    publisher.close()


@pytest.mark.parametrize("headers", [None, [("traceparent", b"00-1")]])
@pytest.mark.parametrize("keyed", [True, False])
@pytest.mark.parametrize("plain", [True, False])
def test_a_full_queue_is_waited_for_and_nothing_is_handed_over_twice(
    broker: BrokerHandle,
    topics: Topics,
    headers: Headers | None,
    keyed: bool,
    plain: bool,
) -> None:
    """Of a transaction's batch the first record is reported on and no other: each report takes time."""
    topic, began_ms = topics.create(partitions=2), int(time.time() * 1_000)
    config: dict[str, Any] = {
        "bootstrap.servers": broker.bootstrap_servers,
        "queue.buffering.max.messages": 300,
        "linger.ms": 5,
        "log_level": 0,
    }
    publisher: PlainPublisher | TransactionalPublisher = (
        PlainPublisher(config, create_autospec(Source, instance=True))
        if plain
        else TransactionalPublisher({**config, "transactional.id": topic}, topic)
    )
    reports: list[object] = []
    publisher._report = lambda *report: reports.append(report)  # type: ignore[method-assign] # to count them
    publisher.start(30)
    values = [f"value {number}" for number in range(2_000)]
    keys = [b"%d" % number if number % 3 else None for number in range(2_000)] if keyed else None

    publisher.begin()
    publisher.write_batch(topic, 1, values, keys, headers)
    publisher.write_batch(topic, 1, [], None)
    publisher.commit({}, Membership(b""), 30)

    found = topics.read(topic)
    assert [(record.value(), record.key()) for record in found] == [
        (value.encode(), None if keys is None else keys[number]) for number, value in enumerate(values)
    ]
    assert {tuple(record.headers() or ()) for record in found} == {tuple(headers or ())}
    assert min(record.timestamp()[1] for record in found) >= began_ms
    assert len(reports) == (len(values) if plain else 1)
    publisher.close()


def test_single_records_wait_for_room_and_are_written_as_they_were_given(broker: BrokerHandle, topics: Topics) -> None:
    """Each with its time, where it has one; else with that of writing."""
    topic, began_ms = topics.create(partitions=2), int(time.time() * 1_000)
    config: dict[str, Any] = {"bootstrap.servers": broker.bootstrap_servers, "queue.buffering.max.messages": 100}
    publisher = PlainPublisher({**config, "linger.ms": 5, "log_level": 0}, create_autospec(Source, instance=True))
    headers: Headers = [("reason", b"not_json"), ("nothing", None)]

    publisher.begin()
    publisher.write(topic, 1, key=b"k", value=b"now", headers=headers)
    for number in range(1, 300):
        publisher.write(topic, 1, key=None, value=None, headers=[], timestamp_ms=began_ms - number)
    publisher.commit({}, Membership(b""), 30)

    now, *others = topics.read(topic)
    assert (now.partition(), now.key(), now.value(), now.headers()) == (1, b"k", b"now", headers)
    assert now.timestamp()[1] >= began_ms
    assert [record.timestamp()[1] for record in others] == [began_ms - number for number in range(1, 300)]
    assert {(record.key(), record.value(), record.headers()) for record in others} == {(None, None, None)}
    publisher.close()


@pytest.mark.parametrize("plain", [True, False])
def test_a_queue_that_stays_full_fails_the_tick_and_no_record_is_passed_over(plain: bool) -> None:
    publisher = PlainPublisher(NOWHERE, create_autospec(Source)) if plain else TransactionalPublisher(NOWHERE)
    _stand_in(publisher).produce.side_effect = BufferError

    with pytest.raises(AbortableError, match="stays full"):
        publisher.write("outcomes", 0, key=None, value=b"{}", headers=[])
    with pytest.raises(AbortableError, match="stays full"):
        publisher.write_batch("outcomes", 0, ["{}"], None)


@pytest.mark.parametrize("headers", [None, [("traceparent", b"00-1")]])
@pytest.mark.parametrize("batch", [True, False])
@pytest.mark.parametrize("plain", [True, False])
def test_why_a_record_could_not_be_sent_is_reported_and_nothing_is_committed(
    broker: BrokerHandle, topics: Topics, headers: Headers | None, batch: bool, plain: bool
) -> None:
    """No broker has refused it: only its report says why."""
    topic, source = topics.create(partitions=1), create_autospec(Source, instance=True)
    config: dict[str, Any] = {"bootstrap.servers": broker.bootstrap_servers, "log_level": 0}
    publisher: PlainPublisher | TransactionalPublisher = (
        PlainPublisher(config, source) if plain else TransactionalPublisher({**config, "transactional.id": topic})
    )
    publisher.start(30)

    def write_and_commit() -> None:
        publisher.begin()
        if batch:
            publisher.write_batch(topic, 7, ["{}"] * 3, None, headers)
        else:
            publisher.write(topic, 7, key=None, value=b"{}", headers=headers or [])
        publisher.commit({}, Membership(b""), 30)

    with pytest.raises(AbortableError) as raised:
        write_and_commit()

    assert (raised.value.code, raised.value.topic_gone) == ("_UNKNOWN_PARTITION", True)
    source.commit.assert_not_called()
    publisher.close()


TOO_LARGE = KafkaError(KafkaError.MSG_SIZE_TOO_LARGE)
GIVEN_UP = KafkaError(KafkaError._PURGE_QUEUE)


@pytest.mark.parametrize("under_way", [True, False])
@pytest.mark.parametrize(
    ("reports", "told"),
    [
        ([TOO_LARGE, None], "MSG_SIZE_TOO_LARGE"),
        ([TOO_LARGE, GIVEN_UP], "MSG_SIZE_TOO_LARGE"),
        ([GIVEN_UP, TOO_LARGE], "MSG_SIZE_TOO_LARGE"),
        ([None, TOO_LARGE, KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART)], "MSG_SIZE_TOO_LARGE"),
        ([GIVEN_UP, None], "_PURGE_QUEUE"),
    ],
)
def test_the_first_report_that_says_more_than_that_a_record_was_given_up_is_the_reason(
    reports: list[KafkaError | None], told: str, under_way: bool
) -> None:
    """And is told at once where the rest does not arrive in time."""
    publisher = PlainPublisher(NOWHERE, source := create_autospec(Source, instance=True))
    publisher.begin()
    if under_way:
        publisher.write("outcomes", 0, key=None, value=b"{}", headers=[])
    for report in reports:
        publisher._report(report, None)

    with pytest.raises(AbortableError) as raised:
        publisher.commit({}, Membership(b""), 0.01)

    assert raised.value.code == told
    source.commit.assert_not_called()
    publisher.close()


def test_without_transactions_offsets_are_committed_once_the_results_are_there(
    broker: BrokerHandle, topics: Topics
) -> None:
    topic, source, there = topics.create(partitions=1), create_autospec(Source, instance=True), []
    config = {"bootstrap.servers": broker.bootstrap_servers, "linger.ms": 50, "log_level": 0}
    publisher = PlainPublisher(config, source)
    offsets, group = {Partition("events", 3): (7, "progress")}, Membership(b"")
    source.commit.side_effect = lambda *_: there.extend(topics.read(topic))

    publisher.begin()
    publisher.write_batch(topic, 0, ["first", "second"], None)
    publisher.commit(offsets, group, 30)

    assert [record.value() for record in there] == [b"first", b"second"]
    source.commit.assert_called_once_with(offsets, group, 30)
    publisher.close()


@pytest.mark.parametrize(
    ("error", "told"), [(RetriableError, AbortableError), (AbortableError, AbortableError), (FatalError, FatalError)]
)
def test_without_transactions_a_tick_with_uncommitted_offsets_is_aborted_unless_the_consumer_is_done(
    error: type[KafkaTroubleError], told: type[KafkaTroubleError]
) -> None:
    """A commit that is called again has no offsets: it would pass for one that went well."""
    publisher = PlainPublisher(NOWHERE, source := create_autospec(Source, instance=True))
    source.commit.side_effect = error(KafkaError(KafkaError._TIMED_OUT))
    publisher.begin()

    with pytest.raises(told) as raised:
        publisher.commit({Partition("events", 3): (7, "")}, Membership(b""), 30)

    assert (type(raised.value), raised.value.code) == (told, "_TIMED_OUT")
    publisher.close()


def test_what_a_tick_wrote_that_was_taken_back_does_not_keep_the_next_one_waiting() -> None:
    publisher = PlainPublisher(NOWHERE, source := create_autospec(Source, instance=True))
    publisher.begin()
    publisher.write("outcomes", 0, key=None, value=b"{}", headers=[])

    publisher.abort(5)
    publisher.begin()
    publisher.commit({}, Membership(b""), 5)

    source.commit.assert_called_once()
    publisher.close()


def test_a_publisher_that_is_closed_gives_up_what_it_holds() -> None:
    publisher = PlainPublisher(NOWHERE, create_autospec(Source, instance=True))
    publisher.begin()
    publisher.write("outcomes", 0, key=None, value=b"{}", headers=[])
    has_arrived = publisher.flush(0.01)

    publisher.close()

    assert (has_arrived, publisher.flush(5)) == (False, True)
    with pytest.raises(AbortableError) as raised:
        publisher.commit({}, Membership(b""), 5)
    assert raised.value.code == "_PURGE_QUEUE"


@pytest.mark.parametrize("plain", [True, False])
def test_a_producer_that_cannot_continue_is_reported_as_such_whichever_call_notices(plain: bool) -> None:
    """The library raises it out of any call that serves reports: unmarked, or within an error of the interpreter's."""
    unmarked = KafkaException(KafkaError(KafkaError._FATAL, "fenced"))
    assert isinstance(translate(unmarked), FatalError)
    publisher = PlainPublisher(NOWHERE, create_autospec(Source)) if plain else TransactionalPublisher(NOWHERE)

    def raising(_secs: float) -> int:
        raise unmarked

    def hiding(_secs: float) -> int:
        raise SystemError("a call returned a result with an exception set") from unmarked

    def broken(_secs: float) -> int:
        raise SystemError("of the interpreter's own")

    for call in (raising, hiding):
        with pytest.raises(FatalError):
            publisher._call(call, 0.1)
    with pytest.raises(SystemError):
        publisher._call(broken, 0.1)
    publisher.close()


@pytest.mark.parametrize(
    "call", ["commit", "commit with offsets", "commit with offsets, known", "write", "write batch"]
)
def test_results_that_a_topic_refuses_are_reported_as_such_whichever_call_notices(
    broker: BrokerHandle, topics: Topics, call: str
) -> None:
    """Records behind them are reported as given up, and a call may say no more than that it cannot go on."""
    topic = topics.create(partitions=1, config={"max.message.bytes": "3000"})
    config: dict[str, Any] = {"bootstrap.servers": broker.bootstrap_servers, "transactional.id": topic, "log_level": 0}
    publisher = TransactionalPublisher({**config, "batch.size": 6_000, "linger.ms": 100}, topic)
    consumer = Consumer({"bootstrap.servers": broker.bootstrap_servers, "group.id": topic, "log_level": 0})
    membership = Membership(consumer.consumer_group_metadata())
    publisher.start(30)
    publisher.begin()
    calls: dict[str, Callable[[], object]] = {
        "commit": lambda: publisher.commit({}, membership, 30),
        "write": lambda: publisher.write(topic, 0, key=None, value=b"one more", headers=[]),
        "write batch": lambda: publisher.write_batch(topic, 0, ["one more"], None),
    }

    def write_and_call() -> None:
        publisher.write_batch(topic, 0, [random.Random(n).randbytes(50).hex() for n in range(1_000)], None)
        if call not in {"commit", "commit with offsets"}:
            publisher.flush(30)
        calls.get(call, lambda: publisher.commit({Partition(topic, 0): (7, "")}, membership, 30))()

    with pytest.raises(AbortableError) as raised:  # on a slow machine the first one notices
        write_and_call()

    assert raised.value.too_large
    assert topic in str(raised.value)
    consumer.close()
    publisher.close()


@pytest.mark.parametrize("under_way_secs", [0.0, 0.03, 0.1])
def test_what_was_given_up_is_not_held_against_the_next_tick(
    broker: BrokerHandle, topics: Topics, under_way_secs: float
) -> None:
    """Nor is its producer, which would be thrown away for brokers that do not answer."""
    topic = topics.create(partitions=1)
    config = {"bootstrap.servers": broker.bootstrap_servers, "linger.ms": 100, "log_level": 0}
    publisher = PlainPublisher(config, create_autospec(Source, instance=True))
    publisher.begin()
    publisher.write_batch(topic, 0, ["first"], None)
    publisher.commit({}, Membership(b""), 30)

    for _ in range(5):
        publisher.begin()
        publisher.write_batch(topic, 0, ["given up" * 25] * 20_000, None)
        time.sleep(under_way_secs)
        publisher.abort(30)
        publisher.begin()
        publisher.write_batch(topic, 0, ["next"] * 10, None)
        publisher.commit({}, Membership(b""), 30)

    publisher.close()


def _lose_the_error() -> None:
    """End as a flush was seen to, once in some hundred fenced producers."""
    raise SystemError("<built-in method flush of cimpl.Producer object> returned NULL without setting an exception")


def test_a_call_with_an_error_lost_by_the_library_raises_a_fatal_error() -> None:
    publisher = PlainPublisher(NOWHERE, create_autospec(Source, instance=True))

    with pytest.raises(FatalError):
        publisher._call(_lose_the_error)


@pytest.mark.parametrize("call", ["commit", "commit with offsets", "abort", "flush", "poll"])
def test_a_producer_that_was_fenced_is_reported_as_such_by_the_broker_whichever_call_notices(
    broker: BrokerHandle, topics: Topics, call: str
) -> None:
    """A flush serves the reports that come after the news, and brings an error of the interpreter's."""
    topic = topics.create(partitions=2)
    config = {"bootstrap.servers": broker.bootstrap_servers, "transactional.id": topic, "log_level": 0}
    publisher, heir = TransactionalPublisher(config, topic), TransactionalPublisher(config)
    consumer = Consumer({"bootstrap.servers": broker.bootstrap_servers, "group.id": topic, "log_level": 0})
    membership = Membership(consumer.consumer_group_metadata())
    publisher.start(30)
    publisher.begin()
    for number in range(20):
        publisher.write(topic, number % 2, key=None, value=b"first", headers=[])
    publisher._producer.flush(30)
    heir.start(30)
    for number in range(20):
        publisher.write(topic, number % 2, key=None, value=b"second", headers=[])

    calls: dict[str, Callable[[], object]] = {
        "commit": lambda: publisher.commit({}, membership, 30),
        "commit with offsets": lambda: publisher.commit({Partition(topic, 0): (7, "")}, membership, 30),
        "abort": lambda: publisher.abort(30),
        "flush": lambda: publisher._call(publisher._producer.flush, 30),
        "poll": lambda: [publisher._call(publisher._producer.poll, 0.1) for _ in range(300)],
    }
    with pytest.raises(FatalError) as raised:
        calls[call]()
    with pytest.raises(FatalError) as lost:
        publisher._call(_lose_the_error)

    assert raised.value.fenced
    assert lost.value.fenced == (call != "commit")  # librdkafka tells nothing but that it is not over
    consumer.close()
    heir.close()
    publisher.close()


@pytest.mark.parametrize("message_id", [36, 500])
def test_the_largest_key_that_is_kept_makes_an_outcome_that_its_topic_takes_alone(
    broker: BrokerHandle, topics: Topics, message_id: int
) -> None:
    """However much it tells beside: long names, where the record first came from, the platform's own id."""
    limit, rng = 5_000, random.Random(2)
    topic = topics.create(partitions=1, config={"max.message.bytes": str(limit)})
    name = "".join(rng.choices(string.ascii_letters, k=249))
    origin: Headers = [("trackly.origin.topic", name.encode()), ("trackly.origin.offset", b"1000000000000")]
    verdict = Verdict(
        "queued", "", http_status=200, message_id="".join(rng.choices(string.ascii_letters, k=message_id))
    )
    keys = [rng.randbytes(size) for size in range(limit - 2_000, limit)]
    chunk = Chunk(Partition(name, 100), 1, range(10**12, 10**12 + len(keys)), [b"x"] * len(keys), keys)
    chunk.headers = [origin] * len(keys)
    item = Finished((chunk,), Verdicts(verdict), name[:90], 1, 3, 1_795_813_349_451, 1_795_813_349_451)
    [outcomes] = ResultEncoder(name[:64], "contacts", "group").outcomes(item)
    kept = outcomes.keys_within(limit)
    assert kept is not None
    largest = max(size for size, key in enumerate(kept) if key is not None)
    config = {"bootstrap.servers": broker.bootstrap_servers, "transactional.id": topic, "log_level": 0}
    publisher = TransactionalPublisher(config, topic)
    publisher.start(30)

    publisher.begin()
    publisher.write_batch(topic, 0, outcomes.values[largest : largest + 1], kept[largest : largest + 1])
    publisher.commit({}, Membership(b""), 30)

    assert outcomes.may_exceed(limit)
    assert len(keys[largest]) + len(outcomes.values[largest]) > limit - 150, "no smaller than it has to be"
    publisher.close()


def test_results_that_are_too_large_for_a_segment_of_their_topic_are_reported_as_too_large(
    broker: BrokerHandle, topics: Topics
) -> None:
    """Batches are made smaller for it, and a dead letter that fits none goes without its value."""
    segment = 1 << 20
    config = {"max.message.bytes": "5000000", "segment.bytes": str(segment)}
    topic = topics.create(partitions=1, config=config)
    asking = {"bootstrap.servers": broker.bootstrap_servers, "log_level": 0}
    publisher = TransactionalPublisher({**asking, "transactional.id": topic, "message.max.bytes": 5_000_000}, topic)
    publisher.start(30)
    publisher.begin()
    publisher.write(topic, 0, key=None, value=random.Random(2).randbytes(segment + 1), headers=[])

    with pytest.raises(AbortableError) as raised:
        publisher.commit({}, Membership(b""), 30)

    publisher.close()
    assert raised.value.too_large
    assert AskedTopics(asking, 30).limits([topic]) == {topic: segment}


def test_a_cluster_that_names_no_broker_is_not_asked_for_transactions() -> None:
    """This producer will never reach one: the next may."""
    publisher = TransactionalPublisher(NOWHERE, "outcomes")
    producer = _stand_in(publisher)
    producer.list_topics.return_value.brokers = {}

    with pytest.raises(RetriableError, match="asking for the brokers: no broker is named"):
        publisher.start(30)

    producer.init_transactions.assert_not_called()


def test_a_publisher_without_a_topic_asks_for_transactions_alone() -> None:
    publisher = TransactionalPublisher(NOWHERE)
    producer = _stand_in(publisher)

    publisher.start(30)

    assert not publisher._has_lost_a_broker()
    producer.list_topics.assert_not_called()
    producer.init_transactions.assert_called_once_with(30)


def test_a_broker_is_lost_when_it_is_named_no_more_and_is_lost_once() -> None:
    """As one that has left for good: no answer, and one that names another one beside, tell of none."""
    publisher = TransactionalPublisher(NOWHERE, "outcomes")
    producer = _stand_in(publisher)
    producer.list_topics.return_value.brokers = {1: "one", 2: "two"}
    publisher.start(30)

    def lost(*named: int) -> bool:
        producer.list_topics.return_value.brokers = dict.fromkeys(named)
        return publisher._has_lost_a_broker()

    seen = [lost(1), lost(1), lost(1, 3), lost(3, 4)]
    producer.list_topics.side_effect = KafkaException(KafkaError(KafkaError._TIMED_OUT))
    seen.append(lost())

    assert seen == [True, False, False, True, False]


def test_offsets_are_added_in_half_of_the_time_and_committed_after() -> None:
    """Where the group's coordinator has gone that call waits in vain."""
    publisher = TransactionalPublisher(NOWHERE)
    producer, group = _stand_in(publisher), Membership(b"packed")

    publisher.commit({Partition("events", 3): (7, "progress")}, group, 2)

    (positions, metadata, half), _ = producer.send_offsets_to_transaction.call_args
    assert [(position.topic, position.partition, position.offset, position.metadata) for position in positions] == [
        ("events", 3, 7, "progress")
    ]
    assert (metadata, half) == (group.metadata, 1)
    assert [name for name, *_ in producer.method_calls] == ["send_offsets_to_transaction", "commit_transaction"]


def test_a_transaction_without_its_offsets_is_aborted() -> None:
    publisher = TransactionalPublisher(NOWHERE)
    producer = _stand_in(publisher)
    producer.send_offsets_to_transaction.side_effect = KafkaException(KafkaError(KafkaError._TIMED_OUT))

    with pytest.raises(AbortableError) as raised:
        publisher.commit({Partition("events", 3): (7, "")}, Membership(b""), 30)

    assert raised.value.unanswered
    producer.commit_transaction.assert_not_called()


def test_a_commit_that_was_not_answered_may_be_called_again_and_nothing_is_begun() -> None:
    publisher = TransactionalPublisher(NOWHERE)
    producer = _stand_in(publisher)
    producer.commit_transaction.side_effect = KafkaException(KafkaError(KafkaError._TIMED_OUT))

    with pytest.raises(RetriableError):
        publisher.commit({}, Membership(b""), 30)

    producer.begin_transaction.assert_not_called()


KEPT = KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED, "kept", txn_requires_abort=True)
STATE = KafkaError(KafkaError._STATE)


@pytest.mark.parametrize(
    ("kept", "said", "told"),
    [
        (KEPT, STATE, "TOPIC_AUTHORIZATION_FAILED"),
        (STATE, STATE, "MSG_SIZE_TOO_LARGE"),
        (None, STATE, "MSG_SIZE_TOO_LARGE"),
        (None, KEPT, "TOPIC_AUTHORIZATION_FAILED"),
    ],
)
def test_why_a_transaction_failed_is_its_own_error_or_that_of_the_library_or_else_what_was_reported(
    kept: KafkaError | None, said: KafkaError, told: str
) -> None:
    publisher = TransactionalPublisher(NOWHERE)
    producer = _stand_in(publisher)
    publisher.begin()
    publisher._report(TOO_LARGE, None)
    producer.begin_transaction.side_effect = None if kept is None else KafkaException(kept)
    producer.commit_transaction.side_effect = KafkaException(said)

    with pytest.raises(AbortableError) as raised:
        publisher.commit({}, Membership(b""), 30)

    assert raised.value.code == told


@pytest.mark.parametrize(
    ("kept", "told"),
    [(KafkaError(KafkaError._FENCED, "kept", fatal=True), "_FENCED"), (STATE, "_FATAL"), (None, "_FATAL")],
)
def test_why_a_producer_cannot_continue_is_what_the_library_keeps_if_that_is_fatal(
    kept: KafkaError | None, told: str
) -> None:
    publisher = TransactionalPublisher(NOWHERE)
    _stand_in(publisher).begin_transaction.side_effect = None if kept is None else KafkaException(kept)

    with pytest.raises(FatalError) as raised:
        publisher._call(_lose_the_error)

    assert raised.value.code == told


def test_a_failed_abort_does_not_report_why_the_transaction_failed() -> None:
    publisher = TransactionalPublisher(NOWHERE)
    _stand_in(publisher).abort_transaction.side_effect = KafkaException(STATE)
    publisher.begin()
    publisher._report(TOO_LARGE, None)

    with pytest.raises(AbortableError) as raised:
        publisher.abort(30)

    assert raised.value.code == "_STATE"


@pytest.mark.parametrize("plain", [True, False])
def test_a_report_of_the_last_tick_is_no_reason_for_the_next(plain: bool) -> None:
    """Those of what was given up may come late."""
    publisher = PlainPublisher(NOWHERE, create_autospec(Source)) if plain else TransactionalPublisher(NOWHERE)
    producer = _stand_in(publisher)
    producer.flush.return_value = 0
    publisher.begin()
    publisher._report(TOO_LARGE, None)
    publisher.abort(30)
    publisher._report(GIVEN_UP, None)

    publisher.begin()
    producer.produce.side_effect = KafkaException(KafkaError(KafkaError._INCONSISTENT))

    with pytest.raises(AbortableError) as raised:
        publisher.write("outcomes", 0, key=None, value=b"{}", headers=[])
    assert raised.value.code == "_INCONSISTENT"


def test_a_producer_that_the_brokers_have_forgotten_is_replaced(make_broker: MakeBroker) -> None:
    """As after a week without a transaction, with Kafka's defaults; to abort and try again would never help."""
    broker = make_broker(
        {
            "transactional.id.expiration.ms": "1000",
            "transaction.remove.expired.transaction.cleanup.interval.ms": "200",
        }
    )
    topic = Topics(broker.bootstrap_servers).create()
    config: dict[str, Any] = {"bootstrap.servers": broker.bootstrap_servers, "transactional.id": topic, "log_level": 0}

    def write(publisher: TransactionalPublisher) -> None:
        publisher.begin()
        publisher.write(topic, 0, key=None, value=b"{}", headers=[])
        publisher.commit({}, Membership(b""), 30)

    first = TransactionalPublisher(config, topic)
    first.start(30)
    write(first)

    def write_until_forgotten() -> None:
        deadline = time.monotonic() + PATIENCE_SECS
        while time.monotonic() < deadline:
            time.sleep(2)
            write(first)

    with pytest.raises(FatalError, match="not currently assigned"):
        write_until_forgotten()
    first.close()

    second = TransactionalPublisher(config, topic)
    second.start(30)
    write(second)
    second.close()
