"""The dead-letter storm guard: a wrong template or a broken producer must not move a topic into the dead letters.

Records are counted per reason in two halves of a window. When one reason passes the ratio, with a minimum count, the
stream holds before those dead letters are written. `in_doubt` is left out: it follows a crash and is bounded by what
was in flight.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

EXEMPT = frozenset({"in_doubt"})


@dataclass(frozen=True, slots=True)
class StormPolicy:
    """The share of records that may end as dead letters for one reason, from how many on, within which time."""

    max_ratio: float
    min_count: int
    window_secs: float
    enabled: bool = True


class StormGuard:
    """Counts verdicts over a window of `window_secs`, forgotten by halves."""

    def __init__(self, policy: StormPolicy) -> None:
        self._policy = policy
        self._begun = 0.0
        self._totals = [0, 0]
        self._reasons: list[Counter[str]] = [Counter(), Counter()]

    def observe(self, count: int, reasons: Mapping[str, int], *, now: float) -> str | None:
        """Add `count` records, of which some are dead letters by reason, and return the reason that storms, if any."""
        policy = self._policy
        if not policy.enabled:
            return None
        half = policy.window_secs / 2
        if now - self._begun >= half:
            if now - self._begun >= policy.window_secs:
                self.reset()
                self._begun = now
            else:
                self._totals = [self._totals[1], 0]
                self._reasons = [self._reasons[1], Counter()]
                self._begun += half  # not `now`, or the older half would be counted for longer than the window
        self._totals[1] += count
        if not reasons:
            return None
        self._reasons[1].update(reasons)
        total = sum(self._totals)
        for reason in reasons:
            if reason in EXEMPT:
                continue
            failed = self._reasons[0][reason] + self._reasons[1][reason]
            if failed >= policy.min_count and failed > policy.max_ratio * total:
                return reason
        return None

    def reset(self) -> None:
        """Forget what was counted, as the operator resumed the stream."""
        self._totals = [0, 0]
        self._reasons = [Counter(), Counter()]
