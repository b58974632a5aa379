"""What other connectors got wrong, over a real broker: each failure has a test of its name, told in our own words.

What the core alone can get wrong is in `tests/core/test_regressions.py`; a key that is refused, an outage and mixed
lists are on the main road (`test_delivery.py`), and the rules of the tick in `test_rules.py`.
"""

from confluent_kafka import Message

from connector.demo.topics import Record
from connector.simulator import Faults, Poison, RecordCode
from tests.kit.world import Worker, World, sends


def _wait_in_flight(worker: Worker) -> None:
    worker.wait_for(lambda s: s["in_flight_requests"] >= 1, "a request in flight")


def _wait_dead_letters(worker: Worker, count: int) -> None:
    worker.wait_for(lambda s: s["dead_letters"] == {"invalid_phone": count}, f"{count} dead letters")


def _headers(message: Message) -> tuple[tuple[str, bytes | None], ...]:
    return tuple(message.headers() or ())  # type: ignore[arg-type] # the stubs do not tell lists from mappings


def test_one_poison_record_among_ten_thousand_is_dead_lettered_alone(world: World) -> None:
    """The peers' failure: one record that the platform cannot digest takes its whole batch to the dead letters."""
    world.platform.set_faults(Faults(poison=(Poison(text="poison", status=500),)))
    world.produce_sends(5_000)
    world.produce([Record(b'{"to":"+15550000001","body":"poison"}', b"poison")], "server_error")
    world.produce_sends(5_000, tag="more")
    world.start(world.settings())

    found = world.settled()

    assert found.problems() == []
    assert found.dead_letters == {"server_error": 1}


def test_records_with_a_transient_code_are_sent_again_alone(world: World) -> None:
    """EventBridge's sink and others post the whole batch again when one record failed: all others are sent twice."""
    world.platform.set_faults(Faults(record_codes=(RecordCode(text="text 7", code="provider_error", times=2),)))
    world.produce_sends(300)
    world.start(world.settings())

    found = world.settled()

    assert found.problems() == []
    assert found.queued == 300
    posted = world.platform.ledger().records_by_endpoint["/send/bulk"]
    assert posted == 300 + 2 * 11, "`text 7` and `text 70` to `text 79`, twice more each"


def test_a_lower_limit_than_documented_is_learned(world: World) -> None:
    """413 halves the batch and the limit is remembered: nothing is dead-lettered, and most later batches fit."""
    world.platform.set_faults(Faults(body_limit_bytes=5_000))
    world.produce_sends(10_000)
    worker = world.start(world.settings(stream={"batch": {"max_records": 1_000}}))

    found = world.settled()

    assert found.problems() == []
    assert found.dead_letters == {}
    assert worker.status()["requests_by_row"]["too_large"] < 600


def test_a_record_that_no_limit_admits_is_dead_lettered_alone_and_does_not_loop(world: World) -> None:
    """A bulk that is answered 413 is posted again as it is, or its record vanishes; here the partition goes on."""
    world.platform.set_faults(Faults(body_limit_bytes=5_000))
    large = Record(b'{"to":"+15550000001","body":"%s"}' % (b"m" * 8_000), b"m" * 8_000)
    world.produced.add_all(world.topics.produce(world.source, sends(500), partition=0))
    world.produced.add_all(world.topics.produce(world.source, [large], partition=0), "payload_too_large")
    world.produced.add_all(world.topics.produce(world.source, sends(500, tag="after"), partition=0))
    worker = world.start(world.settings())

    found = world.settled()

    assert found.problems() == []
    assert found.dead_letters == {"payload_too_large": 1}
    assert worker.status()["requests_by_row"]["too_large"] < 60


def test_a_record_above_the_request_limit_neither_blocks_nor_vanishes(world: World) -> None:
    """Several sinks drop what is larger than a batch, one splits it without end; here it costs no request at all."""
    large = Record(b'{"to":"+15550000001","body":"%s"}' % (b"m" * 30_000), b"large")
    world.produced.add_all(world.topics.produce(world.source, sends(300), partition=0))
    world.produced.add_all(world.topics.produce(world.source, [large], partition=0), "record_too_large")
    world.produced.add_all(world.topics.produce(world.source, sends(300, tag="after"), partition=0))
    worker = world.start(world.settings(stream={"batch": {"max_bytes": 20_000}}))

    found = world.settled()

    assert found.problems() == []
    assert found.dead_letters == {"record_too_large": 1}
    assert set(worker.status()["requests_by_row"]) == {"accepted"}


def test_two_topics_with_equal_partitions_and_offsets_are_not_mixed_up(world: World) -> None:
    """A buffer without the topic in its key loses records; a commit of the last record's partition forgets the others.

    Batches mix eight partitions of two topics, where every offset is there eight times; a restart reads nothing again.
    """
    other = world.topics.create(partitions=4)
    for partition in range(4):
        for topic, tag in ((world.source, "here"), (other, "there")):
            records = list(sends(100, tag=f"{tag} {partition}"))
            world.produced.add_all(world.topics.produce(topic, records, partition=partition))
    settings = world.settings(stream={"topics": [world.source, other], "batch": {"max_records": 37}})
    worker = world.start(settings)
    assert world.settled().problems() == []
    assert worker.stop() == 0

    worker = world.start(settings)
    world.produce_sends(10, tag="later")

    found = world.settled()
    assert found.problems() == []
    assert (found.queued, found.accepted) == (810, 810)
    assert worker.status()["records_read"] == 10


def test_no_offset_is_committed_past_a_batch_that_is_still_in_flight(world: World) -> None:
    """What was unfinished is forgotten when later records are done: a kill then loses it. Here it is named in doubt."""
    world.platform.set_faults(Faults.model_validate({"stall": {"next": 1}}))
    world.produce_sends(2_000)
    worker = world.start(world.settings())
    worker.wait_for(lambda s: s["queued"] == 1_750 and s["in_flight_requests"] == 1, "all others settled")
    worker.kill()

    world.start(world.settings())

    found = world.settled()
    assert found.problems() == []
    assert (found.queued, found.in_doubt) == (1_750, 250)


def test_what_is_answered_after_the_reading_has_ended_is_committed_before_the_exit(world: World) -> None:
    """Offsets are kept by the poll loop: it ends, the last batch is answered, and the restart sends it again."""
    world.platform.set_faults(Faults(latency_ms=(2_000, 2_000)))
    world.produce_sends(250)
    worker = world.start(world.settings())
    _wait_in_flight(worker)

    assert worker.stop() == 0

    found = world.judge()
    assert found.problems() == []
    assert found.queued == 250
    world.produce_sends(1, tag="later")
    worker = world.start(world.settings())
    worker.wait_for(lambda s: s["queued"] == 1, "the later record")
    assert worker.status()["records_read"] == 1


def test_a_dead_letter_that_is_sent_again_and_fails_again_carries_each_header_once(world: World) -> None:
    """Headers pile up with every round until Kafka refuses the record; copied by a console, it is a record as any."""
    bad = Record(b'{"to":"0555","body":"x"}', b"k", (("trace", b"1"),))
    world.topics.produce(world.source, [bad], partition=1)
    worker = world.start(world.settings())
    for failures in range(1, 5):
        _wait_dead_letters(worker, failures)
        if failures < 4:
            letter = world.topics.read(world.dead_letters)[-1]
            world.topics.produce(world.source, [Record(letter.value(), letter.key(), _headers(letter))], partition=1)

    letters = world.topics.read(world.dead_letters)

    names = [[name for name, _ in _headers(letter)] for letter in letters]
    assert [sorted(each) for each in names] == [sorted(set(names[0]))] * 4
    assert {(letter.value(), letter.key()) for letter in letters} == {(bad.value, bad.key)}
    headers = world.headers_of_dead_letters()
    assert [each["__dlq.errors.offset"] for each in headers] == ["0", "1", "2", "3"]
    assert {(each["trackly.origin.offset"], each["trace"]) for each in headers} == {("0", "1")}


def test_a_stream_that_is_renamed_posts_nothing_again_before_somebody_decides(world: World) -> None:
    """Its group is called after it, and the new one has no commits; 24,200 texts were sent twice."""
    world.produce_sends(40)
    worker = world.start(world.settings())
    worker.wait_for(lambda s: s["queued"] == 40, "all is sent")
    assert worker.stop() == 0

    renamed = world.start(world.settings(stream={"name": f"{world.name}-renamed"}))
    status = renamed.wait_for(lambda s: len(s["holds"]) == 4, "a hold of each partition")

    assert {hold["reason"] for hold in status["holds"]} == {"progress_missing"}
    assert world.judge().problems() == []
