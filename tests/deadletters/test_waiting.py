"""What waits to be sent again by a rule: when it is due, and how far the rule may say that it has come."""

from connector.config.streams import RedriveSettings
from connector.core.chunks import Chunk, Headers, Partition
from connector.deadletters.waiting import Part, Waiting
from tests.deadletters.making import NOW_MS, headers_of

DEAD = Partition("dead", 0)
RULE = RedriveSettings(name="rule", reasons=["server_error"], delay_secs=60, max_per_sec=2)


def waiting(*reasons: str, now_ms: int | None = None) -> Waiting:
    """Return what waits after dead letters for these reasons, one a second, all looked for already."""
    made = Waiting("sends", RULE, fits=lambda _: True, was_redriven=lambda letter: letter.offset == 1, now=0.0)
    made.parts[DEAD] = Part(0, 0, looked_from=NOW_MS, begun=True)
    headers: list[Headers | None] = [headers_of(reason) for reason in reasons]
    times = [NOW_MS + 1_000 * at for at in range(len(reasons))]
    chunk = Chunk(DEAD, 0, range(len(reasons)), [b"{}"] * len(reasons), headers=headers, timestamps=times)
    made.take(chunk, now_ms=NOW_MS + 1_000_000 if now_ms is None else now_ms)
    return made


def test_no_more_is_due_than_the_rate_allows() -> None:
    made = waiting(*["server_error"] * 8)

    counts = []
    for now in (0.0, 1.0, 1.0, 1.5, 100.0):
        due = made.due(now=now, now_ms=NOW_MS + 1_000_000)
        made.committed(due, made.offsets(due))
        counts.append(len(due))

    assert counts == [0, 2, 0, 1, 2], "what was not used is saved up for a second"


def test_a_rule_has_come_as_far_as_the_first_that_waits_and_tells_what_it_passed_over_by_then() -> None:
    made = waiting("server_error", "server_error", "expired", "server_error")
    assert made.offsets([]) == {}
    assert made.shown() == (2, NOW_MS / 1_000 + 60)

    due = made.due(now=1.0, now_ms=NOW_MS + 60_000)
    offsets = made.offsets(due)

    assert ([letter.offset for letter in due], offsets) == ([0], {DEAD: (3, "")})
    assert made.committed(due, offsets) == {"redriven": 1}
    assert made.offsets([]) == {}


def test_a_time_that_is_still_to_come_when_a_dead_letter_is_read_is_not_waited_for() -> None:
    """A clock that was ahead has stamped it, and all behind it in its partition would wait for that time."""
    ours = NOW_MS - 86_400_000
    made = waiting("server_error", "expired", "server_error", now_ms=ours)
    assert made.shown() == (2, ours / 1_000 + 60)
    assert made.due(now=1.0, now_ms=ours + 59_999) == []

    due = made.due(now=2.0, now_ms=ours + 60_000)
    offsets = made.offsets(due)

    assert ([letter.offset for letter in due], offsets) == ([0, 2], {DEAD: (3, "")})
    made.committed(due, offsets)
    assert not made.parts[DEAD].ahead
