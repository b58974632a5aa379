"""What can be a host, a server or a URL, so that a typing error is found before anything is resolved."""

import ipaddress
import re
from typing import Final
from urllib.parse import urlsplit

from pydantic import AfterValidator

_NAME: Final = re.compile(
    r"(?:[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?\.)*(?![0-9]+\.?$)[A-Za-z0-9_-]{1,63}\.?"
)
_MAX_NAME: Final = 253
_MAX_PORT: Final = 65_535


def _is_address(value: str) -> bool:
    """Return whether this is an IPv4 or IPv6 address."""
    try:
        ipaddress.ip_address(value)
    except ValueError:
        return False
    return True


def is_host(value: str) -> bool:
    """Return whether this can be a host: an address, or a name that does not end in a number."""
    return _is_address(value) or (len(value) <= _MAX_NAME and _NAME.fullmatch(value) is not None)


def _can_be_asked(value: str) -> bool:
    """Return whether this can be the host of a URL, where names may have letters of any script."""
    try:
        return is_host(value.encode("idna").decode())
    except UnicodeError:  # an empty or overlong label, for which resolvers raise the same error
        return False


def check_listening_host(value: str) -> str:
    """Return the host of an address to listen on; raises ValueError if it cannot be one."""
    if not is_host(value):
        raise ValueError(
            "must be the name of a host or an address, without a port: 127.0.0.1, or 0.0.0.0 for every interface"
        )
    return value


def check_servers(value: str) -> str:
    """Return a comma-separated list of `host:port`; errors do not repeat the value."""
    for number, server in enumerate(value.split(","), start=1):
        _check_server(server.strip(), number)
    return value


def _check_server(server: str, number: int) -> None:
    if "://" in server:
        raise ValueError(
            f"server {number} must be host:port, without a protocol before it: kafka.security.protocol says how to "
            "talk to the brokers"
        )
    host, colon, port = server.partition(":")
    if server.startswith("["):
        host, _, behind = server[1:].partition("]")
        rest, colon, port = behind.partition(":")
        if rest or ":" not in host or not _is_address(host):
            raise ValueError(f"server {number} must be host:port, with an IPv6 address in brackets")
    elif ":" in port:
        raise ValueError(f"server {number} must be host:port, with an IPv6 address in brackets, such as [::1]:9092")
    elif not is_host(host):
        raise ValueError(f"server {number} must be host:port, with the name or the address of a host")
    if colon and not (port.isascii() and port.isdecimal() and 1 <= int(port[:6]) <= _MAX_PORT):
        raise ValueError(f"server {number} must have a port from 1 to {_MAX_PORT}")


def check_url(value: str, *, instead: str = "") -> str:
    """Return an http(s) URL without a slash at its end; raises ValueError if it cannot be a base URL.

    `instead` says how to authenticate, since a user in the URL is rejected.
    """
    check_address(value)
    parts = urlsplit(value)
    if parts.username is not None or parts.password is not None:
        raise ValueError(f"must not contain a user name or password{instead}")
    if parts.query or parts.fragment:
        raise ValueError("must not contain a query or a fragment")
    return value.rstrip("/")


def url_by(instead: str = "") -> AfterValidator:
    """Return a validator for a URL; `instead` as in `check_url`."""
    return AfterValidator(lambda value: check_url(value, instead=instead))


def check_address(value: str) -> str:
    """Return an http(s) URL; raises ValueError for anything else, without repeating it."""
    if any(character.isspace() or not character.isprintable() for character in value):
        raise ValueError("must not contain white space or control characters")
    try:
        parts = urlsplit(value)
        port_is_valid = parts.port is None or parts.port > 0
    except ValueError:
        # `from None`: the message of urllib repeats parts of the URL, which may contain a password.
        raise ValueError("is not a valid address") from None
    if parts.scheme not in {"http", "https"} or not parts.hostname or not port_is_valid:
        raise ValueError("must start with http:// or https:// and contain a host")
    # Brackets are for addresses; names with other letters are encoded when connecting.
    bracketed = parts.netloc.rpartition("@")[2].startswith("[")
    if not (_is_address(parts.hostname) if bracketed else _can_be_asked(parts.hostname)):
        raise ValueError("must contain a host name or address")
    return value


def is_loopback(url: str) -> bool:
    """Return whether a URL stays on this machine, so that plain http reveals nothing."""
    host = urlsplit(url).hostname or ""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
