"""Decodes only the fields that a mapping uses from JSON, and skips the rest of a record.

Most mappings only follow fields. For them a record need not become a dict with everything in it: a struct of the used
fields takes half the time, and its contents are returned as columns.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from operator import attrgetter
from typing import Any, Final, NamedTuple

import msgspec

from connector.core.mapped import UNDECODABLE, mapped
from connector.core.utf8 import not_utf8

FieldPath = tuple[str, ...]
"""Field names from the outside in; the first is a root of the record."""


class Printed(NamedTuple):
    """A field that a template prints."""

    path: FieldPath
    instead: str | None = None
    """What is printed if the field is null or missing; None if only the template knows."""


_NO_OBJECT: Final = None | bool | int | float | str | list[Any]
MAX_NAMES: Final = 50
"""Maximum length of a path in a projection, whose types are nested as deeply."""

_FOLLOW: Final[dict[str, Callable[[Sequence[Any]], list[Any]]]] = {
    "f0": lambda column: [found.f0 for found in column],
    "f1": lambda column: [found.f1 for found in column],
    "f2": lambda column: [found.f2 for found in column],
    "f3": lambda column: [found.f3 for found in column],
    "f4": lambda column: [found.f4 for found in column],
    "f5": lambda column: [found.f5 for found in column],
}
"""Written out because the interpreter caches attribute offsets: half the time of other ways."""


class Projection:
    """Decodes the values at some paths below `value`, none of which extends another."""

    def __init__(self, paths: Iterable[FieldPath]) -> None:
        self._places: dict[FieldPath, str] = {}
        tree: dict[str, Any] = {}
        for path in sorted(paths):
            inner = tree
            for name in path:
                inner = inner.setdefault(name, {})
        kind = self._kind(tree["value"], ("value",))
        self._decode: Callable[[bytes | None], Any] = msgspec.json.Decoder(kind).decode  # type: ignore[assignment] # a null is a TypeError
        # An object, so that beside such a record the others are followed as fast as ever.
        self._nothing = msgspec.json.decode(b"{}", type=kind)

    def decode(self, values: Sequence[bytes | None]) -> tuple[list[Any], set[int]]:
        """Return what the paths need of each value, and the indices of values that must be decoded completely.

        Those are not JSON, not UTF-8, or null. In skipped fields, numbers may exceed any type.
        """
        whole: set[int] = set()

        def nothing(index: int, _error: Exception) -> Any:
            whole.add(index)
            return self._nothing

        found = mapped(self._decode, values, UNDECODABLE, nothing)
        whole |= not_utf8(values, whole)[1].keys()
        return found, whole

    def follow(self, column: Sequence[Any], path: FieldPath) -> list[Any]:
        """Return the last field of `path` for each item of the column before it; null if missing."""
        place = self._places[path]
        try:
            return _FOLLOW[place](column) if place in _FOLLOW else list(map(attrgetter(place), column))
        except AttributeError:  # not an object
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
    """Return a projection for these paths, None if there can be none.

    That is the case if a path needs the whole value, extends another or is very long, if none uses the value, or if
    msgspec cannot have such a field, because of a quote or a backslash in its name.
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
