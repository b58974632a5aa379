"""Checks columns of values for UTF-8: a typed decoder does not check the strings that it skips."""

from collections.abc import Collection, Sequence

from connector.core.packing import is_worth_joining


def not_utf8(values: Sequence[bytes | None], passed_over: Collection[int]) -> tuple[int, dict[int, int]]:
    """Return the total bytes of the values, and by index the position of the first byte that is not UTF-8.

    Values at indices in `passed_over` are not counted or checked; no other value is null.
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
