"""Maps a function over a column in C; only records that fail cost a Python call."""

from collections.abc import Callable, Iterable
from typing import Any, Final

import msgspec

UNDECODABLE: Final = (msgspec.MsgspecError, RecursionError, TypeError, UnicodeDecodeError)
"""What msgspec's decoders raise for arbitrary bytes; TypeError for a null value."""


def mapped(
    function: Callable[[Any], Any],
    column: Iterable[Any],
    errors: type[Exception] | tuple[type[Exception], ...],
    instead: Callable[[int, Exception], Any],
) -> list[Any]:
    """Return `function` of each item of the column; where it raises one of `errors`, `instead(index, error)`."""
    made: list[Any] = []
    waiting = map(function, column)
    while True:
        try:
            made.extend(waiting)  # results before a failure stay
        except errors as error:
            made.append(instead(len(made), error))
        else:
            return made
