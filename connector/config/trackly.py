"""How to reach the platform: address, key, time limits, TLS."""

import ipaddress
import re
from typing import Annotated, Final
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

from connector.config.certificates import TlsSettings
from connector.config.hosts import can_be_asked, is_address
from connector.config.model import Model, Seconds, Secret, secret_by

DEFAULT_BASE_URL = "https://app.tracklysms.com/api/v2"

_VARIABLE: Final = re.compile(r"\$[A-Z_][A-Z0-9_]*|%[A-Z_][A-Z0-9_]*%")
"""`$NAME` or `%NAME%`. Keys and tokens are made by machines; a password may be so on purpose."""


def check_url(value: str, *, instead: str = "") -> str:
    """Return an http(s) address without the slash at its end; refuse what cannot be the root of other addresses.

    `instead` says how a server knows us, if not by a user in the address.
    """
    check_address(value)
    parts = urlsplit(value)
    if parts.username is not None or parts.password is not None:
        raise ValueError(f"must not hold a user or a password{instead}")
    if parts.query or parts.fragment:
        raise ValueError("must not hold a query or a fragment")
    return value.rstrip("/")


def url_by(instead: str = "") -> AfterValidator:
    """Return what has a URL checked; `instead` is that of `check_url`."""
    return AfterValidator(lambda value: check_url(value, instead=instead))


def check_address(value: str) -> str:
    """Return what is an http(s) address; raise ValueError for anything else, without repeating it."""
    if any(character.isspace() or not character.isprintable() for character in value):
        raise ValueError("must not hold white space or control characters")
    try:
        parts = urlsplit(value)
        port_is_valid = parts.port is None or parts.port > 0
    except ValueError:
        # `from None`: the message of urllib repeats parts of the address, which may hold a password.
        raise ValueError("is not a valid address") from None
    if parts.scheme not in {"http", "https"} or not parts.hostname or not port_is_valid:
        raise ValueError("must start with http:// or https:// and name a host")
    # Brackets are for addresses; a name of other letters is written in these by whoever connects.
    bracketed = parts.netloc.rpartition("@")[2].startswith("[")
    if not (is_address(parts.hostname) if bracketed else can_be_asked(parts.hostname)):
        raise ValueError("must hold the name or the address of a host")
    return value


def check_api_key(value: str) -> str:
    """Return the key when it can travel in a header as it is; say what is wrong with it without repeating it.

    The platform answers a key with stray white space like an unknown one (401), which would hold every
    stream; so the slip is named here instead. So is a variable in a shell's form, whose name anybody could guess.
    """
    if _VARIABLE.fullmatch(value):
        raise ValueError("must not be a variable as shells write it, which stays as it is here: write ${env:NAME}")
    if any(character.isspace() for character in value):
        raise ValueError("must not hold white space (a line break at its end, perhaps)")
    return check_header(value)


def check_header(value: str) -> str:
    """Return the value of a header when it can travel as it is; say what is wrong with it without repeating it."""
    if not value:
        raise ValueError("must not be empty")
    if value != value.strip():
        raise ValueError("must not begin or end with white space (a line break at its end, perhaps)")
    if not (value.isascii() and value.isprintable()):
        raise ValueError("must hold printable ASCII characters only")
    return value


def is_loopback(url: str) -> bool:
    """Tell whether an address stays on this machine, so that plain http gives nothing away."""
    host = urlsplit(url).hostname or ""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


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
    """Root of the API; a slash at its end is dropped."""
    allow_plain_http: bool = False
    """Whether `base_url` may be plain http to another machine. The API key and every phone number then travel in the
    clear."""
    api_key: Annotated[Secret, secret_by(check_api_key)]
    """Key sent as `X-Api-Key`. Give it by reference; given by file, it is read again at every probe of a hold and on
    SIGHUP."""
    timeouts: TimeoutSettings = Field(default_factory=TimeoutSettings)
    """Limits in time."""
    tls: TlsSettings = Field(default_factory=TlsSettings)
    """Certificates."""
    proxy: Annotated[str, AfterValidator(check_address)] | None = Field(default=None, repr=False)
    """HTTP proxy on the way to the platform; may hold a user and a password."""
    idle_connection_secs: Annotated[float, Field(ge=0, le=60)] = 4.0
    """How long an idle connection may be used again, in seconds. Short on purpose: a request written into a connection
    that the platform is closing is in doubt."""
    platform_idle_secs: Annotated[float, Field(gt=0, le=3_600)] = 60.0
    """How long the platform, or a load balancer before it, keeps an idle connection, in seconds. `idle_connection_secs`
    must stay below."""
    max_reply_bytes: Annotated[int, Field(ge=65_536, le=256_000_000)] = 4_000_000
    """Replies above this many bytes are not read to their end. So many may be held for each request under way; one that
    names all 1,000 records of a batch has some 200,000."""
