"""The fields that a mapping looks at, decoded out of JSON while the rest of a record is passed over.

Most mappings do nothing but follow fields. For them a record need not become a dict with all that is in it: a struct of
the fields that are looked at is there in half the time, and what stands in it comes out column by column.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from operator import attrgetter
from typing import Any, Final, NamedTuple

import msgspec

from connector.core.mapped import UNDECODABLE, mapped
from connector.core.utf8 import not_utf8

FieldPath = tuple[str, ...]
"""Fields from outside in; the first is a root of the record."""


class Printed(NamedTuple):
    """A field that a template prints."""

    path: FieldPath
    instead: str | None = None
    """What is printed where the field is null or not there; None where only the template knows."""


_NO_OBJECT: Final = None | bool | int | float | str | list[Any]
MAX_NAMES: Final = 50
"""In a path of a projection, whose types are nested as deep."""

_FOLLOW: Final[dict[str, Callable[[Sequence[Any]], list[Any]]]] = {
    "f0": lambda column: [found.f0 for found in column],
    "f1": lambda column: [found.f1 for found in column],
    "f2": lambda column: [found.f2 for found in column],
    "f3": lambda column: [found.f3 for found in column],
    "f4": lambda column: [found.f4 for found in column],
    "f5": lambda column: [found.f5 for found in column],
}
"""Written out for most mappings, since the interpreter learns where such an attribute lies: half the time of others."""


class Projection:
    """Decodes what stands at some paths below `value`, none of which goes on below another."""

    def __init__(self, paths: Iterable[FieldPath]) -> None:
        self._places: dict[FieldPath, str] = {}
        tree: dict[str, Any] = {}
        for path in sorted(paths):
            inner = tree
            for name in path:
                inner = inner.setdefault(name, {})
        kind = self._kind(tree["value"], ("value",))
        self._decode: Callable[[bytes | None], Any] = msgspec.json.Decoder(kind).decode  # type: ignore[assignment] # a null is a TypeError
        self._nothing = msgspec.json.decode(b"{}", type=kind)

    def decode(self, values: Sequence[bytes | None]) -> tuple[list[Any], set[int]]:
        """Return what the paths need of each value, and the indices of values that are to be decoded whole.

        Those are no JSON, no UTF-8 or null. In fields that are passed over, numbers may be larger than any that fits.
        """
        whole: set[int] = set()

        def nothing(index: int, _error: Exception) -> Any:
            whole.add(index)
            return self._nothing

        found = mapped(self._decode, values, UNDECODABLE, nothing)
        whole |= not_utf8(values, whole)[1].keys()
        return found, whole

    def follow(self, column: Sequence[Any], path: FieldPath) -> list[Any]:
        """Return the last field of `path` of each in a column of what stands before it; null where it is not there."""
        place = self._places[path]
        try:
            return _FOLLOW[place](column) if place in _FOLLOW else list(map(attrgetter(place), column))
        except AttributeError:  # no object stands there
            return [None if found is None else getattr(found, place, None) for found in column]

    def _kind(self, tree: dict[str, Any], path: FieldPath) -> Any:
        fields: list[tuple[str, Any, Any]] = []
        names: dict[str, str] = {}
        for number, (name, inner) in enumerate(tree.items()):
            place = f"f{number}"
            names[place] = name
            self._places[(*path, name)] = place
            fields.append((place, self._kind(inner, (*path, name)) if inner else Any, None))
        kind: Any = msgspec.defstruct("Projected", fields, rename=names, gc=False)
        return kind | _NO_OBJECT


def projection_of(paths: Collection[FieldPath]) -> Projection | None:
    """Return a projection for these paths, None where there can be none.

    That is where one of them needs all of the value, goes on below another or is very long, or none looks at the value;
    and where msgspec has no such field, for a quote or a backslash in its name.
    """
    wanted = {path for path in paths if path[0] == "value"}
    if any(len(path) > MAX_NAMES for path in wanted):
        return None
    nested = any(path[:length] in wanted for path in wanted for length in range(1, len(path)))
    if nested or not wanted or ("value",) in wanted:
        return None
    try:
        return Projection(wanted)
    except ValueError:
        return None
