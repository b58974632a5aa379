"""How many requests may be in flight at once: additive increase, multiplicative decrease.

The limit starts low and doubles like TCP slow start until the first trouble, so that 64 requests are reached within a
few round trips; then it grows by one per round trip. It shrinks on trouble (5xx, 429, timeouts) and when answers take
much longer than at best, at most once per round trip. It only grows while it is really used. After an outage it starts
over: growing by one per round trip would take a minute to recover.

Latency is a moving mean of recent answers. A single slow answer, such as that of a large batch among small ones, does
not mean that the platform is overloaded.
"""

from dataclasses import dataclass

LATENCY_FACTOR = 4.0
LATENCY_SLACK_SECS = 0.25
SHRINK = 0.7
RECENT = 0.125
"""Weight of the newest answer in the moving mean."""
FORGET = 0.05
"""Share by which the best mean moves towards the present one per round trip: a latency that stays high becomes the new
normal, otherwise the limit would stay at the floor."""


@dataclass(frozen=True, slots=True)
class ConcurrencyPolicy:
    """The floor, the ceiling and the start of the limit, in requests."""

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
        self._recent = self._best = 0.0
        self._no_shrink_before = 0.0
        self.moved = "start"

    @property
    def limit(self) -> int:
        """How many requests may be in flight."""
        return int(self._limit)

    def answered(self, latency_secs: float, *, active: int, now: float) -> None:
        """Note an answer without trouble; `active` requests were in flight, including this one."""
        self._recent += (RECENT if self._recent else 1.0) * (latency_secs - self._recent)
        drift = FORGET / max(active, 1) if 0.0 < self._best < self._recent else 1.0
        self._best += drift * (self._recent - self._best)
        if self._recent > _far_longer_than(self._best):
            self._shrink("latency", now, max(latency_secs, self._recent))
        elif active * 2 >= self.limit and self._limit < self._policy.max:
            step = 1.0 if self._slow_start else 1.0 / self._limit
            self._limit = min(self._limit + step, float(self._policy.max))
            self.moved = "grow"

    def troubled(self, *, now: float) -> None:
        """Note an answer that asks for less load, or a missing answer."""
        self._shrink("trouble", now, self._recent)

    @property
    def overdue_secs(self) -> float:
        """Seconds after which a request without an answer counts as overdue, much longer than recent ones took."""
        return _far_longer_than(self._recent)

    def restart(self) -> None:
        """Start as low as at first and double again: an outage or a hold has ended."""
        self._limit = min(self._limit, self._begin)
        self._slow_start = True
        self.moved = "restart"

    def _shrink(self, why: str, now: float, round_trip_secs: float) -> None:
        self._slow_start = False
        if now < self._no_shrink_before:
            return
        lower = max(self._limit * SHRINK, float(self._policy.min))
        if lower < self._limit:
            self._limit = lower
            self.moved = why
        self._no_shrink_before = now + max(round_trip_secs, 0.05)


def _far_longer_than(latency_secs: float) -> float:
    return LATENCY_FACTOR * latency_secs + LATENCY_SLACK_SECS
