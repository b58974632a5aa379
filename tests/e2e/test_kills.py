"""Processes that die, freeze and come back: nothing lost, nobody texted twice, one result each."""

import signal
import time
from pathlib import Path

import pytest

from connector.demo.broker import Broker
from connector.demo.judge import Judgement
from connector.demo.topics import Topics
from connector.simulator import Faults, SimulatorThread
from tests.kit.feed import Feed
from tests.kit.patience import PATIENCE_SECS, tell
from tests.kit.world import DRAIN_SECS, PATIENT, Worker, World, sends


def _wait_in_flight(worker: Worker, requests: int = 1) -> None:
    worker.wait_for(lambda s: s["in_flight_requests"] >= requests, f"{requests} requests in flight")


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_kills_and_a_frozen_worker_lose_nothing_and_text_nobody_twice(
    shaken_broker: Broker, platform: SimulatorThread, tmp_path: Path, protocol: str
) -> None:
    """Three `kill -9` with batches in flight, one of them for good, and one freeze beyond the session timeout.

    Two workers and 800 batches; the frozen one wakes up with posts in hand.
    """
    address = shaken_broker.bootstrap_servers
    world = World(address, Topics(address), platform, tmp_path)
    platform.set_faults(Faults(latency_ms=(600, 2_400)))
    settings = world.settings(
        {"kafka": {"group_protocol": protocol}},
        stream={"batch": {"max_records": 50}, "concurrency": {"max": 8}},
    )
    world.produce_sends(40_000)
    workers = [world.start({**settings, "instance_id": f"{world.name}-{n}"}) for n in range(2)]
    try:
        for _ in range(2):  # killed with batches in flight, and restarted under its id
            _wait_in_flight(workers[0])
            workers[0].kill()
            workers[0] = world.start({**settings, "instance_id": f"{world.name}-0"})
        _wait_in_flight(workers[1])
        workers[1].signal(signal.SIGSTOP)
        workers[0].wait_for(lambda s: len(s["partitions"]) == 4, "what the frozen one had")
        workers[1].signal(signal.SIGCONT)
        _wait_in_flight(workers[0])
        workers[0].kill()  # and never restarted
        platform.set_faults(Faults(latency_ms=(20, 80)))

        found = world.settled()
    finally:
        world.close()

    _report(protocol, found)
    assert found.problems() == []
    assert found.accepted_twice == 0
    assert found.queued + found.in_doubt == 40_000


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_a_worker_that_is_frozen_as_it_lets_a_partition_go_says_nothing_of_those_that_it_kept(
    shaken_broker: Broker, platform: SimulatorThread, tmp_path: Path, protocol: str
) -> None:
    """By the time it wakes up they are another worker's, and it joins the group anew before it is told so."""
    address = shaken_broker.bootstrap_servers
    world = World(address, Topics(address), platform, tmp_path)
    settings = world.settings({"kafka": {"group_protocol": protocol}})
    try:
        with Feed(world) as feed:
            first = world.start({**settings, "instance_id": f"{world.name}-0"})
            feed.wait_posted(range(4), after=feed.mark(), since=time.monotonic())
            platform.set_faults(Faults(latency_ms=(2_000, 2_000)))
            second = world.start({**settings, "instance_id": f"{world.name}-1"})
            deadline = time.monotonic() + PATIENCE_SECS
            while "partitions revoked" not in first.log.read_text() and time.monotonic() < deadline:
                time.sleep(0.01)
            first.signal(signal.SIGSTOP)
            platform.set_faults(Faults(latency_ms=(20, 80)))
            second.wait_for(lambda s: len(s["partitions"]) == 4, "all partitions")
            feed.wait_posted(range(4), after=feed.mark(), since=time.monotonic())
            first.signal(signal.SIGCONT)
            first.wait_for(lambda s: s["in_flight_records"] and len(s["partitions"]) == 2, "its share, and work")
            feed.wait_posted(range(4), after=feed.mark(), since=time.monotonic())

        found = world.settled()
    finally:
        world.close()

    assert found.problems() == []


def _report(name: str, found: Judgement) -> None:
    print(
        f"{name}: {found.queued} queued, {found.in_doubt} in doubt, {found.accepted} accepted, "
        f"{found.accepted_twice} twice, {found.lost} lost"
    )


def test_a_graceful_stop_under_load_leaves_nothing_in_doubt(world: World) -> None:
    world.platform.set_faults(Faults(latency_ms=(20, 80)))
    world.produce_sends(10_000)
    worker = world.start(world.settings(stream={"batch": {"max_records": 50}}))
    _wait_in_flight(worker)
    began = time.monotonic()

    assert worker.stop() == 0

    tell("a stop, with delivery.drain_secs", time.monotonic() - began, 8)
    left = world.judge()
    assert left.lost > 0, "it stopped in the middle"
    assert left.accepted == left.queued, "and has told what became of each post"
    world.start(world.settings())
    found = world.settled()
    assert found.problems() == []
    assert found.in_doubt == 0


@pytest.mark.parametrize("in_doubt", ["dead_letter", "resend"])
def test_a_stop_under_full_load_leaves_in_doubt_what_the_platform_stalls_and_nothing_else(
    world: World, in_doubt: str
) -> None:
    """The answers never come: the stop ends by its deadline, and only what was posted is doubted."""
    world.platform.set_faults(Faults.model_validate({"stall": {"next": 10_000}, "stall_takes_records": True}))
    world.produce_sends(20_000)
    settings = world.settings(stream={"delivery": {"drain_secs": 7, "in_doubt": in_doubt}, "concurrency": {"max": 8}})
    worker = world.start(settings)
    status = worker.wait_for(lambda s: s["in_flight_requests"] == 8, "as many requests in flight as there may be")
    assert (status["in_flight_records"], status["requests"]) == (2_000, 0)
    began = time.monotonic()

    assert worker.stop() == 0

    tell("a stop, with delivery.drain_secs", time.monotonic() - began, 7)
    world.platform.set_faults(Faults())
    left = world.judge()
    assert (left.accepted, left.queued) == (2_000, 0)
    assert left.in_doubt == (2_000 if in_doubt == "dead_letter" else 0)
    world.start(settings)
    found = world.settled()
    if in_doubt == "dead_letter":
        assert found.problems() == []
        assert (found.queued, found.in_doubt) == (18_000, 2_000)
    else:
        assert (found.lost, found.duplicates, found.queued, found.accepted_twice) == (0, 0, 20_000, 2_000)
        assert sum(outcome.get("resent", False) for outcome in world.outcome_values()) == 2_000


def test_a_stop_that_the_platform_stalls_ends_at_the_deadline(world: World) -> None:
    world.platform.set_faults(Faults.model_validate({"stall": {"next": 3}, "stall_takes_records": True}))
    world.produce_sends(2_000)
    worker = world.start(
        world.settings({"trackly": {"timeouts": {"total_secs": 5}}}, stream={"delivery": {"drain_secs": 7}})
    )
    _wait_in_flight(worker)
    began = time.monotonic()

    code = worker.stop()

    assert code in (0, 5)
    tell("a stop, with delivery.drain_secs", time.monotonic() - began, 7)
    world.start(world.settings())
    found = world.settled()
    assert found.problems() == []
    assert found.in_doubt == 750


def test_a_second_signal_stops_at_once(world: World) -> None:
    world.platform.set_faults(Faults.model_validate({"stall": {"next": 1_000}}))
    world.produce_sends(2_000)
    worker = world.start(world.settings(PATIENT, stream={"delivery": {"drain_secs": DRAIN_SECS}}))
    _wait_in_flight(worker)
    worker.signal(signal.SIGTERM)
    worker.wait_for(lambda s: s["state"] == "draining", "the drain")

    assert worker.stop() == 5


def test_a_crash_is_sent_again_and_flagged_where_the_operator_chose_so(world: World) -> None:
    world.platform.set_faults(Faults.model_validate({"stall": {"next": 4}, "stall_takes_records": True}))
    world.produce_sends(1_000)
    worker = world.start(world.settings(stream={"delivery": {"in_doubt": "resend"}}))
    _wait_in_flight(worker, 4)
    worker.kill()
    world.platform.set_faults(Faults())
    world.start(world.settings(stream={"delivery": {"in_doubt": "resend"}}))

    found = world.settled()

    assert found.lost == found.duplicates == 0
    outcomes = world.outcome_values()
    assert sum(outcome.get("resent", False) for outcome in outcomes) == 1_000


def test_in_doubt_can_wait_for_the_operator_across_restarts(world: World) -> None:
    world.platform.set_faults(Faults.model_validate({"stall": {"next": 4}, "stall_takes_records": True}))
    world.produce_sends(1_000)
    settings = world.settings(stream={"delivery": {"in_doubt": "hold"}})
    worker = world.start(settings)
    _wait_in_flight(worker, 4)
    worker.kill()
    world.platform.set_faults(Faults())
    worker = world.start(settings)
    worker.wait_for(lambda s: any(h["reason"] == "in_doubt" for h in s["holds"]), "the hold")
    assert worker.stop() == 0
    assert world.topics.read(world.outcomes) == []

    world.start(world.settings(stream={"delivery": {"in_doubt": "dead_letter"}}))

    found = world.settled()
    assert found.problems() == []
    assert found.in_doubt == 1_000


def test_a_worker_that_joins_takes_its_share_and_nothing_is_repeated(world: World) -> None:
    world.platform.set_faults(Faults(latency_ms=(20, 80)))
    world.produce_sends(8_000)
    settings = world.settings(stream={"batch": {"max_records": 50}})
    first = world.start(settings)
    _wait_in_flight(first)
    second = world.start(settings)
    second.wait_for(lambda s: len(s["partitions"]) == 2, "its share of the partitions")

    found = world.settled()

    assert found.problems() == []
    assert found.in_doubt == 0


def test_a_restart_begins_after_what_is_settled(world: World) -> None:
    world.produce_sends(1_000)
    worker = world.start(world.settings())
    world.settled()
    assert worker.stop() == 0
    world.produce(sends(10, tag="later"))
    worker = world.start(world.settings())

    found = world.settled()

    assert found.problems() == []
    assert worker.status()["records_read"] == 10


def test_no_broker_is_reported_and_ends_after_the_set_time(world: World) -> None:
    settings = world.settings({"kafka": {"bootstrap_servers": "127.0.0.1:1", "startup_timeout_secs": 3}})
    worker = world.start(settings)

    assert worker.process.wait(PATIENCE_SECS) == 3
    assert "no broker answers at 127.0.0.1:1" in worker.log.read_text()


def test_a_missing_topic_is_named_with_the_command_that_creates_it(world: World) -> None:
    worker = world.start(world.settings(stream={"outcomes": {"topic": "nowhere.to.be.found"}}))

    assert worker.process.wait(PATIENCE_SECS) == 2
    assert "kafka-topics.sh" in worker.log.read_text()
    assert "nowhere.to.be.found" in worker.log.read_text()


def test_missing_topics_are_created_where_allowed(world: World) -> None:
    outcomes, dead = f"{world.source}.made.outcomes", f"{world.source}.made.dead"
    world.outcomes, world.dead_letters = outcomes, dead
    world.produce_sends(100)
    world.start(
        world.settings(
            stream={
                "outcomes": {"topic": outcomes},
                "dead_letters": {"topic": dead},
                "create_topics": {"enabled": True, "replication_factor": 1},
            }
        )
    ).wait_for(lambda s: s["queued"] == 100, "all settled")

    assert world.settled().problems() == []
    world.topics.delete(outcomes, dead)
