"""Members of consumer groups: to find a worker with the same id before it is fenced, and partitions with no owner."""

import struct
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from connector.core.chunks import Partition
from connector.kafka.configs import Config
from connector.kafka.errors import UNTIL_GIVEN_UP_SECS, KafkaTroubleError, answer, translate
from connector.kafka.topics import partitions_of

_REBALANCE_SECS = 10.0


@dataclass(frozen=True, slots=True)
class Member:
    """A member of a group, as the coordinator reports it."""

    client_id: str
    instance_id: str | None


def members(config: Config, group: str, timeout_secs: float) -> list[Member]:
    """Return the members of a group, none for a group that does not exist. Raises `KafkaTroubleError`."""
    admin = AdminClient(cast("Any", config))
    future = admin.describe_consumer_groups([group], request_timeout=UNTIL_GIVEN_UP_SECS)[group]
    try:
        described = answer(future, timeout_secs, f"asking who is in group {group}")
    except KafkaTroubleError as trouble:
        if trouble.code == "GROUP_ID_NOT_FOUND":
            return []
        raise
    return [Member(member.client_id, member.group_instance_id) for member in described.members]


def set_offsets(config: Config, group: str, offsets: Mapping[Partition, tuple[int, str]], timeout_secs: float) -> None:
    """Commit offsets with metadata to a group without members; all or some of them.

    Raises `KafkaTroubleError`, also if the group has members, because then the commits are theirs.
    """
    doing = f"committing offsets of group {group}"
    positions = [TopicPartition(*partition, offset, metadata) for partition, (offset, metadata) in offsets.items()]
    admin = AdminClient(cast("Any", config))
    asked = admin.alter_consumer_group_offsets(
        [ConsumerGroupTopicPartitions(group, positions)], request_timeout=UNTIL_GIVEN_UP_SECS
    )
    for position in answer(asked[group], timeout_secs, doing).topic_partitions or ():
        if position.error is not None:
            raise translate(KafkaException(position.error), f"{doing}, {position.topic}:{position.partition}")


class Group:
    """A consumer group of the classic protocol, seen from outside."""

    def __init__(self, config: Config, group: str, timeout_secs: float) -> None:
        # The C client goes on after its warning was raised as an error (`PYTHONWARNINGS=error`), and fails with an
        # ImportError that names a module. The filter stays: `catch_warnings` swaps the filters of all threads.
        warnings.filterwarnings("ignore", r"list_groups\(\) is deprecated", DeprecationWarning)
        self._config = cast("Any", config)
        self._admin = AdminClient(self._config)
        self._group = group
        self._timeout_secs = timeout_secs
        self._complete: set[Partition] | None = None
        """What its members had when no partition was left over."""

    def orphans(self, topics: Sequence[str]) -> frozenset[Partition]:
        """Return the partitions of these topics (names and patterns) that no member of a stable group reads.

        A static member that comes back is assigned what it had, without a rebalance: partitions of a topic that it no
        longer subscribes to count as not read. Raises `KafkaTroubleError`.
        """
        try:  # not by `describe_consumer_groups`, which does not tell what members subscribe to
            groups = self._admin.list_groups(self._group, timeout=self._timeout_secs)
            if [group.state for group in groups] != ["Stable"]:
                return frozenset()
            owned = {
                partition
                for member in groups[0].members
                for topics_read in [subscribed(member.metadata or b"")]
                for partition in assigned(member.assignment or b"")
                if partition.topic in topics_read
            }
            # The topics of the whole cluster are queried only when something has moved: new partitions come with a
            # rebalance of their own.
            if owned == self._complete:
                return frozenset()
            orphans = partitions_of(topics, self._admin.list_topics(timeout=self._timeout_secs)) - owned
        except KafkaException as error:
            self._admin = AdminClient(self._config)  # this client may have lost its brokers: see `reachability`
            raise translate(error, f"asking what group {self._group} has") from error
        if not orphans:
            self._complete = owned
        return frozenset(orphans)


def subscribed(metadata: bytes) -> set[str]:
    """Return the topics that a member reads, from a ConsumerProtocolSubscription.

    Version (2 bytes), count (4), then the names, each with its length (2).
    """
    found, at = set(), 6
    for _ in range(_count(metadata, 2, of_bytes=2)):
        name, at = _name(metadata, at)
        found.add(name)
    return found


def assigned(assignment: bytes) -> set[Partition]:
    """Return the partitions of a member, from a ConsumerProtocolAssignment.

    Version (2 bytes), count of topics (4), then for each its name with length (2), count (4) and partition numbers (4
    each).
    """
    found: set[Partition] = set()
    at = 6
    for _ in range(_count(assignment, 2, of_bytes=2)):
        name, at = _name(assignment, at)
        numbers, at = at + 4, at + 4 + 4 * _count(assignment, at, of_bytes=4)
        found |= {Partition(name, number) for (number,) in struct.iter_unpack(">i", assignment[numbers:at])}
    return found


def _count(data: bytes, at: int, *, of_bytes: int) -> int:
    """Return the count at an index, no more than the data has room for: any client in the group may have set it."""
    return min(int.from_bytes(data[at : at + 4]), max(len(data) - at - 4, 0) // of_bytes)


def _name(data: bytes, at: int) -> tuple[str, int]:
    """Return the name at an index, and the index after it."""
    end = at + 2 + int.from_bytes(data[at : at + 2])
    return data[at + 2 : end].decode(errors="replace"), end


def trigger_rebalance(config: Config, topic: str) -> None:
    """Trigger a rebalance of a group, by a member that joins for a moment and reads none of the group's topics.

    `config` is that of the group's consumers; `topic` is one that they do not read. Raises `KafkaTroubleError`.
    """
    own = {name: value for name, value in config.items() if name != "group.instance.id"}
    consumer = Consumer({**own, "auto.offset.reset": "latest"})
    joined: list[object] = []
    deadline = time.monotonic() + _REBALANCE_SECS
    try:
        consumer.subscribe([topic], on_assign=lambda _consumer, positions: joined.append(positions))
        while not joined and time.monotonic() < deadline:
            consumer.poll(0.1)
    except KafkaException as error:
        raise translate(error, "joining the group for a moment") from error
    finally:
        consumer.close()
