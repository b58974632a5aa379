"""Browser sessions: a signed cookie, and protection against other sites.

A session is stored nowhere. Its cookie contains its end and a signature made with the token, so it is valid on every
member of a group, survives a restart, and ends when the token is changed. A session that was logged out is remembered
until it would have ended. Forms contain a second signature, which pages of other sites cannot read, and their `Origin`
must be ours.
"""

import hashlib
import hmac
import secrets
import time
from dataclasses import dataclass
from typing import Any, Final

from pydantic import SecretStr

from connector.console.guarding import RefusedError, TokenGuard, is_same

LASTS_SECS: Final = 8 * 3_600
COOKIE: Final = "trackly_console"

_MAX_LOGGED_OUT: Final = 1_000


@dataclass(frozen=True, slots=True)
class Session:
    """A browser that has logged in. `csrf` is what its forms must contain."""

    name: str
    csrf: str
    ends_at: float


class Sessions:
    """Opens and recognises sessions. Their ends are Unix times, which are valid on other members as well."""

    def __init__(self) -> None:
        self._token_guard = TokenGuard()
        self._logged_out: dict[str, float] = {}

    def open(self, expected: SecretStr | None, given: str, remote: str | None) -> str:
        """Return the cookie of a new session; raises `RefusedError` unless this is the token."""
        self._token_guard.check(expected, given, remote)
        assert expected is not None
        name, ends_at = secrets.token_hex(16), int(time.time() + LASTS_SECS)
        return f"{ends_at:x}.{name}.{_signed(expected, f'session.{ends_at:x}.{name}')}"

    def known(self, expected: SecretStr | None, cookie: str | None) -> Session | None:
        """Return the session of a cookie, None if it is invalid, has ended or was logged out."""
        parts = (cookie or "").split(".")
        if expected is None or len(parts) != 3:
            return None
        ends, name, signature = parts
        right = is_same(signature, _signed(expected, f"session.{ends}.{name}"))
        if not right or int(ends, 16) < time.time() or name in self._logged_out:
            return None
        return Session(name, _signed(expected, f"form.{name}"), float(int(ends, 16)))

    def close(self, session: Session) -> None:
        """Log a browser out."""
        now = time.time()
        self._logged_out = {name: ends for name, ends in self._logged_out.items() if ends > now}
        if len(self._logged_out) < _MAX_LOGGED_OUT:
            self._logged_out[session.name] = session.ends_at


def _signed(token: SecretStr, text: str) -> str:
    key = hashlib.sha256(b"trackly console 1\0" + token.get_secret_value().encode()).digest()
    return hmac.new(key, text.encode(errors="surrogateescape"), hashlib.sha256).hexdigest()


def check_form(session: Session, given: str) -> None:
    """Raise `RefusedError` for a form that is not from a page of this session."""
    if not is_same(given, session.csrf):
        raise RefusedError(403, "the form is not of this session; go back, load the page again and repeat")


def check_origin(request: Any) -> None:
    """Raise `RefusedError` for a request from a page of another site.

    Browsers send the origin with every POST. A proxy may terminate TLS, so the scheme is not compared; it must not
    change `Host`.
    """
    origin = request.headers.get("Origin")
    if origin is None or origin.partition("://")[2] != request.host:
        raise RefusedError(403, "the request comes from another site, or a proxy does not forward Host")
    if request.headers.get("Sec-Fetch-Site", "same-origin") != "same-origin":
        raise RefusedError(403, "the request comes from another site")
