"""Values that name their schema: in a frame before the value, or in a header.

The frame is a byte 0 and the registry's schema id in four bytes; newer producers put the same, or a byte 1 and a GUID,
into the header `__value_schema_id` and leave the value bare. Records of a chunk nearly always share one schema, so this
is tried first: its reader is mapped over the values. A value that cannot be read gets a verdict, and the others
continue.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple
from uuid import UUID

from connector.config.formats import FramedName
from connector.core.chunks import Chunk, Headers
from connector.core.verdicts import SKIPPED, Verdict
from connector.shaping.decoded import Decoded, FormatAwayError
from connector.shaping.formats.schemas import EIGHT_BYTES, Schema, SchemaKey, SchemaRegistry
from connector.shaping.json_values import json_from
from connector.shaping.refusing import UndecodableError, refused, undecodable

HEADER: Final = "__value_schema_id"

_APICURIO: Final = "apicurio.value."
_APICURIO_HINT: Final = (
    f"it is in headers {_APICURIO}*: have the producer set apicurio.registry.headers.enabled to false, and before "
    "version 3 of Apicurio's serializers apicurio.registry.as-confluent to true"
)
"""The default of Apicurio's serializers in version 2."""

KINDS: Final[dict[FramedName, str]] = {"avro": "AVRO", "protobuf": "PROTOBUF", "json_schema": "JSON"}
"""The registry's name of each format."""

MAX_READS: Final = 1_000
"""Schemas, or messages of one, whose readers are cached."""

Read = Callable[[bytes, int], Any]
"""Reads a value from an offset on; may raise anything for one that cannot be read."""

_Place = tuple[SchemaKey, tuple[int, ...]]

ReadIndexes = Callable[[bytes, int], tuple[tuple[int, ...], int]]


class Frame(NamedTuple):
    """A record's schema, and the offset in the value where its data begins."""

    key: SchemaKey
    indexes: tuple[int, ...]
    """For Protobuf: of the message in the schema's file."""
    start: int


def frame_of(value: bytes, headers: Headers | None, read_indexes: ReadIndexes | None) -> Frame:
    """Return the frame of a record; raises `UndecodableError` if it has none."""
    for name, data in headers or ():
        if name == HEADER and data is not None:
            key, at = _key_in_header(data)
            return Frame(key, () if read_indexes is None else read_indexes(data, at)[0], 0)
    if len(value) < 5 or value[0] != 0:
        text = f"the value does not begin with the id of a schema, and no header {HEADER} has one"
        by_apicurio = any(name.startswith(_APICURIO) for name, _ in headers or ())
        raise UndecodableError("not_framed", f"{text}; {_APICURIO_HINT}" if by_apicurio else text)
    indexes, start = ((), 5) if read_indexes is None else read_indexes(value, 5)
    return Frame(int.from_bytes(value[1:5]), indexes, start)


def _key_in_header(data: bytes) -> tuple[SchemaKey, int]:
    if len(data) >= 5 and data[0] == 0:
        return int.from_bytes(data[1:5]), 5
    if len(data) >= 17 and data[0] == 1:
        return str(UUID(bytes=data[1:17])), 17
    raise UndecodableError("not_framed", f"the header {HEADER} has neither an id nor a GUID")


class FramedDecoder:
    """Decodes values of one format. Not thread-safe: one per stream.

    `compile_schema` returns the reader for a schema and the indexes of a message, or raises `UndecodableError`; without
    it no schema is needed, and values are JSON. `read_indexes` is for formats that have them.
    """

    def __init__(
        self,
        kind: str,
        registry: SchemaRegistry | None,
        compile_schema: Callable[[Schema, tuple[int, ...]], Read] | None,
        *,
        read_indexes: ReadIndexes | None = None,
    ) -> None:
        self._kind = kind
        self._registry = registry
        self._compile_schema = compile_schema
        self._read_indexes = read_indexes
        self._reads: OrderedDict[_Place, Read | Verdict] = OrderedDict()

    def decode(self, chunk: Chunk) -> Decoded:
        """Decode all records of a chunk; raises `FormatAwayError` if the registry is unavailable."""
        return self.decode_values(chunk.values, chunk.headers)

    def decode_values(self, values: Sequence[bytes | None], headers: Sequence[Headers | None] | None) -> Decoded:
        """Decode values, which may be some of a chunk's, with their headers."""
        decoded = Decoded([None] * len(values))
        shared = self._shared(values, headers)
        if shared is not None:
            self._read_all({shared: range(len(values))}, values, decoded)
            return decoded
        groups: dict[Frame, list[int]] = {}
        for index, value in enumerate(values):
            if value is None:
                decoded.bad[index] = SKIPPED
                continue
            try:
                frame = frame_of(value, None if headers is None else headers[index], self._read_indexes)
            except UndecodableError as error:
                decoded.bad[index] = undecodable(error)
            else:
                groups.setdefault(frame, []).append(index)
        self._read_all(groups, values, decoded)
        return decoded

    def _shared(self, values: Sequence[bytes | None], headers: Sequence[Headers | None] | None) -> Frame | None:
        """Return the frame of all values, None if they do not share one or must be examined one by one."""
        if self._read_indexes is not None or None in values:
            return None
        if headers is not None and any(name == HEADER for each in headers if each for name, _ in each):
            return None
        if len({value[:5] for value in values}) != 1:  # type: ignore[index] # no null is among them
            return None
        try:
            return frame_of(values[0], None, None)  # type: ignore[arg-type] # as above
        except UndecodableError:
            return None

    def _read_all(
        self, groups: Mapping[Frame, Sequence[int]], values: Sequence[bytes | None], decoded: Decoded
    ) -> None:
        """Read the values at the indices of each frame."""
        reads = self._reads_for(dict.fromkeys((frame.key, frame.indexes) for frame in groups))
        out, bad = decoded.values, decoded.bad
        for frame, indices in groups.items():
            read, start = reads[frame.key, frame.indexes], frame.start
            if isinstance(read, Verdict):
                bad.update(dict.fromkeys(indices, read))
                continue
            for index in indices:
                try:
                    out[index] = read(values[index], start)  # type: ignore[arg-type] # nulls have their verdict
                except Exception as error:  # noqa: BLE001 (decoders get arbitrary bytes)
                    bad[index] = undecodable(error)

    def _reads_for(self, places: Iterable[_Place]) -> dict[_Place, Read | Verdict]:
        """Return the reader for the values of each place, or their verdict.

        The registry's answer for an id may change, and is cached there; what a schema can be used for does not change.
        """
        reads: dict[_Place, Read | Verdict] = {}
        missing: list[_Place] = []
        for place in places:
            known = self._reads.get(place)
            if known is None:
                missing.append(place)
            else:
                reads[place] = known
                self._reads.move_to_end(place)
        if self._compile_schema is None:
            return dict.fromkeys(missing, _json)
        if not missing:
            return reads
        assert self._registry is not None, "the settings require it"
        found = self._registry.find(dict.fromkeys(key for key, _ in missing))
        for place in missing:
            key, indexes = place
            schema = found[key]
            if isinstance(schema, Verdict):
                reads[place] = schema
                continue
            reads[place] = self._reads[place] = self._reading(key, schema, indexes)
            if len(self._reads) > MAX_READS:
                self._reads.popitem(last=False)
        return reads

    def _reading(self, key: SchemaKey, schema: Schema, indexes: tuple[int, ...]) -> Read | Verdict:
        if schema.kind != self._kind:
            return refused("schema_unusable", f"schema {key} is {schema.kind}, and the format is {self._kind}")
        assert self._compile_schema is not None, "nothing is asked for without it"
        try:
            return self._compile_schema(schema, indexes)
        except UndecodableError as error:
            return refused(error.reason, f"schema {key}: {error}")
        except FormatAwayError:
            raise
        except Exception as error:  # noqa: BLE001 (and arbitrary schemas)
            return refused("schema_unusable", f"schema {key}: {type(error).__name__}: {error}")


def _json(value: bytes, start: int) -> Any:
    try:
        return json_from(value[start:])
    except UndecodableError as error:
        if start and not any(value[:start]):  # schema 0, which no registry has
            raise UndecodableError(error.reason, f"{error}{EIGHT_BYTES}") from None
        raise
