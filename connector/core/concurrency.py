"""How many requests may be under way at once: additive increase, multiplicative decrease.

It starts low and doubles like a TCP slow start until the first trouble, so that 64 requests are reached within a few
round trips; then it grows by one a round trip. It shrinks on trouble (5xx, 429, timeouts) and when answers take much
longer than the best seen, at most once a round trip. It only grows while the limit is really used. What an outage
taught is forgotten when it ends: growth by one a round trip would take a minute to come back.
"""

from dataclasses import dataclass

LATENCY_FACTOR = 4.0
LATENCY_SLACK_SECS = 0.25
SHRINK = 0.7
FORGET = 0.05
"""Share by which the best latency drifts towards what is seen, so that a platform that became slower is believed."""


@dataclass(frozen=True, slots=True)
class ConcurrencyPolicy:
    """The floor and the ceiling."""

    min: int
    max: int
    start: int = 8


class ConcurrencyLimit:
    """The adaptive limit; `moved` says why it last changed (`start`, `grow`, `trouble`, `latency`, `restart`)."""

    def __init__(self, policy: ConcurrencyPolicy) -> None:
        self._policy = policy
        self._begin = float(min(max(policy.min, policy.start), policy.max))
        self._limit = self._begin
        self._slow_start = True
        self._best = 0.0
        self._no_shrink_before = 0.0
        self.moved = "start"

    @property
    def limit(self) -> int:
        """Requests that may be under way."""
        return int(self._limit)

    def answered(self, latency_secs: float, *, active: int, now: float) -> None:
        """Take note of an answer without trouble; `active` requests were under way, this one counted."""
        if self._best == 0.0 or latency_secs < self._best:
            self._best = latency_secs
        else:
            self._best += FORGET * (latency_secs - self._best) if latency_secs < 2 * self._best else 0.0
        if latency_secs > LATENCY_FACTOR * self._best + LATENCY_SLACK_SECS:
            self._shrink("latency", now)
            # A platform that stays slow is the new normal: without this the limit would starve at the floor.
            self._best += FORGET * (latency_secs - self._best)
        elif active * 2 >= self.limit and self._limit < self._policy.max:
            step = 1.0 if self._slow_start else 1.0 / self._limit
            self._limit = min(self._limit + step, float(self._policy.max))
            self.moved = "grow"

    def troubled(self, *, now: float) -> None:
        """Take note of an answer that asks for less, or of none."""
        self._shrink("trouble", now)

    def restart(self) -> None:
        """Start as low as at first and double again: the platform is back after an outage, or a hold has ended."""
        self._limit = min(self._limit, self._begin)
        self._slow_start = True
        self.moved = "restart"

    def _shrink(self, why: str, now: float) -> None:
        self._slow_start = False
        if now < self._no_shrink_before:
            return
        lower = max(self._limit * SHRINK, float(self._policy.min))
        if lower < self._limit:
            self._limit = lower
            self.moved = why
        self._no_shrink_before = now + max(self._best, 0.05)
