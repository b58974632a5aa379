"""When dead letters are a storm: their share, their number, one reason at a time, within a window."""

from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connector.core.storm import EXEMPT, StormGuard, StormPolicy

POLICY: Final = StormPolicy(max_ratio=0.5, min_count=100, window_secs=60.0)


def guard(*, ratio: float = 0.5, count: int = 100, window: float = 60.0, enabled: bool = True) -> StormGuard:
    return StormGuard(StormPolicy(ratio, count, window, enabled))


def test_a_share_above_the_limit_storms() -> None:
    assert guard().observe(200, {"invalid_phone": 101}, now=0.0) == "invalid_phone"


def test_the_share_itself_does_not() -> None:
    assert guard().observe(200, {"invalid_phone": 100}, now=0.0) is None


def test_each_record_counts_once_even_after_others_were_forgotten() -> None:
    """The least that storms does so at first, after a pause, with half of it in the older half, and once reset."""
    watching = guard(count=1)

    assert watching.observe(3, {"not_json": 2}, now=0.0) == "not_json"
    assert watching.observe(3, {"not_json": 2}, now=100.0) == "not_json"
    assert watching.observe(1, {"not_json": 0}, now=131.0) is None, "2 of 4"
    assert watching.observe(1, {"not_json": 1}, now=131.0) == "not_json"
    watching.resume([], now=132.0)
    assert watching.observe(3, {"not_json": 2}, now=132.0) == "not_json"


@pytest.mark.parametrize(("failed", "storms"), [(99, None), (100, "not_json")])
def test_fewer_than_the_least_number_never_storm(failed: int, storms: str | None) -> None:
    """A quiet stream whose few records are all wrong is not a storm."""
    assert guard().observe(failed, {"not_json": failed}, now=0.0) == storms


def test_counts_of_checks_and_of_answers_are_available() -> None:
    watching = guard()
    watching.observe(200, {"not_json": 150}, now=0.0, checked=True)
    watching.observe(10, {"not_json": 1}, now=0.0)

    assert watching.counted("not_json", checked=True) == (150, 200)
    assert watching.counted("not_json") == (1, 10)


def test_small_numbers_add_up() -> None:
    watching = guard(count=10)

    assert [watching.observe(3, {"not_json": 3}, now=float(at)) for at in range(4)] == [None] * 3 + ["not_json"]


def test_what_is_well_counts_against_a_storm() -> None:
    watching = guard(count=10)
    watching.observe(1_000, {}, now=0.0)

    assert watching.observe(500, {"not_json": 500}, now=1.0) is None
    assert watching.observe(1_000, {"not_json": 1_000}, now=2.0) == "not_json"


def test_checks_are_measured_by_what_was_checked_and_answers_by_what_was_answered() -> None:
    """Checks run ahead: of a backlog most is checked, and little is answered yet."""
    watching = guard(count=10)

    for at in range(20):
        assert watching.observe(2_000, {"not_json": 100}, now=float(at), checked=True) is None
        assert watching.observe(50, {"not_sendable": 20}, now=float(at)) is None
    assert watching.observe(2_000, {"not_sendable": 1_900}, now=20.0) == "not_sendable", (
        "as many as were checked are well"
    )
    assert watching.observe(50_000, {"not_json": 49_000}, now=20.0, checked=True) == "not_json"


def test_reasons_are_counted_apart() -> None:
    """Many small errors are normal; one big error is somebody's mistake."""
    reasons = {f"missing_{name}": 60 for name in ("to", "body", "id")}

    assert guard().observe(180, reasons, now=0.0) is None


def test_the_reason_that_storms_is_named_among_others() -> None:
    assert guard().observe(300, {"not_json": 10, "invalid_phone": 200, "not_utf8": 5}, now=0.0) == "invalid_phone"


def test_records_in_doubt_are_no_storm() -> None:
    """They follow a crash, and holding them back would leave them in doubt."""
    assert frozenset({"in_doubt"}) == EXEMPT
    assert guard().observe(1_000, {"in_doubt": 1_000}, now=0.0) is None


def test_a_guard_that_is_off_says_nothing() -> None:
    assert guard(enabled=False).observe(1_000, {"not_json": 1_000}, now=0.0) is None


@pytest.mark.parametrize("checked", [False, True], ids=["answers", "checks"])
def test_what_was_counted_is_forgotten_when_the_operator_resumes(*, checked: bool) -> None:
    watching = guard(count=10)
    watching.observe(9, {"not_json": 9}, now=0.0, checked=checked)

    watching.resume([], now=1.0)

    assert watching.observe(9, {"not_json": 9}, now=1.0, checked=checked) is None


def test_what_has_stormed_is_let_pass_until_it_has_not_come_for_a_window() -> None:
    watching = guard(count=10)
    watching.resume(["not_json"], now=0.0)

    storms = [watching.observe(10, {"not_json": 10}, now=at) for at in (60.0, 120.0, 180.1)]

    assert storms == [None, None, "not_json"]
    watching.resume(["not_json"], now=200.0)
    assert watching.observe(10, {"invalid_phone": 10}, now=201.0) == "invalid_phone"


@pytest.mark.parametrize("pause", [60.0, 61.0, 1e6])
def test_a_pause_as_long_as_the_window_forgets_all(pause: float) -> None:
    watching = guard(count=10)
    watching.observe(9, {"not_json": 9}, now=100.0)

    assert watching.observe(9, {"not_json": 9}, now=100.0 + pause) is None


@pytest.mark.parametrize("begun", [0.0, 29.0, 31.0, 59.0, 100.0])
def test_what_is_younger_than_half_the_window_is_remembered(begun: float) -> None:
    watching = guard(count=10)
    watching.observe(0, {}, now=0.0)
    watching.observe(9, {"not_json": 9}, now=begun)

    assert watching.observe(1, {"not_json": 1}, now=begun + 29.9) == "not_json"


steps = st.lists(
    st.tuples(st.sampled_from([0.0, 1.0, 7.0, 29.0, 31.0, 70.0]), st.integers(0, 60), st.integers(0, 60)), max_size=20
)


@given(steps, st.sampled_from([0.1, 0.5, 0.9]), st.integers(1, 80))
def test_a_storm_is_a_share_and_a_number_of_what_the_window_holds(
    events: list[tuple[float, int, int]], ratio: float, least: int
) -> None:
    """The window forgets by halves, so between half of it and all of it, either answer is right."""
    watching = guard(ratio=ratio, count=least)
    told: list[tuple[float, int, int]] = []
    now = 1_000.0
    for secs, well, failed in events:
        now += secs
        told.append((now, well + failed, failed))

        said = watching.observe(well + failed, {"not_json": failed} if failed else {}, now=now)

        cuts = [now - 60, *[at for at, _, _ in told if now - 60 <= at <= now - 30]]
        held = [[one for one in told if one[0] > cut] for cut in cuts]
        sums = [(sum(total for _, total, _ in window), sum(failed for _, _, failed in window)) for window in held]
        verdicts = {failed >= least and failed > ratio * total for total, failed in sums}
        assert (said is not None) in (verdicts if failed else {False})


@pytest.mark.parametrize(("between", "at"), [([159.0], 188.0), ([130.0, 131.0], 160.0)])
def test_nothing_older_than_the_window_counts(between: list[float], at: float) -> None:
    """However the calls fall, so that the setting means what it says; nor what is just as old."""
    watching = guard(count=10)
    watching.observe(9, {"not_json": 9}, now=100.0)
    for now in between:
        watching.observe(0, {}, now=now)

    assert watching.observe(9, {"not_json": 9}, now=at) is None


def test_counts_do_not_pile_up() -> None:
    """Reasons are bounded, but a guard that never forgot them would still grow with each that ever was."""
    watching = guard(window=1.0)
    for at in range(100):
        watching.observe(1, {f"reason-{at}": 1}, now=float(at))

    assert sum(map(len, watching._answered._reasons)) <= 2
