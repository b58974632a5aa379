"""Formats of events: from a record's bytes to Python values.

`decoder_for` is the entry point. A format's module is imported only for streams with that format, since most formats
need an extra of the package.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, assert_never

from connector.config.formats import FormatSettings, FramedName, reader_schema
from connector.config.secrets import Secrets
from connector.config.settings import Settings
from connector.shaping.decoded import Decoder
from connector.shaping.formats.framed import KINDS, FramedDecoder
from connector.shaping.formats.schemas import SchemaRegistry

if TYPE_CHECKING:
    from connector.shaping.formats.avro import Pinned

__all__ = ["SchemaRegistry", "decoder_for", "open_registry", "pinned_schema", "registry_of"]


def registry_of(settings: Settings, secrets: Secrets) -> SchemaRegistry | None:
    """Return the registry of the settings, if any; credentials are read at each query."""
    registry = settings.schema_registry
    return None if registry is None else SchemaRegistry(registry, secrets)


@contextmanager
def open_registry(settings: Settings) -> Iterator[SchemaRegistry | None]:
    """Provide the registry of the settings, if any, while the context lasts."""
    registry = registry_of(settings, Secrets(settings))
    try:
        yield registry
    finally:
        if registry is not None:
            registry.close()


def decoder_for(settings: FormatSettings, registry: SchemaRegistry | None) -> Decoder | None:
    """Return the decoder of a format, None for plain JSON; `registry` must be given if the format needs one."""
    match settings.type:
        case "json":
            return None
        case "cloudevents":
            from connector.shaping.formats.cloudevents import CloudEventsDecoder  # noqa: PLC0415

            return CloudEventsDecoder(None if settings.framed is None else _framed(settings, settings.framed, registry))
        case framed:
            return _framed(settings, framed, registry)


def pinned_schema(settings: FormatSettings) -> "Pinned | None":
    """Return the schema that Avro values are resolved to; raises ValueError with what is wrong with it."""
    if settings.reader_schema_file is None:
        return None
    from connector.shaping.formats.avro import pin  # noqa: PLC0415

    return pin(reader_schema(settings.reader_schema_file))


def _framed(settings: FormatSettings, name: FramedName, registry: SchemaRegistry | None) -> FramedDecoder:
    """Return the decoder of a format whose values name their schema."""
    match name:
        case "avro":
            from connector.shaping.formats.avro import compile_avro  # noqa: PLC0415

            pinned = pinned_schema(settings)
            return FramedDecoder(KINDS[name], registry, lambda schema, _: compile_avro(schema, pinned))
        case "protobuf":
            from connector.shaping.formats.protobuf import ProtobufFiles, read_indexes  # noqa: PLC0415

            files = ProtobufFiles(settings.message)
            return FramedDecoder(KINDS[name], registry, files.reader, read_indexes=read_indexes)
        case "json_schema" if settings.validation:
            from connector.shaping.formats.json_schema import compile_json_schema  # noqa: PLC0415

            return FramedDecoder(KINDS[name], registry, lambda schema, _: compile_json_schema(schema))
        case "json_schema":
            return FramedDecoder(KINDS[name], None, None)
        case _ as never:
            assert_never(never)
