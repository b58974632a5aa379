"""A replaced consumer: its partitions go to the new one soon, whether or not it could have continued."""

import threading
import time
from typing import Any
from unittest.mock import create_autospec

import pytest
from confluent_kafka import Consumer

from connector.core.chunks import Partition
from connector.demo.finding import BrokerHandle
from connector.demo.topics import Record, Topics
from connector.kafka.replaceable_consumer import ReplaceableConsumer
from connector.kafka.source import Source
from tests.kit.patience import PATIENCE_SECS

PARTITIONS = 4


class Member:
    """Remembers what it holds."""

    def __init__(self) -> None:
        self.held: set[Partition] = set()

    def assigned(self, partitions: list[Partition]) -> None:
        self.held.update(partitions)

    def revoking(self, partitions: list[Partition]) -> None:
        self.held.difference_update(partitions)

    def lost(self, partitions: list[Partition]) -> None:
        self.held.difference_update(partitions)


def _source(broker: BrokerHandle, group: str, protocol: str, member: Member) -> Source:
    config: dict[str, Any] = {
        "bootstrap.servers": broker.bootstrap_servers,
        "group.id": group,
        "group.protocol": protocol,
        "auto.offset.reset": "error",
        "enable.auto.commit": False,
        "log_level": 0,
    }
    if protocol == "classic":
        config |= {"partition.assignment.strategy": "cooperative-sticky", "group.instance.id": "one"}
    return Source(config, member, lambda _: 1)


def _hold_all(source: Source, member: Member) -> float:
    began = time.monotonic()
    while len(member.held) < PARTITIONS:
        assert time.monotonic() < began + PATIENCE_SECS, f"it holds {sorted(member.held)} only"
        source.read(1, 0.1)
    return time.monotonic() - began


@pytest.mark.parametrize("protocol", ["consumer", "classic"])
def test_what_a_replaced_consumer_held_is_not_kept_by_it(broker: BrokerHandle, topics: Topics, protocol: str) -> None:
    """It may find its brokers again: as a member that nobody polls it would keep its partitions for minutes."""
    topic = topics.create(partitions=PARTITIONS)
    topics.produce(topic, [Record(b"x")])
    member = Member()
    source = _source(broker, topic, protocol, member)
    source.subscribe([topic])
    _hold_all(source, member)

    member.held.clear()
    source.renew()
    source.subscribe([topic])
    took = _hold_all(source, member)

    print(f"\nall partitions held again after {took:.1f} s")
    source.close()


def test_a_consumer_is_closed_once_and_not_during_a_call() -> None:
    """The call would never return."""
    old, new = create_autospec(Consumer, instance=True), create_autospec(Consumer, instance=True)
    closed = threading.Event()
    old.close.side_effect = closed.set
    shared = ReplaceableConsumer(old)

    with shared.leased() as first:
        with shared.leased():
            shared.replace(new)
        with shared.leased() as later:
            assert (first, later) == (old, new)
        assert not closed.wait(0.2)
    assert closed.wait(PATIENCE_SECS)
    shared.close(30)

    old.close.assert_called_once_with()
    new.close.assert_called_once_with()
