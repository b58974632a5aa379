"""The leader epochs of what was read: by them it is known whether that is still there.

An unclean leader election discards records, and new ones take their offsets in a later epoch. Brokers check only the
offset at which a partition begins, by the epoch of its commit. What was read behind that offset is checked here, since
it is read again anyway.
"""

import sys
from collections.abc import Sequence
from typing import Final

from confluent_kafka import Message

from connector.core.chunks import Partition

NO_EPOCH: Final = -1
"""A leader epoch that is not known, as from brokers before 2.1; then nothing is told of truncation."""


def known_epoch(leader_epoch: int | None) -> int:
    """Return an epoch as librdkafka tells it, or `NO_EPOCH`."""
    return NO_EPOCH if leader_epoch is None else leader_epoch


class LeaderEpochs:
    """The epoch with which each partition is committed: of the last record that was read, or that of the commit.

    Records that were read before a partition began keep their epoch until they are passed.
    """

    def __init__(self) -> None:
        self._epochs: dict[Partition, int] = {}
        self._read_to: dict[Partition, int] = {}
        """The offset up to which a partition was read before it began."""

    def begin(self, partition: Partition, leader_epoch: int, read_to: int) -> None:
        """Note the epoch of what was read before, some of it up to `read_to`."""
        self._epochs[partition] = leader_epoch
        self._read_to[partition] = read_to

    def forget(self, partition: Partition) -> None:
        """Forget what was known under an earlier assignment."""
        self._epochs.pop(partition, None)
        self._read_to.pop(partition, None)

    def passed(self, partition: Partition, last: int, leader_epoch: int | None) -> None:
        """Note the epoch of the last offset that was passed, unless later ones were read before."""
        if leader_epoch is not None and last + 1 >= self._read_to.get(partition, 0):
            self._epochs[partition] = leader_epoch

    def place_of_other(self, partition: Partition, run: Sequence[Message]) -> int | None:
        """Return the place of the first message that took the offset of one that was read before, None without any.

        After that, each later one counts as such, until the partition begins again.
        """
        read_to, leader_epoch = self._read_to.get(partition, 0), self._epochs.get(partition, NO_EPOCH)
        if leader_epoch == NO_EPOCH or _offset(run[0]) >= read_to:
            return None
        for place, message in enumerate(run):
            if _offset(message) < read_to and known_epoch(message.leader_epoch()) > leader_epoch:
                self._read_to[partition] = sys.maxsize
                return place
        return None

    def copy(self) -> dict[Partition, int]:
        """Return the epochs by partition; may be called from any thread."""
        return self._epochs.copy()


def _offset(message: Message) -> int:
    offset = message.offset()
    assert offset is not None
    return offset
