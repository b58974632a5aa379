"""Which faults hold at a time: the standing ones, and those of the script's steps laid over them."""

import math

from connector.simulator.faults import Faults, ScriptStep


class Timeline:
    """The faults over time. Times are seconds on any one monotonic clock.

    The script's clock starts once, with `start`. An outage with an end ends by itself. Between two of the moments that
    `next_change` names the faults in force are one and the same object.
    """

    def __init__(self, faults: Faults, script: tuple[ScriptStep, ...]) -> None:
        self._script = script
        self.standing = faults
        """The faults without the script."""
        self._outage_ends = math.inf
        self._started_at: float | None = None
        self._current = faults
        self._valid_until = -math.inf

    @property
    def started(self) -> bool:
        """Whether the script's clock runs."""
        return self._started_at is not None

    def start(self, now: float) -> None:
        """Start the script's clock, unless it runs."""
        if self._started_at is None:
            self._started_at = now
            self._valid_until = -math.inf

    def replace(self, faults: Faults, *, now: float) -> None:
        """Put other faults in place of the standing ones."""
        self.standing = faults
        secs = faults.outage.secs if faults.outage is not None else None
        self._outage_ends = math.inf if secs is None else now + secs
        self._valid_until = -math.inf

    def at(self, now: float) -> Faults:
        """Return the faults in force."""
        if now >= self._valid_until:
            self._current, self._valid_until = self._compute(now)
        return self._current

    def next_change(self, now: float) -> float | None:
        """Return when the faults in force will be others, or None when they stay."""
        self.at(now)
        return None if math.isinf(self._valid_until) else self._valid_until

    def _compute(self, now: float) -> tuple[Faults, float]:
        faults = self.standing
        changes = [math.inf]
        if now >= self._outage_ends:
            faults = faults.model_copy(update={"outage": None})
        else:
            changes.append(self._outage_ends)
        if self._started_at is not None:
            for step in self._script:
                begin = self._started_at + step.at_secs
                end = math.inf if step.until_secs is None else self._started_at + step.until_secs
                if begin <= now < end:
                    faults = faults.overlaid(step.faults)
                changes += [moment for moment in (begin, end) if moment > now]
        return faults, min(changes)
