"""Laws of rebuilding progress from results: records with one are not sent again, others are not skipped."""

import tracemalloc
from collections.abc import Iterator

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from connector.core import rebuilding
from connector.core.progress import MAX_METADATA, decode, encode
from connector.core.ranges import Range, RangeSet, runs
from connector.core.rebuilding import _COMPACT_AT, Gathered, _joined, gaps, rebuilt, without_result

_MOST = 60
_sets = st.sets(st.integers(0, _MOST - 1))


def _gathered(pieces: list[list[int]]) -> list[tuple[int, int]]:
    gathered = Gathered()
    for piece in pieces:
        gathered.add(runs(sorted(set(piece))))
    return gathered.ranges()


def _members(ranges: RangeSet | list[tuple[int, int]]) -> set[int]:
    return {offset for start, stop in ranges for offset in range(start, stop)}


@given(st.lists(st.lists(st.integers(0, _MOST), max_size=20), max_size=8))
def test_results_in_any_order_and_more_than_once_come_to_the_same(pieces: list[list[int]]) -> None:
    found = _gathered(pieces)

    assert _members(found) == {offset for piece in pieces for offset in piece}
    assert found == runs(sorted(_members(found)))


@given(_sets, st.integers(0, _MOST))
@example(results={3, 4, 7}, start=3)
def test_gaps_are_all_that_lies_between_results_and_none_is_empty(results: set[int], start: int) -> None:
    opened, top = gaps(runs(sorted(results)), start)

    assert top == max([start, *(offset + 1 for offset in results)])
    assert opened == runs([offset for offset in range(start, top) if offset not in results])


@given(_sets, _sets, st.integers(0, _MOST), st.one_of(st.none(), st.integers(0, _MOST)))
@example(results={5}, others={0, 2}, start=0, until=None)
@example(results={2, 5}, others={0, 1, 3, 4, 6, 7}, start=0, until=None)
def test_what_has_a_result_is_not_sent_again_and_what_has_none_is_not_passed_over(
    results: set[int], others: set[int], start: int, until: int | None
) -> None:
    """`others` are records that have no result; all other offsets have no record."""
    missing = {offset for offset in others if offset >= start} - results
    done = runs(sorted(results))
    opened, top = gaps(done, start)
    between = without_result(opened, runs(sorted(missing | results)))

    found = rebuilt(between, start=start, top=top, until=until, birth=3)

    settled, doubt = _members(found.settled), _members(found.in_flight)
    passed_over = {offset for offset in range(start, _MOST) if offset < found.base or offset in settled}
    assert {offset for offset in results if offset >= start} <= passed_over
    assert not missing & passed_over
    assert not settled & doubt
    assert found.base >= start
    last = max(results, default=-1)
    posted_anew = missing - doubt
    if until is None:
        assert not doubt
    else:
        assert all(offset > last and offset >= until for offset in posted_anew)
        assert all(offset < max(until, last) for offset in doubt), "nothing behind it is doubted"
    assert decode(found.base, encode(found)) == found, "and that is how it is committed"


@given(_sets, _sets)
def test_the_committed_offset_is_the_first_record_without_a_result(results: set[int], others: set[int]) -> None:
    done = runs(sorted(results))
    missing = {offset for offset in others - results if offset <= max(results, default=-1)}

    opened, top = gaps(done, 0)
    found = rebuilt(without_result(opened, runs(sorted(others))), start=0, top=top, until=0)

    assert found.base == min(missing, default=max(results, default=-1) + 1)


def test_markers_of_transactions_take_no_metadata() -> None:
    """A producer with transactions leaves an offset without a record behind each of them."""
    records = [offset for offset in range(1_000_000) if offset % 50]
    results = [offset for offset in records if offset != 777_777]
    done, there = runs(results), runs(records)

    opened, top = gaps(done, 0)
    found = rebuilt(without_result(opened, there), start=0, top=top, until=0)

    assert found.base == 777_777
    assert list(found.in_flight) == [(777_777, 777_778)]
    assert len(encode(found)) < MAX_METADATA / 100


@pytest.mark.parametrize("order", [1, -1])
def test_a_million_results_take_memory_by_their_runs_alone(order: int) -> None:
    """One in a hundred has a dead letter, which is read separately from outcomes; they fill the gaps."""
    pieces = [list(range(start, start + 10_000)) for start in range(0, 1_000_000, 10_000)]
    outcomes = [runs([offset for offset in piece if offset % 100]) for piece in pieces]
    letters = [runs([offset for offset in piece if not offset % 100]) for piece in pieces]
    gathered = Gathered()
    tracemalloc.start()
    for piece in (*outcomes[::order], *letters):
        gathered.add(piece)
    found = gathered.ranges()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert found == [(0, 1_000_000)]
    assert peak < 16_000_000, "of a set of a million numbers it were more than 60 MB"


def test_results_that_touch_are_merged_on_the_way_and_those_that_do_not_are_not_sorted_again_and_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Both by the number of ranges that remain: a topic may have billions of results."""
    sizes: list[int] = []

    def joined(ranges: list[Range]) -> Iterator[Range]:
        sizes.append(len(ranges))
        return _joined(ranges)

    monkeypatch.setattr(rebuilding, "_joined", joined)
    touching, apart = Gathered(), Gathered()
    for offset in range(8 * _COMPACT_AT):
        touching.add([(offset, offset + 1)])
    most, sizes = max(sizes), []
    for offset in range(8 * _COMPACT_AT):
        apart.add([(2 * offset, 2 * offset + 1)])

    assert most <= _COMPACT_AT + 1
    assert len(sizes) == 3, "twice as many each time"
    assert (touching.ranges(), len(apart.ranges())) == ([(0, 8 * _COMPACT_AT)], 8 * _COMPACT_AT)
