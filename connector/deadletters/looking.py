"""When a rule looks for what was sent again already, and when it forgets what it found.

Nobody is to be texted twice. Where a rule has come to says nothing of what other rules or the command sent again: a
reason may have been another rule's, or the rule be one that was put back. So before the first dead letter is sent again
of a partition that has begun, the redrive topic is looked at once, from the time of that dead letter on, and what was
sent again already is passed over. That tells what stands there by then. Not covered is what another sends again later
than that, as in an update where workers of the old rules and of the new ones run side by side, or in a transaction that
is open meanwhile; nor what the retention of the redrive topic has removed.
"""

from collections import deque
from collections.abc import Callable
from typing import Final

from connector.core.chunks import Partition
from connector.deadletters.earlier import CLOCKS_MS, Earlier
from connector.deadletters.waiting import Part

LOOK_SECS: Final = 0.5
"""How long the redrive topic is read before the group is heard again."""


class Looking:
    """The looks of one rule, for those of `parts` that wait for one. Raises `KafkaTroubleError` from `look`."""

    def __init__(self, earlier: Earlier, parts: dict[Partition, Part]) -> None:
        self._earlier = earlier
        self._parts = parts
        self._now: tuple[int, dict[Partition, Part]] = (0, {})
        """From which time on it is looked now, and for whom."""
        self._until: dict[Partition, int] = {}
        """Below which offset dead letters were written before the last look at the redrive topic."""

    def look(self, end_of: Callable[[Partition], int]) -> None:
        """Look for a while at what was sent again earlier, where dead letters wait of which that is not known."""
        if not self._earlier.is_looking:
            parts = {p: part for p, part in self._parts.items() if part.waiting and part.looked_from is None}
            if not parts:
                return
            self._until |= {partition: end_of(partition) for partition in parts}
            written = [(one, part.written_ms(one)) for part in parts.values() for one in part.waiting]
            since_ms = min(one.failed_ms for one, _ in written)
            if any(one.timestamp_ms - read_ms > CLOCKS_MS for one, read_ms in written):
                since_ms = 0  # of a time that was still to come nobody knows when it was
            self._now = since_ms, parts
            self._earlier.begin(max(since_ms - CLOCKS_MS, 0))
        if not self._earlier.step(LOOK_SECS):
            return
        since_ms, parts = self._now
        for partition, part in parts.items():
            # Older ones may have come meanwhile, which are looked for next.
            if self._parts.get(partition) is part and min(one.failed_ms for one in part.waiting) >= since_ms:
                part.looked_from = since_ms
                for one in filter(self._earlier.tells, part.waiting):
                    part.was_sent(one)
                    part.passed.append((one.offset, "redriven"))
                part.waiting = deque(one for one in part.waiting if not self._earlier.tells(one))

    def forget(self, *, idle: bool) -> None:
        """Forget what was sent again earlier once the dead letters are dealt with that were written by then.

        The last offsets of a partition may be markers of transactions, which are never read. Where nothing is read any
        more (`idle`) none may be left; if one is all the same, it is looked for again.
        """
        if not self._until or self._earlier.is_looking:
            return
        short = [part for at, part in self._parts.items() if part.offset_after(0) < self._until.get(at, 0)]
        if any(part.waiting for part in short) or ((short or not self._parts) and not idle):
            return
        for part in short:
            part.looked_from = None
        self._earlier.forget()
        self._until = {}
