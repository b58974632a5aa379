"""A topic that is recreated under its name while a stream reads it is a different one, with the same offsets."""

import signal
import time
from typing import Any

import pytest

from connector.stream.identities import CHECK_SECS
from tests.kit.patience import PATIENCE_SECS, give
from tests.kit.world import Worker, World, sends


@pytest.mark.parametrize(
    ("protocol", "guarantee"),
    [("classic", "exactly_once"), ("classic", "at_least_once"), ("consumer", "exactly_once")],
)
def test_a_topic_recreated_with_more_than_was_read_of_the_old_one_is_read_from_its_first_record(
    world: World, protocol: str, guarantee: str
) -> None:
    """What is read there before it is noticed is in doubt, and not sent twice."""
    worker = _send_old(world, {"delivery": {"guarantee": guarantee}}, kafka={"group_protocol": protocol})
    _make_anew(world, worker, 160)
    _wait_told(world, worker, 160)

    assert {entry.accepted for entry in world.platform.entries("send")} == {1}


@pytest.mark.parametrize("start", ["earliest", "latest"])
def test_a_topic_recreated_after_its_partitions_were_given_up_is_sent_and_asks_nobody(world: World, start: str) -> None:
    """Its commits were deleted with it. Outcomes have the same offsets, but are of the old topic."""
    worker = _send_old(world, {"start": start})
    world.topics.delete(world.source)
    worker.wait_for(lambda status: not status["partitions"], "the partition is given up")
    _make_anew(world, worker, 100)
    worker.wait_for(lambda status: status["queued"] == 200 or bool(status["holds"]), "all is sent, or it holds")

    assert (_accepted(world, "new"), worker.status()["holds"]) == (100, [])


def _send_old(world: World, stream: dict[str, Any], kafka: dict[str, Any] | None = None) -> Worker:
    """Start a worker, and return it when it has sent a hundred records from one partition."""
    world.source = world.topics.create(partitions=1)
    worker = world.start(world.settings({"kafka": kafka or {}}, stream={"topics": [world.source], **stream}))
    worker.wait_for(lambda status: bool(status["partitions"]), "its partition has begun")
    world.topics.produce(world.source, sends(100, tag="old"))
    worker.wait_for(lambda status: status["queued"] == 100, "the old topic is sent")
    give(2 * CHECK_SECS)  # until the ids are known
    return worker


def _make_anew(world: World, worker: Worker, count: int) -> None:
    """Recreate the topic while the worker is frozen, so that it never sees it with fewer records than in the end."""
    worker.signal(signal.SIGSTOP)
    world.topics.delete(world.source)
    world.topics.create(name=world.source, partitions=1)
    world.topics.produce(world.source, sends(count, tag="new"))
    worker.signal(signal.SIGCONT)


def _wait_told(world: World, worker: Worker, count: int) -> None:
    """Wait until each record of the new topic is accepted, or reported as in doubt."""
    deadline = time.monotonic() + PATIENCE_SECS
    told: set[str] = set()
    while len(told) < count and time.monotonic() < deadline:
        time.sleep(0.2)
        told = {entry.identity for entry in world.platform.entries("send") if entry.accepted}
        told |= {(letter.key() or b"").decode() for letter in world.topics.read(world.dead_letters)}
        told = {identity for identity in told if identity.startswith("new")}
    assert len(told) == count, worker.account(worker.status())


def _accepted(world: World, tag: str) -> int:
    return sum(entry.identity.startswith(tag) for entry in world.platform.entries("send"))
