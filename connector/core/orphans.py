"""When partitions that no worker has are to be given out again.

With static members and cooperative rebalances a worker that dies after it has let go of partitions, and before it has
joined again, leaves them to nobody: its successor takes the membership over as it was, and Kafka sees no reason to
rebalance.
"""

from collections.abc import Set as AbstractSet

from connector.core.chunks import Partition

AGAIN_SECS, AGAIN_MAX_SECS = 30.0, 600.0
"""What a rebalance did not change, as for a topic that is not known to all yet, is not tried all the time."""


class OrphanWatch:
    """Remembers which partitions had no worker, and since when."""

    def __init__(self, *, settle_secs: float) -> None:
        self._settle_secs = settle_secs
        self._orphans: AbstractSet[Partition] = frozenset()
        self._since = 0.0
        self._not_before = float("-inf")
        self._again_secs = AGAIN_SECS

    def seen(self, orphans: AbstractSet[Partition], *, now: float) -> bool:
        """Return whether to have the group rebalanced: the same ones have had no worker for a while."""
        if orphans != self._orphans:
            self._orphans, self._since = frozenset(orphans), now
        if not orphans:
            self._again_secs = AGAIN_SECS
        if not orphans or now - self._since < self._settle_secs or now < self._not_before:
            return False
        self._not_before = now + self._again_secs
        self._again_secs = min(2 * self._again_secs, AGAIN_MAX_SECS)
        return True
