"""How long posting stands still when something ends or comes back, with the product's default settings.

A steady feed fills every partition, and the ledger's times say when the platform took what. Each test prints what it
measured beside the figure that the product is to keep, and fails far above that: a slow machine is no bug.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from connector.demo.broker import Broker
from connector.demo.topics import Record, Topics
from connector.simulator import Faults, Outage, SimulatorSettings
from connector.simulator.faults import RecordCode
from tests.conftest import MakeBroker, MakeSimulator
from tests.kit.brokers import Listener
from tests.kit.feed import Feed, Watch
from tests.kit.patience import PATIENCE_SECS, tell
from tests.kit.proxy import NamelessProxy
from tests.kit.world import KEY, Worker, World

ALL = (0, 1, 2, 3)
FEW_PER_SEC = 8
"""Enough to see a partition stand still; each batch costs brokers dozens of requests."""

MakeWorld = Callable[[str], World]


@pytest.fixture
def make_world(make_simulator: MakeSimulator, tmp_path: Path) -> Iterator[MakeWorld]:
    """Return a way to make worlds on brokers of the test's own, each with its platform and its folder."""
    made: list[World] = []

    def make(bootstrap_servers: str) -> World:
        folder = tmp_path / str(len(made))
        folder.mkdir()
        platform = make_simulator(SimulatorSettings(api_keys=(KEY,)))
        made.append(World(bootstrap_servers, Topics(bootstrap_servers), platform, folder))
        return made[-1]

    yield make
    for world in made:
        world.close()


def _start(world: World, number: int, protocol: str = "classic") -> Worker:
    settings = world.defaults({"instance_id": f"{world.name}-{number}", "kafka": {"group_protocol": protocol}})
    return world.start(settings)


def _owned(worker: Worker) -> set[int]:
    return {int(name.rpartition(":")[2]) for name in worker.status()["partitions"]}


def _start_two(world: World, feed: Feed, protocol: str = "classic") -> list[Worker]:
    """Start two workers, and wait until each posts for two of the partitions."""
    workers = [_start(world, number, protocol) for number in range(2)]
    _wait_shared(world, feed)
    return workers


def _wait_shared(world: World, feed: Feed) -> None:
    for worker in world.workers:
        worker.wait_for(lambda s: len(s["partitions"]) == 2, "its share of the partitions")
    feed.wait_posted(ALL, after=feed.mark(), since=time.monotonic())


def _judge(world: World, *, at_least_once: bool = False) -> None:
    """At least once, results may come twice; texts may not."""
    found = world.settled()
    assert (found.lost, found.accepted_twice) == (0, 0), found.examples
    assert at_least_once or found.duplicates == 0, found.examples


def test_a_worker_killed_and_restarted_under_its_id_posts_again_soon(world: World) -> None:
    with Feed(world, per_sec=FEW_PER_SEC) as feed:
        workers = _start_two(world, feed)
        its = _owned(workers[0])
        workers[0].kill()
        killed, mark = time.monotonic(), feed.mark()
        _start(world, 0)

        took = feed.wait_posted(its, after=mark, since=killed)

    tell("killed and restarted", took, 10)
    _judge(world)


def test_the_partitions_of_a_worker_that_is_gone_permanently_are_posted_by_another(world: World) -> None:
    with Feed(world, per_sec=FEW_PER_SEC) as feed:
        workers = _start_two(world, feed)
        its = _owned(workers[0])
        workers[0].kill()
        killed, mark = time.monotonic(), feed.mark()

        took = feed.wait_posted(its, after=mark, since=killed)

    tell("killed for good", took, 30)
    _judge(world)


def test_with_the_newer_protocol_a_worker_is_missed_as_soon_as_the_broker_lets_it(
    shaken_broker: Broker, make_world: MakeWorld
) -> None:
    """Sessions are the broker's there: 45 s by its default, 6 s as set here."""
    world = make_world(shaken_broker.bootstrap_servers)
    with Feed(world, per_sec=FEW_PER_SEC) as feed:
        workers = _start_two(world, feed, "consumer")
        its = _owned(workers[0])
        workers[0].kill()
        killed, mark = time.monotonic(), feed.mark()

        took = feed.wait_posted(its, after=mark, since=killed)

    tell("killed for good, newer protocol", took, 15)
    _judge(world)


def test_a_broker_that_restarts_or_dies_and_comes_back_is_used_again_soon(
    shaken_broker: Broker, make_world: MakeWorld
) -> None:
    world = make_world(shaken_broker.bootstrap_servers)
    took = {}
    with Feed(world, per_sec=FEW_PER_SEC) as feed:
        _start_two(world, feed)
        for end in (shaken_broker.stop, shaken_broker.kill):
            end()
            time.sleep(3)
            shaken_broker.restart()
            up, mark = time.monotonic(), feed.mark()
            took[end.__name__] = feed.wait_posted(ALL, after=mark, since=up)

    for how, secs in took.items():
        tell(f"broker back after {how}", secs, 15)
    _judge(world)


@pytest.mark.timeout(1_200)
def test_while_one_of_three_brokers_is_away_the_others_do_its_work(
    three_brokers: list[Broker], make_world: MakeWorld
) -> None:
    """First all are restarted, one after the other, as for an upgrade: each has groups or transactions in its care.

    Then the one that has been up for longest freezes, and one to which its work has gone is killed. Streams of both
    protocols go through all of it. At last one is away whose replicas outcomes need. The controllers here
    miss a node that says nothing any more after 3 s, by Kafka's default after 9 s.
    """
    servers = ",".join(node.bootstrap_servers for node in three_brokers)
    worlds = {protocol: make_world(servers) for protocol in ("classic", "consumer")}
    stood_still: dict[tuple[str, str], float] = {}
    with ExitStack() as feeding:
        # The other nodes name brokers all the while: no producer loses them for good.
        feeds = {
            protocol: feeding.enter_context(Feed(world, per_sec=FEW_PER_SEC, silent_secs=60))
            for protocol, world in worlds.items()
        }
        for protocol, world in worlds.items():
            for number in range(2):
                _start(world, number, protocol)
        for protocol, world in worlds.items():
            _wait_shared(world, feeds[protocol])

        def do(node: Broker, what: str) -> None:
            began = time.monotonic()
            getattr(node, what)()
            marks = {protocol: feed.mark() for protocol, feed in feeds.items()}
            for protocol, feed in feeds.items():
                feed.wait_posted(ALL, after=marks[protocol], since=began)
            time.sleep(1)
            for protocol, feed in feeds.items():
                gap = max(feed.longest_gap(number, began, time.monotonic()) for number in ALL)
                stood_still[protocol, what] = max(gap, stood_still.get((protocol, what), 0.0))

        for node in three_brokers:
            for what in ("stop", "restart"):
                do(node, what)
        for node, troubles in zip(three_brokers, [("pause", "resume"), ("kill", "restart")], strict=False):
            for what in troubles:
                do(node, what)

    for (protocol, what), secs in stood_still.items():
        tell(f"one of three brokers, {what}, {protocol}: no post for", secs, _AWAY_SECS[what])
    for world in worlds.values():
        _judge(world)
        assert [worker.stop() for worker in world.workers] == [0, 0]
    _is_well_while_too_few_replicas_are_in_sync(three_brokers, make_world(servers))


def _is_well_while_too_few_replicas_are_in_sync(three_brokers: list[Broker], world: World) -> None:
    """No restart would help, and each would leave in doubt what was answered meanwhile."""
    world.outcomes = world.topics.create(partitions=4, config={"min.insync.replicas": "3"})
    worker = world.start(world.settings({"health": {"stalled_secs": 9}}))
    with Feed(world, per_sec=FEW_PER_SEC, silent_secs=60) as feed:
        feed.wait_posted(ALL, after=feed.mark(), since=time.monotonic())
        three_brokers[2].stop()
        status = worker.wait_for(
            lambda s: any("min.insync.replicas" in there["detail"] for there in s["standstills"]), "what it waits for"
        )
        healthy = worker.page("/healthz").status_code
        three_brokers[2].restart()
        feed.wait_posted(ALL, after=feed.mark(), since=time.monotonic())

    assert healthy == 200
    assert {(there["waits_for"], there["known"]) for there in status["standstills"]} == {("kafka", True)}
    assert status["standstills"][0]["detail"].startswith(f"{world.outcomes} takes no results while")
    found = world.settled()
    assert (found.problems(), found.in_doubt) == ([], 0)


_AWAY_SECS = {"stop": 7, "restart": 3, "kill": 12, "pause": 40, "resume": 3}
"""Of a broker that freezes: a coordinator that ends a transaction waits 30 s for it."""


TRANSIENT = {"name": "transient", "reasons": ["provider_error"], "delay_secs": 0.5, "max_redrives": 3}


def test_clients_that_were_told_of_no_brokers_reach_them_again(make_broker: MakeBroker, make_world: MakeWorld) -> None:
    """Librdkafka then forgets those that it knows, and where it was told to look for them, mostly for good.

    Nodes answer so while they come up again, before they count as alive. A client that is just asking again when they
    are named comes back by itself. Streams of both guarantees go through it; rules for sending again need transactions.
    """
    rules_of: dict[str, list[dict[str, Any]]] = {"exactly_once": [TRANSIENT], "at_least_once": []}
    with NamelessProxy() as proxy:
        broker = make_broker(listeners=[Listener("DOOR", advertised=proxy.address)])
        proxy.target = int(broker.address("DOOR").rpartition(":")[2])
        worlds = {guarantee: make_world(broker.bootstrap_servers) for guarantee in rules_of}
        with ExitStack() as feeding:
            feeds = {
                guarantee: feeding.enter_context(Feed(world, per_sec=FEW_PER_SEC))
                for guarantee, world in worlds.items()
            }
            for guarantee, world in worlds.items():
                world.topics.create(name=f"{world.name}.redrive")
                settings = world.defaults(
                    {"kafka": {"bootstrap_servers": proxy.address}},
                    stream={
                        "metadata_refresh_secs": 1,
                        "retry": {"max_attempts": 1},
                        "delivery": {"guarantee": guarantee},
                        "dead_letters": {"redrive": rules_of[guarantee]},
                    },
                )
                world.start(settings)
            for feed in feeds.values():
                feed.wait_posted(ALL, after=feed.mark(), since=time.monotonic())
            proxy.nameless = True
            time.sleep(8)
            still, marks = time.monotonic(), {guarantee: feed.mark() for guarantee, feed in feeds.items()}
            time.sleep(2)
            for guarantee, feed in feeds.items():
                assert feed.watch.count(still, time.monotonic()) == 0, f"{guarantee} was not cut off"
            proxy.nameless = False
            back = time.monotonic()

            took = {
                guarantee: feed.wait_posted(ALL, after=marks[guarantee], since=back)
                for guarantee, feed in feeds.items()
            }
            ruled = worlds["exactly_once"]
            ruled.platform.set_faults(Faults(record_codes=(RecordCode(text="again", code="provider_error", times=1),)))
            ruled.topics.produce(ruled.source, [Record(b'{"to": "+15550009999", "body": "again"}')])
            ruled.workers[0].wait_for(lambda s: s["redrives"][0]["redriven"] == 1, "the rule has its brokers back")

        for guarantee, world in worlds.items():
            tell(f"brokers named again, {guarantee}", took[guarantee], 25)
            _judge(world, at_least_once=guarantee == "at_least_once")
            assert world.workers[0].stop() == 0


def test_brokers_that_are_away_for_longer_than_a_session_leave_nothing_in_doubt(
    shaken_broker: Broker, make_world: MakeWorld
) -> None:
    """What the platform has answered meanwhile is still known when the partitions come back: yes, or that it can't."""
    world = make_world(shaken_broker.bootstrap_servers)
    world.platform.set_faults(Faults(latency_ms=(300, 300)))
    world.produce_sends(50_000)
    settings = world.defaults({"kafka": {"session_timeout_secs": 7}}, stream={"batch": {"max_records": 50}})
    worker = world.start(settings)
    worker.wait_for(lambda s: s.get("queued", 0) > 5_000, "work at full speed")
    world.platform.set_faults(Faults(latency_ms=(300, 300), status_override=503))
    time.sleep(0.15)  # so that about half of what is in flight was accepted
    shaken_broker.pause()
    worker.wait_for(lambda s: s.get("partitions") == {}, "the end of the session")
    world.platform.set_faults(Faults(latency_ms=(300, 300)))
    shaken_broker.resume()

    found = world.settled()

    assert found.problems() == []
    assert (found.queued, found.in_doubt) == (50_000, 0)
    assert "answers known from before" in worker.log.read_text(), "nothing was in flight"


@pytest.mark.parametrize(
    "faults", [Faults(outage=Outage(how="refuse")), Faults(status_override=503)], ids=["refused", "503"]
)
def test_after_an_outage_the_full_speed_is_back_soon(world: World, faults: Faults) -> None:
    """Full: nine tenths of what it was before, within a second."""
    slow = 200
    world.platform.set_faults(Faults(latency_ms=(slow, slow)))
    watch = Watch(world.platform)
    world.produce_sends(44_000)  # enough for a minute, so that a busy machine has that long
    worker = world.start(world.defaults(stream={"batch": {"max_records": 2}}))
    worker.wait_for(lambda s: s["concurrency_limit"] == 64, "all requests that may be under way")
    time.sleep(1.5)
    before = watch.count(time.monotonic() - 1, time.monotonic())
    world.platform.set_faults(faults)
    worker.wait_for(lambda s: (s["hold"] or {}).get("reason") == "outage", "the hold")
    time.sleep(17)  # by now a probe would be due every 16 s if their delays only doubled
    world.platform.set_faults(Faults(latency_ms=(slow, slow)))
    back = time.monotonic()

    while (
        time.monotonic() < back + PATIENCE_SECS and watch.count(time.monotonic() - 1, time.monotonic()) < 0.9 * before
    ):
        time.sleep(0.05)

    tell(f"full speed ({before} records/s)", time.monotonic() - back, 5)
    assert worker.status()["lag"] > 0, "there was too little to do to see the speed"


def test_a_worker_that_joins_does_not_stop_the_others(world: World) -> None:
    """Partitions that stay are posted on while others leave and a newcomer takes them."""
    world.platform.set_faults(Faults(latency_ms=(200, 200)))
    with Feed(world) as feed:
        first = _start(world, 0)
        feed.wait_posted(ALL, after=feed.mark(), since=time.monotonic())
        began = time.monotonic()
        second = _start(world, 1)
        second.wait_for(lambda s: len(s["partitions"]) == 2, "its share of the partitions")
        moved = _owned(second)
        took = feed.wait_posted(moved, after=feed.mark(), since=began)
        time.sleep(1)
        kept, ended = _owned(first), time.monotonic()

    assert kept | moved == set(ALL)
    for number in sorted(moved):
        print(f"partition {number} that moved stood still for {feed.longest_gap(number, began, ended):.1f} s")
    print(f"the newcomer posts after {took:.1f} s")
    tell("kept partitions stood still", max(feed.longest_gap(number, began, ended) for number in kept), 1)
    _judge(world)
