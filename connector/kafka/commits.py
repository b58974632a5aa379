"""What a group has committed, and as which member offsets are committed."""

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from confluent_kafka import OFFSET_INVALID, KafkaException, TopicPartition

from connector.core.chunks import Partition
from connector.kafka.leader_epochs import NO_EPOCH, known_epoch


@dataclass(frozen=True, slots=True)
class Committed:
    """The group's commit for a partition; `offset` is None without one."""

    offset: int | None
    metadata: str
    leader_epoch: int = NO_EPOCH
    """That of the records before it, by which brokers can tell whether these are still there."""


def committed_of(answers: Iterable[TopicPartition]) -> dict[Partition, Committed]:
    """Return commits from a response; raises KafkaException if it has an error for a partition."""
    found = {}
    for answer in answers:
        if answer.error is not None:
            raise KafkaException(answer.error)
        offset = None if answer.offset == OFFSET_INVALID else answer.offset
        where = Partition(answer.topic, answer.partition)
        found[where] = Committed(offset, answer.metadata or "", known_epoch(answer.leader_epoch))
    return found


@dataclass(frozen=True, slots=True)
class Membership:
    """librdkafka's group metadata, and how many times partitions had been lost or revoked when it was read.

    `leader_epochs` are those of the last records that were read, by partition.
    """

    metadata: bytes
    losses: int = 0
    leader_epochs: Mapping[Partition, int] = field(default_factory=dict)

    def positions(self, offsets: Mapping[Partition, tuple[int, str]]) -> list[TopicPartition]:
        """Return offsets with metadata as they are committed.

        By their epoch brokers can tell whoever starts there whether an unclean leader election has discarded what was
        read before. It may be the epoch of a later record than the one before the offset: epochs never decrease.
        """
        return [
            TopicPartition(*partition, offset, metadata, self.leader_epochs.get(partition, NO_EPOCH))
            for partition, (offset, metadata) in offsets.items()
        ]


def generation_and_member(packed: bytes) -> tuple[int, bytes]:
    """Return a consumer's group generation, below 1 before the first, and its member id, if any.

    With KIP-848 the generation is the member's epoch. The only source is the serialized group metadata for
    transactions: a magic word, the generation, then group, member id and more, each with a zero byte at its end.
    """
    rest = packed.partition(b":")[2]
    fields = rest[4:].split(b"\0")
    return int.from_bytes(rest[:4], sys.byteorder, signed=True), fields[1] if len(fields) > 1 else b""
