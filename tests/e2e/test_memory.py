"""The memory of a worker with a large backlog is limited by its settings, whatever the topic contains."""

import time
from collections.abc import Iterator
from typing import Any

from confluent_kafka import Producer

from benchmarks.processes import rss_mb
from connector.demo.topics import Record
from connector.simulator import Faults
from tests.kit.world import Worker, World, sends

LIMIT_MB = 350
BACKLOG = 3_000_000
PARTITIONS = 8


def _fill(world: World, topic: str, count: int) -> None:
    """Produce many good events at once; nobody asks for their positions."""
    producer = Producer(
        {"bootstrap.servers": world.bootstrap_servers, "linger.ms": 20, "queue.buffering.max.messages": 1_000_000}
    )
    events = [{"value": record.value, "key": record.key} for record in sends(count // PARTITIONS // 25)]
    for _ in range(25):
        for partition in range(PARTITIONS):
            while producer.produce_batch(topic, events, partition=partition) < len(events):
                raise AssertionError("the producer's queue is full")
        producer.flush(60)


def test_the_platform_is_down_and_millions_wait_for_three_streams_and_memory_stays_flat(world: World) -> None:
    """Each stream has read as much as its budget lets it; after that nothing grows, for as long as the outage lasts."""
    topic = world.topics.create(partitions=PARTITIONS)
    _fill(world, topic, BACKLOG)
    world.platform.set_faults(Faults(status_override=503))
    settings = world.defaults()
    [one] = settings["streams"]
    settings["streams"] = [
        {**one, "name": f"{world.name}-{number}", "topics": [topic], "list_number": "+18005551234"}
        for number in range(3)
    ]
    worker = world.start(settings)
    deadline = time.monotonic() + 120
    streams: list[dict[str, Any]] = []
    while time.monotonic() < deadline:
        streams = worker.page("/status").json()["streams"] if worker.status() else []
        if streams and all(s["holds"] and s["lag"] == BACKLOG for s in streams):
            break
        time.sleep(0.5)
    else:
        raise AssertionError(f"the streams do not hold over their backlog: {streams}")

    seen = list(_watched(worker, 8))

    middle = len(seen) // 2
    earlier, later = max(seen[:middle]), max(seen[middle:])
    print(f"RSS over the outage: {seen[0]:.0f} MB at first, at most {earlier:.0f} MB, later {later:.0f} MB")
    assert later < LIMIT_MB
    assert later <= 1.05 * earlier
    worker.kill()


def _watched(worker: Worker, secs: float) -> Iterator[float]:
    began = time.monotonic()
    while time.monotonic() < began + secs:
        yield rss_mb(worker.pid)
        time.sleep(0.25)


def test_a_large_record_and_a_huge_reply_pass_through_and_leave_no_memory_behind(world: World) -> None:
    """A record of 1 MB is posted or dead-lettered; of a reply of 100 MB no more is read than a reply may have."""
    source = world.topics.create(partitions=4, config={"max.message.bytes": "3000000"})
    world.dead_letters = world.topics.create(partitions=4, config={"max.message.bytes": "3000000"})
    worker = world.start(world.settings(stream={"topics": [source]}))
    world.topics.produce(source, sends(1_000))
    worker.wait_for(lambda s: s["queued"] == 1_000, "the first records")
    before = rss_mb(worker.pid)
    large = b'{"to":"+15550000001","body":"%s"}' % (b"x" * 1_000_000)
    producer = Producer({"bootstrap.servers": world.bootstrap_servers, "message.max.bytes": 3_000_000})
    for value in (large, large[:-2]):
        producer.produce(source, value, b"large")
    producer.flush(30)
    worker.wait_for(lambda s: s["queued"] + sum(s["dead_letters"].values()) == 1_002, "both large ones settled")

    world.platform.set_faults(Faults(huge_reply_bytes=100_000_000))
    world.topics.produce(source, [Record(b'{"to":"+15550000001","body":"huge"}', b"huge")])
    worker.wait_for(lambda s: s["dead_letters"].get("in_doubt") == 1, "a reply that nobody reads to its end")

    after = max(_watched(worker, 2))
    print(f"RSS {before:.0f} MB before, {after:.0f} MB after")
    assert after < before + 60
    assert after < LIMIT_MB
