"""What waits to be sent again by a rule: which dead letters it means, when they are due, and how far it has come.

Within a partition dead letters stand in the order of their time: the first that is not due yet is waited for, and what
stands before it that the rule does not mean was passed already. One that a clock stamped that was ahead of ours counts
as written when it was read, or all behind it would wait for that time to come. An offset may be committed once all
before it is sent again or passed over.

An import may write dead letters into the topic once more. A copy of one that waits is passed over; one of what was sent
again has the redrive topic looked at, since it failed no later than that did.
"""

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Literal

from connector.config.streams import RedriveSettings
from connector.core.chunks import Chunk, Partition
from connector.deadletters.letters import Letter, Position, letters_of
from connector.kafka.publisher import Offsets

MAX_WAITING: Final = 1_000
"""Dead letters of a partition that are kept while they wait; beyond it the partition is not read."""

MAX_PASSED: Final = 100_000
"""The same of those that are passed over while one before them waits."""

MAX_RECORDS: Final = 5_000
"""Of one transaction."""

Passed = Literal["redriven", "too_large"]
"""Why a dead letter that is meant is passed over, in the words of the commands."""


@dataclass(slots=True)
class Part:
    """A partition that is ours: how far it was read and said, and what waits."""

    next_read: int
    said: int | None
    """The committed offset, None before there is one."""
    looked_from: int | None = None
    """From which time on the redrive topic was looked at, in milliseconds; None while nothing may be sent again."""
    done_ms: int = -1
    """When those failed that were sent again, by whomever, the youngest of them, in milliseconds."""
    passed: list[tuple[int, Passed]] = field(default_factory=list)
    """Dead letters that are passed over, by their offset, until that is committed."""
    waiting: deque[Letter] = field(default_factory=deque)
    ahead: dict[int, float] = field(default_factory=dict)
    """When those were read whose time was still to come then, in milliseconds, by their offset."""
    begun: bool = False
    paused: bool = False

    @property
    def is_full(self) -> bool:
        """Tell whether no more is to be read for now."""
        return len(self.waiting) >= MAX_WAITING or len(self.passed) >= MAX_PASSED

    def written_ms(self, letter: Letter) -> float:
        """Return the time from which on a dead letter that waits is waited for."""
        return self.ahead.get(letter.offset, letter.timestamp_ms)

    def was_sent(self, letter: Letter) -> None:
        """Take note of a dead letter that was sent again."""
        self.done_ms = max(self.done_ms, letter.failed_ms)

    def offset_after(self, count: int) -> int:
        """Return what may be committed once the first `count` of what waits are sent again."""
        return self.waiting[count].offset if count < len(self.waiting) else self.next_read


class Waiting:
    """The partitions of one rule that are ours. What does not fit, or was sent again already, is passed over."""

    def __init__(
        self,
        stream: str,
        rule: RedriveSettings,
        *,
        fits: Callable[[Letter], bool],
        was_redriven: Callable[[Letter], bool],
        now: float,
    ) -> None:
        self.parts: dict[Partition, Part] = {}
        self._stream = stream
        self._rule = rule
        self._fits = fits
        self._was_redriven = was_redriven
        self._allowance = 0.0
        self._allowed_at = now

    def shown(self) -> tuple[int, float | None]:
        """Return how many wait, and when the next is due, in seconds since 1970."""
        heads = [part.written_ms(part.waiting[0]) for part in self.parts.values() if part.waiting]
        next_at = round(min(heads) / 1_000 + self._rule.delay_secs, 3) if heads else None
        return sum(len(part.waiting) for part in self.parts.values()), next_at

    def take(self, chunk: Chunk, *, now_ms: float) -> None:
        """Take in dead letters that were read: what is meant waits or is passed over."""
        part = self.parts.get(chunk.partition)
        if part is None or not part.begun:
            return
        waiting = {_record_of(letter) for letter in part.waiting}
        for letter in letters_of(chunk):
            if letter.offset < part.next_read or not self._is_meant(letter):
                continue
            if not self._fits(letter):
                part.passed.append((letter.offset, "too_large"))
                continue
            failed_ms = letter.failed_ms
            if part.looked_from is not None and (failed_ms < part.looked_from or failed_ms <= part.done_ms):
                part.looked_from = None  # one that was imported
            if part.looked_from is not None and self._was_redriven(letter):
                part.was_sent(letter)
                part.passed.append((letter.offset, "redriven"))
            elif _record_of(letter) in waiting:
                part.passed.append((letter.offset, "redriven"))
            else:
                part.waiting.append(letter)
                waiting.add(_record_of(letter))
                if letter.timestamp_ms > now_ms:
                    part.ahead[letter.offset] = now_ms
        part.next_read = max(part.next_read, chunk.offsets[-1] + 1)

    def _is_meant(self, letter: Letter) -> bool:
        return (
            letter.reason in self._rule.reasons
            and letter.stream == self._stream
            and not letter.may_be_taken
            and not letter.value_omitted
            and letter.redrives < self._rule.max_redrives
        )

    def due(self, *, now: float, now_ms: float) -> list[Letter]:
        """Return what is to be sent again now, as far as the rate allows."""
        rate = self._rule.max_per_sec
        # What was not used is not saved up for more than a second, or a hold would end in a flood.
        self._allowance = min(self._allowance + (now - self._allowed_at) * rate, max(rate, 1.0))
        self._allowed_at = now
        limit_ms = now_ms - self._rule.delay_secs * 1_000
        due: list[Letter] = []
        most = min(int(self._allowance), MAX_RECORDS)
        for part in self.parts.values():
            for letter in part.waiting if part.looked_from is not None else ():
                if len(due) >= most or part.written_ms(letter) > limit_ms:
                    break
                due.append(letter)
        return due

    def offsets(self, due: list[Letter]) -> Offsets:
        """Return what is to be committed once `due` is sent again: each partition that has come further."""
        sent = Counter(letter.partition for letter in due)
        after = {partition: part.offset_after(sent[partition]) for partition, part in self.parts.items()}
        return {partition: (offset, "") for partition, offset in after.items() if offset != self.parts[partition].said}

    def committed(self, due: list[Letter], offsets: Offsets) -> Counter[Passed]:
        """Take note of what was sent again and committed; return why dead letters before that were passed over."""
        self._allowance -= len(due)
        for letter in due:
            part = self.parts[letter.partition]
            part.waiting.popleft()
            part.was_sent(letter)
        passed: Counter[Passed] = Counter()
        for partition, (offset, _) in offsets.items():
            part = self.parts[partition]
            part.said = offset
            part.ahead = {at: read_ms for at, read_ms in part.ahead.items() if at >= offset}
            passed.update(why for at, why in part.passed if at < offset)
            part.passed = [(at, why) for at, why in part.passed if at >= offset]
        return passed


def _record_of(letter: Letter) -> tuple[Position, int]:
    """Return what dead letters of one record and one failure have in common."""
    return letter.origin, letter.redrives
