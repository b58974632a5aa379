"""Certificate and key files: the TLS settings of http connections, and whether the files are usable.

Python's own TLS errors often name only the step that failed, so each file is tried by itself first.
"""

import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from connector.config.model import FilePath, Model


class TlsSettings(Model):
    """Server and client certificates of the connection."""

    ca_file: FilePath | None = None
    """PEM file of the certificate authorities for the server; the usual ones when left out."""
    cert_file: FilePath | None = None
    """PEM file of a client certificate, if the server requires one."""
    key_file: FilePath | None = None
    """PEM file of the key of `cert_file`."""
    verify: bool = True
    """Whether certificates are verified at all. `false` sends keys and passwords to whoever answers: only for tests."""


def client_context(tls: TlsSettings) -> ssl.SSLContext:
    """Return the context of a client's connections; raises OSError for files that cannot be used."""
    context = ssl.create_default_context(cafile=tls.ca_file)
    if tls.cert_file is not None:
        load_pair(context, tls.cert_file, tls.key_file)
    if not tls.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


class Flaw(NamedTuple):
    """What is wrong with a file, and the setting at fault (`ca_file`, ...)."""

    setting: str
    message: str


def load_pair(context: ssl.SSLContext, cert: Path, key: Path | None) -> None:
    """Load a client certificate into a context.

    Raises OSError, also for an encrypted key: without a dummy password OpenSSL would prompt for one at the terminal,
    and wait.
    """
    context.load_cert_chain(cert, key, password=lambda: b"")


def flaws(
    ca: Path | None, cert: Path | None, key: Path | None, *, password: str | None = None, may_decrypt: bool = False
) -> Iterator[Flaw]:
    """Yield what is wrong with files that exist but cannot be used.

    `may_decrypt`: there is a setting `key_password` beside them.
    """
    bad = {name for name, file in (("ca_file", ca), ("cert_file", cert)) if _is_useless(file)}
    for name in sorted(bad):
        yield Flaw(name, "contains no usable certificate: it must be a PEM file (-----BEGIN CERTIFICATE-----)")
    if cert and key and cert.is_file() and key.is_file() and "cert_file" not in bad:
        yield from _flaw_of_key(cert, key, password=password, may_decrypt=may_decrypt)


def _is_useless(file: Path | None) -> bool:
    if file is None or not file.is_file():
        return False
    try:
        _context().load_verify_locations(file)
    except OSError:  # includes SSLError
        return True
    return False


def _flaw_of_key(cert: Path, key: Path, *, password: str | None, may_decrypt: bool) -> Iterator[Flaw]:
    is_encrypted = False

    def give() -> str:
        nonlocal is_encrypted
        is_encrypted = True
        return password or ""

    try:
        _context().load_cert_chain(cert, key, password=give)
    except (OSError, ValueError) as error:  # a password that is too long for OpenSSL
        if is_encrypted and not may_decrypt:
            message = (
                "is encrypted, which is not supported here: decrypt it (openssl pkey -in KEY -out NEW) "
                "and let nobody else read the file"
            )
            yield Flaw("key_file", message)
        elif is_encrypted and password is None:
            yield Flaw("key_file", "is encrypted: set key_password")
        elif is_encrypted:
            yield Flaw("key_password", "does not decrypt key_file")
        elif isinstance(error, ssl.SSLError) and error.reason == "KEY_VALUES_MISMATCH":
            yield Flaw("key_file", "is not the key of the certificate")
        elif isinstance(error, ssl.SSLError) and error.reason is not None:  # for instance a key that is too short
            yield Flaw("cert_file", f"is rejected by TLS: {error.reason.lower().replace('_', ' ')}")
        else:
            yield Flaw("key_file", "contains no usable key: it must be a PEM file (-----BEGIN PRIVATE KEY-----)")


def _context() -> ssl.SSLContext:
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
