"""Formats of events: from a record's bytes to Python's values.

`decoder_for` is the way in. Each format's module is imported only where a stream has that format, as most of them need
an extra of the package.
"""

from collections.abc import Callable
from typing import Any, assert_never

from connector.config.formats import FormatSettings, FramedName, SchemaRegistrySettings, reader_schema
from connector.config.secrets import Secrets
from connector.shaping.decoded import Decoder
from connector.shaping.formats.framed import KINDS, FramedDecoder
from connector.shaping.formats.schemas import Credentials, SchemaRegistry

__all__ = ["SchemaRegistry", "decoder_for", "registry_for"]


def registry_for(settings: SchemaRegistrySettings, secrets: Secrets) -> SchemaRegistry:
    """Return a registry that is asked with the credentials of the settings, as they are by then."""

    def revealed(ask: Callable[[], Any]) -> Callable[[], str | None]:
        return lambda: None if (secret := ask()) is None else secret.get_secret_value()

    credentials = Credentials(settings.username, revealed(secrets.registry_password), revealed(secrets.registry_token))
    return SchemaRegistry(settings, credentials)


def decoder_for(settings: FormatSettings, registry: SchemaRegistry | None) -> Decoder | None:
    """Return what decodes a format, None for plain JSON; `registry` must be there where the format needs one."""
    match settings.type:
        case "json":
            return None
        case "cloudevents":
            from connector.shaping.formats.cloudevents import CloudEventsDecoder  # noqa: PLC0415

            return CloudEventsDecoder(None if settings.framed is None else _framed(settings, settings.framed, registry))
        case framed:
            return _framed(settings, framed, registry)


def _framed(settings: FormatSettings, name: FramedName, registry: SchemaRegistry | None) -> FramedDecoder:
    """Return what decodes a format whose values name their schema."""
    match name:
        case "avro":
            from connector.shaping.formats.avro import compile_avro  # noqa: PLC0415

            file = settings.reader_schema_file
            pinned = None if file is None else reader_schema(file)
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
