"""The rules of the tick where Kafka itself gets in the way, on a real broker, each named after the rule that it breaks.

Rules that other tests prove whole: all commits through the tick, snapshot order, nothing posted before it is listed,
what surely failed is not in doubt (`tests/core/test_flow_laws.py`); kills, a frozen worker, a worker that joins, two
live workers with one id, records in doubt read again (`test_kills.py`); `at_least_once` (`test_delivery.py`).
"""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from confluent_kafka import ConsumerGroupTopicPartitions, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewPartitions

from connector.demo.broker import Broker
from connector.demo.topics import Record, Topics
from connector.simulator import Faults, SimulatorThread
from tests.conftest import MakeBroker
from tests.kit.world import Worker, World, sends

MakeWorld = Callable[[Broker], World]


@pytest.fixture
def make_world(platform: SimulatorThread, tmp_path: Path) -> Iterator[MakeWorld]:
    """Return a way to make a world on a broker of the test's own."""
    made: list[World] = []

    def make(broker: Broker) -> World:
        made.append(World(broker.bootstrap_servers, Topics(broker.bootstrap_servers), platform, tmp_path))
        return made[-1]

    yield make
    for world in made:
        world.close()


def _admin(world: World) -> AdminClient:
    return AdminClient({"bootstrap.servers": world.bootstrap_servers})


def _group(world: World) -> str:
    return f"trackly-connector.{world.name}"


def _commit(world: World, *spots: TopicPartition) -> None:
    """Commit offsets of the group, as another program would that uses its name."""
    request = ConsumerGroupTopicPartitions(_group(world), list(spots))
    admin, deadline = _admin(world), time.monotonic() + 30
    while True:  # a static member that stopped stays in its group until its session ends
        [future] = admin.alter_consumer_group_offsets([request]).values()
        try:
            errors = [spot.error for spot in future.result(30).topic_partitions if spot.error is not None]
        except KafkaException as error:
            errors = [error]
        if not errors:
            return
        assert time.monotonic() < deadline, errors
        time.sleep(0.5)


def _retain_from(world: World, partition: int, offset: int) -> None:
    """Delete the records below an offset, as retention does."""
    admin = _admin(world)
    for future in admin.delete_records([TopicPartition(world.source, partition, offset)]).values():
        future.result(30)


def _wait_for_hold(worker: Worker, reason: str) -> str:
    status = worker.wait_for(lambda s: any(h["reason"] == reason for h in s["holds"]), f"the hold {reason}")
    return next(str(hold["detail"]) for hold in status["holds"] if hold["reason"] == reason)


def _wait_in_flight(worker: Worker, requests: int = 1) -> None:
    worker.wait_for(lambda s: s["in_flight_requests"] >= requests, f"{requests} requests in flight")


# ------------------------------------------------------------------ rule 3: new state is adopted only after the commit


@pytest.mark.timeout(180)
def test_rule_3_a_commit_that_is_not_answered_starts_nothing_until_it_is_known(
    make_broker: MakeBroker, make_world: MakeWorld
) -> None:
    """A broker that hangs leaves a commit's fate open: to abort could undo it, to go on could post twice.

    It hangs for longer than a transaction may take, so that it has ended the one that was open when it comes back.
    """
    broker = make_broker()
    world = make_world(broker)
    world.platform.set_faults(Faults(latency_ms=(20, 80)))
    world.produce_sends(30_000)
    worker = world.start(world.settings({"kafka": {"request_timeout_secs": 2}}))
    _wait_in_flight(worker)

    broker.pause()
    time.sleep(14)
    broker.resume()

    found = world.settled(within_secs=90)
    assert found.problems() == []
    assert found.accepted_twice == 0
    assert worker.process.poll() is None


@pytest.mark.timeout(180)
def test_rule_3_a_broker_that_is_killed_and_comes_back_loses_and_repeats_nothing(
    make_broker: MakeBroker, make_world: MakeWorld
) -> None:
    broker = make_broker()
    world = make_world(broker)
    world.platform.set_faults(Faults(latency_ms=(20, 80)))
    world.produce_sends(30_000)
    worker = world.start(world.settings({"kafka": {"request_timeout_secs": 3}}))
    _wait_in_flight(worker)

    broker.kill()
    time.sleep(2)
    broker.restart()

    found = world.settled(within_secs=100)
    assert found.problems() == []
    assert found.accepted_twice == 0
    assert worker.process.poll() is None


def test_rule_3_a_fenced_producer_is_replaced_and_what_it_committed_read_back(world: World) -> None:
    """Something took over our transactional id: once may be chance, the worker goes on with a new producer."""
    world.platform.set_faults(Faults(latency_ms=(20, 80)))
    worker = world.start({**world.settings(), "instance_id": f"{world.name}-0"})
    worker.wait_for(lambda s: s["ticks"] >= 1, "its first commit")
    intruder = Producer(
        {"bootstrap.servers": world.bootstrap_servers, "transactional.id": f"{_group(world)}.{world.name}-0"}
    )
    intruder.init_transactions(30)
    world.produce_sends(20_000)

    found = world.settled(within_secs=60)
    assert found.problems() == []
    assert found.accepted_twice == 0
    assert worker.status()["producers_replaced"] >= 1


def test_rule_3_fenced_again_within_a_session_it_stops_and_says_why(world: World) -> None:
    """Two that fence each other without end serve nobody."""
    worker = world.start({**world.settings(), "instance_id": f"{world.name}-0"})
    worker.wait_for(lambda s: s["ticks"] >= 1, "its first commit")

    deadline = time.monotonic() + 60
    while worker.process.poll() is None and time.monotonic() < deadline:
        intruder = Producer(
            {"bootstrap.servers": world.bootstrap_servers, "transactional.id": f"{_group(world)}.{world.name}-0"}
        )
        intruder.init_transactions(30)
        world.produce_sends(100)  # a worker with nothing to commit never hears that it was fenced
        time.sleep(0.5)

    assert worker.process.wait(30) == 4
    assert "FENCED" in worker.log.read_text()


# ------------------------------------------------------------------ rule 5: metadata that is not ours


def test_rule_5_foreign_metadata_holds_its_partition_alone_until_it_is_reset(world: World) -> None:
    world.produce_sends(4_000)
    before = {position.partition for position in _positions(world)}
    assert before == {0, 1, 2, 3}
    _commit(world, TopicPartition(world.source, 0, 10, "not ours"), *_from_the_start(world, 1, 2, 3))
    worker = world.start(world.settings())

    detail = _wait_for_hold(worker, "foreign_metadata")

    assert "kafka-consumer-groups" in detail
    others = sum(position.partition != 0 for position in _positions(world))
    worker.wait_for(lambda s: s["queued"] == others, "the other partitions sent")
    assert worker.stop() == 0
    _commit(world, TopicPartition(world.source, 0, 0))
    world.start(world.settings())
    assert world.settled().problems() == []


def _positions(world: World) -> list[TopicPartition]:
    return [
        TopicPartition(str(message.topic()), int(message.partition() or 0), int(message.offset() or 0))
        for message in world.topics.read(world.source)
    ]


def _from_the_start(world: World, *partitions: int) -> list[TopicPartition]:
    return [TopicPartition(world.source, partition, 0) for partition in partitions]


# ------------------------------------------------------------------ rule 7: records in doubt that are gone


def test_rule_7_records_in_doubt_that_retention_removed_are_settled_and_counted(world: World) -> None:
    """There is nothing left to write a dead letter of; the number says how many nobody will hear of."""
    world.platform.set_faults(Faults.model_validate({"stall": {"next": 1}, "stall_takes_records": True}))
    world.topics.produce(world.source, sends(100), partition=0)
    worker = world.start(world.settings())
    _wait_in_flight(worker)
    worker.kill()
    _retain_from(world, 0, 60)
    world.platform.set_faults(Faults())
    world.topics.produce(world.source, sends(40, tag="later"), partition=0)

    worker = world.start(world.settings())

    status = worker.wait_for(lambda s: s["queued"] == 40, "the later records sent")
    assert status["vanished"] == 60
    assert status["missing"] == 0
    assert status["dead_letters"] == {"in_doubt": 40}


# ------------------------------------------------------------------ rule 10: what Kafka refuses


def test_rule_10_a_dead_letter_that_is_too_large_goes_without_its_value_and_says_so(world: World) -> None:
    world.dead_letters = world.topics.create(partitions=4, config={"max.message.bytes": "20000"})
    world.topics.produce(world.source, [Record(b"x" * 50_000, b"large"), *sends(10)])
    worker = world.start(world.settings())

    worker.wait_for(lambda s: s["queued"] == 10 and s["dead_letters"] == {"not_json": 1}, "all settled")

    [letter] = world.topics.read(world.dead_letters)
    assert letter.key() == b"large"
    assert letter.value() is None
    [headers] = world.headers_of_dead_letters()
    assert headers["trackly.value_omitted"].startswith("50000 bytes")


def test_rule_10_an_outcome_topic_that_is_deleted_holds_until_it_is_there_again(world: World) -> None:
    world.produce_sends(500)
    worker = world.start(world.settings())
    worker.wait_for(lambda s: s["queued"] == 500, "all settled")
    world.topics.delete(world.outcomes)
    world.topics.produce(world.source, sends(300, tag="later"))

    _wait_for_hold(worker, "topic_missing")

    world.outcomes = world.topics.create(partitions=4, name=world.outcomes)
    worker.wait_for(lambda s: s["queued"] == 800 and not s["holds"], "the rest settled")
    assert len(world.topics.read(world.outcomes)) == 300
    assert worker.status()["dead_letters"] == {}


def test_rule_10_partitions_of_a_deleted_topic_leave_the_tick_and_others_go_on(world: World) -> None:
    other = world.topics.create(partitions=2)
    world.platform.set_faults(Faults(latency_ms=(20, 80)))
    world.topics.produce(other, sends(2_000, tag="doomed"))
    world.produce_sends(5_000)
    worker = world.start(world.settings(stream={"topics": [world.source, other]}))
    _wait_in_flight(worker)

    world.topics.delete(other)

    found = world.settled()
    assert [problem for problem in found.problems() if "lost" in problem] == []
    assert found.queued >= 5_000
    world.produce(sends(100, tag="later"))
    assert world.settled().lost == 0


# ------------------------------------------------------------------ rule 11: where to begin


def test_rule_11_a_group_without_commits_commits_its_start_at_once_for_every_partition(world: World) -> None:
    """Else what comes to a partition before its first commit would be passed over after a restart with `latest`."""
    world.topics.produce(world.source, sends(50, tag="before"))
    worker = world.start(world.settings(stream={"start": "latest"}))
    worker.wait_for(lambda s: len(s["partitions"]) == 4 and s["ticks"] >= 1, "the first commit")
    assert worker.stop() == 0

    world.produce(sends(40, tag="while away"))
    worker = world.start(world.settings(stream={"start": "latest"}))

    assert world.settled().problems() == []
    assert worker.status()["records_read"] == 40


def test_rule_11_partitions_added_later_are_read_from_their_beginning(world: World) -> None:
    worker = world.start(world.settings(stream={"start": "latest", "metadata_refresh_secs": 1}))
    worker.wait_for(lambda s: len(s["partitions"]) == 4 and s["ticks"] >= 1, "its partitions")
    admin = _admin(world)
    for future in admin.create_partitions([NewPartitions(world.source, 6)]).values():
        future.result(30)
    for partition in (4, 5):
        world.produced.add_all(world.topics.produce(world.source, sends(30, tag=f"p{partition}"), partition=partition))

    worker.wait_for(lambda s: len(s["partitions"]) == 6, "the new partitions")

    assert world.settled().problems() == []


@pytest.mark.parametrize("on_missing", ["hold", "continue"])
def test_rule_11_records_that_retention_removed_unread_are_counted_and_hold_unless_told_otherwise(
    world: World, on_missing: str
) -> None:
    world.topics.produce(world.source, sends(100), partition=0)
    _commit(world, TopicPartition(world.source, 0, 20), *_from_the_start(world, 1, 2, 3))
    _retain_from(world, 0, 50)

    worker = world.start(world.settings(stream={"on_missing": on_missing}))

    if on_missing == "hold":
        assert "30" in _wait_for_hold(worker, "records_missing")
        assert worker.status()["queued"] == 0
    else:
        worker.wait_for(lambda s: s["queued"] == 50, "what is left sent")
    assert worker.status()["missing"] == 30
