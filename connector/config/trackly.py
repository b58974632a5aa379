"""How to reach the platform: address, key, time limits, TLS."""

import re
from typing import Annotated, Final

from pydantic import AfterValidator, Field

from connector.config.certificates import TlsSettings
from connector.config.hosts import check_address, url_by
from connector.config.model import Model, Seconds, Secret, secret_by

DEFAULT_BASE_URL = "https://app.tracklysms.com/api/v2"

_VARIABLE: Final = re.compile(r"\$[A-Z_][A-Z0-9_]*|%[A-Z_][A-Z0-9_]*%")
"""`$NAME` or `%NAME%`. Only rejected for generated keys and tokens; a password may look like this."""


def check_api_key(value: str) -> str:
    """Return the key if it is valid in a header; errors do not repeat it.

    The platform answers a key with stray white space like an unknown one (401), which would hold every stream; so this
    is reported here. So is an unexpanded shell variable, whose name anybody could guess.
    """
    if _VARIABLE.fullmatch(value):
        raise ValueError("must not be a shell variable, which is not expanded here: write ${env:NAME}")
    if any(character.isspace() for character in value):
        raise ValueError("must not contain white space (perhaps a line break at the end)")
    return check_header(value)


def check_header(value: str) -> str:
    """Return the value of a header if it is valid; errors do not repeat it."""
    if not value:
        raise ValueError("must not be empty")
    if value != value.strip():
        raise ValueError("must not begin or end with white space (perhaps a line break at the end)")
    if not (value.isascii() and value.isprintable()):
        raise ValueError("must contain only printable ASCII characters")
    return value


class TimeoutSettings(Model):
    """How long a request to the platform may take."""

    connect_secs: Seconds = 5.0
    """How long to wait for a connection, TLS included, in seconds."""
    total_secs: Seconds = 30.0
    """How long one request may take from its first byte to the last of the reply, in seconds. Generous on purpose: what
    is cut off here is in doubt."""


class TracklySettings(Model):
    """The platform's address and key, and how its connections are used."""

    base_url: Annotated[str, url_by("; the platform knows us by trackly.api_key")] = DEFAULT_BASE_URL
    """Root of the API; a trailing slash is dropped."""
    allow_plain_http: bool = False
    """Whether `base_url` may be plain http to another machine. The API key and every phone number are then sent
    unencrypted."""
    api_key: Annotated[Secret, secret_by(check_api_key)]
    """Key sent as `X-Api-Key`. Give it by reference; given by file, it is re-read at every probe of a hold and on
    SIGHUP."""
    timeouts: TimeoutSettings = Field(default_factory=TimeoutSettings)
    """Limits in time."""
    tls: TlsSettings = Field(default_factory=TlsSettings)
    """Certificates."""
    proxy: Annotated[str, AfterValidator(check_address)] | None = Field(default=None, repr=False)
    """HTTP proxy for the platform; may contain a user name and a password."""
    idle_connection_secs: Annotated[float, Field(ge=0, le=60)] = 4.0
    """How long an idle connection may be used again, in seconds. Short on purpose: a request written into a connection
    that the platform is closing is in doubt."""
    platform_idle_secs: Annotated[float, Field(gt=0, le=3_600)] = 60.0
    """How long the platform, or a load balancer in front of it, keeps an idle connection, in seconds.
    `idle_connection_secs` must stay below."""
    max_reply_bytes: Annotated[int, Field(ge=65_536, le=256_000_000)] = 4_000_000
    """Replies above this many bytes are not read to the end. Each request in flight may hold that many in memory; a
    reply that names all 1,000 records of a batch has some 200,000."""
