"""Counts are those of looking at each dead letter, whatever stands beside it in its chunk."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from connector.core.chunks import Chunk, Headers, Partition
from connector.deadletters.letters import letters_of
from connector.deadletters.sums import MAX_STEPS, MINUTE_MS, Sums
from tests.deadletters.making import NOW_MS, headers_of
from tests.deadletters.test_letters import CONNECT

_rows = st.lists(
    st.sampled_from(
        [
            headers_of("provider_error", stream="a"),
            headers_of("provider_error", stream="b", topic="other"),
            headers_of("rejected", stream="a"),
            [("tenant", b"acme"), *headers_of("rejected", stream="a")],
            [header for header in headers_of() if header[0] != "trackly.code"],
            [*headers_of(), ("trackly.reason", b"later")],
            CONNECT,
            [],
        ]
    ),
    min_size=1,
    max_size=30,
)


def chunk_of(rows: list[Headers]) -> Chunk:
    count = len(rows)
    return Chunk(
        Partition("dead", 0), 0, range(count), [b"{}"] * count, headers=list(rows), timestamps=[NOW_MS] * count
    )


@given(_rows)
def test_counts_are_those_of_each_dead_letter(rows: list[Headers]) -> None:
    sums, chunk = Sums(), chunk_of(rows)

    sums.add(chunk)

    letters = list(letters_of(chunk))
    assert sums.total == len(rows)
    assert sums.by(0) == dict(Counter(letter.reason for letter in letters).most_common())
    assert sums.by(3) == dict(Counter(letter.stream or "none" for letter in letters).most_common())
    assert sum(sums.by_age(now_ms=NOW_MS).values()) == len(rows)


def test_equal_counts_stand_by_name_whatever_was_read_first() -> None:
    sums = Sums()
    sums.add(chunk_of([headers_of("rejected"), headers_of("expired"), headers_of("not_json"), headers_of("rejected")]))

    assert list(sums.by(0)) == ["rejected", "expired", "not_json"]


@given(st.lists(st.integers(0, 3_000_000), min_size=1, max_size=40))
def test_a_time_line_is_short_and_has_every_dead_letter(minutes: list[int]) -> None:
    sums = Sums()
    count = len(minutes)
    sums.add(Chunk(Partition("dead", 0), 0, range(count), [None] * count, timestamps=[m * MINUTE_MS for m in minutes]))

    line = sums.time_line()

    assert sum(count for _, count in line) == len(minutes)
    assert len(line) <= 4 * MAX_STEPS
    assert [start for start, _ in line] == sorted(start for start, _ in line)


@given(st.lists(st.integers(-(1 << 63), (1 << 63) - 1), min_size=1, max_size=20))
def test_a_time_line_has_a_place_for_whatever_stands_for_a_time(times: list[int]) -> None:
    """Producers stamp records as they like, in microseconds too."""
    sums = Sums()
    sums.add(Chunk(Partition("dead", 0), 0, range(len(times)), [None] * len(times), timestamps=times))

    line = sums.time_line()

    assert sum(count for _, count in line) == len(times)
    assert [start for start, _ in line] == sorted(start for start, _ in line)
