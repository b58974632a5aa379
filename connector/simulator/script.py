"""Which faults are active at a time: the standing ones, overlaid with those of the script's steps."""

import math

from connector.simulator.faults import Faults, ScriptStep


class Timeline:
    """The faults over time. Times are seconds on any one monotonic clock.

    The script's clock starts once, with `start`. An outage with an end ends by itself. Between two times that
    `next_change` returns, the active faults are the same object.
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
        """Start the script's clock, unless it is running."""
        if self._started_at is None:
            self._started_at = now
            self._valid_until = -math.inf

    def replace(self, faults: Faults, *, now: float) -> None:
        """Replace the standing faults."""
        self.standing = faults
        secs = faults.outage.secs if faults.outage is not None else None
        self._outage_ends = math.inf if secs is None else now + secs
        self._valid_until = -math.inf

    def at(self, now: float) -> Faults:
        """Return the active faults."""
        if now >= self._valid_until:
            self._current, self._valid_until = self._compute(now)
        return self._current

    def next_change(self, now: float) -> float | None:
        """Return when the active faults will change, or None if they will not."""
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
