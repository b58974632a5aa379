"""The dead-letter storm guard: a wrong template or a broken producer must not turn a topic into dead letters.

Records are counted by reason in two halves of a window. When one reason exceeds the ratio, and a minimum count, the
stream holds before those dead letters are written. `in_doubt` is exempt: it follows a crash and is bounded by what was
in flight.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

EXEMPT = frozenset({"in_doubt"})


@dataclass(frozen=True, slots=True)
class StormPolicy:
    """The share of records that may become dead letters for one reason, from what count on, and in which time."""

    max_ratio: float
    min_count: int
    window_secs: float
    enabled: bool = True


class StormGuard:
    """Counts verdicts over a window of `window_secs` that moves by halves; those of checks and of answers separately.

    Checks run ahead of answers by everything that waits to be posted. Counted together, all bad records of a backlog
    would be compared with the few good ones that were answered by then.
    """

    def __init__(self, policy: StormPolicy) -> None:
        self._policy = policy
        self._checked, self._answered = _Window(policy.window_secs), _Window(policy.window_secs)
        self._tolerated: dict[str, float] = {}
        """Reasons that the operator tolerates, and when a dead letter last had each."""

    def observe(self, count: int, reasons: Mapping[str, int], *, now: float, checked: bool = False) -> str | None:
        """Count records, with the dead letters among them by reason; return a reason that exceeds the limits, or None.

        With `checked`, these are records that were checked before posting, otherwise records that were answered or
        given up.
        """
        policy = self._policy
        if not policy.enabled:
            return None
        if self._tolerated:
            reasons = self._guarded(reasons, now)
        window = self._checked if checked else self._answered
        window.add(count, reasons, now)
        for reason in reasons:
            failed = window.failed(reason)
            if reason not in EXEMPT and failed >= policy.min_count and failed > policy.max_ratio * window.total:
                return reason
        return None

    def _guarded(self, reasons: Mapping[str, int], now: float) -> dict[str, int]:
        """Return the reasons without tolerated ones."""
        for reason, last in list(self._tolerated.items()):
            if now - last > self._policy.window_secs:
                del self._tolerated[reason]
            elif reason in reasons:
                self._tolerated[reason] = now
        return {reason: count for reason, count in reasons.items() if reason not in self._tolerated}

    def counted(self, reason: str, *, checked: bool = False) -> tuple[int, int]:
        """Return how many dead letters with this reason are in the window, and among how many records."""
        window = self._checked if checked else self._answered
        return window.failed(reason), window.total

    def resume(self, stormed: Iterable[str], *, now: float) -> None:
        """Reset the counts, and tolerate these reasons until no dead letter has had them for `window_secs`."""
        self._tolerated |= dict.fromkeys(stormed, now)
        self._checked.reset()
        self._answered.reset()


class _Window:
    """Counts of records and reasons, in two halves of a time."""

    def __init__(self, secs: float) -> None:
        self._secs = secs
        self._begun = 0.0
        self._totals = [0, 0]
        self._reasons: list[Counter[str]] = [Counter(), Counter()]

    @property
    def total(self) -> int:
        return sum(self._totals)

    def failed(self, reason: str) -> int:
        return self._reasons[0][reason] + self._reasons[1][reason]

    def add(self, count: int, reasons: Mapping[str, int], now: float) -> None:
        half = self._secs / 2
        if now - self._begun >= self._secs:
            self.reset()
            self._begun = now
        elif now - self._begun >= half:
            self._totals = [self._totals[1], 0]
            self._reasons = [self._reasons[1], Counter()]
            self._begun += half  # not `now`: the older half would count for longer than the window
        self._totals[1] += count
        self._reasons[1].update(reasons)

    def reset(self) -> None:
        self._totals = [0, 0]
        self._reasons = [Counter(), Counter()]
