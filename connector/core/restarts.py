"""Whether a worker that has ended is started again, how long that waits, and what the ends of all come to.

A worker that dies at once after each start must not keep the machine busy, and one that died once in a week must be
back at once: so the wait doubles with each death, and begins anew after a run that lasted. An end that a restart
cannot mend ends all, as loudly as it would end a single process; what cannot start any more, though it did before,
leaves those alone that live.
"""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """Waits in seconds, and what is said by exit codes.

    `order` holds every exit code from the best to the worst. `killed` and `unborn` are the codes that stand for an end
    by a signal: `unborn` for `unborn_signal`, which ends a worker only before it has begun anything.
    """

    order: tuple[int, ...]
    final: frozenset[int]
    """Codes that no restart mends."""
    final_at_first: frozenset[int]
    """Codes that no restart need mend when they come from the very first start: nothing worked yet."""
    killed: int
    unborn: int
    unborn_signal: int
    base_secs: float = 0.5
    max_secs: float = 60.0
    steady_secs: float = 60.0
    """A run of this length was a good one."""

    def code_of(self, code: int) -> int:
        """Return the exit code that stands for how a process ended; below 0 it is a signal's number."""
        if code >= 0:
            return code
        return self.unborn if code == -self.unborn_signal else self.killed

    def worst(self, codes: Iterable[int]) -> int:
        """Return the worst of the ends of all workers; a code that nobody knows is worse than any that is known."""
        known = {code: rank for rank, code in enumerate(self.order)}
        found = [self.code_of(code) for code in codes]
        return max(found, key=lambda code: known.get(code, len(known)), default=self.order[0])


class Restarts:
    """The deaths of one worker: `times` is how often it was started again."""

    def __init__(self, policy: RestartPolicy) -> None:
        self._policy = policy
        self._in_a_row = 0
        self._started_at = 0.0
        self._starts = 0

    @property
    def times(self) -> int:
        """How often it was started after the first time."""
        return max(self._starts - 1, 0)

    def started(self, *, now: float) -> None:
        """Take note of a start."""
        self._starts += 1
        self._started_at = now

    def ended(self, code: int, *, now: float) -> float | None:
        """Return the seconds to wait before the next start, None when none would help."""
        policy = self._policy
        if code in policy.final or (self._starts <= 1 and code in policy.final_at_first):
            return None
        if now - self._started_at >= policy.steady_secs:
            self._in_a_row = 0
        wait = min(policy.base_secs * 2 ** min(self._in_a_row, 32), policy.max_secs)
        self._in_a_row += 1
        return float(wait)
