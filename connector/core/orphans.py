"""When to trigger a rebalance because partitions have no owner.

With static members and cooperative rebalances, a worker that dies after it has given up partitions and before it has
rejoined leaves them without an owner: its successor takes over the membership unchanged, and Kafka sees no reason to
rebalance.
"""

from collections.abc import Set as AbstractSet

from connector.core.chunks import Partition

AGAIN_SECS, AGAIN_MAX_SECS = 30.0, 600.0
"""If a rebalance did not help, as for a topic that some members do not know yet, the next attempts wait longer."""


class OrphanWatch:
    """Remembers which partitions have no owner, and since when."""

    def __init__(self, *, settle_secs: float) -> None:
        self._settle_secs = settle_secs
        self._orphans: AbstractSet[Partition] = frozenset()
        self._since = 0.0
        self._not_before = float("-inf")
        self._again_secs = AGAIN_SECS

    def seen(self, orphans: AbstractSet[Partition], *, now: float) -> bool:
        """Return whether to trigger a rebalance: the same partitions have had no owner for `settle_secs`."""
        if orphans != self._orphans:
            self._orphans, self._since = frozenset(orphans), now
        if not orphans:
            self._again_secs = AGAIN_SECS
        if not orphans or now - self._since < self._settle_secs or now < self._not_before:
            return False
        self._not_before = now + self._again_secs
        self._again_secs = min(2 * self._again_secs, AGAIN_MAX_SECS)
        return True
