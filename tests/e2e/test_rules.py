"""The thirteen rules of the tick on a real broker, each test named after the rule that it tries to break.

In all orders of events the core's part of them is tried by `tests/core/test_flow_laws.py`, kills of every kind by
`test_kills.py`.
"""

import asyncio
import random
import signal
import string
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from pathlib import Path

import pytest
from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._config import AlterConfigOpType, ConfigEntry, ConfigResource
from confluent_kafka.admin._resource import ResourceType
from confluent_kafka.cimpl import NewPartitions
from pydantic import SecretStr

from connector.config.trackly import TracklySettings
from connector.core.progress import Progress, decode, encode
from connector.core.ranges import RangeSet
from connector.demo.broker import Broker
from connector.demo.topics import Record, Topics
from connector.simulator import Faults, SimulatorThread
from connector.stream.identities import CHECK_SECS
from connector.trackly.client import Client
from tests.kit.patience import PATIENCE_SECS, give
from tests.kit.sending import POST_WITHIN_SECS, Bench
from tests.kit.world import KEY, Worker, World, sends

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


def _retain_from(world: World, partition: int, offset: int) -> None:
    """Delete the records below an offset, as retention does."""
    admin = _admin(world)
    for future in admin.delete_records([TopicPartition(world.source, partition, offset)]).values():
        future.result(PATIENCE_SECS)


def _wait_for_hold(worker: Worker, reason: str) -> str:
    status = worker.wait_for(lambda s: any(h["reason"] == reason for h in s["holds"]), f"the hold {reason}")
    return next(str(hold["detail"]) for hold in status["holds"] if hold["reason"] == reason)


def _wait_in_flight(worker: Worker, requests: int = 1) -> None:
    worker.wait_for(lambda s: s["in_flight_requests"] >= requests, f"{requests} requests in flight")


# ------------------------------------------------------------------ rule 1: all commits go through the tick


def test_rule_1_what_the_platform_has_and_what_has_a_result_is_what_is_committed(world: World) -> None:
    """Whenever one looks: no offset without its progress, no result missing below it, no post that was not listed."""
    world.platform.set_faults(Faults(latency_ms=(200, 1_500)))
    records = list(sends(12_000))
    positions = dict(zip((record.key for record in records), world.topics.produce(world.source, records), strict=True))
    world.produced.add_all(positions.values())
    worker = world.start(world.settings(stream={"concurrency": {"max": 4}}))
    seen_under_way = 0
    for _ in range(4):
        worker.wait_for(lambda s: s["in_flight_requests"] >= 2, "requests in flight")
        posted = {positions[entry.identity.encode()] for entry in world.platform.entries("send")}
        committed = _committed(world)
        results = {(o["partition"], o["offset"]) for o in world.outcome_values()}

        told = {partition: decode(spot.offset, spot.metadata) for partition, spot in committed.items()}
        for _, partition, offset in posted:
            progress = told[partition]
            assert offset < progress.base or offset in progress.settled or offset in progress.in_flight
        for partition, progress in told.items():
            assert committed[partition].metadata, "a plain commit"
            settled = {*range(progress.base), *(o for start, stop in progress.settled for o in range(start, stop))}
            assert {(partition, offset) for offset in settled} <= results
            seen_under_way += progress.in_flight.count
    assert seen_under_way > 0

    assert world.settled().problems() == []


def _committed(world: World) -> dict[int, TopicPartition]:
    """Return what the group has committed, by partition."""
    request = ConsumerGroupTopicPartitions(world.group)
    admin = _admin(world)  # whose answers come only while it lives
    [future] = admin.list_consumer_group_offsets([request]).values()
    return {spot.partition: spot for spot in future.result(PATIENCE_SECS).topic_partitions}


# ------------------------------------------------------------------ rule 2: after the revoke, no word about a partition


def test_rule_2_an_answer_that_comes_after_the_partition_has_gone_is_dropped(world: World) -> None:
    """A worker sleeps while its post is answered; its heir has named the records in doubt, and that stays their end."""
    world.platform.set_faults(Faults(latency_ms=(1_000, 1_000)))
    world.produced.add_all(world.topics.produce(world.source, sends(250), partition=0))
    sleeper = world.start(world.settings())
    _wait_in_flight(sleeper)
    sleeper.signal(signal.SIGSTOP)
    heir = world.start(world.settings())
    heir.wait_for(lambda s: s["dead_letters"] == {"in_doubt": 250}, "the heir's word")

    sleeper.signal(signal.SIGCONT)

    world.platform.set_faults(Faults())
    sleeper.wait_for(lambda s: s["requests"] == 1, "the answer")
    world.produce_sends(500, tag="later")
    found = world.settled()
    assert found.problems() == []
    assert (found.queued, found.in_doubt, found.accepted_twice) == (500, 250, 0)


# ------------------------------------------------------------------ rule 3: new state is adopted only after the commit


def test_rule_3_a_commit_that_is_not_answered_starts_nothing_until_it_is_known(
    shaken_broker: Broker, make_world: MakeWorld
) -> None:
    """A broker that hangs leaves a commit's fate open: to abort could undo it, to go on could post twice.

    It hangs for longer than a transaction may take, so that it has ended the one that was open when it comes back.
    """
    world = make_world(shaken_broker)
    world.platform.set_faults(Faults(latency_ms=(20, 80)))
    world.produce_sends(6_000)
    kafka = {"request_timeout_secs": 2, "transaction_timeout_secs": 4}
    worker = world.start(world.settings({"kafka": kafka}, stream={"batch": {"max_records": 50}}))
    _wait_in_flight(worker)

    shaken_broker.pause()
    time.sleep(7)
    shaken_broker.resume()

    found = world.settled()
    assert found.problems() == []
    assert found.accepted_twice == 0
    assert worker.process.poll() is None


def test_rule_3_a_broker_that_is_killed_and_comes_back_loses_and_repeats_nothing(
    shaken_broker: Broker, make_world: MakeWorld
) -> None:
    world = make_world(shaken_broker)
    world.platform.set_faults(Faults(latency_ms=(20, 80)))
    world.produce_sends(6_000)
    kafka = {"request_timeout_secs": 3}
    worker = world.start(world.settings({"kafka": kafka}, stream={"batch": {"max_records": 50}}))
    _wait_in_flight(worker)

    shaken_broker.kill()
    time.sleep(2)
    shaken_broker.restart()

    found = world.settled()
    assert found.problems() == []
    assert found.accepted_twice == 0
    assert worker.process.poll() is None


def test_rule_3_a_fenced_producer_is_replaced_and_what_it_committed_read_back(world: World) -> None:
    """Something took over our transactional id: once may be chance, the worker goes on with a new producer."""
    world.platform.set_faults(Faults(latency_ms=(20, 80)))
    settings = world.settings({"instance_id": f"{world.name}-0"}, stream={"batch": {"max_records": 50}})
    worker = world.start(settings)
    worker.wait_for(lambda s: s["ticks"] >= 1, "its first commit")
    intruder = Producer(
        {"bootstrap.servers": world.bootstrap_servers, "transactional.id": f"{world.group}.{world.name}-0"}
    )
    intruder.init_transactions(30)
    world.produce_sends(4_000)

    found = world.settled()
    assert found.problems() == []
    assert found.accepted_twice == 0
    assert worker.status()["producers_replaced"] >= 1


def test_rule_3_fenced_again_within_a_session_it_stops_and_says_why(world: World) -> None:
    """Two that fence each other without end serve nobody."""
    worker = world.start({**world.settings(), "instance_id": f"{world.name}-0"})
    worker.wait_for(lambda s: s["ticks"] >= 1, "its first commit")

    deadline = time.monotonic() + PATIENCE_SECS
    while worker.process.poll() is None and time.monotonic() < deadline:
        intruder = Producer(
            {"bootstrap.servers": world.bootstrap_servers, "transactional.id": f"{world.group}.{world.name}-0"}
        )
        intruder.init_transactions(30)
        world.produce_sends(100)  # a worker with nothing to commit never hears that it was fenced
        time.sleep(0.5)

    assert worker.process.wait(PATIENCE_SECS) == 4
    assert "FENCED" in worker.log.read_text()


def test_rule_3_a_fenced_consumer_joins_again_and_continues_where_it_was(world: World) -> None:
    """A broker that hung can do this to a worker that has no twin: it answers two joins of the same one."""
    worker = world.start({**world.settings(), "instance_id": f"{world.name}-0"})
    world.produce_sends(1_000)
    worker.wait_for(lambda s: s["queued"] == 1_000, "the first records")
    intruder = Consumer(
        {
            "bootstrap.servers": world.bootstrap_servers,
            "group.id": world.group,
            "group.instance.id": f"{world.name}-0",
            "partition.assignment.strategy": "cooperative-sticky",
            "session.timeout.ms": 6_000,
        }
    )
    intruder.subscribe([world.source])
    deadline = time.monotonic() + PATIENCE_SECS
    while "consumer replaced" not in worker.log.read_text() and time.monotonic() < deadline:
        intruder.poll(0.1)
    intruder.close()

    world.produce_sends(1_000, tag="later")

    found = world.settled()
    assert found.problems() == []
    assert (found.queued, found.accepted_twice) == (2_000, 0)


# ------------------------------------------------------------------ rule 4: a post starts soon after its tick


def test_rule_4_a_batch_whose_tick_is_too_long_ago_is_not_posted_but_listed_again(platform: SimulatorThread) -> None:
    """A worker that slept between the tick and the post may have lost the partition, and others may have posted it."""
    bench = Bench()
    bench.read([b'{"to":"+15550000001","body":"once","list_number":"+18005551234"}'])

    async def post(*, listed_secs_ago: float) -> None:
        sender = bench.sender(Client(TracklySettings(base_url=platform.url, api_key=SecretStr(KEY)), lambda: KEY))
        bench.tick(sender, listed_secs_ago=listed_secs_ago)
        async with asyncio.timeout(PATIENCE_SECS):
            while bench.state.flow.active:  # noqa: ASYNC110 (the sender tells nobody when it is done)
                await asyncio.sleep(0.01)
        await sender.close()

    asyncio.run(post(listed_secs_ago=POST_WITHIN_SECS + 0.1))
    assert (platform.ledger().requests, bench.state.flow.waiting, bench.settled) == (0, 1, [])

    asyncio.run(post(listed_secs_ago=0.0))
    assert (platform.ledger().accepted, bench.state.flow.waiting) == (1, 0)


# ------------------------------------------------------------------ rule 5: metadata that is not ours


def test_rule_5_foreign_metadata_holds_its_partition_alone_until_it_is_reset(world: World) -> None:
    world.produce_sends(4_000)
    before = {position.partition for position in _positions(world)}
    assert before == {0, 1, 2, 3}
    world.commit(TopicPartition(world.source, 0, 10, "not ours"), *_from_the_start(world, 1, 2, 3))
    worker = world.start(world.settings())

    detail = _wait_for_hold(worker, "foreign_metadata")

    assert "kafka-consumer-groups" in detail
    others = sum(position.partition != 0 for position in _positions(world))
    worker.wait_for(lambda s: s["queued"] == others, "the other partitions sent")
    assert worker.stop() == 0
    world.commit(TopicPartition(world.source, 0, 0))
    world.start(world.settings())
    assert world.settled().problems() == []


def _positions(world: World) -> list[TopicPartition]:
    return [
        TopicPartition(str(message.topic()), int(message.partition() or 0), int(message.offset() or 0))
        for message in world.topics.read(world.source)
    ]


def _from_the_start(world: World, *partitions: int) -> list[TopicPartition]:
    return [TopicPartition(world.source, partition, 0) for partition in partitions]


# ------------------------------------------------------------------ rule 6: what surely failed is not in doubt


@pytest.mark.parametrize(("status", "reason"), [(401, "unauthorized"), (503, "outage")])
def test_rule_6_what_was_surely_not_taken_is_not_in_doubt_after_a_kill(world: World, status: int, reason: str) -> None:
    world.platform.set_faults(Faults(status_override=status))
    world.produce_sends(2_000)
    worker = world.start(world.settings(stream={"breaker": {"failures": 3}}))
    _wait_for_hold(worker, reason)
    worker.wait_for(lambda s: s["in_flight_requests"] == 0 and s["waiting_batches"] > 0, "all posts answered")
    deadline = time.monotonic() + PATIENCE_SECS
    while any(decode(spot.offset, spot.metadata).in_flight for spot in _committed(world).values()):
        assert time.monotonic() < deadline, "still listed, although it was surely not taken"
        time.sleep(0.2)
    worker.kill()
    world.platform.set_faults(Faults())

    world.start(world.settings())

    found = world.settled()
    assert found.problems() == []
    assert (found.queued, found.in_doubt) == (2_000, 0)


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


# ------------------------------------------------------------------ rule 8: chunks carry the assignment's epoch


def test_rule_8_partitions_that_go_and_come_back_while_they_are_read_yield_each_record_once(world: World) -> None:
    """A read that is under way may return records of a partition that was revoked during it, or comes back after it."""
    world.platform.set_faults(Faults(latency_ms=(20, 80)))
    settings = world.settings(stream={"batch": {"max_records": 100}, "concurrency": {"max": 4}})
    world.produce_sends(60_000)
    first = world.start({**settings, "instance_id": f"{world.name}-0"})
    _wait_in_flight(first)
    for _ in range(3):
        second = world.start({**settings, "instance_id": f"{world.name}-1"})
        second.wait_for(lambda s: len(s["partitions"]) == 2, "its share of the partitions")
        assert second.stop() == 0
        world.leave(f"{world.name}-1")
        first.wait_for(lambda s: len(s["partitions"]) == 4, "all partitions")

    found = world.settled()

    assert found.problems() == []
    assert (found.queued, found.accepted, found.in_doubt) == (60_000, 60_000, 0)


# ------------------------------------------------------------------ rule 9: callbacks do not block what stays


def test_rule_9_partitions_that_stay_continue_while_others_are_drained(world: World) -> None:
    """One batch of all partitions is not answered; until it is, the revoke waits, and what stays must not."""
    world.platform.set_faults(Faults.model_validate({"stall": {"next": 1}, "latency_ms": 100}))
    settings = world.settings(
        {"trackly": {"timeouts": {"total_secs": 20}}, "shutdown": {"grace_secs": 40}},
        stream={
            "batch": {"max_records": 20},
            "concurrency": {"min": 2, "max": 2},
            "delivery": {"drain_secs": 25},
        },
    )
    for partition in range(4):
        stalled = list(sends(1, tag=f"stalled {partition}"))
        world.produced.add_all(world.topics.produce(world.source, stalled, partition=partition))
    first = world.start(settings)
    _wait_in_flight(first)
    world.produce_sends(20_000)
    world.start(settings)
    began = first.wait_for(lambda _: "partitions revoked" in first.log.read_text(), "the revoke")

    ended = first.wait_for(lambda s: len(s["partitions"]) == 2 or s["dead_letters"] != {}, "the end of the drain")

    assert ended["queued"] >= began["queued"] + 100
    world.platform.set_faults(Faults())
    found = world.settled()
    assert found.problems() == []
    assert found.in_doubt == 4


def test_rule_9_partitions_that_a_worker_let_go_of_before_it_died_are_not_left_to_nobody(world: World) -> None:
    """Its successor takes over the membership as it was, and Kafka sees no reason to give out what nobody has."""
    world.platform.set_faults(Faults.model_validate({"stall": {"next": 4}, "stall_takes_records": True}))
    settings = world.settings(stream={"batch": {"max_records": 20}, "concurrency": {"max": 4}})
    world.produce_sends(2_000)
    first = world.start({**settings, "instance_id": f"{world.name}-0"})
    _wait_in_flight(first)
    second = world.start({**settings, "instance_id": f"{world.name}-1"})
    first.wait_for(lambda _: "partitions revoked" in first.log.read_text(), "the revoke")
    first.kill()
    world.platform.set_faults(Faults())

    heir = world.start({**settings, "instance_id": f"{world.name}-0"})

    heir.wait_for(lambda s: len(s["partitions"]) == 2, "its share")
    second.wait_for(lambda s: len(s["partitions"]) == 2, "what nobody had")
    assert world.settled().problems() == []


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


def test_rule_10_a_limit_that_was_raised_is_seen_before_anything_is_cut_for_it(world: World) -> None:
    world.dead_letters = world.topics.create(partitions=4, config={"max.message.bytes": "20000"})
    worker = world.start(world.settings())
    worker.wait_for(lambda s: s["partitions"] != {}, "its partitions")
    _set_limit(world, world.dead_letters, 900_000)
    world.produce([Record(b"x" * 50_000, b"large")], "not_json")

    found = world.settled()

    assert found.problems() == []
    assert [len(letter.value() or b"") for letter in world.topics.read(world.dead_letters)] == [50_000]


def _has_queued(count: int, status: dict[str, int]) -> bool:
    return status["queued"] == count


@pytest.mark.parametrize("guarantee", ["exactly_once", "at_least_once"])
def test_rule_10_results_that_fit_one_by_one_are_written_where_a_batch_of_them_would_not(
    world: World, guarantee: str
) -> None:
    """A topic limits what is sent together, and nobody tells a producer that its limit was lowered."""
    world.produce_sends(2_000)
    worker = world.start(world.settings(stream={"delivery": {"guarantee": guarantee}}))
    worker.wait_for(lambda s: s.get("queued") == 2_000, "work as ever")
    _set_limit(world, world.outcomes, 3_000)
    until = time.monotonic() + PATIENCE_SECS
    for sent in count(4_000, 2_000):  # on a slow machine they may come one by one, and then each batch fits
        world.produce_sends(2_000, tag=f"later {sent}")
        worker.wait_for(partial(_has_queued, sent), "all settled")
        if "MSG_SIZE_TOO_LARGE" in worker.log.read_text():
            break
        assert time.monotonic() < until, "no batch was too large"

    repeats_allowed = guarantee == "at_least_once"
    assert world.settled().problems(repeats_allowed=repeats_allowed) == []

    # Put right, it is seen without a restart: with a record or two in a batch a stream would crawl from now on.
    _set_limit(world, world.outcomes, 1_048_588)
    until = time.monotonic() + PATIENCE_SECS
    for number in count():
        world.produce_sends(50, tag=f"last {number}")
        if "larger batches" in worker.log.read_text():
            break
        assert time.monotonic() < until, "batches stay small"
        time.sleep(0.5)
    found = world.settled()
    assert found.problems(repeats_allowed=repeats_allowed) == []
    assert worker.status()["producers_replaced"] == 2


@pytest.mark.parametrize("guarantee", ["exactly_once", "at_least_once"])
def test_rule_10_results_that_do_not_shrink_are_written_in_batches_that_fit_as_they_are(
    world: World, guarantee: str
) -> None:
    """They are put together in the hope of compression, and lz4 cannot do anything about keys at random."""
    texts = ["".join(random.Random(n).choices(string.ascii_letters, k=700)) for n in range(2_000)]
    world.produce([Record(b'{"to":"+15550000001","body":"%s"}' % text.encode(), text.encode()) for text in texts])
    _set_limit(world, world.outcomes, 50_000)
    worker = world.start(world.settings(stream={"delivery": {"guarantee": guarantee}}))

    worker.wait_for(lambda s: s["queued"] == 2_000, "all settled")

    assert world.settled().problems(repeats_allowed=guarantee == "at_least_once") == []
    assert worker.status()["producers_replaced"] == 2, "one of four hopes for the half, which is in vain, too"
    assert "MSG_SIZE_TOO_LARGE" in worker.log.read_text()


def test_rule_10_dead_letters_that_do_not_shrink_are_written_at_the_limits_that_topics_have(world: World) -> None:
    """A batch may be refused while others are still being written: then a call to write says so."""
    world.produce([Record(b"\xff" + random.Random(n).randbytes(1_500), b"%d" % n) for n in range(20_000)], "not_utf8")
    worker = world.start(world.settings(stream={"storm_guard": {"enabled": False}}))

    worker.wait_for(lambda s: s["dead_letters"] == {"not_utf8": 20_000}, "all settled")

    assert world.settled().problems() == []
    assert worker.status()["producers_replaced"] <= 3, "a slow machine fills no batch that is refused"


@pytest.mark.parametrize("guarantee", ["exactly_once", "at_least_once"])
def test_rule_10_an_outcome_topic_that_takes_not_even_one_outcome_holds_until_it_does(
    world: World, guarantee: str
) -> None:
    _set_limit(world, world.outcomes, 100)
    world.produce_sends(500)
    worker = world.start(world.settings(stream={"delivery": {"guarantee": guarantee}}))

    _wait_for_hold(worker, "results_refused")

    (hold,) = worker.status()["holds"]
    assert f"{world.outcomes} takes 100 bytes, {world.dead_letters} takes 1,048,588 bytes" in hold["detail"]
    assert hold["ends"] == "probe"
    _set_limit(world, world.outcomes, 1_048_588)
    worker.wait_for(lambda s: s["queued"] == 500 and not s["holds"], "all settled")
    assert world.settled().problems(repeats_allowed=guarantee == "at_least_once") == []


def _set_limit(world: World, topic: str, limit: int) -> None:
    entry = ConfigEntry("max.message.bytes", str(limit), incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
    admin = _admin(world)
    for future in admin.incremental_alter_configs([resource]).values():
        future.result(PATIENCE_SECS)


def test_rule_10_an_outcome_topic_that_is_deleted_holds_until_it_is_there_again(world: World) -> None:
    world.produce_sends(500)
    worker = world.start(world.settings())
    worker.wait_for(lambda s: s["queued"] == 500, "all settled")
    world.topics.delete(world.outcomes)
    world.topics.produce(world.source, sends(300, tag="later"))

    _wait_for_hold(worker, "topic_missing")

    world.outcomes = world.topics.create(partitions=4, name=world.outcomes)
    worker.wait_for(lambda s: s["queued"] == 800 and not s["holds"], "the rest settled")
    found = world.topics.read(world.outcomes)
    assert len(found) == 300
    assert {outcome.partition() for outcome in found} == {0, 1, 2, 3}, "each beside its source, as ever"
    assert worker.status()["dead_letters"] == {}


def test_rule_10_partitions_of_a_deleted_topic_leave_the_tick_and_others_continue(world: World) -> None:
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


@pytest.mark.parametrize("reset", [False, True])
def test_rule_11_partitions_added_later_are_read_from_their_beginning(world: World, reset: bool) -> None:
    """Also where the offsets were reset by Kafka's own tool, which leaves nothing of ours beside them."""
    if reset:
        world.commit(*_from_the_start(world, 0, 1, 2, 3))
    worker = world.start(world.settings(stream={"start": "latest", "metadata_refresh_secs": 1}))
    worker.wait_for(lambda s: len(s["partitions"]) == 4 and s["ticks"] >= 1, "its partitions")
    admin = _admin(world)
    for future in admin.create_partitions([NewPartitions(world.source, 6)]).values():
        future.result(PATIENCE_SECS)
    for partition in (4, 5):
        world.produced.add_all(world.topics.produce(world.source, sends(30, tag=f"p{partition}"), partition=partition))

    worker.wait_for(lambda s: len(s["partitions"]) == 6, "the new partitions")

    assert world.settled().problems() == []


@pytest.mark.parametrize("on_missing", ["hold", "continue"])
def test_rule_11_records_that_retention_removed_unread_are_counted_and_hold_unless_told_otherwise(
    world: World, on_missing: str
) -> None:
    world.topics.produce(world.source, sends(100), partition=0)
    world.commit(TopicPartition(world.source, 0, 20), *_from_the_start(world, 1, 2, 3))
    _retain_from(world, 0, 50)

    worker = world.start(world.settings(stream={"on_missing": on_missing}))

    if on_missing == "hold":
        assert "30" in _wait_for_hold(worker, "records_missing")
        assert worker.status()["queued"] == 0
    else:
        worker.wait_for(lambda s: s["queued"] == 50, "what is left sent")
    assert worker.status()["missing"] == 30


def test_rule_11_what_an_unclean_election_discarded_while_nobody_read_holds_however_much_was_written_since(
    shaken_broker: Broker, make_world: MakeWorld
) -> None:
    """A restarted broker begins an epoch, as an election does; an unclean one leaves commits behind the last one's end.

    Without the epoch the records below them would be taken for those that were read, as would those at offsets that a
    commit before that end lists as settled or in flight.
    """
    world = make_world(shaken_broker)
    world.produce_sends(40)
    worker = world.start(world.settings())
    worker.wait_for(lambda s: s["queued"] == 40, "all posted")
    worker.stop()
    ends, stood = world.topics.ends(world.source), _committed(world)
    shaken_broker.restart()
    world.produce_sends(80, tag="new")
    beyond = Progress(ends[0] + 5, birth=4)
    behind = Progress(ends[1], 4, 0, RangeSet([(ends[1] + 1, ends[1] + 4)]), RangeSet([(ends[1] + 4, ends[1] + 5)]))
    beyond_even_the_new = Progress(ends[2] + 1_000, birth=4)
    for number, progress in enumerate([beyond, behind, beyond_even_the_new]):
        world.commit(TopicPartition(world.source, number, progress.base, encode(progress), 0))

    holds = []
    for _ in range(2):  # a restart does not forget the hold
        worker = world.start(world.settings())
        holds += worker.wait_for(lambda s: len(s["holds"]) == 3, "the holds")["holds"]
        worker.stop()
    worker = world.start(world.settings(stream={"on_missing": "continue"}))
    found = world.settled()

    assert {spot.leader_epoch for spot in stood.values()} == {0}
    assert {hold["reason"] for hold in holds} == {"records_missing"}
    for number, last in enumerate([ends[0] + 4, ends[1] + 4, ends[2] + 999]):
        told = f"{world.source}:{number}: what was read from offset {ends[number]} up to {last} was discarded"
        assert sum(told in hold["detail"] for hold in holds) == 2
    assert found.problems() == []
    assert found.accepted_twice == 0
    _is_read_when_it_is_recreated(world, worker)


def _is_read_when_it_is_recreated(world: World, worker: Worker) -> None:
    """Recreate a topic with lower leader epochs, which librdkafka takes for outdated ones of the old topic."""
    give(2 * CHECK_SECS)  # until the topic's id is known
    queued = worker.status()["queued"]
    world.topics.delete(world.source)
    world.topics.create(name=world.source, partitions=4)
    world.topics.produce(world.source, sends(400, tag="recreated"))

    worker.wait_for(lambda s: s["queued"] == queued + 400, "the new topic is sent")


def test_rule_11_records_that_retention_removes_ahead_of_the_reader_are_counted_and_the_rest_is_sent(
    world: World,
) -> None:
    """The reader stands still for lack of room when the broker takes away what it would have read next."""
    world.platform.set_faults(Faults(status_override=401))
    padding = "x" * 4_000
    events = [
        Record(b'{"to":"+1555%07d","body":"%s"}' % (number, padding.encode()), b"%d" % number)
        for number in range(16_000)
    ]
    world.topics.produce(world.source, events, partition=0)
    worker = world.start(world.settings({"buffer": {"max_bytes": 48_000_000}}, stream={"on_missing": "continue"}))
    _wait_for_hold(worker, "unauthorized")
    give(2)  # until it reads no more
    read = worker.status()["records_read"]
    _retain_from(world, 0, 15_000)

    world.platform.set_faults(Faults())

    status = worker.wait_for(
        lambda s: s["queued"] == read + 1_000 and s["lag"] == 0,  # which is measured once a second
        "what was read, and what is left",
    )
    assert status["missing"] == 15_000 - read


# ------------------------------------------------------------------ rule 12: instance ids


def test_rule_12_two_live_workers_with_one_id_do_not_fence_each_other(world: World) -> None:
    settings = {**world.settings(), "instance_id": f"{world.name}-x"}
    first = world.start(settings)
    first.wait_for(lambda s: s["partitions"] != {}, "its partitions")

    second = world.start(settings)

    assert second.process.wait(PATIENCE_SECS) == 4
    assert "instance_id" in second.log.read_text()
    world.produce([Record(b'{"to":"+15550000001","body":"one"}', b"one")])
    assert world.settled().problems() == []


# ------------------------------------------------------------------ rule 13: without transactions


def test_rule_13_at_least_once_needs_no_transactions(world: World) -> None:
    world.produce_sends(5_000)
    world.start(world.settings(stream={"delivery": {"guarantee": "at_least_once"}}))

    found = world.settled()

    assert found.problems() == []


def test_rule_13_at_least_once_names_in_doubt_what_a_kill_leaves_and_posts_nothing_twice(world: World) -> None:
    """The same progress stands in plain commits, made before the posts."""
    world.platform.set_faults(Faults.model_validate({"stall": {"next": 2}, "stall_takes_records": True}))
    world.produce_sends(3_000)
    settings = world.settings(stream={"delivery": {"guarantee": "at_least_once"}})
    worker = world.start(settings)
    worker.wait_for(lambda s: s["queued"] == 2_500 and s["in_flight_requests"] == 2, "all others settled")
    worker.kill()

    world.start(settings)

    found = world.settled()
    assert found.problems(repeats_allowed=True) == []
    assert (found.accepted_twice, found.in_doubt) == (0, 500)
