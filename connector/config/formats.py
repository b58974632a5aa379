"""The formats of events, and the schema registry.

Most formats need an extra of the package; if it is missing, this is reported when the settings are loaded, not with the
first record.
"""

import json
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Final, Literal, cast

from pydantic import BeforeValidator, Field

from connector.config.certificates import TlsSettings
from connector.config.hosts import url_by
from connector.config.model import FilePath, Model, Seconds, Secret, secret_by
from connector.config.trackly import check_api_key

FormatName = Literal["json", "cloudevents", "avro", "protobuf", "json_schema"]
FramedName = Literal["avro", "protobuf", "json_schema"]

PACKAGE: Final = "trackly-connector"

EXTRAS: Final[Mapping[str, tuple[str, tuple[str, ...]]]] = {
    "avro": ("avro", ("fastavro",)),
    "protobuf": ("protobuf", ("google.protobuf", "grpc_tools")),
    "json_schema": ("json-schema", ("jsonschema_rs",)),
}
"""By format: the extra that it needs, and the modules that come with it."""


def _expand(value: Any) -> Any:
    """Accept the short form, a name alone, for a format without settings of its own."""
    if not isinstance(value, str | dict | FormatSettings):
        raise ValueError("must be a name, such as avro, or a group of settings")  # noqa: TRY004 (pydantic reports it)
    return {"type": value} if isinstance(value, str) else value


class FormatSettings(Model):
    """Format of the values of a stream's records."""

    type: FormatName = "json"
    """`json`; `cloudevents`: CloudEvents 1.0, structured or binary; `avro`, `protobuf`, `json_schema`: framed with a
    schema id from the `schema_registry`."""
    data: Literal["json", "avro", "protobuf", "json_schema"] = "json"
    """For `cloudevents`: format of data in binary mode whose content type is neither JSON nor text; all but `json` are
    framed with a schema id."""
    reader_schema_file: FilePath | None = None
    """For `avro`: a schema (JSON) that every value is converted to by Avro's own rules; when left out, values have the
    fields that they were written with."""
    message: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_.]{0,499}$")] | None = None
    """For `protobuf`: full name of the expected message; any when left out."""
    validation: bool = True
    """For `json_schema`: whether values are validated against their schema, or only the frame is removed."""

    @property
    def framed(self) -> FramedName | None:
        """Return the format of values, or of data in CloudEvents, that have a frame with a schema id."""
        inner = self.data if self.type == "cloudevents" else self.type
        return None if inner in {"json", "cloudevents"} else cast(FramedName, inner)

    @property
    def needs_registry(self) -> bool:
        """Whether values cannot be read without their schemas."""
        return self.framed is not None and not (self.framed == "json_schema" and not self.validation)

    @property
    def missing_extra(self) -> str | None:
        """Return the missing extra that this format needs, or None."""
        if self.framed is None or not self.needs_registry:
            return None
        extra, modules = EXTRAS[self.framed]
        return None if all(map(_is_there, modules)) else extra


Format = Annotated[FormatSettings, BeforeValidator(_expand, json_schema_input_type=FormatName | FormatSettings)]


def _is_there(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # a missing parent package
        return False


MAX_READER_SCHEMA_BYTES: Final = 1_000_000


def reader_schema(file: Path) -> Any:
    """Return the parsed Avro schema of a file; raises ValueError with what is wrong with it."""
    import fastavro  # noqa: PLC0415 (comes with an extra)

    try:
        with file.open("rb") as opened:
            text = opened.read(MAX_READER_SCHEMA_BYTES + 1)
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from error
    if len(text) > MAX_READER_SCHEMA_BYTES:
        raise ValueError(f"has more than {MAX_READER_SCHEMA_BYTES:,} bytes")
    try:
        schema = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"is not JSON: {error}") from error
    try:
        return fastavro.parse_schema(schema)
    except Exception as error:
        raise ValueError(f"is not an Avro schema: {type(error).__name__}: {error}") from error


class SchemaRegistrySettings(Model):
    """A schema registry with Confluent's API, shared by the streams whose format needs it."""

    url: Annotated[str, url_by("; use schema_registry.username and password")]
    """Root of the API, such as `https://registry:8081`; of Apicurio Registry `http://host:8080/apis/ccompat/v7`."""
    username: Annotated[str, Field(min_length=1, pattern=r"^[^:\x00-\x1f]+$")] | None = None
    """User for basic authentication; needs `password`."""
    password: Secret | None = Field(default=None, min_length=1)
    """Password of `username`. Give it by reference; given by file, it is re-read at every probe of a hold and on
    SIGHUP."""
    token: Annotated[Secret, secret_by(check_api_key)] | None = None
    """Bearer token, instead of a user. Give it by reference, like `password`."""
    allow_plain_http: bool = False
    """Whether credentials may go to another machine over plain http, where anyone can read them."""
    tls: TlsSettings = Field(default_factory=TlsSettings)
    """Certificates."""
    timeout_secs: Annotated[Seconds, Field(le=60)] = 5.0
    """How long to wait for schemas, in seconds, before the stream holds and retries later."""
    cached_schemas: Annotated[int, Field(ge=1, le=100_000)] = 1_000
    """Schemas kept in memory; a schema never changes under its id."""
    unknown_id_secs: Annotated[float, Field(gt=0, le=86_400)] = 30.0
    """How long an id that the registry does not know is not looked up again, in seconds."""
    max_schema_bytes: Annotated[int, Field(ge=1_000, le=50_000_000)] = 1_000_000
    """Maximum size of an answer; records with a larger schema become dead letters (`schema_unusable`)."""
