"""Laws of the gate: when batches may start, what opens and closes it, and whose fault a failure is."""

from collections.abc import Callable
from typing import Final

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from connector.core.breaker import Gate, GatePolicy, Hold
from connector.core.chunks import Partition

POLICY: Final = GatePolicy(
    failures=3, outage_probe_secs=2.0, outage_probe_max_secs=30.0, hold_probe_secs=10.0, hold_probe_max_secs=60.0
)


def made(*steps: Callable[[Gate], object]) -> Gate:
    """Return a gate that went through some steps."""
    gate = Gate(POLICY)
    for step in steps:
        step(gate)
    return gate


def fails(family: int, now: float = 0.0) -> Callable[[Gate], object]:
    return lambda gate: gate.failed(family, now=now, detail="HTTP 500")


def passes(family: int, now: float = 0.0) -> Callable[[Gate], object]:
    return lambda gate: gate.passed(family, now=now)


def refuses(reason: str = "unauthorized", now: float = 0.0) -> Callable[[Gate], object]:
    return lambda gate: gate.refused(1, reason, now=now, detail="Invalid API key")


def stops(reason: str = "storm:invalid_phone", now: float = 0.0) -> Callable[[Gate], object]:
    return lambda gate: gate.stop(reason, now=now, detail="too many")


def probes(*, ok: bool, now: float = 0.0) -> Callable[[Gate], object]:
    return lambda gate: gate.probed(ok=ok, now=now)


Record = tuple[Partition, int]

POISON: Final[Record] = (Partition("sms", 0), 5)


def gives_up(family: int, record: Record | None) -> Callable[[Gate], object]:
    return lambda gate: gate.gave_up(family, record)


OUTAGE: Final = (fails(1), fails(2), fails(3))


# ------------------------------------------------------------------ opening


def test_a_new_gate_lets_everything_start() -> None:
    gate = made()

    assert (gate.state, gate.hold, gate.allowed(64)) == ("closed", None, None)


def test_failures_in_a_row_open_the_gate() -> None:
    gate = Gate(POLICY)

    assert [gate.failed(family, now=5.0, detail="HTTP 500") for family in (1, 2, 3, 4)] == [False, False, True, False]
    assert (gate.state, gate.allowed(0)) == ("open", 0)
    assert gate.hold == Hold("outage", 5.0, "HTTP 500", "probe")


def test_a_batch_that_passes_resets_the_row() -> None:
    gate = made(fails(1), fails(2), passes(3), fails(1), fails(2))

    assert gate.state == "closed"
    assert gate.failed(4, now=0.0, detail="") is True


def test_one_refusal_holds_and_is_news_once() -> None:
    gate = Gate(POLICY)

    assert gate.refused(1, "unauthorized", now=7.0, detail="Invalid API key") is True
    assert gate.refused(1, "unauthorized", now=8.0, detail="Invalid API key") is False
    assert (gate.state, gate.allowed(0)) == ("open", 0)
    assert gate.hold == Hold("unauthorized", 7.0, "Invalid API key", "probe")


def test_a_refusal_takes_the_place_of_an_outage() -> None:
    gate = made(*OUTAGE)

    assert gate.refused(1, "forbidden", now=1.0, detail="suspended") is True
    assert gate.hold is not None
    assert gate.hold.reason == "forbidden"


# ------------------------------------------------------------------ probing and closing


def test_a_hold_is_probed_after_its_delay() -> None:
    gate = made(refuses(now=100.0))

    assert [gate.probe_due(now=now) for now in (100.0, 109.9, 110.0)] == [False, False, True]


def test_delays_double_up_to_their_ceiling() -> None:
    for gate, delays in (
        (made(*OUTAGE), [2.0, 4.0, 8.0, 16.0, 30.0, 30.0]),
        (made(refuses()), [10.0, 20.0, 40.0, 60.0, 60.0]),
    ):
        now, seen = 0.0, []
        for _ in delays:
            seen.append(gate.next_probe_at - now)
            now = gate.next_probe_at
            gate.probed(ok=False, now=now)

        assert seen == delays


def test_delays_are_as_long_whenever_it_begins() -> None:
    outage = [fails(family, now=1_000.0) for family in (1, 2, 3)]

    assert made(*outage, probes(ok=False, now=1_002.0)).next_probe_at == 1_002.0 + 4.0
    assert made(refuses(now=1_000.0), probes(ok=False, now=1_010.0)).next_probe_at == 1_010.0 + 20.0


def test_a_second_probe_says_nothing_while_a_batch_is_let_through() -> None:
    gate = made(*OUTAGE, probes(ok=True, now=2.0), probes(ok=False, now=3.0))

    assert (gate.state, gate.allowed(0)) == ("half_open", 1)


def test_answers_that_come_while_it_holds_do_not_put_its_probe_off() -> None:
    """Many batches may be in flight when the first is rejected; each would double the delay."""
    gate = made(refuses(now=5.0), *[refuses(now=6.0)] * 9, fails(2, now=7.0))

    assert (gate.state, gate.next_probe_at) == ("open", 15.0)


def test_a_probe_that_passes_lets_one_batch_through() -> None:
    gate = made(*OUTAGE, probes(ok=True))

    assert gate.state == "half_open"
    assert [gate.allowed(active) for active in (0, 1, 2)] == [1, 0, 0]
    assert not gate.probe_due(now=1e9)


def test_the_batch_that_was_let_through_closes_the_gate() -> None:
    gate = made(refuses(), probes(ok=True))

    assert gate.passed(9, now=1.0) is True
    assert (gate.state, gate.hold, gate.allowed(5)) == ("closed", None, None)
    assert gate.passed(9, now=2.0) is False


@pytest.mark.parametrize("again", [fails(9, now=50.0), refuses(now=50.0)], ids=["fails", "refused"])
def test_the_batch_that_was_let_through_opens_it_again_for_longer(again: Callable[[Gate], object]) -> None:
    gate = made(refuses(), probes(ok=True, now=10.0))

    assert again(gate) is False, "it is the same hold"
    assert gate.state == "open"
    assert gate.next_probe_at == 50.0 + 20.0


def test_after_closing_the_first_delay_is_short_again() -> None:
    gate = made(*OUTAGE, probes(ok=False), probes(ok=False), probes(ok=True), passes(1), *OUTAGE)

    assert gate.next_probe_at == 2.0


def test_a_late_answer_of_a_batch_under_way_closes_the_gate() -> None:
    gate = made(*OUTAGE)

    assert gate.passed(8, now=1.0) is True
    assert gate.state == "closed"


# ------------------------------------------------------------------ holds of the operator


def test_stopping_is_news_once_and_keeps_its_reason() -> None:
    gate = Gate(POLICY)

    assert [gate.stop("storm:invalid_phone", now=now, detail="too many") for now in (3.0, 4.0)] == [True, False]
    assert gate.hold == Hold("storm:invalid_phone", 3.0, "too many", "operator")


@pytest.mark.parametrize(
    "step",
    [passes(1), fails(1), refuses(), probes(ok=True), probes(ok=False)],
    ids=["passes", "fails", "refused", "probe passes", "probe fails"],
)
def test_only_the_operator_ends_what_waits_for_the_operator(step: Callable[[Gate], object]) -> None:
    """Also if a probe or a batch was in flight when the stream was stopped, whatever its result."""
    gate = made(refuses(), stops(), step, passes(2))

    assert (gate.state, gate.allowed(0)) == ("open", 0)
    assert gate.hold is not None
    assert (gate.hold.reason, gate.hold.ends) == ("storm:invalid_phone", "operator")
    assert not gate.probe_due(now=1e9)


def test_the_operators_decision_ends_any_hold() -> None:
    for gate in (made(stops()), made(refuses()), made(*OUTAGE), made(*OUTAGE, probes(ok=True))):
        gate.resume()

        assert (gate.state, gate.hold, gate.allowed(3)) == ("closed", None, None)


def test_a_hold_that_a_probe_ends_is_there_again_after_the_operators_decision() -> None:
    """A storm of expired records may come in between; nobody has seen yet that the platform works again."""
    gate = made(*OUTAGE, probes(ok=True, now=4.0), stops(now=5.0))
    gate.resume()

    assert gate.hold is not None
    assert (gate.state, gate.hold.reason, gate.allowed(3)) == ("open", "outage", 0)
    assert gate.probe_due(now=6.0)


def test_a_hold_that_is_probed_at_once_after_a_resume_returns_to_its_own_delays() -> None:
    gate = made(refuses(now=50.0), stops(now=60.0), lambda gate: gate.resume(), probes(ok=False, now=100.0))

    assert gate.next_probe_at == 100.0 + 2 * POLICY.hold_probe_secs


def test_the_operators_decision_brings_a_hold_back_once() -> None:
    gate = made(refuses(), stops(), lambda gate: gate.resume(), lambda gate: gate.resume())

    assert (gate.state, gate.hold) == ("closed", None)


def test_a_hold_that_ended_while_the_operator_held_does_not_come_back() -> None:
    gate = made(*OUTAGE, stops(now=5.0), passes(2, now=6.0))
    gate.resume()

    assert (gate.state, gate.hold) == ("closed", None)


def test_a_resume_resets_the_row_of_failures() -> None:
    gate = made(fails(1), fails(2), stops())
    gate.resume()

    assert gate.failed(3, now=0.0, detail="") is False


# ------------------------------------------------------------------ whose failure it is


def test_a_failure_is_a_batchs_own_when_others_pass() -> None:
    gate = made(passes(1, now=1.0), passes(2, now=2.0), fails(7, now=3.0), passes(3, now=4.0))

    assert gate.others_pass(7, since=3.0)


def test_what_passed_before_the_failure_says_nothing() -> None:
    assert not made(passes(1, now=1.0), passes(2, now=2.0), fails(7, now=3.0)).others_pass(7, since=3.0)


def test_while_most_others_fail_as_well_no_batch_is_blamed() -> None:
    gate = made(fails(7, now=1.0), passes(1, now=2.0), fails(2, now=2.0), fails(3, now=2.0))

    assert not gate.others_pass(7, since=1.0)


def test_half_is_not_enough() -> None:
    gate = made(fails(7, now=1.0), fails(2, now=2.0), passes(1, now=2.0))

    assert not gate.others_pass(7, since=1.0)


def test_some_failures_among_many_that_pass_are_noise() -> None:
    gate = made(fails(7, now=1.0), *[passes(family, now=2.0) for family in range(20, 30)], *[fails(2), fails(3)] * 4)

    assert gate.others_pass(7, since=1.0)


def test_what_is_long_past_is_forgotten() -> None:
    gate = made(*[passes(1, now=1.0)] * 100, fails(7, now=1.0), *[fails(2, now=1.0), fails(3, now=1.0)] * 10)

    assert not gate.others_pass(7, since=1.0)


def test_families_without_results_for_long_are_forgotten() -> None:
    """A stream creates millions of them."""
    gate = made(*[fails(family) for family in range(1_000)], *[passes(family) for family in range(1_000, 1_032)])

    assert gate.others_pass(5_000, since=0.0)


def test_pieces_of_one_batch_are_not_others() -> None:
    """A poisoned batch fails in many pieces; they must not look like an outage to each other."""
    gate = made(fails(7, now=1.0), *[fails(7, now=2.0)] * 10, passes(1, now=2.0))

    assert gate.others_pass(7, since=1.0)


def test_a_batch_that_fails_repeatedly_counts_once() -> None:
    """Otherwise two bad records of a slow topic would look like an outage to each other, forever."""
    gate = made(*[fails(7, now=1.0), fails(8, now=1.0)] * 20, *[passes(family, now=2.0) for family in (1, 2, 3)])

    assert gate.others_pass(7, since=1.0)
    assert gate.others_pass(8, since=1.0)


def test_what_is_refused_speaks_against_those_that_pass() -> None:
    gate = made(fails(7, now=1.0), passes(2, now=2.0), refuses(now=2.0))

    assert not gate.other_batches_pass(7, since=1.0)


def test_suspects_say_nothing_of_the_platform() -> None:
    """Pieces of a few bad batches are answered more often than all other batches."""
    suspects = [
        lambda gate, family=family, step=step: step(gate, family, now=2.0, suspect=True)
        for family in range(100, 140)
        for step in (Gate.passed, Gate.records_rejected, lambda gate, *of, **how: gate.failed(*of, detail="", **how))
    ]
    well = made(*[passes(family, now=2.0) for family in range(20)], fails(50, now=2.0), *suspects)
    ill = made(*[fails(family, now=2.0) for family in range(20)], passes(50, now=2.0), *suspects)

    assert well.other_batches_pass(7, since=1.0)
    assert not ill.other_batches_pass(7, since=1.0)


def test_failures_while_others_pass_are_no_outage() -> None:
    gate = made(fails(1), fails(2))

    assert not any(gate.failed(family, now=0.0, detail="", others_pass=True) for family in (3, 4, 5, 6))
    assert gate.failed(7, now=0.0, detail="")


# ------------------------------------------------------------------ whose wait it is


def told(gate: Gate, family: int, *, others_pass: bool = False) -> bool:
    return gate.throttled(family, now=0.0, others_pass=others_pass)


def test_all_wait_once_enough_in_a_row_were_throttled() -> None:
    gate = made()

    assert [told(gate, family) for family in (1, 2, 3, 4)] == [False, False, True, True]
    assert gate.state == "closed", "it is no outage"
    gate.passed(5, now=0.0)
    assert not told(gate, 1)


def test_a_throttling_while_others_pass_applies_to_few() -> None:
    gate = made()

    assert not any(told(gate, family, others_pass=True) for family in range(20))


def test_a_throttling_after_only_throttlings_and_failures_applies_to_all() -> None:
    """A platform that has just come back, or is on trial."""
    assert told(made(*OUTAGE, probes(ok=True, now=4.0)), 1)


def test_a_throttled_batch_is_not_healthy() -> None:
    gate = made(fails(7, now=0.0), passes(1, now=0.0))
    for family in (2, 3):
        told(gate, family)

    assert not gate.other_batches_pass(7, since=0.0)


def test_a_probe_says_nothing_of_whether_others_passed() -> None:
    gate = made(*[fails(7, now=1.0)] * 3, probes(ok=True, now=4.0))

    assert not gate.other_batches_pass(7, since=1.0)


def test_a_batch_that_is_blamed_holds_nothing_up() -> None:
    gate = made(passes(2, now=2.0), *[lambda gate: gate.records_rejected(7, now=2.0)] * 9)

    assert (gate.state, gate.hold) == ("closed", None)
    assert not gate.other_batches_pass(1, since=0.0), "it is not well for all"


def test_what_passed_before_an_outage_does_not_speak_against_it() -> None:
    """Nor does one late answer to an earlier request: it passed, and everything posted since failed."""
    gate = made(*[passes(family, now=1.0) for family in range(20, 40)], fails(7, now=2.0), passes(50, now=2.1))
    for family in (8, 9, 10):
        gate.failed(family, now=3.0, detail="")

    assert not gate.others_pass(7, since=2.0)


def test_what_passes_in_the_end_does_not_make_up_for_having_failed() -> None:
    """A platform that fails most requests at random lets each pass in the end; waiting batches are not at fault."""
    gate = made(fails(7, now=1.0), *[fails(family, now=1.0) for family in (1, 2, 3)], passes(4, now=2.0))
    for family in (1, 2, 3):
        gate.passed(family, now=3.0)

    assert not gate.others_pass(7, since=1.0)


def test_a_piece_that_passes_shows_that_the_platform_works_when_there_are_no_others() -> None:
    assert made(fails(7, now=1.0), passes(7, now=2.0)).others_pass(7, since=1.0)


def test_a_probe_that_passed_counts_for_the_only_batch_that_fails() -> None:
    gate = made(fails(7, now=1.0), fails(7, now=1.0), fails(7, now=1.0), probes(ok=True, now=4.0))

    assert gate.others_pass(7, since=1.0)
    assert not gate.others_pass(7, since=5.0)


def test_failures_of_others_that_are_over_do_not_speak_against_the_probe() -> None:
    gate = made(fails(2), passes(1, now=1.0), *[fails(7, now=2.0)] * 3, probes(ok=True, now=4.0))

    assert gate.others_pass(7, since=2.0)


def test_a_probe_that_passed_does_not_count_while_other_batches_fail() -> None:
    """An endpoint that is down behind a working probe must not use up record after record."""
    gate = made(*OUTAGE, probes(ok=True, now=4.0))

    assert not gate.others_pass(1, since=0.0)


def test_a_probe_that_passed_counts_for_one_record_until_others_pass() -> None:
    """The records of one batch are one family, and all of them fail when the endpoint is down."""
    outage = [*[fails(7, now=1.0)] * 3, probes(ok=True, now=4.0), gives_up(7, POISON)]

    assert not made(*outage).others_pass(7, since=1.0)
    assert not made(*outage).others_pass(7, since=1.0, record=(POISON[0], 6))
    again = [*[fails(8, now=6.0)] * 3, probes(ok=True, now=7.0)]
    assert made(*outage, passes(1, now=5.0), *again).others_pass(8, since=6.0)


@pytest.mark.parametrize("given_up", [[POISON], [POISON, POISON]])
def test_a_probe_that_passed_counts_for_the_same_record_each_time_that_it_is_sent_again(given_up: list[Record]) -> None:
    """It is a dead letter once more, and no other one is emptied into them."""
    before = [*[fails(7, now=1.0)] * 3, probes(ok=True, now=4.0)]
    again = [*[fails(9, now=6.0)] * 3, probes(ok=True, now=7.0)]
    gate = made(*before, *[gives_up(family, record) for family, record in enumerate(given_up, 7)], *again)

    assert gate.others_pass(9, since=6.0, record=POISON)
    assert not gate.others_pass(9, since=6.0, record=(POISON[0], 6))
    assert not gate.others_pass(9, since=6.0), "a batch of several"
    assert not made(*[fails(9, now=6.0)], gives_up(9, None), probes(ok=True, now=7.0)).others_pass(9, since=6.0)


def test_a_record_of_several_that_were_given_up_is_not_the_only_one_that_fails() -> None:
    gate = made(gives_up(7, POISON), gives_up(8, (POISON[0], 6)), *[fails(9)] * 3, probes(ok=True, now=4.0))

    assert not gate.others_pass(9, since=0.0, record=POISON)


def test_a_probe_that_failed_counts_for_nothing() -> None:
    assert not made(*[fails(7)] * 3, probes(ok=False, now=4.0)).others_pass(7, since=0.0)


# ------------------------------------------------------------------ any order of events


class GateLaws(RuleBasedStateMachine):
    """Any order of answers, probes, holds and resumes keeps the gate's laws."""

    @initialize(failures=st.integers(1, 4))
    def begin(self, failures: int) -> None:
        self.failures = failures
        self.gate = Gate(GatePolicy(failures, 2.0, 30.0, 10.0, 60.0))
        self.now = 1_000.0
        self.row = 0
        self.stopped: str | None = None

    @rule(secs=st.sampled_from([0.0, 1.0, 10.0, 100.0]))
    def wait(self, secs: float) -> None:
        self.now += secs

    @rule(family=st.integers(1, 4))
    def passes(self, family: int) -> None:
        was = self.gate.state

        closed = self.gate.passed(family, now=self.now)

        self.row = 0
        assert closed == (was != "closed" and self.stopped is None)
        assert closed or self.gate.state == was

    @rule(family=st.integers(1, 4))
    def fails(self, family: int) -> None:
        was = self.gate.state
        self.row += 1

        opened = self.gate.failed(family, now=self.now, detail="HTTP 500")

        assert opened == (was == "closed" and self.row >= self.failures)
        assert (self.gate.state == "closed") == (was == "closed" and not opened)

    @rule(reason=st.sampled_from(["unauthorized", "forbidden"]), family=st.integers(1, 4))
    def refused(self, reason: str, family: int) -> None:
        before = self.gate.hold

        news = self.gate.refused(family, reason, now=self.now, detail="no")

        assert self.gate.state == "open"
        assert news == (self.stopped is None and (before is None or before.reason != reason))

    @rule(reason=st.sampled_from(["storm:invalid_phone", "storm:not_json"]))
    def stop(self, reason: str) -> None:
        news = self.gate.stop(reason, now=self.now, detail="too many")

        assert news == (self.stopped != reason)
        self.stopped = reason

    @rule()
    def resume(self) -> None:
        self.gate.resume()

        self.stopped, self.row = None, 0
        assert self.gate.state == "closed" or self.gate.probe_due(now=self.now)

    @rule(ok=st.booleans())
    @precondition(lambda self: self.gate.state == "open")
    def probed(self, ok: bool) -> None:
        """Not only when one is due: a probe takes time, and the hold may have changed meanwhile."""
        self.gate.probed(ok=ok, now=self.now)

        if self.stopped is None:
            assert self.gate.state == ("half_open" if ok else "open")
            assert ok or 4.0 <= self.gate.next_probe_at - self.now <= 60.0

    @rule()
    def rests(self) -> None:
        was = self.gate.state

        closed = self.gate.close_idle()

        self.row = 0 if closed else self.row
        assert closed == (was == "half_open")
        assert self.gate.state == ("closed" if closed else was)

    @invariant()
    def a_gate_that_is_not_closed_says_why(self) -> None:
        assert (self.gate.state == "closed") == (self.gate.hold is None)

    @invariant()
    def what_may_start_follows_the_state(self) -> None:
        allowed = [self.gate.allowed(active) for active in (0, 1, 9)]
        assert allowed == {"closed": [None] * 3, "open": [0, 0, 0], "half_open": [1, 0, 0]}[self.gate.state]

    @invariant()
    def only_the_operator_ends_a_stop(self) -> None:
        hold = self.gate.hold
        if self.stopped is not None:
            assert hold is not None
            assert (self.gate.state, hold.reason, hold.ends) == ("open", self.stopped, "operator")
        else:
            assert hold is None or hold.ends == "probe"

    @invariant()
    def a_probe_is_due_in_a_bounded_time_or_the_operator_is_asked(self) -> None:
        due = self.gate.probe_due(now=self.now + 60.0)
        assert due == (self.gate.state == "open" and self.stopped is None)


TestGateLaws = GateLaws.TestCase
