"""Whether a worker that exited is restarted, how long that waits, and which exit code counts for all workers.

A worker that dies right after each start must not keep the machine busy, and one that died once in a week must be back
at once: so the wait doubles with each death, and is reset after a run that lasted. An exit that a restart cannot fix
ends all workers, as visibly as it would end a single process. A worker that could start before and no longer can leaves
the others running.
"""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """Waits in seconds, and the meaning of exit codes.

    `order` lists every exit code from best to worst. `killed` and `not_started` are the codes for an exit by a signal:
    `not_started` for `not_started_signal`, which only ends a worker before it has begun anything.
    """

    order: tuple[int, ...]
    final: frozenset[int]
    """Codes that a restart cannot fix."""
    final_at_first: frozenset[int]
    """Codes that are final only for the very first start, when nothing has worked yet."""
    killed: int
    not_started: int
    not_started_signal: int
    base_secs: float = 0.5
    max_secs: float = 60.0
    steady_secs: float = 60.0
    """A run of at least this length resets the wait."""

    def code_of(self, code: int) -> int:
        """Return the exit code for how a process ended; a negative `code` is the number of a signal."""
        if code >= 0:
            return code
        return self.not_started if code == -self.not_started_signal else self.killed

    def worst(self, codes: Iterable[int]) -> int:
        """Return the worst exit code of all workers; an unknown code is worse than any known one."""
        known = {code: rank for rank, code in enumerate(self.order)}
        found = [self.code_of(code) for code in codes]
        return max(found, key=lambda code: known.get(code, len(known)), default=self.order[0])


class Restarts:
    """The restarts of one worker."""

    def __init__(self, policy: RestartPolicy) -> None:
        self._policy = policy
        self._in_a_row = 0
        self._started_at = 0.0
        self._starts = 0

    @property
    def times(self) -> int:
        """How often it was restarted."""
        return max(self._starts - 1, 0)

    def started(self, *, now: float) -> None:
        """Note a start."""
        self._starts += 1
        self._started_at = now

    def ended(self, code: int, *, now: float) -> float | None:
        """Note the exit of a worker; return the seconds until its next start, or None if a restart would not help."""
        policy = self._policy
        if code in policy.final or (self._starts <= 1 and code in policy.final_at_first):
            return None
        if now - self._started_at >= policy.steady_secs:
            self._in_a_row = 0
        wait = min(policy.base_secs * 2 ** min(self._in_a_row, 32), policy.max_secs)
        self._in_a_row += 1
        return float(wait)
