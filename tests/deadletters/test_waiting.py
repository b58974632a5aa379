"""What waits to be redriven by a rule: when it is due, and which offset the rule may commit."""

from unittest.mock import create_autospec

from connector.config.streams import RedriveSettings
from connector.core.chunks import Chunk, Headers, Partition
from connector.deadletters.earlier import Earlier
from connector.deadletters.looking import Looking
from connector.deadletters.waiting import Part, Waiting
from tests.deadletters.making import NOW_MS, headers_of, letter

DEAD = Partition("dead", 0)
RULE = RedriveSettings(name="rule", reasons=["server_error"], delay_secs=60, max_per_sec=2)


def waiting(*reasons: str, now_ms: int | None = None) -> Waiting:
    """Return what waits after dead letters for these reasons, one a second, all looked for already."""
    made = Waiting("sends", RULE, fits=lambda _: True, was_redriven=lambda letter: letter.offset == 1, now=0.0)
    made.parts[DEAD] = Part(0, 0, looked_from=NOW_MS, begun=True)
    times = [NOW_MS + 1_000 * at for at in range(len(reasons))]
    headers: list[Headers | None] = [headers_of(why, offset=at, now_ms=times[at]) for at, why in enumerate(reasons)]
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


def test_a_dead_letter_that_stands_twice_while_it_waits_is_sent_again_once() -> None:
    """As an import into the topic that the rule follows leaves it."""
    made = waiting("server_error")
    copies: list[Headers | None] = [headers_of("server_error", offset=0)] * 3
    chunk = Chunk(DEAD, 0, [2, 3, 4], [b"{}"] * 3, headers=copies, timestamps=[NOW_MS] * 3)
    made.take(chunk, now_ms=NOW_MS + 1_000_000)

    due = made.due(now=5.0, now_ms=NOW_MS + 60_000)
    offsets = made.offsets(due)

    assert ([letter.offset for letter in due], offsets) == ([0], {DEAD: (5, "")})
    assert made.committed(due, offsets) == {"redriven": 3}


def test_a_copy_of_what_was_sent_again_since_the_look_has_it_looked_at_again() -> None:
    """An import writes it with the time that it had, as of which nothing new is written any more."""
    made = waiting("server_error", "expired", "server_error")
    part = made.parts[DEAD]
    due = made.due(now=5.0, now_ms=NOW_MS + 1_000_000)
    made.committed(due, made.offsets(due))

    for offset, at_ms, looked_from in ((3, NOW_MS + 2_001, NOW_MS), (4, NOW_MS + 2_000, None)):
        headers: list[Headers | None] = [headers_of("server_error", offset=offset, now_ms=at_ms)]
        made.take(Chunk(DEAD, 0, [offset], [b"{}"], headers=headers, timestamps=[at_ms]), now_ms=NOW_MS + 1_000_000)

        assert part.looked_from == looked_from


def test_a_copy_of_what_another_sent_again_has_it_looked_at_again_as_well() -> None:
    """What a look has found is forgotten once all is dealt with that was written by then."""
    made = waiting("expired", "server_error")
    part = made.parts[DEAD]
    assert (part.passed, part.done_ms) == ([(1, "redriven")], NOW_MS + 1_000)

    earlier = create_autospec(Earlier, instance=True, is_looking=False)
    found = Part(0, None)
    found.waiting.append(letter(timestamp_ms=NOW_MS))
    Looking(earlier, {DEAD: found}).look(lambda _partition: 1)

    assert (found.passed, found.done_ms) == ([(0, "redriven")], NOW_MS)


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
