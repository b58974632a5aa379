"""Whether batches may start: the circuit breaker and the stream's holds, combined in one gate.

The gate is `closed` while requests succeed. It opens when every batch fails (`outage`), or when one answer says that
nothing can work (a hold: `unauthorized`, `suspended`, ...). While it is open nothing starts; it is probed after a delay
that grows. After a successful probe one record goes through (`half_open`): its success closes the gate, its failure
opens it again. If no record is left to let through, the probe alone closes it.
"""

from dataclasses import dataclass
from typing import Literal

from connector.core.chunks import Partition

State = Literal["closed", "open", "half_open"]

HEALTHY_SHARE = 0.5
"""If no more than this share of the other batches pass, a failure is the platform's and not the batch's own."""

MAX_FAMILIES = 32
"""Families whose last results are remembered."""


@dataclass(frozen=True, slots=True)
class GatePolicy:
    """Consecutive failures that open the gate, and the delays of probes in seconds, for outages and for holds."""

    failures: int
    outage_probe_secs: float
    outage_probe_max_secs: float
    hold_probe_secs: float
    hold_probe_max_secs: float


@dataclass(frozen=True, slots=True)
class Hold:
    """Why a stream is paused: a bounded reason code, since when (on the driver's clock), and what ends it."""

    reason: str
    since: float
    detail: str
    ends: Literal["probe", "operator"]


class Gate:
    """Lets all batches start, one, or none.

    Batches with the same `family` were cut from one another: the failures of one family say nothing about the others.
    The answers of a `suspect`, which failed repeatedly while others passed, do not count as a sign of the platform's
    health: while a few bad records are being isolated, they may outnumber all other answers. `others_pass` means that
    others have passed since this batch last failed, so that its failure is no sign of an outage.
    """

    def __init__(self, policy: GatePolicy) -> None:
        self._policy = policy
        self.state: State = "closed"
        self.hold: Hold | None = None
        self.next_probe_at = 0.0
        self._delay = 0.0
        self._in_a_row = 0
        self._throttled_in_a_row = 0
        self._family_health: dict[int, tuple[bool, float]] = {}
        """For each family, least recently updated first: whether none of it has failed, and the time of its last
        answer. A family that keeps failing counts once, or a few bad records would look like an outage and be retried
        forever. One that passed after a failure does not count as healthy either, or a platform that fails most
        requests would look healthy."""
        self._replaced_hold: Hold | None = None
        """A hold that a probe ends, replaced for now by a hold of the operator."""
        self._failing: set[int] = set()
        """Families that failed since a batch last passed."""
        self._given_up: set[tuple[Partition, int] | None] = set()
        """Where records that were given up since then first failed; None for several."""
        self._passed_at = float("-inf")
        self._probed_at = float("-inf")

    def passed(self, family: int, *, now: float, suspect: bool = False) -> bool:
        """Note that the platform itself answered a batch; return whether this closed the gate."""
        self._note(family, passed=True, now=now, suspect=suspect)
        self._passed_at = now
        self._in_a_row = self._throttled_in_a_row = 0
        self._failing.clear()
        self._given_up.clear()
        self._replaced_hold = None
        reopened = self.hold is not None and self.hold.ends == "probe"
        if reopened:
            self.state, self.hold = "closed", None
        return reopened

    def failed(self, family: int, *, now: float, detail: str, others_pass: bool = False, suspect: bool = False) -> bool:
        """Note that a batch was not accepted, perhaps through no fault of its own; return whether the gate opened."""
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

    def throttled(self, family: int, *, now: float, others_pass: bool, suspect: bool = False) -> bool:
        """Note that a batch was throttled; return whether this is meant for all batches, because nothing passes."""
        self._note(family, passed=False, now=now, suspect=suspect)
        self._failing.add(family)
        self._throttled_in_a_row += not others_pass
        return self.state != "closed" or self._throttled_in_a_row >= self._policy.failures

    def refused(self, family: int, reason: str, *, now: float, detail: str) -> bool:
        """Note an answer that says that nothing can work; return whether this began a hold.

        A hold that a probe ends never replaces one that only the operator ends.
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

    def records_rejected(self, family: int, *, now: float, suspect: bool = False) -> None:
        """Note that a batch was rejected for its own records."""
        self._note(family, passed=False, now=now, suspect=suspect)

    def gave_up(self, family: int, record: tuple[Partition, int] | None) -> None:
        """Note that a record was given up as the only one that fails; the same cannot be assumed of the next one.

        `record` is where it first failed, None for several records.
        """
        self._failing.discard(family)
        self._given_up.add(record)

    def stop(self, reason: str, *, now: float, detail: str) -> bool:
        """Hold until the operator resumes; return whether the reason is new."""
        is_new = self.hold is None or self.hold.reason != reason
        if is_new:
            if self.hold is not None and self.hold.ends == "probe":
                self._replaced_hold = self.hold
            self.state, self.hold = "open", Hold(reason, now, detail, "operator")
        return is_new

    def resume(self) -> None:
        """End any hold, on the operator's request.

        A hold for a probe that was replaced comes back, and its probe is due at once.
        """
        self.state, self.hold, self._in_a_row = "closed", None, 0
        if self._replaced_hold is not None:
            self._open(self._replaced_hold, 0.0, self._replaced_hold.since)
            self._replaced_hold = None

    def probe_due(self, *, now: float) -> bool:
        """Return whether it is time to probe the platform."""
        return (
            self.state == "open" and self.hold is not None and self.hold.ends == "probe" and now >= self.next_probe_at
        )

    def probed(self, *, ok: bool, now: float) -> None:
        """Note the result of a probe: let one record through, or wait longer.

        While the probe ran, the gate may have closed, or the operator may have stopped the stream; then the result is
        ignored.
        """
        if self.state != "open" or self.hold is None or self.hold.ends == "operator":
            return
        if ok:
            self._probed_at = now
            self.state = "half_open"
        else:
            self._reopen(now)

    def close_idle(self) -> bool:
        """Close a half-open gate when no record is left to let through; return whether this closed it.

        The records that were waiting may have been given up. Without this, the stream would hold until a new record
        arrives.
        """
        closes = self.state == "half_open"
        if closes:
            self.state, self.hold, self._in_a_row = "closed", None, 0
        return closes

    def others_pass(self, family: int, *, since: float, record: tuple[Partition, int] | None = None) -> bool:
        """Return whether the platform has worked for others since `since`, so that a failure is this family's own.

        If no other batch passed since then, a successful probe counts instead, but only while this family alone fails
        and no other record was given up: in an outage that the probe does not detect, records must not be given up one
        after another. The same `record` may be, each time that it is sent again.
        """
        if self._passed_at >= since:
            return self.other_batches_pass(family, since=since)
        if self._probed_at < since or not self._failing <= {family}:
            return False
        return not self._given_up or (record is not None and self._given_up == {record})

    def other_batches_pass(self, family: int, *, since: float) -> bool:
        """Return whether a batch passed since `since` and most other families with an answer since then are healthy.

        Unlike for `others_pass`, a successful probe does not count.
        """
        others = [healthy for other, (healthy, at) in self._family_health.items() if other != family and at >= since]
        return self._passed_at >= since and (not others or sum(others) > HEALTHY_SHARE * len(others))

    def _note(self, family: int, *, passed: bool, now: float, suspect: bool = False) -> None:
        if suspect:
            return
        healthy, _ = self._family_health.pop(family, (True, 0.0))
        self._family_health[family] = passed and healthy, now
        if len(self._family_health) > MAX_FAMILIES:
            del self._family_health[next(iter(self._family_health))]

    def allowed(self, active: int) -> int | None:
        """Return how many more batches may start while `active` requests are in flight; None means any number."""
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
