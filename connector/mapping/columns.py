"""The records of a chunk as a mapping sees them: a column for each field, created on first use."""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from contextlib import suppress
from operator import itemgetter
from typing import Any, Final

from connector.core.chunks import Chunk, Headers
from connector.mapping.expressions import Scope
from connector.mapping.projection import FieldPath, Projection

_DICT: Final = {dict}


class Columns:
    """Roots of the records of a chunk; `topic` is where they came from first.

    Keys and header values are text if they are UTF-8, otherwise Base64; of repeated headers the last counts.
    `timestamp` is in milliseconds since 1970, null if the record has none.
    """

    def __init__(
        self,
        chunk: Chunk,
        values: Sequence[Any],
        *,
        topic: str,
        attributes: Sequence[Mapping[str, Any] | None] | None = None,
        projection: Projection | None = None,
    ) -> None:
        """Take decoded values, or the result of a projection."""
        self.values = values
        self.topic = topic
        self._chunk = chunk
        self._attributes = attributes
        self._projection = projection
        self._made: dict[FieldPath, Sequence[Any]] = {("value",): values}

    def __len__(self) -> int:
        return len(self.values)

    def pick(self, indices: Sequence[int]) -> "Columns":
        """Return the records at `indices` (ascending)."""
        if len(indices) == len(self):
            return self
        attributes = None if self._attributes is None else [self._attributes[i] for i in indices]
        values = [self.values[i] for i in indices]
        return Columns(
            self._chunk.pick(indices), values, topic=self.topic, attributes=attributes, projection=self._projection
        )

    def with_values(self, values: Sequence[Any]) -> "Columns":
        """Return the same records with other decoded values."""
        other = Columns(self._chunk, values, topic=self.topic, attributes=self._attributes)
        other._made |= {path: made for path, made in self._made.items() if path[0] != "value"}
        return other

    def follow(self, path: FieldPath) -> Sequence[Any]:
        """Return a field of all records, by its root and the fields below it; null if it is missing."""
        for length in range(1, len(path) + 1):
            part = path[:length]
            if part not in self._made:
                self._made[part] = self._root(path[0]) if length == 1 else self._below(part)
        return self._made[path]

    def scopes(self, roots: frozenset[str]) -> list[Scope]:
        """Return these roots of each record, by name; not for a projection, which has no whole values."""
        assert self._projection is None
        names = sorted(roots)
        if names == ["value"]:
            return [{"value": value} for value in self.values]
        if not names:
            return [{}] * len(self)
        columns = [self.follow((name,)) for name in names]
        return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]

    def _below(self, path: FieldPath) -> Sequence[Any]:
        column, name = self._made[path[:-1]], path[-1]
        if self._projection is not None and path[0] == "value":
            return self._projection.follow(column, path)
        if _DICT.issuperset(map(type, column)):
            with suppress(KeyError):
                return list(map(itemgetter(name), column))
        return [found.get(name) if isinstance(found, Mapping) else None for found in column]

    def _root(self, root: str) -> Sequence[Any]:
        chunk, count = self._chunk, len(self)
        match root:
            case "key":
                return [None] * count if chunk.keys is None else _texts(chunk.keys)
            case "headers":
                empty: dict[str, str | None] = {}
                return [empty] * count if chunk.headers is None else [_by_name(headers) for headers in chunk.headers]
            case "topic":
                return [self.topic] * count
            case "timestamp":
                if chunk.timestamps is None:
                    return [None] * count
                return [at_ms if at_ms > 0 else None for at_ms in chunk.timestamps]
            case "attributes":
                return [None] * count if self._attributes is None else self._attributes
            case _:
                raise KeyError(root)


def as_text(value: bytes | None) -> str | None:
    """Return bytes as text: UTF-8, or Base64 if they are not UTF-8."""
    if value is None:
        return None
    try:
        return value.decode()
    except UnicodeDecodeError:
        return b64encode(value).decode("ascii")


def _texts(values: Sequence[bytes | None]) -> list[str | None]:
    try:
        return list(map(bytes.decode, values))  # type: ignore[arg-type] # a null is a TypeError
    except (TypeError, UnicodeDecodeError):
        return list(map(as_text, values))


def _by_name(headers: Headers | None) -> dict[str, str | None]:
    return {name: as_text(value) for name, value in headers} if headers else {}
