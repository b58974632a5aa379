"""When a rule looks for what was sent again already, and when it forgets what it found.

Nobody should be texted twice. A rule's own offsets say nothing about what other rules or the command sent again: a
reason may have belonged to another rule, or the rule's offsets may have been reset. So before the first dead letter of
a newly started partition is sent again, the redrive topic is read once, from the time of that dead letter on, and what
was sent again already is skipped. Not covered is what others send again after that look, for instance during an update
in which workers with old and new rules run side by side, or in a transaction that is open meanwhile; nor what retention
has removed from the redrive topic.
"""

from collections import deque
from collections.abc import Callable
from typing import Final

from connector.core.chunks import Partition
from connector.deadletters.earlier import Earlier
from connector.deadletters.letters import CLOCKS_MS
from connector.deadletters.waiting import Part

LOOK_SECS: Final = 0.5
"""How long the redrive topic is read before the group is polled again."""


class Looking:
    """The looks of one rule, for those of `parts` that wait for one. `look` raises `KafkaTroubleError`."""

    def __init__(self, earlier: Earlier, parts: dict[Partition, Part]) -> None:
        self._earlier = earlier
        self._parts = parts
        self._now: tuple[int, dict[Partition, Part]] = (0, {})
        """The start time of the running look, and the partitions that it is for."""
        self._until: dict[Partition, int] = {}
        """Offsets below which dead letters were written before the last look at the redrive topic."""

    def look(self, end_of: Callable[[Partition], int]) -> None:
        """Look for a while at what was sent again earlier, if dead letters wait for that."""
        if not self._earlier.is_looking:
            parts = {p: part for p, part in self._parts.items() if part.waiting and part.looked_from is None}
            if not parts:
                return
            self._until |= {partition: end_of(partition) for partition in parts}
            written = [(one, part.written_ms(one)) for part in parts.values() for one in part.waiting]
            since_ms = min(one.failed_ms for one, _ in written)
            if any(one.timestamp_ms - read_ms > CLOCKS_MS for one, read_ms in written):
                since_ms = 0  # timestamps in the future say nothing about when they were written
            self._now = since_ms, parts
            self._earlier.begin(max(since_ms - CLOCKS_MS, 0))
        if not self._earlier.step(LOOK_SECS):
            return
        since_ms, parts = self._now
        for partition, part in parts.items():
            # Older ones may have arrived meanwhile, which need another look.
            if self._parts.get(partition) is part and min(one.failed_ms for one in part.waiting) >= since_ms:
                part.looked_from = since_ms
                for one in filter(self._earlier.tells, part.waiting):
                    part.was_sent(one)
                    part.passed.append((one.offset, "redriven"))
                part.waiting = deque(one for one in part.waiting if not self._earlier.tells(one))

    def forget(self, *, idle: bool) -> None:
        """Forget what was sent again earlier once all dead letters written by then are dealt with.

        The last offsets of a partition may be transaction markers, which are never returned. If nothing is read any
        more (`idle`), none is assumed to be left; if one is, it gets another look.
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
