"""A chunk that is cut keeps every column of its records, and nothing of the others."""

import tracemalloc
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connector.core.chunks import KEY_BYTES, OBJECT_BYTES, Chunk, Headers, Partition, in_order, source_bytes, weight
from connector.core.packing import SMALL_BYTES, PackedValues
from tests.core.making import A, batch, chunk, chunks, rows


@given(chunks(), st.integers(0, 14), st.integers(0, 14))
def test_a_slice_holds_the_rows_in_its_bounds(whole: Chunk, start: int, stop: int) -> None:
    piece = whole.slice(start, stop)

    assert list(rows([piece])) == list(rows([whole]))[start:stop]


@given(chunks(), st.sets(st.integers(0, 13)))
def test_a_pick_holds_the_rows_at_its_indices(whole: Chunk, wanted: set[int]) -> None:
    indices = sorted(index for index in wanted if index < len(whole))

    piece = whole.pick(indices)

    every = list(rows([whole]))
    assert list(rows([piece])) == [every[index] for index in indices]


@given(chunks(), st.integers(0, 14), st.integers(0, 14))
def test_a_cut_keeps_where_each_record_stood_in_its_request(whole: Chunk, start: int, stop: int) -> None:
    numbered = replace(whole, indices=range(50, 50 + len(whole)))
    picked = [index for index in range(len(whole)) if start <= index < stop]

    for piece in (numbered.slice(start, stop), numbered.pick(picked)):
        assert list(piece.indices or ()) == [50 + index for index in picked]


@given(st.lists(st.integers(0, 2), min_size=1, max_size=14))
def test_interleaved_chunks_are_put_in_order_in_pieces_as_long_as_can_be(owners: list[int]) -> None:
    parts = [[at for at, whose in enumerate(owners) if whose == number] for number in set(owners)]

    pieces = list(in_order(chunk(A, part) for part in reversed(parts)))

    assert [offset for piece in pieces for offset in piece.offsets] == list(range(len(owners)))
    assert len(pieces) == sum(before != after for before, after in pairwise([None, *owners]))


def test_spliced_records_keep_sharing_one_column() -> None:
    """What goes into the request is the value itself: a cut must not double the references that are held."""
    whole = chunk(offsets=range(5))

    for piece in (whole.slice(1, 3), whole.pick([0, 4])):
        assert piece.wire is piece.values


def test_a_cut_that_keeps_all_is_the_chunk_itself() -> None:
    whole = chunk(offsets=range(3))

    assert whole.slice(0, 3) is whole
    assert whole.pick([0, 1, 2]) is whole


def test_a_partition_reads_as_its_topic_and_number() -> None:
    assert str(A) == "alpha:0"


@pytest.mark.parametrize("text", ["alpha:0", "alpha[0]", "alpha [0]"])
def test_a_partition_is_parsed_in_our_form_and_in_those_of_librdkafka_and_kcat(text: str) -> None:
    assert Partition.read(text) == A


@pytest.mark.parametrize("text", ["", "alpha", "alpha:", ":0", "alpha-0", "alpha:-1", "alpha:0:1", "alpha[0"])
def test_what_is_no_partition_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="should be TOPIC:NUMBER"):
        Partition.read(text)


@given(chunks())
def test_a_chunk_weighs_more_than_its_bytes(whole: Chunk) -> None:
    """The budget counts the columns with bytes, headers, and the objects around each record."""
    columns = [whole.values]
    if whole.wire is not None and whole.wire is not whole.values:
        columns.append(whole.wire)
    if whole.keys is not None:
        columns.append(whole.keys)
    content = sum(len(value or b"") for column in columns for value in column)

    assert weight(whole) - content == len(whole) * (OBJECT_BYTES * (len(columns) + 1) + whole.header_bytes)


def test_what_an_event_was_made_of_weighs_as_well() -> None:
    """A text of a hundred bytes may be made of a value of a million."""
    made = Chunk(A, 1, [0, 1], [b"x" * 1_000, b"y" * 1_000], wire=[b"a", b"b"])
    plain = Chunk(A, 1, [0, 1], made.values)

    assert weight(made) - weight(plain) == 2 * (1 + OBJECT_BYTES)
    assert weight(made.pick([1])) - weight(plain.pick([1])) == 1 + OBJECT_BYTES


def test_keys_that_are_longer_than_most_are_kept_beside_what_goes_into_requests() -> None:
    """Those of change data capture are objects in JSON."""
    short, long = (replace(chunk(offsets=[0, 1]), keys=[b"k" * size] * 2) for size in (5, 1_000))

    assert source_bytes(short) == source_bytes(chunk(offsets=[0, 1])) == 0
    assert source_bytes(long) == 2 * (1_000 + OBJECT_BYTES - KEY_BYTES)


def test_headers_weigh_what_they_take() -> None:
    """A few of them take more memory than a short event."""
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    headers: list[Headers | None] = [[(f"h{at}", b"%d" % record) for at in range(6)] for record in range(1_000)]
    took = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    made = Chunk(A, 1, range(1_000), [b"x"] * 1_000, headers=headers)
    plain = Chunk(A, 1, range(1_000), [b"x"] * 1_000)

    assert 0.9 < (weight(made) - weight(plain)) / took < 1.2
    assert 0.9 < (weight(made.slice(0, 10)) - weight(plain.slice(0, 10))) / (took / 100) < 1.2


@given(chunks(), st.integers(0, 14), st.integers(0, 14))
def test_no_key_is_longer_than_what_a_chunk_says_of_its_keys(whole: Chunk, start: int, stop: int) -> None:
    assert whole.key_bytes == sum(len(key) for key in whole.keys or () if key is not None)

    for piece in (whole.slice(start, stop), whole.pick(range(min(start, len(whole)), min(stop, len(whole))))):
        assert all(len(key) <= piece.key_bytes for key in piece.keys or () if key is not None)


@given(chunks(), st.integers(0, 14), st.integers(0, 14))
def test_a_packed_chunk_is_cut_as_if_it_were_not(whole: Chunk, start: int, stop: int) -> None:
    made = replace(whole, wire=[b"%d" % offset for offset in whole.offsets])
    packed = made.pack()
    picked = [index for index in range(len(whole)) if start <= index < stop]

    for piece, same in ((packed, made), (packed.slice(start, stop), made.slice(start, stop))):
        assert list(rows([piece])) == list(rows([same]))
        assert (piece.join(), piece.wire_bytes) == (same.join(), same.wire_bytes)
    assert list(rows([packed.pick(picked)])) == list(rows([made.pick(picked)]))


def test_spliced_records_share_one_packed_column_and_weigh_less() -> None:
    """Nothing of the values' own objects is kept."""
    loose = chunk(offsets=range(5))

    packed = loose.pack()

    assert isinstance(packed.wire, PackedValues)
    assert packed.wire is packed.values
    assert weight(packed) < weight(loose)


def test_large_values_and_values_that_may_be_null_are_not_packed() -> None:
    """The large ones would leave the cache before anybody reads them."""
    large = [b"x" * (SMALL_BYTES + 1)]
    made = Chunk(A, 1, [0, 1], [b"x", None], wire=[b"a", b"b"]).pack()

    assert Chunk(A, 1, [0], large, wire=large).pack().wire is large
    assert (list(made.values), made.join()) == ([b"x", None], b"a,b")


def test_older_records_are_found_where_they_stand_and_one_without_a_timestamp_never_is() -> None:
    whole = replace(chunk(offsets=range(5)), timestamps=[1_000, 999, -1, 0, 1_001])

    assert whole.older_than(1_000) == [1, 3]
    assert batch(chunk(offsets=[9]), replace(whole), whole).older_than(1_000) == [2, 4, 7, 9]
    assert whole.older_than(None) == chunk(offsets=range(5)).older_than(1_000) == []
