"""An operator's pause: nothing starts and nothing is read until somebody resumes, whatever else holds."""

from connector.core.breaker import Hold
from tests.stream.making import make_state


def test_a_pause_stops_what_starts_and_what_is_read_and_is_reported_once() -> None:
    state, told = make_state(), list[Hold]()
    state.on_hold = told.append
    assert state.slots(0.0) > 0

    holds = [state.pause("paused by a"), state.pause("paused by b")]

    assert holds == told * 2
    assert (state.slots(0.0), state.may_read) == (0, False)
    assert [(hold.reason, hold.detail, hold.ends) for hold in told] == [("paused", "paused by a", "operator")]
    assert state.holds() == told


def test_a_resume_ends_it() -> None:
    state = make_state()
    state.pause("paused by a")

    with state.changed:
        state.resume()

    assert (state.holds(), state.may_read) == ([], True)
    assert state.slots(0.0) > 0


def test_a_hold_that_a_probe_ends_stays_when_a_pause_ends() -> None:
    """And the platform's recovery does not end the pause."""
    state = make_state()
    state.gate.refused(1, "unauthorized", now=1.0, detail="401")
    state.pause("paused by a")
    assert [hold.reason for hold in state.holds()] == ["paused", "unauthorized"]

    state.gate.probed(ok=True, now=2.0)
    state.gate.passed(1, now=2.0)

    assert [hold.reason for hold in state.holds()] == ["paused"]
    assert state.slots(3.0) == 0

    state.gate.refused(1, "unauthorized", now=4.0, detail="401")
    assert not state.gate.probe_due(now=4.0)
    with state.changed:
        state.resume()

    assert [hold.reason for hold in state.holds()] == ["unauthorized"]
    assert state.gate.probe_due(now=4.0), "at once, instead of when it would have been"
