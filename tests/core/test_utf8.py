"""UTF-8 in a column: each value is judged separately, although they are checked together."""

from hypothesis import example, given
from hypothesis import strategies as st

from connector.core.utf8 import not_utf8

VALUES = st.sampled_from(
    [b"", b"plain", b"\xc3\xa9t\xc3\xa9", b"cut \xc3", b"\xff", b"x" * 2_000, b"x" * 2_000 + b"\xff"]
)


def first_wrong_byte(value: bytes) -> int | None:
    try:
        value.decode()
    except UnicodeDecodeError as error:
        return error.start
    return None


@given(st.lists(st.tuples(st.none() | VALUES, st.booleans()), max_size=40))
@example([(b"x" * 2_000, False), (b"\xff", False)])
def test_each_value_that_is_not_utf8_is_named_with_its_first_wrong_byte(drawn: list[tuple[bytes | None, bool]]) -> None:
    """Those that are passed over, as all that are null, are neither counted nor named."""
    values = [value for value, _ in drawn]
    passed_over = {index for index, (value, passed) in enumerate(drawn) if passed or value is None}
    looked_at = {index: value for index, value in enumerate(values) if value is not None and index not in passed_over}

    length, wrong = not_utf8(values, passed_over)

    assert length == sum(map(len, looked_at.values()))
    assert wrong == {i: at for i, value in looked_at.items() if (at := first_wrong_byte(value)) is not None}
