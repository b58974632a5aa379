"""A function mapped over a column in C, of which some records fail: the others cost no Python call of their own."""

from collections.abc import Callable, Iterable
from typing import Any, Final

import msgspec

UNDECODABLE: Final = (msgspec.MsgspecError, RecursionError, TypeError, UnicodeDecodeError)
"""What msgspec's decoders raise for bytes from anywhere; a null value is a TypeError."""


def mapped(
    function: Callable[[Any], Any],
    column: Iterable[Any],
    errors: type[Exception] | tuple[type[Exception], ...],
    instead: Callable[[int, Exception], Any],
) -> list[Any]:
    """Return what the function makes of each; where it raises one of the errors, what `instead` says of its index."""
    made: list[Any] = []
    waiting = map(function, column)
    while True:
        try:
            made.extend(waiting)  # what was made before a failure stays
        except errors as error:
            made.append(instead(len(made), error))
        else:
            return made
