"""Whether batches may start: the circuit breaker and the stream's holds, which are one gate.

The gate is `closed` while things work. It opens when every batch fails (`outage`) or when one answer says that nothing
can work (a hold: `unauthorized`, `suspended`, ...). While open nothing starts; after a delay that grows it is probed.
When the probe passes one record goes through (`half_open`): its success closes the gate, its failure opens it again.
With no record left to let through the probe's word is enough.
"""

from dataclasses import dataclass
from typing import Literal

State = Literal["closed", "open", "half_open"]

HEALTHY_SHARE = 0.5
"""Below this share of passing batches a failure is the platform's, not the batch's own."""

REMEMBERED = 32
"""Families whose answers are remembered."""


@dataclass(frozen=True, slots=True)
class GatePolicy:
    """Failures in a row that open the gate, and the delays of probes in seconds for outages and holds."""

    failures: int
    outage_probe_secs: float
    outage_probe_max_secs: float
    hold_probe_secs: float
    hold_probe_max_secs: float


@dataclass(frozen=True, slots=True)
class Hold:
    """Why a stream is paused: a bounded reason code, since when, and what ends it."""

    reason: str
    since: float
    detail: str
    ends: Literal["probe", "operator"]


class Gate:
    """Lets batches start, one, or none.

    `family` numbers tell which batches were cut from one another: the failures of one family say nothing of the rest.
    Nor do the answers of a `suspect`, which has failed again and again while others passed, tell whether the platform
    is well: of a few bad records that are being found there may be more answers than of all others. `others_pass` says
    that others have passed since a batch failed before, so that this time it is no sign of an outage.
    """

    def __init__(self, policy: GatePolicy) -> None:
        self._policy = policy
        self.state: State = "closed"
        self.hold: Hold | None = None
        self.next_probe_at = 0.0
        self._delay = 0.0
        self._in_a_row = 0
        self._told_in_a_row = 0
        self._heard: dict[int, tuple[bool, float]] = {}
        """Of each family, the longest unheard first, whether nothing of it has failed, and when it was last heard of.
        One that fails again and again counts once, or a few bad records would pass for an outage, and each would be
        tried for ever; one that passed in the end does not count as well, or a platform that fails for most would."""
        self._beneath: Hold | None = None
        """The hold that a probe ends, in whose place that of the operator has come."""
        self._failing: set[int] = set()
        """Families that failed since a batch last passed."""
        self._gave_up = False
        """A record was given up since then."""
        self._passed_at = float("-inf")
        self._probed_at = float("-inf")

    def passed(self, family: int, *, now: float, suspect: bool = False) -> bool:
        """Take note of a batch that the platform answered in its own right; return whether this closed the gate."""
        self._note(family, passed=True, now=now, suspect=suspect)
        self._passed_at = now
        self._in_a_row = self._told_in_a_row = 0
        self._failing.clear()
        self._gave_up = False
        self._beneath = None
        reopened = self.hold is not None and self.hold.ends == "probe"
        if reopened:
            self.state, self.hold = "closed", None
        return reopened

    def failed(self, family: int, *, now: float, detail: str, others_pass: bool = False, suspect: bool = False) -> bool:
        """Take note of a batch that was not taken, through no sure fault of its own; return whether the gate opened."""
        self._note(family, passed=False, now=now, suspect=suspect)
        self._failing.add(family)
        if self.state == "half_open":
            self._reopen(now)
            return False
        if others_pass:
            return False
        self._in_a_row += 1
        if self.state == "closed" and self._in_a_row >= self._policy.failures:
            self._open(Hold("outage", now, detail, "probe"), self._policy.outage_probe_secs, now)
            return True
        return False

    def told_to_wait(self, family: int, *, now: float, others_pass: bool, suspect: bool = False) -> bool:
        """Take note of a batch that was told to wait; return whether that is meant for all, as nothing passes."""
        self._note(family, passed=False, now=now, suspect=suspect)
        self._failing.add(family)
        self._told_in_a_row += not others_pass
        return self.state != "closed" or self._told_in_a_row >= self._policy.failures

    def refused(self, family: int, reason: str, *, now: float, detail: str) -> bool:
        """Take note of an answer that says that nothing can work; return whether this began a hold.

        What waits for the operator goes on waiting: a hold that a probe ends must not take its place.
        """
        self._note(family, passed=False, now=now)
        if self.hold is not None and self.hold.ends == "operator":
            return False
        if self.hold is not None and self.hold.reason == reason:
            if self.state == "half_open":
                self._reopen(now)
            return False
        self._open(Hold(reason, now, detail, "probe"), self._policy.hold_probe_secs, now)
        return True

    def blamed(self, family: int, *, now: float, suspect: bool = False) -> None:
        """Take note of a batch that was refused for its own records."""
        self._note(family, passed=False, now=now, suspect=suspect)

    def gave_up(self) -> None:
        """Take note that records were given up as the only ones that fail: of the next ones that would not be true."""
        self._gave_up = True

    def stop(self, reason: str, *, now: float, detail: str) -> bool:
        """Hold until the operator resumes; return whether this is news."""
        news = self.hold is None or self.hold.reason != reason
        if news:
            if self.hold is not None and self.hold.ends == "probe":
                self._beneath = self.hold
            self.state, self.hold = "open", Hold(reason, now, detail, "operator")
        return news

    def resume(self) -> None:
        """End any hold by the operator's word; what was held for a probe before is so again, and is asked at once."""
        self.state, self.hold, self._in_a_row = "closed", None, 0
        if self._beneath is not None:
            self._open(self._beneath, 0.0, self._beneath.since)
            self._beneath = None

    def probe_due(self, *, now: float) -> bool:
        """Tell whether it is time to ask the platform if it works again."""
        return (
            self.state == "open" and self.hold is not None and self.hold.ends == "probe" and now >= self.next_probe_at
        )

    def probed(self, *, ok: bool, now: float) -> None:
        """Take note of a probe: let one record through, or wait longer.

        A probe takes its time: meanwhile the gate may have closed, or been stopped until the operator resumes.
        """
        if self.state != "open" or self.hold is None or self.hold.ends == "operator":
            return
        if ok:
            self._probed_at = now
            self.state = "half_open"
        else:
            self._reopen(now)

    def rest(self) -> bool:
        """Take the probe's word for it, as nothing is left that could be let through; return whether this closed it.

        What was waiting may have been given up meanwhile: a stream without records would be held until one comes.
        """
        rests = self.state == "half_open"
        if rests:
            self.state, self.hold, self._in_a_row = "closed", None, 0
        return rests

    def others_pass(self, family: int, *, since: float) -> bool:
        """Tell whether the platform works for other batches since `since`, so that a failure is this family's own.

        With no other batch to compare with, a probe that passed counts, but only while this family alone is failing,
        and none of it was given up: an outage of the endpoint behind a working probe must not spend record after
        record, whether they came in one batch or in several.
        """
        if self._passed_at >= since:
            return self.others_passed(family, since=since)
        return self._probed_at >= since and self._failing <= {family} and not self._gave_up

    def others_passed(self, family: int, *, since: float) -> bool:
        """Tell whether batches have passed since `since`, and most other families are well that were heard of since."""
        others = [well for other, (well, at) in self._heard.items() if other != family and at >= since]
        return self._passed_at >= since and (not others or sum(others) > HEALTHY_SHARE * len(others))

    def _note(self, family: int, *, passed: bool, now: float, suspect: bool = False) -> None:
        if suspect:
            return
        well, _ = self._heard.pop(family, (True, 0.0))
        self._heard[family] = passed and well, now
        if len(self._heard) > REMEMBERED:
            del self._heard[next(iter(self._heard))]

    def allowed(self, active: int) -> int | None:
        """Return how many more batches may start while `active` are under way, or None for any number."""
        match self.state:
            case "closed":
                return None
            case "open":
                return 0
            case "half_open":
                return max(1 - active, 0)

    def _open(self, hold: Hold, delay: float, now: float) -> None:
        self.state, self.hold, self._delay = "open", hold, delay
        self.next_probe_at = now + delay

    def _reopen(self, now: float) -> None:
        outage = self.hold is not None and self.hold.reason == "outage"
        ceiling = self._policy.outage_probe_max_secs if outage else self._policy.hold_probe_max_secs
        floor = self._policy.outage_probe_secs if outage else self._policy.hold_probe_secs
        self._delay = min(max(self._delay, floor) * 2, ceiling)
        self.state = "open"
        self.next_probe_at = now + self._delay
