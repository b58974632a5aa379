"""UTF-8 in a column of values: a typed decode does not look into the strings that it passes over."""

from collections.abc import Collection, Sequence

from connector.core.packing import is_worth_joining


def not_utf8(values: Sequence[bytes | None], passed_over: Collection[int]) -> tuple[int, dict[int, int]]:
    """Return the bytes of all values, and for each that is not UTF-8 the first byte that is not.

    Values at the indices of `passed_over` do not count; no other is null.
    """
    there: list[bytes] = [v for i, v in enumerate(values) if i not in passed_over] if passed_over else values  # type: ignore[assignment,misc] # see above
    if is_worth_joining(there):
        joined = b"".join(there)
        length, is_ascii = len(joined), joined.isascii()
    else:
        length, is_ascii = sum(map(len, there)), all(map(bytes.isascii, there))
    wrong: dict[int, int] = {}
    if not is_ascii:
        for index, value in enumerate(values):
            if value is not None and index not in passed_over and not value.isascii():
                try:
                    value.decode()
                except UnicodeDecodeError as error:
                    wrong[index] = error.start
    return length, wrong
