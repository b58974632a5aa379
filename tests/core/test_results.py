"""Results: each record's verdict, and their memory, however they are split."""

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connector.core.chunks import large_key_bytes, weight
from connector.core.results import DEAD_LETTER_BYTES, OUTCOME_BYTES, Finished
from connector.core.verdicts import FILTERED, QUEUED, Verdict, Verdicts
from tests.core.making import A, Position, chunk, positions

REFUSED = Verdict("dead_letter", "invalid_phone")
DOUBT = Verdict("dead_letter", "in_doubt")
VERDICTS = st.sampled_from([QUEUED, FILTERED, REFUSED, DOUBT])


@st.composite
def results(draw: st.DrawFn) -> Finished:
    """Draw results of one to three chunks."""
    sizes = draw(st.lists(st.integers(1, 5), min_size=1, max_size=3))
    exceptions = draw(st.dictionaries(st.integers(0, sum(sizes) - 1), VERDICTS))
    pieces = [chunk(A, range(10 * at, 10 * at + size)) for at, size in enumerate(sizes)]
    return Finished(tuple(pieces), Verdicts(draw(VERDICTS), exceptions), "t-1")


def told(item: Finished | None) -> dict[Position, Verdict]:
    places = positions(item.chunks) if item else []
    return {position: item.verdicts.of(index) for index, position in enumerate(places)} if item else {}


@given(results(), st.sets(st.integers(0, 14)))
def test_taken_apart_each_record_keeps_its_verdict_and_the_parts_weigh_what_they_hold(
    item: Finished, wanted: set[int]
) -> None:
    indices = sorted(index for index in wanted if index < item.count)
    everything = list(told(item).items())

    chosen, others = item.split(indices)

    assert told(chosen) == dict(everything[index] for index in indices)
    assert told(others) == dict(each for index, each in enumerate(everything) if index not in wanted)
    assert all(part.bytes == sum(map(weight, part.chunks)) > 0 for part in (chosen, others) if part)


@given(results(), st.integers(0, 35) | st.none())
def test_results_below_a_cut_are_parted_from_all_others(item: Finished, cut: int | None) -> None:
    everything = told(item)

    now, later = item.cut({A: cut})

    assert told(now) == {each: verdict for each, verdict in everything.items() if cut is None or each[1] < cut}
    assert told(now) | told(later) == everything


@given(results(), st.sets(st.sampled_from([0, 10, 20])))
def test_results_of_chunks_that_are_wanted_are_parted_from_all_others(item: Finished, wanted: set[int]) -> None:
    """The usual case, that all are, costs nothing."""
    everything = told(item)

    chosen, others = item.sorted_by(lambda piece: piece.offsets[0] in wanted)

    assert told(chosen) == {each: verdict for each, verdict in everything.items() if each[1] // 10 * 10 in wanted}
    assert told(others) == {each: verdict for each, verdict in everything.items() if each[1] // 10 * 10 not in wanted}
    assert item.sorted_by(lambda _: True) == (item, None)


@pytest.mark.parametrize("known", [0, 7])
def test_bytes_that_are_known_are_not_counted_again(known: int) -> None:
    """What was taken into account with one figure has to be taken out with it."""
    assert Finished((chunk(A, range(3)),), Verdicts(QUEUED), bytes=known).bytes == known


@given(results())
def test_what_results_take_when_they_are_written_is_for_dead_letters_that_of_their_records_as_well(
    item: Finished,
) -> None:
    """Outcomes repeat nothing of a record but its key, which counts where it is larger than usual."""
    dead = sum(verdict.status == "dead_letter" for verdict in told(item).values())

    counted = item.written_bytes

    assert counted == (item.count - dead) * OUTCOME_BYTES + dead * DEAD_LETTER_BYTES + item.bytes * dead // item.count
    keyed = tuple(replace(piece, keys=[b"k" * 1_000] * len(piece), key_bytes=-1) for piece in item.chunks)
    assert replace(item, chunks=keyed).written_bytes - counted == sum(map(large_key_bytes, keyed)) > 900 * item.count


@given(results())
def test_dead_letters_are_counted_by_reason_and_nothing_else_is(item: Finished) -> None:
    dead = [verdict.reason for verdict in told(item).values() if verdict.status == "dead_letter"]

    assert +item.reasons() == Counter(dead)
