"""Packed columns give back what went in, whatever it holds."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connector.core.packing import SMALL_BYTES, PackedKeys, PackedValues, is_worth_joining, packed, unpacked

VALUES = st.lists(st.binary(max_size=20) | st.sampled_from([b"", b",", b",,", b"\n"]), min_size=1, max_size=8)
KEYS = st.lists(st.binary(max_size=20).map(lambda key: key.replace(b"\0", b"")), min_size=1, max_size=8)


@given(VALUES, st.integers(-9, 8), st.integers(-9, 8))
def test_packed_values_are_what_they_were(values: list[bytes], start: int, stop: int) -> None:
    column = PackedValues(values)

    assert column.joined == b",".join(values)
    assert (list(column), len(column), unpacked(column)) == (values, len(values), values)
    assert [column[index] for index in range(len(values))] == values
    assert (column[start:stop], column[-1]) == (values[start:stop], values[-1])


@given(KEYS, st.integers(-9, 8), st.integers(-9, 8))
def test_packed_keys_are_what_they_were(keys: list[bytes], start: int, stop: int) -> None:
    column = PackedKeys(keys)

    assert (list(column), len(column), unpacked(column)) == (keys, len(keys), keys)
    assert [column[index] for index in range(len(keys))] == keys
    assert (column[start:stop], column[-1]) == (keys[start:stop], keys[-1])


@pytest.mark.parametrize("kind", [PackedValues, PackedKeys])
@pytest.mark.parametrize("column", [[b"x", None], [None, b"x"], [b"x" * (SMALL_BYTES + 1)]])
def test_what_cannot_be_packed_or_would_gain_nothing_stays_as_it_is(
    kind: type[PackedValues] | type[PackedKeys], column: list[bytes | None]
) -> None:
    """Nulls and large ones."""
    assert packed(column, kind) is column


@pytest.mark.parametrize("kind", [PackedValues, PackedKeys])
@pytest.mark.parametrize("column", [[b""], [b"x" * SMALL_BYTES, b"y" * 2 * SMALL_BYTES]])
def test_small_ones_are_packed(kind: type[PackedValues] | type[PackedKeys], column: list[bytes]) -> None:
    assert isinstance(packed(column, kind), kind)


@pytest.mark.parametrize(
    ("sizes", "worth"),
    [([], True), ([None, 2], True), ([SMALL_BYTES], True), ([SMALL_BYTES + 1], False), ([SMALL_BYTES + 1, 1], False)],
)
def test_the_first_value_decides_whether_a_column_is_joined(sizes: list[int | None], worth: bool) -> None:
    """Looking at all would take as long as it saves; a null counts as an empty value."""
    assert is_worth_joining([None if size is None else bytes(size) for size in sizes]) == worth


@pytest.mark.parametrize("kind", [PackedValues, PackedKeys])
def test_a_column_is_cut_once_however_many_are_asked_for_one_by_one(
    kind: type[PackedValues] | type[PackedKeys],
) -> None:
    """Otherwise looking at each of a thousand records would cut a million."""
    column = kind([b"one", b"two"])

    assert column[1] is column[1]


def test_a_column_that_is_not_packed_is_unpacked_as_a_list_and_a_list_as_it_is() -> None:
    column = [b"a", None]

    assert unpacked(column) is column
    assert unpacked(tuple(column)) == column


@pytest.mark.parametrize("key", [b"\0", b"a\0b", b"\0\0"])
def test_keys_with_a_null_byte_are_not_packed(key: bytes) -> None:
    column = [b"a", key, b"b"]

    assert packed(column, PackedKeys) is column


def test_what_is_packed_already_is_not_packed_again() -> None:
    column = PackedValues([b"a", b"b"])

    assert packed(column, PackedValues) is column
