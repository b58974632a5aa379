"""What waits to be sent again by a rule: which dead letters it selects, when they are due, and how far it has come.

Dead letters of a partition are in order of time: the rule waits for the first that is not due, and those before it that
it does not select were skipped already. One with a timestamp in the future counts as written when it was read;
otherwise all behind it would wait for that time. An offset may be committed once everything before it is sent again or
skipped.

An import may write a dead letter again. A copy of one that waits is skipped; a copy of one that was sent again causes a
look at the redrive topic, because it did not fail later than that one.
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
"""Waiting dead letters that are kept per partition; beyond this, it is not read."""

MAX_PASSED: Final = 100_000
"""The same for skipped ones behind one that waits."""

MAX_RECORDS: Final = 5_000
"""Per transaction."""

Passed = Literal["redriven", "too_large"]
"""Why a selected dead letter is skipped, in the terms of the commands."""


@dataclass(slots=True)
class Part:
    """An assigned partition: how far it was read and committed, and what waits."""

    next_read: int
    said: int | None
    """The committed offset, None before there is one."""
    looked_from: int | None = None
    """The start time of the look at the redrive topic, in milliseconds; None: nothing may be sent again yet."""
    done_ms: int = -1
    """Failure time of the youngest dead letter that was sent again, by anyone, in milliseconds."""
    passed: list[tuple[int, Passed]] = field(default_factory=list)
    """Dead letters that are skipped, by offset, until that is committed."""
    waiting: deque[Letter] = field(default_factory=deque)
    ahead: dict[int, float] = field(default_factory=dict)
    """When dead letters with timestamps in the future were read, in milliseconds, by offset."""
    begun: bool = False
    paused: bool = False

    @property
    def is_full(self) -> bool:
        """Whether no more should be read for now."""
        return len(self.waiting) >= MAX_WAITING or len(self.passed) >= MAX_PASSED

    def written_ms(self, letter: Letter) -> float:
        """Return the time from which the delay of a waiting dead letter counts."""
        return self.ahead.get(letter.offset, letter.timestamp_ms)

    def was_sent(self, letter: Letter) -> None:
        """Note a dead letter that was sent again."""
        self.done_ms = max(self.done_ms, letter.failed_ms)

    def offset_after(self, count: int) -> int:
        """Return the offset to commit once the first `count` waiting ones are sent again."""
        return self.waiting[count].offset if count < len(self.waiting) else self.next_read


class Waiting:
    """The assigned partitions of one rule. What does not fit, or was sent again already, is skipped."""

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
        """Take in dead letters that were read: selected ones wait or are skipped."""
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
                part.looked_from = None  # it was imported
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
        """Return what should be sent again now, as far as the rate allows."""
        rate = self._rule.max_per_sec
        # At most one second of unused rate is saved up; otherwise a hold would end in a flood.
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
        """Return what to commit once `due` is sent again: the offsets of partitions that have advanced."""
        sent = Counter(letter.partition for letter in due)
        after = {partition: part.offset_after(sent[partition]) for partition, part in self.parts.items()}
        return {partition: (offset, "") for partition, offset in after.items() if offset != self.parts[partition].said}

    def committed(self, due: list[Letter], offsets: Offsets) -> Counter[Passed]:
        """Note what was sent again and committed; return how many before that were skipped, by cause."""
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
    """Return what dead letters of the same failure of the same record have in common."""
    return letter.origin, letter.redrives
